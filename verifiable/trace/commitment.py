"""Commit to a trace, open leaves of it, and verify both.

A commitment binds the answer and every value before a challenge is known. A trace that is received
whole is committed to again, and the two commitments are compared. Of a trace that stays with its
device, the verifier asks for leaves by their indices, and verifies a Merkle multiproof for them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Self, overload

import numpy as np
from jaxtyping import Shaped, UInt8

from verifiable import merkle
from verifiable.encoding import tensor_bytes, tensor_from_bytes
from verifiable.errors import (
    CommitmentMismatch,
    MalformedEncoding,
    MalformedProof,
    received_bytes,
    require_bytes32,
    require_exact_type,
)
from verifiable.trace.audit_plan import AuditOpening, AuditPlan
from verifiable.trace.layout import LEAF_BYTES, Layout, LeafRows, Trace, tensors_of
from verifiable.trace.validate import receive

_THREADED: Final = 1 << 20  # bytes from which threads save time


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """What a device commits to: the root and the size of the tree over a trace.

    Received from a device, so an invalid root or size raises `MalformedEncoding`.

    Attributes:
      root: 32 bytes.
      size: leaves in the tree, 1 to 2^64 - 1.
    """

    root: bytes
    size: int

    def __post_init__(self) -> None:
        """Refuse a root or a size that no trace has."""
        require_bytes32("the root of a commitment", self.root, MalformedEncoding)
        if type(self.size) is not int or not 0 < self.size <= merkle.MAX_SIZE:
            raise MalformedEncoding("the size of a commitment must be an integer in [1, 2^64)")

    def encode(self) -> bytes:
        """40 bytes: the root, then the size, big-endian."""
        return self.root + self.size.to_bytes(8, "big")

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read the bytes that a device sent.

        Raises:
          MalformedEncoding: another length, or a size of zero.
          TypeError: `data` is of another type.
        """
        data = received_bytes(data)
        if len(data) != merkle.DIGEST_SIZE + 8:
            raise MalformedEncoding(f"a commitment must be 40 bytes, got {len(data)}")
        root, size = data[: merkle.DIGEST_SIZE], data[merkle.DIGEST_SIZE :]
        return cls(root=root, size=int.from_bytes(size, "big"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Data of some leaves of a trace, and the proof that they were committed to.

    The indices are not part of it: the verifier knows which leaves it asked for.

    Attributes:
      leaves: canonical bytes of each leaf, in increasing order of their indices.
      proof: Merkle multiproof for them.
    """

    leaves: tuple[bytes, ...]
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRows:
    """Rows of a trace that were verified to be what was committed to.

    Attributes:
      place: which rows of which tensor they are.
      rows: (stop - start, last axis) in the dtype of their tensor, read-only.
    """

    place: LeafRows
    rows: Shaped[np.ndarray, "rows columns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A trace with its tree: what a device keeps to answer a challenge.

    Attributes:
      layout: which rows each leaf holds.
      tree: tree over the leaves.
      tensors: canonical bytes of each tensor; views of the arrays where possible.
    """

    layout: Layout
    tree: merkle.Tree
    tensors: tuple[memoryview, ...] = field(repr=False)

    @property
    def commitment(self) -> Commitment:
        """Root and size, to be sent."""
        return Commitment(root=self.tree.root, size=self.tree.size)

    @overload
    def open(self, wanted: Sequence[int]) -> Opening: ...

    @overload
    def open(self, wanted: AuditPlan) -> AuditOpening: ...

    def open(self, wanted: Sequence[int] | AuditPlan) -> Opening | AuditOpening:
        """Open the leaves that an audit asks for, or those at some indices.

        Args:
          wanted: a plan, or indices, strictly increasing.

        Raises:
          ValueError: the plan is of another program; indices out of order or out of range, or none.
        """
        if isinstance(wanted, AuditPlan):
            if wanted.layout != self.layout:
                raise ValueError("the plan is of a program with another layout than this trace")
            proof = self.tree.multiproof(wanted.leaves)
            asked = wanted.sent if wanted.agree(self.tensors) else wanted.leaves
            leaves = tuple(map(self._data, asked))
            return AuditOpening(plan=wanted.id, leaves=leaves, proof=proof)
        proof = self.tree.multiproof(wanted)
        return Opening(leaves=tuple(map(self._data, wanted)), proof=proof)

    def open_all(self) -> Opening:
        """Open every leaf. The proof is empty, since the whole tree can be computed."""
        return self.open(range(self.tree.size))

    def _data(self, index: int) -> bytes:
        place = self.layout.rows_of(index)
        row_bytes = self.layout.tensors[place.tensor].row_bytes
        return bytes(self.tensors[place.tensor][place.start * row_bytes : place.stop * row_bytes])


def commit(
    y: Any, trace: Trace, *, leaf_bytes: int = LEAF_BYTES, layout: Layout | None = None
) -> Committed:
    """Commit to a trace and its answer. Arrays in host memory are hashed in place, on all cores.

    Args:
      y: the answer, a pytree of numpy or JAX arrays, which must not change afterwards.
      trace: the values of the claims, numpy or JAX arrays, which must not change either.
      leaf_bytes: the most bytes in a leaf, except that no row is split.
      layout: of the program, if it was compiled for audits of rows; `leaf_bytes` is then unused.

    Raises:
      TypeError: a leaf that is not a tensor, or a dtype without canonical bytes.
      ValueError: `leaf_bytes` below 1, no element in the whole trace, a boolean that is neither 0
        nor 1, or tensors of another layout.
    """
    found = Layout.of(y, trace, leaf_bytes=leaf_bytes)
    if layout is None:
        layout = found
    elif list(map(str, layout.tensors)) != list(map(str, found.tensors)):
        raise ValueError("the answer and trace are of another program than the layout")
    return _commit(layout, tuple(map(tensor_bytes, tensors_of(y, trace))))


def verify(commitment: Commitment, y: Any, trace: Any, *, layout: Layout) -> None:
    """Verify that an answer and a trace, received whole, are what was committed to.

    Time is linear in the size of the layout, whatever was received.

    Args:
      commitment: received before the challenge was known.
      y: the answer, from the prover: any object.
      trace: the trace, from the prover: any object.
      layout: of the verifier's own program.

    Raises:
      CommitmentMismatch: they are not.
      MalformedEncoding: they are not tensors of this layout, or cannot be read.
      TypeError: `commitment` is not a Commitment, or `layout` is not a Layout.
    """
    require_exact_type("commitment", commitment, Commitment)
    require_exact_type("layout", layout, Layout)
    computed = _commit(layout, receive(layout, y, trace)).commitment
    if computed != commitment:
        raise CommitmentMismatch(
            expected=(commitment.root, commitment.size), computed=(computed.root, computed.size)
        )


def verify_opening(
    commitment: Commitment, layout: Layout, opening: Any, *, indices: Sequence[int]
) -> tuple[OpenedRows, ...]:
    """Verify that the leaves asked for are what was committed to, and read their rows.

    Args:
      commitment: received before the challenge was known.
      layout: of the verifier's own program.
      opening: an `Opening` from the prover: any object.
      indices: the leaves that the verifier asked for, strictly increasing.

    Returns:
      The rows of each leaf, in the order of `indices`.

    Raises:
      MalformedProof: another number of leaves in the tree, in the opening or in the proof.
      MalformedEncoding: a leaf whose bytes are not the rows that the layout puts there.
      RootMismatch: these leaves were not committed to at these indices.
      ValueError: `indices` out of order or out of range, or none.
      TypeError: `commitment` is not a Commitment, or `layout` is not a Layout.
    """
    require_exact_type("commitment", commitment, Commitment)
    require_exact_type("layout", layout, Layout)
    if fault := merkle.indices_fault(indices, layout.size):
        raise ValueError(fault)
    if commitment.size != layout.size:
        raise MalformedProof(
            f"{commitment.size} leaves were committed to, but the program has {layout.size}"
        )
    if type(opening) is not Opening:
        raise MalformedProof(f"expected an Opening, got {type(opening).__name__}")
    leaves: Any = opening.leaves
    if type(leaves) not in (list, tuple) or len(leaves) != len(indices):
        raise MalformedProof(f"an opening must be a list of the {len(indices)} leaves asked for")
    opened = tuple(_read(layout, i, data) for i, data in zip(indices, leaves, strict=True))
    merkle.verify_multiproof(
        opening.proof,
        leaves=digests_of(leaves),
        indices=indices,
        size=commitment.size,
        root=commitment.root,
        suite=merkle.BLAKE3,
    )
    return opened


def _read(layout: Layout, index: int, data: Any) -> OpenedRows:
    if type(data) is not bytes:
        raise MalformedEncoding(f"leaf {index} must be bytes, got {type(data).__name__}")
    place = layout.rows_of(index)
    tensor = layout.tensors[place.tensor]
    rows = tensor_from_bytes(data, (place.stop - place.start, tensor.columns), tensor.dtype)
    return OpenedRows(place=place, rows=rows)


def _commit(layout: Layout, tensors: tuple[memoryview, ...]) -> Committed:
    pairs = zip(layout.tensors, tensors, strict=True)
    leaves = [leaf for tensor, data in pairs for leaf in tensor.cut(data)]
    tree = merkle.Tree(digests_of(leaves), suite=merkle.BLAKE3)
    return Committed(layout=layout, tree=tree, tensors=tensors)


def digests_of(leaves: Sequence[bytes | memoryview]) -> UInt8[np.ndarray, "leaves 32"]:
    """Digest of each leaf."""
    workers = os.cpu_count() or 1
    # Hashing releases the interpreter lock. Runs are short, so that all cores finish together.
    run = max(1, min(64, len(leaves) // (4 * workers)))
    runs = [leaves[i : i + run] for i in range(0, len(leaves), run)]
    if workers == 1 or sum(map(len, leaves)) < _THREADED:
        return merkle.BLAKE3.leaves(leaves)
    return np.concatenate(list(_threads(os.getpid()).map(merkle.BLAKE3.leaves, runs)))


@functools.cache
def _threads(process: int) -> ThreadPoolExecutor:
    """Threads that stay: to start them takes as long as to hash a megabyte. A fork has its own."""
    del process
    return ThreadPoolExecutor(thread_name_prefix="hashing")
