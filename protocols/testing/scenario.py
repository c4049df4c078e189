"""Who takes part in a scenario, what each does, and what the network does to its messages."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Role(enum.Enum):
    """What a worker does with its jobs. HONEST and HASTY may be paid, and REPLAYING once."""

    HONEST = "honest"
    HASTY = "hasty"
    """Honest, but hands its run in before it is asked to, and again when it is."""
    CHEATING = "cheating"
    """Commits to the run of a cheat of the catalogue."""
    STALE = "stale"
    """Runs the parameters of the other version."""
    LYING = "lying"
    """Runs and commits honestly, and asks to be paid for another answer."""
    SWITCHING = "switching"
    """Commits to another run than the honest one that it hands in."""
    SILENT = "silent"
    VANISHING = "vanishing"
    """Commits, and hands nothing in."""
    COPYING = "copying"
    """Repeats the commitment of an honest worker, and its run once that is handed in."""
    FISHING = "fishing"
    """Commits to the run of an honest worker once that is handed in."""
    FORGING = "forging"
    """Runs the parameters of the other version, and commits in the name of an honest worker."""
    REPLAYING = "replaying"
    """Honest in the first job; later, hands in a run of that one."""
    UNSEATED = "unseated"
    """Runs and commits honestly for a job that was not sent to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What the network does to a message.

    Attributes:
      delay: seconds until it arrives; messages overtake each other, and come too late.
      again: seconds after which it arrives once more; None if it does not.
      lost: whether it never arrives.
    """

    delay: int = 1
    again: int | None = None
    lost: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a delay below one second."""
        if self.delay < 1 or (self.again is not None and self.again < 1):
            raise ValueError(f"a delay must be at least 1 second, got {self.delay}, {self.again}")


PROMPT = Delivery()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """What one worker does in one job.

    Attributes:
      role: what it does.
      cheat: name of the cheat, of a cheating worker.
      device: number of the honest device that it runs on.
      waits: seconds until it commits.
      named: of a copying worker, whether it copies under the name of whom it copies.
      commit: what the network does to its commitment.
      run: likewise to its run.
    """

    role: Role
    cheat: str | None = None
    device: int = 0
    waits: int = 1
    named: bool = True
    commit: Delivery = PROMPT
    run: Delivery = PROMPT


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """One job.

    Attributes:
      workers: the plans; the n-th is of the n-th worker, in every job.
      input: number of the input, of those that the fleet has.
      version: 0 or 1: of the parameters.
    """

    workers: tuple[WorkerPlan, ...]
    input: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is played: jobs, one after the other.

    Attributes:
      jobs: the jobs.
      crashes: seconds after the start at which the coordinator is killed.
      seed: 32 bytes, for what the coordinator draws.
    """

    jobs: tuple[JobPlan, ...]
    crashes: tuple[int, ...] = ()
    seed: bytes = bytes(32)
