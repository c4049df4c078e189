"""The table of claims."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.helpers.contractions import equation_of
from verifiable.claims.product import CONTRACTIONS, contraction
from verifiable.jaxpr.effects import PRIMITIVES, Effect


def test_every_contraction_is_continuous_and_other_equations_are_none():
    assert CONTRACTIONS.keys() <= PRIMITIVES[Effect.CONTINUOUS]
    x = np.zeros((3, 7))
    assert contraction(equation_of(lax.dot, x, x.T)) is not None
    assert contraction(equation_of(jnp.sin, x)) is None
