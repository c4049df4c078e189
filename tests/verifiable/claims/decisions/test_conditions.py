"""Margins of conditions: boolean functions of comparisons, against all that devices can decide."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable import program
from verifiable.claims.decisions.conditions import Condition
from verifiable.claims.decisions.trips import TripsForm
from verifiable.jaxpr import interpret
from verifiable.policy import Policy

SIZE, EPS = 4, 1e-3
W = np.random.default_rng(3).standard_normal((SIZE, SIZE)).astype(np.float32)


def number(p: Any) -> Any:
    return p.astype(jnp.int32)


# Boolean functions of four comparisons, each of which reads no comparison twice.
ONCE: dict[str, Callable[[Any], Any]] = {
    "one": lambda p: p[0],
    "not": lambda p: ~p[1],
    "and": lambda p: p[0] & p[1],
    "or": lambda p: p[0] | ~p[1],
    "xor": lambda p: p[0] ^ p[1],
    "equal": lambda p: p[2] == p[3],
    "other": lambda p: p[2] != p[3],
    "greater": lambda p: lax.gt(p[0], p[1]),
    "less": lambda p: lax.lt(p[0], p[1]),
    "not less": lambda p: lax.ge(p[0], p[1]),
    "not greater": lambda p: lax.le(p[0], p[1]),
    "all": lambda p: p.all(),
    "any": lambda p: p.any(),
    "all of none": lambda p: p[:0].all() & p[0],
    "any of none": lambda p: p[:0].any() | p[0],
    "any of all": lambda p: p.reshape(2, 2).all(axis=1).any(),
    "all of any": lambda p: p.reshape(2, 2).T.any(axis=0).all(),
    "least": lambda p: number(p).min() != 0,
    "most": lambda p: number(p[::-1]).max() == 1,
    "greater numbers": lambda p: number(p[1]) > number(p[2]),
    "product": lambda p: number(p[0]) * number(p[3]) == 1,
    "float": lambda p: p[0].astype(jnp.float32) != 0,
    "moved": lambda p: jnp.concatenate([p[2:], p[:2]]).reshape(2, 2)[0].all(),
}
# Here some margins are wider than what devices can decide.
MORE: dict[str, Callable[[Any], Any]] = {
    "choice": lambda p: jnp.where(p[0], p[1], p[2]),
    "twice": lambda p: (p[0] & p[1]) | (~p[0] & p[2]),
    "choices": lambda p: jnp.where(p[:2], p[2:], ~p[2:]).any(),
}


@functools.cache
def condition_of(name: str) -> Condition:
    decide = (ONCE | MORE)[name]

    def fn(w: Any, x: Any) -> Any:
        return lax.while_loop(lambda c: decide(c > 1), lambda c: c * 0.5, x @ w)

    compiled = program.compile(fn, W, np.ones(SIZE, np.float32), policy=Policy(trip_limit=9))
    [form] = [c.form for c in compiled.claims if isinstance(c.form, TripsForm)]
    return form.condition


# Distances of the comparisons from a tie, in units of their slack, more or less; all fours of them.
STEPS = np.array([*itertools.product([-9.0, -0.5, 0.5, 9.0, np.nan], repeat=SIZE)])
CARRIES = (1 + 2 * EPS * STEPS).astype(np.float32)
BOOLEANS = np.array([*itertools.product([False, True], repeat=SIZE)])


@pytest.mark.parametrize("name", [*ONCE, *MORE])
def test_margins_say_what_devices_can_decide(name: str):
    condition = condition_of(name)
    predicate = condition.followed.loop.bodies[0]
    [(form, operands)] = condition.comparisons.values()

    def measured(carry: Any) -> Any:
        env: Any = {predicate.inputs[0]: carry}
        [own] = interpret.evaluate(predicate, env)
        found = form.margins(interpret.read_all(env, operands), EPS)
        return own, *condition.asked(env, [], EPS), found

    with jax.enable_x64(True):
        owns, lows, highs, founds = jax.tree.map(np.asarray, jax.jit(jax.vmap(measured))(CARRIES))
    table = np.asarray(jax.vmap((ONCE | MORE)[name])(BOOLEANS))
    known = ~np.isnan(STEPS)
    assert (np.isnan(founds.value) == ~known).all()
    free = ~known | (np.abs(founds.value) <= founds.slack)
    true, false = highs.ratio >= -1, lows.ratio <= 1
    # Of all assignments, those that devices can make: (cases, assignments).
    made = (free[:, None] | (founds.own[:, None] == BOOLEANS)).all(axis=-1)
    may_be_true, may_be_false = (made & table).any(axis=-1), (made & ~table).any(axis=-1)
    assert (true | ~may_be_true).all()
    assert (false | ~may_be_false).all()
    if name in ONCE:
        assert (true == may_be_true).all()
        assert (false == may_be_false).all()
    plain = known.all(axis=-1)
    low = jax.tree.map(lambda x: x[plain], lows)
    assert (low.ratio == highs.ratio[plain]).all()
    assert ((low.ratio > 0) == owns[plain]).all()
    # A margin is that of the comparison that decides, or of what is certain.
    certain = low.slack == 0
    assert (np.abs(low.ratio[certain]) == np.inf).all()
    assert (low.ratio[~certain] == low.value[~certain] / low.slack[~certain]).all()
