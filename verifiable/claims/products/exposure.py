"""How far another rounding of a far operand moves the rows of a product, from a few numbers.

A second look does not have the far operand B, only its projection B r. With another rounding B' of
it, row i of the projected product changes by A_i (B' - B) r, at most

    ||A_i|| ||(B' - B) r||_2,

the second norm being of the operator from rows of A to draws. Rows of B count in units of
h_k = max(||B_k: * w||, rms of all), and elements of A times h_k, so that a large row of B, which
loses much, bounds only what meets it.
"""

from __future__ import annotations

import jax.numpy as jnp

from verifiable.claims.contraction import Contraction
from verifiable.claims.products.freivalds import Projection
from verifiable.jaxpr.blocks import Array


def moved(contraction: Contraction, far: Array, projection: Projection, g: Array) -> Array:
    """How far the image of another rounding of the far operand is from a projection.

    It is the operator norm of the difference of the images, each of whose rows is divided by
    `heights`: no row of A (B r) differs by more than this times `exposure`. (The bound is the
    eighth root of the sum of the eighth powers of all singular values.)

    Args:
      contraction: of the product.
      far: the other rounding.
      projection: of the far operand itself, by the same vectors.
      g: (columns, draws) from `freivalds.vectors`.
    """
    weights, norms = projection.weights, projection.norms
    if weights is None or norms is None:
        raise ValueError("integers are exact")
    wide = far.astype(jnp.float64) / (1.0 if projection.scale is None else projection.scale)
    scaled = contraction.scale_far(wide, weights)
    image = contraction.project(scaled, jnp.asarray(g, jnp.float64))
    change = contraction.normalize(image, norms) - projection.image
    units = contraction.normalize(jnp.ones_like(norms), norms) * heights(norms)
    # Blocks of columns have a norm each, and are tested with the same vectors.
    change = change.reshape(*norms.shape, -1) / units[..., None]
    change = change.reshape(-1, change.shape[-2] * change.shape[-1])
    largest = jnp.max(jnp.abs(change))
    change = change / jnp.where(largest > 0, largest, 1.0)
    gram = change.T @ change
    gram = gram @ gram
    return largest * jnp.sum(gram * gram) ** 0.125


def exposure(
    contraction: Contraction,
    near: Array,
    heights: Array,
    top: Array | None,
) -> Array:
    """The norm of each row of A, whose elements count as `heights` says; see `moved`.

    Args:
      contraction: of the product.
      near: A.
      heights: of the rows of B.
      top: as in `freivalds.Applied`.
    """
    wide = near.astype(jnp.float64) / (1.0 if top is None else top)
    return jnp.sqrt(contraction.weigh(wide, heights)[1])


def heights(norms: Array) -> Array:
    """||B_k: * w|| of each row, and of small ones the root mean square of all."""
    return jnp.maximum(norms, jnp.sqrt(jnp.mean(norms * norms)))
