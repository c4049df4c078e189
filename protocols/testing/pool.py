"""Runs of all the workers of a fleet, made once, and the verdicts that they must get.

The reference verdicts are `Program.verify`, under keys of the pool's own: a coordinator that pays
for a run that they do not accept pays for a cheat. What they accept of a cheat must be within the
stated corridor (`verifiable.testing.cheat.allowed`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from protocols.messages import MAX_VALUE, AnswerForm
from verifiable import challenge
from verifiable.key import VerifierKey
from verifiable.program import Program
from verifiable.report import Report, Verdict
from verifiable.submission import Submission
from verifiable.testing.cheat import Cheat, allowed
from verifiable.testing.tampering import far_answer
from verifiable.testing.workload import Workload

DEVICES = 2
"""Honest devices of a pool: compiled, and op by op."""

Agrees = Callable[[Any, Any], bool]
"""Of a coordinator that compares answers, and no traces: whether an answer, the second, is as good
as the honest one by what the coordinator states."""


@dataclass(eq=False, kw_only=True)
class Pool:
    """Runs of a program and their reference verdicts.

    Attributes:
      program: the program.
      versions: two versions of the parameters.
      inputs: inputs of jobs.
      cheats: what cheating workers choose from.
      agrees: None if the coordinator verifies every run that it pays for.
    """

    program: Program
    versions: tuple[Any, Any] = field(repr=False)
    inputs: Sequence[tuple[Any, ...]] = field(repr=False)
    cheats: dict[str, Cheat] = field(repr=False)
    agrees: Agrees | None = None
    _works: dict[tuple[int, int], Workload] = field(default_factory=dict, repr=False)
    _keys: dict[int, VerifierKey] = field(default_factory=dict, repr=False)
    _runs: dict[tuple[Any, ...], Submission | None] = field(default_factory=dict, repr=False)
    _lies: dict[tuple[int, int], Any] = field(default_factory=dict, repr=False)
    _payable: dict[tuple[int, int, int], str | None] = field(default_factory=dict, repr=False)

    @property
    def form(self) -> AnswerForm:
        """How answers are revealed: their digest, where their bytes would not fit."""
        size = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(self.program.y))
        return AnswerForm.BYTES if size <= MAX_VALUE else AnswerForm.DIGEST

    def work(self, version: int, number: int) -> Workload:
        """The job of one version of the parameters and one input."""
        found = self._works.get((version, number))
        if found is None:
            found = Workload.of(self.program, self.versions[version], *self.inputs[number])
            self._works[version, number] = found
        return found

    def honest(self, version: int, number: int, device: int = 0) -> Submission:
        """An honest run, of one of the devices.

        Raises:
          ValueError: the check itself rejects it, before any coordinator is to blame.
        """
        key = (device % DEVICES, version, number)
        if key not in self._runs:
            sent = self._honest(self.work(version, number), device % DEVICES)
            report = self.report(version, number, sent)
            if report.verdict is Verdict.REJECT:
                raise ValueError(f"the check rejects an honest device: {report}")
            self._runs[key] = sent
        return _found(self._runs[key])

    def _honest(self, work: Workload, device: int) -> Submission:
        if device == 0:
            return work.honest
        with jax.disable_jit():
            return work.submit(*self.program.execute(work.params, *work.inputs))

    def cheated(self, version: int, number: int, name: str) -> Submission | None:
        """The run of a cheat; None if it can do nothing in this job."""
        key = ("cheat", version, number, name)
        if key not in self._runs:
            self._runs[key] = self.cheats[name].run(self.work(version, number))
        return self._runs[key]

    def stale(self, version: int, number: int) -> Submission:
        """The run of the other version of the parameters."""
        key = ("stale", version, number)
        if key not in self._runs:
            work = self.work(version, number)
            self._runs[key] = work.run(params=self.versions[1 - version])
        return _found(self._runs[key])

    def lie(self, version: int, number: int) -> Any:
        """Another answer than the honest one, which its worker has no trace of."""
        if (version, number) in self._lies:
            return self._lies[version, number]
        leaves, tree = jax.tree.flatten(self.honest(version, number).y)
        index = next(i for i, x in enumerate(leaves) if np.size(x))
        leaves[index] = far_answer(np.array(leaves[index]))
        self._lies[version, number] = jax.tree.unflatten(tree, leaves)
        return self._lies[version, number]

    def report(self, version: int, number: int, sent: Submission) -> Report:
        """The reference verdict on a run."""
        if version not in self._keys:
            secret = challenge.secret(bytes([version]) * 32)
            self._keys[version] = self.program.setup(self.versions[version], secret)
        work = self.work(version, number)
        return self.program.verify(
            self._keys[version],
            *work.inputs,
            sent,
            commitment=sent.commitment,
            parameters=work.parameters,
        )

    def unpayable(self, version: int, number: int, sent: Submission, answer: Any) -> str | None:
        """Why nobody may be paid for a run; None if it is as good as an honest one.

        Args:
          version: of the parameters that the job asks for.
          number: of its input.
          sent: the run; kept, so that the verdict is found once.
          answer: what the worker wants to be paid for.
        """
        if self.agrees is not None:
            own = self.honest(version, number).y
            return None if self.agrees(own, answer) else "its answer is not the honest one"
        if answer is not sent.y:
            return "its answer is not that of its trace"
        key = (version, number, id(sent))
        if key not in self._payable:
            self._runs["kept", id(sent)] = sent
            self._payable[key] = self._judged(version, number, sent)
        return self._payable[key]

    def _judged(self, version: int, number: int, sent: Submission) -> str | None:
        report = self.report(version, number, sent)
        if report.verdict is not Verdict.ACCEPT:
            return f"its run is a case of {report.verdict.value} ({report.reason})"
        if allowed(self.work(version, number), sent, report):
            return None
        return "its run changes the answer beyond the corridor"


def undecidable(inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Inputs with an infinity in the first float, which no run can be judged on; None without any.

    Args:
      inputs: pytrees of arrays.
    """
    leaves, tree = jax.tree.flatten(inputs)
    for i, x in enumerate(leaves):
        if jnp.issubdtype(x.dtype, jnp.floating) and np.size(x):
            array = np.array(x)
            array[(0,) * array.ndim] = np.inf
            leaves[i] = jnp.asarray(array, x.dtype)
            return jax.tree.unflatten(tree, leaves)
    return None


def _found(sent: Submission | None) -> Submission:
    if sent is None:
        raise ValueError("an honest device always hands something in")
    return sent
