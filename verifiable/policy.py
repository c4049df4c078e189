"""What "within tolerance" means: a policy, its calibration, and its id.

A policy fixes the number of draws, the probability `phi` that one honest run is rejected, and the
tolerances `eps`: of a contraction in units of the scale of `freivalds`, of a rounding in units of
|value| + rms (`rounding`), of an output in units of its row's 2-norm. Keys and receipts bind its
id, so a check under another policy is refused.

The default `eps` goes by dtype, and is several times the largest value seen on honest devices
(compiled and op by op, on trained weights; `benchmarks/soundness.py` measures it), including the
difference that replayed glue adds to the operands. A float32 product that decides (tested in blocks
of columns) has at most u (16 + sqrt(K)), u = 2^-24: what its operands and its sums of K terms lose,
and not the glue of a whole layer. `Program.calibrate` measures it for each claim
of a program, on the user's own inputs and trusted executors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from verifiable.encoding import encode, tagged_hash
from verifiable.errors import is_bytes32
from verifiable.report import table

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
_LOSSES = (("arithmetic", 2.0), ("function", 8.0), ("product", 16.0))
_LONGEST_SUM = 2**14  # terms; more widen a tolerance no further
_LARGEST_SUM = 0.5  # the widest tolerance of a narrow sum
_GLUE = 16.0  # roundoffs that replay adds to the operand of a product that decides


TENSOR_CORE = "14 bits"
"""What tensor cores add up products of 8-bit floats in, in place of a type's name."""

ROUNDOFF = {"bfloat16": 2.0**-8, "float16": 2.0**-11, TENSOR_CORE: 2.0**-14}
"""Unit roundoffs of narrow sums, by the names of their types."""


class NarrowSum(NamedTuple):
    """A sum that a device may add up in a narrow type.

    Attributes:
      dtype: name of the type, a key of `ROUNDOFF`.
      terms: number of terms, K.
    """

    dtype: str
    terms: int


