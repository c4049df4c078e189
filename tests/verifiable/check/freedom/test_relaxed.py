"""Decisions as numbers: logic and selections are those of booleans, with a derivative."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable.check.freedom import relaxed
from verifiable.jaxpr import from_jax, interpret
from verifiable.jaxpr.graph import Graph

FALSE = np.zeros(2, bool)

LOGIC: dict[str, Callable[[Any, Any], Any]] = {
    "and": lambda p, q: jnp.where(p & q, 2.0, 5.0),
    "or": lambda p, q: jnp.where(p | q, 2.0, 5.0),
    "not": lambda p, q: jnp.where(~p, 2.0, 5.0) + q,
    "all": lambda p, q: jnp.where((p & ~q) | (q & ~p), 2.0, 5.0),
    "moves": lambda p, q: jnp.where(p[::-1] | q[:1], 2.0, jnp.inf),
}


@pytest.mark.parametrize("name", LOGIC)
def test_logic_of_numbers_is_that_of_booleans_and_has_a_derivative(name: str):
    fn = LOGIC[name]
    function, _ = from_jax.trace(fn, FALSE, FALSE)

    def soft(*decisions: Any) -> Any:
        env = dict(zip(function.block.inputs, decisions, strict=True))
        return interpret.evaluate(function.block, env, relaxed.apply)[0]

    with jax.disable_jit():
        for p, q in itertools.product((0.0, 1.0), repeat=2):
            numbers = [np.full(2, x, np.float32) for x in (p, q)]
            found = np.clip(soft(*numbers), -1e9, 1e9)
            np.testing.assert_array_equal(found, np.clip(fn(*(n > 0 for n in numbers)), -1e9, 1e9))
    half = np.full(2, 0.5, np.float32)
    slope = jax.grad(lambda p: soft(p, half).sum())(np.zeros(2, np.float32))
    assert np.all(np.isfinite(slope)) and np.all(slope != 0)


READERS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "a selection of numbers": (lambda p: jnp.where(p, 1.0, 2.0), False),
    "logic and moves": (lambda p: jnp.where((~p)[::-1] & p, 1.0, 2.0), False),
    "a cast to numbers": (lambda p: p.astype(jnp.float32) * 3, False),
    "an answer": (lambda p: p, True),
    "an answer behind logic": (lambda p: ~p, True),
    "a selection of integers": (lambda p: jnp.where(p, 1, 2) * 1.0, True),
    "a selected decision": (lambda p: jnp.where(p[0], p, True) * 1.0, True),
    "a count": (lambda p: p.astype(jnp.int32) * 1.5, True),
    "a branch": (lambda p: lax.cond(p[0], lambda: 1.0, lambda: 2.0), True),
}


WHOLE: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "arithmetic": (lambda q: (3 - q.astype(jnp.int32)).clip(-9, 9).astype(jnp.float32) * 2, False),
    "an index": (lambda q: jnp.arange(5.0)[q], True),
    "a comparison behind a sum": (lambda q: jnp.where(q + 1 > 2, 2.0, 5.0), True),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_is_hard_where_no_arithmetic_reads_it(name: str):
    fn, hard = WHOLE[name]
    block = from_jax.trace(fn, np.zeros(2, np.int8))[0].block
    assert relaxed.is_hard(block.inputs[-1], Graph.of(block)) is hard
    if not hard:
        slope = jax.grad(
            lambda q: interpret.evaluate(block, {block.inputs[-1]: q}, relaxed.apply)[0].sum()
        )(np.ones(2, np.float32))
        np.testing.assert_array_equal(slope, [-2.0, -2.0])


def test_a_value_that_is_a_number_is_not_hard():
    block = from_jax.trace(lambda x: x.astype(jnp.int32), np.ones(2, np.float32))[0].block
    assert not relaxed.is_hard(block.inputs[-1], Graph.of(block))


@pytest.mark.parametrize("name", READERS)
def test_a_decision_is_hard_where_something_reads_it_that_has_no_derivative(name: str):
    fn, hard = READERS[name]
    block = from_jax.trace(fn, FALSE)[0].block
    assert relaxed.is_hard(block.inputs[-1], Graph.of(block)) is hard
