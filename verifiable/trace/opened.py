"""Verify the opening of an audit, and read it: consecutive leaves of a tensor as one array.

The opening is one string of bytes, whose leaves are hashed and read where they stand; those of a
copy where its source stands, and against the commitment at their own indices.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from verifiable import merkle
from verifiable.encoding import tensor_from_bytes
from verifiable.errors import MalformedProof
from verifiable.trace.audit import AuditPlan
from verifiable.trace.commitment import Commitment, OpenedRows, digests_of
from verifiable.trace.layout import LeafRows


def verify_audit(commitment: Commitment, plan: AuditPlan, data: bytes) -> tuple[OpenedRows, ...]:
    """Verify that the leaves of an opening are what was committed to, and read their rows.

    Args:
      commitment: received before the seed of the plan was known.
      plan: the verifier's own.
      data: the encoded opening, from `AuditPlan.framed`.

    Returns:
      The rows of each run of consecutive leaves of one tensor, in the order of the plan.

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
    view, starts = memoryview(data), plan.starts(data)
    leaves = list(plan.data(data).values())
    proof = len(data) - merkle.DIGEST_SIZE * plan.digests
    merkle.verify_multiproof(
        [data[i : i + merkle.DIGEST_SIZE] for i in range(proof, len(data), merkle.DIGEST_SIZE)],
        leaves=digests_of(leaves),
        indices=plan.leaves,
        size=commitment.size,
        root=commitment.root,
        suite=merkle.BLAKE3,
    )
    found: list[OpenedRows] = []
    for place, first, last in _runs(plan):
        tensor = layout.tensors[place.tensor]
        shape = place.stop - place.start, tensor.columns
        stop = starts[last - 1] + len(leaves[last - 1])
        rows = tensor_from_bytes(view[starts[first] : stop], shape, tensor.dtype)
        found.append(OpenedRows(place=place, rows=rows))
    return tuple(found)


def _runs(plan: AuditPlan) -> Iterator[tuple[LeafRows, int, int]]:
    """The rows of each run of leaves, and where among the leaves of the plan it begins and ends."""
    tensors, starts, stops = plan.places.T
    apart = (np.diff(plan.leaves) != 1) | (np.diff(tensors) != 0)
    bounds = [0, *(np.flatnonzero(apart) + 1).tolist(), len(tensors)]
    for first, last in itertools.pairwise(bounds):
        start, stop = int(starts[first]), int(stops[last - 1])
        yield LeafRows(tensor=int(tensors[first]), start=start, stop=stop), first, last
