"""What was opened of a trace: rows of tensors, of which an audit takes what it reads.

Nothing is zero-filled that nobody reads: a layer's part of a tensor is made by itself, and a whole
tensor only where something asks for it, such as a second look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from verifiable.check.judging.receive import Problem
from verifiable.check.partial.row_test import Numbers, places_of
from verifiable.check.tiling.rules import Cut
from verifiable.errors import MalformedEncoding, VerificationError
from verifiable.trace import AuditOpening, AuditPlan, Commitment, Layout, OpenedTensor, verify_audit
from verifiable.trace.audit_plan import fault, named, other_plan

Tensor = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class OpenedTensors(Sequence[Tensor]):
    """The tensors of a layout, whole, zero where they were not opened.

    Attributes:
      layout: of the program.
      own: what was opened of each tensor of which there is any, by index.
    """

    layout: Layout
    own: Mapping[int, OpenedTensor] = field(repr=False)
    _whole: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(layout: Layout, opened: Iterable[OpenedTensor]) -> OpenedTensors:
        """The tensors of which some rows were opened."""
        return OpenedTensors(layout=layout, own={x.tensor: x for x in opened})

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
        wanted = np.asarray(trips, np.int64)[:, None] * each + np.arange(each)
        return self._some(index, wanted.ravel()).reshape(len(trips), *tensor.shape[1:])

    def in_rows(self, index: int, trips: Sequence[int], cut: Cut, rows: Numbers) -> Tensor:
        """Some rows of some iterations of such a tensor, (len(trips), ..., r * cut.unit, ...).

        Args:
          index: of the tensor.
          trips: the iterations.
          cut: where an iteration has the rows, by an axis that is not the last.
          rows: of each iteration, int (len(trips), r).
        """
        shape = self.layout.tensors[index].shape
        wanted = places_of(shape, np.asarray(trips, np.int64), cut, rows)
        small = (*shape[1 : cut.axis + 1], rows.shape[1] * cut.unit, *shape[cut.axis + 2 :])
        return self._some(index, wanted.ravel()).reshape(len(trips), *small)

    def _rows(self, index: int, first: int, count: int) -> Tensor:
        """Some rows of a tensor, (count, columns)."""
        own = self.own.get(index)
        return self._absent(index, count) if own is None else own.between(first, count)

    def _some(self, index: int, wanted: Numbers) -> Tensor:
        own = self.own.get(index)
        return self._absent(index, len(wanted)) if own is None else own.some(wanted)

    def _absent(self, index: int, count: int) -> Tensor:
        tensor = self.layout.tensors[index]
        return np.broadcast_to(np.zeros((), tensor.dtype), (count, tensor.columns))


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
