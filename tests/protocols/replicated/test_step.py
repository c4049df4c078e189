"""Replicated execution: votes, audits, and the caller's own mistakes."""

from __future__ import annotations

import pytest

from protocols.messages import MAX_BALLOTS, Decision, Reason, answer_digest
from protocols.replicated import (
    AskReveal,
    Audit,
    Audited,
    AwaitBeacon,
    Blame,
    Conclude,
    Dispatch,
    Phase,
    Place,
    Record,
    Refuse,
    Schedule,
    start,
)
from tests.helpers.jobs import (
    CHAIN,
    JOB,
    LIE,
    NOW,
    SEED,
    TRUTH,
    WORKERS,
    Run,
    answer,
    metric,
    number,
    refused,
    rules,
)
from verifiable.challenge import CommitmentLog
from verifiable.report import Verdict
from verifiable.voting import VoteOutcome
from verifiable.voting.quorum import FirstToMatch, FixedSize


def test_three_honest_workers_agree():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    assert sorted(effect.worker for effect in run.all(Dispatch)) == WORKERS[:3]
    for worker in WORKERS[:3]:
        assert not run.all(AskReveal)
        run.send(answer(worker).commit)
    assert sorted(effect.worker for effect in run.all(AskReveal)) == WORKERS[:3]
    for worker in WORKERS[:3]:
        run.send(answer(worker))
    (await_,) = run.all(AwaitBeacon)
    assert await_ == AwaitBeacon(chain="drand", round=CHAIN.after(NOW))
    run.draw()
    policy = run.state.rules.policy
    assert run.end.value == TRUTH
    assert run.end.decision == Decision(
        coordinator=JOB.coordinator,
        job=JOB.digest,
        epoch=7,
        outcome=VoteOutcome.ACCEPT,
        reason=Reason.AGREED,
        answer=answer_digest(TRUTH),
        group=tuple(WORKERS[:3]),
        dissenters=(),
        requested=3,
        beacon=await_.round,
        error=policy.assurance.error,
    )
    assert not run.all(Refuse) and not run.all(Audit)


def test_commits_enter_the_log_before_anything_is_revealed():
    run, log = Run.of(rules(FixedSize(bad=0.1, size=3))), CommitmentLog()
    for worker in WORKERS[:3]:
        for effect in run.send(answer(worker).commit):
            if isinstance(effect, Record):
                log.append(effect.commit.message.digest)
    places = [i for i, e in enumerate(run.effects) if isinstance(e, Record)]
    assert max(places) < min(i for i, e in enumerate(run.effects) if isinstance(e, AskReveal))
    assert log.close(chain="drand", closed_at=1).size == 3


def test_disagreement_asks_for_audits_and_they_decide():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    run.round(dict(zip(WORKERS, (TRUTH, LIE, LIE), strict=False)))
    assert sorted(e.commit.message.worker for e in run.all(Audit)) == WORKERS[:3]
    assert all(e.reveal.message.commit == e.commit.message for e in run.all(Audit))
    assert not run.all(Conclude)
    # Two of three lie, and the worker whose trace is right wins against their majority.
    run.audit(WORKERS[1], Verdict.REJECT, convicted=True)
    run.audit(WORKERS[2], Verdict.INDETERMINATE)
    run.audit(WORKERS[0], Verdict.ACCEPT)
    assert run.end.value == TRUTH
    assert run.end.decision.reason is Reason.AUDITED
    assert run.end.decision.error is None
    assert run.end.decision.group == (WORKERS[0],)
    assert run.end.decision.dissenters == tuple(WORKERS[1:3])
    assert [blame.reveal.message.worker for blame in run.all(Blame)] == [WORKERS[1]]


