"""Canonical encodings: against an encoder transcribed from RFC 8949, and against hostile bytes."""

from __future__ import annotations

import itertools
import math
import struct
import tracemalloc
from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import cbor2
import numpy as np
import pytest
from blake3 import blake3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from verifiable import encoding
from verifiable.encoding import (
    MAX_DEPTH,
    MAX_ITEMS,
    decode,
    element_offsets,
    encode,
    tagged_hash,
)
from verifiable.errors import MalformedEncoding

LIMIT = 1 << 20


# The slow oracle: RFC 8949, sections 3 and 4.2.1.


def head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * size:
            return bytes([major << 5 | info]) + argument.to_bytes(size, "big")
    raise ValueError(argument)


def shortest_float(value: float) -> bytes:
    for initial, form in ((0xF9, ">e"), (0xFA, ">f")):
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.pack(">d", struct.unpack(form, packed)[0]) == struct.pack(">d", value):
            return bytes([initial]) + packed
    return b"\xfb" + struct.pack(">d", value)


def oracle(value: Any) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", False: b"\xf4", True: b"\xf5"}[value]
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, float):
        return shortest_float(value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, dict):
        pairs = sorted((oracle(key), oracle(item)) for key, item in value.items())
        return head(5, len(pairs)) + b"".join(key + item for key, item in pairs)
    return head(4, len(value)) + b"".join(map(oracle, value))


