"""Tensors, commitments to traces, openings (specs/trace.md)."""

from __future__ import annotations

import struct
from typing import Any

from blake3 import blake3
from family import Family
from spec import BLAKE, SHA, SIZES, leaves, mth, multiproof

REASON = "malformed-encoding"


def bits(value: float) -> str:
    """A float in JSON: its 64 bits."""
    return "nan" if value != value else struct.pack(">d", value).hex()  # noqa: PLR0124


def small(code: int, exponent: int, has_infinity: bool) -> float:
    """The value of an 8-bit float with so many bits of exponent."""
    digits = 7 - exponent
    bias = 2 ** (exponent - 1) - 1
    sign = -1.0 if code & 128 else 1.0
    e, m = code >> digits & (1 << exponent) - 1, code & (1 << digits) - 1
    if has_infinity and e == (1 << exponent) - 1:
        return float("nan") if m else sign * float("inf")
    if not has_infinity and code & 127 == 127:
        return float("nan")
    if e == 0:
        return sign * m * 2.0 ** (1 - bias - digits)
    return sign * (1 + m / 2**digits) * 2.0 ** (e - bias)


def element(dtype: str, value: Any) -> bytes:
    """Canonical bytes of a value that the type holds exactly."""
    if dtype == "bool":
        return bytes([value])
    if dtype.startswith(("int", "uint")):
        return value.to_bytes(SIZES[dtype], "little", signed=dtype.startswith("int"))
    if dtype == "bfloat16":
        return struct.pack("<f", value)[2:]
    if dtype.startswith("float8"):
        shape = (4, False) if dtype == "float8_e4m3fn" else (5, True)
        return bytes([next(c for c in range(256) if bits(small(c, *shape)) == bits(value))])
    if dtype.startswith("complex"):
        half = "<f" if dtype == "complex64" else "<d"
        return struct.pack(half, value.real) + struct.pack(half, value.imag)
    return struct.pack({"float16": "<e", "float32": "<f", "float64": "<d"}[dtype], value)


def shown(dtype: str, value: Any) -> list[str]:
    if dtype.startswith("complex"):
        return [bits(value.real), bits(value.imag)]
    return [bits(float(value)) if "float" in dtype else str(int(value))]


VALUES: dict[str, list[Any]] = {
    "bool": [False, True, True, False, True, False],
    "int8": [-128, 127, 0, -1, 1, 5],
    "int16": [-32768, 32767, 258, -1, 1, 0],
    "int32": [-(2**31), 2**31 - 1, 16909060, -1, 1, 0],
    "int64": [-(2**63), 2**63 - 1, 72623859790382856, -1, 1, 0],
    "uint8": [0, 255, 128, 1, 2, 3],
    "uint16": [0, 65535, 258, 1, 2, 3],
    "uint32": [0, 2**32 - 1, 16909060, 1, 2, 3],
    "uint64": [0, 2**64 - 1, 72623859790382856, 1, 2, 3],
    "float16": [1.0, -0.0, 65504.0, 2.0**-24, float("-inf"), 0.333251953125],
    "bfloat16": [1.0, -0.0, 2.0**127, 2.0**-133, float("inf"), -3.140625],
    "float32": [1.0, -0.0, 2.0**-149, 16777217.0 - 1, float("-inf"), 0.5],
    "float64": [1.0, -0.0, 2.0**-1074, 0.1, float("inf"), -1e300],
    "float8_e4m3fn": [1.0, -0.0, 448.0, 2.0**-9, -(2.0**-6), 1.125],
    "float8_e5m2": [1.0, -0.0, 57344.0, 2.0**-16, float("inf"), 1.25],
    "complex64": [1 + 2j, complex(0.0, -1.0), -0.5j, 3 + 0j, 1j, 2 - 1j],
    "complex128": [1 + 2j, complex(0.1, -1.0), -0.5j, 3 + 0j, 1j, 2 - 1j],
}


def make() -> list[Family]:
    return [_tensors(), _commitments(), _openings()]