@pytest.mark.parametrize("convicted", [False, True], ids=["rejected", "convicted"])
def test_a_rejection_voids_the_ballot_and_only_a_conviction_blames(convicted: bool):
    """The cheat is a coordinator that picks vectors until an honest run fails."""
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    run.round(dict(zip(WORKERS, (TRUTH, TRUTH, LIE), strict=False)))
    effects = run.audit(WORKERS[0], Verdict.REJECT, convicted=convicted)
    (seat,) = (seat for seat in run.state.seats if seat.worker == WORKERS[0])
    assert seat.place is Place.VOID
    assert [effect for effect in effects if isinstance(effect, Blame)] == (
        [Blame(commit=seat.ballot[0], reveal=seat.ballot[1])] if convicted else []
    )
    run.audit(WORKERS[1], Verdict.ACCEPT)
    run.audit(WORKERS[2], Verdict.REJECT)
    # The judgment is the same: a rejected ballot is in no group, so it is not paid.
    assert run.end.value == TRUTH
    assert run.end.decision.group == (WORKERS[1],)
    assert run.end.decision.dissenters == (WORKERS[0], WORKERS[2])
    assert len(run.all(Blame)) == convicted


@pytest.mark.parametrize("verdict", [Verdict.ACCEPT, Verdict.INDETERMINATE])
def test_only_a_rejection_convicts(verdict: Verdict):
    with pytest.raises(ValueError, match=f"only a rejection can convict, got {verdict.value}"):
        Audited(at=NOW, worker=WORKERS[0], verdict=verdict, convicted=True)
    with pytest.raises(ValueError, match="convicted must be a boolean, got 1"):
        Audited(at=NOW, worker=WORKERS[0], verdict=Verdict.REJECT, convicted=1)  # type: ignore[arg-type]


def test_dissent_and_unanswered_audits_are_no_blame():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    run.round(dict(zip(WORKERS, (TRUTH, TRUTH, LIE), strict=False)))
    assert run.state.phase is Phase.AUDIT
    run.wait()
    assert run.end.value == TRUTH
    assert run.end.decision.reason is Reason.AGREED
    assert run.end.decision.dissenters == (WORKERS[2],)
    assert not run.all(Blame)


def test_the_first_verdict_stands():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    run.round(dict(zip(WORKERS, (TRUTH, TRUTH, LIE), strict=False)))
    for first, second in ((Verdict.ACCEPT, Verdict.REJECT), (Verdict.REJECT, Verdict.ACCEPT)):
        worker = WORKERS[0] if first is Verdict.ACCEPT else WORKERS[2]
        run.audit(worker, first, convicted=first is Verdict.REJECT)
        again = run.audit(worker, second, convicted=second is Verdict.REJECT)
        assert refused(again) == ["not-asked"]
    assert [blame.reveal.message.worker for blame in run.all(Blame)] == [WORKERS[2]]


@pytest.mark.parametrize("beacon", range(4))
def test_of_several_right_ballots_the_vote_keeps_its_own(beacon: int):
    run = Run.of(metric(4), workers=WORKERS[:4])
    values = [number(x) for x in (1.0, 1.0008, 1.0016, 3.0)]
    for worker, x in zip(WORKERS, values, strict=False):
        run.send(answer(worker, x).commit)
    for worker, x in zip(WORKERS, values, strict=False):
        run.send(answer(worker, x))
    run.draw(bytes([beacon]) * 16)
    for worker in WORKERS[:4]:
        run.audit(worker, Verdict.ACCEPT)
    assert run.end.value == number(1.0008)
    assert run.end.decision.reason is Reason.AUDITED
    assert run.end.decision.group == tuple(WORKERS[:3])


def test_a_rejected_ballot_no_longer_counts():
    # One of the two ballots that agree is rejected: no majority is left, and one more is asked.
    run = Run.of(rules(FixedSize(bad=0.1, size=3), dispatches=4), workers=WORKERS[:4])
    one, two, three = run.seated()
    run.round({one: LIE, two: LIE, three: TRUTH})
    run.audit(one, Verdict.REJECT)
    run.wait()
    assert not run.all(Conclude)
    assert run.state.phase is Phase.COMMIT and run.state.requested == 3
    four = run.seated()[3]
    run.round({four: TRUTH})
    assert [e.reveal.message.worker for e in run.all(Audit)] == [
        *sorted([one, two, three]),
        four,
    ]
    run.wait()
    assert run.end.value == TRUTH
    assert run.end.decision.group == tuple(sorted([three, four]))
    assert run.end.decision.dissenters == tuple(sorted([one, two]))


