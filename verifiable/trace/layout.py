"""The layout of a trace: which rows of which tensor each leaf holds.

A tensor of shape (..., c) has rows of c elements. A leaf holds

    max(1, leaf_bytes // (c * itemsize))

of them, the last leaf of a tensor the rest. Leaves are numbered through all tensors: the values of
the trace first, then the leaves of the answer, in the order in which JAX flattens it.

A program that is compiled for audits of rows cuts its claims into other leaves: the rows of a
tensor are then in groups, such as those of a layer, and leaves begin anew with every group.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any, Final

import numpy as np
from jax import export, tree_util
from jaxtyping import Integer

from verifiable.encoding import require_tensor_dtype

LEAF_BYTES: Final = 1 << 16
"""Default size of a leaf, in bytes: enough to hash at the speed of memory."""


@tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A pytree of the values that a program's claims are about.

    Attributes:
      values: what is committed of each claimed equation, in program order: arrays, or
        `jax.ShapeDtypeStruct`s where only shapes and dtypes matter.
    """

    values: tuple[Any, ...]


export.register_pytree_node_serialization(
    Trace,
    serialized_name="verifiable.Trace",
    serialize_auxdata=lambda _: b"",
    deserialize_auxdata=lambda _: (),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorLayout:
    """How a tensor is cut into leaves.

    Attributes:
      shape: its shape. A scalar is one row of one element.
      dtype: its dtype, in native byte order.
      rows_per_leaf: rows in each leaf of a group but the last, which has the rest.
      group: rows in each group but the last, which has the rest; 0 for all in one.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows_per_leaf: int
    group: int = 0

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
    def nbytes(self) -> int:
        """Canonical bytes of the tensor."""
        return self.rows * self.row_bytes

    @property
    def leaves(self) -> int:
        """Leaves that hold the tensor: none if it has no elements."""
        return self.leaf(self.rows - 1) + 1 if self.rows and self.columns else 0

    def leaf(self, row: Any) -> Any:
        """The leaf of the tensor that holds a row, from 0; of an array of rows, an array."""
        group, rest = divmod(row, self._rows_of_group)
        return group * self._leaves_of_group + rest // self.rows_per_leaf

    def rows_of(self, leaf: Any) -> tuple[Any, Any]:
        """The first row of a leaf of the tensor, and one past the last; likewise."""
        group, rest = divmod(leaf, self._leaves_of_group)
        first = group * self._rows_of_group
        least = np.minimum if isinstance(leaf, np.ndarray) else min
        start, end = first + rest * self.rows_per_leaf, first + self._rows_of_group
        return start, least(start + self.rows_per_leaf, least(end, self.rows))

    def cut(self, data: memoryview) -> list[memoryview]:
        """The data of each leaf, in order, of the tensor's canonical bytes."""
        leaf, group = (n * self.row_bytes for n in (self.rows_per_leaf, self._rows_of_group))
        size = self.nbytes
        ends = [(a, min(a + group, size)) for a in range(0, size, max(group, 1))]
        return [
            data[a : min(a + leaf, end)] for start, end in ends for a in range(start, end, leaf)
        ]

    @property
    def _rows_of_group(self) -> int:
        return self.group or self.rows

    @property
    def _leaves_of_group(self) -> int:
        return -(-self._rows_of_group // self.rows_per_leaf)

    def __str__(self) -> str:
        """Dtype and shape."""
        return f"{self.dtype.name}{list(self.shape)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafRows:
    """The rows that a leaf holds.

    Attributes:
      tensor: index of their tensor: values of the trace first, then the leaves of y.
      start: the first row, counted in the tensor as (rows, last axis).
      stop: one past the last row.
    """

    tensor: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class TensorRows:
    """The rows of a tensor that some leaves hold.

    Attributes:
      tensor: its index.
      numbers: the rows' numbers, ascending.
      first: place of the first of these leaves among those given.
      last: one past the place of the last.
    """

    tensor: int
    numbers: Integer[np.ndarray, " rows"]
    first: int
    last: int


def tensor_rows(places: Integer[np.ndarray, "leaves 3"]) -> tuple[TensorRows, ...]:
    """The rows of each tensor that some leaves hold, given their `Layout.places`; at least one."""
    own, starts, stops = places.T
    sizes = stops - starts
    found: list[TensorRows] = []
    for first, last in pairwise([0, *(np.flatnonzero(np.diff(own)) + 1).tolist(), len(own)]):
        counts = sizes[first:last]
        skipped = starts[first:last] - (np.cumsum(counts) - counts)
        numbers = np.repeat(skipped, counts) + np.arange(np.sum(counts))
        found.append(TensorRows(tensor=int(own[first]), numbers=numbers, first=first, last=last))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which rows of which tensor each leaf of a trace holds.

    Attributes:
      tensors: layout of each tensor: values of the trace first, then the leaves of y.
      structure: `jax.tree_util.PyTreeDef` of y.
      leaf_bytes: the most bytes in a leaf, except that no row is split, and no block of rows.
    """

    tensors: tuple[TensorLayout, ...]
    structure: Any
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
          y: a pytree of arrays or `jax.ShapeDtypeStruct`s, from a trusted source.
          trace: the same. `jax.eval_shape(program.execute, ...)` gives both without arithmetic.
          leaf_bytes: the most bytes in a leaf, except that no row is split.

        Raises:
          TypeError: a leaf that is not a tensor, or a dtype without canonical bytes.
          ValueError: `leaf_bytes` below 1, or no element in the whole trace.
        """
        if leaf_bytes < 1:
            raise ValueError(f"leaf_bytes must be at least 1, got {leaf_bytes}")
        tensors: list[TensorLayout] = []
        for tensor in tensors_of(y, trace):
            if not hasattr(tensor, "shape") or not hasattr(tensor, "dtype"):
                raise TypeError(f"expected a tensor, got {type(tensor).__name__}")
            shape, dtype = tuple(tensor.shape), require_tensor_dtype(tensor.dtype)
            row_bytes = math.prod(shape[-1:]) * dtype.itemsize
            rows_per_leaf = max(1, leaf_bytes // max(1, row_bytes))
            tensors.append(TensorLayout(shape=shape, dtype=dtype, rows_per_leaf=rows_per_leaf))
        structure = tree_util.tree_structure(y)
        return cls(tensors=tuple(tensors), structure=structure, leaf_bytes=leaf_bytes)

    def in_groups(self, groups: Mapping[int, tuple[int, int]]) -> Layout:
        """The layout of the same tensors, of which some are cut into groups of rows.

        Args:
          groups: rows of a leaf, and of a group, by index of the tensor.
        """
        tensors = list(self.tensors)
        for i, (leaf, group) in groups.items():
            tensors[i] = replace(tensors[i], rows_per_leaf=leaf, group=group)
        return replace(self, tensors=tuple(tensors))

    @property
    def claim_count(self) -> int:
        """How many of the tensors are outputs of claims; the others are leaves of y."""
        return len(self.tensors) - self.structure.num_leaves

    @property
    def size(self) -> int:
        """Leaves in the tree, at least 1."""
        return self._ends[-1]

    @property
    def nbytes(self) -> int:
        """Canonical bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

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
        return self._ends[tensor] - layout.leaves + layout.leaf(row)

    def rows_of(self, leaf: int) -> LeafRows:
        """Rows of the leaf at this index.

        Raises:
          ValueError: there is no such leaf.
        """
        if not 0 <= leaf < self.size:
            raise ValueError(f"leaf {leaf} is not one of {self.size}")
        tensor = bisect_right(self._ends, leaf)
        layout = self.tensors[tensor]
        start, stop = layout.rows_of(leaf - self._ends[tensor] + layout.leaves)
        return LeafRows(tensor=tensor, start=start, stop=stop)

    def places(self, leaves: Sequence[int]) -> Integer[np.ndarray, "leaves 3"]:
        """Tensor, first row and one past the last, of several leaves in ascending order.

        Raises:
          ValueError: there is no such leaf.
        """
        indices = np.asarray(leaves, np.int64)
        if indices.size and not 0 <= indices[0] <= indices[-1] < self.size:
            raise ValueError(f"leaves {leaves} are not all among {self.size}")
        tensors = np.searchsorted(self._ends, indices, side="right")
        found = np.empty((len(indices), 3), np.int64)
        found[:, 0] = tensors
        for tensor in np.unique(tensors).tolist():
            own, layout = tensors == tensor, self.tensors[tensor]
            first = self._ends[tensor] - layout.leaves
            found[own, 1], found[own, 2] = layout.rows_of(indices[own] - first)
        return found

    def leaf_size(self, leaf: int) -> int:
        """Bytes of the leaf at this index.

        Raises:
          ValueError: there is no such leaf.
        """
        place = self.rows_of(leaf)
        return (place.stop - place.start) * self.tensors[place.tensor].row_bytes

    def name(self, tensor: int) -> str:
        """The tensor in a message, such as `claim 3` or `output 0`."""
        output = tensor - self.claim_count
        return f"claim {tensor}" if output < 0 else f"output {output}"


def tensors_of(y: Any, trace: Any) -> list[Any]:
    """The tensors of an answer and a trace from a trusted source, in the order of a layout.

    Raises:
      TypeError: not a `Trace`, or its values are not in a tuple or list.
    """
    values: Any = trace.values if isinstance(trace, Trace) else None
    if not isinstance(values, list | tuple):
        raise TypeError(f"expected a Trace with a tuple of values, got {type(trace).__name__}")
    return [*values, *tree_util.tree_leaves(y)]
