"""Decoders: a device may generate a text as it likes; these are two ways.

`decode` with a `step` keeps a cache of keys and values: the step evaluates the model on one token
more, `(params, cache, token, position) -> (logits (vocabulary,), cache)`. Without one the whole
pass is run again for every token, which any model allows. Both are one compiled program for each
compiled length, with loops that end at the stop token or at the job's limit.

The pass over the finished text rounds differently than steps do. Where two tokens are closer than
that, it may pick another token than was generated. In float32 that is rare, and a verifier accepts
it as a near-tie; where it is not, `generate` takes the token of the pass and goes on from there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.generation.generation import Generation, differing
from verifiable.generation.job import GenerationJob
from verifiable.generation.transcript import Transcript, first_places, joined
from verifiable.submission import Submission

Step = Callable[[Any, Any, Any, Any], tuple[Any, Any]]
Cache = Callable[[int], Any]
NextToken = Callable[[Any, Any, Any], tuple[Any, Any]]


def decode(
    made: Generation,
    params: Any,
    job: GenerationJob,
    *,
    step: Step | None = None,
    cache: Cache | None = None,
    prefix: Sequence[int] = (),
) -> tuple[int, ...]:
    """Generate the completion of a job.

    Args:
      made: the compiled model.
      params: of the model.
      job: that was asked for.
      step: `(params, cache, token, position) -> (logits, cache)`, in JAX, for one token; without
        it, the pass is run for every token.
      cache: `(tokens) -> cache`, an empty cache for so many tokens; needed with `step`.
      prefix: the first tokens of the completion, if they are known.

    Returns:
      The tokens, with the stop token if there is one.

    Raises:
      ValueError: the job is not of this model, the prefix is longer than its limit, or only one of
        `step` and `cache` is given.
    """
    if (step is None) != (cache is None):
        raise ValueError("a decoder with a cache needs both: step, and cache(tokens)")
    *inputs, sampling = made.room(job, prefix)
    stop = tuple(sorted(made.stop))
    if step is None or cache is None:
        run = _by_passes(made.transcript, stop)
    else:
        run = _by_steps(made.transcript, step, cache, stop)
    known, limit = jnp.int32(len(prefix)), jnp.int32(job.limit)
    tokens, count = run(params, *inputs, known, limit, sampling)
    return tuple(np.asarray(tokens)[: int(count)].tolist())


def generate(
    made: Generation,
    params: Any,
    job: GenerationJob,
    *,
    step: Step | None = None,
    cache: Cache | None = None,
) -> tuple[tuple[int, ...], Submission]:
    """Generate the completion of a job such that the pass agrees with every token, and prove it.

    Where the pass picks another token than the decoder, its token is taken, and the rest decoded
    again. So the text may change behind what was shown already; in float32 that is very rare.

    Args:
      made: the compiled model.
      params: of the model.
      job: that was asked for.
      step: as of `decode`.
      cache: as of `decode`.

    Returns:
      The tokens, and the run over them.

    Raises:
      RuntimeError: the pass does not settle on a token.
      ValueError: as `decode`.
    """
    prefix: tuple[int, ...] = ()
    for _ in range(job.limit + 1):
        text = decode(made, params, job, step=step, cache=cache, prefix=prefix)
        submission = made.prove(params, job, text, differences=job.limit)
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
def _by_passes(transcript: Transcript, stop: tuple[int, ...]) -> Callable[..., Any]:
    @jax.jit
    def run(
        params: Any,
        prompt: Any,
        completion: Any,
        lengths: Any,
        known: Any,
        limit: Any,
        sampling: Any,
    ) -> Any:
        everywhere = lengths.at[1].set(len(completion))

        def next_token(tokens: Any, count: Any, carried: Any) -> tuple[Any, Any]:
            return transcript(params, prompt, tokens, everywhere, sampling)[count], carried

        return _until_end(next_token, completion, known, limit, stop, ())

    return run


@functools.lru_cache(maxsize=16)
def _by_steps(
    transcript: Transcript, step: Step, cache: Cache, stop: tuple[int, ...]
) -> Callable[..., Any]:
    sampler = transcript.sampler

    @jax.jit
    def run(
        params: Any,
        prompt: Any,
        completion: Any,
        lengths: Any,
        known: Any,
        limit: Any,
        sampling: Any,
    ) -> Any:
        before = lengths[0]

        # All but the last of the known tokens: that one is the first step's.
        given = joined(prompt, completion, before, known)
        count = before + known

        def filled(place: Any, kept: Any) -> Any:
            return step(params, kept, given[place], place)[1]

        kept = lax.fori_loop(0, count - 1, filled, cache(len(given)))
        first = first_places(given, count, transcript.vocabulary)

        def next_token(tokens: Any, count: Any, carried: Any) -> tuple[Any, Any]:
            kept, first = carried
            last = jnp.where(count == 0, jnp.asarray(prompt)[before - 1], tokens[count - 1])
            logits, kept = step(params, kept, last, before - 1 + count)
            token = sampler.pick(
                logits[None],
                row_of(sampling, count),
                start=count,
                seen=(first < before + count)[None],
            )[0]
            return token, (kept, first.at[token].min(before + count))

        return _until_end(next_token, completion, known, limit, stop, (kept, first))

    return run


def row_of(sampling: Mapping[str, Any], place: Any) -> dict[str, Any]:
    """The inputs of `Sampler.pick` for one position."""
    return {k: x[place][None] if k == "noise" else x for k, x in sampling.items()}


def _until_end(
    next_token: NextToken,
    completion: Any,
    known: Any,
    limit: Any,
    stop: tuple[int, ...],
    carried: Any,
) -> tuple[Any, Any]:
    """The completion and its length, when its last token is a stop token or the limit is reached.

    Args:
      next_token: `(tokens, count, carried) -> (token, carried)`, given the first `count` tokens.
      completion: token ids, padded.
      known: how many tokens of it are given.
      limit: the most tokens.
      stop: tokens that end it.
      carried: what `next_token` needs first.
    """

    def going(state: Any) -> Any:
        tokens, count, _ = state
        last = tokens[jnp.maximum(count - 1, 0)]
        stopped = jnp.isin(last, jnp.asarray(stop, jnp.int32)) if stop else False
        return ~((count >= limit) | ((count > 0) & stopped))

    def more(state: Any) -> Any:
        tokens, count, carried = state
        token, carried = next_token(tokens, count, carried)
        return tokens.at[count].set(token), count + 1, carried

    return lax.while_loop(going, more, (jnp.asarray(completion), known, carried))[:2]
