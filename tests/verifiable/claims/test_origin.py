"""Bounds of replayed values, element by element: honest devices are within, rows hide nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.last_claim import last_claim, off_by_a_bit
from verifiable.check import flips
from verifiable.claims import origin
from verifiable.claims.decisions import choice
from verifiable.policy import Policy
from verifiable.testing.devices import EACH, INDEPENDENT

RNG = np.random.default_rng(7)
COUNT = 20
# In 20 steps, so that the cheats below choose what is clearly not the best.
SCORES = np.float32(RNG.permutation(COUNT) - 3.3)[None]
KEPT = SCORES > -2.5
LARGEST = float(np.finfo(np.float32).max)


def masked_by(value: float) -> Callable[..., Any]:
    return lambda x: jnp.argmax(jnp.where(KEPT, x / 0.7, value), -1)


def alone(x: Any) -> Any:
    """One element is as large as a division of a small number makes it."""
    return jnp.argmax(jnp.tanh(x / 9) - jnp.where(jnp.arange(COUNT) == 4, 1 / (x * 0 + 1e-9), 0))


# Rows with elements of other sizes than those that decide.
ROWS: dict[str, Callable[..., Any]] = {
    "a mask of -1e7": masked_by(-1e7),
    "a mask of -1e30": masked_by(-1e30),
    "the least number": masked_by(-LARGEST),
    "a mask that is added": lambda x: jnp.argmax(x / 0.7 + (1.0 - KEPT) * -1e9, -1),
    "a small mask that is added": lambda x: jnp.argmax(x / 0.7 + (1.0 - KEPT) * -1e6, -1),
    "padding": lambda x: jnp.argmax(jnp.pad(x / 0.7, ((0, 0), (0, 5)), constant_values=-1e9), -1),
    "an outlier": lambda x: jnp.argmin(jnp.exp(jnp.where(jnp.arange(COUNT) == 4, 60, x / 9)), -1),
    "two scales": lambda x: jnp.argmin((x / 9 + 4) * jnp.where(KEPT, 1, 1e9), -1),
    "what a device makes huge": alone,
    "softmax of a mask": lambda x: lax.top_k(jax.nn.softmax(jnp.where(KEPT, x, -1e9)), 3)[1],
    "sorted": lambda x: jnp.argsort(jnp.where(KEPT, x / 0.7, -1e7), -1),
}


@pytest.mark.parametrize("name", ROWS)
def test_an_element_that_is_not_the_best_is_rejected_whatever_else_is_in_the_row(name: str):
    """Cheat: the best of the row is passed over, where one huge element made all of them ties."""
    run = last_claim(ROWS[name], SCORES)
    assert bool(run.tested(run.own).passed)
    kept = np.flatnonzero(KEPT[0])
    middle = kept[np.argsort(SCORES[0, kept])[len(kept) // 2]]
    other = np.array(run.own).reshape(-1)
    best = -1 if run.form.kind == "sort" else 0
    other[other == middle] = other[best]  # of a sort, which has both
    other[best] = middle
    assert not bool(run.tested(other.reshape(run.own.shape)).passed)


def test_a_comparison_beside_a_mask_is_no_tie():
    """Cheat: every comparison is turned round, in a row with a mask of the least number."""
    run = last_claim(lambda x: jnp.where(KEPT, x / 0.7, -LARGEST) > 0.3, SCORES)
    assert not int(run.tested(run.own).ties)
    assert not bool(run.tested(run.own ^ np.uint8(1)).passed)
    sign = last_claim(lambda x: jnp.sign(jnp.where(KEPT, x / 0.7, 1e30)), SCORES)
    assert not int(sign.tested(sign.own).ties)
    assert not bool(sign.tested(-sign.own).passed)


# ---------------------------------------------------------------------------- honest devices


def normed(x: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * 1.1 + 0.1


HONEST: dict[str, Callable[..., Any]] = {
    "norm": normed,
    "softmax of a mask": lambda x: jax.nn.softmax(jnp.where(x > -1, x / 0.7, -1e9), -1),
    "log of the softmax": lambda x: jax.nn.log_softmax(x / 0.7, -1),
    "softcap": lambda x: 30 * jnp.tanh(x / 30) + jnp.sin(9 * x) * jnp.log(1 + x * x),
    "cancellation": lambda x: jnp.exp(x) - jnp.exp(x) * (1 + 1e-6) - 1e-3,
    "gelu": lambda x: jax.nn.gelu(normed(x)) + jnp.pad(x[:, 1:] / 3, ((0, 0), (1, 0))),
    "cumulative sum": lambda x: jnp.cumsum(jnp.sort(jax.nn.softmax(x, -1), -1), -1),
    "mean far from zero": lambda x: x * 0.3 + 1000,
}


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", HONEST)
def test_honest_devices_are_within_the_bound(name: str, dtype: Any):
    """Off by one unit in the last place in every operation; in float32 by a small part of it."""
    x = np.asarray(RNG.standard_normal((4, 48)) * 2, dtype)
    fn = HONEST[name]
    run = last_claim(lambda x: fn(x) > 0.1, x)
    assert run.form.origins[0] is not None
    own = run.operands[0].astype(jnp.float32)
    [bound, _] = origin.bounds(run.form.origins, run.operands[2:], run.eps)
    assert bound is not None
    for seed, way in enumerate((INDEPENDENT, EACH, EACH)):
        theirs = run.operands_of(off_by_a_bit(seed, way))[0].astype(jnp.float32)
        part = jnp.where(theirs == own, 0, jnp.abs(theirs - own) / bound)
        assert float(jnp.max(part)) <= (choice.NEAR if dtype == np.float32 else 1.0), name


# ---------------------------------------------------------------------------- equal elements


def flips_of(run: Any, claim: Any) -> int:
    found = run.tested(claim)
    assert bool(found.passed & found.in_range)
    return int(found.flips)


EQUAL: dict[str, Callable[..., Any]] = {
    "zeros of a relu": lambda x: jnp.argsort(jnp.maximum(x / 0.7, 9), -1),
    "a mask": lambda x: jnp.argsort(jnp.where(x > 9, x / 0.7, 1e9), -1),
    "rounded alike": lambda x: jnp.argsort((x / 0.7) * jnp.where(KEPT, 0, 1), -1),
}


@pytest.mark.parametrize("name", EQUAL)
def test_the_order_of_elements_that_all_devices_find_equal_counts(name: str):
    """Cheat: equal elements in another order, which JAX does not leave open."""
    run = last_claim(EQUAL[name], SCORES)
    assert flips_of(run, run.own) == 0
    values = np.asarray(run.operands[0])[0]
    own = np.array(run.own)
    same = np.flatnonzero(np.diff(values[own[0]]) == 0)
    assert len(same) >= 3
    turned = own.copy()
    lot = np.concatenate([same, same[-1:] + 1])
    turned[0, lot] = own[0, lot][::-1]
    assert flips_of(run, turned) == len(lot) - 1
    assert flips.limit(run.claim, Policy()) < len(lot) - 1


def test_a_set_of_equal_elements_counts_by_each_that_another_should_be():
    """Cheat: of elements that are all zero, the last are picked and not the first."""
    run = last_claim(lambda x: lax.top_k(jnp.minimum(x / 0.7, -9), 4)[1], SCORES)
    assert flips_of(run, run.own) == 0
    assert flips_of(run, np.uint8([[16, 17, 18, 19]])) == 4
    one = last_claim(lambda x: jnp.argmax(jnp.minimum(x / 0.7, -9), -1), SCORES)
    assert flips_of(one, np.uint8([3])) == 1


def test_elements_that_rounding_may_change_are_no_flips_while_they_are_as_near_as_it_goes():
    x = np.float32(1 + np.arange(64) * 2.0**-23)[None]
    run = last_claim(lambda x: jnp.argsort(x * 0.3 + 1000, -1), x)
    assert flips_of(run, run.own[:, ::-1]) == 0
    x = np.float32(1 + np.arange(64) * 2.0**-20)[None]
    run = last_claim(lambda x: jnp.argsort(x * 0.3, -1), x)
    other = np.array(run.own)
    other[0, :24] = np.roll(other[0, :24], 12)
    assert flips_of(run, other) == 12


@pytest.mark.parametrize(("dtype", "steps"), [(np.float32, 64), (jnp.bfloat16, 1)])
def test_what_a_cheat_may_put_in_another_order_without_a_flip(dtype: Any, steps: int):
    """Cheat: the second best, a unit in the last place of bfloat16 or 64 of float32 behind."""
    unit = float(jnp.finfo(dtype).eps)
    x = np.asarray([[1.0, 1 + steps * unit, 0.5, 0.25]], dtype)
    one = last_claim(lambda x: jnp.argmax(x * 0.75, -1), x)
    assert flips_of(one, one.own) == 0
    assert flips_of(one, np.uint8([0])) == 1
    few = last_claim(lambda x: lax.top_k(x * 0.75, 2)[1], x)
    assert flips_of(few, few.own[:, ::-1]) == 1
    many = last_claim(lambda x: lax.top_k(jnp.tile(x, 4) * 0.75, 9)[1], x)
    assert flips_of(many, many.own) == 0
    other = np.array(many.own)
    other[0, 3:5] = other[0, 4:2:-1]  # of four that are best, and four that are second
    assert flips_of(many, other) == (1 if dtype == np.float32 else 0)
