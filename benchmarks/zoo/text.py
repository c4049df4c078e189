"""Models of text: encoders, decoders, generation, and heads for search and ranking.

The architectures are those of the models that the functions are named after, with two layers.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks.zoo import layers as nn
from benchmarks.zoo.subject import Inputs, Subject, Weights, integers

WORDS, TOKENS, WIDTH, HEADS, LAYERS = 256, 32, 64, 4, 2


def _embedding(w: Weights) -> dict[str, Array]:
    return {"words": w.normal(WORDS, WIDTH), "positions": w.normal(TOKENS, WIDTH, scale=0.2)}


def _embed(p: Any, ids: Array) -> Array:
    return p["words"][ids] + p["positions"][: ids.shape[-1]]


def _blocks(w: Weights) -> list[Any]:
    return [nn.block_weights(w, WIDTH) for _ in range(LAYERS)]


def _masked(rng: np.random.Generator) -> Inputs:
    """Token ids, and a mask of texts of different lengths."""
    lengths = rng.integers(TOKENS // 3, TOKENS + 1, 2)
    mask = (np.arange(TOKENS) < lengths[:, None]).astype(np.int32)
    return jnp.asarray(rng.integers(0, WORDS, (2, TOKENS)) * mask, jnp.int32), jnp.asarray(mask)


def _encode(p: Any, ids: Array, mask: Array) -> Array:
    x = nn.layer_norm(p["norm"], _embed(p, ids), 1e-12)
    bias = jnp.where(mask[:, None, None, :] != 0, 0.0, nn.MASKED)
    for layer in p["layers"]:
        x = nn.post_block(layer, x, HEADS, bias)
    return x


def _encoder(seed: int) -> tuple[Weights, dict[str, Any]]:
    w = Weights(seed)
    return w, {**_embedding(w), "norm": w.norm(WIDTH), "layers": _blocks(w)}


def bert() -> Subject:
    """Sentence embeddings: the mean over tokens, scaled to norm 1."""

    def fn(p: Any, ids: Array, mask: Array) -> Array:
        weight = mask[..., None].astype(jnp.float32)
        mean = jnp.sum(_encode(p, ids, mask) * weight, 1) / jnp.sum(weight, 1)
        return mean / jnp.sqrt(jnp.sum(mean * mean, -1, keepdims=True))

    return Subject(fn=fn, params=_encoder(1)[1], draw=_masked)


def masked_words() -> Subject:
    """Logits of every token, as in training of BERT; the table is used twice."""
    w, params = _encoder(2)
    params |= {"transform": w.dense(WIDTH, WIDTH), "last": w.norm(WIDTH), "bias": w.vector(WORDS)}

    def fn(p: Any, ids: Array, mask: Array) -> Array:
        x = jax.nn.gelu(nn.dense(p["transform"], _encode(p, ids, mask)), approximate=False)
        return nn.layer_norm(p["last"], x) @ p["words"].T / math.sqrt(WIDTH) + p["bias"]

    return Subject(fn=fn, params=params, draw=_masked)


def token_classes() -> Subject:
    """Named entities: the best of 16 classes of every token, and its probability."""
    w, params = _encoder(3)
    params["head"] = w.dense(WIDTH, 16)

    def fn(p: Any, ids: Array, mask: Array) -> tuple[Array, Array]:
        scores = jax.nn.softmax(nn.dense(p["head"], _encode(p, ids, mask)), -1)
        return jnp.argmax(scores, -1), jnp.max(scores, -1)

    return Subject(fn=fn, params=params, draw=_masked)


def reranker() -> Subject:
    """One relevance for each pair of question and text: tanh pooling of the first token."""
    w, params = _encoder(4)
    params |= {"pooler": w.dense(WIDTH, WIDTH), "head": w.dense(WIDTH, 1)}

    def fn(p: Any, ids: Array, mask: Array) -> Array:
        first = jnp.tanh(nn.dense(p["pooler"], _encode(p, ids, mask)[:, 0]))
        return nn.dense(p["head"], first)[:, 0]

    return Subject(fn=fn, params=params, draw=_masked)


def retrieval() -> Subject:
    """The best 5 of 512 texts for each question, by the cosine of embeddings."""
    w, params = _encoder(5)
    texts = w.normal(512, WIDTH)
    params["texts"] = texts / jnp.linalg.norm(texts, axis=-1, keepdims=True)

    def fn(p: Any, ids: Array, mask: Array) -> tuple[Array, Array]:
        mean = jnp.mean(_encode(p, ids, mask), 1)
        unit = mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)
        scores, best = lax.top_k(unit @ p["texts"].T, 5)
        return scores, best

    return Subject(fn=fn, params=params, draw=_masked)


def late_interaction() -> Subject:
    """ColBERT: for each token of a question the best token of a text, summed."""
    w, params = _encoder(6)
    params["project"] = w.matrix(WIDTH, WIDTH)

    def fn(p: Any, ids: Array, mask: Array) -> Array:
        x = _encode(p, ids, mask) @ p["project"]
        question, text = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
        return jnp.sum(jnp.max(question @ text.T, -1))

    return Subject(fn=fn, params=params, draw=_masked)


def _decoder(seed: int) -> dict[str, Any]:
    w = Weights(seed)
    return {**_embedding(w), "layers": _blocks(w), "norm": w.norm(WIDTH)}


def gpt2() -> Subject:
    """A decoder with learned positions; logits of every position by the embedding table."""

    def fn(p: Any, ids: Array) -> Array:
        x = _embed(p, ids)
        for layer in p["layers"]:
            x = nn.block(layer, x, HEADS, nn.causal(TOKENS))
        return nn.layer_norm(p["norm"], x) @ p["words"].T

    return Subject(fn=fn, params=_decoder(7), draw=integers(WORDS, TOKENS))


def llama() -> Subject:
    """RMS norms, rotary positions, grouped queries, SiLU gates; layers under scan."""
    w = Weights(8)
    stack = {
        "first": w.vector(LAYERS, WIDTH, around=1.0),
        "q": w.matrix(LAYERS, WIDTH, WIDTH),
        "k": w.matrix(LAYERS, WIDTH, WIDTH // 2),
        "v": w.matrix(LAYERS, WIDTH, WIDTH // 2),
        "o": w.matrix(LAYERS, WIDTH, WIDTH),
        "second": w.vector(LAYERS, WIDTH, around=1.0),
        "gate": w.matrix(LAYERS, WIDTH, 192),
        "up": w.matrix(LAYERS, WIDTH, 192),
        "down": w.matrix(LAYERS, 192, WIDTH),
    }
    params = {"words": w.normal(WORDS, WIDTH), "layers": stack, "norm": w.norm(WIDTH)}

    def layer(x: Array, p: Any) -> tuple[Array, None]:
        h = nn.rms_norm({"scale": p["first"]}, x)
        q = nn.rotary(nn.split_heads(h @ p["q"], HEADS))
        k, v = (nn.split_heads(h @ p[name], HEADS // 2) for name in ("k", "v"))
        k, v = (jnp.repeat(a, 2, axis=-3) for a in (nn.rotary(k), v))
        x = x + nn.merge_heads(nn.attend(q, k, v, nn.causal(TOKENS))) @ p["o"]
        h = nn.rms_norm({"scale": p["second"]}, x)
        return x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"], None

    def fn(p: Any, ids: Array) -> Array:
        x, _ = lax.scan(layer, p["words"][ids], p["layers"])
        return nn.rms_norm(p["norm"], x[-1:]) @ p["words"].T

    return Subject(fn=fn, params=params, draw=integers(WORDS, TOKENS))


def gemma() -> Subject:
    """Soft caps on scores and logits, a sliding window, norms of queries and keys."""
    params = _decoder(9)
    place = np.arange(TOKENS)
    seen = (place[:, None] >= place) & (place[:, None] - place < 12)

    def layer(p: Any, x: Array) -> Array:
        a, h = p["attention"], nn.rms_norm(p["first"], x)
        q, k, v = (nn.split_heads(nn.dense(a[name], h), HEADS) for name in ("q", "k", "v"))
        one = {"scale": 1.0}
        scores = nn.rms_norm(one, q) @ jnp.swapaxes(nn.rms_norm(one, k), -1, -2)
        scores = jnp.where(seen, 50 * jnp.tanh(scores / 50), nn.MASKED)
        x = x + nn.dense(a["o"], nn.merge_heads(jax.nn.softmax(scores, -1) @ v))
        return x + nn.mlp(p["mlp"], nn.rms_norm(p["second"], x))

    def fn(p: Any, ids: Array) -> Array:
        x = p["words"][ids] * math.sqrt(WIDTH)
        for p_layer in p["layers"]:
            x = layer(p_layer, x)
        return 30 * jnp.tanh(nn.rms_norm(p["norm"], x) @ p["words"].T / 30)

    return Subject(fn=fn, params=params, draw=integers(WORDS, TOKENS))


def bloom() -> Subject:
    """Attention with linear biases in place of positions; attention and MLP in parallel."""
    slopes = 2.0 ** -(8 * np.arange(1, HEADS + 1) / HEADS)
    distance = np.arange(TOKENS)[None] - np.arange(TOKENS)[:, None]
    alibi = jnp.asarray(slopes[:, None, None] * np.minimum(distance, 0), jnp.float32)

    def fn(p: Any, ids: Array) -> Array:
        x = p["words"][ids]
        for layer in p["layers"]:
            h = nn.layer_norm(layer["first"], x)
            mixed = nn.attention(layer["attention"], h, HEADS, alibi + nn.causal(TOKENS))
            x = x + mixed + nn.mlp(layer["mlp"], h)
        return nn.layer_norm(p["norm"], x[-1:]) @ p["words"].T

    return Subject(fn=fn, params=_decoder(10), draw=integers(WORDS, TOKENS))


def t5() -> Subject:
    """Encoder and decoder with relative positions in buckets; ReLU; no biases in norms."""
    w = Weights(11)
    params = {
        **_embedding(w),
        "buckets": w.normal(8, HEADS),
        "layers": _blocks(w),
        "cross": [nn.attention_weights(w, WIDTH) for _ in range(LAYERS)],
        "decoder": _blocks(w),
        "norm": w.norm(WIDTH),
    }
    distance = np.abs(np.arange(TOKENS)[:, None] - np.arange(TOKENS))
    bucket = np.minimum(np.floor(np.log2(1 + distance)), 7).astype(np.int32)

    def fn(p: Any, ids: Array, mask: Array) -> Array:
        source, target = ids
        x, relative = p["words"][source], jnp.moveaxis(p["buckets"][bucket], -1, 0)
        bias = jnp.where(mask[0] != 0, 0.0, nn.MASKED)
        for layer in p["layers"]:
            x = x + nn.attention(
                layer["attention"], nn.rms_norm(layer["first"], x), HEADS, relative + bias
            )
            x = x + nn.mlp(layer["mlp"], nn.rms_norm(layer["second"], x), jax.nn.relu)
        y = p["words"][target]
        for layer, cross in zip(p["decoder"], p["cross"], strict=True):
            h = nn.rms_norm(layer["first"], y)
            y = y + nn.attention(layer["attention"], h, HEADS, nn.causal(TOKENS))
            y = y + nn.attention(cross, nn.rms_norm(p["norm"], y), HEADS, bias, x)
            y = y + nn.mlp(layer["mlp"], nn.rms_norm(layer["second"], y), jax.nn.relu)
        return nn.rms_norm(p["norm"], y) @ p["words"].T / math.sqrt(WIDTH)

    return Subject(fn=fn, params=params, draw=_masked)


def albert() -> Subject:
    """One layer, applied three times by `fori_loop`."""
    w = Weights(12)
    params = {**_embedding(w), "layers": nn.block_weights(w, WIDTH), "head": w.dense(WIDTH, 64)}

    def fn(p: Any, ids: Array) -> Array:
        def step(_: Any, x: Array) -> Array:
            return nn.post_block(p["layers"], x, HEADS)

        return nn.dense(p["head"], lax.fori_loop(0, 3, step, _embed(p, ids)).mean(0))

    return Subject(fn=fn, params=params, draw=integers(WORDS, TOKENS))


def linear_attention() -> Subject:
    """Causal attention by running sums of keys and values, with features elu + 1."""

    def fn(p: Any, ids: Array) -> Array:
        x = _embed(p, ids)
        for layer in p["layers"]:
            a, h = layer["attention"], nn.layer_norm(layer["first"], x)
            q, k, v = (nn.split_heads(nn.dense(a[name], h), HEADS) for name in ("q", "k", "v"))
            q, k = (jax.nn.elu(y) + 1 for y in (q, k))
            memory = jnp.cumsum(k[..., :, None] * v[..., None, :], axis=-3)
            mixed = jnp.einsum("htd,htde->hte", q, memory)
            total = jnp.sum(q * jnp.cumsum(k, axis=-2), -1, keepdims=True)
            x = x + nn.dense(a["o"], nn.merge_heads(mixed / total))
            x = x + nn.mlp(layer["mlp"], nn.layer_norm(layer["second"], x))
        return nn.layer_norm(p["norm"], x) @ p["words"].T

    return Subject(fn=fn, params=_decoder(13), draw=integers(WORDS, TOKENS))


def perceiver() -> Subject:
    """A few latent vectors read a longer text."""
    w = Weights(14)
    params = {
        **_embedding(w),
        "latents": w.normal(8, WIDTH),
        "read": nn.attention_weights(w, WIDTH),
        "layers": _blocks(w),
        "head": w.dense(WIDTH, 64),
    }

    def fn(p: Any, ids: Array) -> Array:
        x = p["latents"] + nn.attention(p["read"], p["latents"], HEADS, memory=_embed(p, ids))
        for layer in p["layers"]:
            x = nn.block(layer, x, HEADS)
        return nn.dense(p["head"], x)

    return Subject(fn=fn, params=params, draw=integers(WORDS, TOKENS))


def fnet() -> Subject:
    """Tokens mixed by the real part of a Fourier transform over tokens and features."""

    def fn(p: Any, ids: Array) -> Array:
        x = _embed(p, ids)
        for layer in p["layers"]:
            x = nn.layer_norm(layer["first"], x + jnp.fft.fft2(x).real / 16)
            x = nn.layer_norm(layer["second"], x + nn.mlp(layer["mlp"], x))
        return nn.layer_norm(p["norm"], x) @ p["words"].T

    return Subject(fn=fn, params=_decoder(15), draw=integers(WORDS, TOKENS))


def reward() -> Subject:
    """A reward model: one number a text, from the last token."""
    params = _decoder(16)
    params["head"] = Weights(17).matrix(WIDTH, 1)

    def one(p: Any, ids: Array) -> Array:
        x = _embed(p, ids)
        for layer in p["layers"]:
            x = nn.block(layer, x, HEADS, nn.causal(TOKENS))
        return nn.layer_norm(p["norm"], x[-1])

    def fn(p: Any, ids: Array) -> Array:
        return jax.vmap(functools.partial(one, p))(ids) @ p["head"]

    return Subject(fn=fn, params=params, draw=integers(WORDS, 4, TOKENS))


def generation() -> Subject:
    """Eight greedy tokens with a cache of keys and values, step by step under scan."""
    params, prompt, steps = _decoder(18), 8, 8

    def fn(p: Any, ids: Array) -> tuple[Array, Array]:
        total = prompt + steps
        empty = jnp.zeros((LAYERS, 2, HEADS, total, WIDTH // HEADS))

        def step(state: Any, place: Array) -> tuple[Any, tuple[Array, Array]]:
            token, cache = state
            token = jnp.where(place < prompt, ids[jnp.minimum(place, prompt - 1)], token)
            x = (p["words"][token] + p["positions"][place])[None]
            bias = jnp.where(jnp.arange(total) <= place, 0.0, nn.MASKED)
            for i, layer in enumerate(p["layers"]):
                a, h = layer["attention"], nn.layer_norm(layer["first"], x)
                q, k, v = (nn.split_heads(nn.dense(a[n], h), HEADS) for n in ("q", "k", "v"))
                new = jnp.stack([k, v])[None]
                cache = lax.dynamic_update_slice(cache, new, (i, 0, 0, place, 0))
                mixed = nn.attend(q, cache[i, 0], cache[i, 1], bias)
                x = x + nn.dense(a["o"], nn.merge_heads(mixed))
                x = x + nn.mlp(layer["mlp"], nn.layer_norm(layer["second"], x))
            logits = (nn.layer_norm(p["norm"], x) @ p["words"].T)[0]
            token = jnp.argmax(logits).astype(jnp.int32)
            return (token, cache), (token, jnp.max(logits))

        start = (jnp.int32(0), empty)
        _, (tokens, best) = lax.scan(step, start, jnp.arange(total, dtype=jnp.int32))
        return tokens[prompt - 1 :], best

    return Subject(fn=fn, params=params, draw=integers(WORDS, prompt))


MODELS = (
    bert,
    masked_words,
    token_classes,
    reranker,
    retrieval,
    late_interaction,
    gpt2,
    llama,
    gemma,
    bloom,
    t5,
    albert,
    linear_attention,
    perceiver,
    fnet,
    reward,
    generation,
)
