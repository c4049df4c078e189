"""Merkle trees: roots and proofs against the definitions of RFC 9162, and a caller's mistakes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from tests.helpers.merkle_oracle import (
    SIZE,
    SUITES,
    data,
    mth,
    path,
    smallest_multiproof,
    some_leaves,
    subproof,
    subtree_subproof,
    subtrees,
    tree,
)
from verifiable.merkle import (
    BLAKE3,
    MultiproofShape,
    Suite,
    Tree,
    multiproof_size,
    root_from_leaf_data,
    root_from_multiproof,
    verify_consistency,
    verify_inclusion,
    verify_multiproof,
    verify_subtree_consistency,
    verify_subtree_inclusion,
)


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


@SUITES
@settings(deadline=None)
@given(some_leaves())
def test_multiproof_verifies_and_holds_exactly_the_nodes_needed(
    suite: Suite, leaves: tuple[list[int], int]
):
    indices, size = leaves
    proof = tree(suite, size).multiproof(indices)
    assert proof == smallest_multiproof(suite, indices, size)
    assert multiproof_size(indices, size) == len(proof)
    digests = [suite.leaf(data(index)) for index in indices]
    where: Any = {"indices": indices, "size": size, "suite": suite}
    root = mth(suite, 0, size)
    assert root_from_multiproof(proof, leaves=digests, **where) == root
    verify_multiproof(proof, leaves=digests, root=root, **where)
    rows = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    verify_multiproof(list(proof), leaves=rows, root=root, **where)


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
    with pytest.raises(ValueError, match="digests must be"):
        Tree(digests)


@pytest.mark.parametrize(
    ("message", "mistake"),
    [
        ("not within a tree of 7", lambda whole: whole.inclusion(7)),
        ("integers in", lambda whole: whole.inclusion(-1)),
        ("has no proof", lambda whole: whole.consistency(0)),
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


def test_no_leaves_are_a_subtree_wherever_they_begin():
    whole = tree(BLAKE3, 7)
    for at in range(8):
        assert whole.subtree_root(at, at) == BLAKE3.empty
        where: Any = {"start": at, "end": at, "size": 7, "root": whole.root}
        verify_subtree_consistency((), subtree_root=BLAKE3.empty, **where)


def test_what_trees_and_proofs_print():
    whole = tree(BLAKE3, 7)
    shape = MultiproofShape.of([0, 6], 7)
    assert repr(shape) == "MultiproofShape(leaves=2, digests=3, rows=9)"
    assert repr(whole) == f"Tree({BLAKE3.name}, size=7, root={whole.root.hex()})"
