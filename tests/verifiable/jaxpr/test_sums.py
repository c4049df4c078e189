"""How many terms each sum of an equation has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable.jaxpr import from_jax, sums

X = np.ones((6, 8), np.float32)
W = np.ones((8, 5), np.float32)
IMAGE = np.ones((1, 2, 6, 6), np.float32)
KERNEL = np.ones((4, 2, 3, 3), np.float32)

TERMS: dict[str, tuple[Callable[..., Any], int]] = {
    "a product": (lambda: jnp.asarray(X) @ W, 8),
    "a convolution": (lambda: lax.conv(jnp.asarray(IMAGE), KERNEL, (1, 1), "SAME"), 18),
    "rows by groups": (
        lambda: lax.ragged_dot(jnp.asarray(X), jnp.stack([W, W]), jnp.array([2, 4])),
        8,
    ),
    "a reduction": (lambda: jnp.sum(jnp.asarray(X)), 48),
    "a cumulative sum": (lambda: lax.cumsum(jnp.asarray(X), axis=1), 8),
    "windows": (
        lambda: lax.reduce_window(jnp.asarray(X), 0.0, lax.add, (2, 3), (1, 1), "SAME"),
        6,
    ),
    "scattered rows": (lambda: jnp.asarray(X).at[np.array([1, 1, 2])].add(1.0), 4),
    "differences of rows": (lambda: jnp.asarray(X).at[np.array([1, 1])].subtract(1.0), 3),
    "no sum": (lambda: jnp.sin(jnp.asarray(X)), 1),
}


@pytest.mark.parametrize("name", TERMS)
def test_terms_are_counted(name: str):
    fn, expected = TERMS[name]
    equations = from_jax.trace(fn)[0].block.equations
    assert max(sums.terms(e) for e in equations) == expected
