"""Bounds on integers: never below what a program can compute, and tight where it matters."""

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

from verifiable.jaxpr import from_jax, integers
from verifiable.jaxpr.blocks import Var
from verifiable.jaxpr.graph import Graph
from verifiable.jaxpr.integers import FixedPoint

I8 = jax.ShapeDtypeStruct((4, 16), np.int8)
I32 = jax.ShapeDtypeStruct((4, 16), np.int32)
F32 = jax.ShapeDtypeStruct((4, 16), np.float32)
MOST = 2**31


def bound(fn: Callable[..., Any], *shapes: Any) -> FixedPoint | None:
    """The bound of what a function returns."""
    function, _ = from_jax.trace(fn, *shapes)
    bounds: dict[Var, FixedPoint | None] = {}
    producers = Graph.of(function.block).producers

    def of(atom: Any) -> FixedPoint | None:
        found = bounds.get(atom) if isinstance(atom, Var) else None
        return integers.of_type(atom) if found is None else found

    for e in function.block.equations:
        bounds.update((v, integers.of_output(e, v, of, producers)) for v in e.outputs)
    return of(function.block.outputs[0])


def dot(a: Any, b: Any) -> Any:
    return lax.dot(a, b.T, preferred_element_type=jnp.float32)


@pytest.mark.parametrize(
    ("fn", "shape", "expected"),
    [
        (lambda x: x, I8, 128),
        (lambda x: x.astype(jnp.float32), I8, 128),
        (lambda x: x.astype(jnp.bfloat16), I8, 128),
        (lambda x: x.astype(jnp.float32), I32, None),  # above 2^24
        (lambda x: x.astype(jnp.float16), jax.ShapeDtypeStruct((3,), np.int16), None),
        (lambda x: x, F32, None),
        (jnp.round, F32, None),
        (lambda x: x > 0, F32, 1),
        (lambda x: (x > 0).astype(jnp.float32).sum(), F32, 64),
        (lambda x: 1.0 - (x > 0).astype(jnp.float32), F32, 2),
        (lambda x: (1.0 - (x > 0)) * -1e9, F32, None),
        (lambda x: x.astype(jnp.float32) * 0.3, I8, None),
        (lambda x: jnp.arange(7) + x.shape[0], I8, 10),
        (lambda x: jnp.where(x > 0, 3, -5), I8, 5),
        (lambda x: lax.clamp(-7, x, 5), I32, 7),
        (lambda x: x * x, I32, MOST),  # may wrap
        (lambda x: (-x.astype(jnp.int32)).astype(jnp.uint32), I8, 2**32 - 1),
        (lambda x: dot(x, x), I8, 16 * 2**14),
        (lambda x: dot(x.astype(jnp.float32), x.astype(jnp.float32)), I8, 16 * 2**14),
        (lambda x: x.astype(jnp.float32) ** 3, I8, 2**21),
    ],
)
def test_bounds_of_integers(fn: Callable[..., Any], shape: Any, expected: int | None):
    assert bound(fn, shape) == (None if expected is None else FixedPoint(expected))


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda x: x.astype(jnp.float32) * 0.5, FixedPoint(128, 1)),
        (lambda x: (jnp.arange(8) + 0.5) * 0.25 - 0.5, FixedPoint(7 * 2 + 1 + 4, 3)),
        (lambda x: jnp.floor((jnp.arange(8) + 0.5) * 0.25), FixedPoint(2)),
        (lambda x: ((jnp.arange(8) + 0.5) * 0.25).astype(jnp.int32), FixedPoint(2)),
        (lambda x: ((jnp.arange(8) + 0.5) * 0.25).astype(bool), FixedPoint(1)),
        (lambda x: lax.clamp(-0.5, x.astype(jnp.float32) * 0.25, 0.5), FixedPoint(2, 2)),
        (lambda x: (x.astype(jnp.float32) + 0.5) / 8.0, FixedPoint(257, 4)),
        (lambda x: x.astype(jnp.float32) / 3.0, None),
        (lambda x: x.astype(jnp.float32) * 2.0**-90 * 2.0**-40, None),  # subnormal
        (lambda x: (x.astype(jnp.float32) + 0.5) ** 2, FixedPoint(257**2, 2)),
        (lambda x: (x.astype(jnp.float32) + 0.5) ** 4, None),  # above 24 bits
        (lambda x: dot(x.astype(jnp.float32) * 0.5, x), FixedPoint(16 * 2**14, 1)),
        (lambda x: dot(x.astype(jnp.float32) + 0.5, x), None),  # an operand of 9 bits
    ],
)
def test_bounds_of_fractions(fn: Callable[..., Any], expected: FixedPoint | None):
    assert bound(fn, I8) == expected


