"""Stakes against the design's formulas, brute force, and the ledger of a cheat."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiable.audits.stakes import Terms, Vanishing, outstanding_cap


def fractions(least: int, most: int, denominator: int) -> st.SearchStrategy[Fraction]:
    """Multiples of 1 / denominator; Hypothesis takes ten times as long for all fractions."""
    return st.integers(least * denominator, most * denominator).map(
        lambda n: Fraction(n, denominator)
    )


MONEY = fractions(0, 50, 60)
RATES = st.integers(1, 210).map(lambda n: Fraction(n, 210))


@st.composite
def terms(draw: st.DrawFn) -> Terms:
    return Terms(
        gain=float(draw(MONEY)),
        reward=float(draw(MONEY)),
        cost=float(draw(MONEY)),
        audit_rate=float(draw(RATES)),
        detection=float(draw(RATES)),
        false_reject=float(draw(fractions(0, 1, 210))),
        outstanding=draw(st.integers(1, 40)),
    )


def cheat_profit(t: Terms, cheats: int, stake: Fraction) -> Fraction:
    """Expected ledger of `cheats` unsettled wrong results, in exact rationals."""
    caught = 1 - (1 - Fraction(t.audit_rate) * Fraction(t.detection)) ** cheats
    return cheats * Fraction(t.gain) - caught * (stake + cheats * Fraction(t.reward))


def honest_profit(t: Terms, results: int, stake: Fraction) -> Fraction:
    blamed = 1 - (1 - Fraction(t.audit_rate) * Fraction(t.false_reject)) ** results
    earned = results * (Fraction(t.reward) - Fraction(t.cost))
    return earned - blamed * (stake + results * Fraction(t.reward))


@settings(max_examples=200, deadline=None)
@given(terms())
def test_at_the_least_stake_no_number_of_cheats_pays(t: Terms) -> None:
    stake = Fraction(t.least_stake)
    profits = [cheat_profit(t, m, stake) for m in range(1, t.outstanding + 1)]
    scale = 1 + stake + t.outstanding * (Fraction(t.gain) + Fraction(t.reward))
    assert max(profits) <= scale * Fraction(1, 10**12)
    if stake:
        lower = stake * Fraction(999, 1000) - Fraction(1, 10**6)
        assert max(cheat_profit(t, m, lower) for m in range(1, t.outstanding + 1)) > 0


@settings(max_examples=200, deadline=None)
@given(terms())
def test_at_the_greatest_stake_honest_work_breaks_even(t: Terms) -> None:
    if math.isinf(t.greatest_stake):
        return
    profit = honest_profit(t, t.outstanding, Fraction(t.greatest_stake))
    scale = 1 + abs(Fraction(t.greatest_stake)) + t.outstanding * 100
    assert abs(profit) <= scale * Fraction(1, 10**11)


@settings(max_examples=200, deadline=None)
@given(terms())
def test_one_result_gives_the_formulas_of_the_design(t: Terms) -> None:
    one = replace(t, outstanding=1)
    g, r, c, q, d = t.gain, t.reward, t.cost, t.audit_rate, t.detection
    assert one.least_stake == pytest.approx(max(0.0, g / (q * d) - r), rel=1e-9, abs=1e-9)
    if t.false_reject == 0.0:
        return
    assert one.greatest_stake == pytest.approx(
        (r - c) / (q * t.false_reject) - r, rel=1e-9, abs=1e-9
    )
    if one.least_stake > 0.0 and abs(t.false_reject / d * g - (r - c)) > 1e-9:
        assert one.workable == (t.false_reject / d <= (r - c) / g)


def test_many_cheats_before_the_first_is_settled() -> None:
    """A stake that deters one cheat is far too small for a hundred at once."""
    one = Terms(gain=2.0, reward=1.0, cost=0.5, audit_rate=0.1)
    many = replace(one, outstanding=100)
    assert one.least_stake == pytest.approx(19.0)
    assert many.least_stake == pytest.approx(100 * 2 / (1 - 0.9**100) - 100)
    never = Terms(gain=2.0, reward=1.0, cost=0.5, audit_rate=1e-200, detection=1e-200)
    assert never.least_stake == math.inf
    rng = np.random.default_rng(1)
    caught = (rng.random((20_000, 100)) < one.audit_rate).any(axis=1)

    def profit(stake: float) -> float:
        return float(np.mean(200.0 - caught * (stake + 100.0)))

    assert profit(one.least_stake) > 50.0
    assert profit(many.least_stake * 1.01) < 0.0


@given(MONEY, MONEY, RATES, fractions(0, 2000, 10))
@settings(deadline=None)
def test_the_cap_is_the_last_number_that_the_stake_covers(
    gain: Fraction, reward: Fraction, rate: Fraction, stake: Fraction
) -> None:
    known: dict[str, Any] = {
        "gain": float(gain),
        "reward": float(reward),
        "audit_rate": float(rate),
    }
    cap = outstanding_cap(float(stake), **known)

    def least(outstanding: int) -> float:
        return Terms(**known, cost=0.0, outstanding=outstanding).least_stake

    if cap:
        assert least(cap) <= float(stake)
    if cap < 2**53:
        assert least(cap + 1) > float(stake)


def test_false_rejects_can_leave_no_workable_stake() -> None:
    fair = Terms(gain=1.0, reward=1.0, cost=0.5, audit_rate=0.05, false_reject=1e-6)
    assert fair.workable
    assert not replace(fair, false_reject=0.6).workable
    assert replace(fair, false_reject=0.0).greatest_stake == math.inf
    unpaid = replace(fair, reward=0.4, false_reject=0.0)
    assert unpaid.greatest_stake == -math.inf
    assert not unpaid.workable


@pytest.mark.parametrize(
    "change",
    [
        {"gain": -1.0},
        {"gain": math.inf},
        {"reward": math.nan},
        {"cost": -0.1},
        {"audit_rate": 0.0},
        {"audit_rate": 1.1},
        {"detection": math.nan},
        {"false_reject": -0.1},
        {"false_reject": math.nan},
        {"outstanding": 0},
    ],
)
def test_terms_out_of_range_are_refused(change: dict[str, Any]) -> None:
    good = Terms(gain=1.0, reward=1.0, cost=0.5, audit_rate=0.1)
    make: Callable[..., Any] = replace
    with pytest.raises(ValueError, match="got"):
        make(good, **change)


@settings(max_examples=200, deadline=None)
@given(MONEY, MONEY, RATES, RATES, RATES, fractions(0, 1, 210))
def test_the_least_bond_against_the_ledger_of_a_cheat_that_vanishes(
    reward: Fraction, cost: Fraction, q: Fraction, a: Fraction, d: Fraction, rho: Fraction
) -> None:
    if rho == 1:
        return
    e = d * (1 - rho)
    t = Vanishing(
        reward=float(reward),
        cost=float(cost),
        audit_rate=float(q),
        answers=float(a),
        detection=float(d),
        agreement=float(rho),
    )

    def gain(bond: Fraction) -> Fraction:
        """Every case by itself: not audited, offline, met, passed."""
        honest = (1 - q) * reward + q * (a * reward - (1 - a) * bond) - cost
        passed = a * (1 - e)
        return (1 - q) * reward + q * (passed * reward - (1 - passed) * bond) - honest

    least = max(Fraction(0), cost / (q * a * e) - reward)
    assert t.least_bond == pytest.approx(float(least), rel=1e-9, abs=1e-9)
    assert gain(least) <= 0 and (least == 0 or gain(least - Fraction(1, 1000)) > 0)
    bond = float(least)
    assert t.cheat_profit(bond) - t.honest_profit(bond) == pytest.approx(
        float(gain(least)), rel=1e-9, abs=1e-6
    )
    # Honest work pays from the least reward on, whatever the audit rate.
    r = t.least_reward
    assert r == pytest.approx(float(cost * (1 + (1 - a) / (a * e))), rel=1e-9)
    enough = replace(t, reward=r)
    assert enough.honest_profit(enough.least_bond) >= -1e-9 * (1 + r + enough.least_bond)
    if cost:
        short = replace(t, reward=r * 0.99)
        assert short.honest_profit(short.least_bond) < 0


def test_the_bonds_of_the_design_and_their_limits() -> None:
    t = Vanishing(reward=2.0, cost=1.0, audit_rate=0.01, answers=0.8)
    assert t.least_bond == pytest.approx(1 / (0.01 * 0.8) - 2)
    assert t.least_reward == pytest.approx(1 / 0.8)
    never = replace(t, audit_rate=1e-200, detection=1e-200)
    assert never.least_bond == math.inf
    for change in (
        {"reward": -1.0},
        {"cost": math.nan},
        {"audit_rate": 0.0},
        {"answers": 0.0},
        {"detection": 1.1},
        {"agreement": 1.0},
        {"agreement": math.nan},
    ):
        with pytest.raises(ValueError, match="got"):
            replace(t, **change)
