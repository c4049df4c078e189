"""Phases: workers that drop out, deadlines, the beacon, and windows of trusted workers."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.messages import Reason
from protocols.replicated import (
    Absent,
    AskReveal,
    AwaitWindow,
    Blame,
    Conclude,
    Dispatch,
    Drawn,
    Phase,
    Place,
    Schedule,
    Tick,
    WindowClosed,
)
from tests.helpers.jobs import (
    ADAPTIVE,
    JOB,
    LIE,
    NOW,
    TRUTH,
    WORKERS,
    Run,
    answer,
    committed,
    refused,
    rules,
)
from verifiable.challenge import Beacon
from verifiable.voting.quorum import FirstToMatch, FixedSize, Standing


@given(st.integers(0, 10**6), st.integers(1, 60))
def test_the_beacon_is_the_first_round_after_now(now: int, period: int):
    schedule = Schedule(chain="drand", genesis=5000, period=period)
    number = schedule.after(now)
    assert schedule.appears(number) == 5000 + (number - 1) * period > now
    assert number == 1 or schedule.appears(number - 1) <= now


@pytest.mark.parametrize("when", ["commit", "reveal"])
def test_a_worker_that_drops_out_is_replaced_and_not_blamed(when: str):
    run = Run.of(rules(FixedSize(bad=0.1, size=3), dispatches=4), workers=WORKERS[:4])
    gone, one, two = run.seated()
    if when == "commit":
        for worker in (one, two):
            run.send(answer(worker).commit)
        run.wait()
        # Nothing was revealed yet: the replacement has nothing to copy.
        assert not run.all(AskReveal)
        new = run.seated()[3]
        run.send(answer(new).commit, at=run.state.now)
        for worker in (one, two, new):
            run.send(answer(worker))
        group = [one, two, new]
    else:
        for worker in (gone, one, two):
            run.send(answer(worker).commit)
        for worker in (one, two):
            run.send(answer(worker))
        run.wait()
        group = [one, two]
    run.draw()
    assert run.all(Absent) == [Absent(worker=gone, phase=Phase(when))]
    assert run.end.value == TRUTH
    assert run.end.decision.group == tuple(sorted(group))
    assert run.end.decision.requested == 3
    assert not run.all(Blame)


def test_a_job_without_commits_expires():
    job = dataclasses.replace(JOB, expiry=NOW + 30)
    run = Run.of(rules(FixedSize(bad=0.1, size=3), dispatches=9), job=job, workers=WORKERS)
    assert run.state.deadline == job.expiry
    run.wait()
    assert run.end.decision.reason is Reason.EXPIRED
    assert not run.all(Blame)


def test_a_worker_that_committed_in_time_may_reveal_after_the_expiry():
    job = dataclasses.replace(JOB, expiry=NOW + 30)
    run = Run.of(rules(FixedSize(bad=0.1, size=3)), job=job)
    for worker in WORKERS[:2]:
        run.send(answer(worker, job=job).commit)
    run.wait()
    for worker in WORKERS[:2]:
        run.send(answer(worker, job=job), at=job.expiry + 1)
    run.draw()
    assert run.end.value == TRUTH


def test_no_worker_is_asked_after_the_expiry():
    job = dataclasses.replace(JOB, expiry=NOW + 30)
    run = Run.of(rules(FirstToMatch(bad=0.1, matches=2)), job=job)
    one, two = run.seated()
    for worker, value in ((one, TRUTH), (two, LIE)):
        run.send(answer(worker, value, job).commit)
    for worker, value in ((one, TRUTH), (two, LIE)):
        run.send(answer(worker, value, job))
    run.draw()
    run.do(Tick(at=job.expiry + 200))
    assert run.end.decision.reason is Reason.EXPIRED
    assert len(run.all(Dispatch)) == 2


def test_a_missing_beacon_ends_the_job():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    for worker in WORKERS[:3]:
        run.send(answer(worker).commit)
    for worker in WORKERS[:3]:
        run.send(answer(worker))
    run.wait()
    assert run.end.decision.reason is Reason.NO_BEACON
    assert run.end.value is None


def test_a_jump_in_time_ends_every_phase_in_between():
    run = Run.of(rules(FixedSize(bad=0.1, size=3), dispatches=9), workers=WORKERS)
    run.do(Tick(at=JOB.expiry + 10**6))
    assert run.end.decision.reason is Reason.EXPIRED
    assert not run.all(Blame)


def test_time_never_goes_back():
    run = committed()
    run.do(Tick(at=NOW + 59))
    run.do(Tick(at=NOW))
    assert run.state.now == NOW + 59
    run.do(Tick(at=NOW + 60))
    # A clock that is set back does not reopen a phase.
    assert refused(run.send(answer(WORKERS[2]).commit, at=NOW)) == ["too-late"]


def alone() -> Run:
    """A trusted worker has answered alone, and its window is open."""
    trust = {worker: Standing(passed=10) for worker in WORKERS[:4]}
    run = Run.of(rules(ADAPTIVE, dispatches=4), workers=WORKERS[:4], standings=trust)
    (worker,) = run.seated()
    run.round({worker: TRUTH})
    (await_,) = run.all(AwaitWindow)
    assert await_.reveal.message == answer(worker)
    assert not run.all(Conclude)
    return run


def test_a_lone_answer_waits_for_its_window():
    run = alone()
    (worker,) = run.seated()
    run.do(WindowClosed(at=run.state.now, worker=worker, cleared=True))
    assert run.end.value == TRUTH
    assert run.end.decision.group == (worker,)


@pytest.mark.parametrize("silent", [False, True], ids=["void", "unanswered"])
def test_a_void_window_starts_over_without_blame(silent: bool):
    run = alone()
    (worker,) = run.seated()
    if silent:
        run.wait()
    else:
        run.do(WindowClosed(at=run.state.now, worker=worker, cleared=False))
    assert run.state.phase is Phase.COMMIT
    others = run.seated()[1:]
    assert worker not in others
    run.round(dict.fromkeys(others, TRUTH))
    assert run.end.value == TRUTH
    assert worker not in run.end.decision.group
    assert not run.all(Blame)


def test_a_trusted_worker_cannot_close_anothers_window():
    run = alone()
    effects = run.do(WindowClosed(at=run.state.now, worker=b"\x09" * 32, cleared=True))
    assert refused(effects) == ["not-asked"]


@pytest.mark.parametrize("where", ["commit", "reveal"])
def test_stallers_only_delay(where: str):
    run = Run.of(rules(FixedSize(bad=0.1, size=3), dispatches=9), workers=WORKERS)
    ticks = 0
    while run.state.phase is not Phase.ENDED:
        if where == "reveal" and run.state.phase is Phase.COMMIT:
            for seat in run.state.seats:
                if seat.place is Place.DISPATCHED:
                    run.send(answer(seat.worker).commit, at=run.state.now)
        elif run.state.phase is Phase.BEACON:
            run.draw()
        else:
            run.wait()
        ticks += 1
    assert ticks <= 3 * 9
    assert run.end.value is None
    assert run.end.decision.reason is Reason.NO_WORKERS
    assert len(run.all(Absent)) == len(run.all(Dispatch)) == 9
    assert not run.all(Blame)


def test_only_the_announced_round_is_taken():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    for worker in WORKERS[:3]:
        run.send(answer(worker).commit)
    for worker in WORKERS[:3]:
        run.send(answer(worker))
    number = run.state.round
    assert number is not None
    for chain, other in (("drand", number - 1), ("drand", number + 1), ("other", number)):
        grinding = Beacon(chain=chain, round=other, value=b"v" * 32)
        assert refused(run.do(Drawn(at=NOW, beacon=grinding))) == ["other-beacon"]
    run.draw()
    assert run.end.value == TRUTH