floats = st.floats(allow_nan=False, allow_infinity=False) | st.floats(
    width=16, allow_nan=False, allow_infinity=False
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | floats
    | st.binary(max_size=300)
    | st.text(max_size=300)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


def same(a: Any, b: Any) -> bool:
    """Equality that tells 1 from 1.0 and True, and 0.0 from -0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b and (not isinstance(a, float) or math.copysign(1, a) == math.copysign(1, b))


@settings(deadline=None)
@given(values)
@example({"b": 1, "aa": 2, "": 3, "\U0001f600": 4, "é": 5, "a" * 24: 6, "z": 7})
def test_encodes_as_rfc_8949_core_deterministic_and_decodes_again(value: Any):
    assert encode(value) == oracle(value)
    assert same(decode(encode(value), max_size=LIMIT), value)


@settings(deadline=None)
@given(values, values)
def test_different_values_have_different_encodings(a: Any, b: Any):
    assert (encode(a) == encode(b)) == same(a, b)


@pytest.mark.parametrize(
    ("value", "hexadecimal"),
    [  # RFC 8949, appendix A
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (1000000, "1a000f4240"),
        (2**64 - 1, "1bffffffffffffffff"),
        (-1, "20"),
        (-(2**64), "3bffffffffffffffff"),
        (0.0, "f90000"),
        (-0.0, "f98000"),
        (1.1, "fb3ff199999999999a"),
        (65504.0, "f97bff"),
        (100000.0, "fa47c35000"),
        (5.960464477539063e-8, "f90001"),
        (False, "f4"),
        (None, "f6"),
        ("ü", "62c3bc"),
        ((1, [2, 3]), "8201820203"),
        ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    ],
)
def test_examples_of_the_rfc(value: Any, hexadecimal: str):
    assert encode(value).hex() == hexadecimal


@st.composite
def nearly_canonical(draw: st.DrawFn) -> bytes:
    """Canonical bytes with a few replaced, inserted or removed."""
    data = bytearray(encode(draw(values)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


@settings(deadline=None)
@given(st.binary(max_size=60) | nearly_canonical())
def test_whatever_decodes_is_the_one_encoding_of_its_value(data: bytes):
    try:
        value = decode(data, max_size=LIMIT)
    except MalformedEncoding:
        return
    assert encode(value) == data
    assert oracle(value) == data


@dataclass(frozen=True)
class Cheat:
    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name


CHEATS = [
    Cheat("nothing", b""),
    Cheat("truncated head", b"\x19\x01"),
    Cheat("truncated text", b"\x63ab"),
    Cheat("truncated map", b"\xa1\x61a"),
    Cheat("bytes after the end", b"\x00\x00"),
    Cheat("duplicate key, same value", b"\xa2\x61a\x01\x61a\x01"),
    Cheat("duplicate key, other value", b"\xa2\x61a\x01\x61a\x02"),
    Cheat("keys out of order", b"\xa2\x61b\x01\x61a\x02"),
    Cheat("keys in alphabetical, not bytewise, order", b"\xa2\x62aa\x01\x61b\x02"),
    Cheat("integer key", b"\xa1\x01\x01"),
    Cheat("byte string key", b"\xa1\x41a\x01"),
    Cheat("null key", b"\xa1\xf6\x01"),
    Cheat("boolean and integer keys that are equal", b"\xa2\x01\x01\xf5\x02"),
    Cheat("array key", b"\xa1\x80\x01"),
    Cheat("map key", b"\xa1\xa0\x01"),
    Cheat("integer in 8 bits that fits the head", b"\x18\x17"),
    Cheat("integer in 16 bits that fits 8", b"\x19\x00\xff"),
    Cheat("integer in 32 bits that fits 16", b"\x1a\x00\x00\xff\xff"),
    Cheat("integer in 64 bits that fits 32", b"\x1b\x00\x00\x00\x00\xff\xff\xff\xff"),
    Cheat("negative integer too long", b"\x38\x00"),
    Cheat("length of bytes too long", b"\x58\x01a"),
    Cheat("length of text too long", b"\x78\x01a"),
    Cheat("length of array too long", b"\x98\x01\x00"),
    Cheat("length of map too long", b"\xb8\x01\x61a\x00"),
    Cheat("float in 32 bits that fits 16", b"\xfa\x3f\x80\x00\x00"),
    Cheat("float in 64 bits that fits 32", b"\xfb\x40\xf8\x6a\x00\x00\x00\x00\x00"),
    Cheat("NaN", b"\xf9\x7e\x00"),
    Cheat("NaN with a payload", b"\xf9\x7e\x01"),
    Cheat("signalling NaN in 64 bits", b"\xfb\x7f\xf0\x00\x00\x00\x00\x00\x01"),
    Cheat("infinity", b"\xf9\x7c\x00"),
    Cheat("negative infinity within an array", b"\x81\xf9\xfc\x00"),
    Cheat("undefined", b"\xf7"),
    Cheat("simple value", b"\xe0"),
    Cheat("simple value in two bytes", b"\xf8\xff"),
    Cheat("false in two bytes", b"\xf8\x14"),
    Cheat("break", b"\xff"),
    Cheat("indefinite array", b"\x9f\x00\xff"),
    Cheat("indefinite map", b"\xbf\x61a\x00\xff"),
    Cheat("indefinite text", b"\x7f\x61a\xff"),
    Cheat("indefinite bytes", b"\x5f\x41a\xff"),
    Cheat("reserved head", b"\x1c"),
    Cheat("text that is not UTF-8", b"\x62\xc3\x28"),
    Cheat("text with a surrogate", b"\x63\xed\xa0\x80"),
    Cheat("text in overlong UTF-8", b"\x62\xc1\xa1"),
    Cheat("bignum", b"\xc2\x49\x01" + bytes(8)),
    Cheat("bignum that fits an integer", b"\xc2\x41\x01"),
    Cheat("negative bignum", b"\xc3\x49\x01" + bytes(8)),
    Cheat("decimal with a huge exponent", b"\xc4\x82\x1a\x3f\xff\xff\xff\x01"),
    Cheat("bigfloat with a huge exponent", b"\xc5\x82\x1a\x00\xff\xff\xff\x01"),
    Cheat("date", b"\xc1\x00"),
    Cheat("regular expression", b"\xd8\x23\x61a"),
    Cheat("self-described CBOR", b"\xd9\xd9\xf7\x00"),
    Cheat("unknown tag", b"\xd8\x4d\x00"),
    Cheat("largest tag", b"\xdb" + b"\xff" * 8 + b"\x00"),
    Cheat("cycle by shared reference", b"\xd8\x1c\x81\xd8\x1d\x00"),
    Cheat(
        "shared references that double 60 times",
        b"\x98\x3d\xd8\x1c\x80"
        + b"".join(b"\xd8\x1c\x82" + 2 * (b"\xd8\x1d" + head(0, i)) for i in range(60)),
    ),
    Cheat("string references", b"\xd9\x01\x00\x82\x63abc\xd8\x19\x00"),
    Cheat("array one too deep", b"\x81" * (MAX_DEPTH + 1) + b"\x00"),
    Cheat("map one too deep", b"\xa1\x61a" * (MAX_DEPTH + 1) + b"\x00"),
    Cheat("array a million deep", b"\x81" * 10**6 + b"\x00"),
    Cheat("tags a million deep", b"\xc1" * 10**6 + b"\x00"),
    Cheat("array of 2^64 - 1", b"\x9b" + b"\xff" * 8),
    Cheat("array of 2^31 - 1", b"\x9a\x7f\xff\xff\xff"),
    Cheat("map of 2^64 - 1", b"\xbb" + b"\xff" * 8),
    Cheat("bytes of 2^64 - 1", b"\x5b" + b"\xff" * 8),
    Cheat("text of 2^63 - 1", b"\x7b\x7f" + b"\xff" * 7),
    Cheat("text of 2^31 - 1", b"\x7a\x7f\xff\xff\xff"),
]


@pytest.mark.parametrize("cheat", CHEATS, ids=str)
def test_cheat(cheat: Cheat):
    with pytest.raises(MalformedEncoding):
        decode(cheat.data, max_size=LIMIT)


@pytest.mark.parametrize("info", [28, 29, 30, 31])
@pytest.mark.parametrize("major", range(8))
def test_reserved_heads_are_refused_for_what_they_are(major: int, info: int):
    """Enough bytes follow for a length of any size."""
    with pytest.raises(MalformedEncoding, match="indefinite or reserved length"):
        decode(bytes([major << 5 | info]) + bytes(200), max_size=LIMIT)


@pytest.mark.parametrize("tag", [*range(32), 35, 36, 37, 43, 52, 54, 100, 256, 258, 260, 261, 1004])
@pytest.mark.parametrize("content", [b"\x00", b"\x60", b"\x40", b"\x80", b"\xa0", b"\x82\x00\x01"])
def test_no_tag_reaches_a_decoder(tag: int, content: bytes):
    with pytest.raises(MalformedEncoding, match=f"tag {tag} is not allowed|decoding semantic tag"):
        decode(head(6, tag) + content, max_size=LIMIT)


def test_no_tag_has_a_decoder():
    assert not dict(encoding._NO_TAGS) and not len(encoding._NO_TAGS)
    with pytest.raises(ValueError, match="tag 2 is not allowed"):
        encoding._NO_TAGS[2]


def test_keys_that_are_no_text_enter_no_map():
    """Integers of colliding hashes would take quadratic time: the decoder refuses the first."""
    with pytest.raises(MalformedEncoding) as caught:
        decode(b"\xa1\x01\x01", max_size=LIMIT)
    assert isinstance(caught.value.__cause__, cbor2.CBORDecodeError)


@pytest.mark.parametrize("initial", [b"\x9b", b"\xbb", b"\x5b", b"\x7b"])
def test_a_claimed_length_allocates_nothing(initial: bytes):
    tracemalloc.start()
    try:
        with pytest.raises(MalformedEncoding):
            decode(initial + (2**32).to_bytes(8, "big"), max_size=LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_size_is_limited_before_anything_is_parsed(monkeypatch: pytest.MonkeyPatch):
    data = encode(["x" * 100])
    assert decode(data, max_size=len(data)) == ["x" * 100]
    parsed: list[bytes] = []
    monkeypatch.setattr(encoding.cbor2, "loads", lambda data, **_: parsed.append(data))
    with pytest.raises(MalformedEncoding, match=f"more than the {len(data) - 1} bytes"):
        decode(data, max_size=len(data) - 1)
    assert not parsed


def count(value: Any) -> int:
    """Items of a value: itself, and all that is in it."""
    if isinstance(value, dict):
        return 1 + sum(1 + count(item) for item in value.values())
    return 1 + sum(map(count, value)) if isinstance(value, list) else 1


@settings(deadline=None)
@given(values)
def test_items_are_limited_before_anything_is_decoded(value: Any):
    data, items = encode(value), count(decode(encode(value), max_size=LIMIT))
    assert same(decode(data, max_size=LIMIT, max_items=items), value)
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(MalformedEncoding, match=f"more than the {items - 1} items"),
    ):
        patch.setattr(encoding.cbor2, "loads", lambda *_, **__: pytest.fail("decoded"))
        decode(data, max_size=LIMIT, max_items=items - 1)


@settings(deadline=None)
@given(st.lists(values, max_size=5))
def test_offsets_are_where_the_elements_begin(elements: list[Any]):
    data = encode(elements)
    offsets = element_offsets(data)
    assert offsets[-1] == len(data)
    parts = [data[a:b] for a, b in itertools.pairwise(offsets)]
    assert parts == list(map(encode, elements))


@settings(deadline=None)
@given(values, st.data())
def test_a_value_that_is_cut_short_has_no_offsets(value: Any, draw: Any):
    data = encode(value)
    with pytest.raises(MalformedEncoding, match="bytes are missing"):
        element_offsets(data[: draw.draw(st.integers(0, len(data) - 1))])


@pytest.mark.parametrize("around", [b"\x81", b"\xa1\x61a"], ids=["array", "map"])
@pytest.mark.parametrize("inside", [b"", b"\x80", b"\xa0"], ids=["full", "array", "map"])
def test_values_nested_too_deep_have_no_offsets(around: bytes, inside: bytes):
    """An empty array or map is a level as well."""
    most = MAX_DEPTH - 1 if inside else MAX_DEPTH
    deepest = around * most + (inside or b"\x00")
    assert element_offsets(deepest)[-1] == len(deepest)
    with pytest.raises(MalformedEncoding, match="nested more than 16 deep"):
        element_offsets(around + deepest)


@pytest.mark.parametrize("tag", [0, 2, 23, 24, 55799, 2**64 - 1])
def test_tags_have_no_offsets(tag: int):
    for data in (head(6, tag) + b"\x40", b"\x81" + head(6, tag) + b"\x40"):
        with pytest.raises(MalformedEncoding, match=f"tag {tag} is not allowed"):
            element_offsets(data)


def test_by_default_many_items_are_too_many():
    assert MAX_ITEMS == 4096
    assert len(decode(encode([0] * (MAX_ITEMS - 1)), max_size=LIMIT)) == MAX_ITEMS - 1
    with pytest.raises(MalformedEncoding, match=f"more than the {MAX_ITEMS} items"):
        decode(encode([0] * MAX_ITEMS), max_size=LIMIT)
    assert len(decode(encode([0] * MAX_ITEMS), max_size=LIMIT, max_items=1 << 20)) == MAX_ITEMS


def test_deepest_value_allowed():
    value: Any = 0
    for _ in range(MAX_DEPTH):
        value = {"a": value} if isinstance(value, list) else [value]
    assert decode(encode(value), max_size=LIMIT) == value
    with pytest.raises(ValueError, match="nested at most 16 deep"):
        encode([value])


def test_cycles_end():
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(ValueError, match="nested at most 16 deep"):
        encode(cycle)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        2**64,
        -(2**64) - 1,
        "\ud800",
        [math.nan],
        [10**4999],
        [2**64],
        [-(2**64) - 1],
        {"a": 2**64},
    ],
)
def test_values_outside_the_data_model(value: Any):
    with pytest.raises(ValueError):
        encode(value)


class Pair(NamedTuple):
    left: int
    right: int


class Kind(IntEnum):
    ONE = 1


NOT_ENCODABLE = [
    *(np.float64(1), np.float32(1), np.int64(1), 1j, {1}, object(), bytearray(b"a")),
    *({1: 2}, {b"a": 1}, {None: 1}, {(): 1}, cbor2.CBORTag(2, b"a"), cbor2.undefined),
    *(OrderedDict(a=1), [OrderedDict(a=1)], Pair(1, 2), {"a": Pair(1, 2)}),
    *(Kind.ONE, [Kind.ONE], [np.float64(1)], np.str_("a"), {np.str_("a"): 1}, np.bytes_(b"a")),
]


@pytest.mark.parametrize("value", NOT_ENCODABLE)
def test_types_outside_the_data_model(value: Any):
    with pytest.raises(TypeError):
        encode(value)


def test_any_buffer_can_be_decoded_and_nothing_else():
    data = encode([1, "a"])
    for buffer in (data, bytearray(data), memoryview(data)):
        assert decode(buffer, max_size=LIMIT) == [1, "a"]
    with pytest.raises(TypeError):
        decode("text", max_size=LIMIT)  # pyright: ignore[reportArgumentType]


# Tagged hashes.


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=4))
def test_tagged_hash_is_blake3_of_length_prefixed_parts(parts: list[bytes]):
    message = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    expected = blake3(message, derive_key_context="verifiable v1 some tag").digest()
    assert tagged_hash("some tag", *parts) == expected


def test_no_two_sequences_of_parts_give_the_same_hash():
    sequences = [(), (b"",), (b"", b""), (b"abc",), (b"ab", b"c"), (b"a", b"bc"), (b"abc", b"")]
    hashes = {tagged_hash(tag, *parts) for tag in ("a", "b") for parts in sequences}
    assert len(hashes) == 2 * len(sequences)


def test_parts_may_be_views_of_any_format():
    array = np.arange(4, dtype=np.float32)
    assert tagged_hash("a", array.data) == tagged_hash("a", array.tobytes())
