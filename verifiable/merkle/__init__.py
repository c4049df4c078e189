"""Merkle trees: a root of 32 bytes that binds every leaf and its position, and short proofs of it.

    tree = Tree.from_data([b"a", b"b", b"c"])             # prover: publishes tree.root, tree.size
    proof = tree.inclusion(1)                             # prover: two digests
    verify_inclusion(                                     # verifier: raises unless b"b" is leaf 1
        proof, leaf=BLAKE3.leaf(b"b"), index=1, size=tree.size, root=tree.root
    )

    hashing   the suites BLAKE3 (traces) and SHA256 (contracts, transparency logs)
    tree      `Tree`: build a tree and make proofs
    paths     the ranges that the digests of a proof stand for
    proofs    verify inclusion, consistency and subtrees
    multiproofs   verify several leaves at once

A verifier raises `MalformedProof` or `RootMismatch` (`verifiable.errors`) and returns nothing.
Specification: specs/merkle.md.
"""

from __future__ import annotations

from verifiable.merkle.hashing import BLAKE3, DIGEST_SIZE, SHA256, Suite
from verifiable.merkle.multiproofs import MultiproofShape, root_from_multiproof, verify_multiproof
from verifiable.merkle.paths import MAX_SIZE, indices_fault, multiproof_size
from verifiable.merkle.proofs import (
    root_from_inclusion,
    roots_from_subtree_consistency,
    verify_consistency,
    verify_inclusion,
    verify_subtree_consistency,
    verify_subtree_inclusion,
)
from verifiable.merkle.tree import Tree, root_from_leaf_data

__all__ = [
    "BLAKE3",
    "DIGEST_SIZE",
    "MAX_SIZE",
    "SHA256",
    "MultiproofShape",
    "Suite",
    "Tree",
    "indices_fault",
    "multiproof_size",
    "root_from_inclusion",
    "root_from_leaf_data",
    "root_from_multiproof",
    "roots_from_subtree_consistency",
    "verify_consistency",
    "verify_inclusion",
    "verify_multiproof",
    "verify_subtree_consistency",
    "verify_subtree_inclusion",
]
