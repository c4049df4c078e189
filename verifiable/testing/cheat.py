"""A cheat, the verdict that it must get, and what an accepted one may change.

A cheat is certain if what it sends is wrong whatever the numbers are. Any other is judged by what
it does: one that moves the answer by no more than the tolerance states may pass, and so may one
that changes nothing. Where the program is discontinuous, a wrong run may be indeterminate, which is
not a pass either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import jax

from verifiable.program import Program
from verifiable.report import Report, Verdict
from verifiable.submission import Submission
from verifiable.testing.consequence import Spread, within_corridor
from verifiable.testing.workload import Workload

Run: TypeAlias = Callable[[Workload], Submission | None]
"""What a cheat hands in for a job; None if it can do nothing that an honest device does not."""

MISMATCHES: Final = frozenset(
    "claim-mismatch claim-nonfinite claim-range claim-untaken rounding-mismatch decision-mismatch "
    "decision-ties lookup-mismatch table-mismatch cut-mismatch output-mismatch "
    "output-nonfinite".split()
)
"""Reasons of a run whose form is right and whose numbers are wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cheat:
    """A dishonest device.

    Attributes:
      name: what it is called.
      does: what it does, in a sentence.
      run: from a job to what it hands in.
      reasons: codes of `report.REASONS`, one of which it must be rejected for.
      certain: it is wrong whatever the numbers are, so that nothing but a rejection will do.
      applies: whether it can be tried on a program.
      compiles: it compiles a program of its own, which takes seconds.
      verdict: that it must get, where it does not pass by doing nothing that counts.
    """

    name: str
    does: str
    run: Run = field(repr=False)
    reasons: frozenset[str]
    certain: bool = False
    applies: Callable[[Program], bool] = field(default=lambda program: True, repr=False)
    compiles: bool = False
    verdict: Verdict = Verdict.REJECT

    def problem(self, work: Workload, sent: Submission, report: Report) -> str | None:
        """What is wrong with a verdict on this cheat; None if it is one that the cheat must get.

        Args:
          work: the job.
          sent: what the cheat handed in for it.
          report: on that, with the job's parameters given to `verify`.
        """
        found = f"{self.name}: {report.verdict.value}, {report.reason}"
        if report.verdict is self.verdict:
            return None if report.reason in self.reasons else f"{found}: another reason"
        if self.certain:
            return f"{found}: it must be rejected"
        if report.verdict is Verdict.INDETERMINATE or allowed(work, sent, report):
            return None
        return f"{found}: it changes the answer beyond the corridor"


def allowed(work: Workload, sent: Submission, report: Report) -> bool:
    """Whether what an accepted run answers is stated: nothing is changed, or not beyond tolerance.

    The answer is compared with those of two honest devices, compiled and op by op. A float that
    moved must be within `Program.corridor`; a choice that differs must be a near-tie that the
    report lists. Compiles a derivative if a float moved.

    Args:
      work: the job.
      sent: what was handed in for it.
      report: on that.
    """
    with jax.disable_jit():
        again, _ = work.program.execute(work.params, *work.inputs)
    honest = Spread.of([work.honest.y, again])
    if honest.chosen(sent.y) and not report.near_ties:
        return False
    return not honest.numbers(sent.y) or within_corridor(
        work.program, work.params, work.inputs, honest, sent.y
    )
