"""Merkle trees of RFC 9162, 2.1: a root of 32 bytes binds every leaf and its position.

    MTH({})     = empty
    MTH({d})    = leaf(d)
    MTH(D[0:n]) = node(MTH(D[0:k]), MTH(D[k:n])),   k the largest power of two below n

Leaves and nodes are hashed in separate domains, so that neither passes for the other, and the last
node of an odd level is carried up, never doubled, so that no two lists of leaves share a root. A
proof shows only a part of the tree, and may verify for other sizes than its own: sign the size with
the root, and compare both.

A proof is a tuple of digests, from the leaves upwards. Which ranges they stand for follows from
positions and sizes alone, which the verifier knows: it takes nothing about the shape of the tree
from the prover, and compares lengths before it hashes.

| proof             | that                              | source                                  |
|-------------------|-----------------------------------|-----------------------------------------|
| inclusion         | leaf i is in the tree of size n   | PATH, RFC 9162, 2.1.3                   |
| consistency       | size m is a prefix of size n      | PROOF, RFC 9162, 2.1.4                  |
| subtree inclusion | leaf i is in the range [s, e)     | draft-ietf-plants-merkle-tree-certs     |
|   and consistency | the range [s, e) is in size n     | SUBTREE_PROOF, the same                 |
| multiproof        | leaves i, j, ... are in size n    | union of their PATHs, less what follows |

Consistency of the range [s, e) contains the others: [i, i + 1) is inclusion, [0, m) consistency.
Of each verifier, `root_from_...` computes and `verify_...` judges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from verifiable.errors import MalformedProof, RootMismatch
from verifiable.merkle.hashing import BLAKE3, DIGEST_SIZE, SHA256, Suite

if TYPE_CHECKING:
    from numpy.typing import NDArray

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

MAX_SIZE: Final = 2**64 - 1
"""The most leaves that a tree may claim to have."""


class _Side(Enum):
    """What a digest of a proof is to the nodes computed so far."""

    SEED = "stands for both"
    RIGHT = "right sibling in the tree"
    LEFT = "left sibling in the tree"
    SHARED = "left sibling in the subtree and in the tree"


class _Step(NamedTuple):
    start: int
    end: int
    side: _Side


def _path(start: int, end: int, size: int) -> list[_Step]:
    """Ranges that prove the subtree [start, end), not empty, consistent with the tree."""
    low, high, steps = 0, size, list[_Step]()
    seeded = False
    while (start, end) != (low, high):
        middle = low + _split(high - low)
        if end <= middle:
            steps.append(_Step(middle, high, _Side.RIGHT))
            high = middle
        elif middle <= start:
            steps.append(_Step(low, middle, _Side.LEFT))
            low = middle
        else:
            # Only a subtree that starts here can straddle the middle: its left half is complete.
            steps.append(_Step(low, middle, _Side.SHARED))
            low = start = middle
            seeded = True
    if seeded:
        steps.append(_Step(low, high, _Side.SEED))
    return steps[::-1]


class _Level(NamedTuple):
    parents: NDArray[np.uint64]
    known: NDArray[np.bool_]


def _levels(indices: Sequence[int], size: int) -> Iterator[_Level]:
    """By level, from the leaves: which parents are computed, and which of their children known.

    A last node without a sibling follows the children that are known, and is carried up.
    """
    positions, width, one = np.array(indices, np.uint64), size, np.uint64(1)
    while width > 1:
        carried = width % 2 == 1 and int(positions[-1]) == width - 1
        paired, rest = np.split(positions, [len(positions) - carried])
        parents, row = np.unique(paired >> one, return_inverse=True)
        known = np.zeros((len(parents), 2), np.bool_)
        known[row, (paired & one).astype(np.intp)] = True
        yield _Level(parents, known)
        positions = np.concatenate([parents, rest >> one])
        width = (width + 1) // 2


def _split(n: int) -> int:
    """The largest power of two below n."""
    return 1 << ((n - 1).bit_length() - 1)


def _range_fault(start: Any, end: Any, size: Any) -> str | None:
    """Why [start, end) is not a subtree of a tree of this size, if it is not."""
    if not all(map(_is_count, (start, end, size))):
        return "positions and sizes must be integers in [0, 2^64)"
    if not start <= end <= size:
        return f"range [{start}, {end}) is not within a tree of {size} leaves"
    if start < end and start % (1 << (end - start - 1).bit_length()):
        return f"range [{start}, {end}) is not a subtree: its start is not a multiple of its width"
    return None


def indices_fault(indices: Any, size: Any) -> str | None:
    """Why these are not strictly increasing positions of leaves, if they are not."""
    if not _is_count(size):
        return "the size of a tree must be an integer in [0, 2^64)"
    if not isinstance(indices, Sequence) or not indices:
        return "a multiproof concerns at least one leaf, in a sequence of indices"
    if not all(_is_count(index) and index < size for index in indices):
        return f"indices are not all integers within a tree of {size} leaves"
    if any(a >= b for a, b in pairwise(indices)):
        return "indices are not strictly increasing"
    return None


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number <= MAX_SIZE


class Tree:
    """A tree that its owner holds whole, to prove from. 64 bytes a leaf.

    Attributes:
      suite: how it is hashed.
      size: its number of leaves.
      root: its 32-byte root.
    """

    __slots__ = ("_levels", "root", "size", "suite")

    def __init__(self, digests: NDArray[np.uint8] | Sequence[bytes], *, suite: Suite = BLAKE3):
        """Build the tree over leaf digests, in order.

        Args:
          digests: digests of the leaves, uint8 (n, 32) or a sequence of n times 32 bytes.
          suite: how nodes are hashed.

        Raises:
          ValueError: digests of another form.
        """
        level = _digest_rows(digests)
        if level is None:
            raise ValueError("leaf digests must be a uint8 array (n, 32) or n times 32 bytes")
        self._levels = [level.copy()]
        while len(level) > 1:
            pairs, lone = divmod(len(level), 2)
            parents = suite.nodes(level[: 2 * pairs].reshape(pairs, 2 * DIGEST_SIZE))
            level = np.concatenate([parents, level[2 * pairs :]]) if lone else parents
            self._levels.append(level)
        self.suite = suite
        self.size = len(self._levels[0])
        self.root = level[0].tobytes() if self.size else suite.empty

    @classmethod
    def from_data(cls, leaves: Iterable[bytes | memoryview], *, suite: Suite = BLAKE3) -> Tree:
        """Build the tree over the data of its leaves, in order."""
        return cls([suite.leaf(data) for data in leaves], suite=suite)

    def __repr__(self) -> str:
        """Suite, size and root."""
        return f"Tree({self.suite.name}, size={self.size}, root={self.root.hex()})"

    def subtree_root(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]). That of [0, m) is the root that the tree had at size m.

        Raises:
          ValueError: not a subtree: `start` must be a multiple of the least power of two that is
            at least `end - start`.
        """
        if fault := _range_fault(start, end, self.size):
            raise ValueError(fault)
        if start == end:
            return self.suite.empty
        level = (end - start - 1).bit_length()
        if end == self.size or end % (1 << level) == 0:
            return self._levels[level][start >> level].tobytes()
        middle = start + _split(end - start)
        return self.suite.node(self.subtree_root(start, middle), self.subtree_root(middle, end))

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """Proof that the leaf at `index` is in the tree.

        Raises:
          ValueError: there is no such leaf.
        """
        return self.subtree_consistency(index, index + 1)

    def consistency(self, old_size: int) -> tuple[bytes, ...]:
        """Proof that the tree of the first `old_size` leaves, at least one, became this one.

        Raises:
          ValueError: the tree never had this size, or it is zero.
        """
        return self.subtree_consistency(0, old_size)

    def subtree_inclusion(self, index: int, start: int, end: int) -> tuple[bytes, ...]:
        """Proof that the leaf at `index`, counted in the tree, is in the subtree [start, end).

        Raises:
          ValueError: not a subtree, or the leaf is outside it.
        """
        if fault := _range_fault(start, end, self.size):
            raise ValueError(fault)
        if not start <= index < end:
            raise ValueError(f"leaf {index} is not in [{start}, {end})")
        steps = _path(index - start, index - start + 1, end - start)
        return tuple(self.subtree_root(start + step.start, start + step.end) for step in steps)

    def subtree_consistency(self, start: int, end: int) -> tuple[bytes, ...]:
        """Proof that the subtree [start, end), not empty, is part of the tree.

        Raises:
          ValueError: not a subtree, or empty.
        """
        if fault := _range_fault(start, end, self.size):
            raise ValueError(fault)
        if start == end:
            raise ValueError("the empty tree is part of any: there is nothing to prove")
        return tuple(self.subtree_root(*step[:2]) for step in _path(start, end, self.size))

    def multiproof(self, indices: Sequence[int]) -> tuple[bytes, ...]:
        """Proof for several leaves: no digest twice, and none that can be computed.

        Args:
          indices: strictly increasing.

        Raises:
          ValueError: indices out of order or out of range, or none.
        """
        if fault := indices_fault(indices, self.size):
            raise ValueError(fault)
        proof: list[bytes] = []
        for nodes, (parents, known) in zip(
            self._levels[:-1], _levels(indices, self.size), strict=True
        ):
            children = np.stack([2 * parents, 2 * parents + 1], axis=1)
            proof += (digest.tobytes() for digest in nodes[children[~known]])
        return tuple(proof)


