"""Language models: weights, the functions over them, and conversations as token ids."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jax import Array

from protocols.demo.models import networks
from protocols.demo.models.model import require_unicode
from protocols.demo.models.precision import Params, converter, titled


class Vocabulary(Protocol):
    """A tokenizer."""

    @property
    def digest(self) -> bytes:
        """32 bytes over what decides the token ids."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, which may contain special tokens."""
        ...

    def ordinary(self, text: str) -> list[int]:
        """Token ids of a text, none of them special."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special ones included."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """A causal language model: weights, the functions over them, and its tokenizer.

    Attributes:
      name: for reports.
      params: nested dict of arrays, float32 as trained; those of the layers are stacked along the
        first axis.
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
      file: that was published, from which the weights came; None for random ones.
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
    file: Path | None

    def in_precision(self, name: str) -> LanguageModel:
        """The same trained model at another precision (`precision`).

        Raises:
          ValueError: the precision is unknown.
        """
        return replace(self, name=titled(self.name, name), params=converter(name)(self.params))


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


def llama(
    *,
    name: str,
    params: Params,
    heads: int,
    base: float,
    file: Path | None,
    words: Vocabulary,
    chat: ChatTemplate,
) -> LanguageModel:
    """A language model of the llama architecture, from its parameters.

    Args:
      name: for reports.
      params: as of `networks.llama`; the shapes of layers, groups and vocabulary are theirs.
      heads: of the queries.
      base: of the rotary frequencies.
      file: that the parameters came from, if any.
      words: the tokenizer.
      chat: conversations as token ids.
    """
    attention = params["layers"]["attention"]
    layers, _, inner = attention["query"].shape
    head = inner // heads
    groups = attention["key"].shape[-1] // head
    sizes: dict[str, Any] = {"heads": heads, "base": base}
    both = sizes | {"groups": groups}
    return LanguageModel(
        name=name,
        params=params,
        logits=functools.partial(networks.llama, **both),
        logits_at=functools.partial(networks.llama_logits, **both),
        decoder={
            "step": functools.partial(networks.llama_step, **sizes),
            "cache": functools.partial(
                networks.llama_cache, layers=layers, groups=groups, head=head
            ),
            "prefill": functools.partial(networks.llama_prefill, **both),
        },
        tokenize=lambda text: np.asarray(words.encode(text), np.int32),
        text=words.decode,
        chat=chat,
        layers=layers,
        vocabulary=len(params["embedding"]),
        stop=frozenset({chat.end}),
        tokenizer=words.digest,
        file=file,
    )
