"""Draws from a public seed: which receipts are audited, and which identities get a seat.

A draw is a function of a seed that was unknown when the receipts were committed: the epoch's
public challenge. With the seed, anyone can recompute the draw afterwards and check that every
receipt drawn was audited. A draw of u + 1 begins with the draw of u, so an audit can be extended,
or stopped early by a sequential test, without a new draw. Specification: specs/sampling.md, 1.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from blake3 import blake3
from jaxtyping import Float64, Integer, UInt64

from verifiable.errors import require_bytes32

_CONTEXT = "verifiable v1 sampling"


class _Stream:
    """Uniform integers from BLAKE3's extendable output of a seed and a label."""

    __slots__ = ("_buffer", "_hasher", "_label", "_position", "_read")

    def __init__(self, seed: bytes, label: str):
        require_bytes32("seed", seed)
        self._hasher = blake3(seed, derive_key_context=_CONTEXT).update(label.encode())
        self._buffer, self._position, self._read = b"", 0, 0

    def words(self, count: int) -> UInt64[np.ndarray, " count"]:
        """The first words of the stream."""
        return np.frombuffer(self._hasher.digest(length=8 * count), dtype="<u8")

    def below(self, bound: int) -> int:
        """Uniform in 0 .. bound - 1: take as many bits as bound - 1 has, until below the bound."""
        bits = (bound - 1).bit_length()
        size, mask = (bits + 7) // 8, (1 << bits) - 1
        while True:
            if self._position + size > len(self._buffer):
                self._read += self._position
                self._buffer = self._hasher.digest(length=max(4096, size), seek=self._read)
                self._position = 0
            end = self._position + size
            value = int.from_bytes(self._buffer[self._position : end], "little") & mask
            self._position = end
            if value < bound:
                return value


def draw(seed: bytes, population: int, audits: int, *, label: str = "audits") -> tuple[int, ...]:
    """Draw distinct indices uniformly, in random order; a longer draw begins with a shorter one.

    Args:
      seed: 32 bytes that were unknown when the population was fixed.
      population: number of receipts N; indices run from 0 to N - 1.
      audits: number of receipts to draw.
      label: separates draws with the same seed, such as one per worker.

    Returns:
      The indices in the order drawn (sparse Fisher-Yates shuffle).

    Raises:
      ValueError: there are more audits than receipts or fewer than 0, or the seed has another
        length.
    """
    if not 0 <= audits <= population:
        raise ValueError(f"audits must be in 0 .. {population}, the population, got {audits}")
    stream = _Stream(seed, f"draw/{label}")
    moved: dict[int, int] = {}
    drawn: list[int] = []
    for place in range(audits):
        chosen = place + stream.below(population - place)
        drawn.append(moved.get(chosen, chosen))
        moved[chosen] = moved.pop(place, place)
    return tuple(drawn)


def draw_each(
    seed: bytes, rates: Sequence[float] | Float64[np.ndarray, " receipts"], *, label: str = "audits"
) -> tuple[int, ...]:
    """Draw each receipt independently at its own rate.

    Receipt i is drawn iff the i-th 64-bit word of the stream is below rates[i] * 2^64, rounded up.

    Args:
      seed: 32 bytes that were unknown when the receipts were fixed.
      rates: for each receipt, the probability that it is drawn.
      label: separates draws with the same seed, such as one per worker.

    Returns:
      Indices of the receipts drawn, ascending.

    Raises:
      ValueError: a rate is outside [0, 1] or NaN, or the seed has another length.
    """
    wanted = np.asarray(rates, dtype=np.float64)
    if wanted.ndim != 1 or not np.all((wanted >= 0.0) & (wanted <= 1.0)):
        raise ValueError(
            "rates must be a vector of probabilities in [0, 1], "
            f"got an array of shape {wanted.shape}"
        )
    certain = wanted == 1.0
    limit = np.ceil(np.ldexp(np.where(certain, 0.0, wanted), 64)).astype(np.uint64)
    words = _Stream(seed, f"each/{label}").words(len(wanted))
    return tuple(np.flatnonzero(certain | (words < limit)).tolist())


def select(
    seed: bytes,
    weights: Sequence[int] | Integer[np.ndarray, " identities"],
    seats: int,
    *,
    label: str = "seats",
) -> tuple[int, ...]:
    """Select distinct identities, each next one with probability proportional to its weight.

    Splitting a weight among sybils does not change its share of a seat. With several seats, though,
    sybils can win more than one, while an undivided identity cannot. The arithmetic is exact in
    integers, so that every recomputation selects the same seats.

    Args:
      seed: 32 bytes that were unknown when the weights were fixed.
      weights: a non-negative integer per identity, such as a stake in its smallest unit: Python's
        integers, or numpy's.
      seats: number of identities to select; none is selected twice.
      label: separates selections with the same seed, such as one per job.

    Returns:
      Positions of the identities, in the order selected.

    Raises:
      ValueError: a weight is negative, fewer than `seats` weights are positive, or the seed has
        another length.
      TypeError: a weight is no integer, of Python or numpy; a float would round a large stake.
    """
    # Python's integers do not wrap around, as sums of numpy's may.
    weights = [operator.index(weight) for weight in weights]
    ends: list[int] = []
    total = 0
    for weight in weights:
        if weight < 0:
            raise ValueError(f"weights must not be negative, got {weight}")
        total += weight
        ends.append(total)
    positive = sum(weight > 0 for weight in weights)
    if not 0 <= seats <= positive:
        raise ValueError(
            f"seats must be in 0 .. {positive}, the identities of positive weight, got {seats}"
        )
    stream = _Stream(seed, f"select/{label}")
    chosen: list[int] = []
    taken: list[tuple[int, int]] = []  # (start, weight) of the chosen intervals, ascending
    for _ in range(seats):
        point = stream.below(total - sum(weight for _, weight in taken))
        # Skip the intervals already taken, so that the point falls into one of the others.
        for start, weight in taken:
            if point >= start:
                point += weight
        index = bisect_right(ends, point)
        chosen.append(index)
        taken.append((ends[index] - weights[index], weights[index]))
        taken.sort()
    return tuple(chosen)
