"""Forward passes of the models in plain `jax.numpy`, without any code for verification.

Every contraction runs under `jax.named_scope`, so that the claims of a compiled program have the
names of its parameters: `layer3/attention/query`.

Masked attention scores become a large negative number, not an infinity: the softmax of a row
without any key to attend to is then uniform, and all values of padded rows are finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from protocols.demo.models.precision import Params, dense, product, weighted

MASKED = -1e9


def encode(
    params: Params, token_ids: Array, attention_mask: Array, *, heads: int, layers: int
) -> Array:
    """BERT (Devlin et al. 2018), then the mean over tokens, scaled to norm 1."""
    mask = jnp.asarray(attention_mask) != 0
    x = _embedded(params["embeddings"], token_ids, mask.shape[1])
    for i in range(layers):
        with jax.named_scope(f"layer{i}"):
            x = _encoder_layer(x, params[f"layer{i}"], mask, heads)
    return _mean(x, mask)


def encode_scanned(params: Params, token_ids: Array, attention_mask: Array, *, heads: int) -> Array:
    """`encode`, as a scan over layers whose parameters are stacked by `stacked`."""
    mask = jnp.asarray(attention_mask) != 0
    x = _embedded(params["embeddings"], token_ids, mask.shape[1])
    with jax.named_scope("layers"):
        x = jax.lax.scan(
            lambda x, layer: (_encoder_layer(x, layer, mask, heads), None), x, params["layers"]
        )[0]
    return _mean(x, mask)


def stacked(params: Params, layers: int) -> Params:
    """Parameters `layer0`, `layer1`, ... as one tree of stacked arrays, `layers`."""
    own = [params[f"layer{i}"] for i in range(layers)]
    rest = {name: of for name, of in params.items() if not name.startswith("layer")}
    return rest | {"layers": jax.tree.map(lambda *several: jnp.stack(several), *own)}


def _embedded(table: Params, token_ids: Array, tokens: int) -> Array:
    words = table["words"].at[token_ids].get(mode="clip")
    positions = table["positions"][:tokens]
    with jax.named_scope("embeddings"):
        x = _layer_norm(table["norm"], words + positions + table["segment"], 1e-12)
        return x.astype(words.dtype)


def _encoder_layer(x: Array, layer: Params, mask: Array, heads: int) -> Array:
    block = layer["attention"]
    with jax.named_scope("attention"):
        q, k, v = (_split(_dense(block, n, x), heads) for n in ("query", "key", "value"))
        branch = _dense(block, "output", _merge(_attend(q, k, v, mask[:, None, None, :])))
    x = _layer_norm(block["norm"], x + branch, 1e-12)
    block = layer["mlp"]
    with jax.named_scope("mlp"):
        hidden = jax.nn.gelu(_dense(block, "up", x), approximate=False)
        branch = _dense(block, "down", hidden)
    return _layer_norm(block["norm"], x + branch, 1e-12)


def _mean(x: Array, mask: Array) -> Array:
    """The mean over tokens, scaled to norm 1."""
    weight = mask[:, :, None].astype(jnp.float32)
    mean = jnp.sum(x * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1.0)
    return mean / jnp.maximum(jnp.sqrt(jnp.sum(mean * mean, axis=-1, keepdims=True)), 1e-12)


def decode(params: Params, hidden: Array, *, heads: int, layers: int) -> Array:
    """GPT-2's blocks (Radford et al. 2019) over hidden states `(tokens, width)`."""
    x = jnp.asarray(hidden)
    causal = jnp.tril(jnp.ones((x.shape[0], x.shape[0]), dtype=bool))
    for i in range(layers):
        with jax.named_scope(f"layer{i}"):
            x = _decoder_layer(x, params[f"layer{i}"], causal, heads)
    return _layer_norm(params["norm"], x, 1e-5)


def decode_scanned(params: Params, hidden: Array, *, heads: int) -> Array:
    """`decode`, as a scan over layers whose parameters are stacked by `stacked`."""
    x = jnp.asarray(hidden)
    causal = jnp.tril(jnp.ones((x.shape[0], x.shape[0]), dtype=bool))
    with jax.named_scope("layers"):
        x = jax.lax.scan(
            lambda x, layer: (_decoder_layer(x, layer, causal, heads), None), x, params["layers"]
        )[0]
    return _layer_norm(params["norm"], x, 1e-5)


def _decoder_layer(x: Array, layer: Params, causal: Array, heads: int) -> Array:
    block = layer["attention"]
    with jax.named_scope("attention"):
        qkv = _dense(block, "qkv", _layer_norm(block["norm"], x, 1e-5))
        q, k, v = (_split(part, heads) for part in jnp.split(qkv, 3, axis=-1))
        x = x + _dense(block, "output", _merge(_attend(q, k, v, causal)))
    block = layer["mlp"]
    with jax.named_scope("mlp"):
        up = _dense(block, "up", _layer_norm(block["norm"], x, 1e-5))
        return x + _dense(block, "down", jax.nn.gelu(up, approximate=True))


def llama(params: Params, token_ids: Array, *, heads: int, groups: int, base: float) -> Array:
    """Llama's decoder (Touvron et al. 2023) with grouped queries, and the last token's logits."""
    x = llama_layers(params, token_ids, heads=heads, groups=groups, base=base)
    with jax.named_scope("logits"):
        return product(_rms_norm(params["norm"], x[-1:]), params["embedding"].T)


