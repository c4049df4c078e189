"""Trust against workers that earn it to spend it, and audits that are foreseen."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from protocols.simulation.trust import (
    EARN_THEN_SPEND,
    Foresight,
    SpendingStrategy,
    best_share,
    simulate_trust,
)
from verifiable.audits.probabilities import miss_probability
from verifiable.voting.quorum import FirstToMatch
from verifiable.voting.trust import Adaptive

BAD = 0.1
RECOMMENDED = Adaptive(bad=BAD, newcomers=FirstToMatch(bad=BAD, matches=3))
SIZE: dict[str, Any] = {"slots": 400, "results": 3000}
STRATEGIES = {
    "honest": SpendingStrategy(share=0.0),
    "earn, then spend": EARN_THEN_SPEND,
    "the best share": SpendingStrategy(share=best_share(RECOMMENDED)),
    "a small share": SpendingStrategy(share=0.02),
    "half": SpendingStrategy(share=0.5),
    "guessed audits": SpendingStrategy(share=best_share(RECOMMENDED), foresight=Foresight.GUESSED),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_strategy_exceeds_bound_or_cost(name: str):
    found = simulate_trust(RECOMMENDED, STRATEGIES[name], **SIZE)
    assert found.interval()[0] <= RECOMMENDED.assurance.error
    assert found.runs_per_job <= RECOMMENDED.runs_if_spent * 1.01


def test_earn_then_spend_by_the_recommended_defaults():
    """Less than one percent wrong, at less than 1.2 runs per job, whatever share is spent."""
    for share in (0.05, best_share(RECOMMENDED), 0.2, 1.0):
        found = simulate_trust(RECOMMENDED, SpendingStrategy(share=share), slots=1000)
        assert found.interval()[1] < 0.01
        assert found.runs_per_job < 1.2
    assert found.runs_per_job == pytest.approx(RECOMMENDED.runs_if_spent, rel=0.02)


def test_a_worker_that_never_earns_trust_stays_within_bound_and_cost():
    never = SpendingStrategy(share=1.0, earns=False)
    found = simulate_trust(RECOMMENDED, never, slots=1500, results=300)
    assert found.interval()[0] <= RECOMMENDED.assurance.error
    assert found.error > 0.7 * RECOMMENDED.assurance.error
    assert found.runs_per_job == pytest.approx(RECOMMENDED.assurance.runs, rel=0.03)


def test_the_simulated_share_is_the_one_of_exact_sampling():
    """Windows of m cheats are cleared as often as u of n audits miss all of them."""
    policy = dataclasses.replace(RECOMMENDED, audits=3, window=50)
    found = simulate_trust(policy, SpendingStrategy(share=0.2), slots=1500, results=3000)
    missed = miss_probability(50, 10, 3)
    # Per life: s votes, cleared windows until the first void one.
    cleared = missed / (1 - missed)
    dispatched = 10 + 50 * (cleared + 1)
    wrong = BAD * 10 * cleared / dispatched
    accepted = (1 - BAD) + BAD * (10 + 50 * cleared) / dispatched
    assert found.error == pytest.approx(wrong / accepted, rel=0.1)


def test_audits_that_are_foreseen_are_worth_nothing():
    """And guessing at unforeseeable ones gains nothing."""
    share = best_share(RECOMMENDED)
    blind = simulate_trust(RECOMMENDED, SpendingStrategy(share=share), **SIZE)
    guessed = simulate_trust(
        RECOMMENDED, SpendingStrategy(share=share, foresight=Foresight.GUESSED), **SIZE
    )
    assert guessed.interval()[0] <= blind.interval()[1]
    assert blind.interval()[0] <= guessed.interval()[1]
    leaked = simulate_trust(
        RECOMMENDED, SpendingStrategy(share=0.9, foresight=Foresight.LEAKED), **SIZE
    )
    assert leaked.interval()[0] > 10 * RECOMMENDED.assurance.error


def test_audits_that_miss_are_part_of_the_bound():
    policy = dataclasses.replace(RECOMMENDED, detection=0.5)
    found = simulate_trust(policy, SpendingStrategy(share=best_share(policy)), **SIZE)
    assert found.interval()[0] <= policy.assurance.error
    assert found.interval()[1] > RECOMMENDED.assurance.error  # half the detection, twice the error


def test_the_same_seed_gives_the_same_history():
    small: dict[str, Any] = {"slots": 50, "results": 600}
    first = simulate_trust(RECOMMENDED, EARN_THEN_SPEND, seed=1, **small)
    assert first == simulate_trust(RECOMMENDED, EARN_THEN_SPEND, seed=1, **small)
    assert first != simulate_trust(RECOMMENDED, EARN_THEN_SPEND, seed=2, **small)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_a_share(share: float):
    with pytest.raises(ValueError, match="between 0 and 1"):
        SpendingStrategy(share=share)
