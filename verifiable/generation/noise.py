"""Gumbel noise from a seed: the same bits in every language, without a logarithm at run time.

With g independent and of the Gumbel distribution, argmax(z + g) is a sample of softmax(z). An
inverse distribution function G(u) = -ln(-ln u) evaluated on the device would differ in its last
bits from library to library. So the noise is read from tables of G, whose digest is published:

    seed, position -> a BLAKE3 stream of 16-bit digits
    digit d of a token, 256 <= d < 65280     G((d + 1/2) / 2^16)
    d < 256 or d >= 65280                    a further digit refines the tail of 2^-8
    if that is less than 256                 a further digit refines the tail of 2^-16

Each token of each position has one digit, and one in 128 has a second. A level of a tail is chosen
with its exact probability, so the noise is the Gumbel distribution, rounded to steps of 2^-16 in
the middle, of 2^-24 in the tails, and of 2^-32 at their ends. A token and its position decide on
its noise; the seed is the job's, so nobody can draw again. specs/generation.md has vectors.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from blake3 import blake3
from jaxtyping import Float32, UInt16

from verifiable.errors import require_bytes32

CONTEXT = "verifiable v1 generation noise"
SEED_BYTES = 32

_LEVELS = 1 << 16
_TAIL = 256  # digits at each end that are refined

TABLES_DIGEST = "94425da06f3c45c0f406c0c7c0e81c648799dd42d5fad870fe218b126034b69b"
"""BLAKE3 of the tables, as `tables_digest` computes it."""


class Tables(NamedTuple):
    """Values of the noise by digit, 65,536 each.

    Attributes:
      middle: G((d + 1/2) / 2^16); its first and last 256 are never read.
      low: the lower tail, G(2^-8 (d + 1/2) / 2^16) and G(2^-16 (d + 1/2) / 2^16).
      high: the upper tail, with 1 minus the same.
    """

    middle: Float32[np.ndarray, " levels"]
    low: tuple[Float32[np.ndarray, " levels"], Float32[np.ndarray, " levels"]]
    high: tuple[Float32[np.ndarray, " levels"], Float32[np.ndarray, " levels"]]


@functools.cache
def tables() -> Tables:
    """The tables, rounded to float32 from float64.

    Each value is at least 400 units in the last place of float64 away from the middle of two
    neighbouring float32, so every library whose logarithm is off by less makes the same tables.

    Raises:
      RuntimeError: this library's logarithm made others.
    """
    q = (np.arange(_LEVELS) + 0.5) / _LEVELS
    low = tuple(_rounded(-np.log(-np.log(q * scale))) for scale in (2.0**-8, 2.0**-16))
    high = tuple(_rounded(-np.log(-np.log1p(-q * scale))) for scale in (2.0**-8, 2.0**-16))
    made = Tables(_rounded(-np.log(-np.log(q))), (low[0], low[1]), (high[0], high[1]))
    if tables_digest(made) != TABLES_DIGEST:
        raise RuntimeError(
            f"the tables of the noise have digest {tables_digest(made)}, the specification has "
            f"{TABLES_DIGEST}: the logarithm of this numpy is off by more than it may be"
        )
    return made


def _rounded(values: np.ndarray) -> np.ndarray:
    made = values.astype("<f4")
    made.setflags(write=False)
    return made


def tables_digest(made: Tables) -> str:
    """BLAKE3 of middle, low and high, little-endian float32, as 64 hexadecimal digits."""
    hasher = blake3()
    for part in (made.middle, *made.low, *made.high):
        hasher.update(np.ascontiguousarray(part, "<f4").tobytes())
    return hasher.hexdigest()


def gumbel(
    seed: bytes, positions: int, vocabulary: int, *, start: int = 0
) -> Float32[np.ndarray, "positions vocabulary"]:
    """The noise of some positions of a completion.

    Args:
      seed: 32 bytes, of the job.
      positions: how many.
      vocabulary: tokens, which is the width of the logits.
      start: the first position, counted from the first token of the completion.

    Raises:
      TypeError: the seed is not bytes.
      ValueError: the seed has another length, or a number is negative.
    """
    require_bytes32("the seed of a job", seed)
    if min(positions, vocabulary, start) < 0:
        raise ValueError(
            f"positions, vocabulary and start must not be negative, got {positions}, {vocabulary}, "
            f"{start}"
        )
    noise = np.empty((positions, vocabulary), np.float32)
    for row in range(positions):
        _fill(noise[row], seed, start + row)
    return noise


def _fill(row: Float32[np.ndarray, " vocabulary"], seed: bytes, position: int) -> None:
    """Write the noise of one position."""
    made = tables()
    stream = blake3(seed + position.to_bytes(8, "little"), derive_key_context=CONTEXT)
    read = 0

    def digits(count: int) -> UInt16[np.ndarray, " count"]:
        nonlocal read
        data = stream.digest(length=2 * count, seek=2 * read)
        read += count
        return np.frombuffer(data, "<u2")

    first = digits(len(row))
    np.take(made.middle, first, out=row, mode="clip")  # every digit has an entry
    # Digits wrap round: both tails, and nothing else, come to less than 512.
    tokens = np.flatnonzero(first + np.uint16(_TAIL) < 2 * _TAIL)
    is_low = first[tokens] < _TAIL
    for low, high in zip(made.low, made.high, strict=True):
        if not len(tokens):
            return
        further = digits(len(tokens))
        row[tokens] = np.where(is_low, low[further], high[further])
        again = further < _TAIL
        tokens, is_low = tokens[again], is_low[again]
