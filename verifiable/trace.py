"""Traces: what a device computed on the way to its answer, committed to in a root and a size.

A trace is the outputs of a program's contractions in program order, its *claims*, then the leaves
of its answer y. Each tensor is cut into blocks of whole rows (a row runs along the last axis): as
many as fit in `leaf_bytes`, and at least one. The hash of a block's canonical bytes
(`encoding.tensor_bytes`) is a leaf of an RFC 9162 tree over BLAKE3. Its root and its number of
leaves are the commitment: they fix y and every claim before a challenge is known.

Which rows a leaf holds follows from the shapes and dtypes of the program. Both sides compute this
`Layout` for themselves, and nothing of it travels. A root binds bytes in places; the layout says
what they mean. So a verifier takes the layout of its own program, never of what it received.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from jax import export, tree_util

from verifiable import merkle
from verifiable.encoding import require_tensor_dtype, tensor_bytes, tensor_from_bytes
from verifiable.errors import CommitmentMismatch, MalformedEncoding, MalformedProof

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAF_BYTES: Final = 1 << 16
"""Default size of a leaf, in bytes: enough to hash at the speed of memory."""

_MAX_DEPTH: Final = 64

_THREADED: Final = 1 << 20  # bytes from which threads pay


@tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A pytree of what a program's contractions gave.

    Attributes:
      values: their outputs, in program order.
    """

    values: tuple[Any, ...]


