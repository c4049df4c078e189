"""Simulated votes against `voting.decide`, the protocol and the bounds, for every adversary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.messages import Job, Reveal, Signed
from protocols.replicated import start, step
from protocols.replicated.state import Drawn, Phase, Received, Rules, Schedule, Tick
from protocols.simulation import (
    Kind,
    Population,
    Tally,
    VoteStatistics,
    rule_of,
    run_votes,
    simulate_votes,
)
from verifiable.challenge import Beacon
from verifiable.voting import Ballot, VoteOutcome, decide
from verifiable.voting.agreement import Exact
from verifiable.voting.quorum import (
    FirstToMatch,
    FixedSize,
    QuorumPolicy,
    RulingReason,
    Sequential,
    Standing,
)
from verifiable.voting.trust import Credibility

POPULATIONS = {
    "independent errors": Population(erring=0.1),
    "colluders on one answer": Population(colluders=0.1),
    "half the honest offline": Population(colluders=0.1, offline=0.5),
    "copycats": Population(colluders=0.1, copycats=0.2),
    "stallers": Population(colluders=0.1, stallers=0.2),
    "honest answers scatter": Population(colluders=0.1, scatter=0.2),
}


def policies(bad: float) -> list[QuorumPolicy]:
    return [
        FixedSize(bad=bad, size=3),
        FirstToMatch(bad=bad, matches=3),
        Sequential(bad=bad, error=1e-2),
        Credibility(bad=bad, error=1e-2),
    ]


@pytest.mark.parametrize("name", POPULATIONS)
def test_no_adversary_exceeds_the_bound_of_any_policy(name: str):
    population = POPULATIONS[name]
    for policy in policies(population.bad):
        found = simulate_votes(policy, population, jobs=30_000)
        assert found.jobs == 30_000
        low, _ = found.interval(0.9999)
        assert low <= policy.assurance.error_if_colluding
        if population.colluders and not population.scatter:
            # What the bound assumes is what happens, so it is reached as well.
            _, high = found.interval(0.9999)
            assert isinstance(policy, Credibility) or policy.assurance.error <= high
            if not population.copycats:
                assert found.runs_per_job == pytest.approx(policy.assurance.runs, rel=0.02)


def test_a_bound_that_ignores_who_is_offline_is_exceeded():
    """The bad fraction among those who answer is what counts."""
    naive = FirstToMatch(bad=0.1, matches=3)
    found = simulate_votes(naive, POPULATIONS["half the honest offline"], jobs=30_000)
    assert found.interval()[0] > naive.assurance.error


def test_credibility_that_was_earned_is_spent():
    """Honest until credible, then colluding, and running alone."""
    policy = Credibility(bad=0.1, error=1e-2)
    spent = simulate_votes(
        policy, Population(colluders=0.1, checks=100, bad_checks=100), jobs=20_000
    )
    assert spent.interval()[0] > policy.assurance.error
    assert spent.interval()[0] <= policy.assurance.error_if_colluding
    # A worker that cheats from the start never becomes credible.
    caught = simulate_votes(policy, Population(colluders=0.1, checks=100), jobs=20_000)
    assert caught.interval()[0] <= policy.assurance.error


def test_stallers_cost_dispatches_and_copycats_seats():
    plain = simulate_votes(FixedSize(bad=0.1, size=3), Population(), jobs=2_000)
    assert (plain.accepted, plain.wrong) == (2_000, 0)
    assert plain.runs == plain.dispatches == 6_000
    stalled = simulate_votes(FixedSize(bad=0.1, size=3), Population(stallers=0.5), jobs=2_000)
    assert stalled.runs == 6_000
    assert stalled.dispatches == pytest.approx(12_000, rel=0.05)
    copied = simulate_votes(FixedSize(bad=0.1, size=3), Population(copycats=0.5), jobs=2_000)
    assert copied.wrong == 0
    assert copied.dispatches > copied.runs


def test_the_same_seed_gives_the_same_population():
    population = POPULATIONS["colluders on one answer"]
    policy = FirstToMatch(bad=0.1, matches=2)
    assert simulate_votes(policy, population, jobs=500, seed=1) == simulate_votes(
        policy, population, jobs=500, seed=1
    )
    assert simulate_votes(policy, population, jobs=500, seed=1) != simulate_votes(
        policy, population, jobs=500, seed=2
    )


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(list(Kind)), min_size=40, max_size=40),
    st.sampled_from(
        [
            FixedSize(bad=0.3, size=3),
            FixedSize(bad=0.3, size=3, limit=9),
            FirstToMatch(bad=0.3, matches=2),
            FirstToMatch(bad=0.3, matches=3),
            Sequential(bad=0.3, error=0.1, limit=9),
        ]
    ),
)
def test_a_simulated_vote_is_the_protocols(kinds: Sequence[Kind], policy: QuorumPolicy):
    """The same workers, one at a time, through `replicated.step` with audits that get no answer.

    A copycat commits and cannot open; a staller never commits, and is replaced.
    """
    order = iter(kinds)
    asked: list[Kind] = []

    def draw(which: Any) -> Any:
        assert len(which) == 1
        asked.append(next(order))
        return np.array([asked[-1]])

    ends = np.zeros(1, dtype=np.int64)
    try:
        found = run_votes(
            rule_of(policy, Population()), opening=policy.first(), jobs=1, draw=draw, ends=ends
        )
    except StopIteration:  # so many stallers that forty workers were not enough
        return
    value, dispatched = protocol(policy, kinds)
    assert dispatched == found.dispatches == len(asked)
    if value is None:
        assert (found.undecided, ends[0]) == (1, 0)
    else:
        wrong = value[0] in {Kind.COLLUDER, Kind.ERRING}
        assert (found.accepted, found.wrong) == (1, wrong)
        assert ends[0] == (-1 if wrong else 1)


def protocol(policy: QuorumPolicy, kinds: Sequence[Kind]) -> tuple[bytes | None, int]:
    """What the step function makes of workers of these kinds, in the order drawn."""
    job = Job(
        coordinator=bytes(32),
        epoch=1,
        nonce=bytes(32),
        expiry=10**6,
        program=bytes(32),
        parameters=bytes(32),
        input=bytes(32),
    )
    rules = Rules(
        policy=policy,
        agreement=Exact(size=2),
        decode=bytes,
        beacon=Schedule(chain="drand", genesis=0, period=3),
        dispatches=len(kinds),
        commit_seconds=10,
        reveal_seconds=10,
        beacon_seconds=10,
        audit_seconds=10,
        window_seconds=10,
    )
    workers = [bytes([i]) * 32 for i in range(1, len(kinds) + 1)]
    state, _ = start(job, rules, now=0, workers=workers, weights=[1] * len(workers), seed=bytes(32))
    drawn = [seat.worker for seat in state.seats] + [worker for worker, _ in state.reserve]
    kind_of = dict(zip(drawn, kinds, strict=True))

    def reveal(worker: bytes) -> Reveal:
        kind = kind_of[worker]
        own = worker[0] if kind in {Kind.ERRING, Kind.SCATTERED} else 0
        return Reveal(
            worker=worker,
            job=job.digest,
            epoch=1,
            salt=bytes(32),
            value=bytes([kind, own]),
            trace_root=bytes(32),
            trace_size=1,
        )

    sent: set[bytes] = set()
    while state.phase is not Phase.ENDED:
        now = state.now
        match state.phase:
            case Phase.COMMIT:
                waiting = [s.worker for s in state.seats if s.worker not in sent]
                for worker in waiting:
                    sent.add(worker)
                    if kind_of[worker] is not Kind.STALLER:
                        message = Signed(message=reveal(worker).commit, signature=bytes(64))
                        state, _ = step(state, Received(at=now, message=message))
                if state.phase is Phase.COMMIT:
                    state, _ = step(state, Tick(at=state.deadline))
            case Phase.REVEAL:
                for seat in state.seats:
                    if seat.commit and not seat.reveal and kind_of[seat.worker] is not Kind.COPYCAT:
                        message = Signed(message=reveal(seat.worker), signature=bytes(64))
                        state, _ = step(state, Received(at=now, message=message))
                if state.phase is Phase.REVEAL:
                    state, _ = step(state, Tick(at=state.deadline))
            case Phase.BEACON:
                assert state.round is not None
                beacon = Beacon(chain="drand", round=state.round, value=bytes(32))
                state, _ = step(state, Drawn(at=now, beacon=beacon))
            case _:
                state, _ = step(state, Tick(at=state.deadline))
    assert state.decision is not None
    accepted = state.decision.outcome is VoteOutcome.ACCEPT
    value = None
    if accepted:
        winner = next(w for w in state.decision.group)
        value = bytes([kind_of[winner], 0])
    return value, len(state.seats)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=4, max_size=4),
    st.integers(0, 3),
    st.sampled_from(policies(0.2)),
)
def test_a_tally_is_decided_as_its_ballots_are(
    counts: list[int], missing: int, policy: QuorumPolicy
):
    requested = max(1, sum(counts) + missing)
    tally = Tally(requested, *counts)
    values = [b"right"] * counts[0] + [b"wrong"] * counts[1]
    values += [b"err%02d" % i for i in range(counts[2])] + [
        b"odd%02d" % i for i in range(counts[3])
    ]
    ballots = [Ballot(bytes([i]), value) for i, value in enumerate(values)]

    def other() -> Any:
        return decide(
            ballots,
            agreement=Exact(size=5),
            policy=policy,
            requested=requested,
            beacon=bytes(16),
        )

    rule = rule_of(policy, Population())
    limit = getattr(policy, "limit")  # noqa: B009
    if requested > limit:
        with pytest.raises(ValueError, match="covers"):
            rule(tally)
        with pytest.raises(ValueError, match="covers"):
            other()
        return
    expected, found = other(), rule(tally)
    assert found.accepted == (expected.outcome is VoteOutcome.ACCEPT)
    assert found.wrong == (expected.canonical is not None and expected.canonical[:1] in b"we")
    if not found.accepted:
        undecided = expected.reason is RulingReason.UNDECIDED
        assert (found.more, found.seats) == (expected.more if undecided else 0, expected.seats)


def test_a_lone_trusted_worker_decides_alone():
    policy = Credibility(bad=0.1, error=1e-2)
    trusted = Population(checks=100)
    assert trusted.standing(Kind.HONEST) == Standing(passed=100)
    assert rule_of(policy, trusted)(Tally(1, 1, 0, 0, 0)).accepted
    assert not rule_of(policy, Population())(Tally(1, 1, 0, 0, 0)).accepted


def test_an_interval_counts_answers_of_one_cluster_once():
    alone = VoteStatistics(accepted=1000, wrong=40, runs=1, dispatches=1)
    together = VoteStatistics(accepted=1000, wrong=40, runs=1, dispatches=1, cluster=20)
    low, high = together.interval()
    assert low < alone.interval()[0] < alone.error < alone.interval()[1] < high


def test_undecided_jobs_are_jobs():
    found = VoteStatistics(accepted=6, wrong=3, undecided=4, runs=30.0, dispatches=30)
    assert (found.jobs, found.error, found.runs_per_job) == (10, 0.3, 3.0)


def test_a_hundred_thousand_jobs_are_decided_by_few_decisions(monkeypatch: pytest.MonkeyPatch):
    """What makes the simulator fast is counted, not timed."""
    from protocols.simulation import votes  # noqa: PLC0415

    calls = []
    decide_ = votes.decide
    monkeypatch.setattr(votes, "decide", lambda *a, **k: calls.append(1) or decide_(*a, **k))
    found = simulate_votes(
        FirstToMatch(bad=0.1, matches=3), Population(colluders=0.1), jobs=100_000
    )
    assert found.jobs == 100_000
    assert len(calls) < 100
