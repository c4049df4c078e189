"""Programs on which honest devices differ by more than rounding, or compilers are known to err.

Narrow accumulators, integers multiplied as floats, overflow, subnormal numbers, scatters with equal
indices, rows without any key to attend to, and three programs that XLA's CPU compiler of jax
0.10.2 gets wrong. No device may be rejected; an indeterminate verdict is allowed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.zoo import layers as nn
from benchmarks.zoo.subject import Inputs, Subject, Weights, normals

WIDTH, ROWS = 64, 16


def _long_sums(dtype: Any, contracted: int) -> Subject:
    """A product in and out of a narrow type, over a long dimension."""
    w = Weights(121, dtype)

    def fn(p: Any, x: Array) -> Array:
        return x.astype(dtype) @ p["w"]

    return Subject(fn=fn, params={"w": w.matrix(contracted, WIDTH)}, draw=normals(ROWS, contracted))


def int8_as_float() -> Subject:
    """int8 by int8 into float32, then cast to int32: sums above 2^24 are not exact."""
    rng = np.random.default_rng(122)
    params = {"w": jnp.asarray(rng.integers(60, 128, (4096, WIDTH)), jnp.int8)}

    def fn(p: Any, x: Array) -> Array:
        return jnp.matmul(x, p["w"], preferred_element_type=jnp.float32).astype(jnp.int32)

    def draw(rng: np.random.Generator) -> Inputs:
        return (jnp.asarray(rng.integers(60, 128, (ROWS, 4096)), jnp.int8),)

    return Subject(fn=fn, params=params, draw=draw)


def float16_overflow() -> Subject:
    """Products beyond 65,504 in float16, clipped before the next layer."""
    w = Weights(123, jnp.float16)
    params = {"a": w.matrix(WIDTH, WIDTH), "b": w.matrix(WIDTH, WIDTH)}

    def fn(p: Any, x: Array) -> Array:
        large = (x * 6e4).astype(jnp.float16) @ p["a"]
        return jnp.clip(large, -1, 1) @ p["b"]

    return Subject(fn=fn, params=params, draw=normals(ROWS, WIDTH))


def subnormal_comparison() -> Subject:
    """Numbers near 1e-40, which many devices flush to zero, compared with zero."""
    w = Weights(124)
    params = {"a": w.matrix(WIDTH, WIDTH), "b": w.matrix(WIDTH, WIDTH)}

    def fn(p: Any, x: Array) -> Array:
        h = x @ p["a"]
        return jnp.where(h * jnp.float32(1e-40) > 0, h, 0.1 * h) @ p["b"]

    return Subject(fn=fn, params=params, draw=normals(ROWS, WIDTH))


def scatter_equal() -> Subject:
    """Rows written to a buffer at indices that occur more than once: any of them may win."""
    w = Weights(125)
    params = {"a": w.matrix(WIDTH, WIDTH), "b": w.matrix(WIDTH, WIDTH)}

    def fn(p: Any, x: Array, places: Array) -> Array:
        return jnp.zeros((ROWS, WIDTH)).at[places].set(x @ p["a"]) @ p["b"]

    def draw(rng: np.random.Generator) -> Inputs:
        return *normals(ROWS, WIDTH)(rng), jnp.asarray(rng.integers(0, 8, ROWS), jnp.int32)

    return Subject(fn=fn, params=params, draw=draw)


def nothing_to_attend() -> Subject:
    """Attention with rows that are masked by -inf throughout, multiplied by zero afterwards."""
    w = Weights(126)
    params = nn.attention_weights(w, WIDTH)

    def fn(p: Any, x: Array, mask: Array) -> Array:
        seen = (mask[:, None] & mask)[None]
        bias = jnp.where(seen, 0.0, -jnp.inf)
        q, k, v = (nn.split_heads(nn.dense(p[name], x), 4) for name in ("q", "k", "v"))
        mixed = nn.merge_heads(nn.attend(q, k, v, bias))
        return nn.dense(p["o"], jnp.where(mask[:, None], mixed, 0.0))

    def draw(rng: np.random.Generator) -> Inputs:
        mask = np.arange(ROWS) < rng.integers(4, ROWS)
        return *normals(ROWS, WIDTH)(rng), jnp.asarray(mask)

    return Subject(fn=fn, params=params, draw=draw)


def arc_tangents() -> Subject:
    """An arc tangent between layers; XLA errs with vectors of 512 bits."""
    w = Weights(127)
    params = {"a": w.matrix(WIDTH, WIDTH), "b": w.matrix(WIDTH, WIDTH)}

    def fn(p: Any, x: Array) -> Array:
        return jnp.arctan(x @ p["a"]) @ p["b"]

    return Subject(fn=fn, params=params, draw=normals(ROWS, WIDTH))


def small_products() -> Subject:
    """Sums of squares after a product by a 3x3 matrix under `vmap`; XLA errs in their fusion."""
    w = Weights(128)
    params = {"a": w.matrix(3, 3), "b": w.matrix(200, WIDTH)}

    def fn(p: Any, points: Array) -> Array:
        sums = jax.vmap(lambda r: jnp.sum((p["a"] @ r) ** 2))(points)
        return sums.reshape(200, 200) @ p["b"]

    return Subject(fn=fn, params=params, draw=normals(40_000, 3))


def negative_padding() -> Subject:
    """A 1x1 convolution with padding (-5, 1), which XLA gets wrong, and a layer after it."""
    w = Weights(129)
    params = {"a": w.kernel(1, 1, WIDTH, WIDTH), "b": w.matrix(WIDTH, WIDTH)}

    def fn(p: Any, x: Array) -> Array:
        return jax.nn.relu(nn.conv(x, p["a"], padding=[(-5, 1), (-5, 1)])) @ p["b"]

    return Subject(fn=fn, params=params, draw=normals(2, 16, 16, WIDTH))


HAZARDS: dict[str, Callable[[], Subject]] = {
    **{
        f"{name} in and out, K = {contracted:,}": functools.partial(_long_sums, dtype, contracted)
        for name, dtype in (("float16", jnp.float16), ("bfloat16", jnp.bfloat16))
        for contracted in (2048, 8192)
    },
    "int8 products as floats, K = 4,096": int8_as_float,
    "float16 beyond 65,504": float16_overflow,
    "1e-40 compared with 0": subnormal_comparison,
    "scatter with equal indices": scatter_equal,
    "rows masked by -inf": nothing_to_attend,
    "arctan": arc_tangents,
    "small products under vmap": small_products,
    "negative padding": negative_padding,
}
