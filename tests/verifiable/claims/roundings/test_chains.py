"""Which roundings a device commits to: those of values that the verifier does not have exactly."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from verifiable import program
from verifiable.claims.roundings.rounding import Rounding

W = jax.ShapeDtypeStruct((96, 96), jnp.bfloat16)
X = jax.ShapeDtypeStruct((64, 96), jnp.bfloat16)


def product(a: Any, b: Any) -> Any:
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


@pytest.mark.parametrize(
    ("between", "committed"),
    [
        (lambda c: c, 0),
        (lambda c: jnp.abs(c.T)[::-1].T, 0),
        (lambda c: jnp.clip(c, -1, 1), 0),
        (lambda c: 0.1 + c, 64 * 96 * 2),
        (jnp.tanh, 64 * 96 * 2),
    ],
    ids=["narrowed", "moved", "clipped", "biased", "activated"],
)
def test_the_rounding_of_a_committed_accumulator_is_replayed(between: Any, committed: int):
    """What follows from a claim by exact operations alone is not committed a second time."""
    one = program.compile(
        lambda w, x: product(between(product(x, w)).astype(jnp.bfloat16), w), W, X, self_test=False
    )
    roundings = [c for c in one.claims if isinstance(c.form, Rounding)]
    assert len(one.claims) == 2 + len(roundings)
    assert sum(int(np.prod(c.shape)) * c.dtype.itemsize for c in roundings) == committed
