"""When do two answers agree? Five relations, each defined for hostile answers too.

    Exact       equal digests
    Tokens      equal token sequences, in `tokens`
    Argmax      equal indices of the largest logit
    Tolerance   float arrays, every row within a relative 2-norm
    Within      a distance that the caller defines

An agreement first reads a ballot's value into its comparable form. A malformed value (a wrong
shape or dtype, a NaN, a token outside the vocabulary) reads as None: it agrees with nothing, not
even with itself, and cannot become canonical. It still counts as a ballot that was requested.

The distance of two arrays is the largest over their rows (last axis) of

    d(a, b) = ||a - b|| / max(||a||, ||b||),

given in units of the tolerance, so that a and b agree iff d <= 1. It is a metric (Hästö, "A new
weighted metric: the relative metric I", J. Math. Anal. Appl. 274, 2002; proof in
specs/voting.md), and the guarantees of `decide` require one. Agreement itself is not transitive:
of values at 0, 0.8 and 1.6 tolerances, the outer two do not agree. Therefore no rule here chains
neighbours into a group.

The equality relations are transitive and cost O(n); the metric ones compare all pairs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64

RELATIVE_TOLERANCE = {"float64": 1e-12, "float32": 3e-5, "float16": 5e-2, "bfloat16": 2e-1}
"""Usual tolerance by dtype, as a relative 2-norm of rows. Outputs of honest devices were measured
to differ by up to 3e-6 (float32), 2e-2 (float16) and 8e-2 (bfloat16); calibrate on your own model
if more is at stake."""

# Distances are capped here when a medoid is sought. A capped metric is still a metric, and no
# outlier, however far, then weighs more than another.
_CAP = 2.0

# Elements compared at a time, so that large outputs need little extra memory.
_BLOCK = 262_144

# Two rows of zeros are divided by this, not by zero: they are equal.
_TINY = np.finfo(np.float64).tiny


class Candidate(NamedTuple):
    """A submitted value, and the ballots that it agrees with.

    Attributes:
      ballot: position of the ballot with this value.
      members: positions of the ballots within tolerance of it, its own included.
      distances: distances from it to the members in tolerances, ascending; the first is 0.
      score: sum of the capped distances from it to all well-formed ballots; the medoid has the
        least.
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
        """The comparable form of a submitted value, or None if it is malformed.

        Args:
          value: the value that a device submitted, decoded.
        """

    @abstractmethod
    def candidates(self, readings: Sequence[Any]) -> list[Candidate]:
        """Every value that could be canonical; one of several equal values may represent them.

        Args:
          readings: results of `read`, one per ballot; None for a malformed one.
        """


