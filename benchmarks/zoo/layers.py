"""Layers of neural networks in plain `jax.numpy`, for the models of this folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from benchmarks.zoo.subject import Weights

MASKED = -1e9


def dense(p: Any, x: Array) -> Array:
    """A linear layer."""
    return x @ p["w"] + p["b"]


def layer_norm(p: Any, x: Array, epsilon: float = 1e-5) -> Array:
    """Layer normalisation over the last axis."""
    mean = jnp.mean(x, -1, keepdims=True)
    centred = x - mean
    variance = jnp.mean(centred * centred, -1, keepdims=True)
    return centred * lax.rsqrt(variance + epsilon) * p["scale"] + p["bias"]


def rms_norm(p: Any, x: Array) -> Array:
    """Scaling to a root mean square of one."""
    return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * p["scale"]


def batch_norm(p: Any, x: Array) -> Array:
    """Batch normalisation with running moments, as at inference."""
    return (x - p["mean"]) * lax.rsqrt(p["variance"] + 1e-5) * p["scale"] + p["bias"]


def group_norm(p: Any, x: Array, groups: int) -> Array:
    """Normalisation of groups of channels over all positions of (n, h, w, c)."""
    n, h, w, c = x.shape
    grouped = x.reshape(n, h * w, groups, c // groups)
    mean = jnp.mean(grouped, (1, 3), keepdims=True)
    variance = jnp.mean(jnp.square(grouped - mean), (1, 3), keepdims=True)
    normed = (grouped - mean) * lax.rsqrt(variance + 1e-5)
    return normed.reshape(x.shape) * p["scale"] + p["bias"]


def mlp(p: Any, x: Array, act: Callable[[Array], Array] = jax.nn.gelu) -> Array:
    """Two linear layers."""
    return dense(p["down"], act(dense(p["up"], x)))


def mlp_weights(w: Weights, width: int, hidden: int, *stack: int) -> Any:
    """Parameters of `mlp`."""
    return {"up": w.dense(width, hidden, *stack), "down": w.dense(hidden, width, *stack)}


def split_heads(x: Array, heads: int) -> Array:
    """(..., tokens, width) -> (..., heads, tokens, width / heads)."""
    return jnp.swapaxes(x.reshape(*x.shape[:-1], heads, -1), -2, -3)


def merge_heads(x: Array) -> Array:
    """Undo `split_heads`."""
    x = jnp.swapaxes(x, -2, -3)
    return x.reshape(*x.shape[:-2], -1)


def attend(q: Array, k: Array, v: Array, bias: Array | None = None) -> Array:
    """Scaled dot-product attention over (..., heads, tokens, head); `bias` is added to scores."""
    scores = q @ jnp.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
    if bias is not None:
        scores = scores + bias
    return jax.nn.softmax(scores, -1) @ v


def causal(tokens: int) -> Array:
    """What to add to scores so that no token sees a later one."""
    return jnp.where(jnp.tril(jnp.ones((tokens, tokens), bool)), 0.0, MASKED)


def attention_weights(w: Weights, width: int, *stack: int) -> Any:
    """Parameters of `attention`."""
    return {name: w.dense(width, width, *stack) for name in ("q", "k", "v", "o")}


def attention(
    p: Any, x: Array, heads: int, bias: Array | None = None, memory: Array | None = None
) -> Array:
    """Multi-head attention of x to itself, or to `memory`."""
    source = x if memory is None else memory
    q = split_heads(dense(p["q"], x), heads)
    k, v = (split_heads(dense(p[name], source), heads) for name in ("k", "v"))
    return dense(p["o"], merge_heads(attend(q, k, v, bias)))


def block_weights(w: Weights, width: int, *stack: int) -> Any:
    """Parameters of `block` and `post_block`."""
    return {
        "first": w.norm(width, *stack),
        "attention": attention_weights(w, width, *stack),
        "second": w.norm(width, *stack),
        "mlp": mlp_weights(w, width, 4 * width, *stack),
    }


def block(p: Any, x: Array, heads: int, bias: Array | None = None) -> Array:
    """A transformer block that normalises before each part."""
    x = x + attention(p["attention"], layer_norm(p["first"], x), heads, bias)
    return x + mlp(p["mlp"], layer_norm(p["second"], x))


def post_block(p: Any, x: Array, heads: int, bias: Array | None = None) -> Array:
    """A transformer block that normalises after each part."""
    x = layer_norm(p["first"], x + attention(p["attention"], x, heads, bias))
    return layer_norm(p["second"], x + mlp(p["mlp"], x))


def rotary(x: Array) -> Array:
    """Rotary positions over (..., tokens, head), halves as pairs."""
    half = x.shape[-1] // 2
    frequencies = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = jnp.arange(x.shape[-2], dtype=jnp.float32)[:, None] * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


def conv(
    x: Array,
    kernel: Array,
    *,
    stride: int = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    groups: int = 1,
    dilation: int = 1,
) -> Array:
    """Convolution of (n, positions..., channels) by (taps..., in, out)."""
    spatial = "HW"[: x.ndim - 2]
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride,) * len(spatial),
        padding,
        rhs_dilation=(dilation,) * len(spatial),
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        feature_group_count=groups,
    )


def pool(x: Array, size: int = 2) -> Array:
    """Largest of squares of (n, h, w, c)."""
    window = (1, size, size, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def timesteps(t: Array, width: int, largest: float = 10_000.0) -> Array:
    """Sinusoidal embeddings of diffusion times: (n,) -> (n, width)."""
    half = width // 2
    frequencies = jnp.exp(-math.log(largest) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = t[:, None].astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
