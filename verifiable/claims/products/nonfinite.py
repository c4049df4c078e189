"""Products that are not finite: which rows decide nothing, and which are NaN on every device.

The test of a product (`freivalds`) says only whether claim and operands are finite. Where they are
not, the claim is tested once more, outside the compiled check:

    overflow   a row whose product may exceed the largest number of the output's type overflows on
               some honest devices: as undecided as a row whose operands are not finite;
    absent     with a finite B, the energy of row i is NaN only if A_i holds a NaN, or an infinity
               where B_k: is zero. Every element of C_i is then NaN, on every device. A claim that
               is NaN throughout that row is accepted.

If B is finite, a row of A that holds a NaN or an infinity leaves no number in that row of C. A
claim that has one there is *unfounded* (`judging.second_look`).

By the Cauchy-Schwarz inequality, |C_ij| w_j <= sqrt(K energy_i), and so are all partial sums. A
row may overflow if this reaches half of the largest number, which leaves room for rounding.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Shaped

from verifiable.claims.contraction import Contraction
from verifiable.claims.products import bias_slack, freivalds
from verifiable.claims.products.freivalds import Applied, Projection, Vectors
from verifiable.claims.statistic import RowStatistics, Statistic, ratios, summary
from verifiable.jaxpr.blocks import Array


def retest(
    contraction: Contraction,
    near: Shaped[Any, "*near"],
    projection: Projection,
    out: Shaped[Any, "*out"],
    g: Vectors,
    *,
    eps: float,
    limit: float,
) -> Statistic:
    """Test a claim of floats whose test found numbers that are not finite.

    Arguments as of `freivalds.test`; runs under `jax.enable_x64`.
    """
    return summary(rows(contraction, near, projection, out, g, eps=eps, limit=limit))


def rows(
    contraction: Contraction,
    near: Shaped[Any, "*near"],
    projection: Projection,
    out: Shaped[Any, "*out"],
    g: Vectors,
    *,
    eps: float,
    limit: float,
) -> RowStatistics:
    """The statistics of rows that `retest` sums up."""
    applied = freivalds.apply(contraction, near, projection)
    rho, energy, sigma, theirs = freivalds.deviations(contraction, applied, projection, out, g, eps)
    decided = jnp.isfinite(energy) & (theirs | ~_overflows(contraction, applied, projection))
    found = RowStatistics(
        ratio=ratios(rho, sigma, limit, decided),
        finite_claim=theirs | ~decided,
        in_range=jnp.ones(decided.shape, bool),
        finite_operands=decided | _absent(contraction, energy, projection, out),
    )
    found = bias_slack.settled(contraction, projection, found, energy=energy, sigma=sigma, eps=eps)
    return freivalds.by_row(contraction, found)


def unfounded(
    contraction: Contraction,
    near: Shaped[Any, "*near"],
    projection: Projection,
    out: Shaped[Any, "*out"],
) -> Array:
    """Elements of A that are not finite in a row for which the claim holds a number.

    Arguments as of `freivalds.test`; runs under `jax.enable_x64`.

    Returns:
      (rows, contracted); (1, 1) of integers, or if elements of A belong to several rows, as in a
      convolution.
    """
    rows = None if contraction.exact else contraction.near_rows(~jnp.isfinite(near))
    if rows is None:
        return jnp.zeros((1, 1), bool)
    norms: Any = projection.norms
    numbers = contraction.out_sums(jnp.isfinite(out).astype(jnp.float64)) > 0
    numbers = jnp.any(numbers.reshape(rows.shape[0], -1), axis=-1, keepdims=True)
    return rows & numbers & jnp.all(jnp.isfinite(norms))


def _absent(contraction: Contraction, energy: Array, projection: Any, out: Array) -> Array:
    """Rows of the claim that are NaN throughout, as they must be."""
    expected = jnp.isnan(energy) & jnp.all(jnp.isfinite(projection.norms))
    return expected & (contraction.out_sums((~jnp.isnan(out)).astype(jnp.float64)) == 0)


def _overflows(contraction: Contraction, applied: Applied, projection: Any) -> Array:
    """Which rows a device may find beyond the largest number of the output's type."""
    energy: Any = applied.energy
    largest = float(jnp.finfo(contraction.dtypes[2]).max) / 2
    reach = jnp.sqrt(contraction.contracted * energy)
    if applied.top is not None:
        reach = reach * applied.top * projection.scale
    least = jnp.min(projection.weights, axis=-1)
    if projection.bias is not None:
        largest = largest - jnp.max(jnp.abs(projection.bias.astype(jnp.float64)))
    return reach >= largest * freivalds.by_batch(contraction, least, energy)
