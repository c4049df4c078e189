"""Commitments: the root of the definition, every changed bit, and a table of cheats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.traces import (
    FLAG,
    HONEST,
    A,
    B,
    Run,
    Y,
    example,
    leaves_of,
    root_of,
    runs,
)
from verifiable.errors import CommitmentMismatch, MalformedEncoding, VerificationError
from verifiable.trace import Commitment, Trace, commit, verify


@settings(deadline=None)
@given(runs())
def test_commitment_is_that_of_the_definition(run: Run):
    leaves = [data for _, _, data in leaves_of(run)]
    assert run.commit().commitment == Commitment(root=root_of(leaves), size=len(leaves))


@settings(deadline=None)
@given(runs(), st.data())
def test_every_single_bit_change_of_a_trace_fails(run: Run, data: Any):
    committed = run.commit()
    i = committed.layout.rows_of(data.draw(st.integers(0, committed.layout.size - 1))).tensor
    tensors = [np.array(tensor) for tensor in run.tensors]
    changed = tensors[i].reshape(-1).view(np.uint8)
    tensors[i] = changed.view(tensors[i].dtype).reshape(tensors[i].shape)
    limit = 0 if tensors[i].dtype == np.bool_ else 7
    changed[data.draw(st.integers(0, changed.size - 1))] ^= 1 << data.draw(st.integers(0, limit))
    n = len(run.trace.values)
    y = jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(run.y), tensors[n:])
    with pytest.raises(CommitmentMismatch):
        verify(committed.commitment, y, Trace(values=tuple(tensors[:n])), layout=committed.layout)


def test_jax_and_numpy_arrays_commit_alike():
    y, claims = example()
    host = jax.tree_util.tree_map(np.asarray, (y, claims))
    assert commit(y, claims).commitment == commit(*host).commitment


def test_hashing_reads_arrays_where_they_are():
    y, claims = example()
    committed = commit(y, claims)
    for data, tensor in zip(committed.tensors, [*claims.values, *y.values()][:2], strict=False):
        assert np.shares_memory(np.asarray(data), np.asarray(tensor))


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 700])
def test_threads_hash_what_one_would(rows: int, monkeypatch: pytest.MonkeyPatch):
    claims = np.random.default_rng(0).integers(0, 256, (rows, 1 << 14), np.uint8)
    committed = commit((), Trace(values=(claims,)), leaf_bytes=1 << 14)
    assert committed.tree.root == root_of([row.tobytes() for row in claims])
    for cores in (None, 1, 7):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        again = commit((), Trace(values=(claims,)), leaf_bytes=1 << 14)
        assert again.commitment == committed.commitment


def claims(*tensors: Any) -> Trace:
    return Trace(values=tensors)


def first_element(bits: int) -> Trace:
    tensor = A.copy()
    tensor.view(np.uint32)[0, 0] = bits
    return claims(tensor, B)


@dataclass(frozen=True)
class TraceCheat:
    """What a prover sends in place of an honest answer or trace."""

    name: str
    expect: type[VerificationError]
    trace: Any = HONEST.trace
    y: Any = field(default_factory=lambda: Y)

    def __str__(self) -> str:
        return self.name


MISMATCH, MALFORMED = CommitmentMismatch, MalformedEncoding
NOT_BOOLEAN = np.array([[2, 0, 1]], np.uint8).view(np.bool_)

TRACE_CHEATS = [
    TraceCheat("claim missing", MALFORMED, claims(A)),
    TraceCheat("extra claim", MALFORMED, claims(A, B, A)),
    TraceCheat("extra empty claim", MALFORMED, claims(A, B, A[:0])),
    TraceCheat("claims reordered", MALFORMED, claims(B, A)),
    TraceCheat("claim repeated", MALFORMED, claims(A, A)),
    TraceCheat("no claims", MALFORMED, claims()),
    TraceCheat("claim moved to the answer", MALFORMED, claims(A), [B, FLAG, A[3:]]),
    TraceCheat("answer moved to the claims", MALFORMED, claims(A, B, FLAG, A[3:]), ()),
    TraceCheat("answer missing", MALFORMED, y={"a": FLAG}),
    TraceCheat("empty trace", MALFORMED, claims(), ()),
    TraceCheat("same bytes, other shape", MALFORMED, claims(A.reshape(3, 2, 8), B)),
    TraceCheat("same bytes, other rows", MALFORMED, claims(A.reshape(12, 4), B)),
    TraceCheat("same bytes, other dtype", MALFORMED, claims(A.view(np.int32), B)),
    TraceCheat("same bytes, other width", MALFORMED, claims(A.view(np.float16), B)),
    TraceCheat("same values, other dtype", MALFORMED, claims(A.astype(np.float64), B)),
    TraceCheat("same bytes, other byte order", MISMATCH, claims(A.view(">f4"), B)),
    TraceCheat("same bytes, transposed", MISMATCH, claims(A.reshape(8, 6).T, B)),
    TraceCheat("negative zero", MISMATCH, first_element(0x80000000)),
    TraceCheat("NaN", MISMATCH, first_element(0x7FC00000)),
    TraceCheat("infinity", MISMATCH, first_element(0x7F800000)),
    TraceCheat("one element", MISMATCH, claims(A + np.eye(6, 8, 7, "f4"), B)),
    TraceCheat("rows swapped", MISMATCH, claims(A[::-1], B)),
    TraceCheat("other answer, honest trace", MISMATCH, y={"a": ~FLAG, "b": A[3:]}),
    TraceCheat("boolean that is 2", MALFORMED, y={"a": NOT_BOOLEAN, "b": A[3:]}),
    TraceCheat("null", MALFORMED, None),
    TraceCheat("claims without a trace", MALFORMED, (A, B)),
    TraceCheat("trace of null", MALFORMED, Trace(values=cast("Any", None))),
    TraceCheat("claims in one array", MALFORMED, Trace(values=cast("Any", A))),
    TraceCheat("claim that is a list", MALFORMED, claims(A.tolist(), B)),
    TraceCheat("claim that is null", MALFORMED, claims(None, B)),
    TraceCheat("claim that is a number", MALFORMED, claims(1.0, B)),
    TraceCheat("claim of objects", MALFORMED, claims(A.astype(object), B)),
    TraceCheat("claim of dates", MALFORMED, claims(A.astype("datetime64[s]"), B)),
    TraceCheat("claim of random keys", MALFORMED, claims(jax.random.key(0), B)),
    TraceCheat("claim that is only a shape", MALFORMED, claims(jax.eval_shape(lambda: A), B)),
    TraceCheat("answer that is text", MALFORMED, y="42"),
    TraceCheat("answer of unsortable keys", MALFORMED, y={1: FLAG, "b": A[3:]}),
    TraceCheat("answer in a list", MALFORMED, y=[FLAG, A[3:]]),
    TraceCheat("answer under another name", MALFORMED, y={"a": FLAG, "c": A[3:]}),
]


@pytest.mark.parametrize("cheat", TRACE_CHEATS, ids=str)
def test_trace_cheat(cheat: TraceCheat):
    committed = HONEST.commit()
    verify(committed.commitment, Y, HONEST.trace, layout=committed.layout)
    with pytest.raises(cheat.expect):
        verify(committed.commitment, cheat.y, cheat.trace, layout=committed.layout)


def test_nan_payloads_are_told_apart():
    nans = (0x7FC00000, 0x7FC00001, 0x7F800001, 0xFFC00000)
    assert len({commit((), first_element(bits)).commitment.root for bits in nans}) == 4


def test_a_mismatch_carries_both_sides():
    committed = HONEST.commit()
    other = commit((), HONEST.trace, leaf_bytes=32).commitment
    with pytest.raises(CommitmentMismatch) as caught:
        verify(other, Y, HONEST.trace, layout=committed.layout)
    assert caught.value.expected == (other.root, other.size)
    assert caught.value.computed == (committed.tree.root, 12)


def test_a_misfit_names_the_tensor_and_both_sides():
    committed = HONEST.commit()
    with pytest.raises(MalformedEncoding, match=r"claim 1 is int16\[2, 16\], .* int16\[4, 8\]"):
        verify(
            committed.commitment,
            Y,
            Trace(values=(A, B.reshape(2, 16))),
            layout=committed.layout,
        )
    with pytest.raises(MalformedEncoding, match="the trace has 1 claims, the program has 2"):
        verify(committed.commitment, Y, Trace(values=(A,)), layout=committed.layout)


@pytest.mark.parametrize(
    ("root", "size"),
    [
        *((bytes(n), 1) for n in (0, 31, 33)),
        *((root, 1) for root in (None, "x" * 32, bytearray(32), [0] * 32)),
        pytest.param(bytes(32), 10**4999, id="5,000 digits"),
        *((bytes(32), size) for size in (0, -1, 2**64, True, 1.0, "1", None)),
    ],
)
def test_a_malformed_commitment_cannot_be_built(root: Any, size: Any):
    with pytest.raises(MalformedEncoding):
        Commitment(root=root, size=size)


@pytest.mark.parametrize("name", ["commitment", "layout"])
def test_swapped_arguments_are_named(name: str):
    arguments: dict[str, Any] = {
        "commitment": HONEST.commit().commitment,
        "y": Y,
        "trace": HONEST.trace,
        "layout": HONEST.layout,
    }
    with pytest.raises(TypeError, match=f"{name} must be a {name.capitalize()}, got dict"):
        verify(**(arguments | {name: Y}))
