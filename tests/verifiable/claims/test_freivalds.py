"""The two checks: over whole tiny fields, against a slow oracle, and against their bounds."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax
from scipy import stats

from tests.helpers.contractions import (
    Case,
    DotCase,
    contraction_of,
    conv_cases,
    dot_cases,
    matrix_form,
)
from verifiable import challenge
from verifiable.challenge import Beacon, Challenge, CommitmentLog
from verifiable.claims import freivalds
from verifiable.claims.product import Product
from verifiable.claims.standalone import verify_conv_general_dilated, verify_dot_general
from verifiable.claims.statistic import Statistic, judge
from verifiable.field import F61, Field
from verifiable.policy import DEFAULT, Policy
from verifiable.report import Bound, Result, Verdict

SECRET = challenge.secret(bytes(range(32)))
Array = np.ndarray


def public_challenge() -> Challenge:
    log = CommitmentLog()
    log.append(bytes(32))
    closed = log.close(chain="drand", closed_at=1)
    beacon = Beacon(chain="drand", round=2, value=bytes(32))
    return challenge.public(
        closed, beacon, program=bytes(32), policy=bytes(32), parameters=bytes(32)
    )


def statistics_of(
    form: Any, *, eps: float, limit: float, field: Field = F61
) -> Callable[..., Statistic]:
    """`(near, far, claims, gs)` to the statistic of each claim under each set of vectors."""

    def one(near: Any, far: Any, claim: Any, g: Any) -> Statistic:
        projection = freivalds.project(form, far, g, eps=eps, field=field)
        return freivalds.test(form, near, projection, claim, g, eps=eps, limit=limit, field=field)

    over_claims = jax.vmap(one, in_axes=(None, None, 0, None))
    compiled = jax.jit(jax.vmap(over_claims, in_axes=(None, None, None, 0)))

    def run(near: Array, far: Array, claims: Any, gs: Any) -> Statistic:
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, compiled(near, far, np.stack(claims), np.stack(gs)))

    return run


# ------------------------------------------------------------------- exact: every vector there is


def rank(matrix: Array, p: int) -> int:
    """Rank modulo a prime, by elimination in plain integers."""
    rows = [[int(x) % p for x in row] for row in matrix]
    found = 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((r for r in rows[found:] if r[column]), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        inverse = pow(pivot[column], -1, p)
        pivot = [x * inverse % p for x in pivot]
        rows = [[(x - r[column] * y) % p for x, y in zip(r, pivot, strict=True)] for r in rows]
        rows.insert(found, pivot)
        found += 1
    return found


def every_vector(p: int, columns: int) -> Array:
    """(p^columns, columns, 1): all of F_p^columns."""
    return np.array(list(itertools.product(range(p), repeat=columns)), np.uint64)[..., None]


TINY = [(2, 4, 0), (3, 3, 0), (3, 3, 1), (5, 2, 0)]


@pytest.mark.parametrize(("exponent", "columns", "near"), TINY)
def test_over_a_tiny_field_a_wrong_product_is_accepted_by_one_in_p_to_its_rank(
    exponent: int, columns: int, near: int
):
    """So at most 1/p of all vectors, exactly as proven, and a right product by all of them."""
    field, rows, contracted = Field(exponent), 3, 2
    p = field.p
    rng = np.random.default_rng(exponent)
    left, right = (rows, columns) if near == 0 else (columns, rows)
    shapes = ((left, contracted), (contracted, right))
    operands = [rng.integers(-128, 128, s).astype(np.int8) for s in shapes]

    def product(a: Any, b: Any) -> Any:
        return lax.dot(a, b, preferred_element_type=jnp.int32)

    form = contraction_of(product, *operands, near=near)
    right_one = operands[0].astype(np.int32) @ operands[1].astype(np.int32)
    deviations = [np.zeros((rows, columns), np.int64)]
    for nonzero in range(1, rows + 1):
        for _ in range(6):
            deviation = np.zeros((rows, columns), np.int64)
            deviation[:nonzero] = rng.integers(-p, p + 1, (nonzero, columns))
            deviations.append(rng.permutation(deviation))
    for position in np.ndindex(rows, columns):
        deviations += [np.zeros((rows, columns), np.int64) for _ in range(2)]
        deviations[-2][position], deviations[-1][position] = 1, -(p - 1)
    signed = [d if near == 0 else d.T for d in deviations]
    run = statistics_of(form, eps=0.0, limit=1.0, field=field)
    found = run(
        operands[near],
        operands[1 - near],
        [(right_one + d).astype(np.int32) for d in signed],
        every_vector(p, columns),
    )
    accepted = found.passed.sum(axis=0)
    ranks = [rank(d, p) for d in deviations]
    assert {0, 1, 2} <= set(ranks)
    assert accepted.tolist() == [p ** (columns - r) for r in ranks]
    wrong = np.array([r > 0 for r in ranks])
    assert np.all(accepted[wrong] * p <= p**columns)
    assert np.array_equal(found.worst[..., ~wrong] == 0, found.passed[..., ~wrong])
    assert np.all((found.worst == 0) == found.passed)


def test_a_multiple_of_the_modulus_passes():
    """Which is why p is larger than the difference of any two accumulators of 32 bits."""
    field = Field(3)
    form = matrix_form(2, 3, 2, ("int8", "int8", "int32"))
    a, b = (np.arange(6, dtype=np.int8).reshape(s) for s in ((2, 3), (3, 2)))
    right = a.astype(np.int32) @ b.astype(np.int32)
    deviation = np.array([[7, -14], [0, 21]], np.int32)
    run = statistics_of(form, eps=0.0, limit=1.0, field=field)
    assert np.all(run(a, b, [right + deviation], every_vector(7, 2)).passed)
    accepted = run(a, b, [right + deviation + np.eye(2, dtype=np.int32)], every_vector(7, 2))
    assert accepted.passed.sum() == 1  # the zero vector
    assert F61.p > 2 * 2**31


def test_two_draws_square_the_probability():
    field = Field(2)
    form = matrix_form(1, 2, 2, ("int8", "int8", "int32"))
    a, b = np.array([[3, 4]], np.int8), np.array([[1, 2], [5, 6]], np.int8)
    right = a.astype(np.int32) @ b.astype(np.int32)
    singles = every_vector(3, 2)[..., 0]
    pairs = [np.stack(pair, axis=-1) for pair in itertools.product(singles, singles)]
    run = statistics_of(form, eps=0.0, limit=1.0, field=field)
    accepted = run(a, b, [right, right + np.array([[1, 0]], np.int32)], pairs).passed.sum(axis=0)
    assert accepted.tolist() == [81, 9]


# ------------------------------------------------------------------------------ exact: integers


def integers(shape: tuple[int, int], dtype: str, seed: int) -> Array:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


def exact_product(a: Array, b: Array) -> Array:
    return (a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32)


def verify(a: Array, b: Array, claim: Any, made: Challenge = SECRET, **parameters: Any) -> Result:
    """A matrix product, into int32 or into at least single precision."""
    kinds = {"int8": np.int32, "uint8": np.int32, "float64": np.float64}
    out = kinds.get(a.dtype.name, np.float32)
    return verify_dot_general(made, a, b, claim, preferred_element_type=out, **parameters)


def assert_rejected(result: Any, reason: str = "claim-mismatch") -> None:
    assert result.verdict is Verdict.REJECT, result
    assert result.reason == reason, result
    assert result.worst > 1


def assert_accepted(result: Any) -> None:
    assert result.verdict is Verdict.ACCEPT, result
    assert (result.reason, result.message) == ("ok", "")
    assert result.worst <= 1


@pytest.mark.parametrize("lhs", ["int8", "uint8"])
@pytest.mark.parametrize("rhs", ["int8", "uint8"])
def test_every_single_wrong_element_of_an_integer_product_is_rejected(lhs: str, rhs: str):
    a, b = integers((3, 5), lhs, 0), integers((5, 4), rhs, 1)
    right = exact_product(a, b)
    claims = [right]
    for position in np.ndindex(right.shape):
        for change in (1, -1, 256, 65536):
            claims.append(right.copy())
            claims[-1][position] += change
    form = matrix_form(3, 5, 4, (lhs, rhs, "int32"))
    gs = [SECRET.residues(f"test/{i}", (4, 1)) for i in range(3)]
    found = statistics_of(form, eps=0.0, limit=1.0)(a, b, claims, gs)
    assert np.all(found.passed[:, 0])
    assert not np.any(found.passed[:, 1:])
    rows = [position[0] for position in np.ndindex(right.shape) for _ in range(4)]
    assert np.all(found.row[:, 1:] == rows)
    assert_accepted(verify(a, b, right))
    assert_accepted(verify(a, b, right, public_challenge()))
    assert_rejected(verify(a, b, claims[1], public_challenge()))
    assert verify(a, b, right).exact


@dataclass(frozen=True)
class Cheat:
    """A wrong claim by name."""

    name: str
    tamper: Callable[[Array], Array]
    reason: str = "claim-mismatch"


def added(position: tuple[int, ...], value: Any) -> Callable[[Array], Array]:
    def tamper(claim: Array) -> Array:
        claim = claim.copy()
        claim[position] = (claim[position].astype(np.int64) + value).astype(claim.dtype)
        return claim

    return tamper


def opposite(claim: Array) -> Array:
    claim = claim.copy()
    claim[1, 0] += 1000
    claim[1, 1] -= 1000
    return claim


LONG = 70_000
INTEGER_CHEATS = [
    Cheat("one more", added((1, 0), 1)),
    Cheat("one less", added((1, 1), -1)),
    Cheat("equal and opposite changes in a row", opposite),
    Cheat("another by 2^30", added((0, 1), -(2**30))),
    Cheat("a deviation of 2^31", added((0, 0), -(2**31))),
    Cheat("a wrap-around by 2^32 - 1", added((0, 0), 2**32 - 1)),
    Cheat("every sign flipped", np.negative),
    Cheat("rows swapped", lambda c: c[::-1]),
    Cheat("columns swapped", lambda c: c[:, ::-1]),
    Cheat("all zero", np.zeros_like),
    Cheat("the largest integer", lambda c: np.full_like(c, np.iinfo(np.int32).max), "claim-range"),
    Cheat("the smallest integer", lambda c: np.full_like(c, np.iinfo(np.int32).min), "claim-range"),
    Cheat("just out of range", lambda c: np.full_like(c, LONG * 2**14 + 1), "claim-range"),
    Cheat("just in range", lambda c: np.full_like(c, LONG * 2**14)),
]


@functools.cache
def long_product() -> tuple[Array, Array, Array]:
    """A product with accumulators beyond 2^30, so that a change of 2^31 stays in range."""
    a, b = np.full((2, LONG), -128, np.int8), np.full((LONG, 2), -128, np.int8)
    a[1, : LONG // 3] = 127
    b[: LONG // 5, 1] = 127
    return a, b, exact_product(a, b)


@pytest.mark.parametrize("cheat", INTEGER_CHEATS, ids=lambda c: c.name)
def test_integer_cheats(cheat: Cheat):
    a, b, right = long_product()
    assert right[0, 0] > 2**30
    wrong = cheat.tamper(right)
    assert not np.array_equal(wrong, right)
    for seed in range(3):
        made = challenge.secret(seed.to_bytes(32, "big"))
        assert_rejected(verify(a, b, wrong, made), cheat.reason)


def test_the_extremes_of_the_accumulator_are_in_range():
    a, b, right = long_product()
    assert right.max() == LONG * 2**14
    assert_accepted(verify(a, b, right))


def test_a_check_modulo_two_to_the_32_would_miss_a_deviation_of_two_to_the_31():
    """Half of all vectors annihilate it there; modulo p not one in fifty does."""
    a, b, right = long_product()
    wrong = added((0, 0), -(2**31))(right)
    assert int(right[0, 0]) - int(wrong[0, 0]) == 2**31
    deviation = wrong.astype(object) - right.astype(object)
    rng = np.random.default_rng(0)
    draws = [[int(x) for x in rng.integers(0, 2**32, 2)] for _ in range(200)]
    naive = [all(x % 2**32 == 0 for x in deviation @ np.array(r, object)) for r in draws]
    assert 60 < sum(naive) < 140
    form = matrix_form(2, LONG, 2, ("int8", "int8", "int32"))
    gs = [SECRET.residues(f"modulus/{i}", (2, 1)) for i in range(20)]
    found = statistics_of(form, eps=0.0, limit=1.0)(a, b, [wrong], gs)
    assert np.all(found.in_range)
    assert not np.any(found.passed)


def test_signs_would_miss_equal_and_opposite_changes():
    """Half of all +-1 vectors do: the reason why none are drawn, neither here nor over floats."""
    right = long_product()[2]
    deviation = (opposite(right) - right).astype(np.int64)
    signs = np.random.default_rng(0).choice([-1, 1], (200, 2))
    missed = np.all(deviation @ signs.T == 0, axis=0).sum()
    assert 60 < missed < 140


# -------------------------------------------------------------------------- floats: slow oracle


def weights_of(b: Array) -> Array:
    """w_j = 1 / max(||B_:j||, 2^-12 max_j ||B_:j||), from the text; (batch, columns)."""
    norms = np.sqrt((b.astype(np.float64) ** 2).sum(1))
    return 1 / np.maximum(norms, 2.0**-12 * norms.max())


def scale(a: Array, b: Array, c: Array) -> Array:
    """s_i, (batch, rows)."""
    a, b, c = (x.astype(np.float64) for x in (a, b, c))
    w = weights_of(b)[:, None]
    variances = ((b * w) ** 2).sum(-1, keepdims=True)
    return np.sqrt((a**2 @ variances)[..., 0] + ((c * w) ** 2).sum(-1))


def ratios(a: Array, b: Array, c: Array, g: Array, eps: float, limit: float) -> Array:
    """Each row's statistic as a fraction of its limit, without floors; (batch, rows)."""
    delta = c.astype(np.float64) - a.astype(np.float64) @ b.astype(np.float64)
    rho = (delta * weights_of(b)[:, None]) @ g
    norms = np.sqrt((rho**2).sum(-1) / limit)
    # A row of zeros whose claim is zero has nothing to compare.
    return np.divide(norms, eps * scale(a, b, c), out=np.zeros_like(norms), where=norms > 0)


