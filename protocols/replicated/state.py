"""Values of replicated execution: rules, state, events and effects of one job.

All are frozen. An event carries the time at which the coordinator saw it, in seconds since
1970-01-01 UTC. An effect is a task for the caller: this package sends nothing and reads no clock.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from protocols.events import Tick
from protocols.messages import MAX_BALLOTS, Commit, Decision, Job, Reveal, Signed
from verifiable.challenge import Beacon
from verifiable.report import Verdict
from verifiable.voting.agreement import Agreement
from verifiable.voting.quorum import QuorumPolicy, Standing

# Rules.


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a beacon's rounds appear: round r at genesis + (r - 1) period, as drand defines it.

    Attributes:
      chain: name of the beacon.
      genesis: time of round 1, in seconds since 1970-01-01 UTC.
      period: seconds between rounds.
    """

    chain: str
    genesis: int
    period: int

    def __post_init__(self) -> None:
        """Raises ValueError for a period below one second."""
        if self.period < 1:
            raise ValueError(f"the period of a beacon must be at least 1 second, got {self.period}")

    def appears(self, number: int) -> int:
        """Time at which a round appears, in seconds since 1970-01-01 UTC."""
        return self.genesis + (number - 1) * self.period

    def after(self, now: int) -> int:
        """Number of the first round that appears after `now`."""
        return max(1, (now - self.genesis) // self.period + 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the coordinator decides by; the same for all jobs of a kind.

    Attributes:
      policy: how many ballots to request, and when they suffice.
      agreement: when two answers agree.
      decode: from a revealed value to the agreement's input. Must be a pure function. Where it
        raises, the ballot is malformed. Should bound what it decodes: `encoding.decode` takes the
        most bytes and the most items.
      beacon: rounds of the beacon that breaks ties.
      dispatches: the most workers that a job is sent to, replacements included.
      commit_seconds: time to run the job and commit.
      reveal_seconds: time to reveal.
      beacon_seconds: how long to wait for the beacon after its round is due.
      audit_seconds: time to open and check traces.
      window_seconds: how long to wait until a trusted worker's window closes.
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
        """Raises ValueError for a phase without time, or more workers than a decision can name."""
        if self.dispatches > MAX_BALLOTS:
            raise ValueError(
                f"a job is sent to at most {MAX_BALLOTS} workers, got dispatches={self.dispatches}"
            )
        names = "commit_seconds reveal_seconds beacon_seconds audit_seconds window_seconds"
        for name in ("dispatches", *names.split()):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


# State.


class Phase(enum.Enum):
    """Phase of a job."""

    COMMIT = "commit"
    REVEAL = "reveal"
    BEACON = "beacon"
    AUDIT = "audit"
    WINDOW = "window"
    ENDED = "ended"


class Place(enum.Enum):
    """How far a worker has come. ABSENT and VOID seats are vacant: other workers may fill them."""

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
      standing: its record of checks passed.
      place: how far it has come.
      commit: its commit, once received.
      reveal: its reveal, once received.
      verdict: verdict of the audit of its trace; None before.
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
          ValueError: it did not reveal.
        """
        if self.commit is None or self.reveal is None:
            raise ValueError(f"worker {self.worker.hex()} has no ballot: it has not revealed")
        return self.commit, self.reveal


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything known of one job. Keep reveals secret until the job has ended.

    Attributes:
      rules: what the coordinator decides by.
      job: the job.
      job_id: its digest.
      phase: its phase.
      now: time of the latest event; it never goes back.
      deadline: when the phase ends at the latest: send a `Tick` then.
      seats: every worker that the job was sent to, in the order drawn.
      reserve: workers drawn and not yet needed, with their standings.
      requested: ballots requested; a seat whose worker was replaced counts once.
      round: round of the beacon that breaks ties.
      beacon: its value.
      decision: how the job ended.
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


def seated(state: State) -> frozenset[bytes]:
    """Workers that the job was sent to: `messages.receive` decodes for no others."""
    return frozenset(seat.worker for seat in state.seats)


# Events: what happened, and when. `Tick` is shared by all protocols.


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A worker's message arrived; `messages.receive` has authenticated it for `seated(state)`."""

    at: int
    message: Signed[Commit] | Signed[Reveal]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A round of the beacon appeared; the caller has checked its signature."""

    at: int
    beacon: Beacon


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """The audit of a worker's trace ended.

    Attributes:
      at: when the coordinator learned it.
      worker: whose trace it is.
      verdict: of the audit. INDETERMINATE if the worker did not answer.
      convicted: whether evidence shows to others, who trust neither key nor coordinator, that the
        answer or the trace is wrong. Only with REJECT; most rejections are the coordinator's alone.
    """

    at: int
    worker: bytes
    verdict: Verdict
    convicted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a conviction without a rejection."""
        if type(self.convicted) is not bool:
            raise ValueError(f"convicted must be a boolean, got {self.convicted!r}")
        if self.convicted and self.verdict is not Verdict.REJECT:
            raise ValueError(f"only a rejection can convict, got {self.verdict.value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowClosed:
    """The window of a trusted worker's answer closed: cleared, or void."""

    at: int
    worker: bytes
    cleared: bool


Event: TypeAlias = Tick | Received | Drawn | Audited | WindowClosed


# Effects: tasks for the caller.


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """Send the job to a worker, which must commit before the deadline; `order` has the message."""

    worker: bytes
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Store a commit durably, and append `commit.message.digest` to the epoch's commitment log.

    Idempotent: a coordinator that replays its events gets the same `Record` again, which must not
    enter the log twice. `CommitmentLog.append` sees to that.
    """

    commit: Signed[Commit]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskReveal:
    """Tell a worker that commitments are closed, and that it must reveal before the deadline.

    `order` has the message. Workers reveal to nobody who does not show them one.
    """

    worker: bytes
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitBeacon:
    """Deliver this round of this beacon, and no other, as `Drawn`."""

    chain: str
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Ask for a committed trace and audit it; report `Audited`.

    `order` has the request. `audit.Auditor` takes the worker's upload, and compares the revealed
    value with the answer in the trace.
    """

    commit: Signed[Commit]
    reveal: Signed[Reveal]
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitWindow:
    """Put a trusted worker's answer into its window of audits; report `WindowClosed`."""

    reveal: Signed[Reveal]
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """An event was refused. This blames no worker: networks duplicate, delay and reorder messages.

    Attributes:
      worker: the worker that sent it, or that it concerns; empty for a beacon.
      reason: not-seated, other-job, other-epoch, too-early, too-late, duplicate, second-commit,
        opening-mismatch, other-beacon, or not-asked.
    """

    worker: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A worker missed a deadline. It loses its seat, and nothing else."""

    worker: bytes
    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """A worker was convicted: evidence shows to others that its answer or trace is wrong.

    The signatures of commit and reveal say whose answer and trace they are. A rejection without
    conviction has no such effect.
    """

    commit: Signed[Commit]
    reveal: Signed[Reveal]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclude:
    """The job has ended: announce the decision, signed. Comes once.

    Attributes:
      decision: final.
      value: the accepted answer as it was submitted; None if indeterminate.
    """

    decision: Decision
    value: bytes | None


Effect: TypeAlias = (
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

Transition: TypeAlias = tuple[State, tuple[Effect, ...]]
"""A new state, and the tasks that it brings, in this order."""
