"""What was opened of a trace, as the iterations that an audit reads."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.helpers.traces import received
from verifiable.check.partial.opened_rows import OpenedTensors
from verifiable.check.partial.row_test import places_of
from verifiable.check.tiling.rules import Cut
from verifiable.trace import Layout, OpenedTensor, Trace


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


@pytest.mark.parametrize("opened", ["all", "asked", "some"])
@pytest.mark.parametrize(
    ("shape", "cut"),
    [
        ((4, 6, 3), Cut(0)),
        ((4, 2, 6, 3), Cut(1)),
        ((4, 6, 5, 3), Cut(0)),
        ((4, 12, 3), Cut(0, 2)),
        ((3, 7, 14, 2), Cut(1, 2, 2)),
    ],
)
def test_rows_of_iterations_are_read_where_they_are_and_zero_where_not_opened(
    shape: tuple[int, ...], cut: Cut, opened: str
):
    value = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
    layout = Layout.of(jax.ShapeDtypeStruct((1,), np.float32), Trace(values=(value,)))
    trips, rows = np.array([2, 0, 2]), np.array([[0, 2], [1, 5], [3, 4]])
    flat, asked = value.reshape(-1, shape[-1]), places_of(shape, trips, cut, rows).ravel()
    numbers = np.unique(asked)[:: 2 if opened == "some" else 1]
    numbers = np.arange(len(flat)) if opened == "all" else numbers
    given = OpenedTensor(tensor=0, numbers=numbers, rows=flat[numbers])
    found = OpenedTensors.of(layout, [given])
    seen = np.zeros_like(flat)
    seen[numbers] = flat[numbers]
    places = cut.offset + cut.unit * rows[:, :, None] + np.arange(cut.unit)
    expected = [
        np.take(seen.reshape(shape)[trip], at.ravel(), axis=cut.axis)
        for trip, at in zip(trips, places, strict=True)
    ]
    np.testing.assert_array_equal(found.in_rows(0, trips.tolist(), cut, rows), expected)
    np.testing.assert_array_equal(found[0], seen.reshape(shape))
    np.testing.assert_array_equal(found.iterations(0, (1, 0, 1)), seen.reshape(shape)[[1, 0, 1]])
