"""Numbers at the ends of a floating-point type, which honest devices treat in different ways."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from verifiable.jaxpr.blocks import Array
from verifiable.jaxpr.effects import FLOAT8


@jax.jit
def power_of_two(x: Array) -> Array:
    """The power of two at or below a number, as float64; one unless it is positive and finite."""
    # By the bits: newer versions of JAX expand `frexp` late, outside of where 64 bits are enabled.
    usable = jnp.where((x > 0) & jnp.isfinite(x), x, 1.0).astype(jnp.float64)
    exponent = lax.bitcast_convert_type(usable, jnp.uint64) >> jnp.uint64(52)
    nearest = jnp.clip(exponent, jnp.uint64(1023 - 1000), jnp.uint64(1023 + 1000))
    return lax.bitcast_convert_type(nearest << jnp.uint64(52), jnp.float64)


def tiny(dtype: Any) -> float:
    """The magnitude below which an honest device may have flushed a number to zero."""
    info = jnp.finfo(dtype)
    if info.dtype.name in FLOAT8:
        return 0.0
    # Every device keeps the subnormal numbers of float16; many flush those of wider types.
    return float(info.smallest_subnormal if info.dtype == jnp.float16 else info.tiny)


@jax.jit
def subnormal(x: Array) -> Array:
    """1.0 where an element is subnormal, else 0.0, as float64.

    It is read from the bits, since arithmetic may flush it. float16 counts as having none.
    """
    info = jnp.finfo(x.dtype)
    if info.dtype.name in FLOAT8 | {"float16"}:
        return jnp.zeros(x.shape, jnp.float64)
    integer = jnp.dtype(f"uint{info.bits}")
    magnitude = lax.bitcast_convert_type(x, integer) & integer.type(2 ** (info.bits - 1) - 1)
    return ((magnitude > 0) & (magnitude < integer.type(2**info.nmant))).astype(jnp.float64)
