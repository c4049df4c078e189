"""The cheap form of a product's test: rho in float32, accepted at half of the limit.

Nearly every row of nearly every run is honest and far from its limit. So a test of floats first
computes rho and sigma in float32, from the projection rounded to float32, and divides the rows:

    ratio <= 1/2          passes: the rounding of rho, below half of the limit, cannot hide more;
    ratio > 2             fails, for the same reason;
    anything else         is undecided, and the claim is tested again in float64 (`Form.retest`).

If all rows pass with a sigma that counts the claim as zero, which is never larger, its norms are
not computed at all.

Undecided is also what is not finite, and a row whose scale s_i is so small or large that squares
may vanish or overflow in float32. The weights are multiplied by a power of two, so that no term of
rho vanishes unless the floors of the test cover it; hence rho = 0 passes at any scale.

The rounding of rho is random, as the vectors are: each of its entries has a standard deviation of
at most about NOISE u sqrt(max(K, n)) s_i, u = 2^-24 (section 3 of specs/freivalds.md; `benchmarks
soundness` measures it). The cheap form is used where half of eps is at least 1.5 times that.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from verifiable.claims.contraction import Contraction
from verifiable.claims.extremes import power_of_two
from verifiable.claims.statistic import RowStatistics
from verifiable.jaxpr.blocks import Array

NOISE = 0.4  # of an entry of rho, in units of u sqrt(max(K, n)) s_i
_MARGIN = 1.5  # half of eps over the noise
_LONGEST = 2**20  # terms of a sum: the error of a sum of squares stays below a sixteenth
_UNIT = 2.0**30  # of scales; larger where a weight would be below 1 in this unit
_LEAST, _MOST = 2.0**-20, 2.0**60  # scales of rows, in these units
_LEAST_NORM = 2.0**-100  # of a row of B, in these units


def noise(contraction: Contraction) -> float:
    """Standard deviation of an entry of the rounding error of rho, as a fraction of s_i."""
    longest = max(contraction.contracted, contraction.width)
    return NOISE * 2.0**-24 * longest**0.5


def suffices(contraction: Contraction, eps: float) -> bool:
    """Whether float32 is fine enough for the test of a contraction with this tolerance."""
    if contraction.exact or any(d == jnp.float64 for d in contraction.dtypes):
        return False
    longest = max(contraction.contracted, contraction.width)
    return longest <= _LONGEST and eps / 2 >= _MARGIN * noise(contraction)


def shortened(contraction: Contraction, x: Array) -> Array:
    """Weights or norms with the digits of float32, which keys hold (`condensed`).

    Any weights do, and norms of 24 bits are as good as of 53. Next to columns of norm one, what is
    smaller than 2^-200 counts as that.
    """
    if any(d == jnp.float64 for d in contraction.dtypes):
        return x
    x = lax.reduce_precision(x, exponent_bits=11, mantissa_bits=23)
    return jnp.where(x > 0, jnp.maximum(x, 2.0**-200), x)


def narrowed(contraction: Contraction, projection: Any) -> Any:
    """A `freivalds.Projection` in float32, for `apply` and `compare` there.

    Its image is B r, of every contraction. A norm that is too small for float32 becomes NaN, which
    leaves the rows undecided.
    """
    weights = projection.weights
    unit = jnp.maximum(_UNIT, 2 / power_of_two(jnp.min(weights)))
    norms = unit * projection.norms
    norms = jnp.where((norms > 0) & (norms < _LEAST_NORM), jnp.nan, norms)
    # Weights and norms in vectors and image, not in the operands, which then need no copies.
    image = (norms if contraction.normalizes else unit) * projection.image
    image, weights, norms, floor = (
        x.astype(jnp.float32) for x in (image, unit * weights, norms, unit * projection.floor)
    )
    return projection._replace(image=image, weights=weights, norms=norms, floor=floor)


def merges(contraction: Contraction) -> bool:
    """Whether all rows and columns have one w each, so that r = w * g can be computed first."""
    return contraction.batch == 1 and contraction.blocks == 1


def in_place(contraction: Contraction, projection: Any, out: Array) -> bool:
    """Whether the comparison needs no copy of the claim, so that it need not go tile by tile.

    Only where a massive bias has to be subtracted first, a copy is made (`bias_slack.folded`).
    """
    plain = projection.image.dtype == out.dtype == jnp.float32
    return plain and merges(contraction)


def hides(contraction: Contraction, size: Array, sigma: Array) -> Array:
    """Whether the rounding of rho is far below half of sigma in all rows.

    Args:
      contraction: of the product.
      size: float32, what takes the place of s_i in the noise of each row.
      sigma: float32, of each row.
    """
    unit = 2 * _MARGIN * (noise(contraction) + 2.0**-24)
    return jnp.all(unit * size <= sigma)


def decide(rho: Array, sigma: Array, eps: float, limit: float) -> RowStatistics:
    """What float32 decides of each row; an undecided row has no finite operands.

    Args:
      rho: float32 (batch..., rows..., draws), from a `narrowed` projection.
      sigma: float32 (batch..., rows...).
      eps: tolerance, as a fraction of the scale.
      limit: L of `freivalds`.
    """
    ratio = jnp.sqrt(jnp.sum(rho * rho, axis=-1) / limit) / sigma
    scaled = (sigma >= eps * _LEAST) & (sigma <= eps * _MOST)
    clear = (ratio <= 0.5) | ((ratio > 2.0) & (ratio < jnp.inf))
    decided = (scaled & clear) | (jnp.all(rho == 0, axis=-1) & jnp.isfinite(sigma))
    true = jnp.ones(decided.shape, bool)
    return RowStatistics(
        ratio=jnp.where(scaled & decided, ratio, 0.0).astype(jnp.float64),
        finite_claim=true,
        in_range=true,
        finite_operands=decided,
    )
