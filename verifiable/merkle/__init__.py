"""RFC 9162 Merkle trees over BLAKE3 or SHA-256."""

from __future__ import annotations

from verifiable.merkle.hashing import (
    BLAKE3,
    DIGEST_SIZE,
    SHA256,
    Suite,
)
from verifiable.merkle.tree import (
    MAX_SIZE,
    Tree,
    indices_fault,
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

__all__ = [
    "BLAKE3",
    "DIGEST_SIZE",
    "MAX_SIZE",
    "SHA256",
    "Suite",
    "Tree",
    "indices_fault",
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
