"""How tokens are picked: against a slow oracle, in frequency, and as `jax.random.categorical`."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from verifiable.generation import Sampler, noise

RNG = np.random.default_rng(5)
ROWS, VOCABULARY = 24, 40
LOGITS = (3 * RNG.standard_normal((ROWS, VOCABULARY))).astype(np.float32)
SEEN = RNG.random((ROWS, VOCABULARY)) < 0.3
SEED = bytes(range(32))
KEY = bytes.fromhex("00000007fffffff1")

SAMPLERS: dict[str, Sampler] = {
    "greedy": Sampler(),
    "greedy with a penalty": Sampler(repetition_penalty=1.8),
    "temperature": Sampler(temperature=1.7),
    "top-k": Sampler(temperature=1.2, top_k=5),
    "top-k of more than there are": Sampler(temperature=1.2, top_k=400),
    "top-p": Sampler(temperature=2, top_p=0.7),
    "min-p": Sampler(temperature=1.5, min_p=0.2),
    "all": Sampler(temperature=1.5, top_k=9, top_p=0.8, min_p=0.05, repetition_penalty=1.3),
    "threefry": Sampler(temperature=1.5, top_k=9, source="threefry"),
}


def slowly(sampler: Sampler, logits: Any, noise: Any, seen: Any) -> int:
    """One row in plain Python, as the specification says it."""
    z = [float(x) for x in logits]
    if sampler.repetition_penalty is not None:
        r = sampler.repetition_penalty
        z = [(x / r if x > 0 else x * r) if s else x for x, s in zip(z, seen, strict=True)]
    if sampler.temperature is None:
        return max(range(len(z)), key=lambda i: z[i])
    z = [x / sampler.temperature for x in z]
    order = sorted(range(len(z)), key=lambda i: -z[i])[: sampler.top_k or len(z)]
    total = sum(math.exp(z[i]) for i in order)
    kept, before = [], 0.0
    for i in order:
        if sampler.top_p is None or before < sampler.top_p:
            kept.append(i)
        before += math.exp(z[i]) / total
    if sampler.min_p is not None:
        kept = [i for i in kept if math.exp(z[i] - z[order[0]]) >= sampler.min_p]
    return max(kept, key=lambda i: z[i] + float(noise[i]))


def picked(sampler: Sampler, seed: bytes = SEED) -> Any:
    inputs = sampler.inputs(seed, ROWS, VOCABULARY)
    return np.asarray(
        jax.jit(lambda z, given, seen: sampler.pick(z, given, seen=seen))(LOGITS, inputs, SEEN)
    )


@pytest.mark.parametrize("name", [n for n in SAMPLERS if n != "threefry"])
def test_tokens_are_those_of_the_oracle(name: str):
    sampler = SAMPLERS[name]
    drawn = noise.gumbel(SEED, ROWS, VOCABULARY)
    expected = [slowly(sampler, LOGITS[i], drawn[i], SEEN[i]) for i in range(ROWS)]
    np.testing.assert_array_equal(picked(sampler), expected)


def test_a_threefry_key_picks_as_jax_does():
    sampler = SAMPLERS["threefry"]
    key = jax.random.wrap_key_data(jnp.asarray([7, 0xFFFFFFF1], jnp.uint32), impl="threefry2x32")
    z = jnp.asarray(LOGITS) / 1.5
    least = jnp.sort(z, -1)[:, -9:-8]
    z = jnp.where(z < least, -jnp.inf, z)
    own = jax.vmap(lambda i, row: jax.random.categorical(jax.random.fold_in(key, i), row))
    np.testing.assert_array_equal(picked(sampler, KEY), own(jnp.arange(ROWS), z))


def test_tokens_come_as_often_as_their_probability():
    """Pearson's statistic over 4,000 draws stays below its quantile of 1e-5."""
    row = np.asarray([2.0, 1.0, 0.5, 0.0, -1.0, -3.0], np.float32)
    count = 4000
    sampler = Sampler(temperature=1.0)
    inputs = sampler.inputs(SEED, count, len(row))
    found = np.bincount(sampler.pick(jnp.tile(row, (count, 1)), inputs), minlength=len(row))
    expected = count * np.exp(row) / np.exp(row).sum()
    assert np.sum((found - expected) ** 2 / expected) < 31


def test_only_numbers_may_differ_between_jobs():
    a, b = Sampler(temperature=0.7, top_k=5), Sampler(temperature=0.9, top_k=5)
    assert a.structure == b.structure
    others = [Sampler(temperature=0.7), Sampler(temperature=0.7, top_k=6), Sampler()]
    others += [Sampler(temperature=0.7, top_k=5, source="threefry")]
    others += [Sampler(temperature=0.7, top_k=5, min_p=0.1)]
    assert all(a.structure != other.structure for other in others)


def test_rows_that_are_not_used_have_no_noise():
    made = Sampler(temperature=1.0).inputs(SEED, 4, 7, places=range(2))["noise"]
    np.testing.assert_array_equal(made[:2], noise.gumbel(SEED, 2, 7))
    assert not made[2:].any()


REFUSED: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"temperature": 0.0}, ValueError),
    ({"temperature": -1.0}, ValueError),
    ({"temperature": math.nan}, ValueError),
    ({"temperature": math.inf}, ValueError),
    ({"temperature": "1"}, TypeError),
    ({"temperature": True}, TypeError),
    ({"temperature": 1.0, "top_k": 0}, ValueError),
    ({"temperature": 1.0, "top_k": 2.0}, TypeError),
    ({"temperature": 1.0, "top_p": 1.5}, ValueError),
    ({"temperature": 1.0, "top_p": 0.0}, ValueError),
    ({"temperature": 1.0, "min_p": 1e-30}, ValueError),
    ({"repetition_penalty": 0.5}, ValueError),
    ({"top_k": 3}, ValueError),
    ({"min_p": 0.3}, ValueError),
    ({"temperature": 1.0, "source": "urandom"}, ValueError),
]


@pytest.mark.parametrize(("arguments", "error"), REFUSED)
def test_other_samplers_are_refused(arguments: dict[str, Any], error: type[Exception]):
    with pytest.raises(error):
        Sampler(**arguments)


def test_a_penalty_needs_to_know_what_was_there():
    sampler = Sampler(repetition_penalty=1.2)
    with pytest.raises(ValueError, match="needs `seen`"):
        sampler.pick(jnp.asarray(LOGITS), sampler.inputs(SEED, ROWS, VOCABULARY))


def test_a_threefry_key_has_eight_bytes():
    with pytest.raises(ValueError, match="8 bytes"):
        SAMPLERS["threefry"].inputs(SEED, ROWS, VOCABULARY)
