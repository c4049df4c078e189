"""One job, as a device is given it: what a cheat starts from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from verifiable import trace as traces
from verifiable.program import Program, parameter_root
from verifiable.submission import Submission
from verifiable.trace import Trace


@dataclass(frozen=True, eq=False, kw_only=True)
class Workload:
    """A program, its parameters and the inputs of one job.

    Attributes:
      program: the compiled program.
      params: the parameters that the job asks for.
      inputs: of the job.
      parameters: `parameter_root` of `params`, 32 bytes.
    """

    program: Program
    params: Any = field(repr=False)
    inputs: tuple[Any, ...] = field(repr=False)
    parameters: bytes

    @classmethod
    def of(cls, program: Program, params: Any, *inputs: Any) -> Self:
        """The job of a program.

        Raises:
          TypeError: a leaf of the parameters is not an array.
        """
        root = parameter_root(params)
        return cls(program=program, params=params, inputs=inputs, parameters=root)

    @cached_property
    def honest(self) -> Submission:
        """An honest run."""
        return self.run()

    def run(self, params: Any = None, inputs: tuple[Any, ...] | None = None) -> Submission:
        """Run the program and commit, with other parameters or another input where given.

        Whatever was run, the submission names the parameters of the job, as a cheat would.

        Raises:
          ValueError: another tree, shape or dtype than at compile time.
        """
        params = self.params if params is None else params
        sent = self.program.prove(params, *(self.inputs if inputs is None else inputs))
        return replace(sent, parameters=self.parameters)

    def submit(self, y: Any, values: Trace) -> Submission:
        """Commit to an answer and a trace, and name the program and parameters of the job.

        Raises:
          TypeError: answer or trace hold something other than arrays.
        """
        return Submission(
            y=y,
            trace=values,
            commitment=traces.commit(y, values).commitment,
            program=self.program.id,
            parameters=self.parameters,
        )

    def with_claim(self, index: int, value: Any) -> Submission:
        """Commit to an honest run in which one claim is another array."""
        values = list(self.honest.trace.values)
        values[index] = value
        return self.submit(self.honest.y, Trace(values=tuple(values)))

    @cached_property
    def other_inputs(self) -> tuple[Any, ...]:
        """Other inputs of the same shapes: every array is reversed, and its floats negated.

        They are the job's own only where all arrays read the same backwards.
        """

        def leaf(x: Any) -> Any:
            array = np.asarray(x)
            back = array.ravel()[::-1].reshape(array.shape)
            if jnp.issubdtype(array.dtype, jnp.floating):
                back = -back
            return jnp.asarray(back, array.dtype)

        return jax.tree.map(leaf, self.inputs)
