"""A text as the answer of an ordinary program: which token does the model pick at each position?

    f(params, prompt, completion, lengths, sampling) -> tokens

evaluates the model once over prompt and completion (teacher forcing) and picks at every position of
the completion, given all tokens before it. A model generated the completion iff tokens equals it,
by induction from its first token. So a text is verified as one batched pass, however it was made:
token by token with a cache, speculatively, or in another runtime.

Prompt and completion are padded to the shapes of the program; what the padding holds is ignored,
and tokens behind the completion are -1. The model must be causal: what it computes at a position
must not depend on later tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from verifiable.generation.sampler import NUMBERS, Inputs, Sampler

PAD = -1
"""What the program returns behind the completion."""

Logits = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """The program of a model and a sampler; call it, or compile it. Made by `transcript`.

    Attributes:
      logits: the model, `(params, token_ids (n,), positions (m,)) -> (m, vocabulary)`.
      sampler: how tokens are picked.
      vocabulary: how many tokens there are: the width of the logits.
    """

    logits: Logits
    sampler: Sampler
    vocabulary: int

    def __call__(
        self,
        params: Any,
        prompt: Int32[Array, " prompt"],
        completion: Int32[Array, " completion"],
        lengths: Int32[Array, " two"],
        sampling: Inputs,
    ) -> Int32[Array, " completion"]:
        """The tokens that the model picks; pure. `picked` at every position of the completion."""
        places = jnp.arange(len(completion), dtype=jnp.int32)
        return self.picked(params, prompt, completion, lengths, sampling, places)

    def picked(
        self,
        params: Any,
        prompt: Int32[Array, " prompt"],
        completion: Int32[Array, " completion"],
        lengths: Int32[Array, " two"],
        sampling: Inputs,
        places: Int32[Array, " places"],
    ) -> Int32[Array, " places"]:
        """The tokens that the model picks at some positions of the completion; pure.

        Args:
          params: the model's parameters.
          prompt: token ids, padded.
          completion: token ids, padded.
          lengths: how many of both are no padding; of the prompt, one at least.
          sampling: `Sampler.inputs`, with a row for each place.
          places: the positions, counted from the first token of the completion.

        Raises:
          ValueError: the model returns logits of another shape.
        """
        before, length = lengths
        tokens = joined(prompt, completion, before, length)
        positions = jnp.minimum(before - 1 + places, len(tokens) - 1)
        logits = self.logits(params, tokens, positions)
        if logits.shape != (len(places), self.vocabulary):
            raise ValueError(
                f"the model must return logits of shape (positions, vocabulary), "
                f"{(len(places), self.vocabulary)}, got {logits.shape}; `at_positions` adapts a "
                "function that returns them for all tokens"
            )
        seen = None
        if self.sampler.repetition_penalty is not None:
            first = first_places(tokens, before + length, self.vocabulary)
            seen = first < (before + places)[:, None]
        found = self.sampler.pick(logits, sampling, places=places, seen=seen)
        return jnp.where(places < length, found, PAD)


def transcript(logits: Logits, sampler: Sampler, *, vocabulary: int) -> Transcript:
    """The program whose answer is the text that a model picks.

    Args:
      logits: `(params, token_ids (n,) int32, positions (m,) int32) -> (m, vocabulary)`, in JAX;
        causal. It should select the positions before its last product, which then is as small as
        possible. `at_positions` adapts other functions.
      sampler: how tokens are picked.
      vocabulary: width of the logits.

    Raises:
      TypeError: `logits` is not callable, or `sampler` is no Sampler.
      ValueError: there are not two tokens at least.
    """
    if not callable(logits):
        raise TypeError(f"logits must be a function, got {type(logits).__name__}")
    if type(sampler) is not Sampler:
        raise TypeError(f"sampler must be a Sampler, got {type(sampler).__name__}")
    if vocabulary < 2:
        raise ValueError(f"a vocabulary has two tokens at least, got {vocabulary}")
    return Transcript(logits=logits, sampler=sampler, vocabulary=vocabulary)


def at_positions(everywhere: Callable[[Any, Any], Any], *, batched: bool = False) -> Logits:
    """Adapt a function that returns the logits of all tokens.

    It computes more than is needed: the last product has a row for each token of the prompt too.

    Args:
      everywhere: `(params, token_ids) -> logits`, of shapes (n,) and (n, vocabulary).
      batched: whether its arrays have a leading axis for examples.

    Returns:
      `logits(params, token_ids, positions)`; tracing it raises ValueError if `everywhere` returns
      an array of another shape.
    """

    def logits(params: Any, token_ids: Any, positions: Any) -> Any:
        found = everywhere(params, token_ids[None] if batched else token_ids)
        axes = ((1,) if batched else ()) + token_ids.shape
        if jnp.ndim(found) != len(axes) + 1 or found.shape[:-1] != axes:
            raise ValueError(
                f"the function must return logits of shape {axes} and a vocabulary, got "
                f"{jnp.shape(found)}: batched says whether there is an axis for examples"
            )
        return (found[0] if batched else found)[positions]

    return logits


def require_causal(model: Transcript, params: Any, size: int, *, some: bool = False) -> None:
    """Require that logits do not depend on later tokens: otherwise a text could vouch for itself.

    Args:
      model: whose logits are evaluated twice, on sequences that differ in their second half.
      params: the model's parameters.
      size: tokens of each sequence.
      some: whether logits must not depend on how many positions are asked for either, so that
        some can be audited.

    Raises:
      ValueError: they do.
    """
    half = size // 2
    rng = np.random.default_rng(0)
    ids = rng.integers(0, model.vocabulary, size, dtype=np.int32)
    other = ids.copy()
    other[half:] = (ids[half:] + 1 + np.arange(size - half)) % model.vocabulary
    evaluate = jax.jit(model.logits)
    places = np.arange(half, dtype=np.int32)
    one, two = (np.asarray(evaluate(params, x, places), np.float64) for x in (ids, other))
    apart = np.abs(one - two).max(initial=0)
    # What is masked counts for nothing: the two are equal up to rounding, if that.
    if apart > 2.0**-6 * np.sqrt(np.mean(one**2)):
        raise ValueError(
            f"the model is not causal: logits of the first {half} tokens change by up to "
            f"{apart:.3g} with the tokens after them. Mask later tokens"
        )
    last = np.asarray(evaluate(params, ids, places[-1:]), np.float64) if some else one[-1:]
    apart = np.abs(last - one[-1:]).max(initial=0)
    if apart > 2.0**-6 * np.sqrt(np.mean(one**2)):
        raise ValueError(
            f"logits depend on how many positions are asked for, by up to {apart:.3g}: an audit of "
            "some would reject honest texts. Use the positions to select rows alone"
        )


def joined(prompt: Any, completion: Any, before: Any, length: Any) -> Any:
    """The completion right behind the prompt, then zeros; whatever both are padded with."""
    both = jnp.concatenate([prompt, completion])
    place = jnp.arange(len(both), dtype=jnp.int32)
    source = jnp.where(place < before, place, place - before + len(prompt))
    moved = both[jnp.minimum(source, len(both) - 1)]
    return jnp.where(place < before + length, moved, 0)


def first_places(tokens: Any, count: Any, vocabulary: int) -> Any:
    """The first place of each token of the vocabulary among `count` tokens; where absent, large."""
    place = jnp.arange(len(tokens), dtype=jnp.int32)
    absent = jnp.int32(jnp.iinfo(jnp.int32).max)
    place = jnp.where(place < count, place, absent)
    return jnp.full((vocabulary,), absent, jnp.int32).at[tokens].min(place)


def shapes(
    sampler: Sampler, vocabulary: int, prompt: int, completion: int, places: int | None = None
) -> tuple[Any, ...]:
    """Shapes of the inputs of a program, for prompts and completions of up to these lengths.

    Args:
      sampler: the program's.
      vocabulary: how many tokens there are.
      prompt: the most tokens of a prompt.
      completion: the most tokens of a completion.
      places: how many positions are picked at (`Transcript.picked`); all by default, which are no
        input then.
    """

    def of(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    rows = completion if places is None else places

    sampling = {name: of((), jnp.float32) for name in NUMBERS if getattr(sampler, name) is not None}
    if not sampler.greedy and sampler.source == "threefry":
        sampling["key"] = of((2,), jnp.uint32)
    elif not sampler.greedy:
        sampling["noise"] = of((rows, vocabulary), jnp.float32)
    tokens = (of((n,), jnp.int32) for n in (prompt, completion))
    where = () if places is None else (of((places,), jnp.int32),)
    return (*tokens, of((2,), jnp.int32), sampling, *where)