def _tensors() -> Family:
    family = Family("tensors", "trace.md, What is committed to")
    for dtype, values in VALUES.items():
        data = b"".join(element(dtype, v) for v in values)
        elements = [text for v in values for text in shown(dtype, v)]
        given = {"dtype": dtype, "shape": [2, 3]}
        family.accept(f"{dtype}, two rows", "read", elements, **given, data=data)
        family.refuse(REASON, f"{dtype}, a byte missing", "read", **given, data=data[:-1])
        family.refuse(REASON, f"{dtype}, a byte too many", "read", **given, data=data + b"\0")
        size = SIZES[dtype]
        if size > 1 and not dtype.startswith("complex"):
            turned = b"".join(element(dtype, v)[::-1] for v in values)
            what = f"{dtype}, big-endian"
            family.refuse("wrong-value", what, "bytes", **given, elements=elements, data=turned)
        columns = b"".join(element(dtype, values[i]) for i in (0, 3, 1, 4, 2, 5))
        what = f"{dtype}, by columns"
        family.refuse("wrong-value", what, "bytes", **given, elements=elements, data=columns)
    swapped = struct.pack("<ffff", 2.0, 1.0, -1.0, 0.0)
    elements = [bits(x) for x in (1.0, 2.0, 0.0, -1.0)]
    given = {"dtype": "complex64", "shape": [2]}
    what = "complex64, imaginary part first"
    family.refuse("wrong-value", what, "bytes", **given, elements=elements, data=swapped)
    for code in (2, 3, 128, 255):
        data = bytes([0, 1, code])
        family.refuse(REASON, f"a boolean of {code}", "read", dtype="bool", shape=[3], data=data)
    packed = bytes([5])
    family.refuse(REASON, "booleans as bits", "read", dtype="bool", shape=[3], data=packed)
    family.accept("a scalar", "read", ["7"], dtype="int32", shape=[], data=element("int32", 7))
    family.accept("no elements", "read", [], dtype="float32", shape=[3, 0], data=b"")
    family.refuse(
        REASON, "an element of none", "read", dtype="float32", shape=[3, 0], data=bytes(4)
    )
    nan = struct.pack("<I", 0x7FC12345)
    family.accept("NaN with a payload", "read", ["nan"], dtype="float32", shape=[1], data=nan)
    for zero in (0.0, -0.0):
        data = struct.pack("<f", -zero)
        what = f"the zero {zero} with the other sign"
        family.refuse(
            "wrong-value",
            what,
            "bytes",
            dtype="float32",
            shape=[1],
            elements=[bits(zero)],
            data=data,
        )
    return family


# A trace of two values, and an answer of a boolean and a scalar.
TENSORS: list[tuple[str, list[int], bytes]] = [
    ("float32", [5, 3], b"".join(struct.pack("<f", i / 4 - 1) for i in range(15))),
    ("int8", [2, 2, 4], bytes(range(240, 256))),
    ("bool", [7], bytes([0, 1, 1, 0, 1, 0, 1])),
    ("float16", [], struct.pack("<e", -1.5)),
]
CLAIMS = 2


def described(tensors: list[tuple[str, list[int], bytes]]) -> list[Any]:
    return [{"dtype": dtype, "shape": shape} for dtype, shape, _ in tensors]


def sent(tensors: list[tuple[str, list[int], bytes]]) -> list[Any]:
    return [{"dtype": d, "shape": s, "data": b} for d, s, b in tensors]


def committed(tensors: Any, leaf_bytes: int) -> tuple[dict[str, Any], list[Any]]:
    pieces = leaves(tensors, leaf_bytes)
    digests = [BLAKE.leaf(piece[3]) for piece in pieces]
    return {"root": mth(BLAKE, digests), "size": len(digests)}, pieces


