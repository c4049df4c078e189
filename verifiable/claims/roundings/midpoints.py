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
