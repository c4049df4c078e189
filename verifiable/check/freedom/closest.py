"""Which two elements of a row change places most easily, if each may be moved so far.

With values v, of which the largest are chosen, spare how far each is moved at no cost and room how
far by a deviation of one sigma, a choice of a over b is turned by

    kappa = (v_a - v_b - spare_a - spare_b) / sqrt(room_a^2 + room_b^2)   in one block,
    kappa = (v_a - v_b - spare_a - spare_b) / (room_a + room_b)           in two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from verifiable.jaxpr.blocks import Array

_ROUNDED = 1.001  # what float32 may lose of a bound


class Closest(NamedTuple):
    """Of each row, what could be turned most easily; arrays (trips..., rows).

    Attributes:
      kappa: the deviation that turns it.
      chosen: a chosen column.
      other: one that is not chosen, or comes after it in the order of the chosen ones.
      rooms: how far a deviation of one sigma moves each of the two, (trips..., rows, 2).
      row: the row of the claim.
    """

    kappa: Array
    chosen: Array
    other: Array
    rooms: Array
    row: Array


def closest(
    values: Array,
    room: Array,
    spare: Array,
    block: Array,
    count: int,
    kappa: float = 1.0,
    *,
    chosen: Array | None = None,
) -> Closest:
    """What is turned most easily in each row, if the `count` largest values are chosen.

    Args:
      values: (rows, columns).
      room: how far a deviation of one sigma moves each, (rows, columns).
      spare: how far the roundings before move each, (rows, columns).
      block: number of the block of each, (columns,) or (rows, columns).
      count: how many are chosen.
      kappa: the deviation for which the chosen one with the least margin is compared.
      chosen: the columns of the largest values, (rows, count), if they are known.
    """
    rows = values.shape[0]
    block = jnp.broadcast_to(block, values.shape)
    top, largest = _largest(values, count, chosen)
    at, slack, home = (jnp.take_along_axis(x, largest, axis=-1) for x in (room, spare, block))
    # If several are chosen, the one that such a deviation brings down furthest.
    weakest = jnp.argmin(top - kappa * at - slack, axis=-1, keepdims=True)
    top, at, slack, home, first = (
        jnp.take_along_axis(x, weakest, axis=-1) for x in (top, at, slack, home, largest)
    )
    together = jnp.where(block == home, _hypotenuse(at, room), at + room)
    # With slices of these columns, XLA would sort whole rows to find the `count` largest.
    taken = jnp.zeros(values.shape, bool).at[jnp.arange(rows)[:, None], largest].set(True)
    least = _turning(top - values - slack - spare, slack + spare, together)
    # Equal infinities, such as masked ones, cannot be told apart, and are not moved.
    least = jnp.where(taken | jnp.isnan(least) | jnp.isinf(values), jnp.inf, least)
    nearest = jnp.min(least, axis=-1, keepdims=True)
    other = _place(least == nearest)
    rooms = jnp.concatenate([at, jnp.take_along_axis(room, other, axis=-1)], axis=-1)
    return Closest(nearest[:, 0], first[:, 0], other[:, 0], rooms, jnp.zeros(rows, jnp.int32))


def apart(values: Array, room: Array, spare: Array, kappa: float) -> Array:
    """Which rows have a largest value that no deviation of kappa can turn; a bound, quickly found.

    Args:
      values: (rows, columns).
      room: the most that a deviation of one sigma moves a column of each row, (rows,).
      spare: the most that the roundings before move one, (rows,).
      kappa: the deviation.
    """
    top, first = _largest(values, 1, None)
    others = jnp.where(lax.iota(jnp.int32, values.shape[-1]) == first, -jnp.inf, values)
    gap = top[:, 0] - jnp.max(others, axis=-1)
    return gap > _ROUNDED * (2 * spare + 2 * kappa * room)


def untouched(look: Callable[[], Closest]) -> Closest:
    """What `look` would return of rows in which nothing can be turned."""
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(look))
    return zeros._replace(kappa=jnp.full_like(zeros.kappa, jnp.inf))


def neighbours(values: Array, room: Array, spare: Array, block: Array, count: int) -> Closest:
    """Which two neighbours among the `count` largest values of each row change places most easily.

    Arguments as of `closest`, with `count` at least 2; of the two, `other` comes after `chosen`.
    """
    # Without the barrier, XLA would sort whole rows to take slices of the `count` largest.
    top, order = lax.optimization_barrier(_largest(values, count, None))
    block = jnp.broadcast_to(block, values.shape)
    at, slack, home = (jnp.take_along_axis(x, order, axis=-1) for x in (room, spare, block))
    first, second = slice(None, -1), slice(1, None)
    pairs = [(x[:, first], x[:, second]) for x in (top, at, slack, home)]
    (a, b), (one, two), (free, also), (here, there) = pairs
    together = jnp.where(here == there, _hypotenuse(one, two), one + two)
    least = _turning(a - b - free - also, free + also, together)
    least = jnp.where(jnp.isnan(least) | jnp.isinf(a) | jnp.isinf(b), jnp.inf, least)
    where = jnp.argmin(least, axis=-1, keepdims=True)
    nearest, chosen, other, *rooms = (
        jnp.take_along_axis(x, where, axis=-1)
        for x in (least, order[:, first], order[:, second], one, two)
    )
    rows = jnp.zeros(len(values), jnp.int32)
    return Closest(nearest[:, 0], chosen[:, 0], other[:, 0], jnp.concatenate(rooms, axis=-1), rows)


def _turning(gap: Array, spare: Array, together: Array) -> Array:
    """The kappa that closes a gap, given how far both are moved at no cost and by one sigma."""
    least = jnp.where(gap > 0, gap / together, 0)
    return jnp.where((together == 0) & (spare == 0), jnp.inf, least)  # nothing moves them


def _hypotenuse(a: Array, b: Array) -> Array:
    """The root of a^2 + b^2, of which no square overflows or vanishes; both are not negative."""
    most, least = jnp.maximum(a, b), jnp.minimum(a, b)
    share = least / jnp.where(most > 0, most, 1)
    return jnp.where(jnp.isinf(most), most, most * jnp.sqrt(1 + share * share))


def _largest(values: Array, count: int, chosen: Array | None) -> tuple[Array, Array]:
    """The largest values of each row, and their columns, which may be known."""
    if chosen is not None:
        return jnp.take_along_axis(values, chosen, axis=-1), chosen
    if count > 1:
        return lax.top_k(values, count)
    top = jnp.max(values, axis=-1, keepdims=True)  # reductions of one operand are fast on CPUs
    return top, _place(values == top)


def _place(flags: Array) -> Array:
    """Column of the first true flag of each row, (rows, 1)."""
    columns = flags.shape[-1]
    indices = jnp.where(flags, lax.iota(jnp.int32, columns), columns - 1)
    return jnp.min(indices, axis=-1, keepdims=True)
