"""One job at one worker: receipt, closed log, draw, and the opening of what was drawn.

    RECEIPT   the worker sends its receipt, which enters the log of the epoch; the first one counts
    LOG       the log closes: nobody can commit to another trace any more
    DRAW      the next round of the beacon says whether the job is audited, and with what seed
    OPENING   the worker opens what the plan of the seed asks for, or is silent
    JUDGING   the coordinator judges the first opening that came; its own delay blames nobody
    ENDED     one `JobResult`; every later event is refused

`step(state, event) -> (state, effects)` is a pure function. Every stage has a deadline, so every
run ends. The seed is a hash of the root of the closed log, the round of the beacon, the job and the
worker: neither worker nor coordinator can draw again. Rules: specs/audit.md.
"""

from __future__ import annotations

from dataclasses import replace

from protocols.audited.state import (
    AskOpening,
    AwaitRound,
    EnterLog,
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
)
from protocols.events import Tick
from protocols.messages import Job
from verifiable.challenge import Beacon, ClosedLog
from verifiable.encoding import tagged_hash
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
    Stage.OPENING: Outcome.SILENT,
    Stage.JUDGING: Outcome.UNDECIDED,
}


def seed_of(log: ClosedLog, beacon: Beacon, *, job: bytes, worker: bytes) -> bytes:
    """The 32-byte seed of the audit of a job.

    Args:
      log: the closed log of the epoch.
      beacon: the round that appeared after it was closed.
      job: digest of the job.
      worker: identity of the worker.
    """
    return tagged_hash(
        "seed of an audit",
        log.root,
        log.size.to_bytes(8, "little"),
        beacon.chain.encode(),
        beacon.round.to_bytes(8, "little"),
        beacon.value,
        job,
        worker,
    )


def audited(seed: bytes, rate: float) -> bool:
    """Whether the job of a seed is audited, at some rate."""
    drawn = int.from_bytes(tagged_hash("job of an audit", seed)[:8], "little")
    return drawn < int(rate * 2.0**64)


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
    state = replace(state, now=max(state.now, event.at))
    effects: tuple[PartialEffect, ...] = ()
    if state.stage is not Stage.ENDED and state.now >= state.deadline:
        outcome = _MISSED[state.stage]
        state, effects = _end(state, outcome, outcome.value)
    match event:
        case Tick():
            more: tuple[PartialEffect, ...] = ()
        case ReceiptCame():
            state, more = _receipt(state, event)
        case LogClosed(log=log):
            state, more = _closed(state, log)
        case RoundSeen(beacon=beacon):
            state, more = _drawn(state, beacon)
        case OpeningCame(content=content):
            state, more = _opened(state, content)
        case OpeningJudged():
            state, more = _judged(state, event)
    return state, effects + more


def _receipt(state: PartialState, event: ReceiptCame) -> Moved:
    message = event.receipt.message
    if message.worker != state.worker:
        return _refused(state, "other-worker")
    if message.job != state.job_id:
        return _refused(state, "other-job")
    if message.epoch != state.job.epoch:
        return _refused(state, "other-epoch")
    if state.receipt is not None:
        same = state.receipt.message == message
        return _refused(state, "duplicate" if same else "second-receipt")
    if state.stage is not Stage.RECEIPT:
        return _refused(state, "too-late")
    deadline = state.deadline + state.rules.log_seconds
    state = replace(
        state, stage=Stage.LOG, deadline=deadline, receipt=event.receipt, received=state.now
    )
    return state, (EnterLog(receipt=event.receipt),)


def _closed(state: PartialState, log: ClosedLog) -> Moved:
    if state.stage is not Stage.LOG:
        return _refused(state, _late(state))
    schedule, number = state.rules.beacon, log.closed_at + 1
    if log.chain != schedule.chain:
        return _refused(state, "other-beacon")
    if state.received is None or schedule.appears(number) <= state.received:
        return _refused(state, "early-beacon")  # the worker may have known what it draws
    deadline = max(state.now, schedule.appears(number)) + state.rules.beacon_seconds
    state = replace(state, stage=Stage.DRAW, deadline=deadline, log=log, round=number)
    return state, (AwaitRound(chain=schedule.chain, round=number),)


def _drawn(state: PartialState, beacon: Beacon) -> Moved:
    if state.stage is not Stage.DRAW or state.log is None or state.receipt is None:
        return _refused(state, _late(state))
    rules, receipt = state.rules, state.receipt
    if (beacon.chain, beacon.round) != (rules.beacon.chain, state.round):
        return _refused(state, "other-beacon")
    seed = seed_of(state.log, beacon, job=state.job_id, worker=state.worker)
    if not audited(seed, rules.rate):
        return _end(state, Outcome.UNAUDITED, Outcome.UNAUDITED.value)
    deadline = state.now + rules.opening_seconds
    ask = AskOpening(
        receipt=receipt,
        seed=seed,
        layers=rules.layers,
        rows=rules.rows,
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


def _late(state: PartialState) -> str:
    return "too-late" if state.stage is Stage.ENDED else "not-asked"


def _refused(state: PartialState, reason: str) -> Moved:
    return state, (RefuseEvent(worker=state.worker, reason=reason),)
