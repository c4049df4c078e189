"""Workers gave different answers to one job: who is wrong, as their whole audits found.

Each is judged on its own trace (`LogClosed.rival` makes the audits whole), so all can be wrong, and
none: honest answers may differ by rounding. An audit that ended without a verdict shows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from protocols.audited.state import JobResult, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeFinding:
    """What the audits of different answers to one job found. Each worker is in one of the groups.

    Attributes:
      job: digest of the job.
      wrong: workers whose audits were rejected.
      right: workers whose audits passed.
      open: workers of whom nothing is shown: silent, undecided, or absent.
    """

    job: bytes
    wrong: tuple[bytes, ...] = field(default=())
    right: tuple[bytes, ...] = field(default=())
    open: tuple[bytes, ...] = field(default=())

    @classmethod
    def of(cls, results: Sequence[JobResult]) -> Self:
        """The finding of two or more results.

        Args:
          results: one for each worker that answered the job.

        Raises:
          ValueError: of different jobs, of one worker twice, of fewer than two workers, or one
            that was not audited: report the rival when the log is closed.
        """
        jobs, workers = {r.job for r in results}, {r.worker for r in results}
        if len(jobs) != 1 or not 2 <= len(workers) == len(results):
            raise ValueError("a dispute is about one job, and has one result for each worker")
        if any(r.outcome is Outcome.UNAUDITED for r in results):
            raise ValueError("a disputed job was not audited: report its rival in `LogClosed`")
        shown = {Outcome.REJECTED: "wrong", Outcome.PASSED: "right"}
        found: dict[str, tuple[bytes, ...]] = {}
        for r in results:
            group = shown.get(r.outcome, "open")
            found[group] = (*found.get(group, ()), r.worker)
        return cls(job=jobs.pop(), **found)

    def __str__(self) -> str:
        """Who is wrong: all, none, or which; and of whom nothing is shown."""
        if self.wrong and not self.right and not self.open:
            return "all are wrong"
        if not self.wrong and not self.open:
            return "none is wrong: the answers differ by rounding"
        groups = {"wrong": self.wrong, "right": self.right, "nothing shown of": self.open}
        return "; ".join(
            f"{name} {', '.join(worker.hex()[:16] for worker in workers)}"
            for name, workers in groups.items()
            if workers
        )
