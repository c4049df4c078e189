"""Merkle trees: against the definitions and verifiers of RFC 9162, and against hostile proofs."""

from __future__ import annotations

import base64
import functools
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.helpers.paths import VECTORS
from verifiable.errors import MalformedProof, MerkleError, RootMismatch
from verifiable.merkle import (
    BLAKE3,
    MAX_SIZE,
    SHA256,
    Suite,
    Tree,
    root_from_inclusion,
    root_from_leaf_data,
    root_from_multiproof,
    roots_from_subtree_consistency,
    verify_consistency,
    verify_inclusion,
    verify_multiproof,
    verify_subtree_consistency,
    verify_subtree_inclusion,
)

SUITE = VECTORS / "rfc6962"

SUITES = pytest.mark.parametrize("suite", [BLAKE3, SHA256], ids=lambda suite: suite.name)
SIZE = 70

Proof = tuple[bytes, ...]


# The slow oracle: RFC 9162, 2.1.1 to 2.1.4, over ranges of a fixed list of leaves.


def data(index: int) -> bytes:
    return f"leaf {index}".encode()


@functools.cache
def mth(suite: Suite, start: int, end: int) -> bytes:
    if end == start:
        return suite.empty
    if end - start == 1:
        return suite.leaf(data(start))
    k = largest_power_below(end - start)
    return suite.node(mth(suite, start, start + k), mth(suite, start + k, end))


