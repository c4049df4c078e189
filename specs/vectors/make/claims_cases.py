"""Claims that need no key: integer products, lookups, roundings, decisions."""

from __future__ import annotations

import math
import struct
from typing import Any

from family import Family

EPS = 2.0**-16
TINY = 2.0**-126


def make() -> list[Family]:
    return [_exact(), _lookups(), _roundings(), _decisions()]


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


def shown(x: float) -> Any:
    return (
        x
        if math.isfinite(x) and not (x == 0 and math.copysign(1, x) < 0)
        else str(x).replace("inf", "inf")
    )


def f32(x: float) -> float:
    return struct.unpack("<f", struct.pack("<f", x))[0]


def _slacks(row: list[float]) -> list[float]:
    finite = [x for x in row if math.isfinite(x)]
    rms = math.sqrt(sum(x * x for x in finite) / max(len(finite), 1))
    return [EPS * (abs(x) + rms) + TINY if math.isfinite(x) else TINY for x in row]


# For each chain: the honest rounding, and the interval of values that round to a claim.
def _bf16(x: float) -> float:
    [bits] = struct.unpack("<I", struct.pack("<f", x))
    low = bits & 0xFFFF
    bits >>= 16
    bits += low > 0x8000 or (low == 0x8000 and bits & 1)
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def _bf16_interval(q: float) -> tuple[float, float]:
    [bits] = struct.unpack("<I", struct.pack("<f", abs(q)))
    outer, inner = (struct.unpack("<f", struct.pack("<I", bits + d))[0] for d in (0x8000, -0x8000))
    return (inner, outer) if q > 0 else (-outer, -inner)


def _clip(x: float) -> float:
    return max(-127.0, min(127.0, x))


CHAINS: dict[str, Any] = {
    "bfloat16": (_bf16, _bf16_interval, 2.0**-7),
    "int8": (
        lambda x: _clip(float(round(x))),
        lambda q: (-math.inf if q <= -127 else q - 0.5, math.inf if q >= 127 else q + 0.5),
        1.0,
    ),
    "floor": (lambda x: float(math.floor(x)), lambda q: (q, q + 1), 1.0),
}


def _roundings() -> Family:
    family = Family("roundings", "rounding.md, section 3")
    width = 32
    for chain, (honest, interval, step) in CHAINS.items():
        row = [f32(math.sin(1 + 3 * i) * 40 + 0.123) for i in range(width)]
        tie = {"bfloat16": 20.0625, "int8": 20.5, "floor": 21.0}[
            chain
        ]  # rounds one way or the other
        slack = EPS * (tie + math.sqrt(sum(x * x for x in row) / width))
        near, beyond = f32(tie - 0.5 * slack), f32(tie - 3 * slack)
        rows = {
            "a plain row": row,
            "a value next to a tie": [near, *row[1:]],
            "a value beyond the slack of a tie": [beyond, *row[1:]],
            "all values next to ties": [f32(tie - 0.6 * slack)] * width,
            "a quarter of the slack in all": [f32(tie - 0.2 * slack)] * width,
        }
        for what, values in rows.items():
            own = [honest(x) for x in values]
            up = honest(f32(tie + 0.01 if chain != "bfloat16" else tie + 0.03))
            variants = {
                "honest": own,
                "the first element the other way": [up, *own[1:]],
                "the last element a step up": [
                    *own[:-1],
                    own[-1]
                    + step
                    * max(
                        1.0,
                        2 ** math.floor(math.log2(abs(own[-1]))) if chain == "bfloat16" else 1.0,
                    ),
                ],
                "all the other way": [up] * width
                if what.startswith(("all", "a quarter"))
                else None,
                "zeros": [0.0] * width if chain != "bfloat16" else None,
                "signs changed": [-x for x in own],
                "two elements exchanged": [own[5], *own[1:5], own[0], *own[6:]],
                "the last element NaN": [*own[:-1], math.nan] if chain != "int8" else None,
                "the last element infinite": [*own[:-1], math.inf] if chain == "bfloat16" else None,
            }
            for variant, claim in variants.items():
                if claim is None or (variant != "honest" and claim == own):
                    continue
                reason = _rounded(values, claim, interval)
                given = {"chain": chain, "eps": EPS, "value": [shown(x) for x in values]}
                given["claim"] = [shown(x) for x in claim]
                text = f"{chain}: {what}: {variant}"
                if reason == "ok":
                    family.accept(text, "rounding", **given)
                elif reason:
                    family.refuse(reason, text, "rounding", **given)
        values = [math.nan, *row[1:]]
        given = {"chain": chain, "eps": EPS, "value": [shown(x) for x in values]}
        claim = [shown(x) for x in [honest(row[0]), *map(honest, row[1:])]]
        family.refuse(
            "nonfinite-operand", f"{chain}: a value that is NaN", "rounding", **given, claim=claim
        )
    return family


