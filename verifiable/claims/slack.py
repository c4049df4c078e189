"""How far an honest device's value may be from the verifier's, where no random test averages.

    slack(v) = eps (|v| + rms(row of v)) + tiny

rms is over the last axis; tiny, of `extremes`, allows for flushed subnormal numbers.
Roundings and decisions use it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verifiable.claims.extremes import tiny
from verifiable.jaxpr.blocks import Array


def slack(
    value: Array, eps: float, types: Iterable[np.dtype[Any] | None], counted: Array | None = None
) -> Array:
    """The slack of each element.

    Args:
      value: float32 or float64 (..., columns); a scalar is a row of its own.
      eps: tolerance.
      types: of the value and of what it was narrowed to; the coarsest decides on `tiny`.
      counted: which elements count in the rms (the others are zero); all by default.
    """
    if not value.ndim:
        return slack(value[None], eps, types)[0]
    top, root = rms(value, counted)
    # A sum that overflows would allow for everything.
    size = jnp.minimum(jnp.abs(value) + top * root, jnp.finfo(value.dtype).max)
    return eps * size + least(types)


def least(types: Iterable[np.dtype[Any] | None]) -> float:
    """The slack of a zero in a row of zeros; types as of `slack`."""
    return max(tiny(t) for t in types if t is not None)


@jax.jit
def rms(value: Array, counted: Array | None = None) -> tuple[Array, Array]:
    """The root of the mean square of each row as a product; arguments as of `slack`.

    Returns:
      A finite size of the row, and the root in this unit, which is finite iff the row is; (..., 1).
    """
    top = jnp.max(jnp.abs(value), axis=-1, keepdims=True, initial=0)
    # Squares of values that are divided by the largest neither overflow nor vanish. Compilers may
    # multiply by the reciprocal instead, which has to be a normal number.
    top = jnp.where((top > 0) & jnp.isfinite(top), top, 1)
    top = jnp.minimum(top, jnp.finfo(value.dtype).max / 8)
    square = jnp.square(value / top)
    if counted is None:
        mean = jnp.mean(square, axis=-1, keepdims=True)
    else:
        count = jnp.sum(counted, axis=-1, keepdims=True, dtype=value.dtype)
        mean = jnp.sum(square, axis=-1, keepdims=True) / jnp.maximum(count, 1)
    return top, jnp.sqrt(mean)


def apart(mine: Array, theirs: Array, unit: Array) -> Array:
    """The largest distance of two values in units of their slack at eps = 1; float32 ()."""
    equal = (mine == theirs) | (jnp.isnan(mine) & jnp.isnan(theirs))
    ratio = jnp.abs(mine - theirs) / unit
    ratio = jnp.where(equal, 0, jnp.where(jnp.isnan(ratio), jnp.inf, ratio))
    return jnp.max(ratio, initial=0.0).astype(jnp.float32)


def widened(value: Array) -> Array:
    """A value in float32, or in float64 if it needs more."""
    value = jnp.asarray(value)
    return value.astype(jnp.float64 if value.dtype.itemsize == 8 else jnp.float32)


def of_numbers(value: Array, eps: float, dtype: np.dtype[Any]) -> Array:
    """The slack of each element; infinities have only `tiny`, and do not count in the rms."""
    finite = jnp.isfinite(value)
    found = slack(jnp.where(finite, value, 0), eps, [dtype], counted=finite)
    return jnp.where(finite, found, float(jnp.finfo(dtype).tiny))