def scale(fn: Callable[..., Any], *shapes: Any) -> int | None:
    """The scale of what a function returns, if it is a multiple of any size."""
    function, _ = from_jax.trace(fn, *shapes)
    found: dict[Var, int | None] = {}

    def of(atom: Any) -> int | None:
        known = integers.of_type(atom)
        return found.get(atom) if known is None and isinstance(atom, Var) else known and known.scale

    for e in function.block.equations:
        found.update((v, integers.multiple(e, v, of)) for v in e.outputs)
    return of(function.block.outputs[0])


MULTIPLES: list[tuple[Callable[..., Any], int | None]] = [
    (lax.round, 0),
    (lambda x: 2.0 * lax.round(lax.round(x) * 0.5), 0),
    (lambda x: lax.floor(x) / 8.0, 3),
    (lambda x: 0.25 * -lax.ceil(x), 2),
    (lambda x: lax.floor(x) / 0.25, 0),
    (lambda x: jnp.where(x > 0, lax.round(x) * 0.5, lax.floor(x))[:2], 1),
    (lambda x: lax.floor(x.astype(jnp.bfloat16)).astype(jnp.float32) * 0.5, 1),
    (lambda x: lax.floor(x).astype(jnp.bfloat16), None),  # above 2^8
    (lambda x: lax.floor(x).astype(jnp.int32).astype(jnp.float32), None),  # above 2^24
    (lambda x: x.astype(jnp.float8_e4m3fn).astype(jnp.float32) * 0.5, None),
    (lambda x: x * 0.5, None),
    (lambda x: lax.round(x) * 3.0, None),
    (lambda x: lax.round(x) / 3.0, None),
    (lambda x: 2.0 / lax.round(x), None),
    (lambda x: lax.round(x) - 2.0 * lax.floor(x), None),
    (lambda x: lax.round(x) * 2.0**-90 * 2.0**-40, None),  # subnormal
]


@pytest.mark.parametrize(("fn", "expected"), MULTIPLES)
def test_whole_numbers_of_any_size_stay_exact_where_they_are_doubled_and_halved(
    fn: Callable[..., Any], expected: int | None
):
    assert scale(fn, F32) == expected


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_subnormal=False), min_size=4, max_size=4)
)
def test_multiples_are_computed_without_rounding(numbers: list[float]):
    x = np.array(numbers, np.float32)
    for fn, expected in MULTIPLES:
        if expected is not None:
            with jax.enable_x64(True), np.errstate(over="ignore"):
                exact = np.asarray(fn(jnp.asarray(x, jnp.float64))).astype(np.float32)
            found = np.asarray(fn(jnp.asarray(x)))
            np.testing.assert_array_equal(found, exact)
            finite = found[np.isfinite(found)].astype(np.float64) * 2.0**expected
            np.testing.assert_array_equal(finite, np.rint(finite))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_uniform_random_numbers_are_exact(dtype: str):
    """Devices agree on every bit of a number, and so on whether it is below a rate."""
    found = bound(lambda k: jax.random.uniform(k, (4,), dtype), jax.random.key(0))
    bits = jnp.finfo(dtype).nmant
    assert found == FixedPoint(2**bits, bits)
    drawn = jax.random.uniform(jax.random.key(0), (512,), dtype).astype(jnp.float32)
    assert np.all(drawn * 2.0**bits == np.round(drawn * 2.0**bits))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: lax.bitcast_convert_type(x | np.uint32(0x3F800000), jnp.float32) - 1.0,
        lambda x: lax.bitcast_convert_type((x >> 9) | np.uint32(0x3F000000), jnp.float32) - 1.0,
        lambda x: lax.bitcast_convert_type((x >> 9) | np.uint32(0x3F800000), jnp.float32) - 0.9,
        lambda x: lax.bitcast_convert_type((x >> 8) | np.uint32(0x3F800000), jnp.float32) - 1.0,
        lambda x: lax.bitcast_convert_type(x, jnp.float32) - 1.0,
    ],
)
def test_other_bits_are_not_taken_for_uniform_random_numbers(fn: Callable[..., Any]):
    assert bound(fn, jax.ShapeDtypeStruct((4,), np.uint32)) is None


@pytest.mark.parametrize(("terms", "exact"), [(1024, True), (1025, False)])
def test_products_of_int8_in_float32_are_exact_up_to_1024_terms(terms: int, exact: bool):
    x = jax.ShapeDtypeStruct((4, terms), np.int8)
    assert (bound(dot, x, x) is not None) == exact