export.register_pytree_node_serialization(
    Trace,
    serialized_name="verifiable.Trace",
    serialize_auxdata=lambda _: b"",
    deserialize_auxdata=lambda _: (),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """What a device commits to. It comes from a device, so what it may not be is malformed.

    Attributes:
      root: root of the tree over the blocks of a trace, 32 bytes.
      size: leaves in the tree, at least 1.

    Raises:
      MalformedEncoding: a root or a size of another form.
    """

    root: bytes
    size: int

    def __post_init__(self) -> None:
        """Refuse what no trace leads to."""
        if type(self.root) is not bytes or len(self.root) != merkle.DIGEST_SIZE:
            raise MalformedEncoding(f"the root of a trace has {merkle.DIGEST_SIZE} bytes")
        if type(self.size) is not int or not 0 < self.size <= merkle.MAX_SIZE:
            raise MalformedEncoding("the size of a trace is an integer in [1, 2^64)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorLayout:
    """How a tensor is cut into leaves.

    Attributes:
      shape: its shape. A scalar is one row of one element.
      dtype: its dtype.
      leaf_rows: rows in each of its leaves but the last, which has the rest.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    leaf_rows: int

    @property
    def rows(self) -> int:
        """Rows in the tensor."""
        return math.prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        """Elements in a row."""
        return math.prod(self.shape[-1:])

    @property
    def row_bytes(self) -> int:
        """Bytes in a row."""
        return self.columns * self.dtype.itemsize

    @property
    def leaves(self) -> int:
        """Leaves that hold the tensor: none if it has no elements."""
        return -(-self.rows // self.leaf_rows) if self.columns else 0

    def __str__(self) -> str:
        """Dtype and shape."""
        return f"{self.dtype.name}{list(self.shape)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The rows that a leaf holds.

    Attributes:
      tensor: index of their tensor in the trace: claims first, then the leaves of y.
      start: the first, counted in the tensor as (rows, last axis).
      stop: one past the last.
    """

    tensor: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which rows of which tensor each leaf of a trace holds.

    Attributes:
      tensors: layout of each tensor: claims first, then the leaves of y.
      claim_count: how many of them are claims.
      leaf_bytes: the most bytes in a leaf, except that no row is split.
    """

    tensors: tuple[TensorLayout, ...]
    claim_count: int
    leaf_bytes: int
    _ends: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Number the leaves."""
        ends = tuple(accumulate(tensor.leaves for tensor in self.tensors))
        object.__setattr__(self, "_ends", ends)
        if not any(ends):
            raise ValueError("a trace without elements commits to nothing")

    @classmethod
    def of(cls, y: Any, trace: Trace, *, leaf_bytes: int = LEAF_BYTES) -> Layout:
        """Layout of a trace with this answer.

        Args:
          y: a pytree of arrays or `jax.ShapeDtypeStruct`s.
          trace: the same. `jax.eval_shape(program.execute, ...)` gives both without arithmetic.
          leaf_bytes: the most bytes in a leaf, except that no row is split.

        Raises:
          TypeError: something other than tensors, or a dtype without canonical bytes.
          ValueError: `leaf_bytes` below 1, or not a single element in the trace.
        """
        if leaf_bytes < 1:
            raise ValueError(f"a leaf has at least 1 byte, not {leaf_bytes}")
        tensors: list[TensorLayout] = []
        for tensor in _tensors(y, trace):
            shape, dtype = tuple(tensor.shape), require_tensor_dtype(tensor.dtype)
            row_bytes = math.prod(shape[-1:]) * dtype.itemsize
            leaf_rows = max(1, leaf_bytes // max(1, row_bytes))
            tensors.append(TensorLayout(shape=shape, dtype=dtype, leaf_rows=leaf_rows))
        return cls(tensors=tuple(tensors), claim_count=len(trace.values), leaf_bytes=leaf_bytes)

    @property
    def size(self) -> int:
        """Leaves in the tree, at least 1."""
        return self._ends[-1]

    def leaf(self, tensor: int, row: int) -> int:
        """Index of the leaf that holds a row of a tensor.

        Raises:
          ValueError: there is no such row.
        """
        if not 0 <= tensor < len(self.tensors):
            raise ValueError(f"tensor {tensor} is not one of {len(self.tensors)}")
        layout = self.tensors[tensor]
        if not layout.leaves or not 0 <= row < layout.rows:
            raise ValueError(f"row {row} is not in tensor {tensor}, which is {layout}")
        return self._ends[tensor] - layout.leaves + row // layout.leaf_rows

    def block(self, leaf: int) -> Block:
        """Rows that the leaf at this index holds.

        Raises:
          ValueError: there is no such leaf.
        """
        if not 0 <= leaf < self.size:
            raise ValueError(f"leaf {leaf} is not one of {self.size}")
        tensor = bisect_right(self._ends, leaf)
        layout = self.tensors[tensor]
        start = (leaf - self._ends[tensor] + layout.leaves) * layout.leaf_rows
        return Block(tensor=tensor, start=start, stop=min(start + layout.leaf_rows, layout.rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Data of some leaves of a trace, with the proof that it was committed to.

    It does not say which leaves these are: the verifier knows which it asked for.

    Attributes:
      leaves: canonical bytes of each leaf, in increasing order of their indices.
      proof: Merkle multiproof for them.
    """

    leaves: tuple[bytes, ...]
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedBlock:
    """Rows that were shown to be what was committed to.

    Attributes:
      block: where in the trace they are.
      rows: the rows, (stop - start, last axis) in the dtype of their tensor, read-only.
    """

    block: Block
    rows: NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A trace with its tree: what a device keeps to answer a challenge from.

    Attributes:
      layout: where the rows are.
      tree: tree over the blocks.
      tensors: canonical bytes of each tensor, where the arrays themselves have them.
    """

    layout: Layout
    tree: merkle.Tree
    tensors: tuple[memoryview, ...] = field(repr=False)

    @property
    def commitment(self) -> Commitment:
        """Root and size, to be sent."""
        return Commitment(root=self.tree.root, size=self.tree.size)

    def open(self, indices: Sequence[int]) -> Opening:
        """Open the leaves at these indices, strictly increasing.

        Raises:
          ValueError: indices out of order or out of range, or none.
        """
        proof = self.tree.multiproof(indices)
        return Opening(leaves=tuple(map(self._data, indices)), proof=proof)

    def open_all(self) -> Opening:
        """Open every leaf. The proof is empty, since the whole tree can be computed."""
        return self.open(range(self.tree.size))

    def _data(self, index: int) -> bytes:
        block = self.layout.block(index)
        row_bytes = self.layout.tensors[block.tensor].row_bytes
        return bytes(self.tensors[block.tensor][block.start * row_bytes : block.stop * row_bytes])


def commit(y: Any, trace: Trace, *, leaf_bytes: int = LEAF_BYTES) -> Committed:
    """Commit to a trace and its answer. Arrays in host memory are hashed in place, on all cores.

    Args:
      y: the answer, a pytree of numpy or JAX arrays. They must not change afterwards.
      trace: the claims, likewise.
      leaf_bytes: the most bytes in a leaf, except that no row is split.

    Raises:
      TypeError: something other than tensors, or a dtype without canonical bytes.
      ValueError: `leaf_bytes` below 1, not a single element in the trace, or a boolean that is
        neither 0 nor 1.
    """
    layout = Layout.of(y, trace, leaf_bytes=leaf_bytes)
    tensors = tuple(map(tensor_bytes, _tensors(y, trace)))
    leaves: list[memoryview] = []
    for data, tensor in zip(tensors, layout.tensors, strict=True):
        step = tensor.leaf_rows * max(1, tensor.row_bytes)
        leaves += (data[i : i + step] for i in range(0, len(data), step))
    tree = merkle.Tree(_digests(leaves), suite=merkle.BLAKE3)
    return Committed(layout=layout, tree=tree, tensors=tensors)


def verify(commitment: Commitment, y: Any, trace: Any, *, layout: Layout | None = None) -> None:
    """Verify that an answer and a trace, received whole, are what was committed to.

    Args:
      commitment: received before the challenge was known.
      y: the answer, from the prover: any object.
      trace: the trace, likewise.
      layout: of the verifier's own program. If None, shapes and dtypes are taken as received, in
        leaves of the default size, and prove nothing until they are compared with those of the
        program, as `Program.check` does.

    Raises:
      CommitmentMismatch: they are not.
      MalformedEncoding: not tensors, or not the tensors of this layout.
    """
    leaf_bytes = LEAF_BYTES if layout is None else layout.leaf_bytes
    try:
        received = Layout.of(y, trace, leaf_bytes=leaf_bytes)
        if layout is not None and received != layout:
            raise MalformedEncoding(_difference(layout, received))
        computed = commit(y, trace, leaf_bytes=leaf_bytes).commitment
    except (TypeError, ValueError, RecursionError, SystemError) as error:
        # JAX raises the last two on a pytree that is nested too deeply.
        raise MalformedEncoding(f"a trace of something other than tensors: {error}") from error
    if computed != commitment:
        raise CommitmentMismatch(
            expected=(commitment.root, commitment.size), computed=(computed.root, computed.size)
        )


def verify_opening(
    commitment: Commitment, layout: Layout, opening: Opening, *, indices: Sequence[int]
) -> tuple[OpenedBlock, ...]:
    """Verify that the leaves asked for are what was committed to, and read their rows.

    Args:
      commitment: received before the challenge was known.
      layout: of the verifier's own program.
      opening: from the prover.
      indices: the leaves that the verifier asked for, strictly increasing.

    Returns:
      The rows of each leaf, in the order of `indices`.

    Raises:
      MalformedProof: another number of leaves in the tree, in the opening or in the proof.
      MalformedEncoding: a leaf that is not the bytes of so many rows.
      RootMismatch: these leaves were not committed to at these indices.
      ValueError: `indices` out of order or out of range, or none.
    """
    if fault := merkle.indices_fault(indices, layout.size):
        raise ValueError(fault)
    if commitment.size != layout.size:
        raise MalformedProof(
            f"{commitment.size} leaves were committed to, but the program has {layout.size}"
        )
    leaves: Any = getattr(opening, "leaves", None)
    if not isinstance(leaves, list | tuple) or len(leaves) != len(indices):
        raise MalformedProof(f"opening does not have the {len(indices)} leaves asked for")
    blocks = tuple(_read(layout, i, data) for i, data in zip(indices, leaves, strict=True))
    merkle.verify_multiproof(
        opening.proof,
        leaves=_digests(leaves),
        indices=indices,
        size=commitment.size,
        root=commitment.root,
        suite=merkle.BLAKE3,
    )
    return blocks


def _read(layout: Layout, index: int, data: Any) -> OpenedBlock:
    if type(data) is not bytes:
        raise MalformedEncoding(f"leaf {index} is not bytes")
    block = layout.block(index)
    tensor = layout.tensors[block.tensor]
    rows = tensor_from_bytes(data, (block.stop - block.start, tensor.columns), tensor.dtype)
    return OpenedBlock(block=block, rows=rows)


def _tensors(y: Any, trace: Any) -> list[Any]:
    """The tensors that are committed to, in order."""
    claims: Any = trace.values if isinstance(trace, Trace) else None
    if not isinstance(claims, list | tuple):
        raise TypeError(f"expected a Trace with a tuple of claims, not {type(trace).__name__}")
    _require_shallow(y)
    tensors = [*claims, *tree_util.tree_leaves(y)]
    for tensor in tensors:
        if not hasattr(tensor, "shape") or not hasattr(tensor, "dtype"):
            raise TypeError(f"expected a tensor, not {type(tensor).__name__}")
    return tensors


def _require_shallow(y: Any) -> None:
    # A deep nest overflows the stack of JAX, which ends the process.
    level = [y]
    for _ in range(_MAX_DEPTH):
        level = [v for x in level for v in _children(x)]
        if not level:
            return
    raise ValueError(f"an answer nested more than {_MAX_DEPTH} deep")


def _children(x: Any) -> Iterable[Any]:
    if isinstance(x, dict):
        return cast("dict[Any, Any]", x).values()
    return cast("Sequence[Any]", x) if isinstance(x, list | tuple) else ()


def _difference(expected: Layout, received: Layout) -> str:
    counts = [(x.claim_count, len(x.tensors) - x.claim_count) for x in (received, expected)]
    if counts[0] != counts[1]:
        (claims, outputs), (program_claims, program_outputs) = counts
        return (
            f"trace has {claims} claims and {outputs} outputs, but the program {program_claims} "
            f"and {program_outputs}"
        )
    pairs = zip(expected.tensors, received.tensors, strict=True)
    i, (a, b) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    return f"tensor {i} of the trace is {b}, but that of the program {a}"


def _digests(leaves: Sequence[bytes | memoryview]) -> NDArray[np.uint8]:
    """Leaf digests, uint8 (n, 32)."""
    workers = os.cpu_count() or 1
    # Hashing lets go of the interpreter lock. Runs are short, so that no core waits for the last.
    run = max(1, min(64, len(leaves) // (4 * workers)))
    runs = [leaves[i : i + run] for i in range(0, len(leaves), run)]
    if workers == 1 or sum(map(len, leaves)) < _THREADED:
        digests = map(_digest_run, runs)
    else:
        with ThreadPoolExecutor(workers) as pool:
            digests = list(pool.map(_digest_run, runs))
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, merkle.DIGEST_SIZE)


def _digest_run(leaves: Sequence[bytes | memoryview]) -> bytes:
    return b"".join(map(merkle.BLAKE3.leaf, leaves))
