"""A slow oracle of Merkle trees: RFC 9162 over a fixed list of leaves, word for word."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import strategies as st

from verifiable.errors import MerkleError
from verifiable.merkle import BLAKE3, SHA256, Suite, Tree

SUITES = pytest.mark.parametrize("suite", [BLAKE3, SHA256], ids=lambda suite: suite.name)
SIZE = 70

Proof = tuple[bytes, ...]


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


def accepts(verify: Callable[[], Any]) -> bool:
    try:
        verify()
    except MerkleError:
        return False
    return True


@st.composite
def some_leaves(draw: st.DrawFn) -> tuple[list[int], int]:
    size = draw(st.integers(1, SIZE))
    return sorted(draw(st.sets(st.integers(0, size - 1), min_size=1))), size
