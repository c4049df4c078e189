"""A coordinator that was killed replays its events and reaches the same state."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.replicated import (
    Audited,
    Conclude,
    Drawn,
    Effect,
    Event,
    Received,
    Record,
    Refuse,
    Tick,
    WindowClosed,
)
from tests.helpers.jobs import (
    ADAPTIVE,
    LIE,
    NOW,
    TRUTH,
    WORKERS,
    Run,
    answer,
    refused,
    rules,
    signed,
)
from verifiable.challenge import Beacon, CommitmentLog
from verifiable.report import Verdict
from verifiable.voting.quorum import FirstToMatch, FixedSize, QuorumPolicy, Standing

EVERYTHING: list[Callable[[Run], Event]] = [
    *(
        (lambda run, m=message: Received(at=run.state.now, message=signed(m)))
        for worker, value in itertools.product(WORKERS[:4], (TRUTH, LIE))
        for message in (
            answer(worker, value).commit,
            answer(worker, value),
        )
    ),
    lambda run: Tick(at=run.state.deadline),
    lambda run: Tick(at=run.state.now - 5),
    lambda run: Drawn(
        at=run.state.now,
        beacon=Beacon(chain="drand", round=run.state.round or 1, value=b"v" * 32),
    ),
    lambda run: Drawn(
        at=run.state.now,
        beacon=Beacon(chain="drand", round=(run.state.round or 1) + 1, value=b"w" * 32),
    ),
    *(
        (lambda run, w=worker, v=verdict: Audited(at=run.state.now, worker=w, verdict=v))
        for worker, verdict in itertools.product(WORKERS[:4], Verdict)
    ),
    lambda run: Audited(
        at=run.state.now, worker=WORKERS[0], verdict=Verdict.REJECT, convicted=True
    ),
    *(
        (lambda run, w=worker, c=cleared: WindowClosed(at=run.state.now, worker=w, cleared=c))
        for worker, cleared in itertools.product(WORKERS[:2], (True, False))
    ),
]


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["fixed", "match", "adaptive"]),
    st.lists(st.sampled_from(range(len(EVERYTHING))), max_size=40),
)
def test_a_killed_coordinator_reaches_the_same_state(kind: str, picks: list[int]):
    """Replaying the recorded events gives the same state and the same effects."""
    policies: dict[str, QuorumPolicy] = {
        "fixed": FixedSize(bad=0.1, size=3),
        "match": FirstToMatch(bad=0.1, matches=2),
        "adaptive": ADAPTIVE,
    }
    trust = {WORKERS[i]: Standing(passed=10) for i in range(4)}

    def fresh() -> Run:
        config = rules(policies[kind], dispatches=4)
        return Run.of(config, workers=WORKERS[:4], standings=trust)

    run, kept = fresh(), []
    for pick in picks:
        event = EVERYTHING[pick](run)
        kept.append(event)
        run.do(event)
    again = fresh()
    for event in kept:
        again.do(event)
    assert again.state == run.state
    assert again.effects == run.effects
    # Killed between receiving and recording: the worker sends its message again, and nothing is
    # lost or counted twice.
    doubled = fresh()
    for event in kept:
        doubled.do(event)
        state = doubled.state
        effects = doubled.do(event)
        if isinstance(event, Received):
            assert doubled.state == state
            assert all(isinstance(effect, Refuse) for effect in effects)
    assert len(run.all(Conclude)) <= 1


def test_a_commit_that_is_recorded_again_enters_the_log_once():
    """The coordinator is killed after each event in turn, and replays all that it has recorded."""

    def record(log: CommitmentLog, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Record):
                log.append(effect.commit.message.digest)

    messages = [signed(answer(worker).commit) for worker in WORKERS[:3]]
    log, once = CommitmentLog(), CommitmentLog()
    for killed in range(1, 4):
        again = Run.of(rules(FixedSize(bad=0.1, size=3)))
        for message in messages[:killed]:
            record(log, again.do(Received(at=NOW, message=message)))
    for message in messages:
        once.append(message.message.digest)
    closed, expected = (each.close(chain="drand", closed_at=1) for each in (log, once))
    assert (closed.root, closed.size) == (expected.root, expected.size)
    assert closed.size == 3
    # Nor after it has closed, when nothing can be added.
    assert log.append(messages[1].message.digest) == 1
    with pytest.raises(ValueError, match="closed"):
        log.append(bytes(32))


def test_a_decision_is_final():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    run.round(dict(zip(WORKERS, (TRUTH, TRUTH, LIE), strict=False)))
    run.wait()
    ended = run.state
    assert run.end.value == TRUTH
    for make in EVERYTHING:
        effects = run.do(make(run))
        assert all(isinstance(effect, Refuse) for effect in effects)
        assert dataclasses.replace(run.state, now=ended.now) == ended
    for worker in WORKERS[:3]:
        assert refused(run.audit(worker, Verdict.REJECT)) == ["not-asked"]
