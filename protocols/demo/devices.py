"""The job of the demo, and the devices that run it honestly.

A device is a name, whether it is honest, and a function from the job to a submission. Two honest
devices run the same job in different ways, so that their roundings differ; `protocols.demo.cheats`
has the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax

from protocols.demo.models import Encoder, Tokens
from protocols.demo.models.precision import Params
from verifiable import trace
from verifiable.program import Program
from verifiable.submission import Submission
from verifiable.testing.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoJob:
    """What every device is given.

    Attributes:
      model: the encoder and its parameters.
      root: `parameter_root` of these parameters, 32 bytes.
      program: the compiled program.
      texts: one user's texts.
      inputs: their token ids and attention mask.
    """

    model: Encoder
    root: bytes
    program: Program
    texts: tuple[str, ...]
    inputs: Tokens

    @property
    def work(self) -> Workload:
        """The job without its texts."""
        return Workload(
            program=self.program,
            params=self.model.params,
            inputs=self.inputs,
            parameters=self.root,
        )

    def run(self, params: Params | None = None, inputs: Tokens | None = None) -> Submission:
        """Run the program and commit, with other parameters or another input where given.

        Whatever was run, the submission names the parameters of the job, as a cheat would.
        """
        return self.work.run(params, inputs)

    def submit(self, y: Any, values: trace.Trace) -> Submission:
        """Commit to an answer and a trace, and name the program and parameters of the job."""
        return self.work.submit(y, values)


Run: TypeAlias = Callable[[DemoJob], Submission]


@dataclass(frozen=True, slots=True)
class Device:
    """One device: its name, whether it is honest, and what it does with a job."""

    name: str
    honest: bool
    run: Run


def jitted(job: DemoJob) -> Submission:
    """Run the program compiled as a whole."""
    return job.run()


def op_by_op(job: DemoJob) -> Submission:
    """Run one operation at a time, with other kernels and therefore other rounding."""
    with jax.disable_jit():
        return job.submit(*job.program.execute(job.model.params, *job.inputs))


HONEST = (
    Device("honest, compiled", honest=True, run=jitted),
    Device("honest, op by op", honest=True, run=op_by_op),
)
