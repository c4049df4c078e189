"""A tiny causal decoder with random weights: all positions at once, and one token more."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

VOCABULARY, WIDTH, LAYERS, HEADS = 64, 24, 2, 2
RNG = np.random.default_rng(19)


def _normal(*shape: int, scale: float = 1.0) -> Any:
    return jnp.asarray(RNG.standard_normal(shape) * scale, jnp.float32)


PARAMS = {
    "table": _normal(VOCABULARY, WIDTH),
    "places": _normal(40, WIDTH, scale=0.5),
    "qkv": _normal(LAYERS, WIDTH, 3 * WIDTH, scale=0.4),
    "out": _normal(LAYERS, WIDTH, WIDTH, scale=0.4),
    "up": _normal(LAYERS, WIDTH, 2 * WIDTH, scale=0.3),
    "down": _normal(LAYERS, 2 * WIDTH, WIDTH, scale=0.3),
    "head": _normal(WIDTH, VOCABULARY, scale=0.6),
}


def norm(x: Any) -> Any:
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5)


def heads_of(x: Any) -> Any:
    return x.reshape(*x.shape[:-1], HEADS, WIDTH // HEADS)


def attended(q: Any, k: Any, v: Any, mask: Any) -> Any:
    """Of queries (n, heads, d) and keys and values (m, heads, d), under a mask (n, m)."""
    scores = jnp.einsum("nhd,mhd->hnm", q, k) / np.sqrt(WIDTH // HEADS)
    likely = jax.nn.softmax(jnp.where(mask, scores, -1e9))
    return jnp.einsum("hnm,mhd->nhd", likely, v).reshape(len(q), WIDTH)


def mlp(params: Any, layer: int, h: Any) -> Any:
    return h + jnp.tanh(norm(h) @ params["up"][layer]) @ params["down"][layer]


def hidden(params: Any, ids: Any) -> Any:
    h = params["table"][ids] + params["places"][: len(ids)]
    mask = jnp.tril(jnp.ones((len(ids), len(ids)), bool))
    for layer in range(LAYERS):
        q, k, v = (heads_of(x) for x in jnp.split(norm(h) @ params["qkv"][layer], 3, -1))
        h = h + attended(q, k, v, mask) @ params["out"][layer]
        h = mlp(params, layer, h)
    return norm(h)


def logits(params: Any, ids: Any, positions: Any) -> Any:
    return hidden(params, ids)[positions] @ params["head"]


def everywhere(params: Any, ids: Any) -> Any:
    return hidden(params, ids) @ params["head"]


def cache(tokens: int) -> Any:
    return jnp.zeros((2, LAYERS, tokens, HEADS, WIDTH // HEADS))


def step(params: Any, kept: Any, token: Any, position: Any) -> Any:
    """One token more: its logits, and the cache with its keys and values."""
    h = (params["table"][token] + params["places"][position])[None]
    mask = (jnp.arange(kept.shape[2]) <= position)[None]
    for layer in range(LAYERS):
        q, k, v = (heads_of(x) for x in jnp.split(norm(h) @ params["qkv"][layer], 3, -1))
        kept = kept.at[0, layer, position].set(k[0]).at[1, layer, position].set(v[0])
        h = h + attended(q, kept[0, layer], kept[1, layer], mask) @ params["out"][layer]
        h = mlp(params, layer, h)
    return (norm(h) @ params["head"])[0], kept


def prefill(params: Any, kept: Any, ids: Any) -> Any:
    """The cache with keys and values of the first tokens."""
    h = params["table"][ids] + params["places"][: len(ids)]
    mask = jnp.tril(jnp.ones((len(ids), len(ids)), bool))
    for layer in range(LAYERS):
        q, k, v = (heads_of(x) for x in jnp.split(norm(h) @ params["qkv"][layer], 3, -1))
        kept = kept.at[0, layer, : len(ids)].set(k).at[1, layer, : len(ids)].set(v)
        h = mlp(params, layer, h + attended(q, k, v, mask) @ params["out"][layer])
    return kept
