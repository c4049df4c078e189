"""One job at one worker: who is audited, with what seed, and that silence is never a pass."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import pytest

from protocols.audited import (
    AskOpening,
    AwaitRound,
    EnterLog,
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
    TraceReceipt,
    audited,
    seed_of,
    start,
    step,
)
from protocols.events import Tick
from protocols.journal import AUDITED, Journal, Recorded
from tests.helpers.jobs import CHAIN, JOB, LATER, NOW, signed
from tests.helpers.jobs import PARTIAL as RULES
from tests.helpers.journals import MemoryStore
from verifiable.audits.probabilities import clopper_pearson
from verifiable.challenge import Beacon, ClosedLog, CommitmentLog
from verifiable.report import Verdict

WORKER = b"\x05" * 32
CONTENT = b"\x0e" * 32
RECEIPT = TraceReceipt(
    worker=WORKER, job=JOB.digest, epoch=JOB.epoch, trace_root=b"\x09" * 32, trace_size=77
)
LOG = ClosedLog(root=b"\x0c" * 32, size=3, chain="drand", closed_at=CHAIN.after(NOW) + 5)
ROUND = LOG.closed_at + 1


def beacon(value: int = 0, **change: Any) -> Beacon:
    given = {"chain": "drand", "round": ROUND, "value": value.to_bytes(32, "big")}
    return Beacon(**(given | change))


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

    def receipt(self, at: int = NOW, **change: Any) -> list[Any]:
        return self.do(ReceiptCame(at=at, receipt=signed(replace(RECEIPT, **change))))

    def wait(self) -> list[Any]:
        return self.do(Tick(at=self.state.deadline))

    def asked(self) -> AskOpening:
        self.receipt()
        at = CHAIN.appears(ROUND)
        [_, ask] = self.do(LogClosed(at=at, log=LOG), RoundSeen(at=at, beacon=beacon()))
        return ask


def test_a_receipt_has_few_bytes_and_one_encoding():
    data = RECEIPT.encode()
    assert TraceReceipt.decode(data) == RECEIPT
    assert len(data) + 66 < 300  # with its signature


def test_a_job_that_is_not_audited_sends_a_receipt_alone():
    job = Job.of(rate=1e-9)
    assert job.receipt() == [EnterLog(receipt=signed(RECEIPT))]
    assert job.do(LogClosed(at=NOW + 9, log=LOG)) == [AwaitRound(chain="drand", round=ROUND)]
    [result] = job.do(RoundSeen(at=CHAIN.appears(ROUND), beacon=beacon()))
    assert result == JobResult(
        worker=WORKER, job=JOB.digest, outcome=Outcome.UNAUDITED, reason="unaudited"
    )
    assert result.outcome.paid


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
    seed = seed_of(LOG, beacon(), job=JOB.digest, worker=WORKER)
    assert (ask.seed, ask.layers, ask.rows) == (seed, 1, 8)
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
    assert job.do(OpeningJudged(content=CONTENT, **late)) == [
        RefuseEvent(worker=WORKER, reason="too-late")
    ]


def test_silence_after_being_asked_is_never_a_pass():
    job = Job.of()
    ask = job.asked()
    assert job.do(Tick(at=ask.deadline - 1)) == []
    late = OpeningCame(at=ask.deadline, content=CONTENT)
    [result, refused] = job.do(late)
    assert (result.outcome, result.outcome.paid) == (Outcome.SILENT, False)
    assert refused.reason == "too-late"
    assert job.state.result == result


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ((), Outcome.ABSENT),
        (("receipt",), Outcome.UNDECIDED),
        (("receipt", "log"), Outcome.UNDECIDED),
        (("receipt", "log", "beacon"), Outcome.SILENT),
        (("receipt", "log", "beacon", "opening"), Outcome.UNDECIDED),
    ],
)
def test_every_stage_ends_and_none_of_these_is_paid(events: tuple[str, ...], outcome: Outcome):
    job, at = Job.of(), CHAIN.appears(ROUND)
    every = {
        "receipt": ReceiptCame(at=NOW, receipt=signed(RECEIPT)),
        "log": LogClosed(at=NOW, log=LOG),
        "beacon": RoundSeen(at=at, beacon=beacon()),
        "opening": OpeningCame(at=at, content=CONTENT),
    }
    job.do(*(every[name] for name in events))
    [result] = job.wait()
    assert (result.outcome, result.outcome.paid) == (outcome, False)
    assert job.state.stage is Stage.ENDED


def test_the_first_receipt_counts():
    job = Job.of()
    reasons = [
        job.receipt(worker=b"\x06" * 32),
        job.receipt(job=bytes(32)),
        job.receipt(epoch=LATER.epoch),
        job.receipt(),
        job.receipt(),
        job.receipt(trace_root=bytes(32)),
    ]
    found = [e.reason for effects in reasons for e in effects if isinstance(e, RefuseEvent)]
    assert found == ["other-worker", "other-job", "other-epoch", "duplicate", "second-receipt"]
    assert job.state.receipt == signed(RECEIPT)


def test_the_draw_is_of_the_round_after_closing_and_no_other():
    job = Job.of()
    job.receipt()
    known = replace(LOG, closed_at=CHAIN.after(NOW) - 2)
    for log, reason in ((known, "early-beacon"), (replace(LOG, chain="other"), "other-beacon")):
        [refused] = job.do(LogClosed(at=NOW, log=log))
        assert refused.reason == reason
    [refused] = job.do(RoundSeen(at=NOW, beacon=beacon()))
    assert refused.reason == "not-asked"
    job.do(LogClosed(at=NOW, log=LOG))
    # However late the coordinator learns of the closing, it is the same round.
    assert job.state.round == ROUND
    for other in (beacon(round=ROUND + 1), beacon(chain="other")):
        [refused] = job.do(RoundSeen(at=NOW, beacon=other))
        assert refused.reason == "other-beacon"
    [refused] = job.do(LogClosed(at=NOW, log=replace(LOG, root=bytes(32))))
    assert refused.reason == "not-asked"


def test_a_seed_binds_log_beacon_job_and_worker():
    seeds = {
        seed_of(LOG, beacon(), job=bytes(32), worker=bytes(32)),
        seed_of(LOG, beacon(), job=bytes(32), worker=b"\1" * 32),
        seed_of(LOG, beacon(), job=b"\1" * 32, worker=bytes(32)),
        seed_of(LOG, beacon(1), job=bytes(32), worker=bytes(32)),
        seed_of(LOG, beacon(round=1), job=bytes(32), worker=bytes(32)),
        seed_of(replace(LOG, root=bytes(32)), beacon(), job=bytes(32), worker=bytes(32)),
        seed_of(replace(LOG, size=4), beacon(), job=bytes(32), worker=bytes(32)),
    }
    assert len(seeds) == 7


def test_as_many_jobs_are_audited_as_the_rules_say():
    trials = 3000
    count = sum(audited(i.to_bytes(32, "big"), 0.1) for i in range(trials))
    low, high = clopper_pearson(count, trials, confidence=0.999)
    assert low <= 0.1 <= high
    assert all(audited(i.to_bytes(32, "big"), 1.0) for i in range(100))


def test_rules_and_jobs_of_the_caller_are_checked():
    for change in ({"rate": 0.0}, {"rate": 1.5}, {"layers": 0}, {"opening_seconds": 0}):
        with pytest.raises(ValueError, match=r"audited|positive"):
            replace(RULES, **change)
    with pytest.raises(ValueError, match="expired"):
        start(JOB, WORKER, RULES, now=JOB.expiry)


def test_no_order_of_events_pays_a_worker_that_did_not_open():
    """Every order of five events, each lost, doubled or late, without an accepted opening."""
    at = CHAIN.appears(ROUND)
    events = [
        ReceiptCame(at=NOW, receipt=signed(RECEIPT)),
        LogClosed(at=NOW + 1, log=LOG),
        RoundSeen(at=at, beacon=beacon()),
        OpeningCame(at=at + 1, content=CONTENT),
        OpeningJudged(at=at + 2, content=bytes(32), verdict=Verdict.ACCEPT, reason="of another"),
        Tick(at=at + 1000),
    ]
    for chosen in itertools.product(events, repeat=5):
        job = Job.of()
        results = [e for e in job.do(*chosen) if isinstance(e, JobResult)]
        assert len(results) <= 1
        assert not any(r.outcome.paid for r in results)
        assert (job.state.stage is Stage.ENDED) == (len(results) == 1)


def test_a_killed_coordinator_goes_on_where_it_was():
    store = MemoryStore()
    with Journal(store) as journal:
        first = start(JOB, WORKER, RULES, now=NOW)
        recorded, begun = Recorded.begin(journal, AUDITED, "job", first, RULES)
        assert begun.result() == ()
        [enter] = recorded.feed(ReceiptCame(at=NOW, receipt=signed(RECEIPT))).result()
        log = CommitmentLog()
        log.append(enter.effect.receipt.message.digest)
        recorded.done(enter).result()
        closed = log.close(chain="drand", closed_at=LOG.closed_at)
        [awaited] = recorded.feed(LogClosed(at=NOW + 1, log=closed)).result()
        recorded.done(awaited).result()
        seen = RoundSeen(at=CHAIN.appears(ROUND), beacon=beacon())
        [ask] = recorded.feed(seen).result()
        before = recorded.state
    with Journal(store) as journal:
        again = Recorded.resume(journal, AUDITED, "job", RULES)
        assert again.state == before
        assert [task.effect for task in again.pending] == [ask.effect]
        [result] = again.feed(Tick(at=before.deadline)).result()
        assert result.effect.outcome is Outcome.SILENT
