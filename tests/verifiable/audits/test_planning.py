"""The planner's options against enumeration, and its choice against every neighbour."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiable.audits.planning import Economy, audited_quorum, plan
from verifiable.audits.probabilities import binomial_tail, clopper_pearson, least_integer
from verifiable.voting.quorum import FirstToMatch, FixedSize, Sequential
from verifiable.voting.trust import Adaptive


def enumerate_quorum(size: int, f: Fraction, q: Fraction, d: Fraction) -> tuple[Fraction, ...]:
    """Every set of bad ballots, and every order in which a dispute's ballots are audited."""
    wrong = void = audits = Fraction(0)
    for ballots in itertools.product([False, True], repeat=size):
        weight = Fraction(1)
        for bad in ballots:
            weight *= f if bad else 1 - f
        if len(set(ballots)) == 1:
            audits += weight * q
            if ballots[0]:
                wrong, void = wrong + weight * (1 - q * d), void + weight * q * d
            continue
        orders = list(itertools.permutations(ballots))
        for order in orders:
            share, slipped = weight / len(orders), Fraction(0)
            for bad in order:
                audits += share * (1 - slipped)
                if not bad:
                    break
                slipped += (1 - slipped) * (1 - d)
            wrong += share * slipped
    return wrong / (1 - void), size / (1 - void), audits / (1 - void)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@settings(max_examples=20, deadline=None)
@given(
    f=st.fractions(Fraction(1, 100), Fraction(3, 5), max_denominator=100),
    q=st.fractions(0, 1, max_denominator=20),
    d=st.fractions(Fraction(1, 20), 1, max_denominator=20),
)
def test_audited_quorums_against_enumeration(
    size: int, f: Fraction, q: Fraction, d: Fraction
) -> None:
    wrong, runs, audits = enumerate_quorum(size, f, q, d)
    error, expected_runs, expected_audits = audited_quorum(
        bad=float(f), size=size, audit_rate=float(q), detection=float(d)
    )
    assert expected_runs == pytest.approx(float(runs), rel=1e-12)
    # A dispute ends early where a bad ballot passes; the formulas take the union bound there.
    assert error >= float(wrong) * (1 - 1e-12)
    assert expected_audits >= float(audits) * (1 - 1e-12)
    if d == 1:
        assert error == pytest.approx(float(wrong), rel=1e-9, abs=1e-15)
        assert expected_audits == pytest.approx(float(audits), rel=1e-12)


def test_an_audited_quorum_measured() -> None:
    f, size, q, d, trials = 0.3, 2, 0.5, 0.8, 20_000
    rng = np.random.default_rng(9)
    finished = wrong = 0
    while finished < trials:
        bad = rng.random(size) < f
        if bad.all() and rng.random() < q * d:
            continue  # void: the job starts over
        finished += 1
        if bad.all():
            wrong += 1
        elif bad.any():
            wrong += bool(rng.random() < 0.5 and rng.random() > d)  # the bad one audited first
    low, high = clopper_pearson(wrong, trials, confidence=0.999)
    assert low <= audited_quorum(bad=f, size=size, audit_rate=q, detection=d)[0] <= high


