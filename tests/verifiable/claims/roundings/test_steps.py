"""Steps of a rounding: what goes into an interval lies between the ends of its preimage."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from verifiable.claims.roundings.rounding import RoundingStep

STEPS = {
    "round": RoundingStep(kind="round"),
    "floor": RoundingStep(kind="floor"),
    "ceil": RoundingStep(kind="ceil"),
    "truncate": RoundingStep(kind="truncate", dtype=np.dtype(np.int8)),
    "clamp": RoundingStep(kind="clamp", low=-2.0, high=3.0),
}


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