PATHS = {
    "float64": ("float64", "float64"),
    "float32": ("float32", "float32"),
    "bfloat16 to float32": ("bfloat16", "float32"),
    "float16 to float32": ("float16", "float32"),
    "bfloat16": ("bfloat16", "bfloat16"),
    "float16": ("float16", "float16"),
}
EXACT_PATHS = {"int8": ("int8", "int32"), "uint8": ("uint8", "int32")}


def operands_of(case: Case, dtype: str, rng: np.random.Generator) -> list[Array]:
    shapes = [case.shape(side) for side in (0, 1)]
    if dtype.endswith("int8"):
        info = np.iinfo(dtype)
        return [rng.integers(info.min, info.max + 1, s).astype(dtype) for s in shapes]
    return [rng.standard_normal(s).astype(np.dtype(dtype)) for s in shapes]


def check_case(case: Case, path: tuple[str, str], seed: int) -> None:
    """The honest product passes, a changed element does not, as the oracle says."""
    rng = np.random.default_rng(seed)
    lhs, rhs = operands_of(case, path[0], rng)
    near, far = ((lhs, rhs), (rhs, lhs))[case.near]
    product = case.product(np.dtype(path[1]))
    form = contraction_of(product, lhs, rhs, near=case.near)
    assert form is not None
    eps = DEFAULT.eps_of(form)
    limit = freivalds.limit(1e-9, form.tests, 16)
    name = form.vectors(far_known=True)
    g = freivalds.vectors(SECRET, name, 16)
    assert jax.ShapeDtypeStruct(g.shape, g.dtype) == freivalds.vectors_shape(name, 16)

    def run(lhs: Any, rhs: Any, near: Any, far: Any, step: Any) -> tuple[Any, Any]:
        out = product(lhs, rhs)
        wrong = (out.astype(jnp.float64) + step).astype(out.dtype)
        projection = freivalds.project(form, far, g, eps=eps)
        tests = jax.vmap(
            lambda c: freivalds.test(form, near, projection, c, g, eps=eps, limit=limit)
        )(jnp.stack([out, wrong]))
        return jnp.stack([out, wrong]), tests

    with jax.enable_x64(True):
        shape = jax.eval_shape(product, lhs, rhs).shape
        position = tuple(int(rng.integers(n)) for n in shape)
        step = np.zeros(shape)
        step[position] = 1.0 if form.exact else 3.0 * max(1, math.sqrt(form.contracted))
        (out, wrong), found = jax.tree.map(np.asarray, jax.jit(run)(lhs, rhs, near, far, step))
    assert np.all(found.finite_claim & found.finite_operands & found.in_range)
    assert found.passed.tolist() == [True, False]
    assert found.worst[0] <= 1 < found.worst[1]
    a, b, c = case.dense(lhs, rhs, wrong)
    delta = c.astype(np.float64) - case.dense(lhs, rhs, out)[2].astype(np.float64)
    [row] = np.flatnonzero(np.any(delta != 0, axis=-1))
    assert found.row[1] == row
    if not form.exact:
        want = ratios(a, b, c, g, eps, limit)
        # Half precision has a floor that counts: its subnormal numbers are large.
        tolerance = 1e-3 if "float16" in path else 1e-6
        assert found.worst[1] == pytest.approx(want.max(), rel=tolerance)
        honest = ratios(*case.dense(lhs, rhs, out), g, eps, limit)
        assert found.worst[0] == pytest.approx(honest.max(), abs=0.01)


