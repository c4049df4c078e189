"""What adding a bias to a product leaves to a device, besides the tolerance of the product.

A device adds b to its product and rounds, S = fl(C + b): to one of the two numbers beside the sum,
which are at most 2 u |S_ij| apart, u the unit roundoff. With |S| <= |S - b| + |b|, row i of S - b
may be off by

    2 u (||(S - b)_i * w|| + ||b * w||)

more than a product, and by a smallest normal number in each element that the device flushed. If row
i of the near operand is zero, so is C_i, and S_i is b.

That is room for a cheat where a few elements of b are massive, as in a mask: what these may lose
could be spent on the other columns. So a row passes only if rounding b is at most half of its room,
or it is within twice what the product leaves, or no element of b is far smaller than the others.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from verifiable.claims.contraction import Contraction
from verifiable.claims.extremes import tiny
from verifiable.claims.statistic import RowStatistics
from verifiable.jaxpr.blocks import Array

_EVEN = 4.0  # the norm of b * w over what it were if all elements were as small as the smallest


def left(contraction: Contraction, projection: Any, *, energy: Array, products: Array) -> Array:
    """How far each row may be off.

    Args:
      contraction: of one product, whose output's last dimension are the columns.
      projection: a `freivalds.Projection` with a bias of each column and weights (1, columns).
      energy: of the near operand, as in `freivalds.Applied`.
      products: sum_j ((S - b)_ij w_j)^2 of each row.
    """
    weights = projection.weights
    rounded = jnp.sqrt(products) + _norm(_weighted(projection.bias, weights))
    flushed = tiny(contraction.dtypes[2]) * _norm(weights)
    unit = float(jnp.finfo(contraction.dtypes[2]).eps)
    return (jnp.where(energy == 0, 0, unit * rounded) + flushed).astype(products.dtype)


def norm(bias: Array, weights: Array) -> Array:
    """||b * w||, in the type of the weights."""
    return _norm(_weighted(bias, weights))


def folded(
    contraction: Contraction, sums: Array, bias: Array, vectors: Array, fine: Array
) -> Array:
    """(S - b) R of each row; as S R - b R, which needs no copy of S, where that is `fine`.

    Args:
      contraction: as of `left`, in one block.
      sums: S, as committed.
      bias: of each column.
      vectors: R, (columns, draws).
      fine: whether the digits that S R and b R have in common may be lost.
    """

    def apart() -> Array:
        return contraction.fold(sums, vectors) - jnp.sum(bias.reshape(-1, 1) * vectors, axis=0)

    return lax.cond(fine, apart, lambda: contraction.fold(sums - bias, vectors))


def unsettled(bias: Array) -> Array:
    """Zero; infinity if the bias is no number, so that no row counts as finite.

    NaN would say that every row has to be NaN.
    """
    return jnp.where(jnp.all(jnp.isfinite(bias)), 0.0, jnp.inf).astype(bias.dtype)


def settled(
    contraction: Contraction,
    projection: Any,
    found: RowStatistics,
    *,
    energy: Array,
    sigma: Array,
    eps: float,
) -> RowStatistics:
    """What was found of rows, where one that passes by the rounding of a massive bias is undecided.

    Args:
      contraction: as of `left`.
      projection: a `freivalds.Projection`; if it has no bias, all rows decide.
      found: its ratio is above one in the rows that fail.
      energy: as of `left`.
      sigma: how far each row may be off in all.
      eps: tolerance of the product.
    """
    bias, weights = projection.bias, projection.weights
    if bias is None:
        return found
    own = _weighted(bias, weights)
    even = _norm(own) <= _EVEN * bias.size**0.5 * jnp.min(jnp.abs(own))
    most = 2 * float(jnp.finfo(contraction.dtypes[2]).eps) * _norm(own)
    narrow = (most <= sigma) | (found.ratio * sigma <= 2 * eps * jnp.sqrt(energy))
    fails = (found.ratio > 1) | ~found.finite_claim
    decides = even | (energy == 0) | narrow | fails
    return found._replace(finite_operands=found.finite_operands & decides)


def _weighted(bias: Array, weights: Array) -> Array:
    return bias.reshape(weights.shape).astype(weights.dtype) * weights


def _norm(values: Array) -> Array:
    return jnp.sqrt(jnp.sum(values * values))
