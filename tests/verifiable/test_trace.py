"""Traces: commit, open and verify, against a layout worked out row by row, and hostile openings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import hypothesis.extra.numpy as npst
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blake3 import blake3
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from verifiable import merkle, trace
from verifiable.encoding import tagged_hash
from verifiable.errors import (
    CommitmentMismatch,
    MalformedEncoding,
    MalformedProof,
    RootMismatch,
    VerificationError,
)
from verifiable.trace import Commitment, Layout, Opening, Trace, commit, verify, verify_opening

DTYPES = ["bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64", "complex64"]

arrays = npst.arrays(
    st.sampled_from(DTYPES), npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
)


@dataclass(frozen=True)
class Run:
    """What a device has: an answer and a trace, with the size of leaves."""

    y: Any
    trace: Trace
    leaf_bytes: int

    @property
    def tensors(self) -> list[Any]:
        return [*self.trace.values, *jax.tree_util.tree_leaves(self.y)]

    def commit(self) -> trace.Committed:
        return commit(self.y, self.trace, leaf_bytes=self.leaf_bytes)


@st.composite
def runs(draw: st.DrawFn) -> Run:
    claims = tuple(draw(st.lists(arrays, max_size=4)))
    y = draw(st.lists(arrays, max_size=2) | st.fixed_dictionaries({"b": arrays, "a": arrays}))
    run = Run(y=y, trace=Trace(values=claims), leaf_bytes=draw(st.integers(1, 64)))
    assume(any(tensor.size for tensor in run.tensors))
    return run


# The slow oracle: rows are gathered one by one, and the tree hashed as it is defined.


def blocks(run: Run) -> list[tuple[int, int, bytes]]:
    """(tensor, first row, bytes) of each leaf."""
    found: list[tuple[int, int, bytes]] = []
    for number, tensor in enumerate(run.tensors):
        array = np.asarray(tensor)
        if not array.size:
            continue
        first, block = 0, b""
        for index, row in enumerate(array.reshape(-1, array.shape[-1] if array.ndim else 1)):
            if block and len(block) + row.nbytes > run.leaf_bytes:
                found.append((number, first, block))
                first, block = index, b""
            block += row.astype(row.dtype.newbyteorder("<")).tobytes()
        found.append((number, first, block))
    return found


def root_of(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return blake3(leaves[0], key=tagged_hash("merkle leaf")).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    pair = root_of(leaves[:k]) + root_of(leaves[k:])
    return blake3(pair, key=tagged_hash("merkle node")).digest()


@settings(deadline=None)
@given(runs())
def test_commitment_is_that_of_the_definition(run: Run):
    leaves = [data for _, _, data in blocks(run)]
    assert run.commit().commitment == Commitment(root=root_of(leaves), size=len(leaves))


@settings(deadline=None)
@given(runs())
def test_layout_says_which_rows_a_leaf_holds(run: Run):
    layout = Layout.of(run.y, run.trace, leaf_bytes=run.leaf_bytes)
    expected = blocks(run)
    assert layout.size == len(expected)
    for leaf, (tensor, start, data) in enumerate(expected):
        block = layout.block(leaf)
        rows = len(data) // layout.tensors[tensor].row_bytes
        assert (block.tensor, block.start, block.stop) == (tensor, start, start + rows)
        for row in range(block.start, block.stop):
            assert layout.leaf(tensor, row) == leaf


@settings(deadline=None)
@given(runs())
def test_layout_of_shapes_is_that_of_arrays(run: Run):
    y, claims = jax.tree_util.tree_map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (run.y, run.trace)
    )
    layout = Layout.of(y, claims, leaf_bytes=run.leaf_bytes)
    assert layout == Layout.of(run.y, run.trace, leaf_bytes=run.leaf_bytes)
    assert layout == run.commit().layout


@settings(deadline=None)
@given(runs(), st.data())
def test_every_opening_of_every_trace_verifies(run: Run, data: Any):
    committed = run.commit()
    layout = committed.layout
    verify(committed.commitment, run.y, run.trace, layout=layout)
    everything = verify_opening(
        committed.commitment, layout, committed.open_all(), indices=range(layout.size)
    )
    indices = sorted(data.draw(st.sets(st.integers(0, layout.size - 1), min_size=1)))
    some = verify_opening(committed.commitment, layout, committed.open(indices), indices=indices)
    for i, opened in zip([*range(layout.size), *indices], everything + some, strict=True):
        assert opened.block == layout.block(i)
        tensor = np.asarray(run.tensors[opened.block.tensor])
        rows = tensor.reshape(layout.tensors[opened.block.tensor].rows, -1)
        expected = rows[opened.block.start : opened.block.stop]
        assert opened.rows.dtype == tensor.dtype
        assert opened.rows.shape == expected.shape
        assert opened.rows.tobytes() == expected.tobytes()


@settings(deadline=None)
@given(runs(), st.data())
def test_every_single_bit_change_of_an_opening_fails(run: Run, data: Any):
    committed = run.commit()
    layout, commitment = committed.layout, committed.commitment
    indices = sorted(data.draw(st.sets(st.integers(0, layout.size - 1), min_size=1)))
    opening = committed.open(indices)
    message = [*opening.leaves, *opening.proof, commitment.root]
    at = data.draw(st.integers(0, len(message) - 1))
    bit = data.draw(st.integers(0, 8 * len(message[at]) - 1))
    flipped = int.from_bytes(message[at], "little") ^ 1 << bit
    message[at] = flipped.to_bytes(len(message[at]), "little")
    n = len(indices)
    changed = Opening(leaves=tuple(message[:n]), proof=tuple(message[n:-1]))
    with pytest.raises((RootMismatch, MalformedEncoding)):
        verify_opening(replace(commitment, root=message[-1]), layout, changed, indices=indices)


@settings(deadline=None)
@given(runs(), st.data())
def test_every_single_bit_change_of_a_trace_fails(run: Run, data: Any):
    committed = run.commit()
    block = committed.layout.block(data.draw(st.integers(0, committed.layout.size - 1)))
    tensors = [np.array(tensor) for tensor in run.tensors]
    changed = tensors[block.tensor].reshape(-1).view(np.uint8)
    tensors[block.tensor] = changed.view(tensors[block.tensor].dtype).reshape(
        tensors[block.tensor].shape
    )
    limit = 0 if tensors[block.tensor].dtype == np.bool_ else 7
    changed[data.draw(st.integers(0, changed.size - 1))] ^= 1 << data.draw(st.integers(0, limit))
    n = len(run.trace.values)
    y = jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(run.y), tensors[n:])
    with pytest.raises(CommitmentMismatch):
        verify(committed.commitment, y, Trace(values=tuple(tensors[:n])), layout=committed.layout)


# JAX.


def example() -> tuple[Any, Trace]:
    key = np.random.default_rng(0)
    claims = (
        jnp.asarray(key.standard_normal((6, 8)), jnp.float32),
        jnp.asarray(key.standard_normal((2, 3, 8)), jnp.bfloat16),
        jnp.zeros((3, 0), jnp.float32),
        jnp.arange(10, dtype=jnp.int32),
        jnp.asarray(key.standard_normal((4, 4)), jnp.float8_e4m3fn),
    )
    return {"logits": jnp.ones((2, 5)), "label": jnp.int32(3)}, Trace(values=claims)


def test_jax_and_numpy_arrays_commit_alike():
    y, claims = example()
    host = jax.tree_util.tree_map(np.asarray, (y, claims))
    assert commit(y, claims).commitment == commit(*host).commitment


def test_a_trace_is_a_pytree():
    y, claims = example()
    again = jax.jit(lambda trace: trace)(claims)
    assert isinstance(again, Trace)
    verify(commit(y, claims).commitment, y, again)
    shapes = jax.eval_shape(lambda: (y, claims))
    assert Layout.of(*shapes) == Layout.of(y, claims)


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
        monkeypatch.setattr(trace.os, "cpu_count", lambda cores=cores: cores)
        again = commit((), Trace(values=(claims,)), leaf_bytes=1 << 14)
        assert again.commitment == committed.commitment


def test_layout_of_the_default_leaf():
    claims = (
        jax.ShapeDtypeStruct((128, 2048), jnp.float32),
        jax.ShapeDtypeStruct((2, 40_000), jnp.float32),
        jax.ShapeDtypeStruct((0, 4), jnp.float32),
        jax.ShapeDtypeStruct((), jnp.float32),
    )
    layout = Layout.of((), Trace(values=claims))
    assert [tensor.leaf_rows for tensor in layout.tensors] == [8, 1, 4096, 16384]
    assert [tensor.leaves for tensor in layout.tensors] == [16, 2, 0, 1]
    assert layout.size == 19
    assert [layout.block(i).tensor for i in (15, 16, 17, 18)] == [0, 1, 1, 3]


# Cheats. The honest device has 12 leaves: rows of A, pairs of rows of B, then the answer.

A, B = np.arange(48, dtype=np.float32).reshape(6, 8), -np.arange(32, dtype=np.int16).reshape(4, 8)
FLAG = np.array([[True, False, True]])
Y = {"a": FLAG, "b": A[3:]}
HONEST = Run(y=Y, trace=Trace(values=(A, B)), leaf_bytes=32)
ASKED = [0, 6, 9]


@dataclass(frozen=True)
class Cheat:
    """What a prover sends in place of an honest commitment or opening."""

    name: str
    expect: type[VerificationError]
    tamper: Callable[[Commitment, Opening], tuple[Any, Any]]

    def __str__(self) -> str:
        return self.name


def leaves(edit: Callable[[tuple[bytes, ...]], Any]) -> Callable[..., tuple[Any, Any]]:
    return lambda commitment, opening: (commitment, replace(opening, leaves=edit(opening.leaves)))


def leaf(at: int, edit: Callable[[Any], Any]) -> Callable[..., tuple[Any, Any]]:
    return leaves(lambda x: (*x[:at], edit(x[at]), *x[at + 1 :]))


def proof(edit: Callable[[tuple[bytes, ...]], Any]) -> Callable[..., tuple[Any, Any]]:
    return lambda commitment, opening: (commitment, replace(opening, proof=edit(opening.proof)))


def reopened(*indices: int) -> Callable[..., tuple[Any, Any]]:
    return lambda commitment, opening: (commitment, HONEST.commit().open(indices))


def inner_node(x: bytes) -> bytes:
    """The 64 bytes whose node hash is the parent of leaves 0 and 1, where a leaf of 32 is due."""
    tree = HONEST.commit().tree
    return tree.subtree_root(0, 1) + tree.subtree_root(1, 2)


def committed_to(**fields: Any) -> Callable[..., tuple[Any, Any]]:
    return lambda commitment, opening: (replace(commitment, **fields), opening)


OPENING_CHEATS = [
    Cheat("leaf missing", MalformedProof, leaves(lambda x: x[:-1])),
    Cheat("extra leaf", MalformedProof, leaves(lambda x: (*x, x[0]))),
    Cheat("null opening", MalformedProof, lambda commitment, opening: (commitment, None)),
    Cheat("no leaves", MalformedProof, leaves(lambda x: ())),
    Cheat("null leaves", MalformedProof, leaves(lambda x: None)),
    Cheat("leaves as one byte string", MalformedProof, leaves(b"".join)),
    Cheat("leaves as a map", MalformedProof, leaves(lambda x: dict.fromkeys(x, b""))),
    Cheat("leaves reordered", RootMismatch, leaves(lambda x: (x[1], x[0], x[2]))),
    Cheat("leaf repeated", RootMismatch, leaves(lambda x: (x[0], x[0], x[2]))),
    Cheat("leaf that is null", MalformedEncoding, leaf(0, lambda x: None)),
    Cheat("leaf that is text", MalformedEncoding, leaf(0, lambda x: "x" * 32)),
    Cheat("leaf that is an array", MalformedEncoding, leaf(0, lambda x: np.zeros(32, np.uint8))),
    Cheat("leaf truncated", MalformedEncoding, leaf(2, lambda x: x[:-1])),
    Cheat("leaf without its second row", MalformedEncoding, leaf(1, lambda x: x[:16])),
    Cheat("leaf padded with zeros", MalformedEncoding, leaf(1, lambda x: x + bytes(16))),
    Cheat("empty leaf", MalformedEncoding, leaf(2, lambda x: b"")),
    Cheat("leaf of 100 MB", MalformedEncoding, leaf(2, lambda x: bytes(10**8))),
    Cheat(
        "byte moved to the next leaf",
        MalformedEncoding,
        leaves(lambda x: (x[0][:-1], x[0][-1:] + x[1], x[2])),
    ),
    Cheat("inner node as a leaf", MalformedEncoding, leaf(0, inner_node)),
    Cheat("digest as a leaf", RootMismatch, leaf(0, merkle.BLAKE3.leaf)),
    Cheat(
        "leaf in the other byte order",
        RootMismatch,
        leaf(0, lambda x: np.frombuffer(x, "<u4").byteswap().tobytes()),
    ),
    Cheat(
        "leaf transposed",
        RootMismatch,
        leaf(1, lambda x: np.frombuffer(x, "<i2").reshape(2, 8).T.tobytes()),
    ),
    Cheat("negative zero", RootMismatch, leaf(0, lambda x: b"\0\0\0\x80" + x[4:])),
    Cheat("NaN", RootMismatch, leaf(0, lambda x: b"\0\0\xc0\x7f" + x[4:])),
    Cheat("other leaves than were asked for", RootMismatch, reopened(1, 7, 10)),
    Cheat("fewer leaves than were asked for", MalformedProof, reopened(0, 6)),
    Cheat("more leaves than were asked for", MalformedProof, reopened(0, 6, 9, 10)),
    Cheat("proof missing", MalformedProof, proof(lambda x: ())),
    Cheat("null proof", MalformedProof, proof(lambda x: None)),
    Cheat("extra digest", MalformedProof, proof(lambda x: (*x, bytes(32)))),
    Cheat("digest missing", MalformedProof, proof(lambda x: x[1:])),
    Cheat("digests reordered", RootMismatch, proof(lambda x: x[::-1])),
    Cheat("commitment to fewer leaves", MalformedProof, committed_to(size=11)),
    Cheat("commitment to more leaves", MalformedProof, committed_to(size=13)),
    Cheat("commitment to 2^64 - 1 leaves", MalformedProof, committed_to(size=2**64 - 1)),
    Cheat("another commitment", RootMismatch, committed_to(root=bytes(32))),
]


@pytest.mark.parametrize("cheat", OPENING_CHEATS, ids=str)
def test_opening_cheat(cheat: Cheat):
    committed = HONEST.commit()
    opening = committed.open(ASKED)
    verify_opening(committed.commitment, committed.layout, opening, indices=ASKED)
    commitment, opening = cheat.tamper(committed.commitment, opening)
    with pytest.raises(cheat.expect):
        verify_opening(commitment, committed.layout, opening, indices=ASKED)


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
DEEP: Any = functools.reduce(lambda inner, _: [inner], range(100_000), [])

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
    TraceCheat("answer nested 100,000 deep", MALFORMED, y=DEEP),
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
    with pytest.raises(MalformedEncoding, match=r"tensor 1 .* int16\[2, 16\].* int16\[4, 8\]"):
        verify(
            committed.commitment,
            Y,
            Trace(values=(A, B.reshape(2, 16))),
            layout=committed.layout,
        )
    with pytest.raises(MalformedEncoding, match="1 claims and 2 outputs, but the program 2 and 2"):
        verify(committed.commitment, Y, Trace(values=(A,)), layout=committed.layout)


def test_sizes_are_compared_before_anything_is_hashed(monkeypatch: pytest.MonkeyPatch):
    committed = HONEST.commit()
    opening = committed.open(ASKED)
    monkeypatch.setattr(trace, "_digests", lambda leaves: pytest.fail("hashed"))
    for commitment, sent in (
        (replace(committed.commitment, size=11), opening),
        (committed.commitment, replace(opening, leaves=opening.leaves[1:])),
        (committed.commitment, replace(opening, leaves=(*opening.leaves[:2], b""))),
    ):
        with pytest.raises((MalformedProof, MalformedEncoding)):
            verify_opening(commitment, committed.layout, sent, indices=ASKED)


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


# The caller's own mistakes.


@pytest.mark.parametrize("indices", [[], [1, 1], [2, 1], [12], [-1], [1.0], [True], ["1"]])
def test_a_verifier_asks_for_leaves_that_exist(indices: Any):
    committed = HONEST.commit()
    message = "at least one leaf|not strictly increasing|not all integers within a tree of 12"
    with pytest.raises(ValueError, match=message):
        committed.open(indices)
    with pytest.raises(ValueError, match=message):
        verify_opening(
            committed.commitment, committed.layout, committed.open(ASKED), indices=indices
        )


@pytest.mark.parametrize(("tensor", "row"), [(-1, 0), (4, 0), (0, -1), (0, 6), (2, 1), (2, -1)])
def test_rows_that_do_not_exist_have_no_leaf(tensor: int, row: int):
    with pytest.raises(ValueError, match=f"row {row} is not in|tensor {tensor} is not one of 4"):
        HONEST.commit().layout.leaf(tensor, row)


def test_a_zero_size_tensor_has_no_leaf():
    layout = Layout.of(A, Trace(values=(A[:0], A[:, :0])))
    for tensor in (0, 1):
        with pytest.raises(ValueError, match="row 0 is not in"):
            layout.leaf(tensor, 0)
    assert layout.leaf(2, 0) == 0


@pytest.mark.parametrize("leaf", [-1, 12])
def test_leaves_that_do_not_exist_have_no_rows(leaf: int):
    with pytest.raises(ValueError, match="is not one of 12"):
        HONEST.commit().layout.block(leaf)


@pytest.mark.parametrize("claims", [(), (A[:0],), (A[:0], A[:, :0])])
def test_an_empty_trace_is_not_committed_to(claims: Any):
    with pytest.raises(ValueError, match="without elements"):
        commit((), Trace(values=claims))


def test_leaves_have_at_least_a_byte():
    with pytest.raises(ValueError, match="at least 1 byte"):
        commit(A, Trace(values=()), leaf_bytes=0)


@pytest.mark.parametrize("claim", [1.0, None, "a", [A], A.astype(object)])
def test_claims_are_tensors(claim: Any):
    with pytest.raises(TypeError):
        commit((), Trace(values=(claim,)))


@pytest.mark.parametrize("claims", [None, A, {"a": A}, "ab"])
def test_claims_are_in_a_tuple(claims: Any):
    with pytest.raises(TypeError, match="a Trace with a tuple of claims"):
        commit(A, Trace(values=claims))
    with pytest.raises(TypeError, match="a Trace with a tuple of claims"):
        commit(A, claims)


def test_the_tree_is_one_that_others_can_prove_from():
    committed = HONEST.commit()
    leaf = merkle.BLAKE3.leaf(A[3].tobytes())
    merkle.verify_inclusion(
        committed.tree.inclusion(3),
        leaf=leaf,
        index=committed.layout.leaf(0, 3),
        size=committed.commitment.size,
        root=committed.commitment.root,
    )
