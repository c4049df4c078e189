"""The program of a text: where completions stand, what padding does, and which models it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import decoder
from verifiable.generation import Sampler, at_positions, transcript
from verifiable.generation.transcript import first_places, joined, require_causal

V = decoder.VOCABULARY
GREEDY = transcript(decoder.logits, Sampler(), vocabulary=V)


def lengths(prompt: int, completion: int) -> Any:
    return jnp.asarray([prompt, completion], jnp.int32)


def test_a_completion_stands_right_behind_its_prompt():
    prompt, completion = jnp.asarray([5, 6, 99, 99]), jnp.asarray([7, 8, 99])
    assert joined(prompt, completion, 2, 2).tolist() == [5, 6, 7, 8, 0, 0, 0]
    assert joined(prompt, completion, 4, 3).tolist() == [5, 6, 99, 99, 7, 8, 99]


def test_the_first_place_of_each_token():
    large = np.iinfo(np.int32).max
    found = first_places(jnp.asarray([2, 0, 2, 1, 3]), 4, 5)
    assert found.tolist() == [1, 3, 0, large, large]


def plainly(prompt: list[int], completion: list[int]) -> list[int]:
    """What the model picks after each token but the last, without padding."""
    ids = jnp.asarray(prompt + completion[:-1], jnp.int32)
    found = jax.jit(decoder.everywhere)(decoder.PARAMS, ids)[len(prompt) - 1 :]
    return np.argmax(found, -1).tolist()


MODELS = {
    "positions": decoder.logits,
    "all": at_positions(decoder.everywhere),
    "a batch": at_positions(
        lambda params, ids: decoder.everywhere(params, ids[0])[None], batched=True
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_those_of_the_model_whatever_the_padding_holds(name: str):
    run = jax.jit(transcript(MODELS[name], Sampler(), vocabulary=V))
    prompt, completion = [5, 1, 9], [4, 4, 60, 2]
    expected = [*plainly(prompt, completion), -1, -1]
    for pad in (0, 33):
        padded = [jnp.asarray(x + [pad] * 2, jnp.int32) for x in (prompt, completion)]
        found = run(decoder.PARAMS, *padded, lengths(3, 4), {})
        assert found.tolist() == expected


def test_a_model_without_a_row_for_each_position_is_refused():
    program = transcript(
        lambda params, ids, _: decoder.everywhere(params, ids), Sampler(), vocabulary=V
    )
    tokens = jnp.zeros(3, jnp.int32)
    with pytest.raises(ValueError, match="at_positions"):
        jax.eval_shape(program, decoder.PARAMS, tokens, tokens, lengths(3, 3), {})


@pytest.mark.parametrize("batched", [False, True])
def test_an_axis_for_examples_is_said(batched: bool):
    """A model with one where none was said, or the other way round."""

    def everywhere(params: Any, ids: Any) -> Any:
        found = decoder.everywhere(params, ids.reshape(-1))
        return found if batched else found[None]

    tokens = jnp.zeros(3, jnp.int32)
    logits = at_positions(everywhere, batched=batched)
    with pytest.raises(ValueError, match=r"must return logits of shape .*batched"):
        jax.eval_shape(logits, decoder.PARAMS, tokens, tokens[:1])


def test_other_arguments_are_refused():
    wrong: Any = "greedy"
    with pytest.raises(TypeError, match="sampler must be"):
        transcript(decoder.logits, wrong, vocabulary=V)
    with pytest.raises(TypeError, match="logits must be"):
        transcript(wrong, Sampler(), vocabulary=V)
    with pytest.raises(ValueError, match="two tokens"):
        transcript(decoder.logits, Sampler(), vocabulary=1)


def test_a_model_that_looks_ahead_is_refused():
    """It could read the text that it is to pick."""

    def reads_all(params: Any, ids: Any, positions: Any) -> Any:
        return decoder.logits(params, ids, positions) + 0.1 * params["head"][ids[-1] % 24]

    require_causal(GREEDY, decoder.PARAMS, 7)
    with pytest.raises(ValueError, match="not causal"):
        require_causal(replace(GREEDY, logits=reads_all), decoder.PARAMS, 7)