class Equality(Agreement):
    """Agreement by equality of readings, which are hashable."""

    __slots__ = ()

    @abstractmethod
    def read(self, value: Any) -> Hashable | None:
        """The hashable form of a submitted value, or None if it is malformed."""

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
      size: length of a digest in bytes; any other length is malformed.
    """

    size: int = 32

    def __post_init__(self) -> None:
        """Raise ValueError for a length that is not positive."""
        if self.size < 1:
            raise ValueError(f"size must be at least 1 byte, got {self.size}")

    def read(self, value: Any) -> bytes | None:
        """The digest itself.

        Raises:
          TypeError: the value is not bytes; the caller must decode it first.
        """
        if not isinstance(value, bytes):
            raise TypeError(f"a digest must be bytes, got {type(value).__name__}")
        return value if len(value) == self.size else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Argmax(Equality):
    """Equal indices of the largest logit along the last axis.

    Only the indices are canonical; the vote does not agree on the logits. A tie within a row goes
    to its first entry. Logits may be -inf (masked), but each row's largest must be finite.

    Attributes:
      shape: shape of the logits; the last axis is the vocabulary.
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raise ValueError for a shape without entries."""
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"logits need at least one entry, got shape {self.shape}")

    def read(self, value: Any) -> tuple[int, ...] | None:
        """The index of the largest logit in each row, rows in C order, or None.

        Args:
          value: a numpy array of logits; another shape, or a dtype that is no float, is malformed.

        Raises:
          TypeError: the value is not a numpy array.
        """
        if not isinstance(value, np.ndarray):
            raise TypeError(f"logits must be a numpy array, got {type(value).__name__}")
        if value.shape != self.shape or value.dtype.name not in RELATIVE_TOLERANCE:
            return None
        rows = value.reshape(math.prod(self.shape[:-1]), self.shape[-1])
        best = np.argmax(rows, axis=-1)
        # For numpy a NaN is the largest entry of its row, so this line refuses it too.
        if not np.isfinite(rows[np.arange(len(rows)), best]).all():
            return None
        return tuple(best.tolist())


class Metric(Agreement):
    """Agreement within a distance of one tolerance."""

    __slots__ = ()

    @abstractmethod
    def distances(self, readings: Sequence[Any]) -> Float64[np.ndarray, "n n"]:
        """Distances between n well-formed readings, in tolerances.

        Returns:
          float64 (n, n), symmetric with a zero diagonal. Readings that cannot be compared are at
          an infinite distance; no entry is NaN.
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
    """Float arrays that agree if every row (last axis) lies within a relative 2-norm.

    A vote sees no change below its tolerance, nor a change of a small component beside a massive
    one in the same row. Shape and dtype come from the program, never from a ballot.

    Attributes:
      shape: shape of the arrays; () for a scalar.
      dtype: float16, bfloat16, float32 or float64.
      relative: the tolerance, above 0 and below 1.
    """

    shape: tuple[int, ...]
    dtype: str
    relative: float

    def __post_init__(self) -> None:
        """Raise ValueError for another dtype, an empty shape or a tolerance out of range."""
        if self.dtype not in RELATIVE_TOLERANCE:
            raise ValueError(
                f"dtype must be a name, one of {sorted(RELATIVE_TOLERANCE)}, got {self.dtype!r}"
            )
        if self.shape and min(self.shape) < 1:
            raise ValueError(f"arrays need at least one entry, got shape {self.shape}")
        if not 0.0 < self.relative < 1.0:
            raise ValueError(f"relative must be above 0 and below 1, got {self.relative}")

    @classmethod
    def usual(cls, *, shape: tuple[int, ...], dtype: str) -> Tolerance:
        """An agreement with the usual tolerance of the dtype, from `RELATIVE_TOLERANCE`.

        Raises:
          ValueError: another dtype than float16, bfloat16, float32 or float64.
        """
        return cls(shape=shape, dtype=dtype, relative=RELATIVE_TOLERANCE.get(dtype, math.nan))

    def read(self, value: Any) -> Float[np.ndarray, "*shape"] | None:
        """The array, if it has the shape and dtype and every entry is finite, or else None.

        Args:
          value: a numpy array.

        Raises:
          TypeError: the value is not a numpy array.
        """
        if not isinstance(value, np.ndarray):
            raise TypeError(f"a ballot's value must be a numpy array, got {type(value).__name__}")
        if value.shape != self.shape or value.dtype.name != self.dtype:
            return None
        return value if np.isfinite(value).all() else None

    def distances(
        self, readings: Sequence[Float[np.ndarray, "*shape"]]
    ) -> Float64[np.ndarray, "n n"]:
        """Largest relative distance of two rows at the same place, in tolerances.

        Args:
          readings: n arrays of the shape and dtype of this agreement.

        Returns:
          float64 (n, n), symmetric with a zero diagonal.
        """
        count, columns = len(readings), self.shape[-1] if self.shape else 1
        matrix = np.zeros((count, count))
        if count < 2:
            return matrix
        height = math.prod(self.shape[:-1])
        arrays = [reading.reshape(height, columns) for reading in readings]
        block = max(1, _BLOCK // (count * columns))
        for start in range(0, height, block):
            rows = np.stack([array[start : start + block] for array in arrays])
            np.maximum(matrix, _relative_distances(rows.astype(np.float64)), out=matrix)
        matrix /= self.relative
        return matrix + matrix.T


def _relative_distances(
    rows: Float64[np.ndarray, "ballots rows columns"],
) -> Float64[np.ndarray, "ballots ballots"]:
    """Largest relative distance over the rows of each two ballots: the lower triangle."""
    matrix = np.zeros((len(rows), len(rows)))
    peak = np.abs(rows).max(axis=-1)
    wide = (np.abs(np.frexp(peak)[1]) > 400).any()
    sizes = peak if wide else np.maximum(np.square(rows).sum(axis=-1), _TINY)
    for i, row in enumerate(rows[1:], 1):
        a, b = row, rows[:i]
        size = np.maximum(sizes[i], sizes[:i])
        if wide:
            # Scale each pair of rows by its own power of two, so that squares neither overflow nor
            # vanish for any values.
            scale = -np.frexp(size)[1][..., None]
            a, b = np.ldexp(a, scale), np.ldexp(b, scale)
            squares = (np.square(a).sum(axis=-1), np.square(b).sum(axis=-1))
            size = np.maximum(np.maximum(*squares), _TINY)
        gap = np.square(a - b).sum(axis=-1)
        matrix[i, :i] = (gap / size).max(axis=-1)
    return np.sqrt(matrix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Within(Metric):
    """Values within a distance that the caller defines.

    The guarantees of `decide` require that the distance is a metric on honest values.

    Attributes:
      distance: distance of two values in tolerances; they agree iff it is at most 1. It is
        evaluated in both directions and the larger result counts; NaN counts as infinite.
      well_formed: whether a value may be compared. Called first, with the value from a device.
    """

    distance: Callable[[Any, Any], float]
    well_formed: Callable[[Any], bool]

    def read(self, value: Any) -> Any:
        """The value, if it is well formed, or else None."""
        return value if value is not None and self.well_formed(value) else None

    def distances(self, readings: Sequence[Any]) -> Float64[np.ndarray, "n n"]:
        """The caller's distances between n values, made symmetric.

        Returns:
          float64 (n, n), symmetric with a zero diagonal.

        Raises:
          ValueError: a distance is negative.
        """
        matrix = np.zeros((len(readings), len(readings)))
        for i, a in enumerate(readings):
            for j, b in enumerate(readings[:i]):
                ways = (float(self.distance(a, b)), float(self.distance(b, a)))
                if min(ways) < 0.0:
                    raise ValueError(f"distance must not be negative, got {min(ways)}")
                matrix[i, j] = matrix[j, i] = math.inf if math.isnan(sum(ways)) else max(ways)
        return matrix
