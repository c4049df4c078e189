"""Compare an answer and a trace from a device, which may be any objects, with a program's layout.

The structure comes first: the walk follows the structure of the program and visits no more nodes
than the program has. So an answer that is nested a million deep, or whose shared parts make it
exponentially large as a tree, is refused in linear time. Shapes and dtypes follow, and only then
bytes.
"""

from __future__ import annotations

import mmap
from functools import cache
from itertools import count
from typing import Any

import jax
import numpy as np
from jax import tree_util

from verifiable.encoding import require_tensor_dtype, tensor_bytes
from verifiable.errors import MalformedEncoding, VerificationError
from verifiable.trace.layout import Layout, TensorLayout, Trace

_LEAF = object()
_LONGEST = 120  # characters of a structure in a message


def receive(layout: Layout, y: Any, trace: Any) -> tuple[memoryview, ...]:
    """Canonical bytes of each tensor, in the order of the layout.

    Args:
      layout: of the verifier's own program.
      y: any object.
      trace: any object.

    Raises:
      MalformedEncoding: they are not tensors of this layout, or reading them fails.
    """
    try:
        tensors = _arrays(layout, y, trace)
        return tuple(map(tensor_bytes, tensors))
    except VerificationError:
        raise
    except Exception as error:
        # The text of the error may be the device's, so only its type is shown.
        raise MalformedEncoding(
            f"the answer or the trace cannot be read: {type(error).__name__}"
        ) from error


def _arrays(layout: Layout, y: Any, trace: Any) -> list[Any]:
    if type(trace) is not Trace or type(trace.values) not in (tuple, list):
        raise MalformedEncoding(f"expected a Trace, got {type(trace).__name__}")
    if len(trace.values) != layout.claim_count:
        raise MalformedEncoding(
            f"the trace has {len(trace.values)} claims, the program has {layout.claim_count}"
        )
    tensors = [*trace.values, *leaves_up_to(layout.structure, y)]
    arrays = [array_or_none(tensor) for tensor in tensors]
    for i, (expected, array) in enumerate(zip(layout.tensors, arrays, strict=True)):
        if array is None:
            kind = type(tensors[i]).__name__
            raise MalformedEncoding(f"{layout.name(i)} is not an array in memory, but {kind}")
        shape, dtype = tuple(array.shape), require_tensor_dtype(array.dtype)
        if (shape, dtype) != (expected.shape, expected.dtype):
            found = TensorLayout(shape=shape, dtype=dtype, rows_per_leaf=1)
            raise MalformedEncoding(f"{layout.name(i)} is {found}, in the program it is {expected}")
    return arrays


def leaves_up_to(structure: Any, received: Any) -> list[Any]:
    """The parts of a received object at the leaves of the program's own structure.

    `PyTreeDef.flatten_up_to` does the same, but prints what does not fit, at any length.

    Raises:
      MalformedEncoding: the object has another structure.
    """
    example = tree_util.tree_unflatten(structure, [_LEAF] * structure.num_leaves)
    pending, leaves = [(example, received)], list[Any]()
    while pending:
        ours, theirs = pending.pop()
        if ours is _LEAF:
            leaves.append(theirs)
            continue
        expected, node = _one_level(ours, structure.num_nodes)
        try:
            found, other = _one_level(theirs, structure.num_nodes)
            same = node == other
        except Exception as error:
            raise MalformedEncoding(_misfit(theirs, node)) from error
        if not same:
            raise MalformedEncoding(_misfit(theirs, node))
        pending += zip(reversed(expected), reversed(found), strict=True)
    return leaves


def _one_level(tree: Any, most: int) -> tuple[list[Any], Any]:
    """The children of a node and its structure; refused if there are more than `most`."""
    seen = count()

    def is_child(_: Any) -> bool:
        number = next(seen)
        if number > most:
            raise ValueError(f"more than {most} children")
        return number > 0

    return tree_util.tree_flatten(tree, is_leaf=is_child)


def _misfit(received: Any, node: Any) -> str:
    return f"the answer has {type(received).__name__} where the program has {str(node)[:_LONGEST]}"


def array_or_none(received: Any) -> Any:
    """A numpy or JAX array as it is, a numpy scalar as its array, None for any other object.

    Memory that another process can write, such as a mapped file, is copied: it could change
    between the check of the commitment and the check of the claims.
    """
    kind = type(received)  # an object may lie about its class, or raise when it is asked
    if kind in (np.ndarray, np.memmap):
        return np.array(received) if _mapped(received) else np.asarray(received)
    if kind in array_types():
        if received.is_deleted():
            return None
        # JAX may refuse an array on a device of its own, and compiles anew for a weak type.
        plain = jax.numpy.issubdtype(received.dtype, jax.dtypes.prng_key) or not (
            received.committed or received.weak_type
        )
        return received if plain else np.asarray(received)
    return np.asarray(received) if issubclass(kind, np.generic) else None


@cache
def array_types() -> tuple[type, ...]:
    """The types of JAX's own arrays and random keys: a subclass of `jax.Array` may do anything."""
    with jax.ensure_compile_time_eval():  # also where a program is being traced
        return type(jax.numpy.zeros(())), type(jax.random.key(0))


def _mapped(array: Any) -> bool:
    """Whether an array lies in a mapped file or in shared memory."""
    owner: Any = array
    kinds = (np.ndarray, np.memmap, memoryview)
    while type(owner) in kinds:
        owner = getattr(owner, "obj" if type(owner) is memoryview else "base")
    return isinstance(owner, mmap.mmap)
