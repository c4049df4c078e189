"""Middles between numbers of a narrow type, and distances from what rounds to one."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from verifiable.claims.roundings.midpoints import beyond, halfway

BF16, F16 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)


@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_middles_between_neighbours_are_right_for_every_value(dtype: np.dtype[Any]):
    """In double precision, with the number after the largest in place of infinity."""
    with np.errstate(invalid="ignore"):
        x = np.arange(2**16).astype(np.uint16).view(dtype).astype(np.float64)
    x = x[~np.isnan(x)]
    unique = np.unique(x[np.isfinite(x)])
    beyond = 2 * unique[-1] - unique[-2]
    line = np.concatenate([[-beyond], unique, [beyond]])
    at = np.searchsorted(line, np.clip(x, -beyond, beyond))
    step = [line[np.clip(at + d, 0, line.size - 1)] for d in (-1, 1)]
    want = [(np.clip(x, -beyond, beyond) + s) / 2 for s in step]
    want = [np.where(x == -np.inf, -np.inf, want[0]), np.where(x == np.inf, np.inf, want[1])]
    found = [np.asarray(m) for m in halfway(jnp.asarray(x, jnp.float32), dtype)]
    normal = np.abs(x) > 2 * float(jnp.finfo(jnp.float32).tiny)  # XLA may flush the others
    for mine, right in zip(found, want, strict=True):
        np.testing.assert_array_equal(mine[normal], right[normal])
        assert np.all(np.abs(mine[~normal] - right[~normal]) <= 2.0**-124)


@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_distances_from_what_rounds_to_a_value_are_right_for_every_value(dtype: np.dtype[Any]):
    """In double precision, between the middles: at them, beside them, and far away."""
    with np.errstate(invalid="ignore"):
        x = np.arange(2**16).astype(np.uint16).view(dtype).astype(np.float32)
    x = x[(np.abs(x) < 2.0**120) & (np.abs(x) > 2.0**-110)]  # XLA may flush what is smaller
    low, high = (np.asarray(m) for m in halfway(jnp.asarray(x), dtype))
    ends = [np.nextafter(e, np.float32(d)) for e in (low, high) for d in (-np.inf, np.inf)]
    for v in (x, low, high, *ends, x * np.float32(1.5), x / 3, np.full_like(x, 7), -x, -3 * x):
        exactly = [v.astype(np.float64) - high, low.astype(np.float64) - v]
        right = np.maximum(0, np.maximum(*exactly))
        found = np.asarray(beyond(jnp.asarray(v), jnp.asarray(x), dtype), np.float64)
        other = np.signbit(v) != np.signbit(x)
        lost = 2.0**-48 * (dtype == F16)  # a slack is at least 2^-24
        assert np.all(found <= right * (1 + 2.0**-22) + lost)
        assert np.all(found >= right * np.where(other, 1 - 2.0**-9, 1 - 2.0**-22) - lost)


@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_an_infinity_is_infinitely_far_from_numbers_and_nan_is_no_distance(dtype: np.dtype[Any]):
    v = jnp.asarray([1.0, -1.0, 0.0, 65520.0, 3e38], jnp.float32)
    for q in (np.inf, -np.inf):
        assert np.all(np.asarray(beyond(v, jnp.full(v.shape, q, jnp.float32), dtype)) == np.inf)
    assert np.all(np.isnan(np.asarray(beyond(v, v * np.nan, dtype))))
