"""Traces as bytes: one encoding for each trace, and no other bytes decode."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.traces import FLAG, HONEST, A, Run, Y, example, runs
from verifiable.encoding import tensor_bytes
from verifiable.errors import MalformedEncoding
from verifiable.trace import (
    MAGIC,
    Layout,
    Trace,
    commit,
    decode,
    encode,
    encoded_size,
    verify,
)

DATA = encode(HONEST.y, HONEST.trace)


def same_bits(a: Any, b: Any) -> bool:
    """Whether two pytrees are equal in structure, dtype, shape and bits."""
    leaves, others = jax.tree_util.tree_leaves(a), jax.tree_util.tree_leaves(b)
    return jax.tree_util.tree_structure(a) == jax.tree_util.tree_structure(b) and all(
        (x.dtype, x.shape, bytes(tensor_bytes(x))) == (y.dtype, y.shape, bytes(tensor_bytes(y)))
        for x, y in zip(leaves, others, strict=True)
    )


@settings(deadline=None)
@given(runs())
def test_every_trace_survives_its_encoding(run: Run):
    data = encode(run.y, run.trace)
    y, trace = decode(data, run.layout)
    assert same_bits((y, trace), (run.y, run.trace))
    assert encode(y, trace) == data
    assert len(data) == encoded_size(run.layout)
    verify(run.commit().commitment, y, trace, layout=run.layout)


def test_the_encoding_is_the_header_and_the_bytes_of_each_tensor():
    tensors = [*HONEST.trace.values, FLAG, A[3:]]
    assert MAGIC + b"".join(x.astype(x.dtype.newbyteorder("<")).tobytes() for x in tensors) == DATA
    assert b"verifiable trace 1" + bytes(14) == MAGIC


def test_types_that_numpy_lacks_empty_tensors_and_scalars_survive():
    y, trace = example()
    decoded = decode(encode(y, trace), Layout.of(y, trace))
    assert same_bits(decoded, (y, trace))
    assert decoded[0]["label"].shape == ()
    assert decoded[1].values[1].dtype == jnp.bfloat16
    assert decoded[1].values[2].shape == (3, 0)


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FC00001, 0x7F800001, 0xFFC00000, 0x80000000])
def test_payloads_of_nan_and_signs_of_zero_survive(bits: int):
    y = np.array([bits], np.uint32).view(np.float32)
    decoded, _ = decode(encode(y, Trace(values=())), Layout.of(y, Trace(values=())))
    assert decoded.view(np.uint32) == [bits]


def test_jax_computes_with_decoded_arrays_at_any_offset():
    flag, values = np.array([True]), np.arange(1000, dtype=np.float32)
    layout = Layout.of(values, Trace(values=(flag,)))
    decoded, _ = decode(encode(values, Trace(values=(flag,))), layout)
    assert not decoded.flags.aligned
    np.testing.assert_array_equal(jax.jit(lambda x: x * 2)(decoded), values * 2)


def test_decoded_arrays_are_over_the_message_and_read_only():
    y, trace = decode(DATA, HONEST.layout)
    for array in (*trace.values, *y.values()):
        assert np.shares_memory(array, np.frombuffer(DATA, np.uint8))
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_the_layout_decides_how_many_bytes_are_read():
    """The same bytes under the layout of another program are another trace, or none."""
    other = Layout.of(Y, Trace(values=(A.view(np.int32), HONEST.trace.values[1])))
    _, trace = decode(DATA, other)
    assert trace.values[0].dtype == np.int32
    for layout in (Layout.of(Y, Trace(values=(A,))), Layout.of((), HONEST.trace)):
        with pytest.raises(MalformedEncoding, match=f"has {len(DATA)} bytes, the program needs"):
            decode(DATA, layout)


# Hostile bytes.


def test_every_single_bit_change_of_the_header_is_refused():
    for bit in range(8 * len(MAGIC)):
        changed = bytearray(DATA)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(MalformedEncoding, match="header"):
            decode(bytes(changed), HONEST.layout)


def test_every_other_length_is_refused():
    longer = DATA + bytes(len(DATA))
    for length in range(len(longer)):
        if length != len(DATA):
            with pytest.raises(MalformedEncoding, match=f"has {length} bytes, the program needs"):
                decode(longer[:length], HONEST.layout)


def test_lengths_are_compared_before_anything_is_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "verifiable.trace.wire.tensor_from_bytes", lambda *_: pytest.fail("read a tensor")
    )
    huge = Layout.of(jax.ShapeDtypeStruct((2**40,), np.float32), HONEST.trace)
    for data, layout in ((DATA[:-1], HONEST.layout), (DATA, huge), (b"", HONEST.layout)):
        with pytest.raises(MalformedEncoding):
            decode(data, layout)


@pytest.mark.parametrize("byte", [2, 3, 128, 255])
def test_a_boolean_is_0_or_1(byte: int):
    for i in range(FLAG.size):
        changed = bytearray(DATA)
        changed[-A[3:].nbytes - FLAG.size + i] = byte
        with pytest.raises(MalformedEncoding, match="boolean"):
            decode(bytes(changed), HONEST.layout)


def test_tensors_in_another_order_are_another_trace():
    """Of equal shapes the bytes fit: the commitment tells them apart."""
    a, b = A, A + 1
    layout = Layout.of((), Trace(values=(a, b)))
    commitment = commit((), Trace(values=(a, b))).commitment
    y, trace = decode(encode((), Trace(values=(b, a))), layout)
    with pytest.raises(Exception, match="was committed"):
        verify(commitment, y, trace, layout=layout)


@settings(deadline=None)
@given(run=runs(), data=st.data())
def test_any_bytes_decode_to_what_encodes_to_them_or_are_malformed(run: Run, data: Any):
    size = encoded_size(run.layout) - len(MAGIC)
    body = data.draw(st.binary(min_size=size, max_size=size) | st.binary(max_size=2 * size))
    sent = data.draw(st.sampled_from([MAGIC, MAGIC[:-1], b"", MAGIC + b"\0"])) + body
    try:
        y, trace = decode(sent, run.layout)
    except MalformedEncoding:
        return
    assert encode(y, trace) == sent


# The caller's own mistakes.


@pytest.mark.parametrize("data", [None, "x" * len(DATA), [0]])
def test_data_is_bytes(data: Any):
    with pytest.raises(TypeError, match="data must be bytes"):
        decode(data, HONEST.layout)


def test_arguments_in_the_wrong_order_are_named():
    with pytest.raises(TypeError, match=r"data must be bytes, .*, got Layout"):
        decode(HONEST.layout, DATA)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="layout must be a Layout, got Trace"):
        decode(DATA, HONEST.trace)  # type: ignore[arg-type]


def test_only_what_can_be_committed_to_is_encoded():
    not_boolean = np.array([2], np.uint8).view(np.bool_)
    with pytest.raises(ValueError, match="boolean"):
        encode(not_boolean, Trace(values=()))
    with pytest.raises(ValueError, match="without elements"):
        encode((), Trace(values=()))
    with pytest.raises(TypeError, match="Trace"):
        encode(Y, (A,))  # type: ignore[arg-type]
