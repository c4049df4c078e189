"""Rounding claims of whole matrices: rows in each way, ends of intervals, and what shifts pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tests.helpers.roundings import F32, I8, LEVELS, narrowing
from verifiable.claims.form import Yardstick
from verifiable.claims.roundings.axes import LAST, in_rows
from verifiable.claims.roundings.rounding import Rounding
from verifiable.claims.statistic import Statistic

BF16, F8 = np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn)
INF, NAN = math.inf, math.nan
EPS, TINY = 2.0**-10, 2.0**-126
GIVEN = Yardstick(eps=EPS)
RNG = np.random.default_rng(17)
ITSELF = Rounding(steps=(), source=F32, dtype=F32)

Matrix = np.ndarray[Any, Any]


def evaluated(function: Callable[..., Any], *arrays: Any) -> Any:
    """With 64 bits; behind the value, a claim may read other operands."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, function([*map(jnp.asarray, arrays), jnp.zeros(3)]))


def sizes(v: Matrix) -> Matrix:
    """|v| + rms of its row, in double precision."""
    v = v.astype(np.float64)
    return np.abs(v) + np.sqrt(np.mean(v * v, axis=-1, keepdims=True))


def limit(width: int) -> float:
    return max(1.0, 0.25 * math.sqrt(width))


def statistic(form: Rounding, v: Matrix, q: Matrix, *, cheap: bool = False) -> Statistic:
    given = form.cheapened(GIVEN) if cheap else GIVEN
    return evaluated(lambda operands: form.test(operands, jnp.asarray(q), given), v)


# ------------------------------------------------------------------------------- rows and ways

OFF: dict[str, Callable[[int, int], Matrix]] = {
    "one element": lambda m, n: np.eye(m, n, 1) * 0.9,
    "two elements of a row": lambda m, n: 0.8 * (np.eye(m, n, 1) + np.eye(m, n, 2)),
    "the last row": lambda m, n: np.full((m, n), 0.3) * (np.arange(m) == m - 1)[:, None],
    "the last column": lambda m, n: np.full((m, n), 0.7) * (np.arange(n) == n - 1),
    "all": lambda m, n: np.full((m, n), 0.2),
    "nothing": lambda m, n: np.zeros((m, n)),
}


@pytest.mark.parametrize("shape", [(3, 40), (40, 3)])
@pytest.mark.parametrize("off", OFF)
def test_a_matrix_is_held_to_its_elements_and_to_the_norms_of_rows_and_columns(
    off: str, shape: tuple[int, int]
):
    v = RNG.standard_normal(shape).astype(np.float32)
    ratio = OFF[off](*shape)
    q = (v + ratio * EPS * sizes(v)).astype(np.float32)
    rows, columns = (np.linalg.norm(ratio, axis=a) / limit(shape[a]) for a in (1, 0))
    by_row = np.concatenate([np.maximum(rows, ratio.max(1)), columns])
    for ways, worst in (((LAST,), by_row[: shape[0]]), ((LAST, (0,)), by_row)):
        form = replace(ITSELF, ways=ways)
        found = statistic(form, v, q)
        assert float(found.worst) == pytest.approx(worst.max(), rel=1e-3)
        assert math.isclose(worst[found.row], worst.max(), rel_tol=1e-3)
        assert bool(found.passed) == (worst.max() <= 1)
        cheap = statistic(form, v, q, cheap=True)
        assert bool(cheap.finite_operands) == (worst.max() < 0.98)


