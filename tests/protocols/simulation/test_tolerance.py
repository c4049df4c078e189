"""Colluders inside a tolerance, and the rule for many jobs against the library's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.simulation.tolerance import canonical_ballots, simulate_tolerance
from verifiable.voting import Ballot, VoteOutcome, decide
from verifiable.voting.agreement import Within
from verifiable.voting.quorum import (
    FixedSize,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 7), st.integers(0, 2**32 - 1), st.floats(0.2, 3.0))
def test_the_rule_for_many_jobs_is_that_of_the_library(size: int, seed: int, scale: float):
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((20, size, 2)) * scale
    distances = np.linalg.norm(points[:, :, None] - points[:, None, :], axis=3)
    policy = FixedSize(bad=0.1, size=size)
    agreement = Within(
        distance=lambda a, b: float(np.linalg.norm(a - b)), well_formed=lambda _: True
    )
    winners = canonical_ballots(distances, size // 2 + 1)
    support = (distances <= 1.0).sum(axis=2)
    for job, matrix, near, winner in zip(points, distances, support, winners, strict=True):
        scores = np.where(near > size // 2, np.minimum(matrix, 2).sum(axis=1), np.inf)
        values = list(job)
        decision = decide(
            [Ballot(bytes([i]), value) for i, value in enumerate(values)],
            agreement=agreement,
            policy=policy,
            requested=size,
            beacon=bytes(16),
        )
        if winner < 0:
            assert decision.outcome is VoteOutcome.INDETERMINATE
        else:
            (expected,) = [i for i, value in enumerate(values) if value is decision.canonical]
            # Of ballots that are equally central, the beacon chooses.
            assert scores[winner] == pytest.approx(scores[expected])
            assert expected == winner or np.isclose(np.sort(scores)[0], np.sort(scores)[1])


@pytest.mark.parametrize("attack", ["drag", "veto", "front"])
@pytest.mark.parametrize("size", [3, 5, 6, 7])
def test_colluders_inside_the_tolerance(attack: Any, size: int):
    """They drag the medoid no further than stated, veto nothing, and win as often as they may."""
    for spread in (0.1, 0.7):
        found = simulate_tolerance(size=size, bad=0.2, attack=attack, spread=spread, jobs=3_000)
        policy = FixedSize(bad=0.2, size=size)
        assert found.excess <= 1.0 + 1e-9
        assert found.worst <= 1.0
        assert found.vetoed == 0
        assert found.statistics.interval(0.9999)[0] <= policy.assurance.error
        assert found.statistics.jobs == 3_000
        if attack == "drag" and size > 3:
            assert found.excess > 0.9  # the attack is as good as it can be, nearly


def test_first_neighbours_are_dragged_further():
    """Whoever arrives first and has one neighbour wins: the rule that the medoid replaces."""

    def first_neighbour(distances: Any, threshold: int) -> Any:
        support = (distances <= 1.0).sum(axis=2)
        return np.where(
            (support >= threshold).any(axis=1), (support >= threshold).argmax(axis=1), -1
        )

    ours, theirs = (
        simulate_tolerance(size=5, bad=0.2, attack="front", jobs=3_000, rule=rule)
        for rule in (canonical_ballots, first_neighbour)
    )
    assert ours.mean < 0.1
    assert theirs.mean > 0.5
    assert theirs.excess > 1.5
