"""What replicated execution sees and says: rules, state, events and effects of one job.

All are frozen values. Events carry the time at which they happened, in seconds since 1970-01-01
UTC as the coordinator saw it. Effects are what the caller has to do: this package sends nothing and
reads no clock.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from protocols.messages import MAX_BALLOTS, Commit, Decision, Job, Reveal, Signed
from verifiable.challenge import Beacon
from verifiable.report import Verdict
from verifiable.voting.agreement import Agreement
from verifiable.voting.quorum import QuorumPolicy, Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a beacon's rounds appear: round r at genesis + (r - 1) period, as drand defines it.

    Attributes:
      chain: which beacon.
      genesis: time of round 1, in seconds since 1970-01-01 UTC.
      period: seconds between rounds.
    """

    chain: str
    genesis: int
    period: int

    def __post_init__(self) -> None:
        """Refuse a beacon that stands still."""
        if self.period < 1:
            raise ValueError(f"a beacon's period is positive, got {self.period}")

    def after(self, now: int) -> int:
        """The first round that appears after `now`."""
        return max(1, (now - self.genesis) // self.period + 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the coordinator decides by; the same for all jobs of a kind.

    Attributes:
      policy: how many ballots to ask for, and when they are enough.
      agreement: when two answers agree.
      decode: from a revealed value to what the agreement reads; raises `VerificationError` on bytes
        that are no answer. Must be a function of its argument.
      beacon: where ties are broken.
      dispatches: the most workers a job is sent to, replacements included.
      commit_seconds: time to run the job and commit.
      reveal_seconds: time to reveal.
      beacon_seconds: how long to wait for the beacon beyond the time that its round is due.
      audit_seconds: time to open and check traces.
      window_seconds: how long to wait for a trusted worker's window to close.
    """

    policy: QuorumPolicy
    agreement: Agreement
    decode: Callable[[bytes], Any]
    beacon: Schedule
    dispatches: int
    commit_seconds: int
    reveal_seconds: int
    beacon_seconds: int
    audit_seconds: int
    window_seconds: int

    def __post_init__(self) -> None:
        """Refuse phases without time, and more workers than a decision can name."""
        if self.dispatches > MAX_BALLOTS:
            raise ValueError(f"a job is sent to {MAX_BALLOTS} workers at most")
        names = "commit_seconds reveal_seconds beacon_seconds audit_seconds window_seconds"
        for name in ("dispatches", *names.split()):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is positive, got {getattr(self, name)}")


class Phase(enum.Enum):
    """Where a job stands."""

    COMMIT = "commit"
    REVEAL = "reveal"
    BEACON = "beacon"
    AUDIT = "audit"
    WINDOW = "window"
    ENDED = "ended"


class Place(enum.Enum):
    """Where a worker stands. ABSENT and VOID seats are vacant, and may be filled by others."""

    DISPATCHED = "dispatched"
    COMMITTED = "committed"
    REVEALED = "revealed"
    ABSENT = "absent"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One worker that the job was sent to.

    Attributes:
      worker: its identity.
      standing: what is known of it.
      place: how far it has come.
      commit: what it committed to.
      reveal: what it revealed.
      verdict: of the audit of its trace; None before.
    """

    worker: bytes
    standing: Standing
    place: Place = Place.DISPATCHED
    commit: Signed[Commit] | None = None
    reveal: Signed[Reveal] | None = None
    verdict: Verdict | None = None

    @property
    def ballot(self) -> tuple[Signed[Commit], Signed[Reveal]]:
        """Commit and reveal of a worker that revealed.

        Raises:
          ValueError: it did not.
        """
        if self.commit is None or self.reveal is None:
            raise ValueError("a seat without a ballot")
        return self.commit, self.reveal


# Events: what happened, and when.


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time went by."""

    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A worker's message came; `messages.receive` has authenticated it."""

    at: int
    message: Signed[Commit] | Signed[Reveal]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A round of the beacon appeared, and its signature has been checked."""

    at: int
    beacon: Beacon


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """The audit of a worker's trace ended.

    REJECT only where a proof or a deterministic recomputation shows the answer or its trace wrong,
    so that others can be shown it. An audit that got no answer is INDETERMINATE.
    """

    at: int
    worker: bytes
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowClosed:
    """The window that holds a trusted worker's answer closed: cleared, or void."""

    at: int
    worker: bytes
    cleared: bool


Event = Tick | Received | Drawn | Audited | WindowClosed


# Effects: what the caller has to do.


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """Send the job to a worker, to commit by the deadline."""

    worker: bytes
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Keep a commit durably, and append `commit.message.digest` to the epoch's commitment log."""

    commit: Signed[Commit]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskReveal:
    """Tell a worker that commitments are closed, and to reveal by the deadline."""

    worker: bytes
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitBeacon:
    """Deliver this round of this beacon as `Drawn`; no other will do."""

    chain: str
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Audit the trace that a worker committed to, and that its answer is the trace's; `Audited`."""

    commit: Signed[Commit]
    reveal: Signed[Reveal]
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitWindow:
    """Put a trusted worker's answer into its window of audits; `WindowClosed`."""

    reveal: Signed[Reveal]
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """A message was turned away. That is no blame: networks duplicate, delay and reorder.

    Attributes:
      worker: who sent it, or whom it concerns; empty for a beacon.
      reason: not-seated, other-job, other-epoch, too-early, too-late, duplicate, second-commit,
        opening-mismatch, other-beacon, or not-asked.
    """

    worker: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A worker let a deadline pass. It loses its seat, and nothing else."""

    worker: bytes
    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """An audit showed a worker's answer or trace wrong: with its signatures, this is evidence."""

    commit: Signed[Commit]
    reveal: Signed[Reveal]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclude:
    """The job has ended; comes once.

    Attributes:
      decision: final.
      value: the accepted answer as it was submitted; None where indeterminate.
    """

    decision: Decision
    value: bytes | None


Effect = (
    Dispatch
    | Record
    | AskReveal
    | AwaitBeacon
    | Audit
    | AwaitWindow
    | Refuse
    | Absent
    | Blame
    | Conclude
)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that is known of one job. Nothing of a reveal may leave the coordinator before it ends.

    Attributes:
      rules: what is decided by.
      job: the job.
      job_id: its digest.
      phase: where it stands.
      now: time of the latest event; it never goes back.
      deadline: when the phase ends at the latest: wake up with a `Tick` then.
      seats: every worker that the job was sent to, in the order drawn.
      reserve: workers drawn and not yet needed, with their standings.
      requested: ballots requested; a seat whose worker was replaced counts once.
      round: round of the beacon that ties are broken with.
      beacon: its value.
      decision: how it ended.
    """

    rules: Rules
    job: Job
    job_id: bytes
    phase: Phase
    now: int
    deadline: int
    seats: tuple[Seat, ...]
    reserve: tuple[tuple[bytes, Standing], ...]
    requested: int
    round: int | None = None
    beacon: Beacon | None = None
    decision: Decision | None = None
