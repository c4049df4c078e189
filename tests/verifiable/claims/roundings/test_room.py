"""What a cheat may shift undetected, claim by claim, which the corridor of a key adds up."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tests.helpers.roundings import F32, LEVELS, narrowing
from verifiable.claims.roundings.rounding import Rounding

BF16 = np.dtype(ml_dtypes.bfloat16)
FORMS = {"bfloat16": narrowing(BF16), "int8": LEVELS}


@pytest.mark.parametrize("name", FORMS)
def test_the_room_of_a_rounding_ends_at_its_extremes(name: str):
    """What a cheat may shift; to first order, and in full."""
    form, eps = FORMS[name], 2.0**-6
    value = np.array([[100.3, -100.3, 0.0, 37.7]], form.source)
    with jax.enable_x64(True):
        own = form.forward(jnp.asarray(value))
        ends = form.extremes(value, form.slack(value, eps))
        room = form.room([value], None, own, eps)
        for found, end in zip(room, ends, strict=True):
            np.testing.assert_array_equal(np.asarray(own + found), np.asarray(end))
        slope = np.array([[1.0, -2.0, 0.5, 0.0]], np.float32)
        farthest = np.maximum(*(np.abs(np.asarray(end - own)) for end in ends))
        assert float(form.reach(room, slope, 5.0)) == float(np.sum(np.abs(slope) * farthest)) > 0
        shift = form.steepest(room, slope, 5.0)
        shifted = form.shifted([value], own.astype(form.dtype), shift, eps, 1.0)
        change = np.asarray(shifted).astype(np.float64) - np.asarray(own)
        assert np.all(np.sign(change) * np.sign(slope) <= 0)
        assert np.sum(change * slope) < 0
        still = form.shifted([value], own.astype(form.dtype), 0 * shift, eps, 1.0)
        np.testing.assert_array_equal(np.asarray(still), np.asarray(own.astype(form.dtype)))


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_extremes_of_an_operand_itself_are_the_last_values_within_its_slack(dtype: np.dtype[Any]):
    form = Rounding(steps=(), source=F32, dtype=dtype)
    value = np.array([1.1, -1.1, 300.0, -0.7, 2.0], F32)
    value = np.append(value, np.random.default_rng(0).standard_normal(59).astype(F32))
    slack = np.abs(value) * np.float32(2.0**-6)
    with jax.enable_x64(True):
        low, high = map(np.asarray, form.extremes(jnp.asarray(value), jnp.asarray(slack)))
        assert low.dtype == high.dtype == F32
        low, high = low.astype(dtype), high.astype(dtype)
        inf = np.asarray(np.inf, dtype)
        below, above = (
            np.asarray(jax.lax.nextafter(jnp.asarray(end), jnp.full(value.shape, way, dtype)))
            for end, way in ((low, -inf), (high, inf))
        )
    assert np.all(below.astype(F32) < value - slack)
    assert np.all(value - slack <= low.astype(F32))
    assert np.all(high.astype(F32) <= value + slack)
    assert np.all(value + slack < above.astype(F32))