def _rounded(values: list[float], claim: list[float], interval: Any) -> str | None:
    """The reason, or None if it is too close to a limit to be a case."""
    if any(map(math.isnan, claim)):
        return "claim-nonfinite"
    ratios = []
    for v, q, slack in zip(values, claim, _slacks(values), strict=True):
        if math.isinf(q):
            return "rounding-mismatch"
        low, high = interval(q) if q or interval is not _bf16_interval else (-1e-40, 1e-40)
        ratios.append(max(0.0, low - v, v - high) / slack)
    worst = max(*ratios, math.sqrt(sum(r * r for r in ratios) / max(1, len(ratios) / 16)))
    if 0.8 < worst < 1.2:
        return None
    return "ok" if worst <= 1 else "rounding-mismatch"


COMPARISONS: dict[str, Any] = {
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}


def _decisions() -> Family:
    family = Family("decisions", "decision.md, sections 2 and 3")
    a = [f32(math.cos(2 * i) * 3) for i in range(11)]
    b = [f32(math.sin(5 * i + 1) * 3) for i in range(11)]
    rms = math.sqrt(sum(x * x for x in a) / 11) + math.sqrt(sum(x * x for x in b) / 11)
    b[3] = f32(a[3] + 0.4 * EPS * (rms + 2 * abs(a[3])))  # a tie
    b[4] = a[4]
    b[5] = f32(a[5] - 3 * EPS * (rms + 2 * abs(a[5])))  # close, but no tie
    a[7], b[8] = math.inf, -math.inf

    def packed(bits: list[bool]) -> bytes:
        return bytes(sum(bit << i for i, bit in enumerate(bits[at : at + 8])) for at in (0, 8))

    for kind, compare in COMPARISONS.items():
        own = [bool(compare(x, y)) for x, y in zip(a, b, strict=True)]
        given = {"kind": kind, "eps": EPS, "a": [shown(x) for x in a], "b": [shown(x) for x in b]}

        def turned(*places: int, own: list[bool] = own) -> bytes:
            return packed([bit ^ (i in places) for i, bit in enumerate(own)])

        family.accept(f"{kind}: right", "comparison", **given, claim=packed(own))
        family.accept(f"{kind}: a tie turned", "comparison", **given, claim=turned(3))
        family.accept(f"{kind}: equal numbers turned", "comparison", **given, claim=turned(4))
        bad = "decision-mismatch"
        for what, claim in (
            ("a clear decision turned", turned(0)),
            ("the last decision turned", turned(10)),
            ("three times the slack", turned(5)),
            ("beside infinity", turned(7)),
            ("beside minus infinity", turned(8)),
            ("a tie and a clear decision turned", turned(3, 9)),
            ("all turned", turned(*range(11))),
        ):
            family.refuse(bad, f"{kind}: {what}", "comparison", **given, claim=claim)
        end = packed(own)
        for bit in (3, 7):
            beyond = end[:1] + bytes([end[1] | 1 << bit])
            family.refuse(
                "claim-range",
                f"{kind}: bit {8 + bit}, beyond the last",
                "comparison",
                **given,
                claim=beyond,
            )
        strange = given | {"a": ["nan", *given["a"][1:]]}
        with_nan = [bool(compare(math.nan, b[0])), *own[1:]]
        family.accept(
            f"{kind}: NaN as the verifier decides it",
            "comparison",
            **strange,
            claim=packed(with_nan),
        )
        other = packed([not with_nan[0], *with_nan[1:]])
        family.refuse(
            "nonfinite-operand",
            f"{kind}: NaN decided otherwise",
            "comparison",
            **strange,
            claim=other,
        )
    v = [f32(math.cos(2 * i + 0.3) * 3) for i in range(11)]
    v[2], v[3], v[6] = 0.0, f32(EPS * 0.5), f32(-EPS * 40)
    codes = [(x > 0) - (x < 0) for x in v]
    given = {"eps": EPS, "value": [shown(x) for x in v]}
    for what, change in (
        ("right", {}),
        ("a tie the other way", {3: -1}),
        ("a tie as zero", {3: 0}),
        ("zero with a sign", {2: -1}),
        ("zero with the other sign", {2: 1}),
    ):
        family.accept(
            f"sign: {what}", "sign", **given, claim=[change.get(i, c) for i, c in enumerate(codes)]
        )
    for reason, what, change in (
        ("decision-mismatch", "a clear sign turned", {0: -codes[0]}),
        ("decision-mismatch", "a clear sign as zero", {1: 0}),
        ("decision-mismatch", "forty times eps", {6: 1}),
        ("claim-range", "three", {0: 3}),
        ("claim-range", "minus two", {0: -2}),
        ("claim-nonfinite", "the code of NaN", {0: 2}),
    ):
        family.refuse(
            reason,
            f"sign: {what}",
            "sign",
            **given,
            claim=[change.get(i, c) for i, c in enumerate(codes)],
        )
    strange = {"eps": EPS, "value": ["nan", *given["value"][1:]]}
    family.accept("sign: the code of NaN for NaN", "sign", **strange, claim=[2, *codes[1:]])
    family.refuse(
        "nonfinite-operand", "sign: a sign of NaN", "sign", **strange, claim=[1, *codes[1:]]
    )
    return family
