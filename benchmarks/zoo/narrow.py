"""Models in narrow types: integers, float16, bfloat16, and mixtures of them with float32."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks.zoo import layers as nn
from benchmarks.zoo.subject import Inputs, Subject, Weights, integers, normals

WORDS, TOKENS, WIDTH, HEADS = 256, 32, 64, 4


def _levels(w: Weights, inputs: int, outputs: int) -> dict[str, Array]:
    """A kernel in int8 with one scale a column, and a bias."""
    kernel = np.asarray(w.matrix(inputs, outputs))
    scale = np.abs(kernel).max(0) / 127
    return {
        "levels": jnp.asarray(np.rint(kernel / scale), jnp.int8),
        "scale": jnp.asarray(scale, jnp.float32),
        "b": w.vector(outputs),
    }


def _dynamic(p: Any, x: Array) -> Array:
    """A linear layer whose inputs are rounded to int8 by the largest of their row."""
    scale = jnp.maximum(jnp.max(jnp.abs(x), -1, keepdims=True), 1e-6) / 127
    levels = jnp.clip(jnp.round(x / scale), -127, 127).astype(jnp.int8)
    whole = jnp.matmul(levels, p["levels"], preferred_element_type=jnp.int32)
    return whole.astype(jnp.float32) * scale * p["scale"] + p["b"]


def w8a8() -> Subject:
    """A transformer whose linear layers are int8 by int8, with dynamic scales."""
    w = Weights(81)

    def layer() -> dict[str, Any]:
        return {
            "first": w.norm(WIDTH),
            **{name: _levels(w, WIDTH, WIDTH) for name in ("q", "k", "v", "o")},
            "second": w.norm(WIDTH),
            "up": _levels(w, WIDTH, 256),
            "down": _levels(w, 256, WIDTH),
        }

    params = {"words": w.normal(WORDS, WIDTH), "layers": [layer(), layer()], "norm": w.norm(WIDTH)}

    def fn(p: Any, ids: Array) -> Array:
        x = p["words"][ids]
        for one in p["layers"]:
            h = nn.layer_norm(one["first"], x)
            q, k, v = (nn.split_heads(_dynamic(one[name], h), HEADS) for name in ("q", "k", "v"))
            x = x + _dynamic(one["o"], nn.merge_heads(nn.attend(q, k, v, nn.causal(TOKENS))))
            h = nn.layer_norm(one["second"], x)
            x = x + _dynamic(one["down"], jax.nn.gelu(_dynamic(one["up"], h)))
        return nn.layer_norm(p["norm"], x)

    return Subject(fn=fn, params=params, draw=integers(WORDS, TOKENS))


def int8_static() -> Subject:
    """An integer network: int32 accumulators, shifts back to int8, floats only at the end."""
    w = Weights(82)
    params = {
        "layers": [_levels(w, WIDTH, WIDTH)["levels"] for _ in range(3)],
        "head": _levels(w, WIDTH, 64),
    }

    def fn(p: Any, x: Array) -> Array:
        for levels in p["layers"]:
            whole = jnp.matmul(x, levels, preferred_element_type=jnp.int32)
            x = jnp.clip(whole >> 8, 0, 127).astype(jnp.int8)
        head = p["head"]
        whole = jnp.matmul(x, head["levels"], preferred_element_type=jnp.int32)
        return jax.nn.softmax(whole.astype(jnp.float32) * head["scale"] / 127 + head["b"])

    def draw(rng: np.random.Generator) -> Inputs:
        return (jnp.asarray(rng.integers(-127, 128, (TOKENS, WIDTH)), jnp.int8),)

    return Subject(fn=fn, params=params, draw=draw)


def int8_convolutions() -> Subject:
    """Convolutions of uint8 images by int8 kernels, rounded back to int8 in between."""
    w = Weights(83)
    params = {
        "layers": [_levels(w, 9 * i, 32) for i in (8, 32)],
        "stem": w.dense(3, 8),
        "head": w.dense(32, 64),
    }

    def fn(p: Any, x: Array) -> Array:
        x = jax.nn.relu(nn.dense(p["stem"], x.astype(jnp.float32) / 255))
        for layer in p["layers"]:
            scale = jnp.max(jnp.abs(x)) / 127
            whole = lax.conv_general_dilated(
                jnp.clip(jnp.round(x / scale), -127, 127).astype(jnp.int8),
                layer["levels"].reshape(3, 3, -1, 32),
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                preferred_element_type=jnp.int32,
            )
            x = jax.nn.relu(whole.astype(jnp.float32) * scale * layer["scale"] + layer["b"])
        return nn.dense(p["head"], x.mean((1, 2)))

    def draw(rng: np.random.Generator) -> Inputs:
        return (jnp.asarray(rng.integers(0, 256, (2, 12, 12, 3)), jnp.uint8),)

    return Subject(fn=fn, params=params, draw=draw)


def w4a16() -> Subject:
    """Kernels in int4 with one scale for 16 inputs, made floats in the graph."""
    w, group = Weights(84), 16

    def packed(inputs: int, outputs: int) -> dict[str, Array]:
        kernel = np.asarray(w.matrix(inputs, outputs)).reshape(-1, group, outputs)
        scale = np.abs(kernel).max(1, keepdims=True) / 7
        return {
            "levels": jnp.asarray(np.rint(kernel / scale), jnp.int8),
            "scale": jnp.asarray(scale, jnp.float32),
        }

    params = {"layers": [{"up": packed(WIDTH, 256), "down": packed(256, WIDTH)} for _ in "ab"]}

    def kernel(p: Any) -> Array:
        wide = p["levels"].astype(jnp.float32) * p["scale"]
        return wide.reshape(-1, wide.shape[-1])

    def fn(p: Any, x: Array) -> Array:
        for layer in p["layers"]:
            x = x + jax.nn.silu(x @ kernel(layer["up"])) @ kernel(layer["down"])
        return x

    return Subject(fn=fn, params=params, draw=normals(TOKENS, WIDTH))


def _half(seed: int, dtype: Any, *, wide: bool) -> Subject:
    """An encoder in a type of 16 bits; with `wide`, products and norms are float32."""
    w = Weights(seed, dtype)
    params = {
        "words": w.normal(WORDS, WIDTH),
        "layers": [nn.block_weights(w, WIDTH) for _ in range(2)],
        "norm": w.norm(WIDTH),
    }

    def product(a: Array, b: Array) -> Array:
        return jnp.matmul(a, b, preferred_element_type=jnp.float32 if wide else dtype)

    def dense(p: Any, x: Array) -> Array:
        return (product(x, p["w"]) + p["b"]).astype(dtype)

    def norm(p: Any, x: Array) -> Array:
        return nn.layer_norm(p, x.astype(jnp.float32)).astype(dtype)

    def fn(p: Any, ids: Array) -> Array:
        x = p["words"][ids]
        for layer in p["layers"]:
            a, h = layer["attention"], norm(layer["first"], x)
            q, k, v = (nn.split_heads(dense(a[name], h), HEADS) for name in ("q", "k", "v"))
            scores = product(q, jnp.swapaxes(k, -1, -2)).astype(jnp.float32) / 4
            share = jax.nn.softmax(scores, -1).astype(dtype)
            x = x + dense(a["o"], nn.merge_heads(product(share, v).astype(dtype)))
            h = dense(layer["mlp"]["up"], norm(layer["second"], x))
            x = x + dense(layer["mlp"]["down"], jax.nn.gelu(h))
        return product(norm(p["norm"], x), p["words"].T).astype(jnp.float32)

    return Subject(fn=fn, params=params, draw=integers(WORDS, TOKENS))


def float16() -> Subject:
    """An encoder in float16, products too."""
    return _half(85, jnp.float16, wide=False)


def bfloat16() -> Subject:
    """An encoder in bfloat16, products too."""
    return _half(86, jnp.bfloat16, wide=False)


def mixed_float16() -> Subject:
    """An encoder in float16 whose products are float32."""
    return _half(87, jnp.float16, wide=True)


def mixed_bfloat16() -> Subject:
    """An encoder in bfloat16 whose products are float32."""
    return _half(88, jnp.bfloat16, wide=True)


def _convolutions(seed: int, dtype: Any) -> Subject:
    w = Weights(seed)
    params = {
        "layers": [w.kernel(3, 3, i, o) for i, o in ((3, 32), (32, 32), (32, 64))],
        "norms": [{**w.norm(n), **w.moments(n)} for n in (32, 32, 64)],
        "head": w.dense(64, 64),
    }

    def fn(p: Any, x: Array) -> Array:
        for i, (kernel, norm) in enumerate(zip(p["layers"], p["norms"], strict=True)):
            y = nn.conv(x.astype(dtype), kernel.astype(dtype), stride=1 + i % 2)
            x = jax.nn.relu(nn.batch_norm(norm, y.astype(jnp.float32)))
        return nn.dense(p["head"], x.mean((1, 2)))

    return Subject(fn=fn, params=params, draw=normals(2, 12, 12, 3))


def convolutions_float16() -> Subject:
    """Convolutions in float16 between norms in float32, kernels narrowed in the graph."""
    return _convolutions(89, jnp.float16)


def convolutions_bfloat16() -> Subject:
    """Convolutions in bfloat16 between norms in float32, kernels narrowed in the graph."""
    return _convolutions(90, jnp.bfloat16)


def chosen_bfloat16() -> Subject:
    """Tokens from a layer in float32, whose states are rounded to bfloat16 before the logits."""
    w = Weights(91)
    params = {
        "layers": [w.dense(WIDTH, WIDTH)],
        "norm": w.norm(WIDTH),
        "head": w.matrix(WIDTH, WORDS),
    }

    def fn(p: Any, x: Array) -> Array:
        for one in p["layers"]:
            x = x + jax.nn.gelu(nn.dense(one, x))
        h = nn.layer_norm(p["norm"], x).astype(jnp.bfloat16)
        head = p["head"].astype(jnp.bfloat16)
        return jnp.argmax(jnp.matmul(h, head, preferred_element_type=jnp.float32), -1)

    return Subject(fn=fn, params=params, draw=normals(TOKENS, WIDTH))


MODELS = (
    w8a8,
    int8_static,
    int8_convolutions,
    w4a16,
    float16,
    bfloat16,
    mixed_float16,
    mixed_bfloat16,
    convolutions_float16,
    convolutions_bfloat16,
    chosen_bfloat16,
)
