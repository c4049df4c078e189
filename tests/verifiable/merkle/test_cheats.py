"""Hostile Merkle proofs: each verifier against a table of cheats, and edge cases of sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.helpers.merkle_oracle import (
    data,
    mth,
    path,
    smallest_multiproof,
    subproof,
    subtree_subproof,
)
from verifiable.errors import MalformedProof, MerkleError, RootMismatch
from verifiable.merkle import (
    BLAKE3,
    SHA256,
    Suite,
    Tree,
    root_from_inclusion,
    root_from_multiproof,
    roots_from_subtree_consistency,
    verify_consistency,
    verify_inclusion,
    verify_multiproof,
    verify_subtree_consistency,
    verify_subtree_inclusion,
)


@dataclass(frozen=True)
class Cheat:
    """What a prover sends in place of the honest arguments of a verifier."""

    name: str
    expect: type[MerkleError]
    tamper: Callable[[dict[str, Any]], dict[str, Any]]

    def __str__(self) -> str:
        return self.name


def change(**fields: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda honest: fields


def proof_of(edit: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda honest: {"proof": edit(honest["proof"])}


def leaf(index: int) -> bytes:
    return SHA256.leaf(data(index))


# For every verifier. Each honest proof has at least three digests.
PROOF_CHEATS = [
    Cheat("no proof", MalformedProof, proof_of(lambda p: ())),
    Cheat("null proof", MalformedProof, proof_of(lambda p: None)),
    Cheat("proof that is a number", MalformedProof, proof_of(lambda p: 2**64)),
    Cheat("proof that is one text", MalformedProof, proof_of(lambda p: "x" * len(p))),
    Cheat("proof that is one byte string", MalformedProof, proof_of(lambda p: bytes(len(p)))),
    Cheat("proof that is a map", MalformedProof, proof_of(lambda p: dict.fromkeys(p, b""))),
    Cheat("digest missing at the end", MalformedProof, proof_of(lambda p: p[:-1])),
    Cheat("digest missing at the start", MalformedProof, proof_of(lambda p: p[1:])),
    Cheat("extra digest", MalformedProof, proof_of(lambda p: (*p, bytes(32)))),
    Cheat("extra digest first", MalformedProof, proof_of(lambda p: (bytes(32), *p))),
    Cheat("a million digests", MalformedProof, proof_of(lambda p: p * 10**6)),
    Cheat("digests reordered", RootMismatch, proof_of(lambda p: p[::-1])),
    Cheat("digest repeated", RootMismatch, proof_of(lambda p: (*p[:-1], p[0]))),
    Cheat("short digest", MalformedProof, proof_of(lambda p: (p[0][:31], *p[1:]))),
    Cheat("long digest", MalformedProof, proof_of(lambda p: (*p[:-1], p[-1] + b"\0"))),
    Cheat(
        "byte moved between digests",
        MalformedProof,
        proof_of(lambda p: (p[0] + p[1][:1], p[1][1:], *p[2:])),
    ),
    Cheat("two digests as one", MalformedProof, proof_of(lambda p: (p[0] + p[1], *p[2:]))),
    Cheat("digest that is null", MalformedProof, proof_of(lambda p: (None, *p[1:]))),
    Cheat("digest that is text", MalformedProof, proof_of(lambda p: ("x" * 32, *p[1:]))),
    Cheat("digest that is a list", MalformedProof, proof_of(lambda p: (list(p[0]), *p[1:]))),
]

PROOF_CHEATS += [
    Cheat("root that is text", MalformedProof, change(root="x" * 32)),
    Cheat("root that is null", MalformedProof, change(root=None)),
    Cheat("root of no bytes", RootMismatch, change(root=b"")),
]

INCLUSION_CHEATS = [
    Cheat("inner node as a leaf", RootMismatch, change(leaf=mth(SHA256, 4, 6))),
    Cheat(
        "inner node as a leaf of a smaller tree",
        MalformedProof,
        lambda h: {"leaf": mth(SHA256, 4, 6), "index": 2, "proof": h["proof"][1:]},
    ),
    Cheat(
        "children of an inner node as leaf data",
        RootMismatch,
        change(leaf=SHA256.leaf(leaf(4) + leaf(5))),
    ),
    Cheat("root with an empty proof", MalformedProof, lambda h: {"leaf": h["root"], "proof": ()}),
    Cheat(
        "root as the only leaf, size lied about",
        MalformedProof,
        lambda h: {"leaf": h["root"], "index": 1, "proof": (), "size": 1},
    ),
    Cheat("data of the leaf in place of its digest", MalformedProof, change(leaf=data(4))),
    Cheat("leaf digest one byte short", MalformedProof, change(leaf=leaf(4)[1:])),
    Cheat("empty leaf digest", MalformedProof, change(leaf=b"")),
    Cheat("leaf of another position", RootMismatch, change(leaf=leaf(5))),
    Cheat("position of the sibling", RootMismatch, change(index=5)),
    Cheat("position of the other half", RootMismatch, change(index=0)),
    Cheat("position on a shorter path", MalformedProof, change(index=6)),
    Cheat("position at the size", MalformedProof, change(index=7)),
    Cheat("position beyond the size by a power of two", MalformedProof, change(index=4 + 8)),
    Cheat("position beyond 64 bits", MalformedProof, change(index=4 + 2**64)),
    Cheat("position of 5,000 digits", MalformedProof, change(index=10**4999)),
    Cheat("negative position", MalformedProof, change(index=-3)),
    Cheat("boolean position", MalformedProof, change(index=True)),
    Cheat("fractional position", MalformedProof, change(index=4.0)),
    Cheat("position as text", MalformedProof, change(index="4")),
    Cheat("null position", MalformedProof, change(index=None)),
    Cheat("size zero", MalformedProof, change(size=0)),
    Cheat("negative size", MalformedProof, change(size=-1)),
    Cheat("size of 2^64", MalformedProof, change(size=2**64)),
    Cheat("size of 5,000 digits", MalformedProof, change(size=10**4999)),
    Cheat("size of 2^64 - 1", MalformedProof, change(size=2**64 - 1)),
    Cheat("size as text", MalformedProof, change(size="7")),
    Cheat("boolean size", MalformedProof, change(index=0, size=True)),
    Cheat("size with a path as long, other root", RootMismatch, change(root=mth(SHA256, 0, 8))),
    Cheat(
        "last leaf doubled (CVE-2012-2459)",
        RootMismatch,
        lambda h: {
            "proof": Tree.from_data([*map(data, range(7)), data(6)], suite=SHA256).inclusion(7),
            "leaf": leaf(6),
            "index": 7,
            "size": 8,
        },
    ),
    Cheat("null leaf digest", MalformedProof, change(leaf=None)),
    Cheat("root of the other suite", RootMismatch, change(root=mth(BLAKE3, 0, 7))),
]

CONSISTENCY_CHEATS = [
    Cheat("roots swapped", RootMismatch, lambda h: {"old_root": h["root"], "root": h["old_root"]}),
    Cheat("another old root", RootMismatch, change(old_root=mth(SHA256, 0, 4))),
    Cheat("another new root", RootMismatch, change(root=mth(SHA256, 0, 6))),
    Cheat("old root one byte short", MalformedProof, change(old_root=mth(SHA256, 0, 5)[1:])),
    Cheat("old root as text", MalformedProof, change(old_root="x" * 32)),
    Cheat(
        "old root of a complete tree as text",
        MalformedProof,
        lambda h: {"old_size": 4, "proof": subproof(SHA256, 4, 0, 7, True), "old_root": "x" * 32},
    ),
    Cheat("old size of zero", MalformedProof, change(old_size=0)),
    Cheat("old size of zero, empty", MalformedProof, change(old_size=0, proof=())),
    Cheat("old size beyond the new", MalformedProof, change(old_size=8)),
    Cheat("same sizes, other roots", RootMismatch, change(old_size=7, proof=())),
    Cheat(
        "same sizes, old root as text",
        MalformedProof,
        change(old_size=7, proof=(), old_root="x" * 32),
    ),
    Cheat("same sizes, with a proof", MalformedProof, change(old_size=7)),
    Cheat("other old size", MalformedProof, change(old_size=6)),
    Cheat("other new size", MalformedProof, change(size=9)),
    Cheat("old size of 5,000 digits", MalformedProof, change(old_size=10**4999)),
    Cheat("negative old size", MalformedProof, change(old_size=-5)),
    Cheat("boolean old size", MalformedProof, change(old_size=True)),
    Cheat("old size as text", MalformedProof, change(old_size="5")),
    Cheat("new size of 2^64", MalformedProof, change(size=2**64)),
    Cheat("new size of 2^64 - 1", MalformedProof, change(size=2**64 - 1)),
    Cheat(
        "history rewritten",
        RootMismatch,
        lambda h: rewritten(Tree.from_data([b"x", *map(data, range(1, 7))], suite=SHA256)),
    ),
]

MULTIPROOF_CHEATS = [
    Cheat("no indices", MalformedProof, change(indices=[], leaves=[])),
    Cheat("null indices", MalformedProof, change(indices=None)),
    Cheat("indices as a map", MalformedProof, change(indices={2: 0, 5: 0, 11: 0})),
    Cheat("indices as text", MalformedProof, change(indices="abc")),
    Cheat("null leaves", MalformedProof, change(leaves=None)),
    Cheat("leaves as one byte string", MalformedProof, change(leaves=bytes(96))),
    Cheat("indices out of order", MalformedProof, change(indices=[5, 2, 11])),
    Cheat("index repeated", MalformedProof, change(indices=[2, 2, 11])),
    Cheat("index at the size", MalformedProof, change(indices=[2, 5, 12])),
    Cheat("index beyond 64 bits", MalformedProof, change(indices=[2, 5, 2**64 + 11])),
    Cheat("index of 5,000 digits", MalformedProof, change(indices=[2, 5, 10**4999])),
    Cheat("negative index", MalformedProof, change(indices=[-10, 5, 11])),
    Cheat("boolean index", MalformedProof, change(indices=[True, 5, 11])),
    Cheat("fractional index", MalformedProof, change(indices=[2.0, 5, 11])),
    Cheat("index as text", MalformedProof, change(indices=["2", 5, 11])),
    Cheat("other indices, as many digests", RootMismatch, change(indices=[3, 5, 11])),
    Cheat("leaf missing", MalformedProof, change(leaves=[leaf(2), leaf(5)])),
    Cheat("extra leaf", MalformedProof, change(leaves=[leaf(i) for i in (2, 5, 11, 12)])),
    Cheat(
        "leaf and index missing", MalformedProof, change(indices=[2, 5], leaves=[leaf(2), leaf(5)])
    ),
    Cheat("leaves reordered", RootMismatch, change(leaves=[leaf(5), leaf(2), leaf(11)])),
    Cheat("leaf repeated", RootMismatch, change(leaves=[leaf(2), leaf(2), leaf(11)])),
    Cheat("short leaf", MalformedProof, change(leaves=[leaf(2)[1:], leaf(5), leaf(11)])),
    Cheat("leaf that is null", MalformedProof, change(leaves=[None, leaf(5), leaf(11)])),
    Cheat("rows of another width", MalformedProof, change(leaves=np.zeros((3, 31), np.uint8))),
    Cheat("rows of another dtype", MalformedProof, change(leaves=np.zeros((3, 32), np.int8))),
    Cheat(
        "rows with an axis too many", MalformedProof, change(leaves=np.zeros((3, 32, 1), np.uint8))
    ),
    Cheat("size of 2^64", MalformedProof, change(size=2**64)),
    Cheat("size of 5,000 digits", MalformedProof, change(size=10**4999)),
    Cheat("size of 2^64 - 1", MalformedProof, change(size=2**64 - 1)),
    Cheat("size zero", MalformedProof, change(size=0)),
    Cheat("other size", MalformedProof, change(size=17)),
    Cheat("other root", RootMismatch, change(root=mth(SHA256, 0, 13))),
    Cheat(
        "root as the only leaf",
        MalformedProof,
        lambda h: {"indices": [0], "leaves": [h["root"]], "proof": ()},
    ),
]

SUBTREE_CHEATS = [
    Cheat("start not a multiple of the width", MalformedProof, change(start=3, end=6)),
    Cheat("empty subtree", MalformedProof, change(end=4)),
    Cheat("end beyond the size", MalformedProof, change(end=14)),
    Cheat("end before the start", MalformedProof, change(end=3)),
    Cheat("negative start", MalformedProof, change(start=-4)),
    Cheat("negative range", MalformedProof, change(start=-8, end=0)),
    Cheat("empty negative range", MalformedProof, change(start=-4, end=-4, proof=())),
    Cheat("start as text", MalformedProof, change(start="4")),
    Cheat("narrower", MalformedProof, change(end=6)),
    Cheat("neighbour", RootMismatch, change(start=0, end=3)),
    Cheat("root of the neighbour", RootMismatch, change(subtree_root=mth(SHA256, 0, 3))),
    Cheat("root of the tree", RootMismatch, change(subtree_root=mth(SHA256, 0, 13))),
    Cheat("another tree", RootMismatch, change(root=mth(SHA256, 0, 12))),
]

SUBTREE_INCLUSION_CHEATS = [
    Cheat("all positions moved by one", MalformedProof, change(start=9, end=16, index=14)),
    Cheat("empty subtree", MalformedProof, change(end=8)),
    Cheat("end before the start", MalformedProof, change(end=7)),
    Cheat("index before the start", MalformedProof, change(index=7)),
    Cheat("index at the end", MalformedProof, change(index=15)),
    Cheat("index counted in the subtree", MalformedProof, change(index=5)),
    Cheat("index as text", MalformedProof, change(index="13")),
    Cheat("boolean index", MalformedProof, change(index=True)),
    Cheat("null index", MalformedProof, change(index=None)),
    Cheat("start as text", MalformedProof, change(start="8")),
    Cheat("index of 5,000 digits", MalformedProof, change(index=10**4999)),
    Cheat("positions of 2^64", MalformedProof, change(start=2**64, end=2**64 + 7)),
    Cheat("other leaf", RootMismatch, change(leaf=leaf(12))),
    Cheat("leaf of no bytes", MalformedProof, change(leaf=b"")),
    Cheat("root of the tree", RootMismatch, change(root=mth(SHA256, 0, 15))),
]


def rewritten(other: Tree) -> dict[str, Any]:
    return {"proof": other.consistency(5), "root": other.root}


def honest_inclusion() -> dict[str, Any]:
    root, proof = mth(SHA256, 0, 7), path(SHA256, 4, 0, 7)
    return {"proof": (*proof,), "leaf": leaf(4), "index": 4, "size": 7, "root": root}


def honest_consistency() -> dict[str, Any]:
    roots = {"old_root": mth(SHA256, 0, 5), "root": mth(SHA256, 0, 7)}
    return {"proof": subproof(SHA256, 5, 0, 7, True), "old_size": 5, "size": 7, **roots}


def honest_multiproof() -> dict[str, Any]:
    indices = [2, 5, 11]
    proof = smallest_multiproof(SHA256, indices, 12)
    leaves = [leaf(i) for i in indices]
    root = mth(SHA256, 0, 12)
    return {"proof": proof, "leaves": leaves, "indices": indices, "size": 12, "root": root}


def honest_subtree() -> dict[str, Any]:
    proof = subtree_subproof(SHA256, (4, 7), (0, 13), True)
    roots = {"subtree_root": mth(SHA256, 4, 7), "root": mth(SHA256, 0, 13)}
    return {"proof": proof, "start": 4, "end": 7, "size": 13, **roots}


def honest_subtree_inclusion() -> dict[str, Any]:
    proof, root = path(SHA256, 5, 8, 15), mth(SHA256, 8, 15)
    return {"proof": proof, "leaf": leaf(13), "index": 13, "start": 8, "end": 15, "root": root}


SCENES = {
    "subtree inclusion": (
        verify_subtree_inclusion,
        honest_subtree_inclusion,
        SUBTREE_INCLUSION_CHEATS,
    ),
    "inclusion": (verify_inclusion, honest_inclusion, INCLUSION_CHEATS),
    "consistency": (verify_consistency, honest_consistency, CONSISTENCY_CHEATS),
    "multiproof": (verify_multiproof, honest_multiproof, MULTIPROOF_CHEATS),
    "subtree": (verify_subtree_consistency, honest_subtree, SUBTREE_CHEATS),
}


@pytest.mark.parametrize(
    ("verify", "honest", "cheat"),
    [
        pytest.param(verify, honest, cheat, id=f"{scene}: {cheat}")
        for scene, (verify, honest, cheats) in SCENES.items()
        for cheat in PROOF_CHEATS + cheats
    ],
)
def test_cheat(verify: Any, honest: Callable[[], dict[str, Any]], cheat: Cheat):
    arguments = honest()
    assert len(arguments["proof"]) >= 3
    verify(suite=SHA256, **arguments)
    with pytest.raises(cheat.expect):
        verify(suite=SHA256, **{**arguments, **cheat.tamper(arguments)})


@pytest.mark.parametrize(
    ("scene", "name", "index"),
    [
        ("inclusion", "root", 4),
        ("subtree inclusion", "root", 5),
        ("consistency", "old_root", None),
        ("consistency", "root", None),
        ("subtree", "subtree_root", None),
        ("subtree", "root", None),
        ("multiproof", "root", None),
    ],
)
def test_a_mismatch_carries_both_sides(scene: str, name: str, index: int | None):
    verify, honest, _ = SCENES[scene]
    arguments = honest()
    with pytest.raises(RootMismatch) as caught:
        verify(suite=SHA256, **arguments | {name: bytes(32)})
    found = caught.value
    assert (found.expected, found.computed, found.index) == (bytes(32), arguments[name], index)


def test_lengths_are_compared_before_anything_is_hashed():
    def refuse(*_: Any) -> Any:
        raise AssertionError("hashed")

    suite = Suite(name="none", empty=b"", leaf=refuse, leaves=refuse, node=refuse, nodes=refuse)
    for verify, honest, _ in SCENES.values():
        for edit in (lambda p: p[:-1], lambda p: (*p, p[0]), lambda p: (*p[:-1], b"")):
            arguments = honest()
            arguments["proof"] = edit(arguments["proof"])
            with pytest.raises(MalformedProof):
                verify(suite=suite, **arguments)


@pytest.mark.parametrize("size", [2**64, 2**64 + 1, 2**80], ids=["2^64", "2^64 + 1", "2^80"])
def test_sizes_end_at_64_bits_whatever_the_proof(size: int):
    for length in range(90):
        proof: Any = (bytes(32),) * length
        with pytest.raises(MalformedProof):
            root_from_inclusion(proof, leaf=bytes(32), index=0, size=size)
        with pytest.raises(MalformedProof):
            root_from_multiproof(proof, leaves=[bytes(32)], indices=[0], size=size)
        with pytest.raises(MalformedProof):
            roots_from_subtree_consistency(proof, start=0, end=1, size=size, subtree_root=bytes(32))


def test_nothing_is_in_the_empty_tree():
    for suite in (BLAKE3, SHA256):
        for digest in (suite.empty, suite.leaf(b"")):
            with pytest.raises(MalformedProof):
                verify_inclusion((), leaf=digest, index=0, size=0, root=suite.empty, suite=suite)
            with pytest.raises(MalformedProof):
                verify_multiproof(
                    (), leaves=[digest], indices=[0], size=0, root=suite.empty, suite=suite
                )


def test_no_root_follows_from_an_empty_subtree():
    where: Any = {"start": 2, "end": 2, "size": 5, "subtree_root": SHA256.empty, "suite": SHA256}
    with pytest.raises(MalformedProof):
        roots_from_subtree_consistency((), **where)
    for root in (mth(SHA256, 0, 5), bytes(32)):
        verify_subtree_consistency((), root=root, **where)
    for fields, expect in (
        ({"subtree_root": bytes(32)}, RootMismatch),
        ({"start": 6, "end": 6}, MalformedProof),
        ({"end": 1}, MalformedProof),
    ):
        with pytest.raises(expect):
            verify_subtree_consistency((), root=bytes(32), **{**where, **fields})


def test_a_leaf_of_the_only_leaf_tree_is_its_root_and_no_other():
    root = mth(SHA256, 0, 1)
    verify_inclusion((), leaf=root, index=0, size=1, root=root, suite=SHA256)
    with pytest.raises(RootMismatch):
        verify_inclusion((), leaf=bytes(32), index=0, size=1, root=root, suite=SHA256)


@pytest.mark.parametrize("short", [b"", bytes(31), bytes(33)], ids=len)
def test_what_a_proof_starts_from_has_32_bytes_where_nothing_is_hashed(short: bytes):
    """Of equal sizes, and in the tree of one leaf, no node would refuse it."""
    with pytest.raises(MalformedProof):
        verify_inclusion((), leaf=short, index=0, size=1, root=short)
    with pytest.raises(MalformedProof):
        verify_consistency((), old_size=7, old_root=short, size=7, root=short)
    with pytest.raises(MalformedProof):
        roots_from_subtree_consistency((), start=0, end=7, size=7, subtree_root=short)
