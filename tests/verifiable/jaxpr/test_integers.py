"""Bounds on integers: never below what a program can compute, and tight where it matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable.jaxpr import flatten, integers
from verifiable.jaxpr.blocks import Var

I8 = jax.ShapeDtypeStruct((4, 16), np.int8)
I32 = jax.ShapeDtypeStruct((4, 16), np.int32)
F32 = jax.ShapeDtypeStruct((4, 16), np.float32)
MOST = 2**31


def bound(fn: Callable[..., Any], *shapes: Any) -> int | None:
    """The bound of what a function returns."""
    function, _ = flatten.trace(fn, *shapes)
    bounds: dict[Var, int | None] = {}

    def of(atom: Any) -> int | None:
        found = bounds.get(atom) if isinstance(atom, Var) else None
        return integers.of_type(atom) if found is None else found

    for e in function.block.equations:
        own = [of(a) for a in e.inputs]
        bounds.update((v, integers.of_output(e, v, own)) for v in e.outputs)
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
        (lambda x: x.astype(jnp.float32) * 0.5, I8, None),
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
def test_bounds(fn: Callable[..., Any], shape: Any, expected: int | None):
    assert bound(fn, shape) == expected


@pytest.mark.parametrize(("terms", "exact"), [(1024, True), (1025, False)])
def test_products_of_int8_in_float32_are_exact_up_to_1024_terms(terms: int, exact: bool):
    x = jax.ShapeDtypeStruct((4, terms), np.int8)
    assert (bound(dot, x, x) is not None) == exact