@pytest.mark.parametrize("error", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("bad", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("audit_cost", [0.05, 1.0, 5.0])
def test_every_option_reaches_the_error_and_none_is_wasteful(
    bad: float, error: float, audit_cost: float
) -> None:
    found = plan(bad=bad, error=error, economy=Economy(audit_cost=audit_cost))
    assert found.best is min(found.options, key=lambda option: option.cost)
    names = [option.name for option in found.options]
    assert len(set(names)) == len(names)
    for option in found.options:
        assert option.error <= error * (1 + 1e-9)
        assert option.cost == pytest.approx(option.runs + option.audits * audit_cost)
        policy = option.policy
        if option.name == "fixed-size":
            assert isinstance(policy, FixedSize)
            assert binomial_tail(policy.size - 2, bad, policy.size // 2) > error
        elif option.name == "first-to-match":
            assert isinstance(policy, FirstToMatch)
            assert binomial_tail(2 * policy.matches - 3, bad, policy.matches - 1) > error
        elif option.name == "sequential":
            assert isinstance(policy, Sequential)
            assert (bad / (1 - bad)) ** (policy.margin - 1) > error
            assert policy.assurance.undecided < error
        elif option.name == "adaptive":
            assert isinstance(policy, Adaptive)
        else:
            # No size and rate on a fine grid reaches the error for less.
            for size, rate in itertools.product(range(1, 9), np.linspace(0, 1, 101)):
                reached, runs, audits = audited_quorum(
                    bad=bad, size=size, audit_rate=float(rate), detection=1.0
                )
                if reached <= error:
                    assert option.cost <= (runs + audits * audit_cost) * (1 + 1e-9)


def test_the_mix_follows_the_prices() -> None:
    cheap_audits = plan(bad=0.1, error=1e-6, economy=Economy(audit_cost=0.1))
    assert cheap_audits.best.name == "audited-quorum"
    assert cheap_audits.best.cost == pytest.approx(1.1 / 0.9, rel=1e-5)
    some_error = plan(bad=0.1, error=1e-2, economy=Economy(audit_cost=1.0))
    assert some_error.best.name == "adaptive"
    assert some_error.best.cost < 1.6
    blind_audits = plan(bad=0.1, error=1e-6, economy=Economy(audit_cost=1.0, detection=0.5))
    assert blind_audits.best.name == "sequential"
    assert blind_audits.best.cost == pytest.approx(8.75, rel=1e-3)


def test_against_a_majority_of_bad_workers_only_audits_help() -> None:
    found = plan(bad=0.6, error=1e-6)
    assert [option.name for option in found.options] == ["audited-quorum"]
    assert found.best.policy is None
    with pytest.raises(ValueError, match="no option reaches"):
        plan(bad=0.6, error=1e-6, economy=Economy(detection=0.99))


def test_deterrence_is_offered_only_where_a_stake_deters_and_is_accepted() -> None:
    economy = Economy(stake=500.0, gain=2.0, reward=1.5, outstanding=20, false_reject=1e-6)
    found = plan(bad=0.1, error=1e-6, economy=economy, rational=True)
    assert found.best.name == "deterrence"
    assert found.best.deters
    assert found.best.error > 0.09  # and says what those do who do not mind
    assert not any(option.deters for option in plan(bad=0.1, error=1e-6, economy=economy).options)
    for change in (
        {"stake": 5.0},  # twenty cheats gain 40, and forfeit 30 and the stake
        {"gain": 0.0},  # unknown gain
        {"false_reject": 0.5},  # no honest worker would put up the stake
        {"reward": 0.5},  # work does not pay at all
    ):
        values = {name: getattr(economy, name) for name in Economy.__dataclass_fields__} | change
        offered = plan(bad=0.1, error=1e-6, economy=Economy(**values), rational=True)
        assert not any(option.deters for option in offered.options), change


def test_near_one_half_the_planner_still_ends() -> None:
    found = plan(bad=0.45, error=1e-9)
    assert found.best.name == "audited-quorum"
    assert [o.name for o in plan(bad=0.499, error=1e-9).options] == ["audited-quorum"]


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 60))
def test_least_finds_the_first(start: int, length: int, threshold: int) -> None:
    limit = start + length
    found = least_integer(lambda n: n >= threshold, start=start, limit=limit)
    assert found == next((n for n in range(start, limit + 1) if n >= threshold), None)


@pytest.mark.parametrize(
    "call",
    [
        lambda: plan(bad=0.0, error=0.1),
        lambda: plan(bad=1.0, error=0.1),
        lambda: plan(bad=0.1, error=0.0),
        lambda: plan(bad=math.nan, error=0.1),
        lambda: Economy(run_cost=0.0),
        lambda: Economy(audit_cost=-1.0),
        lambda: Economy(audit_cost=math.nan),
        lambda: Economy(detection=0.0),
        lambda: Economy(stake=math.inf),
    ],
)
def test_arguments_out_of_range_are_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="got"):
        call()
