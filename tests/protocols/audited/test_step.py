"""One job at one worker: who is audited, with what seed, and that silence is never a pass."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import pytest

from protocols.audited import (
    AnswerReceipt,
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
    PartialState,
    ReceiptCame,
    RefuseEvent,
    RoundSeen,
    Stage,
    TraceCame,
    TraceLogClosed,
    TraceReceipt,
    audited,
    start,
    step,
    unit_seed,
)
from protocols.events import Tick
from protocols.journal import AUDITED, Journal, Recorded
from tests.helpers.jobs import CHAIN, JOB, LATER, NOW, signed
from tests.helpers.jobs import PARTIAL as RULES
from tests.helpers.journals import MemoryStore
from verifiable.audits.probabilities import clopper_pearson
from verifiable.challenge import Beacon, ClosedLog
from verifiable.report import Verdict

WORKER, OTHER = b"\x05" * 32, b"\x06" * 32
CONTENT = b"\x0e" * 32
RECEIPT = AnswerReceipt(worker=WORKER, job=JOB.digest, epoch=JOB.epoch, answer=b"\x08" * 32)
RIVAL = replace(RECEIPT, worker=OTHER, answer=b"\x88" * 32)
TRACE = TraceReceipt(
    worker=WORKER,
    job=JOB.digest,
    epoch=JOB.epoch,
    receipt=RECEIPT.digest,
    trace_root=b"\x09" * 32,
    trace_size=77,
)
LOG = ClosedLog(root=b"\x0c" * 32, size=3, chain="drand", closed_at=CHAIN.after(NOW) + 5)
ROUND = LOG.closed_at + 1
TRACE_LOG = replace(LOG, root=b"\x1c" * 32, closed_at=ROUND + 10)
UNITS = TRACE_LOG.closed_at + 1
DRAWN, OPENED = CHAIN.appears(ROUND), CHAIN.appears(UNITS)


def beacon(value: int = 0, **change: Any) -> Beacon:
    given = {"chain": "drand", "round": ROUND, "value": value.to_bytes(32, "big")}
    return Beacon(**(given | change))


EVENTS: dict[str, Any] = {
    "receipt": ReceiptCame(at=NOW, receipt=signed(RECEIPT)),
    "log": LogClosed(at=NOW + 1, log=LOG),
    "draw": RoundSeen(at=DRAWN, beacon=beacon()),
    "trace": TraceCame(at=DRAWN + 1, receipt=signed(TRACE)),
    "trace log": TraceLogClosed(at=DRAWN + 2, log=TRACE_LOG),
    "units": RoundSeen(at=OPENED, beacon=beacon(round=UNITS)),
    "opening": OpeningCame(at=OPENED + 1, content=CONTENT),
}
"""What happens to an audited job, in order, up to its judgement."""


@dataclass
class Job:
    """A job that is driven by hand."""

    state: PartialState

    @classmethod
    def of(cls, **change: Any) -> Job:
        return cls(start(JOB, WORKER, replace(RULES, **change), now=NOW)[0])

    def do(self, *events: Any) -> list[Any]:
        effects: list[Any] = []
        for event in events:
            self.state, more = step(self.state, event)
            effects += more
        return effects

    def until(self, name: str) -> list[Any]:
        """All events up to one."""
        names = list(EVENTS)
        return self.do(*(EVENTS[n] for n in names[: names.index(name) + 1]))

    def receipt(self, at: int = NOW, **change: Any) -> list[Any]:
        return self.do(ReceiptCame(at=at, receipt=signed(replace(RECEIPT, **change))))

    def trace(self, **change: Any) -> list[Any]:
        return self.do(TraceCame(at=DRAWN + 1, receipt=signed(replace(TRACE, **change))))

    def wait(self) -> list[Any]:
        return self.do(Tick(at=self.state.deadline))

    def asked(self) -> AskOpening:
        *_, ask = self.until("units")
        assert isinstance(ask, AskOpening)
        return ask


def reasons(effects: list[Any]) -> list[str]:
    return [e.reason for e in effects if isinstance(e, RefuseEvent)]


@pytest.mark.parametrize("receipt", [RECEIPT, TRACE])
def test_a_receipt_has_few_bytes_and_one_encoding(receipt: Any):
    data = receipt.encode()
    assert type(receipt).decode(data) == receipt
    assert len(data) + 66 < 300  # with its signature


def test_a_job_that_is_not_audited_sends_a_receipt_of_its_answer_alone():
    job = Job.of(rate=1e-9)
    assert job.receipt() == [EnterLog(receipt=signed(RECEIPT))]
    assert job.do(EVENTS["log"]) == [AwaitRound(chain="drand", round=ROUND)]
    [result] = job.do(EVENTS["draw"])
    assert result == JobResult(
        worker=WORKER, job=JOB.digest, outcome=Outcome.UNAUDITED, reason="unaudited"
    )
    assert result.outcome.paid


def test_a_job_that_is_audited_makes_two_commitments():
    job = Job.of()
    *_, asked = job.until("draw")
    assert asked == AskTrace(receipt=signed(RECEIPT), deadline=DRAWN + RULES.trace_seconds)
    assert job.do(EVENTS["trace"]) == [EnterTraceLog(receipt=signed(TRACE))]
    assert job.do(EVENTS["trace log"]) == [AwaitRound(chain="drand", round=UNITS)]
    seed = unit_seed(TRACE_LOG, beacon(round=UNITS), job=JOB.digest, worker=WORKER)
    assert job.do(EVENTS["units"]) == [
        AskOpening(
            receipt=signed(RECEIPT),
            trace=signed(TRACE),
            seed=seed,
            layers=1,
            rows=8,
            deadline=OPENED + RULES.opening_seconds,
        )
    ]


@pytest.mark.parametrize(
    ("verdict", "outcome", "paid"),
    [
        (Verdict.ACCEPT, Outcome.PASSED, True),
        (Verdict.REJECT, Outcome.REJECTED, False),
        (Verdict.INDETERMINATE, Outcome.UNDECIDED, False),
    ],
)
def test_an_opening_ends_a_job_with_its_verdict(verdict: Verdict, outcome: Outcome, paid: bool):
    job = Job.of()
    ask = job.asked()
    [task] = job.do(OpeningCame(at=ask.deadline - 1, content=CONTENT))
    assert task == JudgeOpening(ask=ask, content=CONTENT, deadline=ask.deadline + 299)
    # The coordinator may take longer than the worker had.
    late = {"at": ask.deadline + 100, "verdict": verdict, "reason": "why"}
    refusals = job.do(
        OpeningCame(at=NOW, content=CONTENT),
        OpeningCame(at=NOW, content=bytes(32)),
        OpeningJudged(content=bytes(32), **late),
    )
    assert [e.reason for e in refusals] == ["duplicate", "second-opening", "other-opening"]
    [result] = job.do(OpeningJudged(content=CONTENT, **late))
    assert (result.outcome, result.reason, result.outcome.paid) == (outcome, "why", paid)
    assert result.outcome.forfeits == (outcome is Outcome.REJECTED)
    assert job.do(OpeningJudged(content=CONTENT, **late)) == [
        RefuseEvent(worker=WORKER, reason="too-late")
    ]


@pytest.mark.parametrize(
    ("last", "event"),
    [
        ("draw", TraceCame(at=0, receipt=signed(TRACE))),
        ("units", OpeningCame(at=0, content=CONTENT)),
    ],
)
def test_silence_after_being_asked_is_never_a_pass(last: str, event: Any):
    job = Job.of()
    *_, ask = job.until(last)
    assert job.do(Tick(at=ask.deadline - 1)) == []
    [result, refused] = job.do(replace(event, at=ask.deadline))
    assert (result.outcome, result.outcome.paid) == (Outcome.SILENT, False)
    assert result.outcome.forfeits
    assert refused.reason == "too-late"
    assert job.state.result == result


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (None, Outcome.ABSENT),
        ("receipt", Outcome.UNDECIDED),
        ("log", Outcome.UNDECIDED),
        ("draw", Outcome.SILENT),
        ("trace", Outcome.UNDECIDED),
        ("trace log", Outcome.UNDECIDED),
        ("units", Outcome.SILENT),
        ("opening", Outcome.UNDECIDED),
    ],
)
def test_every_stage_ends_and_none_of_these_is_paid(last: str | None, outcome: Outcome):
    job = Job.of()
    if last is not None:
        job.until(last)
    [result] = job.wait()
    assert (result.outcome, result.outcome.paid) == (outcome, False)
    # What the coordinator failed to do costs the worker nothing.
    assert result.outcome.forfeits == (outcome is Outcome.SILENT)
    assert job.state.stage is Stage.ENDED


def test_the_first_receipt_of_an_answer_counts():
    job = Job.of()
    found = [
        *job.receipt(worker=OTHER),
        *job.receipt(job=bytes(32)),
        *job.receipt(epoch=LATER.epoch),
        *job.receipt(),
        *job.receipt(),
        *job.receipt(answer=bytes(32)),
    ]
    expected = ["other-worker", "other-job", "other-epoch", "duplicate", "second-receipt"]
    assert reasons(found) == expected
    assert job.state.receipt == signed(RECEIPT)


def test_the_first_receipt_of_a_trace_counts_and_none_before_the_draw():
    job = Job.of()
    found = job.do(replace(EVENTS["trace"], at=NOW))
    job.until("draw")
    found += [
        *job.trace(worker=OTHER),
        *job.trace(job=bytes(32)),
        *job.trace(epoch=LATER.epoch),
        *job.trace(receipt=RIVAL.digest),
        *job.trace(),
        *job.trace(),
        *job.trace(trace_root=bytes(32)),
        *job.receipt(at=DRAWN + 1, answer=bytes(32)),
    ]
    assert reasons(found) == [
        *("not-asked", "other-worker", "other-job", "other-epoch", "other-receipt"),
        *("duplicate", "second-trace", "second-receipt"),
    ]
    assert job.state.trace == signed(TRACE)


def test_a_receipt_that_comes_late_is_of_no_use():
    job = Job.of()
    [result, refused] = job.receipt(at=job.state.deadline)
    assert (result.outcome, refused.reason) == (Outcome.ABSENT, "too-late")
    assert not result.outcome.forfeits


def test_the_draw_is_of_the_round_after_closing_and_no_other():
    job = Job.of()
    job.receipt()
    known = replace(LOG, closed_at=CHAIN.after(NOW) - 2)
    for log, reason in ((known, "early-beacon"), (replace(LOG, chain="other"), "other-beacon")):
        assert reasons(job.do(LogClosed(at=NOW, log=log))) == [reason]
    assert reasons(job.do(RoundSeen(at=NOW, beacon=beacon()))) == ["not-asked"]
    job.do(LogClosed(at=NOW, log=LOG))
    # However late the coordinator learns of the closing, it is the same round.
    assert job.state.round == ROUND
    for other in (beacon(round=ROUND + 1), beacon(chain="other")):
        assert reasons(job.do(RoundSeen(at=NOW, beacon=other))) == ["other-beacon"]
    again = LogClosed(at=NOW, log=replace(LOG, root=bytes(32)))
    assert reasons(job.do(again)) == ["not-asked"]
    assert job.state.log == LOG


def test_the_second_draw_is_of_a_round_after_the_trace():
    job = Job.of()
    job.until("trace")
    # A log of another time, even the first one, whose round the worker knew.
    for log in (LOG, replace(TRACE_LOG, closed_at=ROUND - 1), replace(TRACE_LOG, closed_at=ROUND)):
        if CHAIN.appears(log.closed_at + 1) <= DRAWN + 1:
            refused = job.do(TraceLogClosed(at=DRAWN + 2, log=log))
            assert reasons(refused) == ["early-beacon"]
    assert reasons(job.do(LogClosed(at=DRAWN + 2, log=TRACE_LOG))) == ["not-asked"]
    job.do(EVENTS["trace log"])
    # The first round, seen again, draws nothing now.
    assert reasons(job.do(replace(EVENTS["draw"], at=DRAWN + 3))) == ["other-beacon"]
    assert job.state.stage is Stage.UNITS


def test_a_round_that_came_before_its_time_draws_no_units():
    """Seen early, or by a clock that is wrong: the round of the first draw is never used twice."""
    job = Job.of()
    job.do(*(replace(EVENTS[n], at=NOW) for n in ("receipt", "log", "draw", "trace")))
    again = replace(TRACE_LOG, closed_at=LOG.closed_at)
    assert reasons(job.do(TraceLogClosed(at=NOW, log=again))) == ["early-beacon"]


def test_a_disputed_job_is_audited_whole_whatever_the_draw():
    job = Job.of(rate=1e-9)
    job.receipt()
    closed = EVENTS["log"]
    for change in (
        {"worker": WORKER},
        {"job": bytes(32)},
        {"epoch": LATER.epoch},
        {"answer": RECEIPT.answer},
    ):
        no_rival = replace(closed, rival=signed(replace(RIVAL, **change)))
        assert reasons(job.do(no_rival)) == ["no-rival"]
        assert job.state.rival is None
    [_, ask] = job.do(replace(closed, rival=signed(RIVAL)), EVENTS["draw"])
    assert isinstance(ask, AskTrace)
    *_, ask = job.do(*(EVENTS[n] for n in ("trace", "trace log", "units")))
    assert (ask.layers, ask.rows) == (None, None)


def test_as_many_jobs_are_audited_as_the_rules_say():
    trials = 3000
    count = sum(audited(i.to_bytes(32, "big"), 0.1) for i in range(trials))
    low, high = clopper_pearson(count, trials, confidence=0.999)
    assert low <= 0.1 <= high
    assert all(audited(i.to_bytes(32, "big"), 1.0) for i in range(100))


def test_rules_and_jobs_of_the_caller_are_checked():
    for change in (
        {"rate": 0.0},
        {"rate": 1.5},
        {"layers": 0},
        {"opening_seconds": 0},
        {"trace_seconds": 0},
    ):
        with pytest.raises(ValueError, match=r"audited|positive"):
            replace(RULES, **change)
    with pytest.raises(ValueError, match="expired"):
        start(JOB, WORKER, RULES, now=JOB.expiry)


def test_no_order_of_events_pays_a_worker_that_did_not_open():
    """Any three events in any order from any early stage, without an accepted opening."""
    judged = OpeningJudged(
        at=OPENED + 2, content=bytes(32), verdict=Verdict.ACCEPT, reason="of another"
    )
    events = [*EVENTS.values(), judged]
    begun = ["receipt", "log", "draw"]
    for known in range(len(begun) + 1):
        job = Job.of()
        job.do(*(EVENTS[n] for n in begun[:known]))
        first = job.state
        for chosen in itertools.product(events, repeat=3):
            job.state = first
            results = [e for e in job.do(*chosen, Tick(at=NOW + 10**6)) if isinstance(e, JobResult)]
            assert len(results) == 1
            assert not results[0].outcome.paid
            assert job.state.stage is Stage.ENDED


def test_a_killed_coordinator_goes_on_where_it_was():
    """After every event: the state is the same, and what was not confirmed is asked for again."""
    store = MemoryStore()
    with Journal(store) as journal:
        first = start(JOB, WORKER, RULES, now=NOW)
        Recorded.begin(journal, AUDITED, "job", first, RULES)[1].result()
    state, asked = first[0], []
    for event in [
        *EVENTS.values(),
        OpeningJudged(at=OPENED + 2, content=CONTENT, verdict=Verdict.ACCEPT, reason="ok"),
    ]:
        with Journal(store) as journal:
            again = Recorded.resume(journal, AUDITED, "job", RULES)
            assert again.state == state
            assert [task.effect for task in again.pending] == asked
            for task in again.pending:
                again.done(task).result()
            state, effects = step(state, event)
            asked = list(effects)
            assert [task.effect for task in again.feed(event).result()] == asked
            # The same event again is refused, and judges, asks and pays nothing twice.
            twice = again.feed(event).result()
            assert [type(task.effect) for task in twice] == [RefuseEvent]
    assert state.result is not None
    assert state.result.outcome is Outcome.PASSED