class Tested(Protocol):
    """A claim, an output, or a contraction: anything that is tested against a tolerance."""

    @property
    def eps_types(self) -> Iterable[str]:
        """Types whose rounding separates honest devices; none for integers."""
        ...

    @property
    def narrow_sums(self) -> Iterable[NarrowSum]:
        """Replayed sums, since the last exact value, that a device may add up in a narrow type."""
        ...

    @property
    def own_sums(self) -> Iterable[NarrowSum]:
        """The sum of a claimed product, if a device may add it up in a narrow type."""
        ...

    @property
    def decisive(self) -> int:
        """Terms of the sums, K, of a product that is tested in blocks of columns; else zero."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Deviations that calibration measured for one claim or output, over all samples and executors.

    Attributes:
      name: of the claim; outputs are called `output`, with their path.
      median: the typical deviation of an honest run's worst row, in the units of `eps`.
      worst: the largest.
      eps: the tolerance that follows.
      flips: the share of a claim's decisions that may differ from the verifier's own, where that is
        more than eps allows for.
    """

    name: str
    median: float
    worst: float
    eps: float
    flips: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Tolerances that were measured on one program. Made by `Program.calibrate`.

    `compile` and `with_policy` refuse them for any other program: another function can have claims
    of the same names. Who wants them to hold for more programs, such as one function at other
    lengths, lists their ids too: `dataclasses.replace(calibration, programs=(...))`.

    Attributes:
      programs: 32-byte ids of the programs that the tolerances hold for.
      samples: inputs that were run.
      executors: trusted executors that ran each of them.
      factor: by how much a tolerance exceeds the largest deviation seen.
      measured: by claim and output.
    """

    programs: tuple[bytes, ...]
    samples: int
    executors: int
    factor: float
    measured: tuple[Measured, ...]

    def __post_init__(self) -> None:
        """Refuse a calibration without measurements, or one that would let everything pass."""
        ids = self.programs
        if type(ids) is not tuple or not ids or not all(map(is_bytes32, ids)):
            raise ValueError(f"a calibration needs a tuple of program ids of 32 bytes, got {ids!r}")
        if self.samples < 1 or self.executors < 1 or not self.measured:
            raise ValueError("a calibration needs at least one sample, executor and claim")
        if not (math.isfinite(self.factor) and self.factor >= 1):
            raise ValueError(f"the safety factor is at least 1 and finite, got {self.factor}")
        for m in self.measured:
            if not all(math.isfinite(x) and 0 <= x < 1 for x in (m.median, m.worst, m.flips)):
                raise ValueError(f"{m.name}: a deviation lies between 0 and 1, got {m}")
            if not 0 < m.eps < 1:
                raise ValueError(f"{m.name}: a tolerance lies between 0 and 1, got {m.eps}")

    def __str__(self) -> str:
        """The spread of each claim as a table."""
        rows = [("claim", "median", "worst", "spread", "eps")]
        for m in self.measured:
            spread = f"{m.worst / m.median:.1f}" if m.median else ""
            rows.append((m.name, f"{m.median:.2e}", f"{m.worst:.2e}", spread, f"{m.eps:.2e}"))
        head = f"{self.samples} samples on {self.executors} executors, factor {self.factor:g}"
        return f"{head}\n{table(rows)}"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Tolerances and limits of a check.

    Attributes:
      draws: random vectors per floating-point claim.
      phi: probability that one honest run is rejected by chance.
      eps: per dtype, the deviation of an honest row, as a fraction of its scale; a claim takes the
        largest of its output and of the types that its operands were rounded to since they were
        last committed.
      output_eps: per dtype, how far a row of the output may be from the replayed one, as a
        fraction of its 2-norm.
      narrow_sum: c; a row of a product of K terms that a device may add up in a type of unit
        roundoff u has at least eps = c u sqrt(K), for K up to 16,384.
      narrow_replayed: c of what follows such a product or sum that is replayed.
      trip_limit: a replayed `while` loop that runs longer is indeterminate.
      tie_rate: the probability that a decision of an honest device is not the verifier's own, in
        units of its eps (`check.flips`).
      losses: by kind of operation, how many unit roundoffs a device may lose (`jaxpr.perturb`);
        larger for classes of devices with coarser libraries.
      calibration: tolerances of the claims and outputs of the programs that it names, which come
        before `eps` and `output_eps`; None by default.
    """

    draws: int = 16
    phi: float = 1e-9
    eps: tuple[tuple[str, float], ...] = _EPS
    output_eps: tuple[tuple[str, float], ...] = _OUTPUT_EPS
    narrow_sum: float = 0.4
    narrow_replayed: float = 2.0
    trip_limit: int = 2**16
    tie_rate: float = 0.25
    losses: tuple[tuple[str, float], ...] = _LOSSES
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        """Refuse a policy under which everything or nothing would pass."""
        if not 1 <= self.draws <= 4096:
            raise ValueError(f"draws must be 1 to 4096, got {self.draws}")
        if not 1e-30 <= self.phi <= 0.5:
            raise ValueError(f"phi must be 1e-30 to 0.5, got {self.phi}")
        if not 1 <= self.trip_limit < 2**31:
            raise ValueError(f"trip_limit must be 1 to 2^31 - 1, got {self.trip_limit}")
        for name in ("narrow_sum", "narrow_replayed", "tie_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if sorted(name for name, _ in self.losses) != sorted(name for name, _ in _LOSSES):
            raise ValueError(
                f"losses must name each of {[name for name, _ in _LOSSES]} once, got {self.losses}"
            )
        for name, value in self.losses:
            if not 1 <= value <= 2**16:
                raise ValueError(f"the loss of {name} must be 1 to 2^16 roundoffs, got {value}")
        for names in (self.eps, self.output_eps):
            if len(dict(names)) < len(names):
                raise ValueError(f"a dtype is listed twice in {names}")
        for name, value in (*self.eps, *self.output_eps):
            if not (math.isfinite(value) and 0 < value < 1):
                raise ValueError(f"the tolerance of {name} must lie between 0 and 1, got {value}")

    @cached_property
    def id(self) -> bytes:
        """32 bytes that name every number of the policy."""
        numbers: list[Any] = [
            "weighted-columns-in-blocks-and-rows-of-roundings",  # what is held to a tolerance
            self.draws,
            self.phi.hex(),
            [[name, eps.hex()] for name, eps in sorted(self.eps)],
            [[name, eps.hex()] for name, eps in sorted(self.output_eps)],
            self.trip_limit,
            self.narrow_sum.hex(),
            self.narrow_replayed.hex(),
            self.tie_rate.hex(),
            [[name, loss.hex()] for name, loss in sorted(self.losses)],
        ]
        if self.calibration is not None:
            c = self.calibration
            measured = [
                [m.name, m.median.hex(), m.worst.hex(), m.eps.hex(), m.flips.hex()]
                for m in c.measured
            ]
            ids = sorted(set(c.programs))
            numbers.append([ids, c.samples, c.executors, float(c.factor).hex(), measured])
        return tagged_hash("policy", encode(numbers))

    @property
    def calibrated(self) -> dict[str, float]:
        """Tolerance by name of the claim or output, where it was calibrated."""
        return {m.name: m.eps for m in self.calibration.measured} if self.calibration else {}

    def eps_of(self, tested: Tested, name: str | None = None) -> float:
        """Tolerance of a claim of that name, or of one contraction; zero for integers.

        Raises:
          ValueError: the policy names no tolerance for one of its types.
        """
        if name in self.calibrated:
            return self.calibrated[name]
        eps = self._largest(self.eps, tested)
        wide = set(tested.eps_types) == {"float32"} and not set(tested.own_sums)
        if tested.decisive and wide:
            return min(eps, 2.0**-24 * (_GLUE + math.sqrt(tested.decisive)))
        return eps

    def tie_rate_of(self, tested: Tested, name: str | None = None) -> float:
        """The probability that a decision of a claim of that name is not the verifier's own.

        Raises:
          ValueError: the policy names no tolerance for one of its types.
        """
        found = self.calibration.measured if self.calibration else ()
        measured = max((m.flips for m in found if m.name == name), default=0.0)
        return min(1.0, max(self.tie_rate * self.eps_of(tested, name), measured))

    def output_eps_of(self, tested: Tested, name: str | None = None) -> float:
        """Tolerance of an output of that name; zero without floating-point types.

        Raises:
          ValueError: the policy names none.
        """
        if name in self.calibrated:
            return self.calibrated[name]
        return self._largest(self.output_eps, tested)

    def terms_share(self, output: Tested) -> float:
        """Tolerance of a sum by its terms, as a fraction of the tolerance of an output's rows.

        It is what a claim of the same types would have, whatever was calibrated; zero without
        floating-point types.
        """
        rows = self._largest(self.output_eps, output)
        return self._largest(self.eps, output) / rows if rows else 0.0

    def _largest(self, table: tuple[tuple[str, float], ...], tested: Tested) -> float:
        """The largest tolerance of the types of what is tested and of its sums."""
        types = _of_types(table, tested)
        own = [self.narrow_sum * _typical_loss(s) for s in tested.own_sums]
        replayed = [self.narrow_replayed * _typical_loss(s) for s in tested.narrow_sums]
        return max([*types, *(min(x, _LARGEST_SUM) for x in (*own, *replayed))], default=0.0)


def _of_types(table: tuple[tuple[str, float], ...], tested: Tested) -> list[float]:
    return [_find(table, t) for t in tested.eps_types]


def _typical_loss(s: NarrowSum) -> float:
    """u sqrt(K): what adding up K terms one by one loses of their scale (`jaxpr.sums`)."""
    return ROUNDOFF[s.dtype] * math.sqrt(min(s.terms, _LONGEST_SUM))


def _find(values: tuple[tuple[str, float], ...], name: str) -> float:
    value = dict(values).get(name)
    if value is None:
        known = ", ".join(n for n, _ in values)
        raise ValueError(f"the policy has no tolerance for {name}, only for {known}")
    return value


DEFAULT = Policy()
