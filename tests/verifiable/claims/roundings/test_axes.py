"""Along which axes the rows of a rounded value lie, in any layout."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable.claims.roundings import axes
from verifiable.jaxpr.from_jax import flatten
from verifiable.jaxpr.graph import Graph

W = np.ones((32, 40), np.float32)


def conv(x: Any) -> Any:
    return lax.conv(x, np.ones((8, 32, 3, 3), np.float32), (1, 1), "SAME")


def scanned(x: Any) -> Any:
    return lax.scan(lambda c, row: (c, lax.dot(row.T, W)), 0, x)[1]


def twice(x: Any) -> Any:
    return lax.dot(x, W), lax.dot_general(x, x, (((0,), (0,)), ((), ())))


def chosen_twice(x: Any) -> Any:
    return jnp.argmax(lax.dot(x, W), -1), lax.dot_general(x, x, (((0,), (0,)), ((), ())))


LAYOUTS: dict[str, tuple[Any, tuple[int, ...], tuple[tuple[int, ...], ...]]] = {
    "rows first": (lambda x: x @ W, (20, 32), ((-1,),)),
    "features first": (lambda x: x.T @ W, (32, 20), ((-1,), (0,))),
    "chosen from, features first": (lambda x: jnp.argmax(x.T @ W, -1), (32, 20), ((0,),)),
    "chosen from, scaled on the way": (lambda x: jnp.argmax((x * 2).T @ W, -1), (32, 20), ((0,),)),
    "channels first": (conv, (2, 32, 20, 20), ((-1,), (1,))),
    "heads": (lambda x: jnp.einsum("thd,hdm->tm", x, W.reshape(2, 16, 40)), (20, 2, 16), ((-1,),)),
    "short heads": (
        lambda x: jnp.einsum("thd,hdm->tm", x, W.reshape(8, 4, 40)),
        (20, 8, 4),
        ((-1,), (1, 2)),
    ),
    "heads that are merged": (
        lambda x: jnp.argmax(x.transpose(1, 0, 2).reshape(20, 32) @ W, -1),
        (8, 20, 4),
        ((0, 2),),
    ),
    "rows of a scan": (scanned, (3, 32, 20), ((-1,), (1,))),
    "two products": (twice, (20, 32), ((-1,), (0,))),
    "two products, one chosen from": (chosen_twice, (20, 32), ((-1,), (0,))),
    "no product": (jnp.sin, (20, 32), ((-1,),)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_lie_along_what_products_sum_over(name: str):
    fn, shape, expected = LAYOUTS[name]
    function = flatten(jax.make_jaxpr(fn)(jnp.zeros(shape)))
    decides, ways = axes.ways(function.block.inputs[-1], Graph.of(function.block))
    assert ways == expected
    assert decides is ("chosen" in name or "merged" in name)


@pytest.mark.parametrize("along", [(-1,), (0,), (1,), (0, 2), (1, 2)])
def test_arrays_are_the_same_after_rows_and_back(along: axes.Axes):
    x = np.arange(60).reshape(3, 4, 5)
    rows = axes.in_rows(x, along)
    assert np.array_equal(axes.from_rows(jnp.asarray(rows), x.shape, along), x)
    assert np.array_equal(axes.places(x.shape, along), rows)
    assert rows.shape[1] == np.prod([x.shape[a] for a in along])


GLUE: dict[str, tuple[Any, axes.Axes, bool]] = {
    "a norm along the rows": (lambda x: x / jnp.sum(x, 0, keepdims=True), (0,), True),
    "a norm along other rows": (lambda x: x / jnp.sum(x, 1, keepdims=True), (0,), False),
    "a norm before a transpose": (lambda x: (x / jnp.sum(x, 1, keepdims=True)).T, (0,), True),
    "a norm of what is split": (
        lambda x: (x / jnp.sum(x, 1, keepdims=True)).reshape(6, 4, 2),
        (1, 2),
        True,
    ),
    "a norm of a part": (
        lambda x: (x / jnp.sum(x, 1, keepdims=True)).reshape(6, 4, 2),
        (2,),
        False,
    ),
}


@pytest.mark.parametrize("name", GLUE)
def test_rows_are_followed_back_through_glue_that_keeps_to_them(name: str):
    fn, along, kept = GLUE[name]
    function = flatten(jax.make_jaxpr(fn)(jnp.zeros((6, 8))))
    found = axes.lying(function.block.equations, function.block.outputs[0], along)
    assert (found is not None) is kept
