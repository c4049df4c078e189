"""Decoders: a device may generate a text as it likes; these are two ways.

`decode` with a `step` keeps a cache of keys and values: the step evaluates the model on one token
more, `(params, cache, token, position) -> (logits (vocabulary,), cache)`, and `prefill` puts all
tokens of a prompt into the cache in one pass. Without a step the whole pass is run again for every
token, which any model allows. A decoder is compiled once for each compiled length; its loop ends at
the stop token or at the job's limit, or after each token that a caller wants to see.

The pass over the finished text rounds differently than steps do. Where two tokens are closer than
that, it may pick another token than was generated. In float32 that is rare, and a verifier accepts
it as a near-tie; where it is not, `generate` takes the token of the pass and goes on from there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.generation.generation import Generation
from verifiable.generation.job import GenerationJob
from verifiable.generation.judging import differing
from verifiable.generation.transcript import Transcript, first_places, joined
from verifiable.submission import Submission

Step = Callable[[Any, Any, Any, Any], tuple[Any, Any]]
Cache = Callable[[int], Any]
Prefill = Callable[[Any, Any, Any], Any]
NextToken = Callable[[Any, Any, Any], tuple[Any, Any]]


class Decoding(NamedTuple):
    """A text that is being decoded; a pytree.

    Attributes:
      tokens: the completion, padded.
      count: how many of them are known.
      carried: what the decoder keeps, such as its cache.
    """

    tokens: Any
    count: Any
    carried: Any


class Decoder(NamedTuple):
    """Two compiled functions.

    Attributes:
      begin: `(params, prompt, completion, lengths, known) -> Decoding`.
      go_on: `(params, prompt, lengths, sampling, decoding, until) -> Decoding`, with tokens up to a
        stop token, or `until` in number.
    """

    begin: Callable[..., Decoding]
    go_on: Callable[..., Decoding]


def decode(
    model: Generation,
    params: Any,
    job: GenerationJob,
    *,
    step: Step | None = None,
    cache: Cache | None = None,
    prefill: Prefill | None = None,
    prefix: Sequence[int] = (),
    tell: Callable[[int], None] | None = None,
) -> tuple[int, ...]:
    """Generate the completion of a job.

    Args:
      model: from `compile_generation`.
      params: the model's parameters.
      job: the job that was asked for.
      step: `(params, cache, token, position) -> (logits, cache)`, in JAX, for one token; without
        it, the pass is run for every token.
      cache: `(tokens) -> cache`, an empty cache for so many tokens; needed with `step`.
      prefill: `(params, cache, token_ids) -> cache`, with the first tokens, padded to the program's
        length of prompts; without it, they are as many steps. What it puts behind the prompt is
        overwritten before it is read.
      prefix: the first tokens of the completion, if they are known.
      tell: called with each new token as soon as it is known, which costs a little time.

    Returns:
      The tokens, with the stop token if there is one.

    Raises:
      ValueError: the job is not of this model, the prefix is longer than its limit, or only one of
        `step` and `cache` is given, or `prefill` without them.
    """
    if (step is None) != (cache is None) or (step is None and prefill is not None):
        raise ValueError("a decoder with a cache needs both: step, and cache(tokens)")
    prompt, completion, lengths, sampling = model.room(job, prefix)
    stop = tuple(sorted(model.stop))
    if step is None or cache is None:
        decoder = _by_passes(model.transcript, stop)
    else:
        decoder = _by_steps(model.transcript, step, cache, prefill, stop)
    state = decoder.begin(params, prompt, completion, lengths, jnp.int32(len(prefix)))
    count, before = len(prefix), -1
    while count > before:
        until = job.limit if tell is None else min(count + 1, job.limit)
        state = decoder.go_on(params, prompt, lengths, sampling, state, jnp.int32(until))
        before, count = count, int(state.count)
        if tell is None:
            break
        for token in np.asarray(state.tokens)[before:count].tolist():
            tell(token)
    return tuple(np.asarray(state.tokens)[:count].tolist())


def generate(
    model: Generation,
    params: Any,
    job: GenerationJob,
    *,
    step: Step | None = None,
    cache: Cache | None = None,
    prefill: Prefill | None = None,
    tell: Callable[[int], None] | None = None,
) -> tuple[tuple[int, ...], Submission]:
    """Generate the completion of a job such that the pass agrees with every token, and prove it.

    Where the pass picks another token than the decoder, its token is taken, and the rest decoded
    again. So the text may change behind what was shown already; in float32 that is very rare.

    Args:
      model: from `compile_generation`.
      params: the model's parameters.
      job: the job that was asked for.
      step: as of `decode`.
      cache: as of `decode`.
      prefill: as of `decode`.
      tell: as of `decode`; for the first text alone, so what it was told may differ from the text.

    Returns:
      The tokens, and the run over them.

    Raises:
      RuntimeError: the pass does not settle on a token.
      ValueError: as `decode`.
    """
    prefix: tuple[int, ...] = ()
    for _ in range(job.limit + 1):
        text = decode(
            model, params, job, step=step, cache=cache, prefill=prefill, prefix=prefix, tell=tell
        )
        tell = None
        submission = model.prove(params, job, text, differences=job.limit)
        others = differing(submission.y, text)
        if not others:
            return text, submission
        # What stands before it agrees, and stays, unless another length rounds differently.
        prefix = (*text[: others[0]], int(submission.y[others[0]]))
    raise RuntimeError(
        "passes over texts of several lengths round apart at one token again and again: compile "
        "the model for one length that holds this job"
    )


@functools.lru_cache(maxsize=16)
def _by_passes(transcript: Transcript, stop: tuple[int, ...]) -> Decoder:
    @jax.jit
    def begin(params: Any, prompt: Any, completion: Any, lengths: Any, known: Any) -> Decoding:
        del params, prompt, lengths
        return Decoding(jnp.asarray(completion), known, ())

    @jax.jit
    def go_on(
        params: Any, prompt: Any, lengths: Any, sampling: Any, state: Decoding, until: Any
    ) -> Decoding:
        everywhere = lengths.at[1].set(len(state.tokens))

        def next_token(tokens: Any, count: Any, params: Any) -> tuple[Any, Any]:
            return transcript(params, prompt, tokens, everywhere, sampling)[count], params

        # Objects of Flax must be made of values of the loop that they are used in.
        found = _until_end(next_token, state._replace(carried=params), until, stop)
        return found._replace(carried=())

    return Decoder(begin, go_on)


@functools.lru_cache(maxsize=16)
def _by_steps(
    transcript: Transcript,
    step: Step,
    cache: Cache,
    prefill: Prefill | None,
    stop: tuple[int, ...],
) -> Decoder:
    sampler = transcript.sampler

    @jax.jit
    def begin(params: Any, prompt: Any, completion: Any, lengths: Any, known: Any) -> Decoding:
        before = lengths[0]
        given = joined(prompt, completion, before, known)
        # All but the last of the known tokens: that one is the first step's.
        count, start, kept = before + known, 0, cache(len(given))
        if prefill is not None:
            start = len(prompt)
            kept = prefill(params, kept, given[:start])

        def filled(place: Any, kept: Any) -> Any:
            return step(params, kept, given[place], place)[1]

        kept = lax.fori_loop(start, count - 1, filled, kept)
        first = first_places(given, count, transcript.vocabulary)
        return Decoding(jnp.asarray(completion), known, (kept, first))

    @jax.jit
    def go_on(
        params: Any, prompt: Any, lengths: Any, sampling: Any, state: Decoding, until: Any
    ) -> Decoding:
        before = lengths[0]

        def next_token(tokens: Any, count: Any, carried: Any) -> tuple[Any, Any]:
            kept, first = carried
            last = jnp.where(count == 0, jnp.asarray(prompt)[before - 1], tokens[count - 1])
            logits, kept = step(params, kept, last, before - 1 + count)
            token = sampler.pick(
                logits[None],
                row_of(sampling, count),
                places=count[None],
                seen=(first < before + count)[None],
            )[0]
            return token, (kept, first.at[token].min(before + count))

        return _until_end(next_token, state, until, stop)

    return Decoder(begin, go_on)


def row_of(sampling: Mapping[str, Any], place: Any) -> dict[str, Any]:
    """The inputs of `Sampler.pick` for one position."""
    return {k: x[place][None] if k == "noise" else x for k, x in sampling.items()}


def _until_end(
    next_token: NextToken, state: Decoding, until: Any, stop: tuple[int, ...]
) -> Decoding:
    """Decode until the last token is a stop token or so many are known.

    Args:
      next_token: `(tokens, count, carried) -> (token, carried)`, given the first `count` tokens.
      state: what is known.
      until: the most tokens.
      stop: tokens that end a text.
    """

    def going(state: Decoding) -> Any:
        last = state.tokens[jnp.maximum(state.count - 1, 0)]
        stopped = jnp.isin(last, jnp.asarray(stop, jnp.int32)) if stop else False
        return ~((state.count >= until) | ((state.count > 0) & stopped))

    def more(state: Decoding) -> Decoding:
        token, carried = next_token(*state)
        return Decoding(state.tokens.at[state.count].set(token), state.count + 1, carried)

    return lax.while_loop(going, more, state)
