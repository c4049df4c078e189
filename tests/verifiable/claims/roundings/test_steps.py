"""Steps of a rounding, back through their preimages, and forms that are made of few of them."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.roundings import LEVELS, narrowing
from verifiable.claims.form import Yardstick
from verifiable.claims.roundings.steps import RoundingStep

STEPS = {
    "round": RoundingStep(kind="round"),
    "floor": RoundingStep(kind="floor"),
    "ceil": RoundingStep(kind="ceil"),
    "truncate": RoundingStep(kind="truncate", dtype=np.dtype(np.int8)),
    "clamp": RoundingStep(kind="clamp", low=-2.0, high=3.0),
}
HALF = narrowing(np.float16)


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize(("low", "high"), [(-2.0, -2.0), (0.0, 0.0), (3.0, 3.0), (-1.0, 2.0)])
def test_a_step_back_ends_where_values_leave_the_interval(kind: str, low: float, high: float):
    """All inside go into the interval, none outside does; the ends belong to both sides."""
    step = STEPS[kind]
    ends = [float(x) for x in step.back(jnp.float32(low), jnp.float32(high))[:2]]
    assert ends[0] <= ends[1]
    values = np.setdiff1d(np.arange(-5, 6, 0.125, np.float32), ends)
    taken = np.asarray(step.forward(jnp.asarray(values)))
    inside = (ends[0] < values) & (values < ends[1])
    assert inside.tolist() == ((low <= taken) & (taken <= high)).tolist()


def test_a_row_that_is_nan_on_every_device_leaves_nothing_to_choose():
    """Every element of operand and claim; what is NaN in one of them, or in part, may be chosen."""
    form, one, none = HALF, [1.0, 2.0, 3.0], [math.nan] * 3
    part, far = [1.0, math.nan, 3.0], [1.0, math.inf, 3.0]
    for row, claimed, settled in (
        (one, one, True),
        (none, none, True),
        (none, one, False),
        (part, part, False),
        (far, far, False),
    ):
        v, q = np.array([one, row], np.float32), np.array([one, claimed], np.float16)
        with jax.enable_x64(True):
            operands = [jnp.asarray(v), jnp.zeros(3)]  # what else a claim reads comes behind it
            again = form.retest(operands, jnp.asarray(q), Yardstick(eps=2.0**-20))
            first = form.test(operands, jnp.asarray(q), Yardstick(eps=2.0**-20))
        assert bool(again.finite_operands) is settled
        assert bool(first.finite_operands) is (row is one)


def test_a_smooth_rounding_is_the_rounded_value_and_moves_as_the_value():
    form = LEVELS
    with jax.enable_x64(True):
        x = jnp.asarray([0.25, 1.75, -3.5, 300], jnp.float32)
        smooth: Any = functools.partial(form.smooth, None, [])
        assert smooth([x]).tolist() == [0, 2, -4, 127]
        assert jax.grad(lambda v: smooth([v]).sum())(x).tolist() == [1] * 4
