"""Trees of arrays: compare them with expected shapes, name their leaves, hash them to one root."""

from __future__ import annotations

import functools
import re
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verifiable import merkle
from verifiable.encoding import encode, tagged_hash, tensor_bytes
from verifiable.jaxpr.from_jax import shape_dtype
from verifiable.trace.validate import array_types

_REMEMBERED = 8  # sets of parameters
_LONGEST = 200  # characters of a tree in a message
_SHOWN = 4  # leaves in a message
_SUB_BYTE = re.compile(r"u?int[124]|float[46]_\w+")  # names of types
_ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct, bool, int, float, complex)


def parameter_root(params: Any) -> bytes:
    """32-byte Merkle root (BLAKE3) over the arrays of a pytree, in its order.

    A leaf is the hash of dtype, shape and canonical bytes of one array, as JAX reads it: without
    x64, float64 and int64 arrays count as the float32 and int32 arrays that they become.

    Raises:
      TypeError: a leaf is not an array; the message names it.
    """

    def leaf(path: Any, x: Any) -> bytes:
        spec = abstract_leaf("params", path, x)
        array = x if isinstance(x, jax.Array) else np.asarray(x, spec.dtype)
        head = encode([spec.dtype.name, list(spec.shape)])
        return tagged_hash("parameter", head, tensor_bytes(array))

    return merkle.root_from_leaf_data(
        [leaf(path, x) for path, x in jax.tree_util.tree_leaves_with_path(params)]
    )


class RootMemory:
    """The roots of the last few sets of parameters.

    A set is known by the identity of its arrays, so that a device hashes its weights once and not
    at every run. Only JAX arrays are remembered: arrays of numpy can change in place, and the root
    of float64 ones depends on whether x64 is on.
    """

    def __init__(self):
        """Remember nothing yet."""
        self._known: list[tuple[list[weakref.ref[Any]], bytes]] = []

    def root(self, params: Any) -> bytes:
        """`parameter_root`, computed once for the same arrays."""
        leaves = jax.tree.leaves(params)
        for references, root in self._known:
            if len(references) == len(leaves) and all(
                reference() is leaf for reference, leaf in zip(references, leaves, strict=True)
            ):
                return root
        root = parameter_root(params)
        if all(isinstance(leaf, jax.Array) for leaf in leaves):
            references = [weakref.ref(leaf) for leaf in leaves]
            self._known = [*self._known[1 - _REMEMBERED :], (references, root)]
        return root


def is_deleted(x: Any) -> bool:
    """Whether an array has no memory any more."""
    return type(x) in array_types() and bool(x.is_deleted())


def entries(path: Any) -> list[Any]:
    """The keys, indices and names of a path of JAX's, such as `["residual", "kept", 0]`."""
    return [_entry(p) for p in path]


def _entry(entry: Any) -> Any:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return entry


def abstract(what: str, tree: Any) -> Any:
    """Shapes and dtypes of a tree, without reading it.

    Args:
      what: name of the argument, for the message.
      tree: pytree of arrays, numbers or `ShapeDtypeStruct`s.

    Raises:
      TypeError: a leaf is none of these; the message names it.
    """
    return jax.tree_util.tree_map_with_path(lambda path, x: abstract_leaf(what, path, x), tree)


def abstract_leaf(what: str, path: Any, x: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of one leaf; see `abstract`."""
    name = what + jax.tree_util.keystr(path)
    if not isinstance(x, _ARRAYS):
        raise TypeError(
            f"{name} is a {type(x).__name__}, not an array: pass arrays only (if a module also "
            "holds functions or settings, separate its arrays first, as `equinox.partition` does)"
        )
    try:
        found = shape_dtype(x)
        _require_held(found.dtype)
    except TypeError as error:
        raise TypeError(f"{name} is an array that JAX cannot hold: {error}") from error
    if what == "params" and jnp.issubdtype(found.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"{name} has type {found.dtype.name}: random keys are no parameters. Keep them apart "
            "(flax: nnx.split(model, nnx.Param, ...)), or pass jax.random.key_data of them"
        )
    if what == "params" and _SUB_BYTE.fullmatch(found.dtype.name):
        raise TypeError(
            f"{name} has type {found.dtype.name}, whose values have no canonical bytes: pack them, "
            "such as two of int4 in one of uint8, and unpack them in the function"
        )
    return found


@functools.cache
def _require_held(dtype: Any) -> None:
    """Require a type of JAX's own: numpy also has text, dates, objects and longer floats."""
    if not jnp.issubdtype(dtype, jax.dtypes.extended):
        jnp.asarray(np.zeros(0, dtype))


def _short(tree: Any) -> str:
    text = str(tree)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _difference(what: str, expected: Any, given: Any) -> str:
    """The leaves that are missing, and those that are too many."""
    paths = [
        {what + jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (expected, given)
    ]
    found = ("missing", sorted(paths[0] - paths[1])), ("unexpected", sorted(paths[1] - paths[0]))
    parts = [f"{word}: {', '.join(names[:_SHOWN])}" for word, names in found if names]
    return "".join(f"; {part}" for part in parts)


def _require_arrays_at_leaves(what: str, expected: Any, given: Any) -> None:
    """Raise TypeError if a tree differs by what it has in place of an array, such as a list."""
    try:
        inside = jax.tree.structure(expected).flatten_up_to(given)
    except (TypeError, ValueError):
        return
    leaves = jax.tree_util.tree_leaves_with_path(expected)
    for (path, a), x in zip(leaves, inside, strict=True):
        if jax.tree.structure(x) != jax.tree.structure(a):
            raise TypeError(
                f"{what}{jax.tree_util.keystr(path)} must be an array of shape {a.shape} and type "
                f"{a.dtype}, got a {type(x).__name__}: make an array of it, as jnp.asarray does"
            )


def conform(what: str, expected: Any, given: Any) -> Any:
    """Require a tree of the expected shapes and types, and return it as arrays.

    Args:
      what: name of the argument, for the message.
      expected: pytree of `ShapeDtypeStruct`s.
      given: the caller's pytree.

    Raises:
      TypeError: a leaf is not an array, or the tree is of another kind (an array for a dict).
      ValueError: another tree, shape or type; the message names both sides.
    """
    want, have = jax.tree.structure(expected), jax.tree.structure(given)
    if want != have:
        kinds = [tree.node_data()[0] if tree.node_data() else None for tree in (want, have)]
        if kinds[0] is not kinds[1]:
            names = ["an array" if kind is None else f"a {kind.__name__}" for kind in kinds]
            raise TypeError(
                f"{what} must be {names[0]}, got {names[1]}: the program was compiled for {want}"
            )
        _require_arrays_at_leaves(what, expected, given)
        raise ValueError(
            f"{what} have tree {_short(have)}, the program was compiled for {_short(want)}"
            + _difference(what, expected, given)
        )

    def same(path: Any, a: Any, x: Any) -> Any:
        b = abstract_leaf(what, path, x)
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ValueError(
                f"{what}{jax.tree_util.keystr(path)} has shape {b.shape} and type {b.dtype}, "
                f"the program was compiled for {a.shape} and {a.dtype}: convert it, or compile "
                "another program for it"
            )
        if is_deleted(x):
            raise ValueError(
                f"{what}{jax.tree_util.keystr(path)} was deleted, as an argument that is donated "
                "to a compiled function is: pass a copy of it there"
            )
        # Without x64, JAX reads doubles as floats; the check, which runs with it, must as well.
        return x if isinstance(x, jax.Array) else np.asarray(x, a.dtype)

    return jax.tree_util.tree_map_with_path(same, expected, given)