def root_from_leaf_data(leaves: Iterable[bytes | memoryview], *, suite: Suite = BLAKE3) -> bytes:
    """Root of the tree over the data of its leaves, in order."""
    return Tree.from_data(leaves, suite=suite).root


def root_from_inclusion(
    proof: Sequence[bytes], *, leaf: bytes, index: int, size: int, suite: Suite = BLAKE3
) -> bytes:
    """Root of the tree of `size` leaves that has this leaf digest at `index`.

    Raises:
      MalformedProof: an index outside the tree, a leaf that is not a digest, or a proof that does
        not have the digests that this position takes.
    """
    if fault := indices_fault((index,), size):
        raise MalformedProof(fault)
    if _digest_rows((leaf,)) is None:
        raise MalformedProof(f"a leaf is given by its digest of {DIGEST_SIZE} bytes")
    return _fold(proof, _path(index, index + 1, size), leaf, suite)[1]


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

    Raises:
      MalformedProof: as `root_from_inclusion`.
      RootMismatch: the proof leads to another root.
    """
    computed = root_from_inclusion(proof, leaf=leaf, index=index, size=size, suite=suite)
    _require_root(root, computed, index)


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
      index: position of the leaf in the whole tree, as are `start` and `end`.

    Raises:
      MalformedProof: not a subtree, an index outside it, or as `root_from_inclusion`.
      RootMismatch: the proof leads to another root.
    """
    if fault := _range_fault(start, end, MAX_SIZE):
        raise MalformedProof(fault)
    if type(index) is not int:
        raise MalformedProof(f"index must be an integer, not {type(index).__name__}")
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

    Both must be compared. Where the subtree is itself a node of the tree, the first is the
    `subtree_root` given, from which the second is computed.

    Raises:
      MalformedProof: not a subtree, or a proof that does not have the digests that it takes.
    """
    if fault := _range_fault(start, end, size):
        raise MalformedProof(fault)
    if start == end:
        raise MalformedProof("no root follows from an empty subtree")
    return _fold(proof, _path(start, end, size), subtree_root, suite)


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

    The empty subtree is part of every tree: its root and an empty proof are all that is looked at.

    Raises:
      MalformedProof: as `roots_from_subtree_consistency`.
      RootMismatch: the proof leads to another root of the tree or of the subtree.
    """
    if fault := _range_fault(start, end, size):
        raise MalformedProof(fault)
    if start == end:
        _require_digests(proof, 0)
        roots = suite.empty, root
    else:
        roots = roots_from_subtree_consistency(
            proof, start=start, end=end, size=size, subtree_root=subtree_root, suite=suite
        )
    _require_root(subtree_root, roots[0])
    _require_root(root, roots[1])


