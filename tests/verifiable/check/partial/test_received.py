"""What was opened of a trace, as the iterations that an audit reads."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.helpers.traces import received
from verifiable.trace import Layout, Trace


@pytest.mark.parametrize("trips", [(3, 3), (0, 0), (2,), (3, 1, 3), (), (0, 1, 2, 3)])
@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 3), (4,)])
def test_iterations_are_read_in_any_order_and_as_often_as_asked_for(
    shape: tuple[int, ...], trips: tuple[int, ...]
):
    # The iteration that runs first has none before it: its neighbour's is asked for again.
    value = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
    y = jax.ShapeDtypeStruct((1,), np.float32)
    layout = Layout.of(y, Trace(values=(value,)))
    found = received(layout, [value]).iterations(0, trips)
    np.testing.assert_array_equal(found, value[list(trips)])
