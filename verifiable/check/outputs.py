"""Outputs: what the device returned, compared with what its claims lead to.

A row of floats passes iff the 2-norm of its deviation is at most eps times the 2-norm of the
replayed row, or of a share of the terms of the last sums before it, which may have cancelled
(`cancellation`), and no element hides behind larger ones in its row (`element_bounds`); integers
and booleans must be equal. So must infinities, as those of a mask, which do not count in the norm.
A row that the verifier itself cannot replay in finite numbers otherwise decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.check.analysis import element_bounds
from verifiable.check.analysis.cancellation import Cancellation
from verifiable.check.tiling.evaluate import over_rows
from verifiable.claims.extremes import power_of_two, tiny
from verifiable.claims.origin import Origin
from verifiable.claims.statistic import Deviation, deviation, first
from verifiable.jaxpr.blocks import Array
from verifiable.jaxpr.effects import is_float
from verifiable.policy import NarrowSum


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One leaf of what a program returns.

    Attributes:
      name: `output`, with its path in the pytree.
      eps_types: types whose rounding separates honest devices; none for what must be equal.
      narrow_sums: replayed sums in a narrow type since it was last exact.
      replays_inexactly: whether the replayed output may differ from the device's in rounding.
      discontinuities: names of discontinuous equations before it.
      flushable: names of comparisons before it that flip where their operands are subnormal.
      loops: names of replayed loops before it.
      cancellation: how the terms of the last sums before it are found; None if there are none.
      glue: before it, which bounds each element by itself; None if its rows alone do.
    """

    name: str
    eps_types: frozenset[str]
    narrow_sums: frozenset[NarrowSum] = frozenset()
    replays_inexactly: bool
    discontinuities: frozenset[str]
    flushable: frozenset[str] = frozenset()
    loops: frozenset[str]
    cancellation: Cancellation | None = None
    glue: Origin | None = None

    @property
    def own_sums(self) -> frozenset[NarrowSum]:
        """None: the sum of an output is replayed."""
        return frozenset()

    @property
    def decisive(self) -> int:
        """Zero: an output is no product."""
        return 0


class OutputStatistic(NamedTuple):
    """How far an output is from the replayed one, as arrays.

    Attributes:
      worst: float64 (), the largest row deviation as a fraction of its limit.
      row: int32 (), the row that it belongs to.
      finite: bool (), whether the output is finite wherever the replayed one is.
      own_finite: bool (), whether the replayed output is finite, but for infinities that agree.
    """

    worst: Array
    row: Array
    finite: Array
    own_finite: Array


def compare(
    theirs: Array,
    mine: Array,
    eps: float,
    tile_bytes: int = 0,
    terms: Array | None = None,
    bounds: Callable[[], Array] | None = None,
) -> OutputStatistic:
    """Compare an output with the replayed one.

    Args:
      theirs: what the device returned.
      mine: what the claims lead to, of the same shape and dtype.
      eps: how far a row of floats may be off, as a fraction of its 2-norm; integers and booleans
        must be equal.
      tile_bytes: size of the tiles of the comparison; see `tiling`.
      terms: float64, of the shape of `mine`: where their 2-norm is larger than that of the row, it
        takes its place (theta times `Cancellation.terms`).
      bounds: computes the bound of each element by itself (`element_bounds`), of the shape of
        `mine`; it runs only where an element is not clearly right.
    """
    rows = (math.prod(mine.shape[:-1]), math.prod(mine.shape[-1:]))
    least = jnp.zeros(rows[0]) if terms is None else _norms(terms.reshape(rows))
    ratio, finite, own = over_rows(
        lambda a, b, c: _compare_rows(a, b, c, eps),
        theirs.reshape(rows),
        mine.reshape(rows),
        least,
        tile_bytes=tile_bytes,
    )
    if ratio.size == 0:
        ratio, finite, own = jnp.zeros(1), jnp.ones(1, bool), jnp.ones(1, bool)
    if bounds is not None and mine.size:
        shares = None if terms is None else terms.reshape(rows)

        def exactly() -> Array:
            a, b = _counted(*(x.reshape(rows).astype(jnp.float64) for x in (theirs, mine)))
            limits = eps * _at_least(_scaled_norms(b), least) + tiny(mine.dtype)
            each = bounds().reshape(rows).astype(jnp.float64)
            heavier = element_bounds.weights(limits, each, shares, eps, mine.dtype)
            found = jnp.where(own, _scaled_norms((a - b) * heavier) / limits, 0.0)
            return jnp.maximum(ratio, jnp.where(jnp.isnan(found), jnp.inf, found))

        ratio = lax.cond(element_bounds.clear(theirs, mine, eps), lambda: ratio, exactly)
    worst = jnp.max(ratio).astype(jnp.float64)
    return OutputStatistic(
        worst=worst,
        row=first(ratio == worst),
        finite=jnp.all(finite | ~own),
        own_finite=jnp.all(own),
    )