def test_a_job_whose_ballots_are_all_rejected_has_no_answer():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    run.round(dict(zip(WORKERS, (b"1" * 32, b"2" * 32, b"3" * 32), strict=False)))
    for worker in WORKERS[:3]:
        run.audit(worker, Verdict.REJECT, convicted=worker != WORKERS[0])
    assert run.end.value is None
    assert run.end.decision.reason is Reason.NO_WORKERS
    assert sorted(e.reveal.message.worker for e in run.all(Blame)) == WORKERS[1:3]


def test_an_undecided_vote_asks_for_the_ballots_that_would_settle_it():
    run = Run.of(rules(FirstToMatch(bad=0.1, matches=2)), workers=WORKERS[:3])
    assert len(run.seated()) == 2
    one, two = run.seated()
    run.round({one: TRUTH, two: LIE})
    run.wait()
    assert len(run.seated()) == 3 and run.state.requested == 3
    three = run.seated()[2]
    run.round({three: TRUTH})
    run.wait()
    assert run.end.value == TRUTH
    assert run.end.decision.group == tuple(sorted([one, three]))


def test_a_split_that_no_ballot_can_settle_is_exhausted():
    policy = FirstToMatch(bad=0.1, matches=2)
    run = Run.of(rules(policy, dispatches=9), workers=WORKERS)
    values = iter((b"1" * 32, b"2" * 32, b"3" * 32))
    while run.state.phase is not Phase.ENDED:
        waiting = [s.worker for s in run.state.seats if s.place is Place.DISPATCHED]
        run.round({worker: next(values) for worker in waiting})
        run.wait()
    assert run.end.decision.reason is Reason.EXHAUSTED
    assert run.end.decision.requested == policy.limit == 3


def test_a_malformed_answer_agrees_with_no_other():
    run = Run.of(metric(3))
    run.round(dict(zip(WORKERS, (number(1.0), number(1.0), bytes(7)), strict=False)))
    assert run.state.phase is Phase.AUDIT
    run.wait()
    assert run.end.value == number(1.0)
    assert run.end.decision.dissenters == (WORKERS[2],)
    # Even if its audit passes, it never becomes canonical.
    run = Run.of(metric(3))
    run.round(dict(zip(WORKERS, (number(float("nan")), bytes(7), b""), strict=False)))
    for worker in WORKERS[:3]:
        run.audit(worker, Verdict.ACCEPT)
    assert run.end.value is None


def test_jobs_that_cannot_run_are_refused():
    config = rules(FixedSize(bad=0.1, size=3))
    with pytest.raises(ValueError, match="expired"):
        start(JOB, config, now=JOB.expiry, workers=WORKERS, weights=[1] * 9, seed=SEED)
    with pytest.raises(ValueError, match="3 workers, and 2 can"):
        start(JOB, config, now=NOW, workers=WORKERS[:2], weights=[1] * 2, seed=SEED)
    with pytest.raises(ValueError, match="one weight"):
        start(JOB, config, now=NOW, workers=WORKERS, weights=[1], seed=SEED)
    with pytest.raises(ValueError, match="positive"):
        rules(FixedSize(bad=0.1, size=3), reveal_seconds=0)
    with pytest.raises(ValueError, match=f"{MAX_BALLOTS} workers"):
        rules(FixedSize(bad=0.1, size=3), dispatches=MAX_BALLOTS + 1)
    with pytest.raises(ValueError, match="period"):
        Schedule(chain="drand", genesis=0, period=0)
