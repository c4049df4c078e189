"""Multiproofs: several leaves are in a tree, by the union of their paths less what follows.

The digests that are supplied are those of the paths that cannot be computed from the leaves, level
by level from the leaves, left to right. Which they are follows from positions and size alone: a
verifier that asked for leaves knows it before anything is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from verifiable.errors import MalformedProof
from verifiable.merkle.hashing import BLAKE3, DIGEST_SIZE, Digests, Suite, digest_rows
from verifiable.merkle.paths import indices_fault, levels
from verifiable.merkle.proofs import require_digests, require_root


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class MultiproofShape:
    """Which digests are hashed together in a multiproof of some leaves; of one use, or of many.

    All digests are rows of one table: the k leaves, what the proof supplies, then the parents, in
    the order in which they are computed.

    Attributes:
      leaves: number of leaves, k.
      digests: number of digests that the proof supplies.
      levels: of each level from the leaves on, the rows of the children, two for each parent.
      rows: number of rows; the last is the root.
    """

    leaves: int
    digests: int
    levels: tuple[Int[np.ndarray, " children"], ...] = field(repr=False)
    rows: int

    @staticmethod
    def of(indices: Sequence[int], size: int) -> MultiproofShape:
        """The shape for leaves at some positions.

        Args:
          indices: positions, strictly increasing.
          size: number of leaves in the tree.

        Raises:
          MalformedProof: the indices are out of order, out of range or empty.
        """
        if fault := indices_fault(indices, size):
            raise MalformedProof(fault)
        steps = [known.reshape(-1) for _, known in levels(indices, size)]
        supplied = len(indices)
        made = supplied + sum(int(np.sum(~known)) for known in steps)
        rows, children, digests = np.arange(supplied), list[Any](), made - supplied
        for known in steps:
            both, missing = np.empty(len(known), np.int64), int(np.sum(~known))
            both[known], carried = np.split(rows, [len(known) - missing])
            both[~known] = np.arange(supplied, supplied + missing)
            children.append(both)
            supplied, parents = supplied + missing, len(known) // 2
            rows = np.concatenate([np.arange(made, made + parents), carried])
            made += parents
        return MultiproofShape(
            leaves=len(indices), digests=digests, levels=tuple(children), rows=made
        )

    def root(
        self,
        proof: Digests | Sequence[bytes],
        *,
        leaves: Digests | Sequence[bytes],
        suite: Suite = BLAKE3,
    ) -> bytes:
        """The root that a proof leads to; arguments and errors as of `root_from_multiproof`."""
        digests = digest_rows(leaves)
        if digests is None or len(digests) != self.leaves:
            raise MalformedProof(f"{self.leaves} indices require {self.leaves} leaf digests")
        supplied = require_digests(proof, self.digests)
        at = self.leaves + self.digests
        table = np.empty((self.rows, DIGEST_SIZE), np.uint8)
        table[: self.leaves], table[self.leaves : at] = digests, supplied
        for both in self.levels:
            parents = suite.nodes(table[both].reshape(-1, 2 * DIGEST_SIZE))
            table[at : at + len(parents)] = parents
            at += len(parents)
        return table[-1].tobytes()

    def verify(
        self,
        proof: Digests | Sequence[bytes],
        *,
        leaves: Digests | Sequence[bytes],
        root: bytes,
        suite: Suite = BLAKE3,
    ) -> None:
        """Compare that root; arguments and errors as of `verify_multiproof`."""
        require_root(root, self.root(proof, leaves=leaves, suite=suite))


def root_from_multiproof(
    proof: Sequence[bytes],
    *,
    leaves: UInt8[np.ndarray, "k 32"] | Sequence[bytes],
    indices: Sequence[int],
    size: int,
    suite: Suite = BLAKE3,
) -> bytes:
    """Root of the tree of `size` leaves that has these leaf digests at `indices`.

    Args:
      proof: the digests that cannot be computed, 32 bytes each: level by level from the leaves,
        left to right.
      leaves: digests of k leaves, uint8 (k, 32) or a list of k times 32 bytes.
      indices: their k positions, strictly increasing.
      size: number of leaves in the tree.
      suite: the hash functions.

    Returns:
      The root that the proof leads to, 32 bytes.

    Raises:
      MalformedProof: the indices are out of order, out of range or empty, there are more or fewer
        leaves than indices, or the proof is not a list of as many digests as they require.
    """
    return MultiproofShape.of(indices, size).root(proof, leaves=leaves, suite=suite)


def verify_multiproof(
    proof: Sequence[bytes],
    *,
    leaves: UInt8[np.ndarray, "k 32"] | Sequence[bytes],
    indices: Sequence[int],
    size: int,
    root: bytes,
    suite: Suite = BLAKE3,
) -> None:
    """Verify that the tree of this root and size has these leaf digests at `indices`.

    Args:
      proof: the digests that cannot be computed, 32 bytes each: level by level from the leaves,
        left to right.
      leaves: digests of k leaves, uint8 (k, 32) or a list of k times 32 bytes.
      indices: their k positions, strictly increasing.
      size: number of leaves in the tree that was committed to.
      root: root that was committed to, 32 bytes.
      suite: the hash functions.

    Raises:
      MalformedProof: as `root_from_multiproof`.
      RootMismatch: the proof leads to another root.
    """
    MultiproofShape.of(indices, size).verify(proof, leaves=leaves, root=root, suite=suite)
