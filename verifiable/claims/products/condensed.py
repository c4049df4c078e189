"""Projections of floats as keys hold them: in float32, where that loses next to nothing.

Weights and norms have the digits of float32 before anything is projected with them
(`float32_test.shortened`), so only the image is rounded. The rounding of one number has a standard
deviation of at most NOISE u of its size, u = 2^-24; so that of an entry of rho is at most

    NOISE u (sum_k A_ik^2 ||B_k: * w||^2)^(1/2)  <=  NOISE u s_i,

a hundredth of sigma_i = eps s_i where eps >= 40 u (Theorem 6 of specs/freivalds.md).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from verifiable.claims.claim import Claim
from verifiable.claims.contraction import Contraction
from verifiable.claims.extremes import power_of_two
from verifiable.claims.products.float32_test import NOISE
from verifiable.claims.products.freivalds import Projection
from verifiable.claims.products.product import Product
from verifiable.jaxpr.blocks import Array

_SHARE = 0.01  # of sigma: what the rounding of an image may add to an entry of rho
_SHIFT = 2.0**100  # of what is held in float32, so that 2^-200 is a normal number there


class Condensed(NamedTuple):
    """A projection in float32.

    Attributes:
      image: float32; of products that do not divide rows by their norms, times 2^100.
      weights: float32, divided by `unit`.
      norms: float32, times 2^100.
      floor: float64, as in a projection.
      unit: a power of two, float64 ().
    """

    image: Array
    weights: Array
    norms: Array
    floor: Array
    unit: Array


def fine(contraction: Contraction, eps: float) -> bool:
    """Whether float32 loses next to nothing, for tests of this tolerance and above."""
    if contraction.exact or any(d == jnp.float64 for d in contraction.dtypes):
        return False
    return eps * _SHARE >= NOISE * 2.0**-24


def condensed(claim: Claim, projection: Any, eps: float) -> Any:
    """What a key holds of the projection for a claim, which is tested with this tolerance."""
    form = claim.form
    if not (isinstance(form, Product) and fine(form.projected_maps, eps)):
        return projection
    return in_float32(form.projected_maps, projection)


def restored(claim: Claim, kept: Any) -> Any:
    """The projection for a claim, given what a key holds."""
    if not (isinstance(kept, Condensed) and isinstance(claim.form, Product)):
        return kept
    return in_float64(claim.form.projected_maps, kept)


def in_float32(contraction: Contraction, projection: Projection) -> Condensed:
    """A projection in float32, of which only the image is rounded."""
    image, weights, norms, floor = (jnp.asarray(x) for x in projection[:4])
    unit = power_of_two(jnp.max(weights))
    image = image if contraction.normalizes else _SHIFT * image
    image, weights, norms = (x.astype(jnp.float32) for x in (image, weights / unit, _SHIFT * norms))
    return Condensed(image, weights, norms, floor, unit)


def in_float64(contraction: Contraction, kept: Condensed) -> Projection:
    """The projection that is held in float32."""
    image, weights, norms = (x.astype(jnp.float64) for x in kept[:3])
    image = image if contraction.normalizes else image / _SHIFT
    return Projection(image, weights * kept.unit, norms / _SHIFT, kept.floor)
