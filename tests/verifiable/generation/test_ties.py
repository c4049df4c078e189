"""Positions that the rows of a report belong to, in models that compute other rows of logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.helpers import decoder
from verifiable import program
from verifiable.generation import Sampler, at_positions, transcript
from verifiable.generation.ties import TokenHead, token_heads, token_ties
from verifiable.generation.transcript import shapes
from verifiable.policy import Policy
from verifiable.report import Coverage, NearTie, Report, Verdict

V, WIDTH = decoder.VOCABULARY, decoder.WIDTH
PROMPT, COMPLETION = 6, 5
PARAMS = {name: decoder.PARAMS[name] for name in ("table", "head")}


def everywhere(params: Any, ids: Any) -> Any:
    return decoder.norm(params["table"][ids]) @ params["head"]


def at_two_more(params: Any, ids: Any, positions: Any) -> Any:
    """Rows of which some belong to no position."""
    places = jnp.concatenate([positions, positions[:2]])
    return everywhere(params, ids[places])[: len(positions)]


def in_a_loop(params: Any, ids: Any, positions: Any) -> Any:
    return jax.lax.map(lambda p: everywhere(params, ids[p][None])[0], positions)


def in_halves(params: Any, ids: Any, positions: Any) -> Any:
    h = decoder.norm(params["table"][ids[positions]])
    parts = jnp.split(params["head"], 2, axis=1)
    return jnp.concatenate([h @ part for part in parts], axis=-1)


def narrowed(params: Any, ids: Any, positions: Any) -> Any:
    """A cast makes equals of logits that differ in the product."""
    return everywhere(params, ids[positions]).astype(jnp.bfloat16)


GREEDY, WARM = Sampler(), Sampler(temperature=1.0, top_k=4)
MODELS: dict[str, tuple[Callable[..., Any], Sampler, list[TokenHead]]] = {
    "positions": (
        lambda params, ids, p: everywhere(params, ids[p]),
        GREEDY,
        [TokenHead(COMPLETION, 0, whole=True, tokens=True)],
    ),
    "all tokens": (
        at_positions(everywhere),
        WARM,
        [TokenHead(PROMPT + COMPLETION, 2, whole=True, tokens=True, everywhere=True)],
    ),
    "in a loop": (in_a_loop, GREEDY, [TokenHead(1, 0, whole=True, tokens=True)]),
    "in halves": (in_halves, GREEDY, [TokenHead(COMPLETION, 0, whole=False, tokens=True)] * 3),
    "narrowed": (
        narrowed,
        GREEDY,
        [
            TokenHead(COMPLETION, 0, whole=True, tokens=True),
            TokenHead(COMPLETION, 0, whole=False, tokens=True),
        ],
    ),
    "other rows": (at_two_more, GREEDY, []),
    "candidates of a loop": (
        in_a_loop,
        WARM,
        [
            TokenHead(1, 0, whole=True, tokens=False),
            TokenHead(COMPLETION, 0, whole=False, tokens=True),
        ],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_products_of_logits_are_found(name: str):
    logits, sampler, expected = MODELS[name]
    compiled = program.compile(
        transcript(logits, sampler, vocabulary=V),
        PARAMS,
        *shapes(sampler, V, PROMPT, COMPLETION),
        policy=Policy(draws=1),
        self_test=False,
    )
    assert list(token_heads(compiled, 3).values()) == expected


def accepted(ties: list[NearTie]) -> Report:
    """A report on an accepted run with some near-ties."""
    return Report(
        verdict=Verdict.ACCEPT,
        reason="ok",
        coverage=Coverage(checked=0, replayed=0),
        near_ties=tuple(ties),
    )


def test_rows_are_positions():
    """A prompt of three tokens and logits of all: row 2 picks the first token."""
    ties = [
        NearTie(claim=claim, trip=trip, row=row, chosen=1, other=2, kappa=0.5)
        for claim, trip, row in (("all", 0, 1), ("all", 0, 2), ("all", 0, 6), ("all", 0, 7))
    ]
    ties += [NearTie(claim="loop", trip=3, row=0, chosen=1, other=2, kappa=0.5)]
    ties += [NearTie(claim="router", trip=0, row=3, chosen=1, other=2, kappa=0.5)]
    report = accepted(ties)
    heads = {
        "all": TokenHead(11, 2, whole=True, tokens=True, everywhere=True),
        "loop": TokenHead(1, 0, whole=False, tokens=True),
    }
    found = [(i, tie.claim, head.whole) for i, tie, head in token_ties(heads, report, range(5))]
    assert found == [(0, "all", True), (4, "all", True), (3, "loop", False)]


def test_rows_are_the_positions_that_were_picked_at():
    """Of a head with a row for each of them; of one with a row for each token, their own."""
    ties = [
        NearTie(claim=claim, trip=0, row=row, chosen=1, other=2, kappa=0.5)
        for claim, row in (("some", 1), ("some", 2), ("all", 3), ("all", 6))
    ]
    report = accepted(ties)
    heads = {
        "some": TokenHead(2, 0, whole=True, tokens=True),
        "all": TokenHead(11, 2, whole=True, tokens=True, everywhere=True),
    }
    found = [(i, tie.claim) for i, tie, _ in token_ties(heads, report, (0, 4))]
    assert found == [(4, "some"), (4, "all")]
