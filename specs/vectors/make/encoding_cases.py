"""Messages and tagged hashes (specs/trace.md, Messages; specs/merkle.md, Hashes)."""

from __future__ import annotations

import struct
from typing import Any

from blake3 import blake3
from family import Family
from spec import cbor, head, tagged_hash

REASON = "malformed-encoding"


def shown(value: Any) -> Any:
    """A value of the data model in JSON, where 1 and 1.0 differ."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, float):
        return {"float": struct.pack(">d", value).hex()}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, list):
        return [shown(item) for item in value]
    return {"map": [[key, shown(value[key])] for key in sorted(value, key=cbor)]}


def nested(depth: int) -> bytes:
    return b"\x81" * depth + b"\xf6"


VALID: dict[str, Any] = {
    "null": None,
    "false": False,
    "true": True,
    "zero": 0,
    "the largest integer in the first byte": 23,
    "the least integer in one byte": 24,
    "the largest in one byte": 255,
    "the least in two bytes": 256,
    "the largest in two bytes": 65535,
    "the least in four bytes": 65536,
    "the largest in four bytes": 2**32 - 1,
    "the least in eight bytes": 2**32,
    "an integer that a double cannot hold": 2**53 + 1,
    "the largest integer": 2**64 - 1,
    "minus one": -1,
    "the least negative integer in the first byte": -24,
    "a negative integer in one byte": -25,
    "the least integer": -(2**64),
    "a negative integer that a double cannot hold": -(2**63) - 1,
    "the float one, which is not the integer one": 1.0,
    "the float zero": 0.0,
    "minus zero": -0.0,
    "the largest float of 16 bits": 65504.0,
    "the least float of 16 bits": 2.0**-24,
    "a float of 32 bits": 65505.0,
    "the largest float of 32 bits": float.fromhex("0x1.fffffep127"),
    "half of the least float of 16 bits": 2.0**-25,
    "the least float of 32 bits": 2.0**-149,
    "a float of 64 bits": 0.1,
    "the least float of 64 bits": 2.0**-1074,
    "the largest float of 64 bits": float.fromhex("0x1.fffffffffffffp1023"),
    "no bytes": b"",
    "24 bytes": bytes(range(24)),
    "256 bytes": bytes(range(256)),
    "no text": "",
    "text with a byte order mark": "\ufeffa",
    "text outside of the basic plane": "\U0001f511",
    "text with a zero": "a\0b",
    "an empty array": [],
    "an array of all kinds": [None, True, -7, 2.5, b"\1", "x", [], {}],
    "an empty map": {},
    "keys in order of length, then bytes": {"": 0, "b": 1, "aa": 2, "\u00e9": 3, "zz": 4},
    "a key that has a meaning in JavaScript": {"__proto__": 1, "constructor": 2},
    "a map in a map": {"a": {"b": [1, {"c": None}]}},
}

MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "zero in one byte": bytes.fromhex("1800"),
    "23 in one byte": bytes.fromhex("1817"),
    "24 in two bytes": bytes.fromhex("190018"),
    "255 in two bytes": bytes.fromhex("1900ff"),
    "65535 in four bytes": bytes.fromhex("1a0000ffff"),
    "2^32 - 1 in eight bytes": bytes.fromhex("1b00000000ffffffff"),
    "minus one in one byte": bytes.fromhex("3800"),
    "minus 256 in two bytes": bytes.fromhex("3900ff"),
    "the length of bytes in a byte of its own": bytes.fromhex("580101"),
    "the length of text in two bytes": bytes.fromhex("79000161"),
    "the length of an array in a byte of its own": bytes.fromhex("980101"),
    "the length of a map in a byte of its own": bytes.fromhex("b801616101"),
    "one as a float of 32 bits": bytes.fromhex("fa3f800000"),
    "one as a float of 64 bits": bytes.fromhex("fb3ff0000000000000"),
    "a float of 32 bits in 64": bytes.fromhex("fb40effc2000000000"),
    "the least float of 16 bits in 32": bytes.fromhex("fa33800000"),
    "minus zero in 32 bits": bytes.fromhex("fa80000000"),
    "infinity in 16 bits": bytes.fromhex("f97c00"),
    "minus infinity in 16 bits": bytes.fromhex("f9fc00"),
    "infinity in 32 bits": bytes.fromhex("fa7f800000"),
    "infinity in 64 bits": bytes.fromhex("fb7ff0000000000000"),
    "NaN in 16 bits": bytes.fromhex("f97e00"),
    "NaN with a payload": bytes.fromhex("f97e01"),
    "NaN in 32 bits": bytes.fromhex("fa7fc00000"),
    "NaN in 64 bits": bytes.fromhex("fb7ff8000000000000"),
    "undefined": bytes.fromhex("f7"),
    "the simple value 0": bytes.fromhex("e0"),
    "the simple value 19": bytes.fromhex("f3"),
    "false in two bytes": bytes.fromhex("f814"),
    "the simple value 255": bytes.fromhex("f8ff"),
    "a break": bytes.fromhex("ff"),
    "bytes of indefinite length": bytes.fromhex("5f4101ff"),
    "text of indefinite length": bytes.fromhex("7f6161ff"),
    "an array of indefinite length": bytes.fromhex("9f01ff"),
    "a map of indefinite length": bytes.fromhex("bf616101ff"),
    "a reserved length, 28": bytes.fromhex("1c"),
    "a reserved length, 30": bytes.fromhex("5e"),
    "the tag of a date": bytes.fromhex("c074323031332d30332d32315432303a30343a30305a"),
    "a bignum": bytes.fromhex("c249010000000000000000"),
    "a negative bignum": bytes.fromhex("c349010000000000000000"),
    "a decimal fraction": bytes.fromhex("c48221196ab3"),
    "the tag of CBOR itself": bytes.fromhex("d9d9f7f6"),
    "a shared reference": bytes.fromhex("d81c80"),
    "a tag in an array": bytes.fromhex("81c001"),
    "bytes after the end": bytes.fromhex("0000"),
    "two values": bytes.fromhex("8080"),
    "bytes missing": bytes.fromhex("42ff"),
    "text missing": bytes.fromhex("6261"),
    "a head cut off": bytes.fromhex("1901"),
    "a float cut off": bytes.fromhex("f93c"),
    "an element missing": bytes.fromhex("8201"),
    "a value missing": bytes.fromhex("a16161"),
    "a length of 2^64 - 1": bytes.fromhex("5bffffffffffffffff"),
    "an array of 2^63 elements": bytes.fromhex("9b8000000000000000"),
    "a map of 2^64 - 1 pairs": bytes.fromhex("bbffffffffffffffff"),
    "text that is not UTF-8": bytes.fromhex("61ff"),
    "text in overlong UTF-8": bytes.fromhex("62c080"),
    "a surrogate in text": bytes.fromhex("63eda080"),
    "text cut off inside of a character": bytes.fromhex("62e282"),
    "a character beyond the last": bytes.fromhex("64f4908080"),
    "keys out of order": bytes.fromhex("a2616201616102"),
    "a longer key first": bytes.fromhex("a262616101616202"),
    "a key twice": bytes.fromhex("a2616101616102"),
    "an integer as key": bytes.fromhex("a10102"),
    "bytes as key": bytes.fromhex("a1416101"),
    "null as key": bytes.fromhex("a1f601"),
    "an array as key": bytes.fromhex("a18001"),
    "keys out of order in a map inside": bytes.fromhex("81a2616201616102"),
    "one integer too long, deep inside": bytes.fromhex("8181811800"),
    "nested 17 deep": nested(17),
    "nested 17 deep by maps": b"\xa1\x60" * 17 + b"\xf6",
    "nested 1,000 deep": nested(1000),
}


def make() -> list[Family]:
    family = Family("encoding", "trace.md, Messages; merkle.md, Hashes")
    for what, value in VALID.items():
        family.accept(what, "decode", shown(value), data=cbor(value))
    family.accept("nested 16 deep", "decode", shown(eval_nested(16)), data=nested(16))
    for what, data in MALFORMED.items():
        family.refuse(REASON, what, "decode", data=data)
    array = cbor([1, 2, 3])
    family.accept("as many bytes as allowed", "decode", shown([1, 2, 3]), data=array, max_size=4)
    family.refuse(REASON, "a byte more than allowed", "decode", data=array, max_size=3)
    family.accept("as many items as allowed", "decode", shown([1, 2, 3]), data=array, max_items=4)
    family.refuse(REASON, "an item more than allowed", "decode", data=array, max_items=3)
    pairs = cbor({"a": 1, "b": 2})
    family.accept(
        "keys and values count", "decode", shown({"a": 1, "b": 2}), data=pairs, max_items=5
    )
    family.refuse(REASON, "a pair is two items", "decode", data=pairs, max_items=4)
    family.refuse(
        REASON, "4,096 elements are 4,097 items", "decode", data=head(4, 4096) + bytes(4096)
    )
    _hashes(family)
    return [family]


def eval_nested(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


def _hashes(family: Family) -> None:
    parts = [b"ab", b"", b"c"]
    right = tagged_hash("vectors", *parts)

    def derive(context: str, data: bytes) -> bytes:
        return blake3(data, derive_key_context=context).digest()

    def framed(order: Any, size: int) -> bytes:
        return b"".join(len(p).to_bytes(size, order) + p for p in parts)

    name = "verifiable v1 vectors"
    family.accept("no parts", "tagged-hash", tag="vectors", parts=[], digest=tagged_hash("vectors"))
    family.accept("three parts", "tagged-hash", tag="vectors", parts=parts, digest=right)
    long = bytes(i % 251 for i in range(3000))
    digest = tagged_hash("vectors", long)
    family.accept(
        "a part of 3,000 bytes", "tagged-hash", tag="vectors", parts=[long], digest=digest
    )
    wrong = {
        "lengths left out": derive(name, b"".join(parts)),
        "lengths big-endian": derive(name, framed("big", 8)),
        "lengths of four bytes": derive(name, framed("little", 4)),
        "the length of all parts in front": derive(name, (3).to_bytes(8, "little") + b"abc"),
        "another version in the context": derive("verifiable v2 vectors", framed("little", 8)),
        "the tag alone as context": derive("vectors", framed("little", 8)),
        "a plain hash": blake3(framed("little", 8)).digest(),
        "another tag": tagged_hash("vector", *parts),
        "parts in another order": tagged_hash("vectors", b"", b"ab", b"c"),
        "a byte moved between parts": tagged_hash("vectors", b"a", b"b", b"c"),
        "the empty part left out": tagged_hash("vectors", b"ab", b"c"),
    }
    for what, digest in wrong.items():
        family.refuse("wrong-value", what, "tagged-hash", tag="vectors", parts=parts, digest=digest)