@pytest.mark.parametrize("axes", [(0,), (0, 2), (1, 2)])
def test_rows_along_other_axes_are_those_of_the_value_that_is_turned_round(axes: tuple[int, ...]):
    """In each method that goes by rows."""
    v = (30 * RNG.standard_normal((4, 3, 5))).astype(np.float32)
    v[1, 1, 1] = INF
    q = np.clip(np.rint(v + 0.1), -127, 127).astype(np.int8)
    shift = RNG.standard_normal(v.shape).astype(np.float32)
    turned = replace(LEVELS, ways=(axes,))

    def all_of(form: Rounding, v: Any, q: Any, shift: Any) -> Any:
        values = [v, jnp.zeros(3)]
        return (
            form.slack(jnp.where(jnp.isinf(v), 0.0, v), EPS),
            form.deviate(values, q, GIVEN).limit.reshape(v.shape),
            form.shifted(values, q, shift, 1.0, 0.5),
            *form.room(values, None, q, 1.0),
        ), (form.test(values, q, GIVEN), form.apart(values, [v + 1, v]))

    with jax.enable_x64(True):
        found, whole = all_of(turned, *map(jnp.asarray, (v, q, shift)))
        rows = [in_rows(jnp.asarray(x), axes) for x in (v, q, shift)]
        expected, same = all_of(LEVELS, *rows)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(in_rows(np.asarray(a), axes), b, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)
    [places] = turned.wholes(v.shape, v.size)
    np.testing.assert_array_equal(v.reshape(-1)[places], rows[0])


@pytest.mark.parametrize("shape", [(2, 0), (0, 2), (0,)])
def test_nothing_to_round_is_rounded_right(shape: tuple[int, ...]):
    v = np.zeros(shape, np.float32)
    for form in (ITSELF, narrowing(BF16)):
        q = v.astype(form.dtype)
        for found in (
            statistic(form, v, q),
            statistic(form, v, q, cheap=True),
            evaluated(lambda x, f=form, q=q: f.retest(x, jnp.asarray(q), GIVEN), v),
        ):
            assert float(found.worst) == 0
            assert found.passed & found.finite_claim & found.in_range & found.finite_operands
        moved = evaluated(lambda x, f=form, q=q: f.shifted(x, jnp.asarray(q), x[0], EPS, 1.0), v)
        assert (moved.shape, moved.dtype) == (shape, form.dtype)


# --------------------------------------------------------------------------- ends and what is none

