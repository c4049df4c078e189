"""One job at one worker: two commitments, two draws, and the opening of what was drawn.

    RECEIPT    the worker sends the receipt of its answer; the first one counts
    LOG        the log of answers closes: nobody can give another answer any more
    DRAW       the next round of the beacon says whether the job is audited; a disputed one is
    TRACE      the worker commits to a trace of its answer, or is silent; the first one counts
    TRACE_LOG  the log of traces closes: nobody can commit to another trace any more
    UNITS      the next round of the beacon is the seed of what is opened
    OPENING    the worker opens what the plan of the seed asks for, or is silent
    JUDGING    the coordinator judges the first opening that came; its own delay blames nobody
    ENDED      one `JobResult`; every later event is refused

`step(state, event) -> (state, effects)` is a pure function. Every stage has a deadline, so every
run ends. A worker that is not audited makes no trace. Neither worker nor coordinator can draw
again (`draw`). Rules: specs/audited.md.
"""

from __future__ import annotations

from dataclasses import replace

from protocols.audited.draw import audited, job_seed, unit_seed
from protocols.audited.receipt import AnswerReceipt, TraceReceipt
from protocols.audited.state import (
    AskOpening,
    AskTrace,
    AwaitRound,
    EnterLog,
    EnterTraceLog,
    JobResult,
    JudgeOpening,
    LogClosed,
    OpeningCame,
    OpeningJudged,
    Outcome,
    PartialEffect,
    PartialEvent,
    PartialRules,
    PartialState,
    ReceiptCame,
    RefuseEvent,
    RoundSeen,
    Stage,
    TraceCame,
    TraceLogClosed,
)
from protocols.events import Tick
from protocols.messages import Job
from verifiable.challenge import Beacon, ClosedLog
from verifiable.report import Verdict

Moved = tuple[PartialState, tuple[PartialEffect, ...]]

_OUTCOMES = {
    Verdict.ACCEPT: Outcome.PASSED,
    Verdict.REJECT: Outcome.REJECTED,
    Verdict.INDETERMINATE: Outcome.UNDECIDED,
}
_MISSED = {
    Stage.RECEIPT: Outcome.ABSENT,
    Stage.LOG: Outcome.UNDECIDED,
    Stage.DRAW: Outcome.UNDECIDED,
    Stage.TRACE: Outcome.SILENT,
    Stage.TRACE_LOG: Outcome.UNDECIDED,
    Stage.UNITS: Outcome.UNDECIDED,
    Stage.OPENING: Outcome.SILENT,
    Stage.JUDGING: Outcome.UNDECIDED,
}


def start(job: Job, worker: bytes, rules: PartialRules, *, now: int) -> Moved:
    """Wait for the receipt of a job that was sent to a worker.

    Args:
      job: the job.
      worker: its identity.
      rules: what the coordinator decides by.
      now: the time, in seconds since 1970-01-01 UTC.

    Raises:
      ValueError: the job has expired.
    """
    if now >= job.expiry:
        raise ValueError(f"the job expired at {job.expiry}, and it is {now}")
    state = PartialState(
        rules=rules,
        job=job,
        job_id=job.digest,
        worker=worker,
        stage=Stage.RECEIPT,
        now=now,
        deadline=min(now + rules.receipt_seconds, job.expiry),
    )
    return state, ()


def step(state: PartialState, event: PartialEvent) -> Moved:
    """The transition that an event causes. Never raises, whatever a device sent.

    Args:
      state: from `start` or `step`.
      event: what happened. A time before that of an earlier event is taken as that earlier time.

    Returns:
      The new state, and the tasks for the caller, in this order.
    """
    if event.at > state.now:
        state = replace(state, now=event.at)
    effects: tuple[PartialEffect, ...] = ()
    if state.stage is not Stage.ENDED and state.now >= state.deadline:
        outcome = _MISSED[state.stage]
        state, effects = _end(state, outcome, outcome.value)
    match event:
        case Tick():
            more: tuple[PartialEffect, ...] = ()
        case ReceiptCame():
            state, more = _receipt(state, event)
        case LogClosed():
            state, more = _closed(state, event)
        case TraceCame():
            state, more = _traced(state, event)
        case TraceLogClosed(log=log):
            state, more = _traces_closed(state, log)
        case RoundSeen(beacon=beacon):
            state, more = _drawn(state, beacon)
        case OpeningCame(content=content):
            state, more = _opened(state, content)
        case OpeningJudged():
            state, more = _judged(state, event)
    return state, effects + more


def _receipt(state: PartialState, event: ReceiptCame) -> Moved:
    if reason := _misdirected(state, event.receipt.message):
        return _refused(state, reason)
    if state.receipt is not None:
        same = state.receipt.message == event.receipt.message
        return _refused(state, "duplicate" if same else "second-receipt")
    if state.stage is not Stage.RECEIPT:
        return _refused(state, "too-late")
    deadline = state.deadline + state.rules.log_seconds
    state = replace(
        state, stage=Stage.LOG, deadline=deadline, receipt=event.receipt, received=state.now
    )
    return state, (EnterLog(receipt=event.receipt),)


def _closed(state: PartialState, event: LogClosed) -> Moved:
    if state.stage is not Stage.LOG:
        return _refused(state, _late(state))
    rival = event.rival
    if rival is not None and not _disputes(state, rival.message):
        return _refused(state, "no-rival")
    return _awaiting(replace(state, log=event.log, rival=rival), state, event.log, Stage.DRAW)


