"""Claims that need no key: integer products and lookups."""

from __future__ import annotations

import struct
from typing import Any

from family import Family


def make() -> list[Family]:
    return [_exact(), _lookups()]


def _matrix(rows: int, columns: int, low: int, high: int, salt: int) -> list[list[int]]:
    span = high - low + 1
    return [
        [low + (i * 7919 + j * 104729 + salt * 31337 + i * j * 613) % span for j in range(columns)]
        for i in range(rows)
    ]


def _product(a: list[list[int]], b: list[list[int]]) -> list[list[int]]:
    return [
        [sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)]
        for row in a
    ]


def _exact() -> Family:
    family = Family("exact", "freivalds.md, section 2")
    mismatch = "claim-mismatch"
    for left, right, low_a, high_a, low_b, high_b in (
        ("int8", "int8", -128, 127, -128, 127),
        ("uint8", "int8", 0, 255, -128, 127),
    ):
        a, b = _matrix(3, 4, low_a, high_a, 1), _matrix(4, 5, low_b, high_b, 2)
        c = _product(a, b)
        given: dict[str, Any] = {"random": bytes(range(32)), "a": a, "b": b, "types": [left, right]}
        most = 4 * max(-low_a, high_a) * 128
        types = f"{left} by {right}"
        family.accept(f"{types}", "product", **given, c=c, dtype="int32")
        zeros = [[0] * 4] * 3
        family.accept(
            f"{types}: zeros", "product", **(given | {"a": zeros}), c=[[0] * 5] * 3, dtype="int32"
        )
        extreme = [[low_a or high_a] * 4] * 3
        top = _product(extreme, [[-128] * 5] * 4)
        family.accept(
            f"{types}: the largest sums",
            "product",
            **(given | {"a": extreme, "b": [[-128] * 5] * 4}),
            c=top,
            dtype="int32",
        )

        def changed(*changes: tuple[int, int, int], c: Any = c) -> list[list[int]]:
            made = [list(row) for row in c]
            for i, j, delta in changes:
                made[i][j] += delta
            return made

        wrong = {
            "one more": changed((0, 0, 1)),
            "one less in the last element": changed((2, 4, -1)),
            "equal and opposite changes in a row": changed((1, 0, 9), (1, 3, -9)),
            "equal and opposite changes in a column": changed((0, 2, 5), (2, 2, -5)),
            "two columns exchanged": [[r[1], r[0], *r[2:]] for r in c],
            "two rows exchanged": [c[1], c[0], c[2]],
            "the product of another matrix": _product(a, _matrix(4, 5, low_b, high_b, 3)),
            "a row left out of the sum": [
                [x - row[3] * y for x, y in zip(out, b[3], strict=True)]
                for row, out in zip(a, c, strict=True)
            ],
            "sums modulo 2^8": [[(x + 128) % 256 - 128 for x in row] for row in c],
            "sums cut off at 16 bits": [
                [max(-(2**14), min(2**14 - 1, x)) for x in row] for row in c
            ],
            "rank one": [[x + i + 1 for x in row] for i, row in enumerate(c)],
            "zeros": [[0] * 5] * 3,
            "the largest number allowed": changed((0, 1, most - c[0][1])),
            "the least number allowed": changed((0, 1, -most - c[0][1])),
        }
        for what, bad in wrong.items():
            if bad != c:
                family.refuse(
                    mismatch, f"{types}: {what}", "product", **given, c=bad, dtype="int32"
                )
        outside = {
            "one above the largest": changed((0, 1, most + 1 - c[0][1])),
            "one below the least": changed((2, 0, -most - 1 - c[2][0])),
            "2^30 more": changed((1, 1, 2**30)),
            "the least of the type": changed((1, 1, -(2**31) - c[1][1])),
        }
        for what, bad in outside.items():
            family.refuse(
                "claim-range", f"{types}: {what}", "product", **given, c=bad, dtype="int32"
            )
        family.refuse(
            "claim-shape",
            f"{types}: the transpose",
            "product",
            **given,
            c=[list(r) for r in zip(*c, strict=True)],
            dtype="int32",
        )
        family.refuse(
            "claim-shape",
            f"{types}: a column missing",
            "product",
            **given,
            c=[r[:-1] for r in c],
            dtype="int32",
        )
        family.refuse("claim-dtype", f"{types}: int64", "product", **given, c=c, dtype="int64")
        family.refuse("claim-dtype", f"{types}: float32", "product", **given, c=c, dtype="float32")
    return family


