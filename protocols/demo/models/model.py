"""The types of models: weights, a pure function over them, and a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from jax import Array

from protocols.demo.models.precision import PRECISIONS, Params, converter, titled

Tokens: TypeAlias = "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A sentence encoder: weights, the function over them, and its tokenizer.

    Attributes:
      name: for reports.
      trained: nested dict of float32 arrays, as trained.
      params: the parameters that run, `prepare(trained)`.
      encode: `encode(params, token_ids, attention_mask) -> embeddings`. Both inputs are int32 of
        shape `(sentences, tokens)`; the mask is 1 for a token and 0 for padding. The result is
        float32 of shape `(sentences, width)`, with rows of norm 1.
      tokenize: texts to `(token_ids, attention_mask)`, padded to the longest text, rounded up to a
        multiple of 8 tokens. Raises ValueError for an empty text or one above `max_tokens`.
      heads: attention heads per layer.
      layers: number of layers.
      max_tokens: longest text, in tokens.
      precision: one of `precision.PRECISIONS`.
      prepare: from trained parameters to the parameters that run.
      loader: name of the function of `models` that makes it, by default with these weights.
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
    loader: str = ""


def in_precision(model: Encoder, name: str) -> Encoder:
    """Return the same trained model at another precision.

    Raises:
      ValueError: the precision is unknown.
    """
    prepare = converter(name)
    return replace(
        model,
        name=titled(model.name, name),
        precision=name,
        params=prepare(model.trained),
        prepare=prepare,
    )


def tokenize(texts: Sequence[str], *, vocabulary: Callable[[str], list[int]], limit: int) -> Tokens:
    """Return token ids and attention mask, both int32 of shape `(texts, tokens)`.

    Args:
      texts: at least one; each becomes a row.
      vocabulary: from a text to its token ids.
      limit: most tokens of a text.

    Raises:
      ValueError: there is no text, or a text is empty, too long or not valid Unicode.
    """
    if not texts:
        raise ValueError("there is no text to encode")
    rows: list[list[int]] = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise ValueError(f"text {number} is empty")
        # Tokens have at most a few dozen characters: refuse early a text that cannot fit.
        if len(text) > 64 * limit:
            raise ValueError(
                f"text {number} has {len(text)} characters; at most {limit} tokens fit"
            )
        require_unicode(f"text {number}", text)
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


def require_unicode(name: str, text: str) -> None:
    """Require text without surrogates, such as a terminal makes of other bytes; else ValueError."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{name} is not valid Unicode")
