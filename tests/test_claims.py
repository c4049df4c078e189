"""Contractions as linear maps against matrix products, and the table of what rounding does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contractions import Case, contraction_of, conv_cases, dot_cases, equation_of, matrix_form
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

from verifiable import interpreter
from verifiable.claims import (
    CONTINUOUS,
    EXACT,
    REBUILT,
    STEPS,
    Convolution,
    DotGeneral,
    contraction,
    effect_on_rounding,
    is_float,
    work,
)

DRAWS = 3


def form_of(case: Case, dtype: Any = np.float64) -> Any:
    shapes = [jax.ShapeDtypeStruct(case.shape(side), dtype) for side in (0, 1)]
    return contraction_of(case.product(), *shapes, near=case.near)


def assert_close(got: Any, want: np.ndarray) -> None:
    """Equal to 1e-12 of the largest element, with equal shapes."""
    assert got.shape == want.shape
    assert np.max(np.abs(got - want), initial=0) <= 1e-12 * np.max(np.abs(want), initial=1e-300)


def check_maps(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    form = form_of(case)
    lhs, rhs = (rng.standard_normal(case.shape(side)) for side in (0, 1))
    near, far = ((lhs, rhs), (rhs, lhs))[case.near]
    g = rng.standard_normal((form.columns, DRAWS))
    values = rng.standard_normal((form.batch, form.contracted, 1))
    weights = rng.standard_normal((form.batch, form.columns))

    def maps(lhs: Any, rhs: Any, near: Any, far: Any) -> dict[str, Any]:
        out = case.product()(lhs, rhs)
        projected = form.project(far, g)
        return {
            "out": out,
            "projected": projected,
            "applied": form.apply(near, projected),
            "folded": form.fold(out, g),
            "near_sums": form.near_sums(near, case.unprojected(values)),
            "out_sums": form.out_sums(out),
            "column_sums": form.column_sums(far),
            "scaled_far": form.scale_far(far, weights),
            "scaled_out": form.scale_out(out, weights),
        }

    with jax.enable_x64(True):
        got = jax.tree.map(np.asarray, jax.jit(maps)(lhs, rhs, near, far))
    a, b, c = case.dense(lhs, rhs, got["out"])
    assert (form.batch, form.rows, form.contracted, form.columns) == (*a.shape, c.shape[2])
    assert_close(c, a @ b)  # the oracle itself
    assert_close(case.projected(got["projected"]), b @ g)
    # The identity that the whole check stands on, with the layout that the two sides share.
    assert got["applied"].shape == got["folded"].shape == (*got["out_sums"].shape, DRAWS)
    assert_close(got["applied"], got["folded"])
    assert_close(got["applied"].reshape(a.shape[0], a.shape[1], DRAWS), a @ (b @ g))
    assert_close(got["near_sums"].reshape(a.shape[:2]), (a @ values)[..., 0])
    assert got["near_sums"].shape == got["out_sums"].shape
    assert_close(got["out_sums"].reshape(a.shape[:2]), c.sum(-1))
    assert_close(got["column_sums"], b.sum(1))
    assert_close(got["scaled_far"], case.far_from_dense(b * weights[:, None]))
    assert_close(case.dense(lhs, rhs, got["scaled_out"])[2], c * weights[:, None])


@given(case=dot_cases(), seed=st.integers(0, 2**32))
@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_dot_general_as_linear_maps(case: Case, seed: int):
    check_maps(case, seed)


@given(case=conv_cases(), seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_conv_general_dilated_as_linear_maps(case: Case, seed: int):
    check_maps(case, seed)


# --------------------------------------------------------------------------- what has a check


def product_of(lhs: str, rhs: str, out: str, contracted: int) -> Any:
    """The form of (4, contracted) @ (contracted, 4), or None."""

    def product(a: Any, b: Any) -> Any:
        return lax.dot_general(a, b, (((1,), (0,)), ((), ())), preferred_element_type=out)

    shapes = jax.ShapeDtypeStruct((4, contracted), lhs), jax.ShapeDtypeStruct((contracted, 4), rhs)
    return contraction_of(product, *shapes)


@pytest.mark.parametrize(
    ("lhs", "rhs", "longest"),
    [
        ("int8", "int8", 131_071),
        ("uint8", "uint8", 33_025),
        ("int8", "uint8", 65_793),
        ("uint8", "int8", 65_793),
    ],
)
def test_integers_have_a_check_where_they_cannot_wrap(lhs: str, rhs: str, longest: int):
    form = product_of(lhs, rhs, "int32", longest)
    assert form.exact
    extreme = [max(abs(int(np.iinfo(d).min)), int(np.iinfo(d).max)) for d in (lhs, rhs)]
    assert form.magnitude == longest * math.prod(extreme) <= 2**31 - 1
    assert product_of(lhs, rhs, "int32", longest + 1) is None


@pytest.mark.parametrize(
    ("lhs", "rhs", "out"),
    [
        ("int8", "int8", "int8"),  # wraps to eight bits
        ("int8", "int8", "int16"),
        ("int8", "int8", "float32"),
        ("uint8", "uint8", "uint32"),
        ("int16", "int16", "int32"),
        ("int32", "int32", "int32"),
        ("complex64", "complex64", "complex64"),
    ],
)
def test_other_types_have_none(lhs: str, rhs: str, out: str):
    assert product_of(lhs, rhs, out, 2) is None


@pytest.mark.parametrize(
    ("lhs", "rhs", "out"),
    [
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("bfloat16", "bfloat16", "float32"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("float16", "float16", "float32"),
        ("float16", "float16", "float16"),
        ("bfloat16", "float32", "float32"),
    ],
)
def test_floats_have_a_check(lhs: str, rhs: str, out: str):
    form = product_of(lhs, rhs, out, 2)
    assert form is not None
    assert not form.exact
    assert tuple(d.name for d in form.dtypes) == (lhs, rhs, out)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)], ids=str)
def test_empty_products_have_none(shape: tuple[int, int, int]):
    rows, contracted, columns = shape
    operands = np.zeros((rows, contracted)), np.zeros((contracted, columns))
    assert contraction_of(lax.dot, *operands) is None


def conv(dims: int = 2, **parameters: Any) -> Any:
    """The equation of a small convolution of 4 images and 4 features."""
    spatial = (5,) * dims
    groups = parameters.get("feature_group_count", 1)
    operands = np.zeros((4, 4, *spatial)), np.zeros((8, 4 // groups, *(2,) * dims))

    def product(x: Any, kernel: Any) -> Any:
        return lax.conv_general_dilated(x, kernel, (1,) * dims, "VALID", **parameters)

    return equation_of(product, *operands)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolutions_of_known_kernels_have_a_check(dims: int):
    form = contraction(conv(dims))
    assert isinstance(form, Convolution)
    assert form.work == 2 * 4 * 4**dims * 8 * 4 * 2**dims
    assert contraction(conv(dims), near=1) is None


def test_other_convolutions_have_none():
    assert contraction(conv(4)) is None
    assert contraction(conv(0)) is None
    assert contraction(conv(batch_group_count=2)) is None


def test_the_form_of_a_product():
    form = matrix_form(3, 4, 5)
    assert isinstance(form, DotGeneral)
    assert (form.batch, form.rows, form.contracted, form.columns) == (1, 3, 4, 5)
    assert (form.near, form.far, form.tests, form.work) == (0, 1, 3, 120)
    assert form.vectors(far_known=True) == "float/parameters/5"
    assert form.vectors(far_known=False) == "float/activations/5"
    exact = matrix_form(3, 4, 5, ("int8", "int8", "int32"))
    assert exact.vectors(far_known=True) == "exact/parameters/5"


def test_a_check_is_cheaper_than_a_wide_product_and_dearer_than_a_thin_one():
    wide, thin = matrix_form(128, 512, 512), matrix_form(128, 512, 2)
    assert wide.check_cost(16, far_known=True) < wide.work / 5
    assert thin.check_cost(16, far_known=True) > thin.work
    assert wide.check_cost(16, far_known=True) < wide.check_cost(16, far_known=False)
    assert wide.check_cost(16, far_known=True) < wide.check_cost(32, far_known=True)
    depthwise = contraction(conv(feature_group_count=4))
    assert depthwise is not None
    assert depthwise.check_cost(16, far_known=True) > depthwise.work


@pytest.mark.parametrize("draws", [1, 4, 16])
def test_attention_is_replayed_however_few_the_draws(draws: int):
    def scores(heads: int, tokens: int, size: int) -> Any:
        x = jax.ShapeDtypeStruct((heads, tokens, size), np.float32)
        return contraction_of(lambda q, k: jnp.einsum("hqd,hkd->hqk", q, k), x, x)

    small, large = scores(8, 2048, 64), scores(2, 4096, 1024)
    assert small.check_cost(draws, far_known=False) > small.work
    assert large.check_cost(draws, far_known=False) < large.work


def test_work_of_everything_else_is_its_size():
    x = np.zeros((3, 7))
    assert work(equation_of(jnp.sin, x)) == 21
    assert work(equation_of(lambda x: lax.reduce_sum_p.bind(x, axes=(0,)), x)) == 21
    assert work(equation_of(lambda x: lax.transpose(x, (1, 0)), x)) == 0
    assert work(equation_of(lax.dot, x, x.T)) == 2 * 3 * 7 * 3


# ---------------------------------------------------------------------------------- rounding


def test_the_tables_do_not_contradict_one_another():
    assert not EXACT & CONTINUOUS
    assert not STEPS & (EXACT | CONTINUOUS)


@pytest.mark.parametrize(
    ("source", "target", "effect"),
    [
        ("float32", "float64", "exact"),
        ("bfloat16", "float32", "exact"),
        ("float16", "float32", "exact"),
        ("float32", "complex64", "exact"),
        ("int32", "float32", "exact"),
        ("bool", "float32", "exact"),
        ("float32", "bfloat16", "narrow"),
        ("float32", "float16", "narrow"),
        ("float64", "float32", "narrow"),
        ("bfloat16", "float16", "narrow"),
        ("float16", "bfloat16", "narrow"),
        ("float32", "float8_e4m3fn", "step"),
        ("float32", "int32", "step"),
        ("float32", "bool", "step"),
    ],
)
def test_conversions(source: str, target: str, effect: str):
    x = jax.ShapeDtypeStruct((3,), source)
    equation = equation_of(lambda x: lax.convert_element_type(x, target), x)
    assert effect_on_rounding(equation) == (effect,)


UNARY = (
    "abs acos acosh asin asinh atan atanh bessel_i0e bessel_i1e cbrt ceil cos cosh digamma erf "
    "erf_inv erfc exp exp2 expm1 floor imag is_finite lgamma log log1p logistic neg real round "
    "rsqrt sign sin sinh sqrt square stop_gradient tan tanh"
).split()
UNNAMED = "atan2 nextafter rem".split()
BINARY = "add atan2 div eq ge gt le lt max min mul ne nextafter pow rem sub".split()


def jumps(function: Callable[..., Any], arguments: int) -> bool:
    """Whether a step of 1e-9 in one argument changes a result by more than 1e-2."""
    points = np.arange(-4, 5) / 2.0
    grids = [grid.reshape(-1) for grid in np.meshgrid(*[points] * arguments)]
    for moved in range(arguments):
        values = []
        for step in (-1e-9, 0.0, 1e-9):
            shifted = [x + step * (i == moved) for i, x in enumerate(grids)]
            values.append(np.asarray(function(*shifted), np.float64))
        stacked = np.stack(values)
        sane = np.all(np.isfinite(stacked) & (np.abs(stacked) < 100), axis=0)
        # A vertical tangent, such as that of a square root, is no jump.
        if np.any(np.ptp(stacked[:, sane], axis=0) > 1e-2):
            return True
    return False


@pytest.mark.parametrize("name", UNARY + BINARY)
def test_what_the_tables_call_continuous_has_no_jump(name: str):
    function: Callable[..., Any] = getattr(lax, name)
    arguments = 1 if name in UNARY else 2
    points = [np.zeros((9**arguments,))] * arguments
    if name in ("imag", "real"):
        points = [x.astype(np.complex128) for x in points]
    with jax.enable_x64(True), np.errstate(all="ignore"):
        equation = equation_of(function, *points)
        [effect] = effect_on_rounding(equation)
        if name in ("imag", "real"):
            assert effect == "exact"
            return
        jump = jumps(jax.jit(function), arguments)
    if name in UNNAMED:
        assert effect == "unknown"  # whether or not it jumps at these points
    else:
        assert (effect == "step") == jump


@pytest.mark.parametrize(
    ("function", "effects"),
    [
        (lambda x: lax.top_k(x, 2), ("exact", "step")),
        (lax.sort, ("exact",)),
        (lambda x: lax.sort((x, x), num_keys=1), ("step",) * 2),
        (lambda x: lax.argmax(x, 0, np.int32), ("step",)),
        (lambda x: lax.argmin(x, 0, np.int32), ("step",)),
        (lambda x: lax.reduce_precision(x, 5, 7), ("step",)),
        (lambda x: lax.bitcast_convert_type(x, np.int64), ("unknown",)),
        (lax.cumsum, ("continuous",)),
        (lax.cummax, ("exact",)),
        (lambda x: lax.rev(x, (0,)), ("exact",)),
    ],
    ids=lambda v: getattr(v, "__name__", str(v)),
)
def test_effects(function: Callable[..., Any], effects: tuple[str, ...]):
    assert effect_on_rounding(equation_of(function, np.zeros(9))) == effects


def test_a_primitive_that_no_table_names_is_unknown():
    equation = equation_of(lambda x: lax.linalg.eigh(x, symmetrize_input=False), np.eye(3))
    assert equation.kind not in EXACT | CONTINUOUS | STEPS
    assert set(effect_on_rounding(equation)) == {"unknown"}


def test_gathering_by_the_largest_is_a_choice():
    """The derivative of a maximum over windows picks a tangent by comparison: a tie may flip it."""

    def derivative(x: Any, t: Any) -> Any:
        def pool(x: Any) -> Any:
            return lax.reduce_window(x, -np.inf, lax.max, (2,), (2,), "VALID")

        return jax.jvp(pool, (x,), (t,))[1]

    t = np.array([0.0, 10.0])
    low, high = (np.asarray(derivative(np.array([1.0, 1 + s]), t)) for s in (-1e-6, 1e-6))
    assert abs(low - high) == 10
    function, _ = interpreter.trace(derivative, np.zeros(2), t)
    [choice] = [e for e in function.block.equations if "gather" in e.kind or "window" in e.kind]
    assert set(effect_on_rounding(choice)) <= {"step", "unknown"}


def test_random_bits_and_sorts_are_not_rebuilt_carelessly():
    """Rebuilding must be cheap and give the same bits: no sums over large operands."""
    assert not REBUILT & {"sort", "gather", "dot_general", "conv_general_dilated", "while", "scan"}


@given(st.sampled_from(["float32", "bfloat16", "complex64", "int8", "bool", "uint32"]))
def test_is_float(name: str):
    assert is_float(jnp.dtype(name)) == (name in ("float32", "bfloat16", "complex64"))
