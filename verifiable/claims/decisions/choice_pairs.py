"""How a committed choice fits the verifier's own row, pair by pair.

`choice` states the two conditions on all pairs. They need no loop over pairs: of the indices before
i_q, the one with the largest v - s fails if any does, and of the elements that were not picked, the
one with the least v + s. So each index i_q is reported with one other: the pair that fails, if any
does, else the pair that is closest to failing. Elements that are equal in the verifier's row are in
the order of their indices, if the choice is stable: the others are out of order by as little as a
number can be. Zero and minus zero may be in any order: `top_k` puts zero first, and a device may
find either to be the larger.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.claims.extremes import tiny
from verifiable.jaxpr.blocks import Array


class Key(NamedTuple):
    """What decides on the order, by rows.

    Attributes:
      value: (rows, elements), the least first.
      slack: of each element; None of a key that all honest devices compute alike.
      dtype: in the program.
      signed: whether zero and minus zero are told apart.
    """

    value: Array
    slack: Array | None
    dtype: np.dtype[Any]
    signed: bool = False


class Pairs(NamedTuple):
    """Of each index that was picked, the pair that says most; arrays (rows, picked).

    Attributes:
      value: what comes later minus what comes before: negative if it is out of order, the largest
        number if the order is certain.
      slack: of the two together.
    """

    value: Array
    slack: Array


class _Run(NamedTuple):
    """Of a run of picked elements so far, which are the largest, and whether it began here."""

    least: Array  # the largest value less its slack
    least_at: Array
    most: Array  # the largest value
    most_at: Array
    begins: Array


def pairs(keys: Sequence[Key], index: Array, taken: Array, *, stable: bool) -> Pairs:
    """How indices fit rows of keys.

    Args:
      keys: the first decides, unless it is equal for certain.
      index: (rows, picked), in order.
      taken: (rows, elements), which were picked; there is one key if not all are.
      stable: whether equal elements must be in the order of their indices.
    """
    found = _in_order(keys, index, stable=stable)
    if index.shape[1] == taken.shape[1]:
        return found
    rest = _before_rest(keys[0], index, taken)
    nearer = rest.value / rest.slack < found.value / found.slack
    return Pairs(*(jnp.where(nearer, a, b) for a, b in zip(rest, found, strict=True)))


def _in_order(keys: Sequence[Key], index: Array, *, stable: bool) -> Pairs:
    """Each index with those that were picked before it."""
    wide = jnp.float64 if any(k.value.dtype == jnp.float64 for k in keys) else jnp.float32
    worst, count = float(jnp.finfo(wide).max), index.shape[1]
    value = jnp.full(index.shape, worst, wide)
    allowed = jnp.full(index.shape, tiny(np.float32), wide)
    # Whether an element is equal for certain to the one before it in every key so far, and whether
    # it is equal to an earlier one in the verifier's row.
    same = jnp.broadcast_to(jnp.arange(count) > 0, index.shape)
    tied, tied_at, unit = jnp.zeros_like(same), index, float(tiny(np.float32))
    for key in keys:
        here = jnp.take_along_axis(key.value, index, 1)
        other = jnp.take_along_axis(key.value, tied_at, 1)
        value = jnp.where(tied & (here < other), -unit, value)
        tied &= here == other
        if key.slack is None:
            before = jnp.roll(here, 1, axis=1)
            value = jnp.where(same & (here < before), -worst, value)
            same &= here == before
            continue
        here, own = here.astype(wide), jnp.take_along_axis(key.slack, index, 1).astype(wide)
        run = lax.associative_scan(_later, _Run(here - own, index, here, index, ~same), axis=1)
        least, least_at, most, most_at, _ = (jnp.roll(x, 1, axis=1) for x in run)
        fails = least > here + own
        at = jnp.where(fails, least_at, most_at)
        before, theirs = (
            jnp.take_along_axis(x, at, 1).astype(wide) for x in (key.value, key.slack)
        )
        equal = same & (here == most)
        certain = equal & jnp.isinf(here)
        decides = same & ~certain
        unit = float(tiny(key.dtype))
        distance = jnp.where(equal, unit, _distance(here, before))
        value = jnp.where(decides, distance, value)
        allowed = jnp.where(decides, jnp.minimum(own + theirs, worst), allowed)
        if key.signed:
            signs = (jnp.take_along_axis(jnp.signbit(key.value), x, 1) for x in (index, most_at))
            equal &= functools.reduce(jnp.equal, signs)
        tied = jnp.where(decides, equal, tied)
        tied_at = jnp.where(decides, most_at, tied_at)
        same = certain
    if stable:
        value = jnp.where(same & (index < jnp.roll(index, 1, axis=1)), -worst, value)
        value = jnp.where(tied & (index < tied_at), -unit, value)
    return Pairs(value, jnp.maximum(allowed, unit))


def _before_rest(key: Key, index: Array, taken: Array) -> Pairs:
    """Each index with those that were not picked."""
    number, own = key.value, _of(key)
    worst, unit = float(jnp.finfo(number.dtype).max), float(tiny(key.dtype))
    here, mine = (jnp.take_along_axis(x, index, 1) for x in (number, own))
    least, least_at = _least(number, taken)
    nearest, nearest_at = _least(number + own, taken)
    fails = here - mine > nearest
    at = jnp.where(fails, nearest_at, least_at)
    after, theirs = (jnp.take_along_axis(x, at, 1) for x in (number, own))
    equal, skips = here == least, least_at < index
    if key.signed:
        minus = jnp.signbit(number)
        others = (_least(number, taken | (minus != sign)) for sign in (True, False))
        alike = [jnp.where(jnp.signbit(here), *pair) for pair in zip(*others, strict=True)]
        skips = (alike[0] == here) & (alike[1] < index)
    value = jnp.where(equal, jnp.where(skips, -unit, unit), _distance(after, here))
    certain = jnp.where(skips, -worst, worst)
    value = jnp.where(equal & jnp.isinf(here), certain, value)
    return Pairs(value, jnp.maximum(jnp.minimum(mine + theirs, worst), unit))


def _of(key: Key) -> Array:
    if key.slack is None:
        raise AssertionError("only a sort, which picks all, has exact keys")
    return key.slack


def _least(value: Array, taken: Array) -> tuple[Array, Array]:
    """The least of each row that was not picked, and its first index, (rows, 1)."""
    left = jnp.where(taken, jnp.inf, value)
    least = jnp.min(left, axis=-1, keepdims=True)
    columns = value.shape[-1]
    at = jnp.where(~taken & (left == least), lax.iota(jnp.int32, columns), columns - 1)
    return least, jnp.min(at, axis=-1, keepdims=True)


def _later(before: _Run, after: _Run) -> _Run:
    """Two neighbouring parts of rows joined; a run that begins forgets what was before."""
    least = after.begins | (after.least >= before.least)
    most = after.begins | (after.most >= before.most)
    return _Run(
        jnp.where(least, after.least, before.least),
        jnp.where(least, after.least_at, before.least_at),
        jnp.where(most, after.most, before.most),
        jnp.where(most, after.most_at, before.most_at),
        before.begins | after.begins,
    )


def _distance(a: Array, b: Array) -> Array:
    """a - b, at most the largest number; infinities are far from all but themselves."""
    largest = float(jnp.finfo(a.dtype).max)
    return jnp.where(a == b, 0, jnp.clip(a - b, -largest, largest))
