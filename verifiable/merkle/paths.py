"""The ranges that the digests of a proof stand for, computed from positions and sizes alone.

A prover sends digests and nothing about the shape of the tree. The prover and the verifier derive
the same list of ranges from the positions and sizes that both know, so a proof of another length
is refused before anything is hashed.

A *subtree* is a range [start, end) of leaves where `start` is a multiple of the least power of two
that is at least `end - start` (draft-ietf-plants-merkle-tree-certs).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt64

MAX_SIZE: Final = 2**64 - 1
"""The most leaves that a tree may claim to have."""


class Side(Enum):
    """Relation of a digest in a proof to the nodes computed so far."""

    SEED = "stands for both"
    RIGHT = "right sibling in the tree"
    LEFT = "left sibling in the tree"
    SHARED = "left sibling in the subtree and in the tree"


class PathStep(NamedTuple):
    """One digest of a proof: the leaves [start, end) it stands for, and where it is combined."""

    start: int
    end: int
    side: Side


class PathLevel(NamedTuple):
    """One level of a multiproof: the k parents computed on it, and which children are known."""

    parents: UInt64[np.ndarray, " k"]
    known: Bool[np.ndarray, "k 2"]


def split(n: int) -> int:
    """The largest power of two below n."""
    return 1 << ((n - 1).bit_length() - 1)


def path(start: int, end: int, size: int) -> list[PathStep]:
    """Ranges that prove the subtree [start, end), not empty, consistent with the tree."""
    low, high, steps = 0, size, list[PathStep]()
    seeded = False
    while (start, end) != (low, high):
        middle = low + split(high - low)
        if end <= middle:
            steps.append(PathStep(middle, high, Side.RIGHT))
            high = middle
        elif middle <= start:
            steps.append(PathStep(low, middle, Side.LEFT))
            low = middle
        else:
            # Only a subtree that starts here can straddle the middle: its left half is complete.
            steps.append(PathStep(low, middle, Side.SHARED))
            low = start = middle
            seeded = True
    if seeded:
        steps.append(PathStep(low, high, Side.SEED))
    return steps[::-1]


def levels(indices: Sequence[int], size: int) -> Iterator[PathLevel]:
    """Levels of a multiproof, from the leaves: the parents, and which of their children are known.

    The last node of an odd level has no sibling. It comes after all known children, and is carried
    up to the next level unchanged.
    """
    positions, width, one = np.array(indices, np.uint64), size, np.uint64(1)
    while width > 1:
        carried = width % 2 == 1 and int(positions[-1]) == width - 1
        paired, rest = np.split(positions, [len(positions) - carried])
        parents, row = np.unique(paired >> one, return_inverse=True)
        known = np.zeros((len(parents), 2), np.bool_)
        known[row, (paired & one).astype(np.intp)] = True
        yield PathLevel(parents, known)
        positions = np.concatenate([parents, rest >> one])
        width = (width + 1) // 2


def multiproof_size(indices: Sequence[int], size: int) -> int:
    """Digests in the multiproof of these leaves, strictly increasing, in a tree of this size."""
    return sum(int(np.sum(~known)) for _, known in levels(indices, size))


def range_fault(start: Any, end: Any, size: Any) -> str | None:
    """Why [start, end) is not a subtree of a tree of this size; None if it is one."""
    if not all(map(_is_count, (start, end, size))):
        return "positions and sizes must be integers in [0, 2^64)"
    if not start <= end <= size:
        return f"range [{start}, {end}) is not within a tree of {size} leaves"
    if start < end and start % (1 << (end - start - 1).bit_length()):
        return f"range [{start}, {end}) is not a subtree: its start is not a multiple of its width"
    return None


def indices_fault(indices: Any, size: Any) -> str | None:
    """Why these are not strictly increasing positions in a tree of this size; None if they are.

    Args:
      indices: should be a sequence of at least one integer.
      size: should be an integer, the number of leaves.
    """
    if not _is_count(size):
        return "the size of a tree must be an integer in [0, 2^64)"
    if not isinstance(indices, Sequence) or not indices:
        return "a multiproof needs at least one leaf, in a sequence of indices"
    if not all(_is_count(index) and index < size for index in indices):
        return f"indices are not all integers within a tree of {size} leaves"
    if any(a >= b for a, b in pairwise(indices)):
        return "indices are not strictly increasing"
    return None


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number <= MAX_SIZE
