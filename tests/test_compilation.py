"""Tests lower and compile less than users: what they compile is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from tests.helpers import compilation

pytestmark = pytest.mark.compiled

X = jnp.ones((2, 3), jnp.float32)


def scaled(x: Any) -> Any:
    return jnp.sin(x * 2) + x.sum()


def scanned(x: Any) -> Any:
    """Operations that hold functions, and one that calls a function of its module."""
    return lax.scan(lambda c, r: (jnp.sin(c * 2) + r.sum(), c), x[0], x), jnp.linalg.norm(x @ x.T)


def solved(x: Any) -> Any:
    """A function of a library, called by name."""
    return jnp.linalg.cholesky(x.T @ x + jnp.eye(3)), jnp.sin(x * 2)


def drawn(x: Any) -> Any:
    """Operations without functions that are written as calls of functions."""
    return jax.random.uniform(jax.random.key(1), x.shape), lax.igamma(x, x), jnp.cumsum(x)


def lowered(fn: Callable[..., Any], x: Any) -> str:
    def traced(x: Any) -> Any:  # a new function, of which JAX has no program yet
        return fn(x)

    return jax.jit(traced).lower(x).as_text()


@pytest.mark.parametrize("fn", [scaled, scanned, solved, drawn])
def test_a_program_is_the_same_whatever_was_lowered_before(fn: Callable[..., Any]):
    compilation.forget_contexts()
    alone = lowered(fn, X)
    for other in (scaled, scanned, solved, drawn):
        lowered(other, X)
    assert lowered(fn, X) == alone


def test_an_operation_is_lowered_for_its_own_types_and_settings():
    def counted(x: Any) -> Any:
        return jnp.argmax(x * 2, axis=0), jnp.sin(x)

    narrow = lowered(counted, X)
    with jax.enable_x64(True):
        wide = lowered(counted, X.astype(jnp.float64))
        again = lowered(counted, X)
    assert "f64" not in narrow
    assert "f64" in wide
    assert ("i64" in again, "i64" in narrow) == (True, False)
    assert lowered(counted, X) == narrow
