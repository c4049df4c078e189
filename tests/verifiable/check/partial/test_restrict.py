"""What an audit does not look at has passed, is named nowhere, and shelters nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from verifiable.check import flips
from verifiable.check.judging.second_look import SecondLook
from verifiable.check.partial.restrict import PartialLook, completed, looked_at, ties_of
from verifiable.check.replay.replay import Findings
from verifiable.claims.statistic import Statistic
from verifiable.report import NearTie

LENGTH = 4
CLAIMS: Any = [
    SimpleNamespace(index=0, name="inside", trips=(LENGTH, 2)),
    SimpleNamespace(index=1, name="while", trips=(LENGTH,)),
    SimpleNamespace(index=2, name="other", trips=()),
]
TESTED = {0: frozenset({1, 3}), 1: frozenset({1, 3})}


def measured(shape: tuple[int, ...], **fields: Any) -> Statistic:
    """A statistic that has passed, at half of its limit."""
    true = np.ones(shape, bool)
    row = np.full(shape, 7, np.int32)
    return Statistic(np.full(shape, 0.5), row, true, true, true, true)._replace(**fields)


def findings(stopped: bool = False, **fields: Any) -> Findings:
    return Findings(
        statistics={0: measured((2, 2), **fields), 1: measured((2,))},
        taken={0: np.ones((2, 2), bool), 1: np.array([True, False])},
        stopped={"while": np.bool_(stopped)},
        outputs={},
    )


@dataclass(frozen=True)
class Deciding:
    """A claim with a hundred decisions in each iteration."""

    index: int
    name: str
    trips: tuple[int, ...]

    @property
    def decisions(self) -> int:
        return 100 * math.prod(self.trips)


def test_findings_stand_at_their_iterations():
    failed = np.array([[True, True], [False, True]])
    found = completed(findings(passed=failed), CLAIMS, TESTED)
    inside = found.statistics[0]
    assert inside.passed.tolist() == [[True, True], [True, True], [True, True], [False, True]]
    assert inside.worst.tolist() == [[-1, -1], [0.5, 0.5], [-1, -1], [0.5, 0.5]]
    assert found.taken[1].tolist() == [False, True, False, False]
    other = found.statistics[2]
    assert (other.worst, other.passed, other.finite_operands) == (-1, True, True)
    assert not found.taken[2]


def test_a_loop_that_was_cut_short_elsewhere_leaves_what_follows_undecided():
    before = completed(findings(), CLAIMS, TESTED).statistics[1]
    after = completed(findings(stopped=True), CLAIMS, TESTED).statistics[1]
    assert not before.stopped.any()
    assert after.stopped.tolist() == [True, False, False, False]


def test_only_what_was_looked_at_is_named():
    results: Any = ["inside", "while", "other", "output"]
    assert looked_at(results, CLAIMS, TESTED) == ("inside", "while", "output")

    def tie(claim: str, trip: int) -> NearTie:
        return NearTie(claim=claim, trip=trip, row=0, chosen=0, other=1, kappa=1.0)

    ties = [tie("inside", trip) for trip in range(2 * LENGTH)] + [tie("other", 0)]
    assert [t.trip for t in ties_of(ties, CLAIMS, TESTED)] == [2, 3, 6, 7]
    assert ties_of(ties, CLAIMS, {2: None}) == (tie("other", 0),)


def test_flips_of_the_audited_claims_alone_are_counted_together():
    """Those without decisions have no rate of ties, and those not audited no flips."""
    rates = {"many": 0.5, "few": 0.01, "unaudited": 1.0}
    claims: list[Any] = [
        SimpleNamespace(index=i, name=name, decisions=100) for i, name in enumerate(rates)
    ]
    claims.append(SimpleNamespace(index=3, name="product", decisions=0))
    policy: Any = SimpleNamespace(phi=1e-9, tie_rate_of=lambda claim, name: rates[name])
    program: Any = SimpleNamespace(claims=claims, policy=policy)
    key: Any = None
    look = SecondLook(program=program, key=key)
    found = PartialLook.of(look, {0: None, 1: None, 3: None}, parts={}, retests=dict)
    assert found.most == flips.total(claims[:2], policy)
    assert 51 < found.most < 200
    assert found.limits == {c.index: flips.limit(c, policy) for c in claims[:2]}


def test_flips_of_the_audited_iterations_alone_are_counted():
    """Two of four iterations, of three inner ones each."""
    every: Any = Deciding(index=0, name="many", trips=(LENGTH, 3))
    some: Any = Deciding(index=0, name="many", trips=(2, 3))
    policy: Any = SimpleNamespace(phi=1e-9, tie_rate_of=lambda claim, name: 0.5)
    program: Any = SimpleNamespace(claims=[every], policy=policy)
    key: Any = None
    look = SecondLook(program=program, key=key)
    for tested, counted in (({0: frozenset({1, 3})}, some), ({0: None}, every)):
        found = PartialLook.of(look, tested, parts={}, retests=dict)
        assert found.limits == {0: flips.limit(counted, policy)}
        assert found.most == flips.total([counted], policy)
    assert flips.limit(some, policy) < flips.limit(every, policy)
