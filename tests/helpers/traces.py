"""Traces for tests: random ones, an honest run to cheat with, and a slow oracle of the root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from blake3 import blake3
from hypothesis import strategies as st

from verifiable.check.partial.opened_rows import OpenedTensors
from verifiable.encoding import tagged_hash
from verifiable.testing.strategies import traces
from verifiable.trace import Committed, Layout, OpenedTensor, Trace, commit


@dataclass(frozen=True)
class Run:
    """What a device has: an answer and a trace, with the size of leaves."""

    y: Any
    trace: Trace
    leaf_bytes: int

    @property
    def tensors(self) -> list[Any]:
        return [*self.trace.values, *jax.tree_util.tree_leaves(self.y)]

    @property
    def layout(self) -> Layout:
        return Layout.of(self.y, self.trace, leaf_bytes=self.leaf_bytes)

    def commit(self) -> Committed:
        return commit(self.y, self.trace, leaf_bytes=self.leaf_bytes)


def runs() -> st.SearchStrategy[Run]:
    return st.builds(
        lambda pair, leaf_bytes: Run(y=pair[0], trace=pair[1], leaf_bytes=leaf_bytes),
        traces(),
        st.integers(1, 64),
    )


def example() -> tuple[Any, Trace]:
    """JAX arrays, with types that numpy lacks, an empty tensor and a scalar."""
    key = np.random.default_rng(0)
    claims = (
        jnp.asarray(key.standard_normal((6, 8)), jnp.float32),
        jnp.asarray(key.standard_normal((2, 3, 8)), jnp.bfloat16),
        jnp.zeros((3, 0), jnp.float32),
        jnp.arange(10, dtype=jnp.int32),
        jnp.asarray(key.standard_normal((4, 4)), jnp.float8_e4m3fn),
    )
    return {"logits": jnp.ones((2, 5)), "label": jnp.int32(3)}, Trace(values=claims)


# The honest device of the cheats has 12 leaves: rows of A, pairs of rows of B, then the answer.

A, B = np.arange(48, dtype=np.float32).reshape(6, 8), -np.arange(32, dtype=np.int16).reshape(4, 8)
FLAG = np.array([[True, False, True]])
Y = {"a": FLAG, "b": A[3:]}
HONEST = Run(y=Y, trace=Trace(values=(A, B)), leaf_bytes=32)


# The slow oracle: rows are gathered one by one, and the tree hashed as it is defined.


def leaves_of(run: Run) -> list[tuple[int, int, bytes]]:
    """(tensor, first row, bytes) of each leaf."""
    found: list[tuple[int, int, bytes]] = []
    for number, tensor in enumerate(run.tensors):
        array = np.asarray(tensor)
        if not array.size:
            continue
        first, data = 0, b""
        for index, row in enumerate(array.reshape(-1, array.shape[-1] if array.ndim else 1)):
            if data and len(data) + row.nbytes > run.leaf_bytes:
                found.append((number, first, data))
                first, data = index, b""
            data += row.astype(row.dtype.newbyteorder("<")).tobytes()
        found.append((number, first, data))
    return found


def root_of(leaves: list[bytes]) -> bytes:
    """Root of the tree over these leaves."""
    if len(leaves) == 1:
        return blake3(leaves[0], key=tagged_hash("merkle leaf")).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    pair = root_of(leaves[:k]) + root_of(leaves[k:])
    return blake3(pair, key=tagged_hash("merkle node")).digest()


def received(layout: Layout, values: Sequence[Any]) -> OpenedTensors:
    """Claims of which everything was opened, as an audit reads them."""
    tensors = layout.tensors[: len(values)]
    rows = [np.asarray(v).reshape(t.rows, t.columns) for t, v in zip(tensors, values, strict=True)]
    opened = [OpenedTensor(tensor=i, numbers=np.arange(len(r)), rows=r) for i, r in enumerate(rows)]
    return OpenedTensors.of(layout, opened)
