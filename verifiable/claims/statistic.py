"""What the test of a claim measures, and the verdict that follows.

A test returns arrays and never raises or decides, so that it can be compiled. A random test, such
as `freivalds.test`, decides on rows: `RowStatistics` has one entry for each, `summary` reduces
them. `judge` runs on the host.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.jaxpr.blocks import Array
from verifiable.report import Verdict


class Statistic(NamedTuple):
    """Outcome of one test, as arrays.

    Attributes:
      worst: float64 (), the largest statistic as a fraction of its limit; an exact test has 0 or
        infinity.
      row: int32 (), the row with the largest statistic, counted over all dimensions of the claim
        but those that a row is made of.
      passed: bool (), whether every row whose operands are finite passed.
      finite_claim: bool (), whether the claim is finite wherever its operands are.
      in_range: bool (), whether every integer could be the result of its accumulator.
      finite_operands: bool (), whether the verifier's own operands are finite.
      ties: int32 (), decisions whose operands are within their slack of a tie.
      flips: int32 (), decisions that are not the verifier's own.
      defined: bool (), whether no row failed whose result devices may choose.
      stopped: bool (), whether the equation is a loop that was cut short.
    """

    worst: Array
    row: Array
    passed: Array
    finite_claim: Array
    in_range: Array
    finite_operands: Array
    ties: Array = np.int32(0)
    flips: Array = np.int32(0)
    defined: Array = np.bool_(True)
    stopped: Array = np.bool_(False)


class RowStatistics(NamedTuple):
    """Outcome of the test of each row: arrays of one shape.

    Attributes:
      ratio: float64, the statistic as a fraction of its limit; an exact test has 0 or infinity.
      finite_claim: bool, whether the claim is finite.
      in_range: bool, whether every integer could be the result of its accumulator.
      finite_operands: bool, whether the verifier's own operands are finite.
    """

    ratio: Array
    finite_claim: Array
    in_range: Array
    finite_operands: Array


class Deviation(NamedTuple):
    """How far a claim or output is from what the verifier's operands lead to, row by row.

    A row passes iff the 2-norm of its distance from the interval is at most its limit. For a
    rounding, a row is one element.

    Attributes:
      expected: float64 (rows, k), what the operands lead to; it differs between honest replays.
      low: float64 (rows, k), the least that the claim stands for.
      high: float64 (rows, k), the most; for products and outputs the same.
      limit: float64 (rows,).
      scale: float64 (rows,), the typical norm of a row of `expected`.
      moves: float64 (rows, m), how far other rounding of what the key has projected may move it, in
        m replays in turn.
    """

    expected: Array
    low: Array
    high: Array
    limit: Array
    scale: Array
    moves: Array


def deviation(
    expected: Array,
    low: Array,
    high: Array,
    limit: Array,
    scale: Array,
    moves: Array | None = None,
) -> Deviation:
    """A `Deviation` from arrays with any dimensions of rows, the columns last."""
    rows = limit.size
    expected, low, high = (x.reshape((rows, -1)).astype(jnp.float64) for x in (expected, low, high))
    limit, scale = (x.reshape(rows).astype(jnp.float64) for x in (limit, scale))
    moved = jnp.zeros((rows, 1)) if moves is None else moves.reshape((rows, -1))
    return Deviation(expected, low, high, limit, scale, moved.astype(jnp.float64))


def strictly(value: Array, low: Array, high: Array, own: Array) -> tuple[Array, Array]:
    """Intervals that leave out a value at the end of one, if what was committed is not its own.

    At a tie, both results are within a tolerance. But a value that no rounding moves, such as an
    exact zero, has one result on every device (`spread.decide` without limits).

    Args:
      value: of each element.
      low: lower end of the closed interval that leads to what was committed.
      high: upper end.
      own: whether the value itself leads to it.
    """
    value, low, high = (jnp.asarray(x, jnp.float64) for x in (value, low, high))
    tied = ~own & (value >= low) & (value <= high)
    above = jnp.maximum(jnp.nextafter(value, jnp.inf), value + jnp.finfo(jnp.float64).tiny)
    below = jnp.minimum(jnp.nextafter(value, -jnp.inf), value - jnp.finfo(jnp.float64).tiny)
    downwards = tied & (value == high) & (value != low)
    low = jnp.where(tied & ~downwards, above, low)
    return low, jnp.where(downwards, below, jnp.maximum(low, high))


def summary(rows: RowStatistics) -> Statistic:
    """The statistic of all rows: every condition must hold in each row; the worst row is named."""
    ratio = rows.ratio.reshape(-1)
    worst = jnp.max(ratio)
    conditions = ratio <= 1.0, rows.finite_claim, rows.in_range, rows.finite_operands
    # Reduced as one array: on few rows, starting an operation costs more than its arithmetic.
    hold = jnp.all(jnp.stack([c.reshape(-1) for c in conditions]), axis=1)
    return Statistic(worst, first(ratio == worst), *hold)


def worst_row(by_row: Array) -> tuple[Array, Array, Array]:
    """The largest statistic, its row, and whether all rows pass: the first fields of `Statistic`.

    Args:
      by_row: float64 (rows,), the statistic of each row as a fraction of its limit; NaN counts as
        infinity, so that the row that is named exists and can be accused.
    """
    by_row = jnp.where(jnp.isnan(by_row), jnp.inf, by_row)
    worst = jnp.max(by_row, initial=0.0)
    return worst, first(by_row == worst), jnp.all(by_row <= 1.0)


def untaken(out: Array, trips: tuple[int, ...]) -> Statistic:
    """The statistic of the claim of a branch that was not taken: all zero, in each leading trip."""
    if trips:
        return jax.vmap(lambda x: untaken(x, trips[1:]))(out)
    zero = out.reshape(-1) == 0
    passed, true = jnp.all(zero), jnp.ones((), bool)
    return Statistic(jnp.where(passed, 0.0, jnp.inf), first(~zero), passed, true, true, true)


def first(flags: Array) -> Array:
    """Index of the first true flag of a vector, int32; its length if there is none.

    (JAX lowers `argmax` outside of `enable_x64` under `vmap`, where float64 fails.)
    """
    size = flags.shape[0]
    indices = lax.iota(jnp.int32, size)
    return jnp.min(jnp.where(flags, indices, jnp.int32(size)), initial=size)


def ratios(rho: Array, sigma: Array, limit: float, decided: Array) -> Array:
    """||rho_i|| / (sigma_i sqrt(L)); infinite where it is no number, zero for undecided rows."""
    norms = jnp.sum(rho * rho, axis=-1)
    ratio = jnp.where(norms == 0, 0.0, jnp.sqrt(norms / limit) / sigma)
    ratio = jnp.where(jnp.isfinite(sigma) & ~jnp.isnan(ratio), ratio, jnp.inf)
    return jnp.where(decided, ratio, 0.0)


def retested(before: Statistic, again: Statistic, taken: Array) -> Statistic:
    """A statistic after a second test of the claim, by trip; untaken branches keep the first.

    Args:
      before: over all trips of the scans around the claim, as numpy arrays.
      again: of the second test.
      taken: whether the claim's branch was taken, by trip.
    """
    flags = np.reshape(taken, -1)
    pairs = zip(again, before, strict=True)
    return Statistic(*(np.where(flags, np.reshape(a, -1), np.reshape(b, -1)) for a, b in pairs))


def conditions(statistic: Statistic, mismatch: str) -> tuple[tuple[str, Array], ...]:
    """The conditions of acceptance, in the order of judgement, each with the code of its failure.

    Args:
      statistic: of one claim, or of all trips of the scans around it.
      mismatch: code of a failed test, `Form.mismatch`.
    """
    return (
        ("claim-nonfinite", statistic.finite_claim),
        ("claim-range", statistic.in_range),
        (mismatch, statistic.passed & (statistic.worst <= 1.0)),
        ("nonfinite-operand", statistic.finite_operands),
        ("undefined-operand", statistic.defined),
    )


def judge(statistic: Statistic, mismatch: str) -> tuple[Verdict, str]:
    """Verdict and reason code of one statistic; accepted only if every condition holds."""
    for reason, holds in conditions(statistic, mismatch):
        if not bool(holds):
            unclear = reason in ("nonfinite-operand", "undefined-operand")
            return Verdict.INDETERMINATE if unclear else Verdict.REJECT, reason
    return Verdict.ACCEPT, "ok"
