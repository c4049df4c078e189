"""When do two answers agree? Five relations, each with a hostile answer in mind.

    Exact       equal digests
    Tokens      equal token sequences
    Argmax      equal indices of the largest logit
    Tolerance   float arrays, every row within a relative 2-norm
    Within      a distance of the caller's

An agreement first reads a ballot's value into its comparable form. A value that is malformed (a
wrong shape or dtype, a NaN, a token outside the vocabulary) reads as None: it agrees with nothing,
not even with itself, and cannot become canonical. It still counts as a ballot that was requested.

The distance of two arrays is the largest over their rows (last axis) of

    d(a, b) = ||a - b|| / max(||a||, ||b||),

given in units of the tolerance, so that a and b agree iff d <= 1. It is a metric (Hästö, "A new
weighted metric: the relative metric I", J. Math. Anal. Appl. 274, 2002; proof in
specs/voting.md), which is what the guarantees of `voting` rest on. Agreement itself is not
transitive: 0, 0.8 and 1.6 tolerances agree pairwise except for the outer two. No rule here ever
chains neighbours into a group.

The equality relations are transitive and cost O(n); the metric ones compare all pairs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Relative row 2-norm. Outputs of honest devices were measured to differ by up to 3e-6 (float32),
# 2e-2 (float16) and 8e-2 (bfloat16); calibrate on the model in hand where more is at stake.
RELATIVE_TOLERANCE = {"float64": 1e-12, "float32": 3e-5, "float16": 5e-2, "bfloat16": 2e-1}

# Distances are capped here when a medoid is sought. A capped metric is still a metric, and no
# outlier, however far, then weighs more than another.
_CAP = 2.0

# Elements that are compared at a time, so that large outputs need little memory beside their own.
_BLOCK = 1 << 18


class Candidate(NamedTuple):
    """A submitted value, and the ballots that it agrees with.

    Attributes:
      ballot: position of its ballot.
      members: positions of the ballots within tolerance of it, its own included.
      distances: its distances to the members in tolerances, ascending; the first is its own, 0.
      score: sum of its capped distances to all well-formed ballots; the medoid has the least.
    """

    ballot: int
    members: tuple[int, ...]
    distances: tuple[float, ...]
    score: float


class Agreement(ABC):
    """A relation between submitted values."""

    __slots__ = ()

    @abstractmethod
    def read(self, value: Any) -> Any:
        """The comparable form of a submitted value, or None where it is malformed."""

    @abstractmethod
    def candidates(self, readings: Sequence[Any]) -> list[Candidate]:
        """Every value that could be canonical; of values that are equal, one may stand for all."""


class Equality(Agreement):
    """Agreement by equality of readings, which are hashable."""

    __slots__ = ()

    @abstractmethod
    def read(self, value: Any) -> Hashable | None:
        """The hashable form of a submitted value, or None where it is malformed."""

    def candidates(self, readings: Sequence[Hashable | None]) -> list[Candidate]:
        """One candidate per distinct reading."""
        classes: dict[Hashable, list[int]] = {}
        for index, reading in enumerate(readings):
            if reading is not None:
                classes.setdefault(reading, []).append(index)
        return [
            Candidate(members[0], tuple(members), (0.0,) * len(members), 0.0)
            for members in classes.values()
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact(Equality):
    """Equal digests.

    Attributes:
      size: their length in bytes; a digest of another length is malformed.
    """

    size: int = 32

    def __post_init__(self) -> None:
        """Refuse a length that is not positive."""
        if self.size < 1:
            raise ValueError(f"a digest has at least one byte, got size {self.size}")

    def read(self, value: Any) -> bytes | None:
        """The digest itself.

        Raises:
          TypeError: the value is not bytes.
        """
        if not isinstance(value, bytes):
            raise TypeError(f"a digest is bytes, got {type(value).__name__}")
        return value if len(value) == self.size else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens(Equality):
    """Equal token sequences.

    Attributes:
      vocabulary: number of tokens; ids run from 0 to one less.
      longest: the longest sequence that the job allows.
    """

    vocabulary: int
    longest: int

    def __post_init__(self) -> None:
        """Refuse limits that are not positive."""
        if self.vocabulary < 1 or self.longest < 1:
            raise ValueError(
                f"vocabulary and longest are positive, got {self.vocabulary} and {self.longest}"
            )

    def read(self, value: Sequence[int] | NDArray[Any]) -> tuple[int, ...] | None:
        """The token ids, as a tuple of integers."""
        if isinstance(value, np.ndarray) and value.ndim != 1:
            return None
        if len(value) > self.longest:
            return None
        tokens: list[Any] = value.tolist() if isinstance(value, np.ndarray) else list(value)
        if not all(type(token) is int and 0 <= token < self.vocabulary for token in tokens):
            return None
        return tuple(tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Argmax(Equality):
    """Equal indices of the largest logit along the last axis.

    Only the indices are canonical: of the logits behind them nothing was agreed. A tie within a
    row goes to its first entry. Logits may be -inf (masked), but each row's largest is finite.

    Attributes:
      shape: shape of the logits.
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse a shape without entries."""
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"logits need at least one entry, got shape {self.shape}")

    def read(self, value: Any) -> tuple[int, ...] | None:
        """The index of the largest logit in each row, rows in C order.

        Raises:
          TypeError: the value is not a numpy array.
        """
        if not isinstance(value, np.ndarray):
            raise TypeError(f"logits are a numpy array, got {type(value).__name__}")
        if value.shape != self.shape or value.dtype.name not in RELATIVE_TOLERANCE:
            return None
        rows = value.reshape(-1, self.shape[-1])
        best = np.argmax(rows, axis=-1)
        # A NaN is its row's largest entry for numpy, so this line meets it too.
        if not np.isfinite(rows[np.arange(len(rows)), best]).all():
            return None
        return tuple(best.tolist())


class Metric(Agreement):
    """Agreement within a distance of one tolerance."""

    __slots__ = ()

    @abstractmethod
    def distances(self, readings: Sequence[Any]) -> NDArray[np.float64]:
        """Distances between well-formed readings in tolerances: [n, n], symmetric, zero diagonal.

        What cannot be compared is infinitely far; no entry is NaN.
        """

    def candidates(self, readings: Sequence[Any | None]) -> list[Candidate]:
        """One candidate per well-formed ballot."""
        valid = [index for index, reading in enumerate(readings) if reading is not None]
        matrix = self.distances([readings[index] for index in valid])
        found: list[Candidate] = []
        for index, row in zip(valid, matrix.tolist(), strict=True):
            near = [(d, other) for d, other in zip(row, valid, strict=True) if d <= 1.0]
            found.append(
                Candidate(
                    index,
                    tuple(other for _, other in near),
                    tuple(sorted(d for d, _ in near)),
                    math.fsum(min(d, _CAP) for d in row),
                )
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance(Metric):
    """Float arrays of which every row (last axis) lies within a relative 2-norm.

    A vote sees nothing below its tolerance: a small component beside a massive one in the same row
    is not compared. Shape and dtype come from the program, never from a ballot.

    Attributes:
      shape: shape of the arrays; () for a scalar.
      dtype: float16, bfloat16, float32 or float64.
      relative: the tolerance, above 0 and below 1.
    """

    shape: tuple[int, ...]
    dtype: str
    relative: float

    def __post_init__(self) -> None:
        """Refuse what is not an array of floats."""
        if self.dtype not in RELATIVE_TOLERANCE:
            raise ValueError(f"dtype is one of {sorted(RELATIVE_TOLERANCE)}, got {self.dtype!r}")
        if self.shape and min(self.shape) < 1:
            raise ValueError(f"arrays need at least one entry, got shape {self.shape}")
        if not 0.0 < self.relative < 1.0:
            raise ValueError(f"a relative tolerance is above 0 and below 1, got {self.relative}")

    @classmethod
    def usual(cls, *, shape: tuple[int, ...], dtype: str) -> Tolerance:
        """With the tolerance that `RELATIVE_TOLERANCE` has for the dtype."""
        return cls(shape=shape, dtype=dtype, relative=RELATIVE_TOLERANCE.get(dtype, math.nan))

    def read(self, value: Any) -> NDArray[Any] | None:
        """The array, if it has the shape and dtype and is finite.

        Raises:
          TypeError: the value is not a numpy array.
        """
        if not isinstance(value, np.ndarray):
            raise TypeError(f"a ballot's value is a numpy array, got {type(value).__name__}")
        if value.shape != self.shape or value.dtype.name != self.dtype:
            return None
        return value if np.isfinite(value).all() else None

    def distances(self, readings: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """Largest relative row distance, in tolerances."""
        count, columns = len(readings), self.shape[-1] if self.shape else 1
        matrix = np.zeros((count, count))
        if count < 2:
            return matrix
        arrays = [reading.reshape(-1, columns) for reading in readings]
        block = max(1, _BLOCK // (count * columns))
        for start in range(0, len(arrays[0]), block):
            rows = np.stack([array[start : start + block] for array in arrays])
            np.maximum(matrix, _relative_distances(rows.astype(np.float64)), out=matrix)
        matrix /= self.relative
        return matrix + matrix.T


@lru_cache(maxsize=64)
def _pairs(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.triu_indices(count, 1)


def _relative_distances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest relative distance over the rows of [ballots, rows, columns]: upper triangle."""
    matrix = np.zeros((len(rows), len(rows)))
    left, right = _pairs(len(rows))
    peak = np.abs(rows).max(axis=-1)
    wide = peak.max() > 2.0**400 or peak.min(where=peak > 0.0, initial=1.0) < 2.0**-400
    squares = np.zeros(0) if wide else np.square(rows).sum(axis=-1)
    step = max(1, _BLOCK // rows[0].size)
    for start in range(0, len(left), step):
        i, j = left[start : start + step], right[start : start + step]
        a, b = rows[i], rows[j]
        if wide:
            # Each pair of rows is scaled by a power of two of its own, so that squares neither
            # overflow nor vanish whatever a ballot contains.
            scale = -np.frexp(np.maximum(peak[i], peak[j]))[1][..., None]
            a, b = np.ldexp(a, scale), np.ldexp(b, scale)
            size = np.maximum(np.square(a).sum(axis=-1), np.square(b).sum(axis=-1))
        else:
            size = np.maximum(squares[i], squares[j])
        gap = np.square(a - b).sum(axis=-1)
        # Where both rows are zero, they are equal.
        matrix[i, j] = np.sqrt(gap / np.where(size > 0.0, size, 1.0)).max(axis=-1)
    return matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Within(Metric):
    """Values within a distance of the caller's.

    The guarantees of `voting` hold as far as the distance is a metric on honest values.

    Attributes:
      distance: distance of two values in tolerances (agree iff at most 1). It is evaluated both
        ways and the larger counts; a NaN counts as infinite.
      well_formed: whether a value may be compared at all; called first, on what a device sent.
    """

    distance: Callable[[Any, Any], float]
    well_formed: Callable[[Any], bool]

    def read(self, value: Any) -> Any:
        """The value, if it is well formed."""
        return value if value is not None and self.well_formed(value) else None

    def distances(self, readings: Sequence[Any]) -> NDArray[np.float64]:
        """The caller's distances, made symmetric.

        Raises:
          ValueError: a distance is negative.
        """
        matrix = np.zeros((len(readings), len(readings)))
        for i, a in enumerate(readings):
            for j, b in enumerate(readings[:i]):
                ways = (float(self.distance(a, b)), float(self.distance(b, a)))
                if min(ways) < 0.0:
                    raise ValueError(f"a distance cannot be negative, got {min(ways)}")
                matrix[i, j] = matrix[j, i] = math.inf if math.isnan(sum(ways)) else max(ways)
        return matrix