def farthest_element(theirs: Array, mine: Array) -> str:
    """Which element of an output is farthest from the replayed one, in words; none of random keys.

    Args:
      theirs: what the device returned.
      mine: what the claims lead to, of the same shape and dtype.
    """
    if jnp.issubdtype(theirs.dtype, jax.dtypes.extended) or not theirs.size:
        return ""
    a, b = np.asarray(theirs), np.asarray(mine)
    far: Any = a != b
    if is_float(a.dtype):
        a, b = (x.astype(np.complex128 if x.dtype.kind == "c" else np.float64) for x in (a, b))
        with np.errstate(all="ignore"):
            size = np.abs(a - b)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        far = np.where(same, 0.0, np.where(np.isnan(size), np.inf, size))
    place = tuple(int(i) for i in np.unravel_index(int(np.argmax(far)), a.shape))
    element = f"element {list(place)}" if place else "it"
    return f"{element} is {a[place]}, replayed {b[place]}"


def _compare_rows(
    theirs: Array, mine: Array, least: Array, eps: float
) -> tuple[Array, Array, Array]:
    """Of each row of two matrices: the deviation over its limit, and which are finite.

    The limit is eps times the norm of the row, or the least norm given for it.
    """
    if not is_float(mine.dtype):
        equal = jnp.all(theirs == mine, axis=-1)
        true = jnp.ones(equal.shape, bool)
        return jnp.where(equal, 0.0, jnp.inf), true, true
    floor = tiny(mine.dtype)
    theirs, mine = _counted(theirs, mine)
    if mine.dtype in (jnp.float64, jnp.complex128):
        finite = jnp.all(jnp.isfinite(theirs), axis=-1)
        # Divided by the largest element, squares neither overflow nor vanish.
        top = jnp.maximum(jnp.max(jnp.abs(mine), axis=-1, initial=0.0), floor)[:, None]
        theirs, mine, floor = theirs / top, mine / top, floor / top[:, 0]
        least = least / top[:, 0]
        deviations = _norms(theirs - mine)
    else:
        wide = jnp.complex128 if jnp.iscomplexobj(mine) else jnp.float64
        theirs, mine = theirs.astype(wide), mine.astype(wide)
        deviations = _norms(theirs - mine)
        finite = jnp.isfinite(deviations)  # where mine is finite, theirs is iff the difference is
    norms = _norms(mine)
    own = jnp.isfinite(norms)
    ratio = jnp.where(own, deviations / (eps * _at_least(norms, least) + floor), 0.0)
    return jnp.where(jnp.isnan(ratio), jnp.inf, ratio), finite, own


def _counted(theirs: Array, mine: Array) -> tuple[Array, Array]:
    """Both with zeros where they are the same infinity, of which nothing is left to compare."""
    same = jnp.isinf(mine) & (theirs == mine)
    return jnp.where(same, 0, theirs), jnp.where(same, 0, mine)


def deviate(
    theirs: Array,
    mine: Array,
    eps: float,
    terms: Array | None = None,
    bounds: Callable[[], Array] | None = None,
) -> Deviation:
    """How far each row of an output is from the replayed one; arguments as of `compare`.

    Integers and booleans are infinitely far or equal.
    """
    rows = (math.prod(mine.shape[:-1]), math.prod(mine.shape[-1:]))
    if not is_float(theirs.dtype):
        wrong = jnp.any((theirs != mine).reshape(rows), axis=-1)
        distance, zero = jnp.where(wrong, jnp.inf, 0.0), jnp.zeros(wrong.shape)
        return deviation(zero, distance, distance, zero, zero + 1)
    floor, dtype = tiny(theirs.dtype), theirs.dtype
    wide = jnp.complex128 if jnp.iscomplexobj(mine) else jnp.float64
    theirs, mine = _counted(*(x.reshape(rows).astype(wide) for x in (theirs, mine)))
    norms = _scaled_norms(mine)
    shares = None if terms is None else terms.reshape(rows)
    scale = norms if shares is None else _at_least(norms, _scaled_norms(shares))
    if bounds is not None:
        own = bounds().reshape(rows).astype(jnp.float64)
        heavier = element_bounds.weights(eps * scale + floor, own, shares, eps, dtype)
        theirs, mine = theirs * heavier, mine * heavier
    if jnp.iscomplexobj(mine):
        theirs, mine = (jnp.concatenate([x.real, x.imag], axis=-1) for x in (theirs, mine))
    return deviation(mine, theirs, theirs, eps * scale + floor, norms)


def unfounded(theirs: Array, mine: Array) -> Array:
    """Numbers of an output where the replayed one has none; bool (rows, columns)."""
    rows = (math.prod(mine.shape[:-1]), math.prod(mine.shape[-1:]))
    return (jnp.isfinite(theirs) & ~jnp.isfinite(mine)).reshape(rows)


def _at_least(norms: Array, least: Array) -> Array:
    """The larger of two norms; terms that are not finite allow nothing."""
    return jnp.where(jnp.isfinite(least), jnp.maximum(norms, least), norms)


def _norms(x: Array) -> Array:
    """2-norms of rows. Of a narrower type, in double precision, they are finite if the row is."""
    squares = jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else jnp.square(x)
    return jnp.sqrt(jnp.sum(squares, axis=-1))


def _scaled_norms(x: Array) -> Array:
    """2-norms of rows of double precision, whose squares neither overflow nor vanish."""
    top = power_of_two(jnp.max(jnp.abs(x), axis=-1, initial=0.0))
    return top * _norms(x / top[:, None])