def _lookups() -> Family:
    family = Family("lookups", "lookup.md, section 3")

    def f32(*bits: int) -> bytes:
        return struct.pack(f"<{len(bits)}I", *bits)

    one, two = 0x3F800000, 0x40000000
    row = {"float32": f32(one, two, 0, 0x80000000, 0x7FC00000, 0x00000001)}
    row["float32-plain"] = f32(one, two, 0xC0400000, 0x7F800000, 0x00800000, 0x12345678)
    row["bfloat16"] = struct.pack("<4H", 0x3F80, 0x8000, 0x7FC0, 0x0001)
    row["float16"] = struct.pack("<4H", 0x3C00, 0x0001, 0x7E00, 0x8000)
    row["int8"] = bytes([0, 1, 127, 128, 255])
    row["uint16"] = struct.pack("<3H", 0, 258, 65535)
    row["int32"] = struct.pack("<3i", -1, 2**31 - 1, 0)
    row["int64"] = struct.pack("<2q", -(2**63), 2**40 + 1)
    row["float8_e4m3fn"] = bytes([0x38, 0x80, 0x7F, 0x01])
    row["bool"] = bytes([0, 1, 1, 0])
    for name, data in row.items():
        dtype = name.removesuffix("-plain")
        given = {"dtype": dtype, "row": data, "random": bytes(range(32))}
        family.accept(f"{name}: the same bits", "compare", **given, claim=data)
        if dtype == "bool":
            family.refuse(
                "lookup-mismatch",
                "bool: one negated",
                "compare",
                **given,
                claim=bytes([1, 1, 1, 0]),
            )
            continue
        lowest = bytes([data[0] ^ 2]) + data[1:]
        family.refuse("lookup-mismatch", f"{name}: a bit changed", "compare", **given, claim=lowest)
        half = len(data) // 2
        family.refuse(
            "lookup-mismatch",
            f"{name}: rotated",
            "compare",
            **given,
            claim=data[half:] + data[:half],
        )
        size = {
            "bfloat16": 2,
            "float16": 2,
            "int8": 1,
            "uint16": 2,
            "int64": 8,
            "float8_e4m3fn": 1,
        }.get(dtype, 4)
        turned = b"".join(data[i : i + size][::-1] for i in range(0, len(data), size))
        if turned != data:
            family.refuse(
                "lookup-mismatch", f"{name}: big-endian", "compare", **given, claim=turned
            )
    base: dict[str, Any] = {"dtype": "float32", "row": row["float32"], "random": bytes(range(32))}
    for what, bits in (
        ("a zero of the other sign", (one, two, 0x80000000, 0, 0x7FC00000, 1)),
        ("another NaN", (one, two, 0, 0x80000000, 0xFFC12345, 1)),
        ("a number that was flushed", (one, two, 0, 0x80000000, 0x7F800001, 0)),
        (
            "a zero where the table has a subnormal number, with a sign",
            (one, two, 0, 0, 0x7FC00000, 0x80000001),
        ),
    ):
        family.accept(what, "compare", **base, claim=f32(*bits))
    for what, bits in (
        ("infinity in place of NaN", (one, two, 0, 0, 0x7F800000, 1)),
        (
            "the least normal number in place of a subnormal one",
            (one, two, 0, 0, 0x7FC00000, 0x00800000),
        ),
        ("a sign", (one | 1 << 31, two, 0, 0, 0x7FC00000, 1)),
        ("the last bit", (one + 1, two, 0, 0, 0x7FC00000, 1)),
        ("words exchanged", (one >> 16, two, 0, 0, 0x7FC00000, 1)),
    ):
        family.refuse("lookup-mismatch", what, "compare", **base, claim=f32(*bits))
    half = {"dtype": "float16", "row": row["float16"], "random": bytes(range(32))}
    flushed = struct.pack("<4H", 0x3C00, 0, 0x7E00, 0)
    what = "float16: a subnormal number that was flushed, which every device keeps"
    family.refuse("lookup-mismatch", what, "compare", **half, claim=flushed)
    brain = {"dtype": "bfloat16", "row": row["bfloat16"], "random": bytes(range(32))}
    family.accept(
        "bfloat16: flushed, another NaN",
        "compare",
        **brain,
        claim=struct.pack("<4H", 0x3F80, 0, 0xFFFF, 0x8000),
    )
    small = {"dtype": "float8_e4m3fn", "row": row["float8_e4m3fn"], "random": bytes(range(32))}
    family.accept(
        "8 bits: zero and NaN of other signs", "compare", **small, claim=bytes([0x38, 0, 0xFF, 1])
    )
    family.refuse(
        "lookup-mismatch",
        "8 bits: the least number flushed",
        "compare",
        **small,
        claim=bytes([0x38, 0x80, 0x7F, 0]),
    )
    return family
