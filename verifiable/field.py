"""Exact arithmetic modulo a Mersenne prime p = 2^e - 1, on double-precision matrix products.

To apply a linear map over small integers to residues, cut the residues into limbs of b bits. With
entries of magnitude at most a and sums of at most n terms, every partial sum is below
a n 2^b <= 2^53, so a product in double precision is exact. Then reassemble the limbs with
2^e = 1 (mod p) and reduce after every addition: five residues modulo 2^61 - 1 would overflow.
A map that adds up 64-bit integers has limbs of up to 31 bits, below 2^63 in place of 2^53.

Arrays may be numpy's or, under `jax.enable_x64`, JAX's, inside or outside `jit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float64, Int64, UInt64

Residues: TypeAlias = UInt64[Any, "*shape"]
"""Array of numpy or JAX, uint64, each entry below p."""

MANTISSA = 53
"""Bits of the significand of a double-precision number."""

INT64 = 63
"""Bits of the magnitude of a 64-bit integer."""


@dataclass(frozen=True, slots=True)
class Field:
    """The integers modulo p = 2^exponent - 1, a prime; residues are uint64 in [0, p).

    Attributes:
      exponent: 61 in production; smaller in tests, which try every vector of a tiny field.

    Raises:
      ValueError: 2^exponent - 1 is not a prime below 2^62.
    """

    exponent: int

    def __post_init__(self) -> None:
        """Require a prime, and sums of two residues that fit 64 bits."""
        if self.exponent not in (2, 3, 5, 7, 13, 17, 19, 31, 61):
            raise ValueError(
                f"exponent must give a prime 2^exponent - 1 below 2^62, got {self.exponent}"
            )

    @property
    def p(self) -> int:
        """The modulus."""
        return 2**self.exponent - 1

    def reduce(self, x: UInt64[Any, "*shape"]) -> Residues:
        """Residues of unsigned integers below 2 p + 2.

        Args:
          x: uint64, any shape.
        """
        p = np.uint64(self.p)
        x = (x & p) + (x >> np.uint64(self.exponent))
        return x - p * (x >= p).astype(np.uint64)

    def shift(self, a: Residues, bits: int) -> Residues:
        """`a 2^bits` for residues: a rotation within `exponent` bits, because 2^exponent = 1."""
        bits %= self.exponent
        high = a >> np.uint64(self.exponent - bits)
        low = (a << np.uint64(bits)) & np.uint64(self.p)
        return self.reduce(low | high)

    def from_integers(self, x: Float64[Any, "*shape"] | Int64[Any, "*shape"]) -> Residues:
        """Residues of signed integers.

        Args:
          x: int64, or float64 whose entries are integers below 2^53 in magnitude; any shape.
        """
        x = x.astype(np.int64) % np.int64(self.p)
        return x.astype(np.uint64)

    def apply_linear(
        self,
        linear: Callable[[Float64[Any, "*shape"]], Float64[Any, "*mapped"]],
        residues: Residues,
        *,
        magnitude: int,
        terms: int,
    ) -> UInt64[Any, "*mapped"]:
        """Apply an integer linear map to residues, exactly.

        Args:
          linear: maps float64 (..., k) to float64 (..., k) for any k, linear over the leading axes.
            Its entries are integers of magnitude at most `magnitude`, in sums of at most `terms`.
          residues: uint64 (..., draws), each below p.
          magnitude: bound on the entries of the map; a larger entry would make the result wrong.
          terms: bound on the number of terms of each sum.

        Returns:
          uint64 residues of the map's output shape, (..., draws).

        Raises:
          ValueError: limbs of one bit are already too wide to be exact.
        """
        bits = limb_bits(magnitude, terms)
        limbs = [x.astype(np.float64) for x in self.limbs(residues, bits)]
        sums = linear(residues.__array_namespace__().concat(limbs, axis=-1))
        draws = residues.shape[-1]
        return self.from_limbs(
            [sums[..., draws * i : draws * (i + 1)] for i in range(len(limbs))], bits
        )

    def limbs(self, residues: Residues, bits: int) -> list[UInt64[Any, "*shape"]]:
        """The limbs of residues, of `bits` bits each, the lowest first."""
        mask = np.uint64(2**bits - 1)
        count = math.ceil(self.exponent / bits)
        return [(residues >> np.uint64(bits * i)) & mask for i in range(count)]

    def from_limbs(self, sums: Sequence[Any], bits: int) -> Residues:
        """The residues with these limbs: signed integers of any size, as `from_integers` takes."""
        total, *others = map(self.from_integers, sums)
        for i, part in enumerate(others, 1):
            total = self.reduce(total + self.shift(part, bits * i))
        return total


def limb_bits(magnitude: int, terms: int, digits: int = MANTISSA) -> int:
    """Widest limb, in bits, for which sums of `terms` products with the map's entries are exact.

    Args:
      magnitude: bound on the entries of the map.
      terms: bound on the number of terms of each sum.
      digits: bits of the magnitude of an exact sum.

    Raises:
      ValueError: limbs of one bit are already too wide.
    """
    bits = digits - (magnitude * terms).bit_length()
    if bits < 1:
        raise ValueError(
            f"sums of {terms} entries of magnitude {magnitude} are not exact in {digits} bits"
        )
    return bits


F61 = Field(61)
"""The field of all checks: p = 2^61 - 1."""
