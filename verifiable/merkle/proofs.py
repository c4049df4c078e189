"""Verify Merkle proofs: `root_from_...` computes a root, `verify_...` compares it.

A proof is a tuple of digests, from the leaves upwards. The ranges that they stand for follow from
positions and sizes, which the verifier knows: it takes nothing about the shape of the tree from
the prover, and compares lengths before it hashes. A proof shows only a part of the tree, and may
verify for other sizes than its own: sign the size with the root, and compare both.

| proof             | statement                         | source                                  |
|-------------------|-----------------------------------|-----------------------------------------|
| inclusion         | leaf i is in the tree of size n   | PATH, RFC 9162, 2.1.3                   |
| consistency       | size m is a prefix of size n      | PROOF, RFC 9162, 2.1.4                  |
| subtree inclusion | leaf i is in the range [s, e)     | draft-ietf-plants-merkle-tree-certs     |
|   and consistency | the range [s, e) is in size n     | SUBTREE_PROOF, the same                 |

Consistency of the range [s, e) contains the others: [i, i + 1) is inclusion, [0, m) consistency.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from verifiable.errors import MalformedProof, RootMismatch, require_bytes32
from verifiable.merkle.hashing import BLAKE3, DIGEST_SIZE, Suite, digest_rows
from verifiable.merkle.paths import (
    MAX_SIZE,
    PathStep,
    Side,
    indices_fault,
    path,
    range_fault,
)


def root_from_inclusion(
    proof: Sequence[bytes], *, leaf: bytes, index: int, size: int, suite: Suite = BLAKE3
) -> bytes:
    """Root of the tree of `size` leaves that has this leaf digest at `index`.

    Args:
      proof: digests of 32 bytes, from the leaf upwards.
      leaf: digest of the leaf, 32 bytes.
      index: position of the leaf in the tree, from 0.
      size: number of leaves in the tree.
      suite: the hash functions.

    Returns:
      The root that the proof leads to, 32 bytes.

    Raises:
      MalformedProof: the index is outside the tree, the leaf is not a digest, or the proof is not
        a list of as many digests as the position requires.
    """
    if fault := indices_fault((index,), size):
        raise MalformedProof(fault)
    return _fold(proof, path(index, index + 1, size), leaf, suite)[1]


def verify_inclusion(
    proof: Sequence[bytes],
    *,
    leaf: bytes,
    index: int,
    size: int,
    root: bytes,
    suite: Suite = BLAKE3,
) -> None:
    """Verify that the tree of this root and size has this leaf digest at `index`.

    Args:
      proof: digests of 32 bytes, from the leaf upwards.
      leaf: digest of the leaf, 32 bytes.
      index: position of the leaf in the tree, from 0.
      size: number of leaves in the tree that was committed to.
      root: root that was committed to, 32 bytes.
      suite: the hash functions.

    Raises:
      MalformedProof: as `root_from_inclusion`.
      RootMismatch: the proof leads to another root.
    """
    computed = root_from_inclusion(proof, leaf=leaf, index=index, size=size, suite=suite)
    require_root(root, computed, index)


def verify_subtree_inclusion(
    proof: Sequence[bytes],
    *,
    leaf: bytes,
    index: int,
    start: int,
    end: int,
    root: bytes,
    suite: Suite = BLAKE3,
) -> None:
    """Verify that the subtree [start, end) of this root has this leaf digest at `index`.

    Args:
      proof: digests of 32 bytes, from the leaf upwards.
      leaf: digest of the leaf, 32 bytes.
      index: position of the leaf in the whole tree.
      start: position of the first leaf of the subtree in the whole tree.
      end: position after the last leaf of the subtree.
      root: root of the subtree, 32 bytes.
      suite: the hash functions.

    Raises:
      MalformedProof: the range is not a subtree, the index is outside it, or as in
        `root_from_inclusion`.
      RootMismatch: the proof leads to another root.
    """
    if fault := range_fault(start, end, MAX_SIZE):
        raise MalformedProof(fault)
    if type(index) is not int:
        raise MalformedProof(f"index must be an integer, got {type(index).__name__}")
    size = end - start
    verify_inclusion(proof, leaf=leaf, index=index - start, size=size, root=root, suite=suite)


def roots_from_subtree_consistency(
    proof: Sequence[bytes],
    *,
    start: int,
    end: int,
    size: int,
    subtree_root: bytes,
    suite: Suite = BLAKE3,
) -> tuple[bytes, bytes]:
    """Roots of the subtree [start, end), not empty, and of the tree of `size` leaves.

    The caller must compare both. If the subtree is a node of the tree, the first root returned is
    `subtree_root` itself, from which the second is computed.

    Args:
      proof: digests of 32 bytes, from the leaves upwards.
      start: position of the first leaf of the subtree.
      end: position after the last leaf of the subtree.
      size: number of leaves in the tree.
      subtree_root: root of the subtree, 32 bytes.
      suite: the hash functions.

    Returns:
      The roots of the subtree and of the tree that the proof leads to, 32 bytes each.

    Raises:
      MalformedProof: the range is not a subtree or is empty, `subtree_root` is not 32 bytes, or
        the proof is not a list of as many digests as these positions require.
    """
    if fault := range_fault(start, end, size):
        raise MalformedProof(fault)
    if start == end:
        raise MalformedProof("an empty subtree determines no root of the tree")
    return _fold(proof, path(start, end, size), subtree_root, suite)


def verify_subtree_consistency(
    proof: Sequence[bytes],
    *,
    start: int,
    end: int,
    size: int,
    subtree_root: bytes,
    root: bytes,
    suite: Suite = BLAKE3,
) -> None:
    """Verify that the subtree [start, end) is part of the tree of this root and size.

    The empty subtree is part of every tree. For it only `subtree_root` and the proof, which must
    be empty, are checked.

    Args:
      proof: digests of 32 bytes, from the leaves upwards.
      start: position of the first leaf of the subtree.
      end: position after the last leaf of the subtree.
      size: number of leaves in the tree.
      subtree_root: root of the subtree, 32 bytes.
      root: root of the tree, 32 bytes.
      suite: the hash functions.

    Raises:
      MalformedProof: as `roots_from_subtree_consistency`, except for the empty subtree.
      RootMismatch: the proof leads to another root of the tree or of the subtree.
    """
    if fault := range_fault(start, end, size):
        raise MalformedProof(fault)
    if start == end:
        require_digests(proof, 0)
        roots = suite.empty, root
    else:
        roots = roots_from_subtree_consistency(
            proof, start=start, end=end, size=size, subtree_root=subtree_root, suite=suite
        )
    require_root(subtree_root, roots[0])
    require_root(root, roots[1])


def verify_consistency(
    proof: Sequence[bytes],
    *,
    old_size: int,
    old_root: bytes,
    size: int,
    root: bytes,
    suite: Suite = BLAKE3,
) -> None:
    """Verify that a tree only grew: its first `old_size` leaves are unchanged.

    Args:
      proof: digests of 32 bytes, from the leaves upwards.
      old_size: number of leaves before, at least 1.
      old_root: root at that size, 32 bytes.
      size: number of leaves now.
      root: root now, 32 bytes.
      suite: the hash functions.

    Raises:
      MalformedProof: the sizes are out of order, the old size is zero (RFC 9162 defines no proof
        for it), or the proof is not a list of as many digests as these sizes require.
      RootMismatch: the proof leads to another old or new root.
    """
    if old_size == 0:
        raise MalformedProof("old_size must be at least 1: RFC 9162 has no proof for an empty tree")
    verify_subtree_consistency(
        proof, start=0, end=old_size, size=size, subtree_root=old_root, root=root, suite=suite
    )


def _fold(
    proof: Sequence[bytes], steps: list[PathStep], seed: bytes, suite: Suite
) -> tuple[bytes, bytes]:
    """Roots of the subtree and of the tree: combine `seed` with one digest per step."""
    require_digests(proof, len(steps))
    require_bytes32("a leaf's digest, or a subtree's root,", seed, MalformedProof)
    subtree = tree = seed
    for digest, step in zip(proof, steps, strict=True):
        match step.side:
            case Side.SEED:
                subtree = tree = digest
            case Side.RIGHT:
                tree = suite.node(tree, digest)
            case Side.LEFT:
                tree = suite.node(digest, tree)
            case Side.SHARED:
                subtree, tree = suite.node(digest, subtree), suite.node(digest, tree)
    return subtree, tree


def require_root(expected: Any, computed: bytes, index: int | None = None) -> None:
    """Require a root: MalformedProof if it is none, RootMismatch if it is another."""
    if type(expected) is not bytes:
        raise MalformedProof(f"a root must be bytes, got {type(expected).__name__}")
    if computed != expected:
        raise RootMismatch(expected=expected, computed=computed, index=index)


def require_digests(proof: Any, length: int) -> UInt8[np.ndarray, "k 32"]:
    """Require a list, or rows, of so many digests, else raise MalformedProof."""
    if not isinstance(proof, list | tuple | np.ndarray):
        raise MalformedProof(f"a proof must be a list of digests, got {type(proof).__name__}")
    if len(proof) != length:
        raise MalformedProof(f"a proof for these positions has {length} digests, got {len(proof)}")
    digests = digest_rows(proof)
    if digests is None:
        raise MalformedProof(f"a proof must hold digests of {DIGEST_SIZE} bytes only")
    return digests
