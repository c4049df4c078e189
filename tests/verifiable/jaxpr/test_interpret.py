"""Evaluation of flattened functions changes no bit; a `while` stops at its limit."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.functions import (
    Example,
    X,
    assert_same_bits,
    bound,
    each_example,
    evaluated,
    scanned,
)
from verifiable.jaxpr import from_jax, interpret

pytestmark = pytest.mark.optimised


@each_example
def test_evaluation_equals_the_function_bit_for_bit(case: Example):
    function, shapes = from_jax.trace(case.fn, *case.args)
    want = jax.jit(case.fn)(*case.args)
    assert_same_bits(jax.jit(partial(evaluated, function))(case.args), want)
    assert jax.tree.structure(shapes) == jax.tree.structure(want)
    for shape, leaf in zip(jax.tree.leaves(shapes), jax.tree.leaves(want), strict=True):
        assert (shape.shape, shape.dtype) == (leaf.shape, leaf.dtype)


def test_evaluation_is_pure_jax():
    """It can be mapped and differentiated like the function itself."""
    function, _ = from_jax.trace(scanned, X)
    xs = jnp.stack([X, X + 1])
    got = jax.vmap(partial(evaluated, function))(xs)
    np.testing.assert_allclose(got[0], jax.vmap(scanned)(xs)[0][0], rtol=1e-6)
    got = jax.grad(lambda x: evaluated(function, x)[0].sum())(X)
    np.testing.assert_allclose(got, jax.grad(lambda x: scanned(x)[0][0].sum())(X), rtol=1e-5)


# ----------------------------------------------------------------------------------- trip limits


@pytest.mark.parametrize("trips", [0, 1, 4, 5, 6, 100])
def test_a_while_stops_at_its_limit_and_says_so(trips: int):
    def fn(n: Any) -> Any:
        return lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 2), (0, 1.0))

    function, _ = from_jax.trace(fn, 0)
    [equation] = function.block.equations

    def run(n: Any, limit: int | None) -> Any:
        return interpret.while_loop(equation, bound(function, (n,)), limit)

    (count, value), stopped = jax.jit(partial(run, limit=5))(trips)
    assert bool(stopped) == (trips > 5)
    assert (int(count), float(value)) == (min(trips, 5), 2.0 ** min(trips, 5))
    if trips <= 6:
        (count, _), stopped = run(trips, None)
        assert (int(count), bool(stopped)) == (trips, False)


def test_a_while_that_never_ends_is_stopped():
    def fn(x: Any) -> Any:
        return lax.while_loop(lambda c: ~jnp.isnan(c), lambda c: c, x)

    function, _ = from_jax.trace(fn, 1.0)
    [equation] = function.block.equations
    run = jax.jit(lambda x: interpret.while_loop(equation, bound(function, (x,)), 1000))
    assert bool(run(1.0)[1])
    assert not bool(run(np.nan)[1])


@pytest.mark.parametrize("trips", [3, 4])
def test_a_loop_in_a_branch_counts_towards_the_limit(trips: int):
    def fn(n: Any) -> Any:
        def branch(c: Any) -> Any:
            return lax.cond(c[0] == 1, partial(lax.while_loop, more, next_), lambda c: c, next_(c))

        def more(c: Any) -> Any:
            return c[1] < 3

        def next_(c: Any) -> Any:
            return c[0] + 1, c[1] + 1

        return lax.while_loop(lambda c: c[1] < n, branch, (0, 0))

    function, _ = from_jax.trace(fn, 0)
    [equation] = function.block.equations
    run = jax.jit(lambda n: interpret.while_loop(equation, bound(function, (n,)), trips))
    (_, count), stopped = run(trips)  # The inner loop makes one of the trips.
    assert (int(count), bool(stopped)) == (trips, False)
    assert bool(run(trips + 1)[1])


def test_a_loop_op_by_op_stacks_random_keys():
    def fn(key: Any) -> Any:
        return lax.scan(lambda k, _: (jax.random.split(k)[0], k), key, length=3)[1]

    function, _ = from_jax.trace(fn, jax.random.key(1))
    with jax.disable_jit():
        keys = evaluated(function, jax.random.key(1))[0]
    want = jax.random.key_data(jax.jit(fn)(jax.random.key(1)))
    np.testing.assert_array_equal(jax.random.key_data(keys), want)
