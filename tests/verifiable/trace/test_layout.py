"""Layouts: which rows a leaf holds, worked out row by row, and rows that do not exist."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from tests.helpers.traces import HONEST, A, Run, example, leaves_of, runs
from verifiable.encoding import tensor_bytes
from verifiable.merkle import root_from_leaf_data
from verifiable.trace import Layout, LeafRows, Trace, commit, verify


@settings(deadline=None)
@given(runs())
def test_layout_says_which_rows_a_leaf_holds(run: Run):
    layout, expected = run.layout, leaves_of(run)
    assert layout.size == len(expected)
    for leaf, (tensor, start, data) in enumerate(expected):
        rows = len(data) // layout.tensors[tensor].row_bytes
        assert layout.rows_of(leaf) == LeafRows(tensor=tensor, start=start, stop=start + rows)
        for row in range(start, start + rows):
            assert layout.leaf(tensor, row) == leaf


@settings(deadline=None)
@given(runs())
def test_layout_of_shapes_is_that_of_arrays(run: Run):
    y, claims = jax.tree_util.tree_map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (run.y, run.trace)
    )
    layout = Layout.of(y, claims, leaf_bytes=run.leaf_bytes)
    assert layout == run.layout
    assert layout == run.commit().layout
    assert hash(layout) == hash(run.layout)


@settings(deadline=None)
@given(runs())
def test_layout_counts_claims_and_bytes(run: Run):
    layout = run.layout
    assert layout.claim_count == len(run.trace.values)
    assert layout.nbytes == sum(len(tensor_bytes(tensor)) for tensor in run.tensors)
    names = [f"claim {i}" for i in range(layout.claim_count)]
    names += [f"output {i}" for i in range(len(run.tensors) - layout.claim_count)]
    assert [layout.name(i) for i in range(len(run.tensors))] == names


def test_answers_of_other_structure_have_other_layouts():
    layouts = [Layout.of(y, Trace(values=(A,))) for y in ([A], (A,), {"a": A}, {"b": A}, A, [[A]])]
    assert len(set(layouts)) == len(layouts)


def test_a_trace_is_a_pytree():
    y, claims = example()
    again = jax.jit(lambda trace: trace)(claims)
    assert isinstance(again, Trace)
    verify(commit(y, claims).commitment, y, again, layout=Layout.of(y, claims))
    shapes = jax.eval_shape(lambda: (y, claims))
    assert Layout.of(*shapes) == Layout.of(y, claims)


def test_layout_of_the_default_leaf():
    claims = (
        jax.ShapeDtypeStruct((128, 2048), jnp.float32),
        jax.ShapeDtypeStruct((2, 40_000), jnp.float32),
        jax.ShapeDtypeStruct((0, 4), jnp.float32),
        jax.ShapeDtypeStruct((), jnp.float32),
    )
    layout = Layout.of((), Trace(values=claims))
    assert [tensor.rows_per_leaf for tensor in layout.tensors] == [8, 1, 4096, 16384]
    assert [tensor.leaves for tensor in layout.tensors] == [16, 2, 0, 1]
    assert layout.size == 19
    assert [layout.rows_of(i).tensor for i in (15, 16, 17, 18)] == [0, 1, 1, 3]


# The caller's own mistakes.


@pytest.mark.parametrize(("tensor", "row"), [(-1, 0), (4, 0), (0, -1), (0, 6), (2, 1), (2, -1)])
def test_rows_that_do_not_exist_have_no_leaf(tensor: int, row: int):
    with pytest.raises(ValueError, match=f"row {row} is not in|tensor {tensor} is not one of 4"):
        HONEST.layout.leaf(tensor, row)


def test_a_zero_size_tensor_has_no_leaf():
    layout = Layout.of(A, Trace(values=(A[:0], A[:, :0])))
    for tensor in (0, 1):
        with pytest.raises(ValueError, match="row 0 is not in"):
            layout.leaf(tensor, 0)
    assert layout.leaf(2, 0) == 0


@pytest.mark.parametrize("leaf", [-1, 12])
def test_leaves_that_do_not_exist_have_no_rows(leaf: int):
    with pytest.raises(ValueError, match="is not one of 12"):
        HONEST.layout.rows_of(leaf)


@pytest.mark.parametrize("claims", [(), (A[:0],), (A[:0], A[:, :0])])
def test_an_empty_trace_has_no_layout(claims: Any):
    with pytest.raises(ValueError, match="without elements"):
        Layout.of((), Trace(values=claims))


def test_leaves_have_at_least_a_byte():
    with pytest.raises(ValueError, match="leaf_bytes must be at least 1, got 0"):
        Layout.of(A, Trace(values=()), leaf_bytes=0)


@pytest.mark.parametrize("claim", [1.0, None, "a", [A], A.astype(object)])
def test_claims_are_tensors(claim: Any):
    with pytest.raises(TypeError):
        commit((), Trace(values=(claim,)))


@pytest.mark.parametrize("values", [None, A, {"a": A}, "ab"])
def test_values_are_in_a_tuple(values: Any):
    for trace in (Trace(values=values), values):
        with pytest.raises(TypeError, match="a Trace with a tuple of values"):
            commit(A, trace)


def test_shapes_are_listed_with_their_dtype():
    layout = Layout.of(np.float32(1), Trace(values=(A,)))
    assert [str(tensor) for tensor in layout.tensors] == ["float32[6, 8]", "float32[]"]


def test_leaves_begin_anew_with_every_group():
    value = np.arange(2 * 3 * 7 * 4, dtype=np.float32).reshape(2, 3, 7, 4)
    plain = Layout.of(A, Trace(values=(value, A)))
    layout = plain.in_groups({0: (3, 7)})
    assert [layout.tensors[0].rows_of(i) for i in range(4)] == [(0, 3), (3, 6), (6, 7), (7, 10)]
    assert layout.tensors[0].leaves == 6 * 3
    assert layout.size == plain.size - plain.tensors[0].leaves + 18
    for leaf in range(layout.size):
        place = layout.rows_of(leaf)
        rows = range(place.start, place.stop)
        assert {layout.leaf(place.tensor, row) for row in rows} == {leaf}
    # What is committed to are these leaves, in order.
    committed = commit(A, Trace(values=(value, A)), layout=layout)
    opened = committed.open_all()
    joined = b"".join(opened.leaves[: layout.tensors[0].leaves])
    assert joined == bytes(tensor_bytes(value))
    assert [len(x) // 16 for x in opened.leaves[:3]] == [3, 3, 1]
    assert root_from_leaf_data(opened.leaves) == committed.commitment.root
    verify(committed.commitment, A, Trace(values=(value, A)), layout=layout)
    assert committed.commitment != commit(A, Trace(values=(value, A))).commitment
    with pytest.raises(ValueError, match="another program"):
        commit(A, Trace(values=(value[:1], A)), layout=layout)
