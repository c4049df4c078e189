"""Canonical bytes of tensors: element by element, whatever the layout in memory, and back."""

from __future__ import annotations

import struct
import sys
from typing import Any

import hypothesis.extra.numpy as npst
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiable.encoding import tensor_bytes, tensor_from_bytes
from verifiable.errors import MalformedEncoding

FORMATS = {
    "bool": "?",
    "int8": "b",
    "uint8": "B",
    "int16": "<h",
    "uint16": "<H",
    "int32": "<i",
    "uint32": "<I",
    "int64": "<q",
    "uint64": "<Q",
    "float16": "<e",
    "float32": "<f",
    "float64": "<d",
}
arrays = npst.arrays(
    st.sampled_from(sorted(FORMATS)), npst.array_shapes(min_dims=0, max_dims=4, min_side=0)
)


def finite(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array without NaN, whose payload Python's floats need not keep."""
    return (
        np.where(np.isnan(array), array.dtype.type(0), array) if array.dtype.kind == "f" else array
    )


def test_tensors_are_of_bytes_that_nobody_changes():
    """Views of bytes are read where they are; what may change is copied first."""
    data, changing = bytes(range(8)), bytearray(range(8))
    for buffer in (data, memoryview(data), memoryview(data)[:]):
        array = tensor_from_bytes(buffer, shape=(2,), dtype=np.float32)
        assert np.shares_memory(array, np.frombuffer(data, np.uint8))
    for buffer in (changing, memoryview(changing)):
        array = tensor_from_bytes(buffer, shape=(8,), dtype=np.uint8)
        changing[3] = 99
        assert array.tolist() == list(range(8))
        changing[3] = 3
    for view in (memoryview(data).cast("I"), memoryview(changing).cast("I")):
        assert tensor_from_bytes(view, (8,), np.uint8).tolist() == list(range(8))
    for view in (memoryview(data)[::2], memoryview(changing)[::2]):
        with pytest.raises(TypeError, match="contiguous"):
            tensor_from_bytes(view, (4,), np.uint8)


@settings(deadline=None)
@given(arrays)
def test_bytes_of_each_element_in_c_order_little_endian(array: np.ndarray[Any, Any]):
    array = finite(array)
    packed = b"".join(struct.pack(FORMATS[array.dtype.name], x) for x in array.flatten().tolist())
    assert tensor_bytes(array) == packed


@settings(deadline=None)
@given(arrays, st.data())
def test_bytes_do_not_depend_on_how_memory_is_laid_out(array: np.ndarray[Any, Any], data: Any):
    expected = bytes(tensor_bytes(array))
    assert tensor_bytes(np.asfortranarray(array)) == expected
    assert tensor_bytes(array.astype(array.dtype.newbyteorder(">"))) == expected
    axes = data.draw(st.permutations(range(array.ndim)))
    assert tensor_bytes(array.transpose(axes).copy().transpose(np.argsort(axes))) == expected
    if array.ndim:
        assert tensor_bytes(array[::-1].copy()[::-1]) == expected
        assert tensor_bytes(np.repeat(array, 2, axis=0)[::2]) == expected


@settings(deadline=None)
@given(arrays)
def test_tensor_from_bytes_inverts_tensor_bytes(array: np.ndarray[Any, Any]):
    back = tensor_from_bytes(bytes(tensor_bytes(array)), array.shape, array.dtype)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert not back.flags.writeable


@pytest.mark.parametrize("dtype", ["<u2", "<f4", "<i8"])
def test_machines_that_store_the_high_byte_first_read_the_same_numbers(
    dtype: str, monkeypatch: pytest.MonkeyPatch
):
    data = bytes(range(16))
    here = tensor_from_bytes(data, (-1 % 2, 16 // np.dtype(dtype).itemsize), dtype)
    monkeypatch.setattr(sys, "byteorder", "big")
    there = tensor_from_bytes(data, here.shape, dtype)
    # Numbers of this machine whose bytes are those that the other one holds.
    assert there.tobytes() == here.byteswap().tobytes()
    assert bytes(tensor_bytes(there)) == data
    assert not there.flags.writeable


def test_bfloat16_is_the_upper_half_of_float32():
    array = jnp.asarray([1.0, -2.5, 3e38], jnp.bfloat16)
    packed = b"".join(struct.pack("<f", float(x))[2:] for x in array)
    assert tensor_bytes(array) == packed
    back = tensor_from_bytes(packed, (3,), jnp.bfloat16)
    assert (back == np.asarray(array)).all()


def test_complex_is_real_then_imaginary():
    assert tensor_bytes(np.array([1 + 2j], np.complex64)) == struct.pack("<ff", 1, 2)
    assert tensor_bytes(np.array([1 + 2j], ">c16")) == struct.pack("<dd", 1, 2)


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.bool_, ml_dtypes.float8_e4m3fn])
def test_nothing_is_copied(make: Any, dtype: Any):
    array = make(np.ones((3, 5), np.float32).astype(dtype))
    assert np.shares_memory(np.asarray(tensor_bytes(array)), np.asarray(array))


def test_zeros_and_nans_keep_their_bits():
    same_values = [np.float32(0), np.float32(-0.0)]
    nans = [np.uint32(bits).view(np.float32) for bits in (0x7FC00000, 0x7FC00001, 0xFFC00000)]
    assert len({bytes(tensor_bytes(x)) for x in same_values + nans}) == 5


@pytest.mark.parametrize(
    "array",
    [
        np.array([None]),
        np.array(["a"]),
        np.array([b"a"]),
        np.array(["2026-01-01"], "datetime64[D]"),
        np.zeros(2, [("x", "f4")]),
        np.zeros(2, "V4"),
        np.zeros(2, ml_dtypes.int4),
        np.zeros(2, ml_dtypes.float4_e2m1fn),
        np.zeros(2, np.longdouble),
    ],
    ids=lambda array: array.dtype.name,
)
def test_dtypes_without_canonical_bytes(array: np.ndarray[Any, Any]):
    with pytest.raises(TypeError, match="no canonical bytes"):
        tensor_bytes(array)
    with pytest.raises(TypeError, match="no canonical bytes"):
        tensor_from_bytes(b"", (0,), array.dtype)


@pytest.mark.parametrize("value", [1.0, [1.0], None, "a", object()])
def test_only_arrays_are_tensors(value: Any):
    with pytest.raises(TypeError, match="expected a numpy or jax array"):
        tensor_bytes(value)


def test_a_boolean_is_0_or_1():
    with pytest.raises(ValueError, match="only bytes 0 and 1"):
        tensor_bytes(np.array([0, 2], np.uint8).view(np.bool_))
    with pytest.raises(MalformedEncoding, match="only bytes 0 and 1"):
        tensor_from_bytes(b"\x00\x02", (2,), np.bool_)


@pytest.mark.parametrize("size", [0, 23, 25, 48])
def test_bytes_of_the_wrong_length(size: int):
    with pytest.raises(MalformedEncoding, match=rf"float32\[2, 3\] takes 24 bytes, got {size}"):
        tensor_from_bytes(bytes(size), (2, 3), np.float32)
