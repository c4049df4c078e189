"""Merkle trees of RFC 9162, 2.1: a root of 32 bytes binds every leaf and its position.

    MTH({})     = empty
    MTH({d})    = leaf(d)
    MTH(D[0:n]) = node(MTH(D[0:k]), MTH(D[k:n])),   k the largest power of two below n

Leaves and nodes are hashed in separate domains, so that neither passes for the other, and the last
node of an odd level is carried up, never doubled, so that no two lists of leaves share a root.

A `Tree` holds every level and makes the proofs; `proofs` verifies them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import UInt8

from verifiable.merkle.hashing import BLAKE3, DIGEST_SIZE, Suite, digest_rows
from verifiable.merkle.paths import indices_fault, levels, path, range_fault, split


class Tree:
    """A whole tree, to make proofs from. It takes 64 bytes of memory a leaf.

    Attributes:
      suite: the hash functions.
      size: number of leaves.
      root: 32 bytes.
    """

    __slots__ = ("_levels", "root", "size", "suite")

    def __init__(
        self, digests: UInt8[np.ndarray, "n 32"] | Sequence[bytes], *, suite: Suite = BLAKE3
    ):
        """Build the tree over leaf digests, in order.

        Args:
          digests: digests of the n leaves, uint8 (n, 32) or a list of n times 32 bytes. They are
            copied.
          suite: the hash functions.

        Raises:
          ValueError: digests of another shape, dtype or length.
        """
        level = digest_rows(digests)
        if level is None:
            raise ValueError("digests must be a uint8 array (n, 32) or a list of n times 32 bytes")
        self._levels = [level.copy()]
        while len(level) > 1:
            pairs, lone = divmod(len(level), 2)
            parents = suite.nodes(level[: 2 * pairs].reshape(pairs, 2 * DIGEST_SIZE))
            level = np.concatenate([parents, level[2 * pairs :]]) if lone else parents
            self._levels.append(level)
        self.suite = suite
        self.size = len(self._levels[0])
        self.root = level.tobytes() if self.size else suite.empty

    @classmethod
    def from_data(cls, leaves: Iterable[bytes | memoryview], *, suite: Suite = BLAKE3) -> Tree:
        """Build the tree over the data of its leaves, in order.

        Args:
          leaves: the bytes of each leaf, of any length.
          suite: the hash functions.
        """
        return cls(suite.leaves(leaves), suite=suite)

    def __repr__(self) -> str:
        """Suite, size and root."""
        return f"Tree({self.suite.name}, size={self.size}, root={self.root.hex()})"

    def subtree_root(self, start: int, end: int) -> bytes:
        """Root of the leaves [start, end), 32 bytes; [0, m) gives the root of the tree of size m.

        Raises:
          ValueError: the range is not a subtree: `start` must be a multiple of the least power of
            two that is at least `end - start`.
        """
        if fault := range_fault(start, end, self.size):
            raise ValueError(fault)
        if start == end:
            return self.suite.empty
        level = (end - start - 1).bit_length()
        if end == self.size or end % (1 << level) == 0:
            return self._levels[level][start >> level].tobytes()
        middle = start + split(end - start)
        return self.suite.node(self.subtree_root(start, middle), self.subtree_root(middle, end))

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """Proof that the leaf at `index` is in the tree: PATH of RFC 9162, 2.1.3.

        Raises:
          ValueError: there is no such leaf.
        """
        return self.subtree_consistency(index, index + 1)

    def consistency(self, old_size: int) -> tuple[bytes, ...]:
        """Proof that the first `old_size` leaves, at least one, were the tree at that size.

        This is PROOF of RFC 9162, 2.1.4.

        Raises:
          ValueError: the tree never had this size, or it is zero.
        """
        return self.subtree_consistency(0, old_size)

    def subtree_inclusion(self, index: int, start: int, end: int) -> tuple[bytes, ...]:
        """Proof that the leaf at `index`, counted in the tree, is in the subtree [start, end).

        Raises:
          ValueError: the range is not a subtree, or the leaf is outside it.
        """
        if fault := range_fault(start, end, self.size):
            raise ValueError(fault)
        if not start <= index < end:
            raise ValueError(f"leaf {index} is not in [{start}, {end})")
        steps = path(index - start, index - start + 1, end - start)
        return tuple(self.subtree_root(start + step.start, start + step.end) for step in steps)

    def subtree_consistency(self, start: int, end: int) -> tuple[bytes, ...]:
        """Proof that the subtree [start, end), not empty, is part of the tree.

        This is SUBTREE_PROOF of draft-ietf-plants-merkle-tree-certs.

        Raises:
          ValueError: the range is not a subtree, or it is empty.
        """
        if fault := range_fault(start, end, self.size):
            raise ValueError(fault)
        if start == end:
            raise ValueError("the empty subtree is part of every tree and has no proof")
        return tuple(self.subtree_root(*step[:2]) for step in path(start, end, self.size))

    def multiproof(self, indices: Sequence[int]) -> tuple[bytes, ...]:
        """Proof that several leaves are in the tree: the digests that cannot be computed, once.

        Args:
          indices: positions of the leaves, strictly increasing.

        Returns:
          Digests level by level from the leaves, left to right (specs/merkle.md).

        Raises:
          ValueError: indices out of order, out of range, or empty.
        """
        if fault := indices_fault(indices, self.size):
            raise ValueError(fault)
        proof: list[bytes] = []
        for nodes, (parents, known) in zip(
            self._levels[:-1], levels(indices, self.size), strict=True
        ):
            children = np.stack([2 * parents, 2 * parents + 1], axis=1)
            proof += (digest.tobytes() for digest in nodes[children[~known]])
        return tuple(proof)


def root_from_leaf_data(leaves: Iterable[bytes | memoryview], *, suite: Suite = BLAKE3) -> bytes:
    """Root, 32 bytes, of the tree over the data of its leaves, in order."""
    return Tree.from_data(leaves, suite=suite).root
