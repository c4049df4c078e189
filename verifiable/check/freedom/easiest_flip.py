"""What is turned most easily of a choice, if each element may be moved so far (`displaced`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from verifiable.check.freedom.closest import closest
from verifiable.check.freedom.displaced import Moved
from verifiable.check.freedom.lineage import MadeChoice
from verifiable.jaxpr.blocks import Array, Equation


class Turned(NamedTuple):
    """What is turned most easily of each row of a choice; arrays (trips..., rows).

    Attributes:
      kappa: the deviation that turns it.
      chosen: what was chosen.
      other: what would be chosen instead.
    """

    kappa: Array
    chosen: Array
    other: Array


def turned(choice: MadeChoice, equation: Equation, keys: Sequence[Moved], kappa: float) -> Turned:
    """What is turned most easily in each row of a choice.

    Args:
      choice: says whether the order of what is chosen counts, or nothing else.
      equation: the `argmax`, `argmin`, `top_k` or `sort`.
      keys: what decides; the first that is not equal for certain does.
      kappa: the deviation behind `Moved.total`.
    """
    kind, params = equation.kind, equation.params
    rank = len(equation.inputs[0].shape)
    axis = params.get("axes", (params.get("dimension", params.get("axis", rank - 1)),))[0]

    def rows(x: Array) -> Array:
        x = jnp.moveaxis(x, axis, -1)
        return x.reshape(-1, x.shape[-1])

    arrays = [tuple(rows(x) for x in key) for key in keys]
    if kind == "sort":
        return _neighbours(arrays, _order(arrays, params["is_stable"]), kappa)
    own, spare, total = arrays[0]
    value = own.astype(jnp.float64)
    value = -value if kind == "argmin" else value
    columns = value.shape[-1]
    count = params.get("k", 1)
    found: list[Turned] = []
    order = _first(own, count) if count > 1 else None
    if choice.ordered and order is not None:
        found.append(_neighbours([(-value, spare, total)], order, kappa))
    if count < columns and not choice.listed:
        room = jnp.where(jnp.isfinite(total), (total - spare) / kappa, jnp.inf)
        one = closest(value, room, spare, lax.iota(jnp.int32, columns), count, kappa, chosen=order)
        found.append(Turned(one.kappa, one.chosen, one.other))
    if not found:
        never = jnp.full(value.shape[:1], jnp.inf)
        return Turned(never, jnp.zeros(never.shape, int), jnp.zeros(never.shape, int))
    first, *rest = found
    for other in rest:
        less = other.kappa < first.kappa
        first = Turned(*(jnp.where(less, b, a) for a, b in zip(first, other, strict=True)))
    return first


def _order(keys: Sequence[tuple[Array, ...]], stable: bool) -> Array:
    """The columns of each row in order."""
    values = [key[0] for key in keys]
    places = lax.broadcasted_iota(jnp.int32, values[0].shape, 1)
    return lax.sort([*values, places], dimension=1, is_stable=stable, num_keys=len(keys))[-1]


def _first(values: Array, count: int) -> Array:
    """The columns of the largest values of each row, in order; those of a sort, in less time.

    In their own type, and behind a barrier: XLA would sort whole rows of float64 on CPUs, and where
    slices of these columns are taken.
    """
    least = -jnp.inf if jnp.issubdtype(values.dtype, jnp.floating) else None
    known = values if least is None else jnp.where(jnp.isnan(values), least, values)
    return lax.optimization_barrier(lax.top_k(known, count)[1])


def _neighbours(keys: Sequence[tuple[Array, ...]], order: Array, kappa: float) -> Turned:
    """The neighbours in an order that change places most easily."""
    least = jnp.full((len(order), max(order.shape[1] - 1, 0)), jnp.inf)
    for key in reversed(keys):
        value, spare, total = (jnp.take_along_axis(x, order, axis=-1) for x in key)
        value = value.astype(jnp.float64)
        pair = spare[:, 1:] + spare[:, :-1], total[:, 1:] + total[:, :-1]
        gap = jnp.where(value[:, 1:] == value[:, :-1], 0, value[:, 1:] - value[:, :-1])
        own = jnp.maximum(gap - pair[0], 0) * kappa / (pair[1] - pair[0])
        own = jnp.where(gap <= pair[0], 0, own)
        own = jnp.where((pair[1] > 0) & ~jnp.isnan(own), own, jnp.inf)
        # Of equal keys that nothing moves, the next one decides.
        least = jnp.where((gap == 0) & (pair[1] == 0), least, own)
    if not least.shape[1]:
        never = jnp.full(len(order), jnp.inf)
        return Turned(never, never.astype(int), never.astype(int))
    at = jnp.argmin(least, axis=-1)[:, None]
    taken = [jnp.take_along_axis(x, at, axis=-1)[:, 0] for x in (least, order, order[:, 1:])]
    return Turned(*taken)


def decided(value: Moved, kappa: float) -> Turned:
    """Which elements of a decided output may be others: (elements,), and the values themselves."""
    own, spare, total = (x.reshape(-1) for x in value)
    other = ~own if own.dtype == bool else own + 1
    least = jnp.where(spare > 0, 0.0, jnp.where(total > 0, kappa, jnp.inf))
    return Turned(least, own.astype(int), other.astype(int))
