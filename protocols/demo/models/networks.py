"""Forward passes of the models in plain `jax.numpy`, without any code for verification.

Every contraction runs under `jax.named_scope`, so that the claims of a compiled program have the
names of its parameters: `layer3/attention/query`.

Masked attention scores become a large negative number, not an infinity: the softmax of a row
without any key to attend to is then uniform, and all values of padded rows are finite.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from protocols.demo.models.precision import Params, dense, product

MASKED = -1e9


def encode(
    params: Params, token_ids: Array, attention_mask: Array, *, heads: int, layers: int
) -> Array:
    """BERT (Devlin et al. 2018), then the mean over tokens, scaled to norm 1."""
    mask = jnp.asarray(attention_mask) != 0
    table = params["embeddings"]
    words = table["words"].at[token_ids].get(mode="clip")
    positions = table["positions"][: mask.shape[1]]
    with jax.named_scope("embeddings"):
        x = _layer_norm(table["norm"], words + positions + table["segment"], 1e-12)
        x = x.astype(words.dtype)
    for i in range(layers):
        layer = params[f"layer{i}"]
        with jax.named_scope(f"layer{i}"):
            block = layer["attention"]
            with jax.named_scope("attention"):
                q, k, v = (_split(_dense(block, n, x), heads) for n in ("query", "key", "value"))
                branch = _dense(block, "output", _merge(_attend(q, k, v, mask[:, None, None, :])))
            x = _layer_norm(block["norm"], x + branch, 1e-12)
            block = layer["mlp"]
            with jax.named_scope("mlp"):
                hidden = jax.nn.gelu(_dense(block, "up", x), approximate=False)
                branch = _dense(block, "down", hidden)
            x = _layer_norm(block["norm"], x + branch, 1e-12)
    weight = mask[:, :, None].astype(jnp.float32)
    mean = jnp.sum(x * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1.0)
    return mean / jnp.maximum(jnp.sqrt(jnp.sum(mean * mean, axis=-1, keepdims=True)), 1e-12)


def decode(params: Params, hidden: Array, *, heads: int, layers: int) -> Array:
    """GPT-2's blocks (Radford et al. 2019) over hidden states `(tokens, width)`."""
    x = jnp.asarray(hidden)
    causal = jnp.tril(jnp.ones((x.shape[0], x.shape[0]), dtype=bool))
    for i in range(layers):
        layer = params[f"layer{i}"]
        with jax.named_scope(f"layer{i}"):
            block = layer["attention"]
            with jax.named_scope("attention"):
                qkv = _dense(block, "qkv", _layer_norm(block["norm"], x, 1e-5))
                q, k, v = (_split(part, heads) for part in jnp.split(qkv, 3, axis=-1))
                x = x + _dense(block, "output", _merge(_attend(q, k, v, causal)))
            block = layer["mlp"]
            with jax.named_scope("mlp"):
                up = _dense(block, "up", _layer_norm(block["norm"], x, 1e-5))
                x = x + _dense(block, "down", jax.nn.gelu(up, approximate=True))
    return _layer_norm(params["norm"], x, 1e-5)


def llama(params: Params, token_ids: Array, *, heads: int, groups: int, base: float) -> Array:
    """Llama's decoder (Touvron et al. 2023) with grouped queries, and the last token's logits."""
    x = llama_layers(params, token_ids, heads=heads, groups=groups, base=base)
    with jax.named_scope("logits"):
        return _rms_norm(params["norm"], x[-1:]) @ params["embedding"].T


def llama_states(
    params: Params, token_ids: Array, *, heads: int, groups: int, base: float
) -> Array:
    """What `llama` multiplies by the embedding, for every token: (tokens, width)."""
    x = llama_layers(params, token_ids, heads=heads, groups=groups, base=base)
    return _rms_norm(params["norm"], x)


def llama_layers(
    params: Params, token_ids: Array, *, heads: int, groups: int, base: float
) -> Array:
    """The residual stream after the last layer: (tokens, width)."""
    x = params["embedding"].at[token_ids].get(mode="clip")
    tokens = x.shape[0]
    causal = jnp.tril(jnp.ones((tokens, tokens), dtype=bool))

    def layer(x: Array, p: Params) -> tuple[Array, None]:
        with jax.named_scope("attention"):
            block = p["attention"]
            normed = _rms_norm(block["norm"], x)
            q = rotate(_split(normed @ block["query"], heads), base)
            k = rotate(_split(normed @ block["key"], groups), base)
            v = _split(normed @ block["value"], groups)
            # Every key and value serves a group of consecutive heads.
            k, v = (jnp.repeat(a, heads // groups, axis=0) for a in (k, v))
            x = x + _merge(_attend(q, k, v, causal)) @ block["output"]
        with jax.named_scope("mlp"):
            block = p["mlp"]
            normed = _rms_norm(block["norm"], x)
            hidden = jax.nn.silu(normed @ block["gate"]) * (normed @ block["up"])
            return x + hidden @ block["down"], None

    with jax.named_scope("layers"):
        return jax.lax.scan(layer, x, params["layers"])[0]


def _rms_norm(scale: Array, x: Array) -> Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5) * scale


def rotate(x: Array, base: float) -> Array:
    """Rotary positions (Su et al. 2021) over `(heads, tokens, head)`, neighbours as pairs."""
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = jnp.arange(x.shape[-2], dtype=jnp.float32)[:, None] * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def _attend(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """Scaled dot-product attention over `(..., heads, tokens, head)`, where `mask` is true."""
    with jax.named_scope("scores"):
        scores = product(q, jnp.swapaxes(k, -1, -2))
    weights = jax.nn.softmax(jnp.where(mask, scores * q.shape[-1] ** -0.5, MASKED), axis=-1)
    with jax.named_scope("values"):
        return product(weights.astype(q.dtype), v).astype(q.dtype)


def _dense(block: Params, name: str, x: Array) -> Array:
    with jax.named_scope(name):
        return dense(block[name], x)


def _layer_norm(params: Params, x: Array, epsilon: float) -> Array:
    with jax.named_scope("norm"):
        wide = x.astype(jnp.float32)
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + epsilon) * params["scale"] + params["bias"]
        return normed.astype(x.dtype)


def _split(x: Array, heads: int) -> Array:
    """Turn `(..., tokens, width)` into `(..., heads, tokens, width / heads)`."""
    return jnp.swapaxes(x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads), -2, -3)


def _merge(x: Array) -> Array:
    """Undo `_split`."""
    x = jnp.swapaxes(x, -2, -3)
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
