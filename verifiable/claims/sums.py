"""What adding a bias to a product leaves to a device, besides the tolerance of the product.

A device adds b to its product and rounds, S = fl(C + b): to one of the two numbers beside the sum,
which are at most 2 u |S_ij| apart, u the unit roundoff. With |S| <= |S - b| + |b|, row i of S - b
may be off by

    2 u (||(S - b)_i * w|| + ||b * w||)

more than a product, and by a smallest normal number in each element that the device flushed.
"""

from __future__ import annotations

import jax.numpy as jnp

from verifiable.claims.contraction import Contraction
from verifiable.claims.extremes import tiny
from verifiable.jaxpr.blocks import Array


def left(contraction: Contraction, bias: Array, weights: Array, products: Array) -> Array:
    """How far each row may be off.

    Args:
      contraction: of one product, whose output's last dimension are the columns.
      bias: of each column.
      weights: w, (1, columns).
      products: sum_j ((S - b)_ij w_j)^2 of each row.
    """
    dtype = contraction.dtypes[2]
    own = jnp.sqrt(jnp.sum(jnp.square(bias.reshape(weights.shape) * weights)))
    flushed = tiny(dtype) * jnp.sqrt(jnp.sum(weights * weights))
    unit = float(jnp.finfo(dtype).eps)
    return (unit * (jnp.sqrt(products) + own) + flushed).astype(products.dtype)


def unsettled(bias: Array) -> Array:
    """Zero; infinity if the bias is no number, so that no row counts as finite.

    NaN would say that every row has to be NaN.
    """
    return jnp.where(jnp.all(jnp.isfinite(bias)), 0.0, jnp.inf).astype(bias.dtype)
