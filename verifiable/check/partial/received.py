"""What was opened of a trace: rows of tensors, of which an audit takes what it reads.

Nothing is zero-filled that nobody reads: a layer's part of a tensor is made by itself, and a whole
tensor only where something asks for it, such as a second look.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from verifiable.check.receive import Problem
from verifiable.errors import MalformedEncoding, VerificationError
from verifiable.trace import AuditOpening, AuditPlan, Commitment, Layout, OpenedRows, verify_audit
from verifiable.trace.audit import fault, named, other_plan

Tensor = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class OpenedTensors(Sequence[Tensor]):
    """The tensors of a layout, whole, zero where they were not opened.

    Attributes:
      layout: of the program.
      pieces: what was opened of each tensor, in ascending order, by index.
    """

    layout: Layout
    pieces: dict[int, list[OpenedRows]] = field(repr=False)
    _whole: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(layout: Layout, opened: Sequence[OpenedRows]) -> OpenedTensors:
        """The tensors of which some rows were opened."""
        pieces: dict[int, list[OpenedRows]] = {}
        for piece in opened:
            pieces.setdefault(piece.place.tensor, []).append(piece)
        return OpenedTensors(layout=layout, pieces=pieces)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self.layout.tensors)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...

    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        """A tensor; the same array each time."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index not in self._whole:
            tensor = self.layout.tensors[index]
            rows = self._rows(index, 0, tensor.rows)
            self._whole[index] = rows.reshape(tensor.shape)
        return self._whole[index]

    def iterations(self, index: int, trips: Sequence[int]) -> Tensor:
        """Some iterations of a tensor whose first axis counts them, (len(trips), ...).

        Args:
          index: of the tensor.
          trips: the iterations, in any order; one may be asked for more than once.
        """
        tensor = self.layout.tensors[index]
        each = tensor.rows // tensor.shape[0]
        if len(tensor.shape) < 2:  # a number for each iteration: all of them are one row
            return self[index][list(trips)]
        if len(trips) == 1:
            return self._rows(index, trips[0] * each, each).reshape(1, *tensor.shape[1:])
        found = np.zeros((len(trips), each, tensor.columns), tensor.dtype)
        places: dict[int, list[int]] = {}
        for place, trip in enumerate(trips):
            places.setdefault(trip, []).append(place)
        for start, rows in self._pieces(index):
            for trip in range(start // each, (start + len(rows) - 1) // each + 1):
                for place in places.get(trip, ()):
                    _copy(found[place], trip * each, start, rows)
        return found.reshape(len(trips), *tensor.shape[1:])

    def _pieces(self, index: int) -> Iterator[tuple[int, Tensor]]:
        return ((p.place.start, p.rows) for p in self.pieces.get(index, ()))

    def _rows(self, index: int, first: int, count: int) -> Tensor:
        """Some rows of a tensor, (count, columns)."""
        tensor = self.layout.tensors[index]
        own = [(a, r) for a, r in self._pieces(index) if a < first + count and first < a + len(r)]
        if not own:  # zeros that take no memory
            return np.broadcast_to(np.zeros((), tensor.dtype), (count, tensor.columns))
        if len(own) == 1 and own[0][0] <= first and first + count <= own[0][0] + len(own[0][1]):
            return own[0][1][first - own[0][0] :][:count]
        found = np.zeros((count, tensor.columns), tensor.dtype)
        for start, rows in own:
            _copy(found, first, start, rows)
        return found


def opened(
    layout: Layout, plan: AuditPlan, commitment: Commitment, opening: Any
) -> OpenedTensors | Problem:
    """What was opened, or what is wrong with it.

    Args:
      layout: of the program.
      plan: the verifier's own.
      commitment: received before the seed of the plan was known.
      opening: from a device: an `AuditOpening`, whose fields may be any objects, or bytes.
    """
    if type(opening) is AuditOpening:
        wrong = fault(opening, plan)
        if wrong is not None:
            return Problem(wrong[0], None, wrong[1])
        opening = opening.encode()
    try:
        data = plan.framed(opening)
    except MalformedEncoding as error:
        return Problem("opening-structure", None, str(error))
    theirs = named(data)
    if theirs != plan.id:
        return Problem("opening-plan", None, other_plan(theirs, plan))
    try:
        return OpenedTensors.of(layout, verify_audit(commitment, plan, data))
    except MalformedEncoding as error:
        return Problem("opening-leaf", None, str(error))
    except VerificationError as error:
        return Problem("opening-mismatch", None, str(error))


def _copy(to: Tensor, first: int, start: int, rows: Tensor) -> None:
    """Copy what rows that begin at `start` share with those that begin at `first`."""
    low, high = max(first, start), min(first + len(to), start + len(rows))
    to[low - first : high - first] = rows[low - start : high - start]
