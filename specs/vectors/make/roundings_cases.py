"""Claims within a tolerance that need no key: roundings and decisions."""

from __future__ import annotations

import math
import struct
from typing import Any

from family import Family

EPS = 2.0**-16
TINY = 2.0**-126


def make() -> list[Family]:
    return [_roundings(), _decisions()]


def shown(x: float) -> Any:
    return x if math.isfinite(x) and not (x == 0 and math.copysign(1, x) < 0) else str(x)


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
