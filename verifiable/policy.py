"""What "within tolerance" means: a policy, and its id.

A policy fixes the number of draws, the probability `phi` that one honest run is rejected, and per
dtype the tolerance `eps`, in units of the scale of `freivalds`. Keys and receipts bind its id, so
a check under another policy is refused.

The default `eps` is several times the largest value seen on honest devices (compiled and op by
op, on trained weights; `benchmarks/soundness.py` measures it), including the difference that
replayed glue adds to the operands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from verifiable.encoding import encode, tagged_hash

if TYPE_CHECKING:
    from verifiable.claims import Contraction

_EPS = (
    ("bfloat16", 2.0**-6),
    ("float16", 2.0**-8),
    ("float32", 2.0**-16),
    ("float64", 2.0**-44),
)
_OUTPUT_EPS = (
    ("bfloat16", 2.0**-4),
    ("complex128", 2.0**-36),
    ("complex64", 2.0**-12),
    ("float16", 2.0**-6),
    ("float32", 2.0**-12),
    ("float64", 2.0**-36),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Tolerances and limits of a check.

    Attributes:
      draws: random vectors per floating-point claim.
      phi: probability that one honest run is rejected by chance.
      eps: per dtype, the deviation of an honest row, as a fraction of its scale; a claim takes the
        largest of its two operands and its output.
      output_eps: per dtype, how far a row of the output may be from the replayed one, as a
        fraction of its 2-norm.
      trip_limit: a replayed `while` loop that runs longer is indeterminate.
    """

    draws: int = 16
    phi: float = 1e-9
    eps: tuple[tuple[str, float], ...] = _EPS
    output_eps: tuple[tuple[str, float], ...] = _OUTPUT_EPS
    trip_limit: int = 2**16

    def __post_init__(self) -> None:
        """Refuse a policy under which everything or nothing would pass."""
        if not 1 <= self.draws <= 4096:
            raise ValueError(f"draws must be 1 to 4096, got {self.draws}")
        if not 1e-30 <= self.phi <= 0.5:
            raise ValueError(f"phi must be 1e-30 to 0.5, got {self.phi}")
        if not 1 <= self.trip_limit < 2**31:
            raise ValueError(f"trip_limit must be 1 to 2^31 - 1, got {self.trip_limit}")
        for table in (self.eps, self.output_eps):
            if len(dict(table)) < len(table):
                raise ValueError(f"a dtype stands twice in {table}")
        for name, value in (*self.eps, *self.output_eps):
            if not (math.isfinite(value) and 0 < value < 1):
                raise ValueError(f"the tolerance of {name} must lie between 0 and 1, got {value}")

    @property
    def id(self) -> bytes:
        """32 bytes that name every number of the policy."""
        numbers = [
            "weighted-columns",  # the scale of freivalds
            self.draws,
            self.phi.hex(),
            [[name, eps.hex()] for name, eps in sorted(self.eps)],
            [[name, eps.hex()] for name, eps in sorted(self.output_eps)],
            self.trip_limit,
        ]
        return tagged_hash("policy", encode(numbers))

    def eps_of(self, form: Contraction) -> float:
        """Tolerance of a contraction; zero for integers.

        Raises:
          ValueError: the policy names no tolerance for one of its types.
        """
        return 0.0 if form.exact else max(_find(self.eps, dtype) for dtype in form.dtypes)

    def output_eps_of(self, dtype: Any) -> float:
        """Tolerance of an output of this type.

        Raises:
          ValueError: the policy names none.
        """
        return _find(self.output_eps, dtype)


def _find(table: tuple[tuple[str, float], ...], dtype: Any) -> float:
    name = str(dtype.name)
    value = dict(table).get(name)
    if value is None:
        known = ", ".join(n for n, _ in table)
        raise ValueError(f"the policy has no tolerance for {name}, only for {known}")
    return value


DEFAULT = Policy()
