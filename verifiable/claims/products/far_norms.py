"""Norms of the columns and rows of a far operand B, which the test of a product weighs it by.

With w_j = 1 / max(||B_:j||, 2^-12 max_j ||B_:j||), row k counts as ||B_k: * w||. Devices may flush
an element that is subnormal, so each of these counts as K (tiny w_j / eps)^2 in its square.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Float64

from verifiable.claims.contraction import Contraction
from verifiable.claims.extremes import subnormal, tiny
from verifiable.jaxpr.blocks import Array

WEIGHT_FLOOR = 2.0**-12


def column_weights(
    contraction: Contraction, far: Float64[Any, "*far"]
) -> Float64[Any, "batch columns"]:
    """w: far operand in float64 -> (batch, columns)."""
    norms = jnp.sqrt(contraction.column_sums(far * far))
    largest = jnp.max(norms)
    return jnp.where(largest == 0, 1.0, 1.0 / jnp.maximum(norms, WEIGHT_FLOOR * largest))


def rows(
    contraction: Contraction, scaled: Array, far: Array, weights: Array, eps: Array | float
) -> Array:
    """||B_k: * w|| with what flushing costs, float64 (batch..., contracted..., blocks).

    Args:
      contraction: of the product.
      scaled: B * w, float64.
      far: B in its own type.
      weights: w, (batch, columns).
      eps: tolerance, in units of what `scaled` was multiplied by.
    """
    lost = contraction.scale_far(subnormal(far) * (tiny(far.dtype) / eps), weights)
    squares = jnp.square(scaled) + contraction.contracted * jnp.square(lost)
    return jnp.sqrt(contraction.project(squares, jnp.ones((contraction.width, 1), jnp.float64)))
