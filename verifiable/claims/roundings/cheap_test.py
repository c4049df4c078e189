"""The cheap form of a rounding's test: one pass over its rows for their size, one for the test.

A test that must decide on any row scales it by its largest element, so that no square overflows or
vanishes, and asks of each number whether it is finite. Nearly every row is clear without that. With
root(v) from squares as they are, the same ratios of the same intervals are compared with

    SURE = 1 - 2^-6

in place of 1: more than the rounding of the squares can hide, and what is lost of the distance of a
value from a claim of the other sign (`midpoints.beyond`). A square that vanishes makes the slack
smaller. A row passes only if the mean of its squares is a number of at most MOST, and no row with a
NaN or an infinity has one; a NaN in the claim leaves the row without a norm, and an infinity is
beyond every limit, unless a chain of several steps takes the value before it to one. What does not
pass is undecided, and the claim is tested again in full (`Form.retest`). Hence whatever passes here
passes there. Claims with rows of more than LONGEST elements, in any way in which rows lie, are
tested in full at once.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from verifiable.claims.statistic import Statistic, worst_row
from verifiable.jaxpr.blocks import Array

SURE = 1 - 2.0**-6
LONGEST = 2**17  # elements of a row: a sum of n squares is off by at most n 2^-24 of itself
MOST = 2.0**100  # of the mean square of a row


def slack(value: Array, eps: float, least: float) -> tuple[Array, Array]:
    """The slack of each element, and whether that of its row is right.

    Args:
      value: float32 (rows, n).
      eps: tolerance.
      least: the term of the slack that does not depend on the row.

    Returns:
      float32 (rows, n); bool (rows,).
    """
    mean = jnp.sum(value * value, axis=-1) / max(value.shape[-1], 1)
    return eps * (jnp.abs(value) + jnp.sqrt(mean)[:, None]) + least, mean <= MOST


def once(test: Callable[[Array, Array], Statistic], value: Array, claim: Array) -> Statistic:
    """The statistic of a test that reads a value in several passes, which is computed once for all.

    On CPUs, XLA computes a float16 again in every pass that reads it, unless the passes are in a
    branch. The other branch is taken if the claim begins with a NaN, and leaves it undecided.
    """

    def undecided(*_: Array) -> Statistic:
        return statistic(jnp.full((1,), jnp.inf, jnp.float32))

    first = claim.reshape(-1)[:1]
    return lax.cond(jnp.all(first == first), test, undecided, value, claim)  # noqa: PLR0124


def statistic(by_row: Array) -> Statistic:
    """What is clear: all rows or none; then the statistic has no finite operands.

    Args:
      by_row: float32 (rows,), each over its limit; anything but a number up to SURE is undecided.
    """
    worst, row, _ = worst_row(by_row.astype(jnp.float64))
    clear, true = worst <= SURE, jnp.ones((), bool)
    return Statistic(
        jnp.where(clear, worst, 0.0),
        row,
        passed=true,
        finite_claim=true,
        in_range=true,
        finite_operands=clear,
    )