def _commitments() -> Family:
    family = Family("commitments", "trace.md")
    two = TENSORS[:2]
    for what, tensors, claims, leaf_bytes in (
        ("two tensors in full, leaves of two rows", two, 1, 24),
        ("two tensors, a row longer than a leaf", two, 1, 1),
        ("two tensors, a leaf each", two, 2, 1 << 16),
        ("a trace and an answer", TENSORS, CLAIMS, 16),
        ("an answer alone", TENSORS[3:], 0, 1 << 16),
        (
            "a tensor without elements has no leaf",
            [("float32", [0, 4], b""), *two, ("int32", [3, 0], b"")],
            2,
            24,
        ),
    ):
        commitment, pieces = committed(tensors, leaf_bytes)
        output = [[*piece[:3], BLAKE.leaf(piece[3])] for piece in pieces]
        given = {"layout": described(tensors), "claims": claims, "leaf_bytes": leaf_bytes}
        family.accept(what, "commit", output, **given, tensors=sent(tensors), commitment=commitment)
    commitment, pieces = committed(TENSORS, 16)
    given = {"layout": described(TENSORS), "claims": CLAIMS, "leaf_bytes": 16}
    digests = [BLAKE.leaf(piece[3]) for piece in pieces]

    def changed(i: int, **change: Any) -> list[Any]:
        return [t | change if i == j else t for j, t in enumerate(sent(TENSORS))]

    f32 = TENSORS[0][2]
    mismatch = "commitment-mismatch"
    for what, root in (
        ("leaves of other rows", committed(TENSORS, 32)[0]["root"]),
        ("one leaf for each tensor", mth(BLAKE, [BLAKE.leaf(t[2]) for t in TENSORS])),
        ("answer before trace", committed(TENSORS[2:] + TENSORS[:2], 16)[0]["root"]),
        ("leaves hashed by SHA-256", mth(SHA, [SHA.leaf(piece[3]) for piece in pieces])),
        ("leaves hashed without a key", mth(BLAKE, [blake3(p[3]).digest() for p in pieces])),
        ("two leaves exchanged", mth(BLAKE, [digests[1], digests[0], *digests[2:]])),
        (
            "leaves that run over tensors",
            mth(
                BLAKE,
                [BLAKE.leaf(b"".join(t[2] for t in TENSORS)[i : i + 16]) for i in range(0, 85, 16)],
            ),
        ),
        (
            "the last leaf padded",
            mth(BLAKE, [*digests[:-1], BLAKE.leaf(pieces[-1][3].ljust(16, b"\0"))]),
        ),
    ):
        bad = {"root": root, "size": len(digests)}
        family.refuse(mismatch, what, "commit", **given, tensors=sent(TENSORS), commitment=bad)
    wrong_size = commitment | {"size": len(digests) + 1}
    family.refuse(
        mismatch, "another size", "commit", **given, tensors=sent(TENSORS), commitment=wrong_size
    )
    for reason, what, tensors in (
        (mismatch, "a bit of the trace", changed(0, data=bytes([f32[0] ^ 1]) + f32[1:])),
        (
            mismatch,
            "the sign of a zero",
            changed(0, data=f32[:16] + struct.pack("<f", -0.0) + f32[20:]),
        ),
        (mismatch, "a boolean of the answer", changed(2, data=bytes(7))),
        (mismatch, "another answer", changed(3, data=struct.pack("<e", 1.5))),
        (REASON, "a boolean of two", changed(2, data=bytes([0, 1, 2, 0, 1, 0, 1]))),
        (REASON, "another shape of as many elements", changed(0, shape=[3, 5])),
        (REASON, "a dimension of one more", changed(0, shape=[1, 5, 3])),
        (REASON, "another type of as many bytes", changed(0, dtype="int32")),
        (REASON, "a wider type", changed(3, dtype="float32", data=bytes(4))),
        (REASON, "a tensor missing in the answer", sent(TENSORS)[:-1]),
        (REASON, "a tensor more in the answer", [*sent(TENSORS), sent(TENSORS)[0]]),
        (REASON, "no tensors", []),
    ):
        family.refuse(reason, what, "commit", **given, tensors=tensors, commitment=commitment)
    root = commitment["root"]
    for what, bad in (
        ("a root of 31 bytes", {"root": root[:31], "size": len(digests)}),
        ("a size of zero", {"root": root, "size": 0}),
        ("a size of 2^64", {"root": root, "size": 2**64}),
        ("a size that is a boolean", {"root": root, "size": True}),
        ("a size that is no integer", {"root": root, "size": 1.5}),
    ):
        family.refuse(REASON, what, "commit", **given, tensors=sent(TENSORS), commitment=bad)
    magic = b"verifiable trace 1" + bytes(14)
    data = b"".join(t[2] for t in TENSORS)
    given = {"layout": described(TENSORS), "claims": CLAIMS}
    family.accept(
        "an answer and a trace on the wire",
        "decode",
        [t[2] for t in TENSORS],
        **given,
        data=magic + data,
    )
    for what, bad in (
        ("nothing", b""),
        ("the header alone", magic),
        ("a byte missing", magic + data[:-1]),
        ("a byte too many", magic + data + b"\0"),
        ("no header", data),
        ("another version", b"verifiable trace 2" + bytes(14) + data),
        ("a header padded with spaces", b"verifiable trace 1".ljust(32) + data),
        ("a boolean of two", magic + data[:76] + b"\2" + data[77:]),
        ("a header in another case", b"Verifiable trace 1" + bytes(14) + data),
    ):
        family.refuse(REASON, what, "decode", **given, data=bad)
    return family


