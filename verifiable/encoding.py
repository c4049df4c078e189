"""Canonical bytes: one value, one encoding, so that a hash binds the value and nothing else.

**Messages** are CBOR under the core deterministic encoding requirements of RFC 8949, 4.2.1:
shortest heads, definite lengths, map keys in bytewise lexicographic order. The data model is
closed: null, booleans, integers in [-2^64, 2^64), finite floats, byte and text strings, arrays,
and maps from text strings, nested at most `MAX_DEPTH` deep. No tags, so no bignums, dates, shared
references or regular expressions. A float takes the shortest of 16, 32 and 64 bits that holds its
value; -0.0 differs from 0.0, and 1.0 from 1; NaN and infinities have no encoding. `decode` accepts
`data` only if `encode(decode(data)) == data`, and bounds items as well as bytes, since a value of
one byte costs as much to decode as one of a hundred.

**Received data** may be `bytes`, `bytearray` or `memoryview`, for every decoder of the library, and
is copied unless nothing can change it (`errors.received_bytes`). Any other type is the caller's
mistake, a `TypeError`, before anything is read.

**Tensors** are their elements in C order, each little-endian, without padding, shape or dtype; the
program fixes shape and dtype. A boolean is one byte, 0 or 1.

**Tagged hashes** are BLAKE3 in key-derivation mode with the context string "verifiable v1 <tag>".
The input is, for each part, its length as eight little-endian bytes and the part. Different tags
are independent functions, and no two sequences of parts give the same input.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NoReturn

import cbor2
import numpy as np
from blake3 import blake3
from jaxtyping import Shaped
from numpy.typing import DTypeLike

from verifiable.errors import MalformedEncoding, received_bytes

MAX_DEPTH: Final = 16
"""How deep arrays and maps may nest."""

MAX_ITEMS: Final = 1 << 12
"""The most items that are decoded by default: every element, key and value counts, at any depth."""

_TENSOR_DTYPES: Final = frozenset(
    {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
    | {"bool", "float16", "bfloat16", "float32", "float64", "complex64", "complex128"}
    | {"float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"}
    | {"float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"}
)
"""Dtypes without unused bits. In all others (sub-byte integers held in whole bytes, x87 floats with
padding, objects, dates) one value could have several encodings."""


_PLAIN: Final = frozenset({type(None), bool, bytes, str})
"""Types that need no check before encoding; the encoder itself refuses text that is not Unicode."""


class _NoTags(Mapping[int, Any]):
    """Refuses every tag number, so that the library never applies one of its own tag decoders."""

    def __getitem__(self, tag: int) -> NoReturn:
        raise ValueError(f"tag {tag} is not allowed")

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


_NO_TAGS: Final = _NoTags()


def encode(value: object) -> bytes:
    """Encode a value as deterministic CBOR (RFC 8949, 4.2.1).

    Args:
      value: None, bool, int, float, bytes, str, list, tuple, or dict with str keys, of exactly
        these types and nested at most `MAX_DEPTH` deep. Lists and tuples become arrays.

    Returns:
      The one encoding of the value.

    Raises:
      TypeError: a value or a key has another type.
      ValueError: a number is outside the data model, a text is not Unicode, or the value is nested
        too deep.
    """
    _require_encodable([value], MAX_DEPTH)
    # The library sorts keys by length first (RFC 7049). If all keys are text strings, this is also
    # the bytewise order of RFC 8949, because a longer string has a greater head.
    return cbor2.dumps(value, canonical=True)


def decode(
    data: bytes | bytearray | memoryview, *, max_size: int, max_items: int = MAX_ITEMS
) -> Any:
    """Decode deterministic CBOR received from a device.

    Time is linear in `max_items`, and in the size of `data` at the speed of a copy.

    Args:
      data: the bytes received.
      max_size: the most bytes of a message; longer data is refused before it is parsed.
      max_items: the most items in it, its elements, keys and values at any depth included; data
        with more is refused before any is decoded.

    Returns:
      The value, with arrays as lists.

    Raises:
      MalformedEncoding: `data` is longer than `max_size`, has more than `max_items` items, or is
        not the one encoding of a value.
      TypeError: `data` is of another type.
    """
    data = received_bytes(data, most=max_size)
    if len(data) > max_size:
        raise MalformedEncoding(f"message has more than the {max_size} bytes allowed")
    element_offsets(data, max_items=max_items)
    try:
        value = cbor2.loads(
            data,
            semantic_decoders=_NO_TAGS,
            max_depth=MAX_DEPTH,
            strict_hashable_types=True,
        )
        canonical = encode(value)
    except Exception as error:
        raise MalformedEncoding(f"message is not CBOR of the allowed kind: {error}") from error
    if canonical != data:
        raise MalformedEncoding(
            "message is not in canonical form: (a) its heads or floats are longer than needed, "
            "(b) its map keys are out of order or repeated, or (c) bytes follow its end"
        )
    return value


def element_offsets(
    data: bytes | bytearray | memoryview, *, max_items: int = MAX_ITEMS
) -> list[int]:
    """Where each element of the outermost array begins; of a map, each key and each value.

    Walks the heads and decodes nothing, so it takes less than a microsecond an item. What it
    passes over need not be well formed: `decode` says whether it is.

    Args:
      data: CBOR received from a device.
      max_items: the most items in it.

    Returns:
      One offset for each element, and last the offset at which the value ends.

    Raises:
      MalformedEncoding: more than `max_items` items, bytes missing at the end, an indefinite
        length, a tag, or arrays and maps nested more than `MAX_DEPTH` deep.
      TypeError: `data` is of another type.
    """
    data = received_bytes(data)
    offsets: list[int] = []
    around: list[int] = []  # of each array or map around, how many items are left
    left, items, at, end = 1, 0, 0, len(data)
    while left or around:
        if not left:
            left = around.pop()
            continue
        left -= 1
        if len(around) == 1:
            offsets.append(at)
        items += 1
        if items > max_items:
            raise MalformedEncoding(f"message has more than the {max_items} items allowed")
        if at >= end:
            raise MalformedEncoding("message is not CBOR of the allowed kind: bytes are missing")
        major, info = data[at] >> 5, data[at] & 31
        at += 1
        if info >= 24:
            if info >= 28:
                raise MalformedEncoding("message has an indefinite or reserved length")
            size = 1 << info - 24
            info = int.from_bytes(data[at : at + size], "big")
            at += size
        if major < 2 or major == 7:
            continue
        if major < 4:
            at += info
        elif major == 6:
            raise MalformedEncoding(
                f"message is not CBOR of the allowed kind: tag {info} is not allowed"
            )
        else:
            around.append(left)
            left = info * (major - 3)
            if len(around) > MAX_DEPTH:
                raise MalformedEncoding(f"message is nested more than {MAX_DEPTH} deep")
    if at > end:
        raise MalformedEncoding("message is not CBOR of the allowed kind: bytes are missing")
    return [*offsets, at]


def _require_encodable(items: Iterable[Any], depth: int) -> None:
    for item in items:
        # Exact types: isinstance accepts a numpy float as a float, and its dtype would be lost.
        kind = type(item)
        if kind in _PLAIN:
            continue
        if kind is int:
            if not -(2**64) <= item < 2**64:
                raise ValueError("integer must be in [-2^64, 2^64)")
        elif kind is float:
            if not math.isfinite(item):
                raise ValueError(f"a float must be finite to have a canonical encoding, got {item}")
        elif kind in {list, tuple, dict}:
            if depth == 0:
                raise ValueError(f"value must be nested at most {MAX_DEPTH} deep")
            if kind is dict:
                for key in item:
                    if type(key) is not str:
                        raise TypeError(f"map keys must be str, got {type(key).__name__}")
            _require_encodable(item.values() if kind is dict else item, depth - 1)
        else:
            raise TypeError(
                "expected None, bool, int, float, bytes, str, list, tuple or dict of exactly these "
                f"types, got {kind.__name__}"
            )


def tensor_bytes(array: Shaped[Any, "*shape"]) -> memoryview:
    """Canonical bytes of a numpy or JAX array: C order, little-endian.

    There is no copy if the array is C-contiguous, little-endian and in host memory.

    Args:
      array: any shape; a boolean, integer, float or complex dtype of whole bytes, bfloat16 and the
        8-bit floats included.

    Returns:
      A flat view of format "B" that keeps the array's memory alive.

    Raises:
      TypeError: the argument is not an array, or has another dtype.
      ValueError: a boolean array contains a byte other than 0 and 1.
    """
    if not hasattr(array, "dtype"):
        raise TypeError(f"expected a numpy or jax array, got {type(array).__name__}")
    host = np.ascontiguousarray(np.asarray(array))
    require_tensor_dtype(host.dtype)
    if host.dtype.byteorder == ">" or (host.dtype.byteorder == "=" and sys.byteorder == "big"):
        host = host.byteswap()
    flat = host.ravel().view(np.uint8)
    if host.dtype == np.bool_ and np.any(flat > 1):
        raise ValueError("a boolean array must contain only bytes 0 and 1")
    return flat.data


def tensor_from_bytes(
    data: bytes | bytearray | memoryview, shape: tuple[int, ...], dtype: DTypeLike
) -> Shaped[np.ndarray, "*shape"]:
    """Array whose `tensor_bytes` are `data`: the inverse, for bytes received from a device.

    Args:
      data: canonical tensor bytes.
      shape: shape that the program expects, never one received with the bytes.
      dtype: dtype that the program expects.

    Returns:
      A read-only array over `data`, without a copy of bytes, or of a view of bytes, on a
      little-endian machine.

    Raises:
      MalformedEncoding: the number of bytes is wrong, or a boolean is neither 0 nor 1.
      TypeError: tensors of this dtype have no canonical bytes, or `data` is of another type or not
        contiguous.
    """
    if type(data) is memoryview and type(data.obj) is bytes:
        data = data.cast("B")
    else:
        data = received_bytes(data)
    dtype = require_tensor_dtype(dtype)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise MalformedEncoding(
            f"{dtype.name}{list(shape)} takes {math.prod(shape) * dtype.itemsize} bytes, "
            f"got {len(data)}"
        )
    array = np.frombuffer(data, dtype)
    if dtype == np.bool_ and np.any(array.view(np.uint8) > 1):
        raise MalformedEncoding("a boolean tensor must contain only bytes 0 and 1")
    if sys.byteorder == "big":
        array = array.byteswap()
        array.flags.writeable = False
    return array.reshape(shape)


def require_tensor_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The numpy dtype, in native byte order, if its tensors have canonical bytes.

    Raises:
      TypeError: they have no canonical bytes.
    """
    canonical = np.dtype(dtype)
    if canonical.name not in _TENSOR_DTYPES:
        raise TypeError(f"tensors of dtype {canonical.name} have no canonical bytes")
    return canonical.newbyteorder("=")


def tagged_hash(tag: str, *parts: bytes | memoryview) -> bytes:
    """32-byte BLAKE3 of length-prefixed parts, in the domain "verifiable v1 <tag>".

    Args:
      tag: name of the kind of input; a constant in the source, never data.
      parts: hashed in order, each after its length as eight little-endian bytes.

    Returns:
      32 bytes.
    """
    hasher = blake3(derive_key_context=f"verifiable v1 {tag}")
    for part in parts:
        view = memoryview(part).cast("B")
        hasher.update(view.nbytes.to_bytes(8, "little")).update(view)
    return hasher.digest()
