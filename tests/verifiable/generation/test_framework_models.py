"""Language models of Flax NNX and Equinox as they are: one text each, accepted, and one changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from verifiable import challenge
from verifiable.generation import (
    Sampler,
    at_positions,
    compile_generation,
    generate,
    transcript,
)
from verifiable.policy import Policy
from verifiable.report import Verdict

V, WIDTH = 48, 16


def causal(q: Any, k: Any, v: Any) -> Any:
    """Attention of one head over (tokens, WIDTH), to no later token."""
    before = jnp.tril(jnp.ones((len(q), len(q)), bool))
    scores = jnp.where(before, q @ k.T / np.sqrt(WIDTH), -jnp.inf)
    return jax.nn.softmax(scores) @ v


class NnxDecoder(nnx.Module):
    """One layer; a batch of sequences, and the embedding again as the head."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(V, WIDTH, rngs=rngs)
        self.norm = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        self.up = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        h = self.embed(tokens)
        h = h + jax.vmap(causal)(*jnp.split(self.qkv(self.norm(h)), 3, -1))
        return self.embed.attend(h + jax.nn.gelu(self.up(self.norm(h))))


class EqxDecoder(eqx.Module):
    """One layer; one sequence."""

    embed: eqx.nn.Embedding
    norm: eqx.nn.LayerNorm
    qkv: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key: Any):
        embed, qkv, head = jax.random.split(key, 3)
        self.embed = eqx.nn.Embedding(V, WIDTH, key=embed)
        self.norm = eqx.nn.LayerNorm(WIDTH)
        self.qkv = eqx.nn.Linear(WIDTH, 3 * WIDTH, key=qkv)
        self.head = eqx.nn.Linear(WIDTH, V, key=head)

    def __call__(self, tokens: Any) -> Any:
        h = jax.vmap(self.embed)(tokens)
        qkv = jax.vmap(self.qkv)(jax.vmap(self.norm)(h))
        return jax.vmap(self.head)(h + causal(*jnp.split(qkv, 3, -1)))


def flax_nnx() -> tuple[Any, Any]:
    graph, state = nnx.split(nnx.eval_shape(lambda: NnxDecoder(nnx.Rngs(0))))

    def everywhere(params: Any, tokens: Any) -> Any:
        return nnx.merge(graph, params)(tokens)

    return at_positions(everywhere, batched=True), filled(state)


def equinox() -> tuple[Any, Any]:
    def abstract(x: Any) -> bool:
        return isinstance(x, jax.ShapeDtypeStruct)

    shapes = eqx.filter_eval_shape(EqxDecoder, jax.random.key(0))
    params, static = eqx.partition(shapes, abstract)

    def everywhere(params: Any, tokens: Any) -> Any:
        return eqx.combine(params, static)(tokens)

    return at_positions(everywhere), filled(params)


def filled(tree: Any) -> Any:
    """Values for the abstract floats of a model; its own initialisation is never compiled."""
    rng = np.random.default_rng(5)
    return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), tree)


@pytest.mark.parametrize("framework", [flax_nnx, equinox], ids=lambda f: f.__name__)
def test_a_text_of_a_framework_model_is_accepted_and_a_changed_one_is_not(
    framework: Callable[[], tuple[Any, Any]],
):
    logits, params = framework()
    sampler = Sampler(temperature=0.9, top_k=8)
    model = compile_generation(
        transcript(logits, sampler, vocabulary=V),
        params,
        lengths=[(4, 6)],
        policy=Policy(draws=8),
        self_test=False,
    )
    key = model.setup(params, challenge.secret(bytes(32)))
    job = model.job([3, 14, 15], limit=6, seed=bytes(range(32)))
    text, sent = generate(model, params, job)
    report = model.verify(key, job, text, sent, commitment=sent.commitment)
    assert report.require().tokens == text
    changed = (*text[:-1], (text[-1] + 1) % V)
    report = model.verify(key, job, changed, sent, commitment=sent.commitment)
    assert report.verdict is Verdict.REJECT
