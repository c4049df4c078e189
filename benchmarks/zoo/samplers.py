"""Decoding under scan, by each way to choose a token: which seed, and which head, is verified.

The noise of a step is drawn from the seed of the job and the number of the step, so that no device
can draw again until it likes the token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks.zoo import layers as nn
from benchmarks.zoo.subject import Inputs, Subject, Weights

ROWS, WIDTH, WORDS, STEPS = 8, 64, 64, 6

# From logits (rows, words) and a random key to tokens (rows,).
Chooser = Callable[[Array, Array], Array]


def _another_seed(params: Any, inputs: Inputs) -> tuple[Any, Inputs]:
    first, seed = inputs
    return params, (first, seed + 1)


def _another_head(params: Any, inputs: Inputs) -> tuple[Any, Inputs]:
    return {**params, "head": Weights(199).matrix(WIDTH, WORDS)}, inputs


def _decoding(number: int, choose: Chooser, *, seeded: bool = True) -> Subject:
    """Tokens of a recurrent decoder with two residual layers, and their logits."""
    w = Weights(number)
    params = {
        "words": w.normal(WORDS, WIDTH),
        "state": w.dense(2 * WIDTH, WIDTH),
        "layers": [nn.mlp_weights(w, WIDTH, 2 * WIDTH) for _ in range(2)],
        "norm": w.norm(WIDTH),
        "head": 2 * w.matrix(WIDTH, WORDS),
    }

    def fn(p: Any, first: Array, seed: Array) -> tuple[Array, Array]:
        key = jax.random.key(seed)

        def step(state: Any, number: Array) -> Any:
            token, h = state
            h = jnp.tanh(nn.dense(p["state"], jnp.concatenate([p["words"][token], h], -1)))
            x = h
            for layer in p["layers"]:
                x = x + nn.mlp(layer, x)
            logits = nn.layer_norm(p["norm"], x) @ p["head"]
            token = choose(logits, jax.random.fold_in(key, number)).astype(jnp.int32)
            return (token, h), (token, logits)

        start = (first, jnp.zeros((ROWS, WIDTH)))
        return lax.scan(step, start, jnp.arange(STEPS, dtype=jnp.int32))[1]

    def draw(rng: np.random.Generator) -> Inputs:
        first = jnp.asarray(rng.integers(0, WORDS, ROWS), jnp.int32)
        return first, jnp.asarray(rng.integers(0, 2**31), jnp.uint32)

    cheats = {"another head": _another_head}
    if seeded:
        cheats["another seed"] = _another_seed
    return Subject(fn=fn, params=params, draw=draw, cheats=cheats)


def temperature() -> Subject:
    """Sampling at a temperature of 0.7."""
    return _decoding(171, lambda logits, key: jax.random.categorical(key, logits / 0.7))


def top_k() -> Subject:
    """Sampling among the best eight."""

    def choose(logits: Array, key: Array) -> Array:
        best, ids = lax.top_k(logits, 8)
        return _pick(ids, jax.random.categorical(key, best))

    return _decoding(172, choose)


def top_p() -> Subject:
    """Sampling among the most probable words that sum up to 0.9."""

    def choose(logits: Array, key: Array) -> Array:
        order = jnp.argsort(-logits, -1)
        ordered = jnp.take_along_axis(logits, order, -1)
        share = jax.nn.softmax(ordered, -1)
        kept = jnp.cumsum(share, -1) - share < 0.9
        return _pick(order, jax.random.categorical(key, jnp.where(kept, ordered, -jnp.inf)))

    return _decoding(173, choose)


def softcap() -> Subject:
    """The largest of logits that are bounded by 30 tanh(l / 30)."""
    return _decoding(174, lambda l, _: jnp.argmax(30 * jnp.tanh(l / 30), -1), seeded=False)


def _pick(ids: Array, place: Array) -> Array:
    return jnp.take_along_axis(ids, place[:, None], -1)[:, 0]


MODELS = (temperature, top_k, top_p, softcap)
