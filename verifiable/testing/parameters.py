"""Other parameters: what a dishonest device runs in place of the right ones, of the same shapes.

Each function takes a pytree of arrays and returns one with the same tree, shapes and dtypes. What
it cannot change it returns as it is.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Matrix: TypeAlias = "np.ndarray[Any, Any]"

GROUP = 16
"""Inputs of a column that share a scale in 4 bits."""


def rounded(w: Matrix, largest: int, group: int | None = None) -> Matrix:
    """Round a matrix to integers with one scale a column, or one for a group of its inputs.

    Args:
      w: (..., k, n), floats.
      largest: integer that the largest weight becomes: 127 of 8 bits, 7 of 4.
      group: how many inputs share a scale, if they divide k; all k by default.

    Returns:
      float32, of the same shape.
    """
    wide = w.astype(np.float32)
    size = group if group and w.shape[-2] % group == 0 else w.shape[-2]
    grouped = wide.reshape(*w.shape[:-2], -1, size, w.shape[-1])
    scale = np.abs(grouped).max(-2, keepdims=True) / largest
    levels = np.rint(grouped / np.where(scale == 0, 1, scale))
    return (levels * scale).astype(np.float32).reshape(w.shape)


def int8(params: Any) -> Any:
    """Round matrices to 8 bits with one scale a column."""
    return _matrices(params, lambda w: rounded(w, 127))


def int4(params: Any) -> Any:
    """Round matrices to 4 bits with one scale for 16 inputs of a column; integers to 4 bits."""

    def narrow(x: Any) -> Any:
        w = np.asarray(x)
        return jnp.asarray((w // 16) * 16) if w.ndim > 1 and w.dtype == np.int8 else x

    return _matrices(jax.tree.map(narrow, params), lambda w: rounded(w, 7, GROUP))


def float16(params: Any) -> Any:
    """Keep 11 significant bits of every weight: half the memory, often twice the speed."""
    return _matrices(params, lambda w: w.astype(np.float16))


def float8(params: Any) -> Any:
    """Keep 4 significant bits of every weight: half the memory of bfloat16."""
    return _matrices(params, lambda w: w.astype(jnp.float8_e4m3fn))


def before_fine_tuning(params: Any) -> Any:
    """Last week's weights: off by an update of rank one, of one percent of each matrix's norm."""
    return _matrices(params, lambda w: older(w, 0))


def older(w: Matrix, seed: int) -> Matrix:
    """A matrix, (..., k, n), off by a random update of rank one and of a hundredth of its norm."""
    rng, wide = np.random.default_rng(seed), w.astype(np.float32)
    u, v = (rng.standard_normal(n).astype(np.float32) for n in w.shape[-2:])
    update = u[:, None] * v[None, :]
    one = np.linalg.norm(wide, axis=(-2, -1), keepdims=True) / np.linalg.norm(update)
    return wide + update * (np.float32(0.01) * one.astype(np.float32))


def another_model(params: Any) -> Any:
    """Draw all parameters anew; integers and single rows change places."""
    rng = np.random.default_rng(7)

    def leaf(x: Any) -> Any:
        w = np.asarray(x)
        if not jnp.issubdtype(w.dtype, jnp.floating) or w.ndim < 2:
            return jnp.asarray(rng.permutation(w.ravel()).reshape(w.shape), x.dtype)
        wide = w.astype(np.float32)
        return jnp.asarray(wide.mean() + wide.std() * rng.standard_normal(w.shape), x.dtype)

    return jax.tree.map(leaf, params)


def skipped_layers(params: Any) -> Any:
    """Set the parameters of the last layer to zero; of all layers, if they are stacked.

    Layers are under the key "layers", or are the members of the first group with numbers as names.
    Where there are none, the parameters are returned as they are.
    """
    if not isinstance(params, dict) or not all(isinstance(name, str) for name in params):
        return params
    named: dict[str, Any] = dict(params)
    if "layers" in named:
        repeated = named["layers"]
        last = repeated[-1] if isinstance(repeated, list) else repeated
        nothing = jax.tree.map(jnp.zeros_like, last)
        kept = [*repeated[:-1], nothing] if isinstance(repeated, list) else nothing
        return {**named, "layers": kept}
    numbers = sorted((name for name in named if name.isdigit()), key=int)
    if numbers:
        return {**named, numbers[-1]: jax.tree.map(jnp.zeros_like, named[numbers[-1]])}
    for name, inner in named.items():
        other = skipped_layers(inner)
        if other is not inner:
            return {**named, name: other}
    return params


def last_matrix_zero(params: Any) -> Any:
    """Set the last matrix of floats to zero, which leaves nothing to compute with it."""
    return _one_matrix(params, -1, np.zeros_like)


def scaled(params: Any) -> Any:
    """Make the first matrix of floats a thousand times too large, to enlarge a tolerance."""
    return _one_matrix(params, 0, lambda w: w.astype(np.float32) * np.float32(1000))


def one_weight(params: Any) -> Any:
    """Change one weight of the first matrix of floats by the norm of its column."""

    def change(w: Matrix) -> Matrix:
        wide = w.astype(np.float32)
        wide[(0,) * w.ndim] += np.linalg.norm(wide.reshape(-1, w.shape[-1])[:, 0])
        return wide

    return _one_matrix(params, 0, change)


def _is_matrix(x: Any) -> bool:
    return np.ndim(x) >= 2 and jnp.issubdtype(x.dtype, jnp.floating)


def _matrices(params: Any, change: Any) -> Any:
    """Change every matrix of floats; the result is cast to the dtype that it had."""

    def leaf(x: Any) -> Any:
        return jnp.asarray(change(np.asarray(x)), x.dtype) if _is_matrix(x) else x

    return jax.tree.map(leaf, params)


def _one_matrix(params: Any, which: int, change: Any) -> Any:
    """Change one matrix of floats, counted over the leaves; nothing if there is none."""
    leaves, tree = jax.tree.flatten(params)
    places = [i for i, x in enumerate(leaves) if _is_matrix(x)]
    if places:
        x = leaves[places[which]]
        leaves[places[which]] = jnp.asarray(change(np.array(x)), x.dtype)
    return jax.tree.unflatten(tree, leaves)