paths = st.sampled_from([*PATHS.values(), *EXACT_PATHS.values()])


@given(case=dot_cases(), path=paths, seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_dot_generals(case: Case, path: tuple[str, str], seed: int):
    check_case(case, path, seed)


@given(case=conv_cases(), path=paths, seed=st.integers(0, 2**32))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_convolutions(case: Case, path: tuple[str, str], seed: int):
    check_case(case, path, seed)


@given(case=dot_cases(), at=st.integers(0, 2**16), seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_the_near_operand_gives_adds_up_over_parts(case: Case, at: int, seed: int):
    lhs, rhs = operands_of(case, "float32", np.random.default_rng(seed))
    near, far = ((lhs, rhs), (rhs, lhs))[case.near]
    form = contraction_of(case.product(np.dtype("float32")), lhs, rhs, near=case.near)
    assert form is not None
    g = freivalds.vectors(SECRET, form.vectors(far_known=True), 3)
    with jax.enable_x64(True):
        projection = freivalds.project(form, far, g, eps=1e-6)
        whole = freivalds.apply(form, near, projection)
        for axis, projected in form.contracted_axes().items():
            length = near.shape[axis]
            middle = at % length
            parts = [(0, middle), (middle, length - middle)]
            applied = [
                freivalds.apply(
                    form.cut_contracted(axis, size),
                    lax.slice_in_dim(near, start, start + size, axis=axis),
                    freivalds.piece(projection, projected, start, size),
                )
                for start, size in parts
                if size
            ]
            total = jax.tree.map(lambda *x: sum(x), *applied)
            np.testing.assert_allclose(total.product, whole.product, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(total.energy, whole.energy, rtol=1e-12)
    free = [d for d in range(near.ndim) if d not in form.contracted_axes()]
    for axis in free:
        with pytest.raises(ValueError, match="cannot be cut"):
            form.cut_contracted(axis, 1)


def test_only_sums_of_narrow_floats_add_up():
    def form(dtype: str, out: str) -> Any:
        a = jnp.zeros((2, 3), dtype)
        return contraction_of(
            lambda a, b: lax.dot(a, b, preferred_element_type=jnp.dtype(out)), a, a.T, near=0
        )

    with jax.enable_x64(True):
        assert [freivalds.additive(form(*path)) for path in PATHS.values()] == [
            "float64" not in path for path in PATHS.values()
        ]
        assert not any(freivalds.additive(form(*path)) for path in EXACT_PATHS.values())


EVERY_PATH = list((PATHS | EXACT_PATHS).items())


@pytest.mark.parametrize(
    ("path", "near"),
    [(path, i % 2) for i, (_, path) in enumerate(EVERY_PATH)],
    ids=[name for name, _ in EVERY_PATH],
)
def test_every_path(path: tuple[str, str], near: int):
    case = DotCase(
        sizes={"batch": (2,), "contracted": (5,), "left": (3,), "right": (4,)},
        lhs=(("batch", 0), ("left", 0), ("contracted", 0)),
        rhs=(("batch", 0), ("contracted", 0), ("right", 0)),
        near=near,
    )
    check_case(case, path, 0)


# ------------------------------------------------------------------------------ floats: the bound

TRIALS = 400
KAPPAS = (1, 2, 4, 8, 16)
EPS = 2.0**-10


def one_row(seed: int = 0) -> tuple[Array, Array]:
    """A (1, 1, 6) and B (1, 6, 24), with columns from massive to below the floor of weights."""
    rng = np.random.default_rng(seed)
    b = rng.standard_normal((1, 6, 24)) * np.logspace(3, -3, 24)
    return rng.standard_normal((1, 1, 6)), b


def deviation(a: Array, b: Array, direction: Array, kappa: float) -> Array:
    """The claim whose row deviates from A B along a direction by kappa sigma."""
    right = a @ b
    unit = direction / np.sqrt(((direction * weights_of(b)[:, None]) ** 2).sum())
    claim = right
    for _ in range(60):
        claim = right + kappa * EPS * scale(a, b, claim) * unit
    return claim


def directions(b: Array) -> dict[str, Array]:
    columns = b.shape[-1]
    found = {
        name: np.zeros((1, 1, columns)) for name in ("massive", "hidden", "opposite", "spread")
    }
    found["massive"][..., 0] = 1
    found["hidden"][..., -1] = 1
    found["opposite"][..., 5:7] = 1, -1
    found["spread"][:] = np.random.default_rng(1).standard_normal(columns)
    return found


def proportion(successes: int, trials: int) -> tuple[float, float]:
    """Clopper and Pearson's interval at 99.99 %."""
    interval = stats.binomtest(successes, trials).proportion_ci(0.9999, "exact")
    return interval.low, interval.high


@pytest.mark.parametrize("draws", [2, 16])
def test_measured_acceptance_lies_on_the_bound(draws: int):
    a, b = one_row()
    form = matrix_form(1, 6, 24)
    bound = freivalds.bound(1e-9, 1, draws)
    cases = list(itertools.product(directions(b).items(), KAPPAS))
    claims = [deviation(a, b, d, kappa)[0] for (_, d), kappa in cases]
    seeds = [challenge.secret(i.to_bytes(32, "big")) for i in range(TRIALS)]
    gs = [freivalds.vectors(s, form.vectors(far_known=True), draws) for s in seeds]
    found = statistics_of(form, eps=EPS, limit=bound.limit)(a[0], b[0], claims, gs)
    for i, ((name, _), kappa) in enumerate(cases):
        low, high = proportion(int(found.passed[:, i].sum()), TRIALS)
        assert low <= bound.acceptance(kappa) <= high, (name, kappa)
    # The test above would be empty if every probability were 0 or 1.
    assert any(0.05 < bound.acceptance(k) < 0.95 for k in KAPPAS)


def test_an_honest_run_on_the_edge_of_tolerance_is_rejected_with_probability_phi():
    """Every row deviates by exactly sigma: the worst that an honest run may do."""
    phi, rows, draws = 0.05, 6, 16
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((1, rows, 6)), one_row()[1]
    claim = np.concatenate(
        [deviation(a[:, [i]], b, rng.standard_normal((1, 1, 24)), 1.0) for i in range(rows)], axis=1
    )
    form = matrix_form(rows, 6, 24)
    limit = freivalds.limit(phi, rows, draws)
    gs = [challenge.secret(i.to_bytes(32, "big")).normals("x", (24, draws)) for i in range(TRIALS)]
    found = statistics_of(form, eps=EPS, limit=limit)(a[0], b[0], [claim[0]], gs)
    rejected = int(np.count_nonzero(~found.passed))
    assert rejected > 0
    assert proportion(rejected, TRIALS)[0] <= phi


def test_a_claim_cannot_widen_its_own_tolerance():
    """However large, a deviation is at most 1 / eps sigma, and never less the larger it is."""
    a, b = one_row()
    form = matrix_form(1, 6, 24)
    limit = freivalds.limit(1e-9, 1, 16)
    sizes = np.logspace(-1, 30, 32)
    claims = [(a @ b + s * directions(b)["spread"])[0] for s in sizes]
    g = freivalds.vectors(SECRET, form.vectors(far_known=True), 16)
    found = statistics_of(form, eps=DEFAULT.eps_of(form), limit=limit)(a[0], b[0], claims, [g])
    assert not np.any(found.passed)
    assert np.all(np.diff(found.worst[0][:12]) > 0)
    assert found.worst[0, -1] == pytest.approx(found.worst[0, -2], rel=1e-6)


def test_blowing_up_a_claim_leaves_one_over_eps():
    """The least probability with which any wrong claim passes: the claim is in its own scale."""
    a, b = one_row()
    form, eps, draws = matrix_form(1, 6, 24), 2.0**-3, 2
    bound = freivalds.bound(1e-9, 1, draws)
    claims = [(a @ b * size)[0] for size in (1e30, -1e60)]
    gs = [challenge.secret(i.to_bytes(32, "big")).normals("x", (24, draws)) for i in range(TRIALS)]
    found = statistics_of(form, eps=eps, limit=bound.limit)(a[0], b[0], claims, gs)
    for passed in found.passed.T:
        low, high = proportion(int(passed.sum()), TRIALS)
        assert low <= bound.acceptance(1 / eps) <= high
    # With the default number of draws that is nothing.
    for dtype, eps in DEFAULT.eps:
        whole = freivalds.bound(DEFAULT.phi, 10**6, DEFAULT.draws)
        assert whole.acceptance(1 / eps) < 1e-19, dtype


@pytest.mark.parametrize("draws", [1, 2, 8, 16, 32, 4096])
@pytest.mark.parametrize("fraction", [0.5, 1e-9, 1e-15, 1e-17, 1e-30])
def test_limits_are_finite_far_into_the_upper_tail(draws: int, fraction: float):
    limit = freivalds.limit(fraction, 1, draws)
    assert math.isfinite(limit)
    assert limit > 0
    assert limit == pytest.approx(stats.chi2.isf(fraction, draws), rel=1e-9)
    assert stats.chi2.sf(limit, draws) == pytest.approx(fraction, rel=1e-6)
    # From the lower tail, anything below 2^-53 would give an infinite limit that accepts all.
    if fraction < 2.0**-54:
        assert math.isinf(stats.chi2.ppf(1 - fraction, draws))


def test_limits_of_whole_programs():
    assert freivalds.limit(1e-9, 10**6, 16) == freivalds.limit(1e-15, 1, 16)
    assert freivalds.limit(1e-9, 0, 16) == freivalds.limit(1e-9, 1, 16)
    assert freivalds.limit(1e-9, 10**6, 16) > freivalds.limit(1e-9, 1, 16)
    with pytest.raises(ValueError, match="no finite limit"):
        freivalds.limit(1e-320, 10**9, 16)
    with pytest.raises(ValueError, match="no finite limit"):
        freivalds.limit(1.0, 1, 16)
    with pytest.raises(ValueError, match="no finite limit"):
        freivalds.limit(math.nan, 1, 16)


def test_the_numbers_of_the_design():
    """A million rows, one false rejection in 10^9 runs: what 16 draws miss once in 10^9."""
    for draws, kappa in ((8, 59), (16, 13.6), (32, 5.8)):
        bound = freivalds.bound(1e-9, 10**6, draws)
        assert bound.kappa(1e-9) == pytest.approx(kappa, rel=0.01)
    assert Policy().draws == 16


@given(
    phi=st.floats(1e-30, 0.5),
    rows=st.integers(1, 10**9),
    draws=st.sampled_from([1, 2, 8, 16, 32, 64]),
    miss=st.floats(1e-12, 0.99),
)
def test_kappa_and_acceptance_are_inverse(phi: float, rows: int, draws: int, miss: float):
    bound = freivalds.bound(phi, rows, draws)
    assert bound == Bound(phi=phi, rows=rows, draws=draws, limit=bound.limit)
    assert bound.acceptance(bound.kappa(miss)) == pytest.approx(miss, rel=1e-6)
    assert bound.acceptance(1.0) >= 1 - phi / rows - 1e-12
    assert bound.acceptance(0.0) == 1.0
    assert bound.acceptance(10.0) <= bound.acceptance(5.0) <= 1.0


@pytest.mark.parametrize("miss", [0.0, 1.0, -1.0, math.nan])
def test_a_probability_that_is_none_is_refused(miss: float):
    with pytest.raises(ValueError, match="between 0 and 1"):
        freivalds.bound(1e-9, 1, 16).kappa(miss)


# -------------------------------------------------------------------------- floats: named cheats

ROWS, INNER, COLUMNS = 6, 40, 24
SIZES = {"float32": 1e-3, "bfloat16": 1.0, "float16": 0.3, "float64": 1e-10}


@functools.cache
def float_product(dtype: str) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(5)
    a, b = (rng.standard_normal(s).astype(dtype) for s in ((ROWS, INNER), (INNER, COLUMNS)))
    out = np.float64 if dtype == "float64" else np.float32
    return a, b, (a.astype(np.float64) @ b.astype(np.float64)).astype(out)


def moved(change: Callable[[Array, float], None]) -> Callable[[Array, float], Array]:
    def tamper(claim: Array, size: float) -> Array:
        claim = claim.copy()
        change(claim, size)
        return claim

    return tamper


def put(position: Any, values: Any) -> Callable[[Array, float], Array]:
    def change(claim: Array, size: float) -> None:
        claim[position] += size * np.asarray(values)

    return moved(change)


def keep_the_largest(claim: Array, _size: float) -> Array:
    return np.where(np.abs(claim) >= np.sort(np.abs(claim))[:, [-6]], claim, 0)


FLOAT_CHEATS: dict[str, Callable[[Array, float], Array]] = {
    "one element": put((2, 3), 10.0),
    "a whole row": put(2, 3.0),
    "equal and opposite changes in a row": put((4, slice(0, 2)), [10.0, -10.0]),
    "a change that sums to nothing": put((0, slice(0, 4)), [7.0, -7.0, 7.0, -7.0]),
    "one sign": lambda c, _: np.where(np.abs(c) == np.abs(c).max(), -c, c),
    "every sign": lambda c, _: -c,
    "all zero": lambda c, _: np.zeros_like(c),
    "all but the largest zeroed": keep_the_largest,
    "rows swapped": lambda c, _: c[::-1],
    "columns swapped": lambda c, _: c[:, ::-1],
    "doubled": lambda c, _: 2 * c,
    "blown up": lambda c, _: c * np.asarray(1e20, c.dtype),
    "shrunk": lambda c, _: c * np.asarray(1e-20, c.dtype),
    "the largest number": lambda c, _: np.full_like(c, np.finfo(c.dtype).max),
}


@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("name", FLOAT_CHEATS)
def test_float_cheats(dtype: str, name: str):
    a, b, right = float_product(dtype)
    wrong = FLOAT_CHEATS[name](right, SIZES[dtype])
    result = verify(a, b, wrong)
    assert_rejected(result)
    assert result.bound == freivalds.bound(DEFAULT.phi, ROWS, DEFAULT.draws)
    assert not result.exact
    if name == "one element":
        assert result.row == 2


@pytest.mark.parametrize("dtype", SIZES)
def test_the_products_above_are_right(dtype: str):
    assert_accepted(verify(*float_product(dtype)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
def test_one_nonfinite_element_anywhere_rejects_a_claim(bad: float):
    a, b, right = float_product("float32")
    claims = []
    for position in np.ndindex(ROWS, COLUMNS):
        claims.append(right.copy())
        claims[-1][position] = bad
    found = found_in_product(a, b, claims)
    for i in range(len(claims)):
        statistic = Statistic(*(x[0, i] for x in found))
        assert judge(statistic, Product.mismatch) == (Verdict.REJECT, "claim-nonfinite")
    assert_rejected(verify(a, b, claims[0]), "claim-nonfinite")


@functools.cache
def product_statistics() -> Callable[..., Statistic]:
    form = matrix_form(ROWS, INNER, COLUMNS, ("float32",) * 3)
    return statistics_of(form, eps=DEFAULT.eps_of(form), limit=freivalds.limit(1e-9, ROWS, 16))


def found_in_product(a: Array, b: Array, claims: list[Array]) -> Statistic:
    return product_statistics()(a, b, claims, [SECRET.normals("g", (COLUMNS, 16))])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("side", ["near", "far"])
def test_a_nonfinite_operand_is_indeterminate(side: str, bad: float):
    a, b, right = (x.copy() for x in float_product("float32"))
    (a if side == "near" else b)[3, 3] = bad
    with np.errstate(invalid="ignore"):
        honest = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
    touched = honest.copy()
    touched[3] = 0
    wrong = honest.copy()
    wrong[5] = -right[5]
    found = found_in_product(a, b, [honest, touched, wrong])
    verdicts = [judge(Statistic(*(x[0, i] for x in found)), Product.mismatch) for i in range(3)]
    open_ = (Verdict.INDETERMINATE, "nonfinite-operand")
    assert verdicts[0] == open_
    # What the operands leave open is open; the other rows are still tested.
    if side == "near":
        assert verdicts[1:] == [open_, (Verdict.REJECT, "claim-mismatch")]
    else:
        assert all(verdict is not Verdict.ACCEPT for verdict, _ in verdicts)


def test_a_nonfinite_claim_is_rejected_where_only_other_rows_are_open():
    a, b, right = (x.copy() for x in float_product("float32"))
    a[3] = np.nan
    right[3], right[4] = np.nan, np.inf
    assert_rejected(verify(a, b, right), "claim-nonfinite")
    right[4] = a[4] @ b
    result = verify(a, b, right)
    assert (result.verdict, result.reason) == (Verdict.INDETERMINATE, "nonfinite-operand")


# ------------------------------------------------------------------------- zeros and extremes


def small_product(dtype: str, near: float, far: float) -> tuple[Array, Array, Array]:
    """A, B and their product, correctly rounded (and to zero where it is below all numbers)."""
    rng = np.random.default_rng(11)
    a, b = rng.uniform(0.5, 1, (4, 5)), rng.uniform(0.5, 1, (5, 3))
    a *= rng.choice([-1, 1], a.shape)
    b *= rng.choice([-1, 1], b.shape)
    a, b = (a * near).astype(dtype), (b * far).astype(dtype)
    return a, b, (a.astype(np.float64) @ b.astype(np.float64)).astype(dtype)


EXTREMES = [
    ("float32", 1e19, 1e18),
    ("float32", 1e38, 1e-20),
    ("float32", 1e-20, 1e38),
    ("float32", 1e-36, 1.0),
    ("float32", 1.0, 1e-36),
    ("float32", 1e-25, 1e-10),
    ("float64", 1.0, 1e300),
    ("float64", 1e300, 1.0),
    ("float64", 1e150, 1e150),
    ("float64", 1.0, 1e-200),
    ("float64", 1e-200, 1.0),
    ("float64", 1.0, 1e-300),
    ("float64", 1e-300, 1.0),
    ("float64", 1e300, 1e-300),
    ("float64", 1e-300, 1e300),
    ("float64", 1e-150, 1e-140),
    ("float64", 1.0, 1e307),
    ("float64", 1e307, 1.0),
]


@pytest.mark.parametrize(("dtype", "near", "far"), EXTREMES)
def test_extreme_numbers(dtype: str, near: float, far: float):
    """Neither squares nor weights overflow or vanish: right is accepted, wrong is rejected."""
    a, b, right = small_product(dtype, near, far)
    assert np.all(np.isfinite(right))
    assert np.all(right != 0)
    assert_accepted(verify(a, b, right))
    wrong = right.copy()
    wrong[2, 1] = -wrong[2, 1]
    assert_rejected(verify(a, b, wrong))
    assert_rejected(verify(a, b, np.zeros_like(right)))
    for value in (np.finfo(dtype).max, -np.finfo(dtype).max, 1.0):
        wrong = right.copy()
        wrong[1, 2] = value
        assert_rejected(verify(a, b, wrong))


def test_a_claim_whose_square_overflows_widens_nothing():
    """Its statistic may stay finite by chance; a tolerance that is infinite is none."""
    form = matrix_form(1, 1, 1)
    one = np.ones((1, 1))
    gs = np.linspace(-1.5, 1.5, 61).reshape(-1, 1, 1)
    sizes = (1.3e154, 1.4e154, 1.5e154, 1e200, 1e300, np.finfo(float).max)
    run = statistics_of(form, eps=2.0**-44, limit=freivalds.limit(1e-9, 1, 1))
    found = run(one, one, [size * one for size in sizes], gs[np.abs(gs[:, 0, 0]) > 1e-9])
    assert np.all(found.finite_claim)
    assert not np.any(found.passed)
    assert np.all(found.worst > 1)


@pytest.mark.parametrize(
    ("dtype", "near", "far"),
    [
        ("float32", 1e-25, 1e-25),
        ("float32", 1e-30, 1e-14),
        ("float64", 1e-200, 1e-120),
        ("float64", 1e-120, 1e-200),
        ("float64", 1e-200, 1e-200),
        ("float64", 1e-160, 1e-160),
    ],
)
def test_products_too_small_for_normal_numbers_may_be_flushed(dtype: str, near: float, far: float):
    """A device may keep subnormal products or not; it may not claim anything larger."""
    a, b, right = small_product(dtype, near, far)
    assert np.all(np.abs(right) < np.finfo(dtype).tiny)
    assert_accepted(verify(a, b, right))
    assert_accepted(verify(a, b, np.zeros_like(right)))
    for value in (1e4 * float(np.finfo(dtype).tiny), 1.0, float(np.finfo(dtype).max)):
        wrong = right.copy()
        wrong[1, 2] = value
        assert_rejected(verify(a, b, wrong))


@pytest.mark.parametrize(
    ("dtype", "near", "far"),
    [
        ("float32", 1.0, 1e-40),
        ("float32", 1e-40, 1.0),
        ("float32", 1e10, 1e-40),
        ("float32", 1e-40, 1e10),
        ("float32", 1e38, 1e-40),
        ("float32", 1e-40, 1e38),
        ("float64", 1.0, 1e-310),
        ("float64", 1e-310, 1.0),
        ("float64", 1e300, 1e-310),
    ],
)
def test_subnormal_operands_may_be_flushed(dtype: str, near: float, far: float):
    """Devices differ in whether a subnormal operand counts as zero; neither is wrong."""
    a, b, right = small_product(dtype, near, far)
    assert_accepted(verify(a, b, right))
    assert_accepted(verify(a, b, np.zeros_like(right)))
    wrong = right.copy()
    wrong[1, 2] = np.finfo(dtype).max
    assert_rejected(verify(a, b, wrong))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("where", ["row", "column", "near", "far", "both"])
def test_a_zero_demands_a_zero(dtype: str, where: str):
    a, b, _ = (x.copy() for x in float_product(dtype))
    if where == "row":
        a[2] = 0
    if where == "column":
        b[:, 3] = 0
    if where in ("near", "both"):
        a[:] = 0
    if where in ("far", "both"):
        b[:] = 0
    out = np.float64 if dtype == "float64" else np.float32
    right = (a.astype(np.float64) @ b.astype(np.float64)).astype(out)
    assert right[2, 3] == 0
    assert_accepted(verify(a, b, right))
    assert_accepted(verify(a, b, np.where(right == 0, -0.0, right)))
    for value in (1.0, -1e-2, 1e30):
        wrong = right.copy()
        wrong[2, 3] = value
        result = verify(a, b, wrong)
        assert_rejected(result)
        assert result.row == 2


@pytest.mark.parametrize("value", [1e-30, 1e-20, 1e-6])
def test_a_tiny_claim_in_a_row_of_zeros_is_wrong(value: float):
    """No tolerance is absolute but for a few of the smallest normal numbers."""
    a, b, right = (x.copy() for x in float_product("float32"))
    a[2], right[2] = 0, 0
    right[2, 3] = value
    assert_rejected(verify(a, b, right))


def test_a_component_beside_a_massive_one_keeps_its_own_tolerance():
    """Down to 2^-12 of the largest column, a change of a hundredth of an element is seen."""
    a, b, _ = (x.copy() for x in float_product("float32"))
    b[:, 0] *= 4000
    right = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
    assert_accepted(verify(a, b, right))
    wrong = right.copy()
    wrong[2, 3] *= 1.1
    assert_rejected(verify(a, b, wrong))


def test_below_the_floor_of_weights_a_column_is_held_to_the_floor():
    """The limit of the scale: a column of 2^-40 of the largest has 2^28 times its tolerance."""
    a, b, _ = (x.copy() for x in float_product("float32"))
    b[:, 0] *= np.float32(2.0**40)
    right = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
    wrong = right.copy()
    wrong[2, 3] = -wrong[2, 3]
    assert_accepted(verify(a, b, wrong))
    g = SECRET.normals("float/parameters/24", (24, 16))
    limit = freivalds.limit(1e-9, ROWS, 16)
    assert ratios(a[None], b[None], wrong[None], g, 2.0**-16, limit).max() < 1


# ------------------------------------------------------------------------------- the plain calls


def test_any_dimension_numbers():
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((3, 2, 4), (4, 2, 5)))
    numbers = (((2,), (0,)), ((1,), (1,)))
    right = np.asarray(lax.dot_general(a, b, numbers))
    assert_accepted(verify_dot_general(SECRET, a, b, right, numbers))
    assert_accepted(verify_dot_general(SECRET, *map(jnp.asarray, (a, b, right)), numbers))
    assert_rejected(verify_dot_general(SECRET, a, b, right[::-1], numbers))


def test_a_policy_of_the_callers_own():
    a, b, right = float_product("float32")
    wrong = put((2, 3), 10.0)(right, SIZES["float32"])
    lax_policy = Policy(eps=(("float32", 0.25),))
    assert_accepted(verify(a, b, wrong, policy=lax_policy))
    result = verify(a, b, right, policy=Policy(draws=3, phi=1e-6))
    assert result.bound == freivalds.bound(1e-6, ROWS, 3)
    with pytest.raises(ValueError, match="no tolerance for float32, only for float64"):
        verify(a, b, right, policy=Policy(eps=(("float64", 0.25),)))


@pytest.mark.parametrize("shape", [(), (0,), (6,), (24, 6), (6, 25), (1, 6, 24), (144,)], ids=str)
def test_a_claim_of_another_shape_is_rejected(shape: tuple[int, ...]):
    a, b, _ = float_product("float32")
    result = verify(a, b, np.zeros(shape, np.float32))
    assert (result.verdict, result.reason) == (Verdict.REJECT, "claim-shape")
    assert str(shape) in result.message
    assert "(6, 24)" in result.message
    assert not result.worst <= 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32", "bool", "complex64"])
def test_a_claim_of_another_type_is_rejected(dtype: str):
    """Its type decides the tolerance, so it is not the device's to choose."""
    a, b, right = float_product("float32")
    result = verify(a, b, right.astype(dtype))
    assert (result.verdict, result.reason) == (Verdict.REJECT, "claim-dtype")
    assert dtype in result.message
    assert "float32" in result.message
    a, b, right = long_product()
    result = verify(a, b, right.astype(np.int64))
    assert (result.verdict, result.reason) == (Verdict.REJECT, "claim-dtype")


@pytest.mark.parametrize(
    "claim", [None, "text", [[1.0]], object(), np.array(None), {}], ids=lambda c: type(c).__name__
)
def test_a_claim_that_is_no_array_is_rejected(claim: Any):
    a, b, _ = float_product("float32")
    result = verify(a, b, claim)
    assert result.verdict is Verdict.REJECT
    assert result.reason in ("claim-shape", "claim-dtype")


@pytest.mark.parametrize(
    ("lhs", "rhs", "out"),
    [
        ("int8", "int8", None),  # wraps to eight bits
        ("int8", "int8", "int16"),
        ("int8", "int8", "float32"),
        ("int8", "float32", "float32"),
        ("int16", "int16", "int32"),
        ("int32", "int32", "int32"),
        ("uint8", "uint8", "uint32"),
        ("bool", "bool", None),
        ("bool", "bool", "int32"),
        ("complex64", "complex64", None),
        ("float8_e4m3fn", "float8_e4m3fn", "float32"),
        ("object", "float32", None),
        ("float32", "<U1", None),
    ],
)
def test_other_types_are_the_callers_mistake(lhs: str, rhs: str, out: str | None):
    types = [getattr(ml_dtypes, d, d) for d in (lhs, rhs)]
    a, b = (np.zeros(s, t) for s, t in zip(((2, 3), (3, 2)), types, strict=True))
    with pytest.raises(TypeError, match="no check"):
        verify_dot_general(SECRET, a, b, np.zeros((2, 2)), preferred_element_type=out)


def test_what_might_wrap_is_the_callers_mistake():
    a, b = np.zeros((1, 131_072), np.int8), np.zeros((131_072, 1), np.int8)
    with pytest.raises(TypeError, match="may wrap"):
        verify(a, b, np.zeros((1, 1), np.int32))


@pytest.mark.parametrize("shapes", [((2, 3), (4, 2)), ((2, 3), (2, 3)), ((), (3,))], ids=str)
def test_operands_that_do_not_fit_are_the_callers_mistake(shapes: Any):
    a, b = (np.zeros(s, np.float32) for s in shapes)
    with pytest.raises(ValueError, match="shapes"):
        verify(a, b, np.zeros((2, 2), np.float32))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_convolutions(dtype: str):
    rng = np.random.default_rng(4)
    shapes = (2, 8, 7), (8, 4, 3)
    if dtype == "int8":
        x, kernel = (rng.integers(-128, 128, s).astype(np.int8) for s in shapes)
    else:
        x, kernel = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    out = jnp.int32 if dtype == "int8" else jnp.float32
    parameters: dict[str, Any] = {
        "feature_group_count": 2,
        "rhs_dilation": (2,),
        "preferred_element_type": out,
    }
    right = np.asarray(lax.conv_general_dilated(x, kernel, (2,), [(1, 2)], **parameters))
    result = verify_conv_general_dilated(SECRET, x, kernel, right, (2,), [(1, 2)], **parameters)
    assert_accepted(result)
    wrong = right.copy()
    wrong[1, 5, 2] += 1
    result = verify_conv_general_dilated(SECRET, x, kernel, wrong, (2,), [(1, 2)], **parameters)
    assert_rejected(result)
    result = verify_conv_general_dilated(SECRET, x, kernel, right[1:], (2,), [(1, 2)], **parameters)
    assert (result.verdict, result.reason) == (Verdict.REJECT, "claim-shape")


def test_convolutions_without_a_check_are_the_callers_mistake():
    x, kernel = np.zeros((2, 4, 5), np.float32), np.zeros((4, 4, 2), np.float32)
    with pytest.raises(TypeError, match="no check"):
        verify_conv_general_dilated(
            SECRET,
            x,
            kernel,
            np.zeros((1, 4, 4), np.float32),
            (1,),
            "VALID",
            batch_group_count=2,
        )


def test_a_result_can_be_required():
    a, b, right = float_product("float32")
    verify(a, b, right).require()
    with pytest.raises(Exception, match="claim-mismatch: worst ratio"):
        verify(a, b, -right).require()


# --------------------------------------------------------------------------------------- judge


def statistic(**changes: Any) -> Statistic:
    fine = Statistic(
        worst=np.float64(0.5),
        row=np.int32(0),
        passed=np.True_,
        finite_claim=np.True_,
        in_range=np.True_,
        finite_operands=np.True_,
    )
    return fine._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({}, Verdict.ACCEPT, "ok"),
        ({"worst": np.float64(1.0)}, Verdict.ACCEPT, "ok"),
        ({"worst": np.float64(1.0000001)}, Verdict.REJECT, "claim-mismatch"),
        ({"worst": np.float64(np.nan)}, Verdict.REJECT, "claim-mismatch"),
        ({"worst": np.float64(np.inf)}, Verdict.REJECT, "claim-mismatch"),
        ({"passed": np.False_}, Verdict.REJECT, "claim-mismatch"),
        ({"finite_claim": np.False_}, Verdict.REJECT, "claim-nonfinite"),
        ({"in_range": np.False_}, Verdict.REJECT, "claim-range"),
        ({"finite_operands": np.False_}, Verdict.INDETERMINATE, "nonfinite-operand"),
        (
            {"finite_operands": np.False_, "passed": np.False_},
            Verdict.REJECT,
            "claim-mismatch",
        ),
    ],
)
def test_only_what_passed_everything_is_accepted(
    changes: dict[str, Any], verdict: Verdict, reason: str
):
    assert judge(statistic(**changes), Product.mismatch) == (verdict, reason)


def test_sets_of_vectors():
    for name, shape, dtype in (
        ("float/parameters/24", (24, 16), np.float64),
        ("float/activations/3", (3, 16), np.float64),
        ("exact/parameters/5", (5, 1), np.uint64),
    ):
        drawn = freivalds.vectors(SECRET, name, 16)
        assert (drawn.shape, drawn.dtype) == (shape, dtype)
        assert freivalds.vectors_shape(name, 16) == jax.ShapeDtypeStruct(shape, dtype)
    assert freivalds.vectors(public_challenge(), "exact/parameters/5", 16).shape == (5, 2)
    both = [freivalds.vectors(SECRET, f"float/{k}/24", 16) for k in ("parameters", "activations")]
    assert not np.any(both[0] == both[1])


def test_a_projection_of_integers_cannot_test_floats():
    form = matrix_form(2, 3, 2)
    projection = freivalds.Projection(np.zeros((3, 1)), None, None)
    with pytest.raises(ValueError, match="cannot test floats"):
        freivalds.test(
            form, np.zeros((2, 3)), projection, np.zeros((2, 2)), np.zeros((2, 1)), eps=1, limit=1
        )
