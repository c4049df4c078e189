"""Audits of a part: draws, ids of plans, and openings (specs/audit.md)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from family import Family
from spec import BLAKE, cbor, leaves, mth, multiproof, tagged_hash

WRONG = "wrong-value"
SEED, OTHER = bytes(range(32)), bytes(range(1, 33))
PROGRAM = tagged_hash("vectors", b"a program")
MAGIC = b"verifiable audit 2".ljust(32, b"\0")


def smallest(numbers: Sequence[int], count: int, tag: str, *of: bytes, order: str) -> list[int]:
    def digest(number: int) -> bytes:
        return tagged_hash(tag, *of, number.to_bytes(8, order))  # pyright: ignore[reportArgumentType]

    return sorted(sorted(numbers, key=digest)[:count])


def layers_of(seed: bytes, population: int, count: int, *, order: str = "little") -> list[int]:
    return smallest(range(population), count, "layer of an audit", seed, order=order)


def rows_of(
    seed: bytes, layer: int | None, length: int, count: int, block: int, answer: list[int]
) -> list[int]:
    if count >= length:
        return list(range(length))
    of = [] if layer is None else [layer.to_bytes(8, "little")]
    others = [k for k in range(-(-length // block)) if k not in answer]
    left = count // block - len(answer)
    chosen = [*smallest(others, left, "rows of an audit", seed, *of, order="little"), *answer]
    found: list[int] = []
    first = length
    for k in sorted(chosen, reverse=True):
        stop = min((k + 1) * block, first)
        first = stop - block
        found += range(first, stop)
    return sorted(found)


def runs(indices: Sequence[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for i in indices:
        if found and found[-1][1] == i:
            found[-1][1] = i + 1
        else:
            found.append([i, i + 1])
    return found


def id_of(plan: dict[str, Any]) -> bytes:
    content = [plan["population"], plan["layers"], runs(plan["leaves"])]
    if "rows" in plan:
        content.append(plan["rows"])
    return tagged_hash("plan of an audit", plan["program"], plan["seed"], cbor(content))


def make() -> list[Family]:
    family = Family("partial", "audit.md, sections 4 and 5")
    _draws(family)
    _plans(family)
    _openings(family)
    return [family]


def _draws(family: Family) -> None:
    for population, count in ((1, 1), (4, 1), (30, 1), (30, 7), (300, 3)):
        right = layers_of(SEED, population, count)
        given = {"seed": SEED, "population": population, "count": count}
        family.accept(f"{count} of {population} layers", "layers", **given, layers=right)
        if count == population:
            continue
        for what, found in (
            ("of another seed", layers_of(OTHER, population, count)),
            ("numbers in big-endian bytes", layers_of(SEED, population, count, order="big")),
            ("the first layers", list(range(count))),
            ("a layer too many", layers_of(SEED, population, count + 1)),
        ):
            if found != right:
                why = f"{count} of {population} layers, {what}"
                family.refuse(WRONG, why, "layers", **given, layers=found)
    cases: list[tuple[str, int | None, int, int, int, list[int]]] = [
        ("one row", 3, 128, 1, 1, []),
        ("eight rows in blocks of four", 3, 32, 8, 4, []),
        ("rows of all layers alike", None, 32, 8, 4, []),
        ("blocks of the answer", 0, 32, 12, 4, [7]),
        ("two blocks of the answer, without cuts", None, 40, 12, 4, [0, 9]),
        ("the last block is cut short", 5, 22, 16, 4, []),
        ("the last block is the answer's, and cut short", 5, 22, 16, 4, [5]),
        ("all rows", 2, 16, 16, 4, []),
    ]
    for what, layer, length, count, block, answer in cases:
        right = rows_of(SEED, layer, length, count, block, answer)
        given = {"seed": SEED, "length": length, "count": count, "block": block, "answer": answer}
        given |= {} if layer is None else {"layer": layer}
        family.accept(what, "rows", **given, rows=right)
        if count == length:
            continue
        other = (layer or 0) + 1
        for why, found in (
            ("of another seed", rows_of(OTHER, layer, length, count, block, answer)),
            ("of another layer", rows_of(SEED, other, length, count, block, answer)),
            ("the first rows", list(range(count))),
            ("a row less", right[:-1]),
        ):
            if found != right:
                family.refuse(WRONG, f"{what}, {why}", "rows", **given, rows=found)


def _plans(family: Family) -> None:
    plan: dict[str, Any] = {
        "program": PROGRAM,
        "seed": SEED,
        "population": 30,
        "layers": [3, 17],
        "leaves": [0, 1, 2, 5, 7, 8, 300],
    }
    in_rows = plan | {"rows": [[0, 1, 4, 5], [2, 3, 6, 7]]}
    for what, given in (("a plan", plan), ("a plan of rows", in_rows)):
        family.accept(what, "plan", **given, plan=id_of(given))
        leaf_by_leaf = cbor(
            [30, [3, 17], plan["leaves"], *([given["rows"]] if "rows" in given else [])]
        )
        for why, found in (
            ("of another seed", id_of(given | {"seed": OTHER})),
            ("of another program", id_of(given | {"program": OTHER})),
            ("of another layer", id_of(given | {"layers": [3, 18]})),
            ("of a leaf less", id_of(given | {"leaves": plan["leaves"][:-1]})),
            ("of as many layers of another program", id_of(given | {"population": 31})),
            ("leaves one by one", tagged_hash("plan of an audit", PROGRAM, SEED, leaf_by_leaf)),
            ("under another tag", tagged_hash("plan", PROGRAM, SEED, cbor([30, [3, 17], []]))),
        ):
            family.refuse(WRONG, f"{what}, {why}", "plan", **given, plan=found)
    family.refuse(WRONG, "a plan of rows, without them", "plan", **in_rows, plan=id_of(plan))
    family.refuse(WRONG, "a plan of all rows, with rows", "plan", **plan, plan=id_of(in_rows))


FLOATS = b"".join(struct.pack("<f", i / 4 - 1) for i in range(18))
FLAGS = bytes([0, 1, 1, 0, 1, 0])
# Two claims; outputs that are the last rows of the first, all of the second, and neither.
TENSORS: list[tuple[str, list[int], bytes]] = [
    ("float32", [6, 3], FLOATS),
    ("bool", [6], FLAGS),
    ("float32", [3, 3], FLOATS[36:]),
    ("bool", [2, 3], FLAGS),
    ("int8", [4], bytes([1, 2, 3, 4])),
]
COPIES = [[2, 0, 36], [3, 1, 0]]
ASKED = [1, 2, 3, 4, 5, 6, 7]  # all but the first leaf


def _changed(tensor: int, data: bytes) -> list[tuple[str, list[int], bytes]]:
    dtype, shape, _ = TENSORS[tensor]
    return [*TENSORS[:tensor], (dtype, shape, data), *TENSORS[tensor + 1 :]]


class Sent:
    """A commitment, and parts of its opening."""

    def __init__(self, tensors: list[tuple[str, list[int], bytes]], asked: list[int] = ASKED):
        self.pieces = leaves(tensors, 24)
        digests = [BLAKE.leaf(piece[3]) for piece in self.pieces]
        self.commitment = {"root": mth(BLAKE, digests), "size": len(digests)}
        self.proof = multiproof(BLAKE, asked, digests)
        self.all = [self.pieces[i][3] for i in asked]
        copies = {tensor for tensor, _, _ in COPIES}
        self.short = [self.pieces[i][3] for i in asked if self.pieces[i][0] not in copies]


def _openings(family: Family) -> None:
    plan: dict[str, Any] = {
        "program": PROGRAM,
        "seed": SEED,
        "population": 4,
        "layers": [2],
        "leaves": ASKED,
    }
    layout = {
        "layout": [{"dtype": dtype, "shape": shape} for dtype, shape, _ in TENSORS],
        "claims": 2,
        "leaf_bytes": 24,
    }
    own = id_of(plan)
    equal, last_bit = Sent(TENSORS), Sent(_changed(2, b"\x01" + FLOATS[37:]))
    assert len(equal.pieces) == 8 and [p[0] for p in equal.pieces] == [0, 0, 0, 1, 2, 2, 3, 4]
    unopened = Sent(_changed(0, b"\x01" + FLOATS[1:]))
    other_flags = Sent(_changed(3, bytes([1, 1, 1, 0, 1, 0])))
    two = Sent(_changed(1, bytes([0, 2, 1, 0, 1, 0])))

    def data(pieces: list[bytes], proof: list[bytes], plan_id: bytes = own) -> bytes:
        return b"".join([MAGIC, plan_id, *pieces, *proof])

    def given(sent: Sent, opening: bytes, **change: Any) -> dict[str, Any]:
        return {
            **layout,
            **plan,
            "copies": COPIES,
            "commitment": sent.commitment,
            "data": opening,
            **change,
        }

    short = data(equal.short, equal.proof)
    family.accept("leaves of copies are left out", "opening", equal.all, **given(equal, short))
    whole = data(equal.all, equal.proof)
    family.accept("no copies", "opening", equal.all, **given(equal, whole, copies=[]))
    for sent, what in ((last_bit, "a copy differs"), (other_flags, "another copy differs")):
        opening = data(sent.all, sent.proof)
        family.accept(f"{what}, and all are sent", "opening", sent.all, **given(sent, opening))
        opening = data(sent.short, sent.proof)
        why = f"{what}, and none is sent"
        family.refuse("opening-mismatch", why, "opening", **given(sent, opening))
    structure, mismatch = "opening-structure", "opening-mismatch"
    swapped = [equal.short[1], equal.short[0], *equal.short[2:]]
    forged = [bytes([equal.short[0][0] ^ 1]) + equal.short[0][1:], *equal.short[1:]]
    far = [*last_bit.all]
    far[3] = b"\x02" + far[3][1:]
    size = equal.commitment | {"size": 9}
    for reason, what, sent, opening, change in (
        (structure, "copies are sent, and are equal", equal, whole, {}),
        (structure, "a byte missing", equal, short[:-1], {}),
        (structure, "a byte too many", equal, short + b"\0", {}),
        (structure, "nothing", equal, b"", {}),
        (structure, "the header alone", equal, MAGIC + own, {}),
        (structure, "a leaf missing", equal, data(equal.short[1:], equal.proof), {}),
        (structure, "a digest missing", equal, data(equal.short, equal.proof[:-1]), {}),
        (structure, "one of two copies is sent", equal, data(equal.all[:6], equal.proof), {}),
        (structure, "another version", equal, short.replace(b"audit 2", b"audit 1"), {}),
        (structure, "copies left out of a plan without", equal, short, {"copies": []}),
        ("opening-plan", "another plan", equal, data(equal.short, equal.proof, OTHER), {}),
        ("opening-plan", "another seed", equal, short, {"seed": OTHER}),
        ("opening-plan", "another layer", equal, short, {"layers": [1]}),
        (mismatch, "leaves swapped", equal, data(swapped, equal.proof), {}),
        (mismatch, "another leaf", equal, data(forged, equal.proof), {}),
        (structure, "a differing copy, sent equal", last_bit, whole, {}),
        (mismatch, "another digest", equal, data(equal.short, [OTHER]), {}),
        (mismatch, "of another commitment", unopened, short, {}),
        (mismatch, "a copy that was not committed to", last_bit, data(far, last_bit.proof), {}),
        (mismatch, "another size committed to", equal, short, {"commitment": size}),
        ("opening-leaf", "a boolean of 2", two, data(two.all, two.proof), {}),
    ):
        family.refuse(reason, what, "opening", **given(sent, opening, **change))