def _traced(state: PartialState, event: TraceCame) -> Moved:
    message = event.receipt.message
    if reason := _misdirected(state, message):
        return _refused(state, reason)
    if state.trace is not None:
        same = state.trace.message == message
        return _refused(state, "duplicate" if same else "second-trace")
    if state.stage is not Stage.TRACE or state.receipt is None:
        return _refused(state, _late(state))
    if message.receipt != state.receipt.message.digest:
        return _refused(state, "other-receipt")
    deadline = state.deadline + state.rules.log_seconds
    state = replace(
        state, stage=Stage.TRACE_LOG, deadline=deadline, trace=event.receipt, received=state.now
    )
    return state, (EnterTraceLog(receipt=event.receipt),)


def _traces_closed(state: PartialState, log: ClosedLog) -> Moved:
    if state.stage is not Stage.TRACE_LOG:
        return _refused(state, _late(state))
    return _awaiting(replace(state, trace_log=log), state, log, Stage.UNITS)


def _awaiting(state: PartialState, before: PartialState, log: ClosedLog, stage: Stage) -> Moved:
    """The state that waits for the round after a log was closed, or `before`, with a refusal."""
    schedule, number = state.rules.beacon, log.closed_at + 1
    if log.chain != schedule.chain:
        return _refused(before, "other-beacon")
    known = state.round is not None and number <= state.round
    if known or state.received is None or schedule.appears(number) <= state.received:
        return _refused(before, "early-beacon")  # the worker may have known what it draws
    deadline = max(state.now, schedule.appears(number)) + state.rules.beacon_seconds
    state = replace(state, stage=stage, deadline=deadline, round=number)
    return state, (AwaitRound(chain=schedule.chain, round=number),)


def _drawn(state: PartialState, beacon: Beacon) -> Moved:
    if state.stage not in (Stage.DRAW, Stage.UNITS):
        return _refused(state, _late(state))
    if (beacon.chain, beacon.round) != (state.rules.beacon.chain, state.round):
        return _refused(state, "other-beacon")
    return _job_drawn(state, beacon) if state.stage is Stage.DRAW else _units_drawn(state, beacon)


def _job_drawn(state: PartialState, beacon: Beacon) -> Moved:
    rules, receipt, log = state.rules, state.receipt, state.log
    if receipt is None or log is None:
        return _refused(state, _late(state))
    seed = job_seed(log, beacon, job=state.job_id, worker=state.worker)
    if state.rival is None and not audited(seed, rules.rate):
        return _end(state, Outcome.UNAUDITED, Outcome.UNAUDITED.value)
    deadline = state.now + rules.trace_seconds
    state = replace(state, stage=Stage.TRACE, deadline=deadline)
    return state, (AskTrace(receipt=receipt, deadline=deadline),)


def _units_drawn(state: PartialState, beacon: Beacon) -> Moved:
    rules, receipt, trace, log = state.rules, state.receipt, state.trace, state.trace_log
    if receipt is None or trace is None or log is None:
        return _refused(state, _late(state))
    deadline = state.now + rules.opening_seconds
    whole = state.rival is not None
    ask = AskOpening(
        receipt=receipt,
        trace=trace,
        seed=unit_seed(log, beacon, job=state.job_id, worker=state.worker),
        layers=None if whole else rules.layers,
        rows=None if whole else rules.rows,
        deadline=deadline,
    )
    return replace(state, stage=Stage.OPENING, deadline=deadline, ask=ask), (ask,)


def _opened(state: PartialState, content: bytes) -> Moved:
    if state.content is not None:
        return _refused(state, "duplicate" if state.content == content else "second-opening")
    ask = state.ask
    if state.stage is not Stage.OPENING or ask is None:
        return _refused(state, _late(state))
    deadline = state.now + state.rules.judging_seconds
    state = replace(state, stage=Stage.JUDGING, deadline=deadline, content=content)
    return state, (JudgeOpening(ask=ask, content=content, deadline=deadline),)


def _judged(state: PartialState, event: OpeningJudged) -> Moved:
    if state.stage is not Stage.JUDGING:
        return _refused(state, _late(state))
    if event.content != state.content:
        return _refused(state, "other-opening")
    return _end(state, _OUTCOMES[event.verdict], event.reason)


def _end(state: PartialState, outcome: Outcome, reason: str) -> Moved:
    result = JobResult(worker=state.worker, job=state.job_id, outcome=outcome, reason=reason)
    return replace(state, stage=Stage.ENDED, deadline=state.now, result=result), (result,)


def _misdirected(state: PartialState, message: AnswerReceipt | TraceReceipt) -> str | None:
    """Why a receipt does not concern this job at this worker, or None."""
    if message.worker != state.worker:
        return "other-worker"
    if message.job != state.job_id:
        return "other-job"
    return None if message.epoch == state.job.epoch else "other-epoch"


def _disputes(state: PartialState, rival: AnswerReceipt) -> bool:
    """Whether a receipt is another worker's, for another answer to this job."""
    own = state.receipt
    return (
        own is not None
        and rival.worker != state.worker
        and (rival.job, rival.epoch) == (state.job_id, state.job.epoch)
        and rival.answer != own.message.answer
    )


def _late(state: PartialState) -> str:
    return "too-late" if state.stage is Stage.ENDED else "not-asked"


def _refused(state: PartialState, reason: str) -> Moved:
    return state, (RefuseEvent(worker=state.worker, reason=reason),)
