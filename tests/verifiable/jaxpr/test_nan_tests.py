"""Comparisons that only ask whether a value is a number, or finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable.jaxpr import from_jax
from verifiable.jaxpr.graph import Graph
from verifiable.jaxpr.nan_tests import COMPARISONS, asks_only

X = jax.ShapeDtypeStruct((3, 4), np.float32)


def asks(fn: Callable[..., Any]) -> bool:
    """Whether all comparisons of a function only ask."""
    function, _ = from_jax.trace(fn, X)
    graph = Graph.of(function.block)
    found = [e for e in function.block.walk() if e.kind in COMPARISONS]
    assert found
    return all(asks_only(e, graph.producers) for e in found)


@pytest.mark.parametrize(
    "fn",
    [
        jnp.isnan,
        lambda x: lax.ne(x, x),
        lambda x: lax.eq(x, x),
        lambda x: lax.ge(x, x),
        lambda x: x != jnp.copy(x),
        lambda x: x.T[:3] != x.T[:3],
        lambda x: jnp.broadcast_to(x[:, :1], (3, 5)) == jnp.broadcast_to(x[:, :1], (3, 5)),
        lambda x: jnp.isposinf(x) | jnp.isneginf(x),
        lambda x: x < jax.jit(lambda: jnp.full((3, 4), jnp.inf))(),
        jax.nn.softplus,
        jnp.nan_to_num,
        lambda x: jnp.logaddexp(x, x[::-1]),
        lambda x: jax.jit(jnp.isnan)(jnp.exp(x)),
    ],
)
def test_tests_for_nan_and_infinity(fn: Callable[..., Any]):
    assert asks(fn)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x == 0,
        lambda x: x != x[::-1],
        lambda x: x > 3e38,  # a finite number
        lambda x: jnp.sin(x) == jnp.sin(x),  # a device may compute the two with other rounding
        lambda x: x.astype(jnp.float16) == x.astype(jnp.float16).astype(jnp.float32),
        lambda x: x[:, :2] == x[:, 1:3],
        lambda x: lax.split(x, (2, 2), 1)[0] == lax.split(x, (2, 2), 1)[1],
        lambda x: x.T[:3, :] == x[:, :3],
        lambda x: jnp.pad(x, 1) == jnp.pad(x, 1, constant_values=1.0),
    ],
)
def test_other_comparisons(fn: Callable[..., Any]):
    assert not asks(fn)
