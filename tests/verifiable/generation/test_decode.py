"""Decoders pick what the pass picks at every position, with a cache and without one."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import decoder
from verifiable.generation import (
    Generation,
    Sampler,
    compile_generation,
    decode,
    generate,
    transcript,
)

PARAMS, V = decoder.PARAMS, decoder.VOCABULARY
WITH_CACHE = {"step": decoder.step, "cache": decoder.cache}
SAMPLERS = {
    "greedy": Sampler(),
    "all": Sampler(temperature=1.1, top_k=9, top_p=0.9, min_p=0.02, repetition_penalty=1.3),
    "threefry": Sampler(temperature=1.1, source="threefry"),
}


@functools.cache
def made(name: str, stop: int | None = None) -> Generation:
    program = transcript(decoder.logits, SAMPLERS[name], vocabulary=V)
    ends = [] if stop is None else [stop]
    return compile_generation(program, PARAMS, lengths=[(5, 9)], stop=ends, self_test=False)


def job_of(model: Generation, limit: int = 9, prompt: Any = (3, 17, 20)) -> Any:
    size = 8 if model.transcript.sampler.source == "threefry" else 32
    return model.job(prompt, limit=limit, seed=bytes(range(size)))


@pytest.mark.parametrize("name", SAMPLERS)
def test_both_decoders_and_the_pass_agree_at_every_position(name: str):
    model = made(name)
    job = job_of(model)
    text = decode(model, PARAMS, job, **WITH_CACHE)
    assert len(text) == 9
    assert decode(model, PARAMS, job) == text
    own = jax.jit(model.transcript)(PARAMS, *model.inputs(job, text))
    assert tuple(np.asarray(own).tolist()) == text


@pytest.mark.parametrize("known", [0, 1, 6])
def test_a_prompt_goes_into_the_cache_in_one_pass_or_token_by_token(known: int):
    """Shorter than the compiled length, so that the pass puts something behind it."""
    model = made("all")
    job = job_of(model)
    text = decode(model, PARAMS, job, **WITH_CACHE)
    found = decode(model, PARAMS, job, **WITH_CACHE, prefill=decoder.prefill, prefix=text[:known])
    assert found == text


@pytest.mark.parametrize("kind", [WITH_CACHE, {}], ids=["steps", "passes"])
def test_tokens_are_told_one_by_one_as_they_come(kind: Any):
    whole = decode(made("greedy"), PARAMS, job_of(made("greedy")), **WITH_CACHE)
    for model in (made("greedy"), made("greedy", whole[4])):
        told: list[int] = []
        text = decode(model, PARAMS, job_of(model), **kind, tell=told.append)
        assert tuple(told) == text == decode(model, PARAMS, job_of(model), **kind)
        told.clear()
        decode(model, PARAMS, job_of(model), **kind, prefix=text[:2], tell=told.append)
        assert tuple(told) == text[2:]
        told.clear()
        assert decode(model, PARAMS, job_of(model), **kind, prefix=text, tell=told.append) == text
        assert not told


def test_a_prompt_of_one_token_and_a_limit_of_one():
    model = made("greedy")
    text = decode(model, PARAMS, job_of(model, 1, [4]), **WITH_CACHE)
    assert text == decode(model, PARAMS, job_of(model, 1, [4]))
    assert len(text) == 1


def test_decoders_end_with_the_stop_token():
    whole = decode(made("greedy"), PARAMS, job_of(made("greedy")), **WITH_CACHE)
    place = 4
    model = made("greedy", whole[place])
    expected = whole[: whole.index(whole[place]) + 1]
    assert decode(model, PARAMS, job_of(model), **WITH_CACHE) == expected
    assert decode(model, PARAMS, job_of(model)) == expected
    assert model.inputs(job_of(model), expected)[2].tolist() == [3, len(expected)]


@pytest.mark.parametrize("name", ["greedy", "all"])
def test_a_prefix_is_gone_on_from(name: str):
    model = made(name)
    job = job_of(model)
    text = decode(model, PARAMS, job, **WITH_CACHE)
    for known in (1, 5, 9):
        assert decode(model, PARAMS, job, **WITH_CACHE, prefix=text[:known]) == text
    assert decode(model, PARAMS, job, prefix=text[:5]) == text
    with pytest.raises(ValueError, match="the prefix has 10"):
        decode(model, PARAMS, job, prefix=(*text, 1))


def test_where_the_pass_picks_another_token_the_text_goes_on_with_it():
    """A decoder that errs at one position, as rounding may at a near-tie."""

    def errs(params: Any, kept: Any, token: Any, position: Any) -> Any:
        logits, kept = decoder.step(params, kept, token, position)
        return logits + jnp.where(position == 5, 100.0, 0.0) * jax.nn.one_hot(11, V), kept

    model = made("greedy")
    job = job_of(model)
    wrong = decode(model, PARAMS, job, step=errs, cache=decoder.cache)
    text, submission = generate(model, PARAMS, job, step=errs, cache=decoder.cache)
    assert wrong[3] == 11 != text[3]
    assert text == decode(model, PARAMS, job, **WITH_CACHE)
    assert tuple(np.asarray(submission.y).tolist()) == text


def test_a_draft_of_fewer_layers_proposes_what_the_pass_decides():
    """Speculative decoding: the noise is the job's, so a good draft mostly picks the same token."""

    def draft(params: Any, kept: Any, token: Any, position: Any) -> Any:
        cheap = {name: params[name].at[1].set(0) for name in ("out", "down")}
        return decoder.step(params | cheap, kept, token, position)

    model = made("all")
    job = job_of(model)
    assert decode(model, PARAMS, job, step=draft, cache=decoder.cache) != decode(model, PARAMS, job)
    text, _ = generate(model, PARAMS, job, step=draft, cache=decoder.cache)
    assert text == decode(model, PARAMS, job)


def test_a_decoder_with_a_cache_needs_both_functions():
    for given in ({"step": decoder.step}, {"prefill": decoder.prefill}):
        with pytest.raises(ValueError, match="needs both"):
            decode(made("greedy"), PARAMS, job_of(made("greedy")), **given)
