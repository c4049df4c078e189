"""Middles between numbers of a narrow type: where rounding goes from one to the next."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.jaxpr.blocks import Array


def halfway(x: Array, dtype: Any) -> tuple[Array, Array]:
    """The middles between each value of float16 or bfloat16 and its two neighbours.

    A middle is half of the narrow type's last bit away, which is an addition to the value's bits
    in float32. The results are those of `middle`, in a fraction of the time.

    Args:
      x: values of the narrow type as float32.
      dtype: the narrow type.
    """
    half = jnp.int32(2 ** (22 - jnp.finfo(dtype).nmant))
    size = jnp.abs(x)
    bits = lax.bitcast_convert_type(size, jnp.int32)
    outer, inner = (lax.bitcast_convert_type(b, jnp.float32) for b in (bits + half, bits - half))
    if dtype == jnp.float16:  # its subnormal numbers are normal ones of float32
        least, step = float(jnp.finfo(dtype).tiny), float(jnp.finfo(dtype).smallest_subnormal) / 2
        outer = jnp.where(size < least, size + step, outer)
        inner = jnp.where(size <= least, size - step, inner)
        inner = jnp.where(jnp.isinf(size), 65520.0, inner)
    inner = jnp.where(size == 0, -outer, inner)
    outer = jnp.where(jnp.isinf(size), size, outer)
    return jnp.where(x < 0, -outer, inner), jnp.where(x < 0, -inner, outer)


def beyond(value: Array, claim: Array, dtype: Any) -> Array:
    """How far values are from what rounds to a claim of float16 or bfloat16, quickly.

    The step below a claim is that of the number before it, whose bits are one less. So with e the
    exponent of |claim|, or of the number before it where |value| is smaller,

        max(0, |value - claim| - 2^(e - digits - 1)),        digits of the fraction of the type.

    Values of the sign of a claim are as far from what rounds to it as `halfway` says. Values of the
    other sign, and beyond its size, may seem nearer by 2^-9 of that. The difference is exact up to
    2^-24 of itself, and where half a step is much of it, in subnormal numbers of float16, up to
    2^-48. An infinity is infinitely far from all numbers, NaN is NaN away.

    Args:
      value: float32.
      claim: values of the narrow type as float32.
      dtype: the narrow type.
    """
    info = jnp.finfo(dtype)
    size = jnp.abs(claim)
    bits = lax.bitcast_convert_type(size, jnp.int32)
    below = bits - (jnp.abs(value) < size).astype(jnp.int32)
    exponent = lax.bitcast_convert_type(below & jnp.int32(0x7F800000), jnp.float32)
    half = exponent * jnp.float32(2.0 ** -(info.nmant + 1))
    if dtype == jnp.float16:  # its subnormal numbers are as far apart as its smallest normal ones
        half = jnp.maximum(half, jnp.float32(info.smallest_subnormal) / 2)
    return jnp.maximum(jnp.abs(value - claim) - half, 0)


def middle(x: Array, dtype: Any, direction: int) -> Array:
    """The middle between a value of a narrow type and its neighbour, infinities included.

    Values of magnitude at or above the largest finite one plus half its step round to infinity.
    """
    info = jnp.finfo(dtype)
    largest = float(info.max)
    beyond = largest + (largest - float(np.nextafter(np.asarray(info.max, dtype), 0))) / 2
    narrow = x.astype(dtype)
    infinite = has_infinity(dtype)
    towards = jnp.full(x.shape, direction * (np.inf if infinite else largest), dtype)
    neighbour = lax.nextafter(narrow, towards).astype(x.dtype)
    if not infinite:
        neighbour = jnp.where(x == direction * largest, direction * jnp.inf, neighbour)
    found = x / 2 + neighbour / 2
    found = jnp.where(jnp.isinf(neighbour), direction * beyond, found)
    inward = jnp.where(x == -direction * jnp.inf, -direction * beyond, x)
    return jnp.where(jnp.isinf(x), inward, found)


def has_infinity(dtype: Any) -> bool:
    """Whether a type of floats has infinities."""
    return bool(np.isinf(np.asarray(np.inf, dtype).astype(np.float32)))
