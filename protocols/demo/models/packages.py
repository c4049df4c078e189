"""Readers of trained weights and tokenizers, from the files of checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from protocols.demo.models.precision import Params
from verifiable.encoding import encode, tagged_hash


def bert_params(path: Path, layers: int) -> Params:
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
            # Every text is a single segment: only the first row of this table is used.
            "segment": get("embeddings.token_type_embeddings.weight")[0],
            "norm": norm("embeddings.LayerNorm"),
        }
    }
    for i in range(layers):
        prefix = f"encoder.layer.{i}"
        params[f"layer{i}"] = {
            "attention": {
                "query": linear(f"{prefix}.attention.self.query"),
                "key": linear(f"{prefix}.attention.self.key"),
                "value": linear(f"{prefix}.attention.self.value"),
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


_ROWS = 4096  # dequantised at once


def llama_params(reader: Any, layers: int) -> Params:
    """Dequantise a llama checkpoint, whose linear weights have shape `(out, in)`."""
    from gguf import dequantize  # noqa: PLC0415 - only this model needs it

    tensors = {t.name: t for t in reader.tensors}

    def get(name: str) -> np.ndarray[Any, Any]:
        tensor = tensors[f"{name}.weight"]
        weights = np.empty(tensor.shape[::-1], np.float32)
        # A few rows at a time: the temporaries of dequantising are several times their size.
        for i in range(0, len(weights), _ROWS):
            rows = dequantize(tensor.data[i : i + _ROWS], tensor.tensor_type)
            weights[i : i + _ROWS] = rows
        return weights

    def stack(name: str) -> Array:
        first = get(f"blk.0.{name}").T
        stacked = np.empty((layers, *first.shape), np.float32)
        for i in range(layers):
            stacked[i] = get(f"blk.{i}.{name}").T
        return jnp.asarray(stacked)

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


def wordpiece(path: Path) -> Callable[[str], list[int]]:
    """The tokenizer in a `tokenizer.json`: text to ids, without truncation and padding."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - an optional dependency

    tokenizer: Any = Tokenizer.from_file(str(path))
    # The file asks to truncate silently and to pad to 128; the caller decides both.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: tokenizer.encode(text).ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A byte-level BPE tokenizer.

    Attributes:
      tokenizer: of the package `tokenizers`.
      digest: 32 bytes over its tokens, their types, and its merges.
    """

    tokenizer: Any
    digest: bytes

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, which may contain special tokens."""
        return self.tokenizer.encode(text).ids

    def ordinary(self, text: str) -> list[int]:
        """Token ids of a text, where what reads like a special token is text like any other."""
        self.tokenizer.encode_special_tokens = True
        try:
            return self.tokenizer.encode(text).ids
        finally:
            self.tokenizer.encode_special_tokens = False

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special ones included."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)

    def special(self, token: str) -> int:
        """The id of a token."""
        return self.tokenizer.token_to_id(token)


def gguf_tokenizer(reader: Any) -> Words:
    """The byte-level BPE tokenizer in a GGUF file; every digit is a token."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415

    def table(name: str) -> list[Any]:
        return reader.fields[f"tokenizer.ggml.{name}"].contents()

    tokens, types, pairs = (table(name) for name in ("tokens", "token_type", "merges"))
    merges = [tuple(pair.split(" ")) for pair in pairs]
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer: Any = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # GGUF's type of special tokens, which ordinary text cannot produce
    special = [t for t, kind in zip(tokens, types, strict=True) if kind == control]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    parts = (encode([*tokens]), encode([int(kind) for kind in types]), encode([*pairs]))
    return Words(tokenizer=tokenizer, digest=tagged_hash("tokenizer", *parts))
