"""Moves data op by op with numpy: JAX compiles a program for each shape, 10 ms and more each time.

Broadcasts, slices and their like have one result, and so have conversions of most types and some
`arithmetic`. All else is left to JAX, and so is what has no such form: tracers, random keys.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax._src.interpreters import pxla

from tests.helpers import arithmetic

Move = Callable[..., Any]

MOST = 2**18  # elements; to compile takes no longer than to copy more


def broadcast_in_dim(x: Any, *, shape: Any, broadcast_dimensions: Any, sharding: Any) -> Any:
    ones = [1] * len(shape)
    for size, dimension in zip(x.shape, broadcast_dimensions, strict=True):
        ones[dimension] = size
    return None if sharding else np.broadcast_to(x.reshape(ones), shape)


def concatenate(*arrays: Any, dimension: int) -> Any:
    return np.concatenate(arrays, dimension)


def convert_element_type(x: Any, *, new_dtype: Any, weak_type: bool, sharding: Any) -> Any:
    dtypes = x.dtype.name, np.dtype(new_dtype).name
    del weak_type  # of the array alone
    if sharding or not (np.can_cast(x.dtype, new_dtype) or dtypes in _ROUNDED):
        return None
    with np.errstate(all="ignore"):
        found = x.astype(new_dtype)
        # XLA flushes what is subnormal.
        return None if _subnormal(x) or _subnormal(found) else found


# Of these, all round to the nearest alike.
_ROUNDED = {
    *(("float64", "float32"), ("float32", "float16"), ("float32", "bfloat16")),
    *(("int32", "float32"), ("uint32", "float32"), ("int64", "float64")),
    *(("int64", "int32"), ("int32", "int8"), ("int32", "uint8"), ("int64", "uint32")),
}


def _subnormal(x: Any) -> bool:
    """Whether an array holds subnormal numbers, or none that are numbers."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return False
    return not np.all((x == 0) | (np.abs(x) >= jnp.finfo(x.dtype).tiny))


def dynamic_slice(x: Any, *starts: Any, slice_sizes: Sequence[int]) -> Any:
    ends = zip(starts, x.shape, slice_sizes, strict=True)
    first = [min(max(int(start), 0), whole - size) for start, whole, size in ends]
    return x[tuple(slice(a, a + n) for a, n in zip(first, slice_sizes, strict=True))]


def iota(*, dtype: Any, shape: Sequence[int], dimension: int, sharding: Any) -> Any:
    along = [n if i == dimension else 1 for i, n in enumerate(shape)]
    steps = np.arange(math.prod(along)).astype(dtype)
    return None if sharding else np.broadcast_to(steps.reshape(along), shape)


def reshape(x: Any, *, new_sizes: Any, dimensions: Any, sharding: Any) -> Any:
    return None if dimensions or sharding else x.reshape(new_sizes)


def cut(x: Any, *, start_indices: Any, limit_indices: Any, strides: Any) -> Any:
    steps = strides or [1] * x.ndim
    return x[tuple(map(slice, start_indices, limit_indices, steps))]


def squeeze(x: Any, *, dimensions: Any) -> Any:
    return x.squeeze(tuple(dimensions))


def stage(x: Any) -> Any:
    return x


def transpose(x: Any, *, permutation: Any) -> Any:
    return x.transpose(permutation)


MOVES: dict[str, Move] = {
    f.__name__: f
    for f in (
        *(broadcast_in_dim, concatenate, convert_element_type, dynamic_slice, iota, reshape),
        *(squeeze, stage, transpose),
    )
} | {"slice": cut}


def by_numpy() -> None:
    """Evaluate these primitives with numpy from now on, where JAX has them."""
    for name, move in (MOVES | arithmetic.operations()).items():
        primitive = getattr(lax, f"{name}_p", None)
        if primitive is not None:
            primitive.def_impl(functools.partial(moved, move, primitive.impl))
    lax.optimization_barrier_p.def_impl(functools.partial(held, lax.optimization_barrier_p.impl))


def moved(move: Move, otherwise: Callable[..., Any], *operands: Any, **params: Any) -> Any:
    """The array that a primitive returns, by numpy or else by JAX."""
    config = jax.config
    plain = all(map(_plain, operands)) and config.jax_default_device is None
    if plain and not (config.jax_debug_nans or config.jax_debug_infs):
        found = move(*map(np.asarray, operands), **params)
        if found is not None and _held(found.dtype, config.jax_enable_x64):
            return as_array(np.array(found), _weak(move, operands, params))
    return otherwise(*operands, **params)


def _weak(move: Move, operands: Sequence[Any], params: Mapping[str, Any]) -> bool:
    """Whether the type of the result is that of a Python number, which gives way to others."""
    if move is convert_element_type:
        return params["weak_type"]
    typed = operands[:1] if move is dynamic_slice else operands[move is arithmetic.select_n :]
    return bool(typed) and all(getattr(x, "weak_type", False) for x in typed)


def as_array(x: Any, weak: bool) -> Any:
    """`jax.device_put` where nothing else is to be decided: a quarter of its time."""
    sharding, device = _place()
    aval = _aval(x.shape, x.dtype, weak)
    return pxla.batched_device_put(aval, sharding, [x], [device], committed=False)


@functools.cache
def _place() -> tuple[Any, Any]:
    device = jax.devices()[0]
    return jax.sharding.SingleDeviceSharding(device), device


@functools.cache
def _aval(shape: tuple[int, ...], dtype: Any, weak: bool) -> Any:
    return jax.core.ShapedArray(shape, dtype, weak_type=weak)


def held(otherwise: Callable[..., Any], *operands: Any) -> Any:
    """What a barrier returns: op by op, there is nothing that it keeps apart."""
    arrays = all(isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) for x in operands)
    return list(operands) if arrays else otherwise(*operands)


def _plain(x: Any) -> bool:
    """Whether numpy holds what JAX computes with."""
    if not isinstance(x, np.ndarray | jax.Array) or isinstance(x, jax.core.Tracer):
        return False
    if x.size > MOST or getattr(x, "committed", False):
        return False
    return _held(x.dtype, jax.config.jax_enable_x64)


@functools.cache
def _held(dtype: Any, wide: bool) -> bool:
    """Whether JAX keeps a type as it is, and numpy has it."""
    del wide
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return False
    return jax.dtypes.canonicalize_dtype(dtype) == dtype
