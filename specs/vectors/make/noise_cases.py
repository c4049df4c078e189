"""The noise of a sampler (specs/generation.md, section 1)."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from blake3 import blake3
from family import Family

CONTEXT = "verifiable v1 generation noise"
TABLES = "94425da06f3c45c0f406c0c7c0e81c648799dd42d5fad870fe218b126034b69b"
Tables = list[list[float]]


def narrowed(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


@functools.cache
def tables() -> Tables:
    """M, L_1, L_2, H_1, H_2."""
    places = [(d + 0.5) / 2**16 for d in range(2**16)]
    middle = [narrowed(-math.log(-math.log(q))) for q in places]
    low = [[narrowed(-math.log(-math.log(q * s))) for q in places] for s in (2.0**-8, 2.0**-16)]
    high = [[narrowed(-math.log(-math.log1p(-q * s))) for q in places] for s in (2.0**-8, 2.0**-16)]
    made = [middle, *low, *high]
    packed = b"".join(struct.pack(f"<{2**16}f", *table) for table in made)
    if blake3(packed).hexdigest() != TABLES:
        raise ValueError("this logarithm makes other tables than the specification has")
    return made


@dataclass(frozen=True)
class Rule:
    """How noise is made; the defaults are the specification, all else is a mistake."""

    context: str = CONTEXT
    material: Callable[[bytes, int], bytes] = lambda seed, i: seed + i.to_bytes(8, "little")
    order: Any = "little"
    levels: int = 3
    low_below: int = 256
    high_from: int = 65280
    high_refined_from_below: bool = False
    tails_exchanged: bool = False
    refined_at_once: bool = False
    reversed: bool = False


def noise(rule: Rule, seed: bytes, position: int, vocabulary: int) -> bytes:
    """Little-endian float32 of one position."""
    middle, low1, low2, high1, high2 = tables()
    if rule.tails_exchanged:
        low1, low2, high1, high2 = high1, high2, low1, low2
    material = rule.material(seed, position)
    stream = blake3(material, derive_key_context=rule.context).digest(length=8 * vocabulary + 64)
    at = 0

    def digit() -> int:
        nonlocal at
        at += 2
        return int.from_bytes(stream[at - 2 : at], rule.order)

    def tail(d: int) -> str | None:
        if d < rule.low_below:
            return "low"
        return "high" if d >= rule.high_from else None

    found = [0.0] * vocabulary
    second: list[tuple[int, str]] = []
    third: list[tuple[int, str]] = []

    def refine(token: int, side: str, level: int) -> bool:
        d = digit()
        table = {"low": (low1, low2), "high": (high1, high2)}[side][level]
        found[token] = table[d]
        if rule.high_refined_from_below and side == "high":
            return d >= 65280
        return d < 256

    tokens = range(vocabulary)
    for token in reversed(tokens) if rule.reversed else tokens:
        d = digit()
        found[token] = middle[d]
        side = tail(d)
        if side and rule.levels > 1:
            if rule.refined_at_once:
                if refine(token, side, 0):
                    refine(token, side, 1)
            else:
                second.append((token, side))
    third = [(token, side) for token, side in second if refine(token, side, 0)]
    for token, side in third:
        if rule.levels > 2:
            refine(token, side, 1)
    return struct.pack(f"<{vocabulary}f", *found)


MISTAKES = {
    "the position big-endian": Rule(material=lambda s, i: s + i.to_bytes(8, "big")),
    "the position before the seed": Rule(material=lambda s, i: i.to_bytes(8, "little") + s),
    "the position of four bytes": Rule(material=lambda s, i: s + i.to_bytes(4, "little")),
    "positions counted from one": Rule(material=lambda s, i: s + (i + 1).to_bytes(8, "little")),
    "the seed alone": Rule(material=lambda s, i: s),
    "another version of the context": Rule(context="verifiable v2 generation noise"),
    "the context of other draws": Rule(context="verifiable v1 sampling"),
    "digits big-endian": Rule(order="big"),
    "tails not refined": Rule(levels=1),
    "tails refined once": Rule(levels=2),
    "a digit of 256 counts as low": Rule(low_below=257),
    "a digit of 65,280 does not count as high": Rule(high_from=65281),
    "the tails exchanged": Rule(tails_exchanged=True),
    "the upper tail refined at its upper end": Rule(high_refined_from_below=True),
    "each token refined before the next": Rule(refined_at_once=True),
    "tokens from the last to the first": Rule(reversed=True),
}


# Positions at which each mistake makes noise of its own.
TELLING = {"00 01 ... 1f": 277, "32 bytes of ff": 260}


def make() -> list[Family]:
    family = Family("noise", "generation.md, section 1")
    seeds = {"00 01 ... 1f": bytes(range(32)), "32 bytes of ff": b"\xff" * 32}
    right = Rule()
    cases = []
    for name, seed in seeds.items():
        for position, vocabulary in (
            (0, 1),
            (0, 4096),
            (1, 4096),
            (2**32, 2048),
            (2**64 - 1, 2048),
        ):
            cases.append((name, seed, position, vocabulary))
    cases.append(("00 01 ... 1f", bytes(range(32)), 3, 49_152))
    for name, seed, position, vocabulary in cases:
        what = f"seed {name}, position {position}, {vocabulary} tokens"
        digest = blake3(noise(right, seed, position, vocabulary)).digest()
        given = {"seed": seed, "position": position, "vocabulary": vocabulary}
        family.accept(what, "noise", **given, digest=digest)
    for name, seed in seeds.items():
        position = TELLING[name]
        given = {"seed": seed, "position": position, "vocabulary": 49_152}
        truth = noise(right, seed, position, 49_152)
        for what, rule in MISTAKES.items():
            made = noise(rule, seed, position, 49_152)
            if made == truth:
                raise ValueError(f"no difference: {what}")
            digest = blake3(made).digest()
            family.refuse("wrong-value", f"{what}, seed {name}", "noise", **given, digest=digest)
        digest = blake3(truth[:-4]).digest()
        family.refuse(
            "wrong-value", f"a token left out, seed {name}", "noise", **given, digest=digest
        )
    return [family]
