"""Exact arithmetic modulo a Mersenne prime p = 2^e - 1, on double-precision matrix products.

A linear map over small integers is applied to residues by cutting the residues into limbs of b
bits. With entries of magnitude at most a and sums of at most n terms, every partial sum is below
a n 2^b <= 2^53, so a product in double precision is exact. The limbs are then reassembled with
2^e = 1 (mod p), reducing after every addition: five residues modulo 2^61 - 1 would overflow.

Arrays may be numpy's or, under `jax.enable_x64`, JAX's, inside or outside `jit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # of numpy or JAX, with 64-bit types

MANTISSA = 53


@dataclass(frozen=True, slots=True)
class Field:
    """The integers modulo 2^exponent - 1, which must be prime; residues are uint64 in [0, p).

    Attributes:
      exponent: 61 everywhere but in tests, where every vector of a tiny field can be tried.
    """

    exponent: int

    def __post_init__(self) -> None:
        """Sums of two residues must fit 64 bits, and p must be prime."""
        if self.exponent not in (2, 3, 5, 7, 13, 17, 19, 31, 61):
            raise ValueError(f"2^{self.exponent} - 1 is not a prime below 2^62")

    @property
    def p(self) -> int:
        """The modulus."""
        return 2**self.exponent - 1

    def reduce(self, x: Array) -> Array:
        """Residues of unsigned integers below 2 p + 2."""
        p = np.uint64(self.p)
        x = (x & p) + (x >> np.uint64(self.exponent))
        return x - p * (x >= p).astype(np.uint64)

    def add(self, a: Array, b: Array) -> Array:
        """Sum of residues."""
        return self.reduce(a + b)

    def shift(self, a: Array, bits: int) -> Array:
        """`a 2^bits` for residues: a rotation of `exponent` bits, since 2^exponent = 1."""
        bits %= self.exponent
        high = a >> np.uint64(self.exponent - bits)
        low = (a << np.uint64(bits)) & np.uint64(self.p)
        return self.reduce(low | high)

    def from_integers(self, x: Array) -> Array:
        """Residues of signed integers below 2^53 in magnitude, given as exact float64."""
        x = x.astype(np.int64) % np.int64(self.p)
        return x.astype(np.uint64)

    def apply_linear(
        self,
        linear: Callable[[Array], Array],
        residues: Array,
        *,
        magnitude: int,
        terms: int,
    ) -> Array:
        """Apply an integer linear map to residues, exactly.

        Args:
          linear: float64 (..., draws) -> float64 (..., draws), linear over the leading axes, whose
            integer entries have magnitude at most `magnitude`, in sums of at most `terms`.
          residues: uint64 (..., draws), each below p.
          magnitude: bound on the entries of the map; a larger entry breaks exactness.
          terms: bound on the number of terms of each sum.

        Returns:
          uint64 residues of the map's output shape.

        Raises:
          ValueError: not even limbs of one bit are exact.
        """
        bits = limb_bits(magnitude, terms)
        count = math.ceil(self.exponent / bits)
        draws = residues.shape[-1]
        mask = np.uint64(2**bits - 1)
        limbs = [
            ((residues >> np.uint64(bits * i)) & mask).astype(np.float64) for i in range(count)
        ]
        sums = self.from_integers(linear(residues.__array_namespace__().concat(limbs, axis=-1)))
        total = sums[..., :draws]
        for i in range(1, count):
            part = sums[..., draws * i : draws * (i + 1)]
            total = self.add(total, self.shift(part, bits * i))
        return total


def limb_bits(magnitude: int, terms: int) -> int:
    """Widest limb for which sums of `terms` products with entries up to `magnitude` are exact.

    Raises:
      ValueError: not even one bit fits.
    """
    bits = MANTISSA - (max(magnitude, 1) * max(terms, 1)).bit_length()
    if bits < 1:
        raise ValueError(
            f"sums of {terms} entries of magnitude {magnitude} are not exact in double precision"
        )
    return bits


F61 = Field(61)
