"""Variables and literals of flattened functions."""

from __future__ import annotations

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from tests.helpers.functions import (
    X,
)
from verifiable.jaxpr import from_jax
from verifiable.jaxpr.blocks import Literal


def test_scalars_are_literals():
    function, _ = from_jax.trace(lambda x: x * 2.5 + np.float32(3), X)
    literals = [a for e in function.block.equations for a in e.inputs if isinstance(a, Literal)]
    assert [float(a.value) for a in literals] == [2.5, 3.0]
    assert all(a.dtype == np.float32 and a.shape == () for a in literals)
    assert [(a.size, a.nbytes) for a in literals] == [(1, 0)] * 2


def test_sizes_of_variables():
    function, _ = from_jax.trace(lambda x: x + 1, jax.ShapeDtypeStruct((3, 5), jnp.bfloat16))
    [variable] = function.block.inputs
    assert (variable.size, variable.nbytes) == (15, 30)
    assert variable != function.block.outputs[0]
