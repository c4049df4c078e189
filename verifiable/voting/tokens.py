"""Agreement of language models' answers: equal token sequences, or equal batches of them.

Token ids are read as integers of Python from lists, tuples, and arrays of numpy or JAX, so that it
makes no difference what a decoder holds them in. A sequence reads as a tuple of ids, a batch as a
tuple of such tuples: a batch of one sequence differs from that sequence.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Integer

from verifiable.voting.agreement import Equality


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens(Equality):
    """Equal token sequences, or equal batches of them.

    Attributes:
      vocabulary: number of tokens; ids run from 0 to vocabulary - 1.
      longest: length of the longest sequence that the job allows.
    """

    vocabulary: int
    longest: int

    def __post_init__(self) -> None:
        """Raise ValueError for limits that are not positive."""
        if self.vocabulary < 1 or self.longest < 1:
            raise ValueError(
                "vocabulary and longest must be at least 1, "
                f"got {self.vocabulary} and {self.longest}"
            )

    def read(
        self, value: Sequence[Any] | Integer[np.ndarray, " tokens"] | Integer[Any, "batch tokens"]
    ) -> tuple[Any, ...] | None:
        """The token ids as a tuple of integers, for a batch as a tuple of such tuples, or None.

        What it is held in makes no difference: equal ids are equal readings.

        Args:
          value: a list or tuple of integers, or of such sequences; or a numpy or JAX array of
            integers, with one axis or, for a batch, two. Sequences in a list may differ in length.

        Raises:
          TypeError: the value is no list, tuple or array, or an array of another dtype or number
            of axes: the caller must decode it first.
        """
        if isinstance(value, list | tuple):
            items = cast("Sequence[Any]", value)
            if not any(_is_sequence(item) for item in items):
                return self._sequence(items)
            rows = [self._sequence(item) if _is_sequence(item) else None for item in items]
        else:
            array = _token_array(value)
            if array.ndim == 1:
                return self._sequence(array)
            rows = [self._sequence(row) for row in array]
        return None if None in rows else tuple(rows)

    def _sequence(self, value: Any) -> tuple[int, ...] | None:
        if len(value) > self.longest:
            return None
        items = value if isinstance(value, list | tuple) else value.tolist()
        if any(isinstance(item, bool) for item in items):
            return None
        try:
            ids = tuple(operator.index(item) for item in items)
        except TypeError:
            return None
        return ids if all(0 <= i < self.vocabulary for i in ids) else None


def _is_sequence(value: Any) -> bool:
    """Whether an item of a list is a sequence of its own, of a batch."""
    return isinstance(value, list | tuple) or getattr(value, "ndim", None) == 1


def _token_array(value: Any) -> Integer[np.ndarray, "*axes"]:
    dtype, axes = getattr(value, "dtype", None), getattr(value, "ndim", None)
    if axes not in {1, 2} or np.dtype(dtype).kind not in "iu":
        found = type(value).__name__ if axes is None else f"{dtype} with {axes} axes"
        raise TypeError(
            "tokens must be a list or tuple of integers, or an array of integers with one axis, "
            f"or two for a batch; got {found}"
        )
    return np.asarray(value)
