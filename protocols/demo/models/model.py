"""The types of models: weights, a pure function over them, and a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jax import Array

from protocols.demo.models.precision import PRECISIONS, Params

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """A causal language model: weights, the functions over them, and its tokenizer.

    Attributes:
      name: for reports.
      params: nested dict of float32 arrays; arrays of the layers are stacked along the first axis.
      logits: `logits(params, token_ids) -> logits`, from int32 of shape `(tokens,)` to float32 of
        shape `(1, vocabulary)`: the logits of the next token.
      logits_at: `logits_at(params, token_ids, positions) -> logits`, a row for each position.
      decoder: the functions that decode with a cache, by their names in `generation.decode`.
      tokenize: text, which may contain special tokens, to int32 token ids.
      text: token ids to text.
      chat: conversations as token ids.
      layers: number of layers.
      vocabulary: number of tokens: the width of the logits.
      stop: token ids that end an answer.
      tokenizer: 32-byte digest of its tokens and merges.
      file: that was published, from which the weights came.
    """

    name: str
    params: Params
    logits: Callable[[Params, Any], Array]
    logits_at: Callable[[Params, Any, Any], Array]
    decoder: Mapping[str, Callable[..., Any]]
    tokenize: Callable[[str], np.ndarray[Any, Any]]
    text: Callable[[Sequence[int]], str]
    chat: ChatTemplate
    layers: int
    vocabulary: int
    stop: frozenset[int]
    tokenizer: bytes
    file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """Conversations as token ids, in the form that the model was trained on (ChatML).

    What a user writes never becomes a special token: nobody ends a turn by writing its end.

    Attributes:
      source: the published template, in the language of Jinja. `prompt` follows it.
      system: what the model is told before the first turn.
      start: token id that begins a turn.
      end: token id that ends it.
      ordinary: text to token ids, none of them special.
    """

    source: str
    system: str
    start: int
    end: int
    ordinary: Callable[[str], Sequence[int]]

    def prompt(self, text: str, before: Sequence[int] = ()) -> tuple[int, ...]:
        """The prompt of a turn, up to where the model answers.

        Args:
          text: what the user writes.
          before: the prompt of the turn before and the answer to it; empty for the first turn,
            which the system's begins. An answer that reached its limit is ended.

        Raises:
          ValueError: the text is not valid Unicode.
        """
        require_unicode("the text", text)
        if before:
            ended = [] if before[-1] == self.end else [self.end]
            begun = [*before, *ended, *self.ordinary("\n")]
        else:
            begun = self._turn("system", self.system)
        opening = (self.start, *self.ordinary("assistant\n"))
        return (*begun, *self._turn("user", text), *opening)

    def _turn(self, role: str, text: str) -> list[int]:
        inner = self.ordinary(f"{role}\n{text}")
        return [self.start, *inner, self.end, *self.ordinary("\n")]


def in_precision(model: Encoder, name: str) -> Encoder:
    """Return the same trained model at another precision.

    Raises:
      ValueError: the precision is unknown.
    """
    if name not in PRECISIONS:
        raise ValueError(f"the precision is one of {', '.join(PRECISIONS)}, got {name!r}")
    prepare = PRECISIONS[name]
    suffix = "" if name == "f32" else f" in {name}"
    return replace(
        model,
        name=model.name + suffix,
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
