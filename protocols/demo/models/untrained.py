"""Random models of any size: an encoder like MiniLM, and decoder blocks like GPT-2's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from protocols.demo.models import networks
from protocols.demo.models.language import ChatTemplate, LanguageModel, llama
from protocols.demo.models.model import Encoder, tokenize
from protocols.demo.models.precision import Params
from verifiable.encoding import tagged_hash

_ATTENTION = ("query", "key", "value", "output")


def small_transformer(seed: int = 0, *, width: int = 256, layers: int = 4) -> Encoder:
    """Return a random encoder with the architecture of `minilm` and heads of 32.

    Its tokens are UTF-8 bytes (ByT5's vocabulary: byte `b` is token `b + 3`, 1 ends a text, 0
    pads), so it needs no vocabulary file.

    Args:
      seed: of the weights.
      width: a positive multiple of 32.
      layers: at least 1.

    Raises:
      ValueError: an impossible width or number of layers.
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
    return Encoder(
        name=f"random transformer (width {width}, {layers} layers)",
        trained=params,
        params=params,
        encode=functools.partial(networks.encode, heads=width // 32, layers=layers),
        tokenize=functools.partial(tokenize, vocabulary=_utf8_ids, limit=limit),
        heads=width // 32,
        layers=layers,
        max_tokens=limit,
        loader="small_transformer",
    )


class ByteWords:
    """UTF-8 bytes as tokens; 256 and 257 begin and end a turn."""

    START, END, SIZE = 256, 257, 258

    @property
    def digest(self) -> bytes:
        """A constant: nothing is read from a file."""
        return tagged_hash("tokenizer", b"bytes")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; no text has special tokens."""
        return list(text.encode())

    ordinary = encode

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; what is no text is replaced, special tokens are left out.

        A random model picks any byte: what would move a cursor, such as a line feed, is escaped.
        """
        text = bytes(i for i in ids if i < self.START).decode(errors="replace")
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def small_llama(seed: int = 0, *, width: int = 64, layers: int = 2) -> LanguageModel:
    """Return a random language model with the architecture of `smollm2` and heads of 16.

    Args:
      seed: of the weights.
      width: a multiple of 32.
      layers: at least 1.
    """
    rng, inner = _rng(seed), 2 * width
    sizes = {
        "attention": {"query": (width, width), "key": (width, width // 2)}
        | {"value": (width, width // 2), "output": (width, width)},
        "mlp": {"gate": (width, inner), "up": (width, inner), "down": (inner, width)},
    }
    words = ByteWords()
    params: Params = {
        "embedding": _normal(rng, (words.SIZE, width), 1.0),
        "norm": jnp.ones(width),
        "layers": {
            block: {name: _normal(rng, (layers, *x), x[0] ** -0.5) for name, x in of.items()}
            | {"norm": jnp.ones((layers, width))}
            for block, of in sizes.items()
        },
    }
    return llama(
        name=f"random llama (width {width}, {layers} layers)",
        params=params,
        heads=width // 16,
        base=1e4,
        file=None,
        words=words,
        chat=ChatTemplate(
            source="{system}{user}{assistant}",
            system="",
            start=words.START,
            end=words.END,
            ordinary=words.ordinary,
        ),
    )


def gpt(
    *, width: int, layers: int, seed: int = 0, head: int = 64
) -> tuple[Params, Callable[[Params, Any], Array]]:
    """Return `(params, forward)` of a stack of GPT-2 decoder blocks with random weights.

    `forward(params, hidden)` maps hidden states, float32 of shape `(tokens, width)`, to the final
    hidden states of the same shape. There is no embedding table and no unembedding: gathering rows
    costs almost no time, and the table would only enlarge the verifier's key. Each block has a
    layer norm before causal self-attention in heads of `head`, a layer norm before an MLP of
    4 x width with tanh-approximated GELU, and a residual around both; a layer norm follows the last
    block. Linear weights are normal with variance 1/in, divided by 2 x layers in the projections
    onto the residual stream (Radford et al. 2019, section 2.3). `params` has 12 width^2 + 13 width
    float32 numbers per layer.

    Raises:
      ValueError: the width is not a positive multiple of the head size, or there are no layers.
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
