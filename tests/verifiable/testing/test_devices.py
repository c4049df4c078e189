"""Simulated devices: off by a last bit where rounding is, and nowhere else."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verifiable import program
from verifiable.policy import Policy
from verifiable.testing.devices import EACH, INDEPENDENT, devices

RNG = np.random.default_rng(0)
P = jnp.asarray(RNG.standard_normal((32, 32)), jnp.float32)
X = jnp.asarray(RNG.standard_normal((4, 32)), jnp.float32)


def counts(p: Any, x: Any) -> tuple[Any, Any, Any]:
    """A sum that rounds, one of integers as floats, and an index that follows from it."""
    z = jnp.tanh(x) @ p
    number = jnp.sum(z > 0, axis=-1, dtype=jnp.float32)
    last = jnp.floor((number - 1) / 2).astype(jnp.int32)
    return jnp.sum(z * z, axis=-1), number, last


def test_sums_of_integers_are_exact_on_every_device():
    compiled = program.compile(counts, P, X, policy=Policy(draws=1))
    honest = jax.device_get(jax.jit(compiled.execute)(P, X)[0])
    found = devices(compiled)
    runs = [("ulp independent", INDEPENDENT), *(("ulp coherent", way) for way in range(EACH + 1))]
    moved = False
    for name, run in runs:
        total, number, last = jax.device_get(found[name](P, (X,), run)[0])
        moved |= bool((total != honest[0]).any())
        np.testing.assert_array_equal(number, np.round(number))
        np.testing.assert_array_equal(last, np.floor((number - 1) / 2).astype(np.int32))
    assert moved
