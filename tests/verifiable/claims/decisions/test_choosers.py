"""Programs that choose: routing, beam search, medians, quantiles; honest devices, and one cheat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from tests.helpers.last_claim import last_claim, off_by_a_bit
from verifiable.check import flips
from verifiable.policy import Policy
from verifiable.testing.devices import EACH, INDEPENDENT


def routed(x: Any) -> Any:
    """Two of eight experts for each token."""
    x = x - x.mean(-1, keepdims=True)
    return lax.top_k(jax.nn.softmax(x * lax.rsqrt((x * x).mean(-1, keepdims=True))), 2)[1]


def beams(x: Any) -> Any:
    """The best of all continuations of three beams."""
    scores = jnp.log(jnp.arange(1, 4) / 6)[:, None] + jax.nn.log_softmax(x[:3] / 0.8)
    return lax.top_k(scores.reshape(-1), 3)[1] // x.shape[-1]


STEPS = np.linspace(-0.9, 0.9, 8, dtype=np.float32)


def masked(x: Any) -> Any:
    """Zeros of both signs among what is chosen: `top_k` puts zero before minus zero."""
    return lax.top_k(jnp.tanh(x) * (jnp.arange(8) % 3 > 0), 8)[1]


PROGRAMS: dict[str, Callable[..., Any]] = {
    "routing": routed,
    "masked": masked,
    "beam search": beams,
    "median": lambda x: jnp.tanh(x) > jnp.median(jnp.tanh(x), axis=-1, keepdims=True) + 0.01,
    "steps": lambda x: jnp.sum(
        lax.lt_to_p.bind(*jnp.broadcast_arrays(STEPS, jnp.tanh(x)[..., None])), -1
    ),
    "quantile": lambda x: jnp.exp(x) > jnp.quantile(jnp.exp(x), 0.3, axis=-1, keepdims=True),
}


@pytest.mark.parametrize("name", PROGRAMS)
@given(st.integers(0, 10**6))
@settings(max_examples=4, deadline=None)
def test_honest_devices_pass_and_one_other_choice_does_not(name: str, seed: int):
    """Cheat: one index, or eight comparisons, that are not what the values say."""
    rng = np.random.default_rng(seed)
    x = np.float32(rng.permutation(32).reshape(4, 8) / 8 - 1.7)
    run = last_claim(PROGRAMS[name], x)
    for way in (INDEPENDENT, EACH):
        theirs = run.choose(run.operands_of(off_by_a_bit(seed, way)))
        found = run.tested(theirs)
        assert bool(found.passed & found.in_range)
        assert int(found.flips) <= flips.limit(run.claim, Policy())
    other = np.array(run.own)
    if name in ("median", "quantile", "steps"):
        other[0] ^= 0xFF
    else:
        least = np.argmin(np.asarray(run.operands[0]), -1)
        other[..., 0] = least
    assert not bool(run.tested(other).passed)
