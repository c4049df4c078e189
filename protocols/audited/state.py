"""Values of audits of a part: rules, state, events and effects of one job at one worker.

All are frozen. An event carries the time at which the coordinator saw it, in seconds since
1970-01-01 UTC. An effect is a task for the caller: this package sends nothing and reads no clock.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from protocols.audited.receipt import AnswerReceipt, TraceReceipt
from protocols.events import Tick
from protocols.messages import Job, Signed
from protocols.replicated import Schedule
from verifiable.challenge import Beacon, ClosedLog
from verifiable.report import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialRules:
    """What the coordinator decides by; the same for all jobs of a kind.

    Attributes:
      beacon: rounds of the beacon that draws.
      rate: share of the jobs that are audited, in (0, 1].
      layers: how many layers of an audited job are opened; all of a disputed one are.
      rows: how many rows of each; None for all.
      receipt_seconds: time to run the job and send the receipt.
      log_seconds: how long a log may stay open after the last moment for what enters it.
      beacon_seconds: how long to wait for the beacon after its round is due.
      trace_seconds: time of an audited worker to run the job with its trace, and commit to it.
      opening_seconds: time to open what is asked for.
      judging_seconds: time that the coordinator takes to judge an opening.
    """

    beacon: Schedule
    rate: float
    layers: int
    rows: int | None
    receipt_seconds: int
    log_seconds: int
    beacon_seconds: int
    trace_seconds: int
    opening_seconds: int
    judging_seconds: int

    def __post_init__(self) -> None:
        """Raises ValueError for a rate outside of (0, 1], and counts or times below 1."""
        if not 0.0 < self.rate <= 1.0:
            raise ValueError(f"the share of jobs that are audited lies in (0, 1], got {self.rate}")
        stages = "receipt log beacon trace opening judging".split()
        rows = () if self.rows is None else ("rows",)
        for name in ("layers", *rows, *(f"{stage}_seconds" for stage in stages)):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")


class Stage(enum.Enum):
    """How far a job has come."""

    RECEIPT = "receipt"
    LOG = "log"
    DRAW = "draw"
    TRACE = "trace"
    TRACE_LOG = "trace-log"
    UNITS = "units"
    OPENING = "opening"
    JUDGING = "judging"
    ENDED = "ended"


class Outcome(enum.Enum):
    """How a job ended for its worker. Only the first two are paid."""

    UNAUDITED = "unaudited"
    PASSED = "passed"
    REJECTED = "rejected"
    SILENT = "silent"
    """Audited, and committed to no trace or opened nothing in time: never a pass, and no proof."""
    UNDECIDED = "undecided"
    """The audit was indeterminate, or nobody could draw: audit the job whole, or run it again."""
    ABSENT = "absent"
    """No receipt came in time."""

    @property
    def paid(self) -> bool:
        """Whether the worker has earned the reward of the job."""
        return self in (Outcome.UNAUDITED, Outcome.PASSED)

    @property
    def forfeits(self) -> bool:
        """Whether the no-show bond of the job is forfeit: the audit was not passed, by its worker.

        It is no stake, and proves nothing. If a rejection did not forfeit it, garbage would be a
        cheaper answer to an audit than silence.
        """
        return self in (Outcome.SILENT, Outcome.REJECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialState:
    """Everything known of one job at one worker.

    Attributes:
      rules: what the coordinator decides by.
      job: the job.
      job_id: its digest.
      worker: identity of the worker.
      stage: how far it has come.
      now: time of the latest event; it never goes back.
      deadline: when the stage ends at the latest: send a `Tick` then.
      receipt: of the worker's answer, once received.
      received: when the latest of its two receipts came.
      log: the closed log of answers, which holds the receipt.
      rival: the receipt of another worker, for another answer to this job: both are audited.
      round: of the beacon, of the latest draw.
      trace: receipt of the trace, if the job is audited.
      trace_log: the closed log of traces, which holds that receipt.
      ask: what the worker was asked to open.
      content: digest of the opening that came.
      result: how the job ended.
    """

    rules: PartialRules
    job: Job
    job_id: bytes
    worker: bytes
    stage: Stage
    now: int
    deadline: int
    receipt: Signed[AnswerReceipt] | None = None
    received: int | None = None
    log: ClosedLog | None = None
    rival: Signed[AnswerReceipt] | None = None
    round: int | None = None
    trace: Signed[TraceReceipt] | None = None
    trace_log: ClosedLog | None = None
    ask: AskOpening | None = None
    content: bytes | None = None
    result: JobResult | None = None


# Events: what happened, and when. `Tick` is shared by all protocols.


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptCame:
    """A receipt of an answer arrived; `messages.receive` has authenticated it.

    The caller keeps the answer, and has compared its digest with the receipt.
    """

    at: int
    receipt: Signed[AnswerReceipt]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogClosed:
    """The log of answers was closed, with the receipt in it.

    Attributes:
      at: when it came.
      log: the closed log.
      rival: an authenticated receipt in the same log, by which another worker gave an answer to
        this job that disagrees: both jobs are then audited, whatever the draw. None if there is no
        such receipt; of several, any.
    """

    at: int
    log: ClosedLog
    rival: Signed[AnswerReceipt] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceCame:
    """A receipt of a trace arrived; `messages.receive` has authenticated it."""

    at: int
    receipt: Signed[TraceReceipt]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceLogClosed:
    """The log of traces was closed, with the receipt of the trace in it."""

    at: int
    log: ClosedLog


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSeen:
    """A round of the beacon appeared; the caller has checked its signature."""

    at: int
    beacon: Beacon


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningCame:
    """An opening arrived, signed by the worker as its answer. The first one counts.

    Attributes:
      at: when it came, whole.
      content: `messages.content_digest` of its bytes, which the caller keeps.
    """

    at: int
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningJudged:
    """The opening was judged: `judging.Judge`.

    Attributes:
      at: when.
      content: digest of the opening.
      verdict: on the opened part and the answer.
      reason: of the verdict, one of `report.REASONS`, or `answer-mismatch`.
    """

    at: int
    content: bytes
    verdict: Verdict
    reason: str


PartialEvent: TypeAlias = (
    Tick
    | ReceiptCame
    | LogClosed
    | TraceCame
    | TraceLogClosed
    | RoundSeen
    | OpeningCame
    | OpeningJudged
)


# Effects: tasks for the caller.


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterLog:
    """Append `receipt.message.digest` to the log of answers of the epoch, durably.

    Close the log when its epoch ends, before the next round of the beacon is known; announce its
    head to the workers in it, and report `LogClosed` to every job in it.
    """

    receipt: Signed[AnswerReceipt]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskTrace:
    """Tell the worker that its job is audited: it commits to a trace; report `TraceCame`.

    Attributes:
      receipt: of the answer that the trace must have.
      deadline: after which no trace counts.
    """

    receipt: Signed[AnswerReceipt]
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterTraceLog:
    """Append `receipt.message.digest` to the log of traces of the epoch, durably.

    As `EnterLog`: close it before the next round is known, and report `TraceLogClosed`.
    """

    receipt: Signed[TraceReceipt]


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitRound:
    """Deliver this round of this beacon, and no other, as `RoundSeen`."""

    chain: str
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOpening:
    """Ask the worker to open what the plan of this seed asks for; report `OpeningCame`.

    Attributes:
      receipt: of the answer.
      trace: whose commitment is opened.
      seed: 32 bytes.
      layers: as of the rules; None for all, with all their rows, if the job is disputed.
      rows: likewise; None for all.
      deadline: after which no opening counts.
    """

    receipt: Signed[AnswerReceipt]
    trace: Signed[TraceReceipt]
    seed: bytes
    layers: int | None
    rows: int | None
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOpening:
    """Judge the opening that came, by `judging.Judge`; report `OpeningJudged` before the deadline.

    Attributes:
      ask: what it answers.
      content: digest of its bytes.
      deadline: after which the job is undecided.
    """

    ask: AskOpening
    content: bytes
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """The job has ended. Comes once.

    Attributes:
      worker: identity of the worker.
      job: digest of the job.
      outcome: how it ended.
      reason: of the verdict, if there is one; else the name of the outcome.
    """

    worker: bytes
    job: bytes
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseEvent:
    """An event was refused. This blames no worker: networks duplicate, delay and reorder messages.

    Attributes:
      worker: the worker of the job.
      reason: other-job, other-epoch, other-worker, other-receipt, duplicate, second-receipt,
        second-trace, second-opening, other-opening, no-rival, too-late, not-asked, other-beacon, or
        early-beacon.
    """

    worker: bytes
    reason: str


PartialEffect: TypeAlias = (
    EnterLog
    | AwaitRound
    | AskTrace
    | EnterTraceLog
    | AskOpening
    | JudgeOpening
    | JobResult
    | RefuseEvent
)
