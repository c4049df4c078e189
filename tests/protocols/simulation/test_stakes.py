"""Stakes against many cheats before a settlement."""

from __future__ import annotations

import dataclasses

import pytest

from protocols.simulation.stakes import simulate_profit
from verifiable.audits.stakes import Terms, outstanding_cap

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
