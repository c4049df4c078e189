"""The tables of what rounding does, against the functions themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from tests.helpers.contractions import equation_of
from verifiable.jaxpr import from_jax
from verifiable.jaxpr.effects import PRIMITIVES, REBUILT, Effect, effects_of, is_float


def test_the_tables_do_not_contradict_one_another():
    names = [name for table in PRIMITIVES.values() for name in table]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("source", "target", "effect"),
    [
        ("float32", "float64", Effect.EXACT),
        ("bfloat16", "float32", Effect.EXACT),
        ("float16", "float32", Effect.EXACT),
        ("float32", "complex64", Effect.EXACT),
        ("int32", "float32", Effect.CONTINUOUS),  # exact where the integers are small
        ("int32", "int8", Effect.EXACT),
        ("float32", "bfloat16", Effect.NARROW),
        ("float32", "float16", Effect.NARROW),
        ("float64", "float32", Effect.NARROW),
        ("bfloat16", "float16", Effect.NARROW),
        ("float16", "bfloat16", Effect.NARROW),
        ("float32", "float8_e4m3fn", Effect.DISCONTINUOUS),
        ("float32", "int32", Effect.DISCONTINUOUS),
        ("float32", "bool", Effect.DISCONTINUOUS),
    ],
)
def test_conversions(source: str, target: str, effect: Effect):
    x = jax.ShapeDtypeStruct((3,), source)
    equation = equation_of(lambda x: lax.convert_element_type(x, target), x)
    assert effects_of(equation) == (effect,)


UNARY = (
    "abs acos acosh asin asinh atan atanh bessel_i0e bessel_i1e cbrt ceil cos cosh digamma erf "
    "erf_inv erfc exp exp2 expm1 floor imag is_finite lgamma log log1p logistic neg real round "
    "rsqrt sign sin sinh sqrt square stop_gradient tan tanh"
).split()
BINARY = "add div eq ge gt le lt max min mul ne nextafter pow sub".split()


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
        [effect] = effects_of(equation)
        if name in ("imag", "real"):
            assert effect == Effect.EXACT
            return
        jump = jumps(jax.jit(function), arguments)
    assert (effect == Effect.DISCONTINUOUS) == jump


def polynomial(x: Any) -> Any:
    return getattr(lax, "polynomial")(x, [1.0, 2.0, 3.0])  # noqa: B009


# Primitives of newer versions.
NEWER = [(polynomial, (Effect.CONTINUOUS,))] if hasattr(lax, "polynomial") else []
NEWER += [
    (getattr(lax, name), (Effect.CONTINUOUS,))
    for name in ("log2", "one_minus_square")
    if hasattr(lax, name)
]


@pytest.mark.parametrize(
    ("function", "effects"),
    [
        *NEWER,
        (lambda x: lax.top_k(x, 2), (Effect.EXACT, Effect.DISCONTINUOUS)),
        (lax.sort, (Effect.EXACT,)),
        (lambda x: lax.sort((x, x), num_keys=1), (Effect.DISCONTINUOUS,) * 2),
        (lambda x: lax.argmax(x, 0, np.int32), (Effect.DISCONTINUOUS,)),
        (lambda x: lax.argmin(x, 0, np.int32), (Effect.DISCONTINUOUS,)),
        (lambda x: lax.reduce_precision(x, 5, 7), (Effect.DISCONTINUOUS,)),
        (lambda x: lax.bitcast_convert_type(x, np.int64), (Effect.UNKNOWN,)),
        (lambda x: lax.sort((x, x), num_keys=1, is_stable=False), (Effect.UNDEFINED,) * 2),
        (lambda x: lax.sort((x, x), num_keys=2, is_stable=False), (Effect.DISCONTINUOUS,) * 2),
        (lambda x: lax.sort(x, is_stable=False), (Effect.EXACT,)),
        (lax.cumsum, (Effect.CONTINUOUS,)),
        (lax.cummax, (Effect.EXACT,)),
        (lambda x: lax.rev(x, (0,)), (Effect.EXACT,)),
    ],
    ids=lambda v: getattr(v, "__name__", str(v)),
)
def test_effects(function: Callable[..., Any], effects: tuple[Effect, ...]):
    assert effects_of(equation_of(function, np.zeros(9))) == effects


@pytest.mark.parametrize(
    ("function", "effect"),
    [
        (jnp.abs, Effect.CONTINUOUS),
        (lambda z: lax.max(z, z[::-1]), Effect.DISCONTINUOUS),
        (lax.sort, Effect.DISCONTINUOUS),
        (lax.cummax, Effect.DISCONTINUOUS),
        (lax.real, Effect.EXACT),
        (lax.conj, Effect.CONTINUOUS),
    ],
)
def test_complex_numbers_have_effects_of_their_own(function: Callable[..., Any], effect: Effect):
    """The magnitude is rounded; the order is by the real parts first."""
    shape = jax.ShapeDtypeStruct((9,), np.complex64)
    flat, _ = from_jax.trace(function, shape)
    assert effects_of(flat.block.equations[-1]) == (effect,)


@pytest.mark.parametrize(
    ("function", "effect"),
    [
        (lambda x, y: lax.reduce(x, y, lax.max, (0,)), Effect.EXACT),
        (lambda x, y: lax.reduce(x, y, jnp.minimum, (0,)), Effect.EXACT),
        (lambda x, y: lax.reduce(x, y, lambda a, _: lax.max(a, a), (0,)), Effect.UNKNOWN),
        (lambda x, y: lax.reduce(x, y, lambda a, b: lax.max(a, 2 * b), (0,)), Effect.UNKNOWN),
        (lambda x, y: lax.reduce(x, y, lax.mul, (0,)), Effect.UNKNOWN),
        (lambda x, y: lax.reduce_window(x, y, lax.min, (3,), (1,), "SAME"), Effect.EXACT),
        (
            lambda x, y: lax.reduce_window(x, y, lambda a, _: a, (3,), (1,), "SAME"),
            Effect.UNKNOWN,
        ),
        (lambda x, y: x.at[np.array([1, 1])].max(x[:2]), Effect.EXACT),
        (lambda x, y: jax.ops.segment_min(x, np.arange(9) // 2, 5), Effect.EXACT),
    ],
)
def test_reductions_and_scatters_that_only_select_are_exact(
    function: Callable[..., Any], effect: Effect
):
    flat, _ = from_jax.trace(function, np.zeros(9, np.float32), np.zeros((), np.float32))
    found = [e for e in flat.block.equations if e.kind.startswith(("reduce", "scatter"))]
    assert {effects_of(e) for e in found} == {(effect,)}
    z = np.zeros(9, np.complex64), np.zeros((), np.complex64)
    if effect is Effect.EXACT and found[0].kind.startswith("reduce"):
        [equation] = from_jax.trace(function, *z)[0].block.equations
        assert effects_of(equation) == (Effect.DISCONTINUOUS,)


def test_integers_as_bits_of_floats_are_exact():
    x = jax.ShapeDtypeStruct((3,), np.uint32)
    equation = equation_of(lambda x: lax.bitcast_convert_type(x, np.float32), x)
    assert effects_of(equation) == (Effect.EXACT,)


@pytest.mark.parametrize(
    ("write", "effect"),
    [
        (lambda x, i: x.at[i].set(x), Effect.UNDEFINED),
        (lambda x, i: x.at[i].set(x, unique_indices=True), Effect.EXACT),
        (lambda x, i: x.at[i[0]].set(x[0]), Effect.EXACT),
        (lambda x, i: x.at[::2].set(x[:2]), Effect.EXACT),
        (lambda x, i: x.at[i].add(x), Effect.CONTINUOUS),
        (lambda x, i: x.at[i].subtract(x), Effect.CONTINUOUS),
        (lambda x, i: x.at[i].max(x), Effect.EXACT),
    ],
)
def test_the_winner_of_two_writes_is_undefined(write: Callable[..., Any], effect: Effect):
    function, _ = from_jax.trace(write, np.zeros((4, 8), np.float32), np.zeros(4, np.int32))
    [scatter] = [e for e in function.block.equations if e.kind.startswith("scatter")]
    assert effects_of(scatter) == (effect,)


def test_a_primitive_that_no_table_names_is_unknown():
    equation = equation_of(lambda x: lax.linalg.eigh(x, symmetrize_input=False), np.eye(3))
    assert not any(equation.kind in table for table in PRIMITIVES.values())
    assert set(effects_of(equation)) == {Effect.UNKNOWN}


def test_gathering_by_the_largest_is_a_choice():
    """The derivative of a maximum over windows picks a tangent by comparison: a tie may flip it."""

    def derivative(x: Any, t: Any) -> Any:
        def pool(x: Any) -> Any:
            return lax.reduce_window(x, -np.inf, lax.max, (2,), (2,), "VALID")

        return jax.jvp(pool, (x,), (t,))[1]

    t = np.array([0.0, 10.0])
    low, high = (np.asarray(derivative(np.array([1.0, 1 + s]), t)) for s in (-1e-6, 1e-6))
    assert abs(low - high) == 10
    function, _ = from_jax.trace(derivative, np.zeros(2), t)
    [choice] = [e for e in function.block.equations if "gather" in e.kind or "window" in e.kind]
    assert set(effects_of(choice)) <= {Effect.DISCONTINUOUS, Effect.UNKNOWN}


def test_random_bits_and_sorts_are_not_rebuilt_carelessly():
    """Rebuilding must be cheap and give the same bits: no sums over large operands."""
    assert not REBUILT & {"sort", "gather", "dot_general", "conv_general_dilated", "while", "scan"}


@given(st.sampled_from(["float32", "bfloat16", "complex64", "int8", "bool", "uint32"]))
def test_is_float(name: str):
    assert is_float(jnp.dtype(name)) == (name in ("float32", "bfloat16", "complex64"))
