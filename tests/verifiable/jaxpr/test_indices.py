"""Writes that compete for no place: indices that count, and still differ where they are used."""

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
from verifiable.jaxpr.indices import distinct

X = jax.ShapeDtypeStruct((6, 5), np.float32)
I = jax.ShapeDtypeStruct((6,), np.int32)


def scattered(x: Any, indices: Any, width: int, mode: Any = None) -> Any:
    """Windows of `width` rows of x are overwritten, each from one row on."""
    numbers = lax.ScatterDimensionNumbers((1, 2), (), (0,))
    updates = jnp.zeros((indices.shape[0], width, x.shape[1]))
    return lax.scatter(x, indices, updates, numbers, mode=mode)


CASES: dict[str, tuple[Callable[..., Any], bool]] = {
    "a row each": (lambda x, i: x.at[jnp.arange(6), i].set(1.0), True),
    "a column each": (lambda x, i: x.at[i[:5], jnp.arange(5)].set(1.0), True),
    "the same column": (lambda x, i: x.at[i, jnp.zeros(6, int)].set(1.0), False),
    "a row each, others clamped": (
        lambda x, i: x.at[jnp.arange(6), i].set(1.0, mode="clip"),
        True,
    ),
    "rows beyond the last are dropped": (
        lambda x, i: x.at[jnp.arange(9), i[0]].set(1.0, mode="drop"),
        True,
    ),
    "rows beyond the last are clamped": (
        lambda x, i: x.at[jnp.arange(9), i[0]].set(1.0, mode="clip"),
        False,
    ),
    "rows beyond the last are promised not to be": (
        lambda x, i: x.at[jnp.arange(9), i[0]].set(1.0, mode="promise_in_bounds"),
        False,
    ),
    "windows of one row": (lambda x, i: scattered(x, jnp.arange(6)[:, None], 1, "clip"), True),
    "windows that overlap": (lambda x, i: scattered(x, jnp.arange(5)[:, None], 2), False),
    "windows that overlap once clamped": (
        lambda x, i: scattered(x, lax.iota(np.int32, 7)[:, None], 1, "clip"),
        False,
    ),
    "a counter or another row": (
        lambda x, i: scattered(x, jnp.where(x[:, :1] > 0, lax.iota(np.int32, 6)[:, None], 5), 1),
        False,
    ),
    "the largest of each row": (
        lambda x, i: x.at[jnp.arange(6)[:, None], lax.top_k(x, 3)[1]].set(0.0),
        True,
    ),
    "the order of each row, mapped": (
        lambda x, i: jax.vmap(lambda r: r.at[jnp.argsort(r)].set(jnp.arange(5.0)))(x),
        True,
    ),
    "the order of the rows": (lambda x, i: x.at[jnp.argsort(x[:, 0])].set(1.0), True),
    "the largest of another row": (
        lambda x, i: x.at[i[:, None], lax.top_k(x, 3)[1]].set(0.0),
        False,
    ),
    "the largest of all rows, in one": (lambda x, i: x[0].at[lax.top_k(x, 3)[1]].set(0.0), False),
    "chosen along both dimensions": (
        lambda x, i: x.at[jnp.argsort(x, axis=0), jnp.argsort(x, axis=1)].set(0.0),
        False,
    ),
    "what a sort of indices moves": (
        lambda x, i: x.at[lax.sort((x[:, 0], i), num_keys=1)[1]].set(0.0),
        False,
    ),
    "the largest, clamped to fewer": (
        lambda x, i: x[0, :3].at[lax.top_k(x[0], 3)[1]].set(0.0, mode="clip"),
        False,
    ),
    "a counter that wraps": (
        lambda x, i: scattered(jnp.zeros((300, 5)), lax.iota(np.int8, 300)[:, None], 1),
        False,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_indices_that_count_differ_where_they_are_used(name: str):
    fn, expected = CASES[name]
    function, _ = from_jax.trace(fn, X, I)
    graph = Graph.of(function.block)
    [scatter] = [e for e in function.block.walk() if e.kind == "scatter"]
    assert distinct(scatter, graph.producers) is expected