def largest_power_below(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def path(suite: Suite, m: int, start: int, end: int) -> Proof:
    """PATH(m, D[start:end]), m counted from `start`."""
    if end - start == 1:
        return ()
    k = largest_power_below(end - start)
    if m < k:
        return (*path(suite, m, start, start + k), mth(suite, start + k, end))
    return (*path(suite, m - k, start + k, end), mth(suite, start, start + k))


def subproof(suite: Suite, m: int, start: int, end: int, known: bool) -> Proof:
    """SUBPROOF(m, D[start:end], known)."""
    if m == end - start:
        return () if known else (mth(suite, start, end),)
    k = largest_power_below(end - start)
    if m <= k:
        return (*subproof(suite, m, start, start + k, known), mth(suite, start + k, end))
    return (*subproof(suite, m - k, start + k, end, False), mth(suite, start, start + k))


def subtree_subproof(
    suite: Suite, subtree: tuple[int, int], tree: tuple[int, int], known: bool
) -> Proof:
    """SUBTREE_SUBPROOF of the Merkle Tree Certificates draft, with positions in the whole tree."""
    (start, end), (low, high) = subtree, tree
    if subtree == tree:
        return () if known else (mth(suite, low, high),)
    k = low + largest_power_below(high - low)
    if end <= k:
        return (*subtree_subproof(suite, subtree, (low, k), known), mth(suite, k, high))
    if k <= start:
        return (*subtree_subproof(suite, subtree, (k, high), known), mth(suite, low, k))
    return (*subtree_subproof(suite, (k, end), (k, high), False), mth(suite, low, k))


def inclusion_accepts(proof: Proof, leaf: bytes, where: tuple[int, int], root: bytes) -> bool:
    """RFC 9162, 2.1.3.2, step by step."""
    suite, (index, size) = BLAKE3, where
    if index >= size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = suite.node(p, r)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = suite.node(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def consistency_accepts(proof: Proof, sizes: tuple[int, int], roots: tuple[bytes, bytes]) -> bool:
    """RFC 9162, 2.1.4.2, step by step, for 0 < first < second."""
    suite, (first, second) = BLAKE3, sizes
    if not proof:
        return False
    if first & (first - 1) == 0:
        proof = (roots[0], *proof)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = proof[0]
    for c in proof[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = suite.node(c, fr), suite.node(c, sr)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = suite.node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return (fr, sr) == roots and sn == 0


def smallest_multiproof(suite: Suite, indices: Sequence[int], size: int) -> Proof:
    """Roots of the largest ranges without an index, by height of their parents, from the left."""
    found: list[tuple[int, int, bytes]] = []

    def visit(start: int, end: int, parent: int) -> None:
        if not any(start <= index < end for index in indices):
            found.append((parent, start, mth(suite, start, end)))
        elif end - start > 1:
            k, height = largest_power_below(end - start), (end - start - 1).bit_length()
            visit(start, start + k, height)
            visit(start + k, end, height)

    visit(0, size, 64)
    return tuple(digest for _, _, digest in sorted(found))


@functools.cache
def tree(suite: Suite, size: int) -> Tree:
    return Tree.from_data(map(data, range(size)), suite=suite)


def subtrees(size: int) -> list[tuple[int, int]]:
    """All [start, end) whose start is a multiple of the least power of two >= end - start."""
    return [
        (start, end)
        for start in range(size)
        for end in range(start + 1, size + 1)
        if start % (1 << (end - start - 1).bit_length()) == 0
    ]


# Laws.


@SUITES
def test_roots_are_those_of_the_definition(suite: Suite):
    for size in range(SIZE + 1):
        assert tree(suite, size).root == mth(suite, 0, size)
        assert tree(suite, size).size == size
        assert root_from_leaf_data(map(data, range(size)), suite=suite) == mth(suite, 0, size)


@SUITES
def test_inclusion_of_every_leaf_in_every_size(suite: Suite):
    for size in range(1, SIZE + 1):
        for index in range(size):
            proof = tree(suite, size).inclusion(index)
            assert proof == path(suite, index, 0, size)
            where: Any = {"index": index, "size": size, "root": mth(suite, 0, size)}
            verify_inclusion(proof, leaf=suite.leaf(data(index)), suite=suite, **where)


@SUITES
def test_consistency_of_every_pair_of_sizes(suite: Suite):
    for size in range(1, SIZE + 1):
        for old in range(1, size + 1):
            proof = tree(suite, size).consistency(old)
            assert proof == subproof(suite, old, 0, size, True)
            roots = {"old_root": mth(suite, 0, old), "root": mth(suite, 0, size)}
            verify_consistency(proof, old_size=old, size=size, suite=suite, **roots)


@SUITES
def test_every_subtree_of_every_size(suite: Suite):
    for size in range(1, 36):
        for start, end in subtrees(size):
            root = tree(suite, size).subtree_root(start, end)
            assert root == mth(suite, start, end)
            proof = tree(suite, size).subtree_consistency(start, end)
            assert proof == subtree_subproof(suite, (start, end), (0, size), True)
            where: Any = {"start": start, "end": end, "suite": suite}
            verify_subtree_consistency(
                proof, size=size, subtree_root=root, root=mth(suite, 0, size), **where
            )
            index = (start + end) // 2
            proof = tree(suite, size).subtree_inclusion(index, start, end)
            assert proof == path(suite, index - start, start, end)
            leaf = suite.leaf(data(index))
            verify_subtree_inclusion(proof, leaf=leaf, index=index, root=root, **where)


@st.composite
def some_leaves(draw: st.DrawFn) -> tuple[list[int], int]:
    size = draw(st.integers(1, SIZE))
    return sorted(draw(st.sets(st.integers(0, size - 1), min_size=1))), size


@SUITES
@settings(deadline=None)
@given(some_leaves())
def test_multiproof_verifies_and_holds_exactly_the_nodes_needed(
    suite: Suite, leaves: tuple[list[int], int]
):
    indices, size = leaves
    proof = tree(suite, size).multiproof(indices)
    assert proof == smallest_multiproof(suite, indices, size)
    digests = [suite.leaf(data(index)) for index in indices]
    where: Any = {"indices": indices, "size": size, "root": mth(suite, 0, size), "suite": suite}
    verify_multiproof(proof, leaves=digests, **where)
    rows = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    verify_multiproof(list(proof), leaves=rows, **where)


def test_multiproof_of_each_single_leaf_is_its_inclusion_proof():
    for size in range(1, SIZE + 1):
        for index in range(size):
            assert tree(BLAKE3, size).multiproof([index]) == tree(BLAKE3, size).inclusion(index)


def test_multiproof_of_all_leaves_is_empty():
    for size in range(1, SIZE + 1):
        assert tree(BLAKE3, size).multiproof(range(size)) == ()


def test_a_large_tree_from_rows_and_from_bytes():
    rows = np.random.default_rng(0).integers(0, 256, (70_001, 32), np.uint8)
    whole = Tree(rows)
    assert Tree([row.tobytes() for row in rows]).root == whole.root
    level = [row.tobytes() for row in rows]
    while len(level) > 1:
        pairs = [BLAKE3.node(a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[2 * len(pairs) :]
    assert whole.root == level[0]
    indices = sorted(set(np.random.default_rng(1).integers(0, 70_001, 500).tolist()))
    verify_multiproof(
        whole.multiproof(indices),
        leaves=rows[indices],
        indices=indices,
        size=whole.size,
        root=whole.root,
    )


def test_the_tree_keeps_its_own_leaves():
    rows = np.zeros((3, 32), np.uint8)
    built = Tree(rows)
    before = built.inclusion(0)
    rows[:] = 1
    assert built.inclusion(0) == before


@dataclass(frozen=True)
class Hashed:
    """What hashlib's constructors return, as far as merkletools looks at it."""

    value: bytes

    def digest(self) -> bytes:
        return self.value


@SUITES
def test_shape_is_that_of_merkletools(suite: Suite):
    with warnings.catch_warnings():
        # It warns of an optional dependency that is missing.
        warnings.simplefilter("ignore")
        import merkletools  # noqa: PLC0415

    for size in range(1, SIZE + 1):
        peer = merkletools.MerkleTools()
        peer.hash_function = lambda pair: Hashed(suite.node(bytes(pair[:32]), bytes(pair[32:])))
        peer.add_leaf([suite.leaf(data(i)).hex() for i in range(size)])
        peer.make_tree()
        assert peer.get_merkle_root() == tree(suite, size).root.hex()
        for index in range(size):
            steps = peer.get_proof(index)
            siblings = tuple(bytes.fromhex(next(iter(step.values()))) for step in steps)
            assert siblings == tree(suite, size).inclusion(index)


# The verifiers against those of the RFC, on sizes that no tree can have.


@st.composite
def huge(draw: st.DrawFn) -> tuple[int, int]:
    bits = draw(st.integers(1, 64))
    size = draw(st.integers(2, min(2**bits, MAX_SIZE)))
    return draw(st.integers(0, size - 1)), size


digests = st.binary(min_size=32, max_size=32)


@settings(deadline=None)
@given(huge(), st.data())
def test_inclusion_verifier_agrees_with_the_rfc_on_any_size(where: tuple[int, int], data: Any):
    index, size = where
    leaf, proof = bytes(32), tuple(bytes([i]) * 32 for i in range(64))
    accepted = [
        n
        for n in range(65)
        if accepts(lambda n=n: root_from_inclusion(proof[:n], leaf=leaf, index=index, size=size))
    ]
    assert len(accepted) == 1
    proof = proof[: accepted[0]]
    root = root_from_inclusion(proof, leaf=leaf, index=index, size=size)
    assert inclusion_accepts(proof, leaf, where, root)
    other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(size, MAX_SIZE))
    for i, n in ((other[0], size), (index, other[1]), other):
        mine = accepts(
            lambda i=i, n=n: verify_inclusion(proof, leaf=leaf, index=i, size=n, root=root)
        )
        assert mine == inclusion_accepts(proof, leaf, (i, n), root)


@settings(deadline=None)
@given(huge())
def test_consistency_verifier_agrees_with_the_rfc_on_any_size(where: tuple[int, int]):
    old, size = where
    assume(old > 0)
    old_root, proof = bytes(32), tuple(bytes([i]) * 32 for i in range(66))

    def roots(n: int) -> tuple[bytes, bytes]:
        return roots_from_subtree_consistency(
            proof[:n], start=0, end=old, size=size, subtree_root=old_root
        )

    accepted = [n for n in range(67) if accepts(lambda n=n: roots(n))]
    assert len(accepted) == 1
    computed = roots(accepted[0])
    for n in range(67):
        expected = n == accepted[0]
        assert consistency_accepts(proof[:n], (old, size), computed) == expected


def accepts(verify: Callable[[], Any]) -> bool:
    try:
        verify()
    except MerkleError:
        return False
    return True


@settings(deadline=None)
@given(some_leaves(), st.data())
def test_every_single_bit_change_fails(leaves: tuple[list[int], int], draw: Any):
    indices, size = leaves
    whole = tree(BLAKE3, size)
    message = [*map(BLAKE3.leaf, map(data, indices)), *whole.multiproof(indices), whole.root]

    def verify(message: list[bytes]) -> None:
        *proof, root = message[len(indices) :]
        verify_multiproof(
            proof, leaves=message[: len(indices)], indices=indices, size=size, root=root
        )

    verify(message)
    at, bit = draw.draw(st.integers(0, len(message) - 1)), draw.draw(st.integers(0, 255))
    flipped = int.from_bytes(message[at], "big") ^ 1 << bit
    message[at] = flipped.to_bytes(32, "big")
    with pytest.raises(RootMismatch):
        verify(message)


@settings(deadline=None)
@given(some_leaves(), st.data())
def test_a_multiproof_is_for_its_own_leaves(leaves: tuple[list[int], int], draw: Any):
    indices, size = leaves
    others = sorted(draw.draw(st.sets(st.integers(0, size - 1), min_size=1)))
    assume(others != indices)
    whole = tree(BLAKE3, size)
    with pytest.raises(MerkleError):
        verify_multiproof(
            whole.multiproof(indices),
            leaves=[BLAKE3.leaf(data(index)) for index in indices],
            indices=others,
            size=size,
            root=whole.root,
        )


# Cheats.


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


def test_a_mismatch_carries_both_sides():
    arguments = honest_inclusion() | {"root": bytes(32)}
    with pytest.raises(RootMismatch) as caught:
        verify_inclusion(suite=SHA256, **arguments)
    assert caught.value.expected == bytes(32)
    assert caught.value.computed == mth(SHA256, 0, 7)
    assert caught.value.index == 4


def test_lengths_are_compared_before_anything_is_hashed():
    def refuse(*_: Any) -> Any:
        raise AssertionError("hashed")

    suite = Suite(name="none", empty=b"", leaf=refuse, node=refuse, nodes=refuse)
    for verify, honest, _ in SCENES.values():
        for edit in (lambda p: p[:-1], lambda p: (*p, p[0]), lambda p: (*p[:-1], b"")):
            arguments = honest()
            arguments["proof"] = edit(arguments["proof"])
            with pytest.raises(MalformedProof):
                verify(suite=suite, **arguments)


@pytest.mark.parametrize("size", [2**64, 2**64 + 1, 2**80])
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


# The caller's own mistakes.


@pytest.mark.parametrize(
    "digests",
    [
        [b""],
        [bytes(31)],
        [bytes(32), bytes(33)],
        [bytearray(32)],
        ["x" * 32],
        np.zeros((3, 31), np.uint8),
        np.zeros((3, 32), np.float32),
        np.zeros(32, np.uint8),
    ],
)
def test_a_tree_is_over_digests(digests: Any):
    with pytest.raises(ValueError, match="leaf digests"):
        Tree(digests)


@pytest.mark.parametrize(
    ("message", "mistake"),
    [
        ("not within a tree of 7", lambda whole: whole.inclusion(7)),
        ("integers in", lambda whole: whole.inclusion(-1)),
        ("nothing to prove", lambda whole: whole.consistency(0)),
        ("not within a tree of 7", lambda whole: whole.consistency(8)),
        ("at least one leaf", lambda whole: whole.multiproof([])),
        ("not strictly increasing", lambda whole: whole.multiproof([1, 1])),
        ("not strictly increasing", lambda whole: whole.multiproof([2, 1])),
        ("not all integers within a tree of 7", lambda whole: whole.multiproof([7])),
        ("not a subtree", lambda whole: whole.subtree_root(1, 3)),
        ("not within a tree of 7", lambda whole: whole.subtree_root(4, 8)),
        ("not a subtree", lambda whole: whole.subtree_consistency(3, 5)),
        (r"leaf 1 is not in \[2, 4\)", lambda whole: whole.subtree_inclusion(1, 2, 4)),
        (r"leaf 4 is not in \[2, 4\)", lambda whole: whole.subtree_inclusion(4, 2, 4)),
        (r"leaf 2 is not in \[2, 2\)", lambda whole: whole.subtree_inclusion(2, 2, 2)),
        ("not a subtree", lambda whole: whole.subtree_inclusion(1, 1, 3)),
        ("not within a tree of 0", lambda whole: tree(whole.suite, 0).inclusion(0)),
    ],
)
def test_a_tree_proves_only_what_it_has(message: str, mistake: Callable[[Tree], Any]):
    with pytest.raises(ValueError, match=message):
        mistake(tree(BLAKE3, 7))


# Third-party vectors.

VERIFIERS: dict[str, tuple[Any, dict[str, str]]] = {
    "inclusion": (
        verify_inclusion,
        {"leaf": "leafHash", "index": "leafIdx", "size": "treeSize", "root": "root"},
    ),
    "consistency": (
        verify_consistency,
        {"old_size": "size1", "size": "size2", "old_root": "root1", "root": "root2"},
    ),
    "subtreeinclusion": (
        verify_subtree_inclusion,
        {"leaf": "leafHash", "index": "leafIdx", "start": "start", "end": "end", "root": "root"},
    ),
    "subtreeconsistency": (
        verify_subtree_consistency,
        {"start": "start", "end": "end", "size": "size", "subtree_root": "root1", "root": "root2"},
    ),
}


@pytest.mark.skipif(not SUITE.exists(), reason="518 third-party proof cases are not here")
def test_third_party_vectors():
    cases = must_fail = 0
    wrong: list[str] = []
    for folder, (verify, fields) in VERIFIERS.items():
        for file in sorted((SUITE / folder).rglob("*.json")):
            case = json.loads(file.read_text())
            values = {name: case[field] for name, field in fields.items()}
            arguments = {
                name: base64.b64decode(value) if isinstance(value, str) else value
                for name, value in values.items()
            }
            proof = tuple(map(base64.b64decode, case["proof"] or ()))
            refused = not accepts(functools.partial(verify, proof, suite=SHA256, **arguments))
            if refused != case["wantErr"]:
                wrong.append(str(file))
            cases, must_fail = cases + 1, must_fail + case["wantErr"]
    assert not wrong
    assert (cases, must_fail) == (518, 482)