def verify_consistency(
    proof: Sequence[bytes],
    *,
    old_size: int,
    old_root: bytes,
    size: int,
    root: bytes,
    suite: Suite = BLAKE3,
) -> None:
    """Verify that the tree only grew: its first `old_size` leaves are what they were.

    Raises:
      MalformedProof: sizes out of order, an old size of zero (about which RFC 9162 defines no
        proof), or a proof that does not have the digests that these sizes take.
      RootMismatch: the proof leads to another old or new root.
    """
    if old_size == 0:
        raise MalformedProof("the empty tree is a prefix of any: there is no such proof")
    verify_subtree_consistency(
        proof, start=0, end=old_size, size=size, subtree_root=old_root, root=root, suite=suite
    )


def root_from_multiproof(
    proof: Sequence[bytes],
    *,
    leaves: NDArray[np.uint8] | Sequence[bytes],
    indices: Sequence[int],
    size: int,
    suite: Suite = BLAKE3,
) -> bytes:
    """Root of the tree of `size` leaves that has these leaf digests at `indices`.

    Args:
      proof: digests that cannot be computed: level by level from the leaves, left to right.
      leaves: digests, uint8 (k, 32) or k times 32 bytes.
      indices: k positions, strictly increasing.
      size: leaves in the tree.
      suite: how it is hashed.

    Raises:
      MalformedProof: indices out of order or out of range, or none; another number of leaves; or
        a proof that does not have exactly the digests that these indices take.
    """
    if fault := indices_fault(indices, size):
        raise MalformedProof(fault)
    digests = _digest_rows(leaves)
    if digests is None or len(digests) != len(indices):
        raise MalformedProof(f"{len(indices)} indices need as many leaf digests")
    levels = list(_levels(indices, size))
    supplied = _require_digests(proof, sum(int(np.sum(~known)) for _, known in levels))
    for _, known in levels:
        pairs = np.empty((*known.shape, DIGEST_SIZE), np.uint8)
        computed, missing = int(np.sum(known)), int(np.sum(~known))
        pairs[known], carried = digests[:computed], digests[computed:]
        pairs[~known], supplied = supplied[:missing], supplied[missing:]
        parents = suite.nodes(pairs.reshape(-1, 2 * DIGEST_SIZE))
        digests = np.concatenate([parents, carried])
    return digests[0].tobytes()


