"""The table of claims, and why a product is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.contractions import equation_of
from verifiable import program
from verifiable.claims.products.product import CONTRACTIONS, contraction
from verifiable.jaxpr.effects import PRIMITIVES, Effect


def test_every_contraction_is_continuous_and_other_equations_are_none():
    assert CONTRACTIONS.keys() <= PRIMITIVES[Effect.CONTINUOUS]
    x = np.zeros((3, 7))
    assert contraction(equation_of(lax.dot, x, x.T)) is not None
    assert contraction(equation_of(jnp.sin, x)) is None


W = jax.ShapeDtypeStruct((64, 64), jnp.float32)
X = jax.ShapeDtypeStruct((32, 64), jnp.float32)
LEVELS = jax.ShapeDtypeStruct((32, 64), jnp.int32)
REPLAYED: dict[str, tuple[Callable[..., Any], Any, str]] = {
    "too few columns": (lambda w, x: x @ w[:, :1], X, "its check would cost more"),
    "wide integers": (lambda w, x: x @ x.T, LEVELS, "its integers may wrap"),
    "a kernel of the job": (
        lambda w, x: lax.conv(x.reshape(1, 2, 32, 32), x.reshape(64, 2, 4, 4), (1, 1), "SAME"),
        X,
        "its kernel depends on the job",
    ),
    "wide integers by groups": (
        lambda w, x: lax.ragged_dot(
            x, jnp.ones((2, 64, 64), jnp.int32), jnp.stack([x[0, 0], x[0, 1]])
        ),
        LEVELS,
        "its groups divide no rows",
    ),
    "groups of terms": (
        lambda w, x: lax.ragged_dot_general(
            x,
            w,
            jnp.array([40, 24]),
            lax.RaggedDotDimensionNumbers((((1,), (0,)), ((), ())), [1], []),
        ),
        X,
        "its groups divide no rows",
    ),
    "a loop": (
        lambda w, x: lax.while_loop(lambda c: c[0, 0] < 9, lambda c: jnp.tanh(c) @ w, x),
        X,
        "it is in a loop",
    ),
}


@pytest.mark.parametrize("name", REPLAYED)
def test_a_product_that_is_replayed_says_why(name: str):
    fn, x, reason = REPLAYED[name]
    compiled = program.compile(fn, W, x, self_test=False)
    assert not any(claim.work for claim in compiled.claims)
    [(_, why)] = compiled.analysis.products.values()
    assert why.startswith(reason)