def _openings() -> Family:
    family = Family("openings", "trace.md, Opening")
    commitment, pieces = committed(TENSORS, 16)
    digests = [BLAKE.leaf(piece[3]) for piece in pieces]
    layout = {"layout": described(TENSORS), "claims": CLAIMS, "leaf_bytes": 16}
    n = len(pieces)
    for wanted in ([0], [n - 1], [1, 2], [0, 3, n - 2], list(range(n))):
        opened = [pieces[i][3] for i in wanted]
        proof = multiproof(BLAKE, wanted, digests)
        output = [pieces[i][:3] for i in wanted]
        what = f"leaves {', '.join(map(str, wanted))} of {n}"
        given = layout | {"commitment": commitment, "indices": wanted}
        family.accept(what, "open", output, **given, leaves=opened, proof=proof)
    wanted = [1, 4, 6]
    assert [pieces[i][0] for i in wanted] == [0, 0, 2]
    opened, proof = [pieces[i][3] for i in wanted], multiproof(BLAKE, wanted, digests)
    given = layout | {"commitment": commitment, "indices": wanted, "leaves": opened, "proof": proof}
    shape, root = "malformed-proof", "root-mismatch"
    flag = bytes([2]) + opened[2][1:]
    for reason, what, change in (
        (shape, "another size committed to", {"commitment": commitment | {"size": n + 1}}),
        (shape, "a leaf missing", {"leaves": opened[:-1]}),
        (shape, "a leaf too many", {"leaves": [*opened, opened[0]]}),
        (shape, "no leaves", {"leaves": []}),
        (shape, "leaves that are no list", {"leaves": None}),
        (shape, "a digest missing", {"proof": proof[:-1]}),
        (shape, "a digest too many", {"proof": [*proof, proof[0]]}),
        (shape, "a digest of 31 bytes", {"proof": [proof[0][:31], *proof[1:]]}),
        (shape, "a proof that is no list", {"proof": None}),
        (REASON, "a leaf of a byte less", {"leaves": [opened[0][:-1], *opened[1:]]}),
        (REASON, "a leaf of a byte more", {"leaves": [opened[0] + b"\0", *opened[1:]]}),
        (REASON, "an empty leaf", {"leaves": [b"", *opened[1:]]}),
        (REASON, "a leaf that is a number", {"leaves": [1, *opened[1:]]}),
        (REASON, "a boolean of two", {"leaves": [*opened[:2], flag]}),
        (REASON, "a root of 33 bytes", {"commitment": commitment | {"root": bytes(33)}}),
        (
            root,
            "a bit of a leaf",
            {"leaves": [bytes([opened[0][0] ^ 4]) + opened[0][1:], *opened[1:]]},
        ),
        (root, "two leaves exchanged", {"leaves": [opened[1], opened[0], opened[2]]}),
        (root, "a leaf of another index", {"leaves": [pieces[2][3], *opened[1:]]}),
        (root, "two digests exchanged", {"proof": [proof[1], proof[0], *proof[2:]]}),
        (
            root,
            "a bit of a digest",
            {"proof": [*proof[:-1], bytes([proof[-1][0] ^ 1]) + proof[-1][1:]]},
        ),
        (root, "another root", {"commitment": commitment | {"root": digests[0]}}),
        (root, "other indices were asked for", {"indices": [0, 4, 6]}),
    ):
        family.refuse(reason, what, "open", **(given | change))
    return family