ENDS: dict[str, tuple[Rounding, list[float], list[Any], list[tuple[float, float]]]] = {
    "levels": (
        LEVELS,
        [1.3, INF, -200, 5.0, 3.0, NAN],
        [1, 127, -127, 7, -128, 5],
        [(0.5, 1.5), (126.5, INF), (-INF, -126.5), (6.5, 7.5), (INF, -INF), (4.5, 5.5)],
    ),
    "a type without infinities": (
        narrowing(F8),
        [500.0, -500.0, 3.0, 3.0],
        [NAN, NAN, NAN, 3.0],
        [(464, INF), (-INF, -464), (464, INF), (2.875, 3.125)],
    ),
    "bfloat16": (
        narrowing(BF16),
        [1.0, 2.0],
        [1.0, INF],
        [(1 - 2**-9, 1 + 2**-8), (3.3961776e38, INF)],
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_element_deviates_from_the_values_that_round_to_it(name: str):
    """None does to what the chain never returns; what is not finite counts for no other element."""
    form, values, claims, ends = ENDS[name]
    v, q = np.asarray(values, np.float32), jnp.asarray(np.asarray(claims).astype(form.dtype))
    found = evaluated(lambda operands: form.deviate(operands, q, GIVEN), v)
    np.testing.assert_array_equal(found.expected[:, 0], v)
    np.testing.assert_allclose(found.low[:, 0], [low for low, _ in ends], rtol=1e-6)
    np.testing.assert_allclose(found.high[:, 0], [high for _, high in ends], rtol=1e-6)
    finite = np.isfinite(v)
    size = np.abs(np.where(finite, v, 0)) + np.sqrt(np.mean(v[finite].astype(np.float64) ** 2))
    np.testing.assert_allclose(found.limit, EPS * size + TINY, rtol=1e-6)
    np.testing.assert_allclose(found.scale, size + TINY / EPS, rtol=1e-6)


def test_a_tie_that_the_verifier_rounds_otherwise_is_outside_of_the_interval():
    for claim, inside in ((2, True), (3, False)):
        q = jnp.asarray([claim], I8)
        found = evaluated(lambda v, q=q: LEVELS.deviate(v, q, GIVEN), np.asarray([2.5], F32))
        assert bool((found.low <= 2.5) & (found.high >= 2.5)) is inside
        np.testing.assert_allclose([found.low, found.high], [[[claim - 0.5]], [[claim + 0.5]]])


UNFOUNDED: dict[str, tuple[Rounding, list[float], list[Any], list[bool]]] = {
    "bfloat16": (
        narrowing(BF16),
        [INF, INF, -INF, -INF, NAN, NAN, 1, 2],
        [INF, 3, -INF, INF, NAN, 7, 1, 9],
        [False, True, False, True, False, True, False, False],
    ),
    "levels": (
        LEVELS,
        [INF, INF, -INF, -INF, NAN, 3],
        [127, 126, -127, -128, 5, 100],
        [False, True, False, True, False, False],
    ),
    "a type without infinities": (narrowing(F8), [INF, -INF, INF], [NAN, NAN, 448], [0, 0, 1]),
}


@pytest.mark.parametrize("name", UNFOUNDED)
def test_a_number_where_there_is_none_to_round_is_unfounded(name: str):
    form, values, claims, wrong = UNFOUNDED[name]
    q = jnp.asarray(np.asarray(claims).astype(form.dtype))
    found = evaluated(lambda v: form.unfounded(v, q, GIVEN), np.asarray(values, F32))
    assert found.tolist() == [[bool(x)] for x in wrong]


def test_what_the_chain_never_returns_is_not_the_rounding_of_what_it_clips():
    for claim, passes in ((-127, True), (-128, False)):
        for cheap in (False, True):
            found = statistic(LEVELS, np.asarray([-200], F32), np.asarray([claim], I8), cheap=cheap)
            assert bool(found.passed & found.finite_operands) is passes


def test_beyond_the_largest_number_of_a_type_without_infinities_there_is_none():
    for value, claim, passes in (
        (500.0, NAN, True),
        (-500.0, NAN, True),
        (464.0, NAN, True),
        (463.9, NAN, True),  # within the slack of the middle
        (400.0, NAN, False),
        (3.0, NAN, False),
        (500.0, 448.0, False),
        (3.0, 3.0, True),
    ):
        v, q = np.asarray([value], F32), np.asarray([claim], F8)
        for cheap in (False, True):
            found = statistic(narrowing(F8), v, q, cheap=cheap)
            assert bool(found.passed & found.finite_operands) == passes, (value, claim, cheap)


# ---------------------------------------------------------------------------------------- room


def test_the_slack_of_operands_is_that_of_the_value_where_its_glue_is_not_followed():
    v = RNG.standard_normal((2, 8)).astype(np.float32)
    found = evaluated(lambda operands: LEVELS.slack_of(operands, EPS), v)
    np.testing.assert_allclose(found, EPS * sizes(v) + TINY, rtol=1e-6)


def test_values_are_apart_by_their_sizes():
    v = RNG.standard_normal((2, 8)).astype(np.float32)
    other = v.copy()
    other[1, 3] += 0.25
    for form, expected in ((ITSELF, 0.25 / sizes(v)[1, 3]), (ITSELF, 0.0)):
        theirs = other if expected else v
        found = evaluated(lambda mine, f=form, x=theirs: f.apart(mine, [jnp.asarray(x)]), v)
        assert float(found) == pytest.approx(expected, rel=1e-5)
    assert [form.observes for form in (ITSELF, LEVELS)] == [False, True]


@pytest.mark.parametrize("shape", [(3, 1), (3, 4), (3, 96), (96, 4)])
@pytest.mark.parametrize("kappa", [0.5, 1.0, 5.0])
def test_a_shift_of_all_elements_uses_up_what_passes_in_the_narrowest_way(
    shape: tuple[int, int], kappa: float
):
    v = RNG.standard_normal(shape).astype(np.float32)
    for ways in ((LAST,), (LAST, (0,))):
        form = replace(ITSELF, ways=ways)
        for sign in (0.25, -0.25):

            def run(operands: Any, form: Rounding = form, sign: float = sign) -> Any:
                shift = jnp.full(shape, sign, jnp.float32)
                moved = form.shifted(operands, operands[0], shift, EPS, kappa)
                return moved, form.test(operands, moved, GIVEN)

            moved, found = evaluated(run, v)
            assert float(found.worst) == pytest.approx(min(kappa, 1.0), rel=1e-3)
            assert np.all((moved - v) * sign > 0)
