"""Stakes against many cheats before a settlement."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.simulation.stakes import simulate_profit, simulate_vanishing
from verifiable.audits.stakes import Terms, Vanishing, outstanding_cap

MANY = Terms(gain=1.0, reward=0.2, cost=0.1, audit_rate=0.1, detection=0.9, outstanding=40)


def test_many_cheats_before_the_first_is_settled():
    """A stake that deters one cheat pays for forty; the one for forty deters any number."""
    one = dataclasses.replace(MANY, outstanding=1).least_stake
    alone = simulate_profit(MANY, stake=one, cheats=1)
    assert abs(alone.mean) < 4 * alone.deviation  # it breaks even
    assert simulate_profit(MANY, stake=one, cheats=40).mean > 10
    for cheats in (1, 2, 5, 10, 20, 40):
        found = simulate_profit(MANY, stake=MANY.least_stake, cheats=cheats)
        assert found.mean < 4 * found.deviation


def test_the_cap_is_where_cheating_starts_to_pay():
    stake = 20.0
    cap = outstanding_cap(stake, gain=1.0, reward=0.2, audit_rate=0.1, detection=0.9)
    most = dataclasses.replace(MANY, outstanding=10 * cap)
    at = simulate_profit(most, stake=stake, cheats=cap)
    assert at.mean < 4 * at.deviation
    beyond = simulate_profit(most, stake=stake, cheats=2 * cap)
    assert beyond.mean > 4 * beyond.deviation


@pytest.mark.parametrize("cheats", [0, 41])
def test_more_cheats_than_unsettled_results_are_refused(cheats: int):
    with pytest.raises(ValueError, match="may be unsettled"):
        simulate_profit(MANY, stake=1.0, cheats=cheats)


shares = st.integers(1, 20).map(lambda n: n / 20)
vanishing = st.builds(
    Vanishing,
    reward=st.integers(0, 40).map(float),
    cost=st.integers(1, 10).map(float),
    audit_rate=shares,
    answers=shares,
    detection=shares,
    agreement=st.integers(0, 19).map(lambda n: n / 20),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(vanishing, st.integers(0, 100).map(float), st.integers(0, 2**32))
def test_vanishing_pays_what_the_formulas_say(terms: Vanishing, bond: float, seed: int):
    """Five standard errors, and nothing where nothing is random."""
    found = simulate_vanishing(terms, bond=bond, seed=seed)
    honest, gain = terms.honest_profit(bond), terms.cheat_profit(bond) - terms.honest_profit(bond)
    assert abs(found.honest - honest) <= 5 * found.honest_error + 0.02 * (bond + terms.reward)
    assert abs(found.gain - gain) <= 5 * found.gain_error + 0.02 * (bond + terms.reward)
    assert found.cheat - found.honest == pytest.approx(found.gain, abs=1e-9)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(vanishing, st.integers(0, 2**32))
def test_the_least_bond_is_where_vanishing_stops_to_pay(terms: Vanishing, seed: int):
    least = terms.least_bond
    deterred = simulate_vanishing(terms, bond=1.5 * least + terms.reward, seed=seed)
    assert deterred.gain < 5 * deterred.gain_error
    if least > 0.0:
        tempted = simulate_vanishing(terms, bond=least / 2, jobs=100_000, seed=seed)
        worth = (least / 2) * terms.audit_rate * terms.answers * terms.met
        assert tempted.gain > worth - 5 * tempted.gain_error