def llama_states(
    params: Params, token_ids: Array, *, heads: int, groups: int, base: float
) -> Array:
    """What `llama` multiplies by the embedding, for every token: (tokens, width)."""
    x = llama_layers(params, token_ids, heads=heads, groups=groups, base=base)
    return _rms_norm(params["norm"], x)


def llama_logits(
    params: Params, token_ids: Array, positions: Array, *, heads: int, groups: int, base: float
) -> Array:
    """Logits of some positions, a row for each: (positions, vocabulary)."""
    x = llama_layers(params, token_ids, heads=heads, groups=groups, base=base)
    with jax.named_scope("logits"):
        return product(_rms_norm(params["norm"], x[positions]), params["embedding"].T)


def llama_layers(
    params: Params, token_ids: Array, *, heads: int, groups: int, base: float
) -> Array:
    """The residual stream after the last layer: (tokens, width)."""
    x = _words(params, token_ids)
    attend = _causal(x.shape[0], heads // groups)

    def layer(x: Array, p: Params) -> tuple[Array, None]:
        return _llama_layer(x, p, heads, groups, base, attend)[0], None

    with jax.named_scope("layers"):
        return jax.lax.scan(layer, x, params["layers"])[0]


Cache: TypeAlias = "tuple[Array, Array]"
"""Keys and values, each (layers, groups, tokens, head)."""


def llama_cache(tokens: int, *, layers: int, groups: int, head: int) -> Cache:
    """An empty cache for so many tokens."""
    empty = jnp.zeros((layers, groups, tokens, head), jnp.float32)
    return empty, empty


def llama_prefill(
    params: Params, cache: Cache, token_ids: Array, *, heads: int, groups: int, base: float
) -> Cache:
    """The cache with keys and values of the first tokens, in one pass over them."""
    x = _words(params, token_ids)
    attend = _causal(x.shape[0], heads // groups)

    def layer(x: Array, p: Params) -> tuple[Array, Cache]:
        return _llama_layer(x, p, heads, groups, base, attend)

    _, (keys, values) = jax.lax.scan(layer, x, params["layers"])
    start = (0,) * keys.ndim
    put = jax.lax.dynamic_update_slice
    return put(cache[0], keys, start), put(cache[1], values, start)


def llama_step(
    params: Params, cache: Cache, token: Array, position: Array, *, heads: int, base: float
) -> tuple[Array, Cache]:
    """One token more: its logits (vocabulary,), and the cache with its keys and values."""
    layers, groups, tokens, _ = cache[0].shape
    x = _words(params, token)[None]
    visible = jnp.arange(tokens) <= position

    def layer(carried: tuple[Array, Cache], at: tuple[Array, Params]) -> Any:
        (x, cache), (number, p) = carried, at

        def attend(q: Array, k: Array, v: Array) -> Array:
            nonlocal cache
            put = jax.lax.dynamic_update_slice
            place = (number, 0, position, 0)
            cache = put(cache[0], k[None], place), put(cache[1], v[None], place)
            # The heads of a group are rows of queries to its keys.
            rows = q.reshape(groups, heads // groups, q.shape[-1])
            found = _attend(rows, cache[0][number], cache[1][number], visible)
            return found.reshape(q.shape)

        x, _ = _llama_layer(x, p, heads, groups, base, attend, position)
        return (x, cache), None

    (x, cache), _ = jax.lax.scan(layer, (x, cache), (jnp.arange(layers), params["layers"]))
    return product(_rms_norm(params["norm"], x), params["embedding"].T)[0], cache


Attention: TypeAlias = "Callable[[Array, Array, Array], Array]"


def _causal(tokens: int, share: int) -> Attention:
    """Attention of each token to those before it; `share` consecutive heads share a key."""
    causal = jnp.tril(jnp.ones((tokens, tokens), dtype=bool))

    def attend(q: Array, k: Array, v: Array) -> Array:
        k, v = (jnp.repeat(a, share, axis=0) for a in (k, v))
        return _attend(q, k, v, causal)

    return attend


def _llama_layer(
    x: Array,
    p: Params,
    heads: int,
    groups: int,
    base: float,
    attend: Attention,
    start: Array | None = None,
) -> tuple[Array, tuple[Array, Array]]:
    """A layer over tokens from `start` on, and their keys and values: (groups, tokens, head)."""
    with jax.named_scope("attention"):
        block = p["attention"]
        normed = _rms_norm(block["norm"], x)
        q = rotate(_split(weighted(block["query"], normed), heads), base, start)
        k = rotate(_split(weighted(block["key"], normed), groups), base, start)
        v = _split(weighted(block["value"], normed), groups)
        x = x + weighted(block["output"], _merge(attend(q, k, v)))
    with jax.named_scope("mlp"):
        block = p["mlp"]
        normed = _rms_norm(block["norm"], x)
        hidden = jax.nn.silu(weighted(block["gate"], normed)) * weighted(block["up"], normed)
        return x + weighted(block["down"], hidden), (k, v)


def _words(params: Params, token_ids: Array) -> Array:
    return params["embedding"].at[token_ids].get(mode="clip").astype(jnp.float32)


def _rms_norm(scale: Array, x: Array) -> Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5) * scale


def rotate(x: Array, base: float, start: Array | None = None) -> Array:
    """Rotary positions (Su et al. 2021) over `(heads, tokens, head)`, neighbours as pairs.

    Args:
      x: queries or keys.
      base: of the frequencies.
      start: the position of the first token; zero if not given.
    """
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    places = jnp.arange(x.shape[-2], dtype=jnp.float32)
    if start is not None:
        places = places + start
    angles = places[:, None] * frequencies
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
