"""What an audit does not look at has passed, is named nowhere, and shelters nothing."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.runs import SECRET_SEED, put
from verifiable import challenge, program
from verifiable.check import flips
from verifiable.check.compiled import CheckArguments
from verifiable.check.judging.second_look import SecondLook
from verifiable.check.judging.spread import Again
from verifiable.check.partial.restrict import PartialLook, completed, looked_at, ties_of
from verifiable.check.replay.replay import Findings
from verifiable.check.specification import Target
from verifiable.claims.statistic import Statistic
from verifiable.policy import Policy
from verifiable.report import NearTie
from verifiable.trace import Trace

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
class Part:
    """Some rows of some iterations of a claim of eight rows."""

    rows: dict[int, tuple[int, ...]]

    def numbers(self, trip: int) -> Any:
        return np.asarray(self.rows[trip])

    def placed(self, found: Any) -> Any:
        return np.asarray([self.rows[t][i] for t, i in zip(sorted(self.rows), found, strict=True)])

    def mask(self, length: int) -> Any:
        return np.asarray([[r in self.rows.get(t, ()) for r in range(8)] for t in range(length)])


@dataclass(frozen=True)
class Deciding:
    """A claim with a hundred decisions in each iteration, or as many as its form says."""

    index: int
    name: str
    trips: tuple[int, ...]
    form: int = 100

    @property
    def decisions(self) -> int:
        return self.form * math.prod(self.trips)


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
    assert not any(s.stopped.any() for s in found.statistics.values())


def test_rows_that_were_tested_have_their_number_in_the_whole_claim():
    part: Any = Part({1: (2, 5), 3: (0, 6)})
    some = findings(row=np.array([[0, 0], [1, 1]], np.int32))
    some.statistics[1] = measured((2,), row=np.array([1, 0], np.int32))
    found = completed(some, CLAIMS, TESTED, {1: part})
    assert found.statistics[1].row.tolist() == [0, 5, 0, 0]
    assert found.statistics[1].worst.tolist() == [-1, 0.5, -1, 0.5]
    assert found.taken[1].tolist() == [False, True, False, False]
    assert found.statistics[0].row.tolist() == [[0, 0], [0, 0], [0, 0], [1, 1]]
    # Of a claim outside of the scans.
    before: Any = Part({0: (2, 5)})
    some.statistics[2], some.taken[2] = measured((), row=np.int32(1)), np.True_
    found = completed(some, CLAIMS, {2: None}, {2: before})
    assert (found.statistics[2].row, found.statistics[2].worst) == (5, 0.5)
    assert found.taken[2]


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
    assert [t.trip for t in ties_of(ties, CLAIMS, {0: None})] == [*range(2 * LENGTH)]
    part: Any = Part({1: (3, 5), 2: (4, 6)})
    ties = [replace(tie("while", t), row=r) for t in range(LENGTH) for r in range(8)]
    found = ties_of(ties, CLAIMS, {1: frozenset({1, 2})}, {1: part})
    assert [(t.trip, t.row) for t in found] == [(1, 3), (1, 5), (2, 4), (2, 6)]


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
    rows: Any = SimpleNamespace(form=7)
    in_rows: Any = replace(some, form=7)
    trips = frozenset({1, 3})
    for tested, parts, counted in (
        ({0: trips}, {}, some),
        ({0: None}, {}, every),
        ({0: trips}, {0: rows}, in_rows),
    ):
        found = PartialLook.of(look, tested, parts=parts, retests=dict)
        assert found.limits == {0: flips.limit(counted, policy)}
        assert found.most == flips.total([counted], policy)
    assert flips.limit(some, policy) < flips.limit(every, policy)


# ------------------------------------------------------------------------------- second looks

RNG = np.random.default_rng(5)
W = (RNG.standard_normal((4, 32, 32)) / 6).astype(np.float32)
X = RNG.standard_normal((8, 32)).astype(np.float32)
BEFORE, DECIDED, SCANNED = (Target(output=False, index=i) for i in range(3))
ANSWER = Target(output=True, index=0)


def layers(w: Any, x: Any) -> Any:
    """A product and ties before a scan, a product in each of three iterations, and what follows."""
    first = jnp.sin(x) @ w[0]
    first = jnp.where(first * (1 + 3e-6) > first, first, -first)
    return jnp.tanh(lax.scan(lambda c, u: (jnp.log(c * c) @ u, None), first, w[1:])[0])


@functools.cache
def layered() -> tuple[program.Program, Any, Any, list[Any]]:
    made = program.compile(layers, W, X, policy=Policy(draws=4))
    y, trace = jax.device_get(jax.jit(made.execute)(W, X))
    return made, made.setup(W, challenge.secret(SECRET_SEED)), y, list(trace.values)


def looks(values: Any, parts: Any, tested: Any = None, y: Any = None, **how: Any) -> Again:
    """The looks at a run of which some iterations, or rows of them, are audited."""
    made, key, own, _ = layered()
    run = CheckArguments.of(key, (X,), own if y is None else y, Trace(values=tuple(values)))
    tested = {2: frozenset({1})} if tested is None else tested
    look = PartialLook.of(made.compiled_check.second_look, tested, parts, **{"retests": dict} | how)
    return look.at(lambda: run)


SOME: Any = Part({1: (2, 5)})


@pytest.mark.parametrize(
    ("parts", "place", "seen"),
    [
        ({}, (1, 3), True),
        ({}, (2, 3), False),
        ({2: SOME}, (1, 5), True),
        ({2: SOME}, (1, 3), False),
        ({2: SOME}, (2, 5), False),
    ],
)
def test_a_look_sees_what_is_audited_and_nothing_else(
    parts: Any, place: tuple[int, int], seen: bool
):
    *_, values = layered()
    wrong = [*values[:2], put(values[2], (*place, 7), 99)]
    found = looks(wrong, parts).look(SCANNED)
    assert found.wrong is seen
    if seen:
        assert (found.trip, found.row) == place
    assert looks(wrong, {}, {2: None}).look(SCANNED).wrong


@pytest.mark.parametrize(("row", "seen"), [(5, True), (3, False)])
def test_a_claim_outside_of_the_scans_is_seen_in_its_rows(row: int, seen: bool):
    *_, values = layered()
    part: Any = Part({0: (2, 5)})
    found = looks([put(values[0], (row, 7), 99), *values[1:]], {0: part}, {0: None}).look(BEFORE)
    assert (found.wrong, found.row == row) == (seen, seen)


def test_an_answer_is_seen_whole():
    _, _, y, values = layered()
    found = looks(values, {}, y=put(y, (3, 7), 2)).look(ANSWER)
    assert (found.wrong, found.row) == (True, 3)


def test_flips_of_an_audited_claim_are_held_to_its_own_limit():
    made, _, _, values = layered()
    flipped = [values[0], put(values[1], (3, 0), values[1][3, 0] ^ 1), values[2]]
    found = looks(flipped, {}, {1: None}).look(DECIDED)
    assert (found.wrong, found.row, found.excess) == (False, 3, 1 / made.flip_limits[1])


@pytest.mark.parametrize(("parts", "place"), [({}, (1, 0)), ({2: SOME}, (1, 2))])
def test_numbers_where_no_device_has_any_are_seen_where_the_audit_looks(
    parts: Any, place: tuple[int, int]
):
    """Cheat: zeros throughout, whose logarithms are infinite."""
    *_, values = layered()
    found = looks([np.zeros_like(v) for v in values], parts).unfounded(SCANNED)
    assert (found.wrong, found.trip, found.row) == (True, *place)
    assert not looks(values, parts).unfounded(SCANNED).wrong


def test_looks_at_what_made_a_value_stay_with_what_is_audited():
    made, _, _, values = layered()
    assert made.compiled_check.second_look.reads(SCANNED) == {0, 1}
    assert looks(values, {}).reads(SCANNED) == frozenset()


def test_a_second_test_is_of_the_audited_rows():
    *_, values = layered()
    again = measured((1,), row=np.array([1], np.int32))
    found = looks(values, {2: SOME}, retests=lambda: {2: again}).retest(2)
    assert (found.row.tolist(), found.worst.tolist()) == ([0, 5, 0], [-1, 0.5, -1])
    every = looks(values, {}).retest(2)
    assert every.passed.tolist() == [True] * 3
    assert every.worst.min() > 0


def test_flips_of_an_audit_are_counted_in_its_run(monkeypatch: pytest.MonkeyPatch):
    *_, values = layered()
    asked: list[Any] = []
    monkeypatch.setattr(PartialLook, "recount", lambda _, *given: asked.append(given) or "found")
    assert looks(values, {}).recount([1], 3) == "found"
    [(run, *given)] = asked
    assert isinstance(run, CheckArguments)
    assert given == [[1], 3]