def verify_multiproof(
    proof: Sequence[bytes],
    *,
    leaves: NDArray[np.uint8] | Sequence[bytes],
    indices: Sequence[int],
    size: int,
    root: bytes,
    suite: Suite = BLAKE3,
) -> None:
    """Verify that the tree of this root and size has these leaf digests at `indices`.

    Raises:
      MalformedProof: as `root_from_multiproof`.
      RootMismatch: the proof leads to another root.
    """
    computed = root_from_multiproof(proof, leaves=leaves, indices=indices, size=size, suite=suite)
    _require_root(root, computed)


def _fold(
    proof: Sequence[bytes], steps: list[_Step], seed: bytes, suite: Suite
) -> tuple[bytes, bytes]:
    """Roots of the subtree and of the tree, from `seed` and one digest of the proof a step."""
    _require_digests(proof, len(steps))
    if type(seed) is not bytes or (steps and len(seed) != DIGEST_SIZE):
        raise MalformedProof(f"a root is {DIGEST_SIZE} bytes")
    subtree = tree = seed
    for digest, step in zip(proof, steps, strict=True):
        match step.side:
            case _Side.SEED:
                subtree = tree = digest
            case _Side.RIGHT:
                tree = suite.node(tree, digest)
            case _Side.LEFT:
                tree = suite.node(digest, tree)
            case _Side.SHARED:
                subtree, tree = suite.node(digest, subtree), suite.node(digest, tree)
    return subtree, tree


def _require_root(expected: Any, computed: bytes, index: int | None = None) -> None:
    if type(expected) is not bytes:
        raise MalformedProof(f"a root is {DIGEST_SIZE} bytes, not {type(expected).__name__}")
    if computed != expected:
        raise RootMismatch(expected=expected, computed=computed, index=index)


def _require_digests(proof: Any, length: int) -> NDArray[np.uint8]:
    if not isinstance(proof, list | tuple):
        raise MalformedProof(f"a proof is a list of digests, not {type(proof).__name__}")
    if len(proof) != length:
        raise MalformedProof(f"proof has {len(proof)} digests where positions take {length}")
    digests = _digest_rows(proof)
    if digests is None:
        raise MalformedProof(f"proof holds something other than digests of {DIGEST_SIZE} bytes")
    return digests


def _digest_rows(digests: Any) -> NDArray[np.uint8] | None:
    """Digests as a uint8 array (n, 32), or None if they are not digests."""
    if isinstance(digests, np.ndarray):
        well_formed = digests.dtype == np.uint8 and digests.shape[1:] == (DIGEST_SIZE,)
        return digests if well_formed else None
    if not isinstance(digests, list | tuple):
        return None
    if not all(type(digest) is bytes and len(digest) == DIGEST_SIZE for digest in digests):
        return None
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_SIZE)
