"""One model at several precisions, chosen by the types of its parameters.

    f32    as trained
    bf16   kernels, embeddings and activations in bfloat16; products, norms and softmax accumulate
           in float32
    f16    the same in float16
    w8a8   kernels in int8 with one scale per output channel; activations rounded to int8 with one
           dynamic scale per token; products int8 x int8 -> int32; everything else in float32

In language models only the operands of products with kernels are rounded: a token is chosen from
float32 that nothing was rounded just before, so that no tolerance of a rounding decides on it.

`PRECISIONS` has a function for each that converts trained float32 parameters. The forward passes
follow the types of the parameters and need no other switch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Params: TypeAlias = "dict[str, Any]"

SMALLEST_SCALE = 1e-9

# Last names of kernels and of tables of words, in parameters of encoders and language models.
_KERNELS = ("kernel", "query", "key", "value", "output", "gate", "up", "down")
_TABLES = ("words", "embedding")


def dense(block: Params, x: Array) -> Array:
    """A linear layer, `x @ kernel + bias`, in the precision of its kernel; returns x's dtype."""
    return (weighted(block["kernel"], x) + block["bias"]).astype(x.dtype)


def weighted(kernel: Any, x: Array) -> Array:
    """`x @ kernel` in float32, of which x is rounded to the type of the kernel."""
    if not isinstance(kernel, dict):
        return product(x.astype(kernel.dtype), kernel)
    scale = jnp.max(jnp.abs(x), axis=-1, keepdims=True) / 127
    scale = jnp.maximum(scale, SMALLEST_SCALE)
    levels = jnp.clip(jnp.round(x / scale), -127, 127).astype(jnp.int8)
    whole = jnp.matmul(levels, kernel["levels"], preferred_element_type=jnp.int32)
    return whole.astype(jnp.float32) * scale * kernel["scale"]


def product(a: Array, b: Array) -> Array:
    """A product that accumulates in float32 for operands of any type."""
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def map_kernels(params: Params, change: Callable[[str, Any], Any]) -> Params:
    """Apply `change(path, kernel)` to the kernel of every linear layer."""

    def visit(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return change(name, leaf) if name.endswith(_KERNELS) else leaf

    return jax.tree_util.tree_map_with_path(visit, params)


def _as_trained(params: Params) -> Params:
    return params


def _half(dtype: Any) -> Callable[[Params], Params]:
    def narrow(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return jnp.asarray(leaf, dtype) if name.endswith((*_KERNELS, *_TABLES)) else leaf

    return lambda params: jax.tree_util.tree_map_with_path(narrow, params)


def _w8a8(params: Params) -> Params:
    def levels(_: str, kernel: Any) -> dict[str, Array]:
        kernel = np.asarray(kernel)
        scale = np.abs(kernel).max(axis=-2, keepdims=kernel.ndim > 2) / 127
        scale = np.where(scale == 0, 1, scale).astype(np.float32)
        return {
            "levels": jnp.asarray(np.rint(kernel / scale), jnp.int8),
            "scale": jnp.asarray(scale),
        }

    return map_kernels(params, levels)


PRECISIONS: dict[str, Callable[[Params], Params]] = {
    "f32": _as_trained,
    "bf16": _half(jnp.bfloat16),
    "f16": _half(jnp.float16),
    "w8a8": _w8a8,
}


def converter(precision: str) -> Callable[[Params], Params]:
    """The function that converts trained parameters to a precision.

    Raises:
      ValueError: the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"the precision is one of {', '.join(PRECISIONS)}, got {precision!r}")
    return PRECISIONS[precision]


def titled(model: str, precision: str) -> str:
    """The name of a model at a precision."""
    return model if precision == "f32" else f"{model} in {precision}"
