"""Verify the opening of an audit, and read it: all that is opened of a tensor as one array.

The opening is one string of bytes, whose leaves are hashed and read where they stand; those of a
copy where its source stands, and against the commitment at their own indices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Integer, Shaped

from verifiable import merkle
from verifiable.encoding import tensor_from_bytes
from verifiable.errors import MalformedProof
from verifiable.trace.audit_plan import AuditPlan
from verifiable.trace.commitment import Commitment, digests_of


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class OpenedTensor:
    """Rows of a tensor that were verified to be what was committed to.

    Attributes:
      tensor: its index.
      numbers: numbers of the rows, counted in the tensor as (rows, last axis), ascending.
      rows: (rows, last axis) in the dtype of the tensor, read-only.
    """

    tensor: int
    numbers: Integer[np.ndarray, " rows"] = field(repr=False)
    rows: Shaped[np.ndarray, "rows columns"] = field(repr=False)

    def between(self, first: int, count: int) -> Shaped[np.ndarray, "count columns"]:
        """Rows of the tensor from one on, zero where they were not opened."""
        low, high = np.searchsorted(self.numbers, (first, first + count)).tolist()
        own = self.rows[low:high]
        return (
            own if high - low == count else self._filled(self.numbers[low:high] - first, own, count)
        )

    def some(self, wanted: Integer[np.ndarray, " count"]) -> Shaped[np.ndarray, "count columns"]:
        """Rows of the tensor by number, zero where they were not opened."""
        count, at = len(wanted), np.searchsorted(self.numbers, wanted)
        if not count:
            return self.rows[:0]
        first = int(at[0])
        if np.array_equal(self.numbers[first : first + count], wanted):
            return self.rows[first : first + count]
        at = np.minimum(at, len(self.numbers) - 1)
        there = np.flatnonzero(self.numbers[at] == wanted)
        return self._filled(there, self.rows[at[there]], count)

    def _filled(self, places: Any, rows: Any, count: int) -> Shaped[np.ndarray, "count columns"]:
        if not len(places):  # zeros that take no memory
            return np.broadcast_to(np.zeros((), self.rows.dtype), (count, self.rows.shape[1]))
        found = np.zeros((count, self.rows.shape[1]), self.rows.dtype)
        found[places] = rows
        return found


def verify_audit(commitment: Commitment, plan: AuditPlan, data: bytes) -> tuple[OpenedTensor, ...]:
    """Verify that the leaves of an opening are what was committed to, and read their rows.

    Args:
      commitment: received before the seed of the plan was known.
      plan: the verifier's own.
      data: the encoded opening, from `AuditPlan.framed`.

    Returns:
      The rows of each tensor of which there are any, in the order of the layout.

    Raises:
      MalformedProof: another number of leaves in the tree.
      RootMismatch: these leaves were not committed to at these indices.
      MalformedEncoding: a leaf whose bytes are no rows of its tensor.
    """
    layout = plan.layout
    if commitment.size != layout.size:
        raise MalformedProof(
            f"{commitment.size} leaves were committed to, but the program has {layout.size}"
        )
    view, starts, leaves = memoryview(data), plan.starts(data), plan.data(data)
    proof = np.frombuffer(view[len(data) - merkle.DIGEST_SIZE * plan.digests :], np.uint8)
    plan.proof.verify(
        proof.reshape(-1, merkle.DIGEST_SIZE), leaves=digests_of(leaves), root=commitment.root
    )
    found: list[OpenedTensor] = []
    for own in plan.tensors:
        # The leaves of a tensor stand one after another.
        tensor, start = layout.tensors[own.tensor], int(starts[own.first])
        shape = len(own.numbers), tensor.columns
        part = view[start : start + shape[0] * tensor.row_bytes]
        rows = tensor_from_bytes(part, shape, tensor.dtype)
        found.append(OpenedTensor(tensor=own.tensor, numbers=own.numbers, rows=rows))
    return tuple(found)
