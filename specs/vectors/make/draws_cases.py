"""Draws from seeds, challenges (specs/sampling.md, section 1; freivalds.md, section 6)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from blake3 import blake3
from family import Family
from spec import cbor, tagged_hash

P = 2**61 - 1


@dataclass(frozen=True)
class Rule:
    """How numbers are drawn; the defaults are the specification."""

    context: str = "verifiable v1 sampling"
    prefix: bool = True
    order: Any = "little"
    modulo: bool = False
    whole_words: bool = False
    replaced: bool = False


class Stream:
    def __init__(self, rule: Rule, seed: bytes, kind: str, label: str):
        name = f"{kind}/{label}" if rule.prefix else label
        hasher = blake3(seed + name.encode(), derive_key_context=rule.context)
        self.data, self.at, self.rule = hasher.digest(length=1 << 14), 0, rule

    def read(self, size: int) -> int:
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], self.rule.order)

    def below(self, bound: int) -> int:
        bits = (bound - 1).bit_length()
        size = 8 if self.rule.whole_words else -(-bits // 8)
        while True:
            value = self.read(size) % 2**bits
            if self.rule.modulo:
                return value % bound
            if value < bound:
                return value


def draw(rule: Rule, seed: bytes, population: int, audits: int, label: str) -> list[int]:
    stream, entries = Stream(rule, seed, "draw", label), list(range(population))
    for place in range(audits):
        other = (
            stream.below(population) if rule.replaced else place + stream.below(population - place)
        )
        entries[place], entries[other] = entries[other], entries[place]
    return entries[:audits]


def each(rule: Rule, seed: bytes, rates: list[float], label: str) -> list[int]:
    stream = Stream(rule, seed, "each", label)
    return [i for i, rate in enumerate(rates) if stream.read(8) < math.ceil(rate * 2**64)]


def select(rule: Rule, seed: bytes, weights: list[int], seats: int, label: str) -> list[int]:
    stream, chosen = Stream(rule, seed, "select", label), []
    for _ in range(seats):
        left = [i for i in range(len(weights)) if i not in chosen]
        point = stream.below(sum(weights[i] for i in left))
        for i in left:
            if point < weights[i]:
                chosen.append(i)
                break
            point -= weights[i]
    return chosen


MISTAKES = {
    "another context": Rule(context="verifiable v1 draws"),
    "no kind before the label": Rule(prefix=False),
    "numbers big-endian": Rule(order="big"),
    "a remainder in place of another try": Rule(modulo=True),
    "a word for each number": Rule(whole_words=True),
}


def make() -> list[Family]:
    family = Family("draws", "sampling.md, section 1; freivalds.md, section 6")
    seed, right = bytes(range(32)), Rule()
    rates = [0.0, 1.0, 0.5, 0.25, 0.75, 1e-9, 0.3, 0.9, 0.1, 0.6] * 3
    weights = [5, 0, 10**24, 3 * 10**24, 7, 2 * 10**24, 10**24, 1]
    for label in ("audits", "worker/\u00e9"):
        for population, audits in ((1, 1), (7, 7), (1000, 12), (2**16 + 1, 5), (300, 0)):
            drawn = draw(right, seed, population, audits, label)
            what = f"{audits} of {population}, {label}"
            given = {"seed": seed, "population": population, "audits": audits, "label": label}
            family.accept(what, "draw", **given, drawn=drawn)
        family.accept(
            f"each at its rate, {label}",
            "each",
            seed=seed,
            rates=rates,
            label=label,
            drawn=each(right, seed, rates, label),
        )
        family.accept(
            f"seats by weight, {label}",
            "select",
            seed=seed,
            weights=weights,
            seats=4,
            label=label,
            chosen=select(right, seed, weights, 4, label),
        )
    drawers: dict[str, tuple[Callable[..., list[int]], tuple[Any, ...], dict[str, Any], str]] = {
        "draw": (draw, (300, 20), {"population": 300, "audits": 20}, "drawn"),
        "each": (each, (rates,), {"rates": rates}, "drawn"),
        "select": (select, (weights, 4), {"weights": weights, "seats": 4}, "chosen"),
    }
    for operation, (function, arguments, given, result) in drawers.items():
        truth = function(right, seed, *arguments, "audits")
        wrong = {
            what: function(rule, seed, *arguments, "audits") for what, rule in MISTAKES.items()
        }
        wrong["another label"] = function(right, seed, *arguments, "audit")
        wrong["another seed"] = function(right, bytes(32), *arguments, "audits")
        wrong["one left out"] = truth[:-1]
        wrong["in another order"] = truth[::-1]
        if operation == "draw":
            wrong["entries exchanged with any other"] = function(
                Rule(replaced=True), seed, *arguments, "audits"
            )
        for what, found in wrong.items():
            if found != truth:
                family.refuse(
                    "wrong-value",
                    f"{operation}: {what}",
                    operation,
                    seed=seed,
                    **given,
                    label="audits",
                    **{result: found},
                )
    _challenges(family)
    return [family]


def residues(
    seed: bytes, label: str, count: int, order: Any = "little", swapped: bool = False
) -> list[int]:
    data = blake3(
        seed + f"residue/{label}".encode(), derive_key_context="verifiable v1 draws"
    ).digest(length=16 * count)
    words = [int.from_bytes(data[8 * i : 8 * i + 8], order) for i in range(2 * count)]
    pairs = [(words[2 * i + swapped], words[2 * i + (not swapped)]) for i in range(count)]
    return [(a * 2**64 + b) % P for a, b in pairs]


def _challenges(family: Family) -> None:
    random = bytes(range(100, 132))
    seed, label = tagged_hash("secret challenge", random), "exact/parameters/4"
    secret = {"random": random, "label": label, "count": 4}
    right = {"id": tagged_hash("challenge id", seed), "residues": residues(seed, label, 4)}
    family.accept("a secret challenge", "secret", **secret, **right)
    for what, change in (
        ("the seed as its own name", {"id": tagged_hash("challenge id", random)}),
        ("the name unhashed", {"id": seed}),
        ("residues of the random bytes", {"residues": residues(random, label, 4)}),
        ("words big-endian", {"residues": residues(seed, label, 4, "big")}),
        ("the low word first", {"residues": residues(seed, label, 4, "little", True)}),
        ("another set", {"residues": residues(seed, "exact/activations/4", 4)}),
        ("a residue more than p", {"residues": [r + P for r in right["residues"]]}),
    ):
        family.refuse("wrong-value", what, "secret", **secret, **(right | change))
    public: dict[str, Any] = {
        **{"program": b"\1" * 32, "policy": b"\2" * 32, "parameters": b"\3" * 32},
        **{"log_root": b"\4" * 32, "log_size": 9, "closed_at": 11, "log_chain": "drand"},
        **{"chain": "drand", "round": 12, "value": b"\5" * 32},
    }

    def seed_of(given: dict[str, Any], *order: str, place: Any = None) -> bytes:
        parts = [given[name] for name in order]
        place = (
            cbor([given["log_size"], given["chain"], given["round"]]) if place is None else place
        )
        return tagged_hash("public challenge", *parts, place, given["value"])

    names = ("program", "policy", "parameters", "log_root")
    truth = tagged_hash("challenge id", seed_of(public, *names))
    family.accept("a public challenge", "public", **public, id=truth)
    for what, seed in (
        ("policy before program", seed_of(public, "policy", "program", "parameters", "log_root")),
        ("the log left out", seed_of(public, *names[:3])),
        ("the size left out", seed_of(public, *names, place=cbor(["drand", 12]))),
        ("another round", seed_of(public | {"round": 13}, *names)),
        ("another value of the beacon", seed_of(public | {"value": b"\6" * 32}, *names)),
        ("another parameter root", seed_of(public | {"parameters": b"\7" * 32}, *names)),
    ):
        family.refuse("wrong-value", what, "public", **public, id=tagged_hash("challenge id", seed))
    for what, change in (
        ("a round known when the log closed", {"round": 11}),
        ("another beacon than the log waits for", {"chain": "other"}),
    ):
        made = tagged_hash("challenge id", seed_of(public | change, *names))
        family.refuse("known-beacon", what, "public", **(public | change), id=made)
