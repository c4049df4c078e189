"""Trees of arrays: held to expected shapes and types, by name, and under one Merkle root."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from verifiable import merkle
from verifiable.encoding import encode, tagged_hash, tensor_bytes
from verifiable.jaxpr import flatten


def parameter_root(params: Any) -> bytes:
    """32-byte Merkle root (BLAKE3) over the arrays of a pytree, in its order.

    A leaf is the hash of dtype, shape and canonical bytes of one array.
    """

    def leaf(x: Any) -> bytes:
        head = encode([x.dtype.name, list(x.shape)])
        return tagged_hash("parameter", head, tensor_bytes(x))

    return merkle.root_from_leaf_data([leaf(x) for x in jax.tree.leaves(params)])


def by_name(tree: Any) -> dict[str, Any]:
    """Leaves of a tree by path, such as `residual/projected/0/image`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(_part(p)) for p in path): leaf for path, leaf in leaves}


def _part(entry: Any) -> Any:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return entry


def conform(what: str, expected: Any, given: Any) -> Any:
    """Arrays of the shapes and types that are expected; the caller's mistake names both sides."""
    want, have = jax.tree.structure(expected), jax.tree.structure(given)
    if want != have:
        raise ValueError(f"{what} have tree {have}, the program was compiled for {want}")

    def same(path: Any, a: Any, x: Any) -> Any:
        b = flatten.shape_dtype(x)
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ValueError(
                f"{what}{jax.tree_util.keystr(path)} has shape {b.shape} and type {b.dtype}, "
                f"the program was compiled for {a.shape} and {a.dtype}"
            )
        # Without x64, JAX reads doubles as floats; the check, which runs with it, must as well.
        return x if isinstance(x, jax.Array) else np.asarray(x, a.dtype)

    return jax.tree_util.tree_map_with_path(same, expected, given)
