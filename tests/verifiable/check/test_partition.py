"""The split of a check: what is counted as work."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.helpers.contractions import equation_of
from verifiable.check.partition import work


def test_work_of_everything_else_is_its_size():
    x = np.zeros((3, 7))
    assert work(equation_of(jnp.sin, x)) == 21
    assert work(equation_of(lambda x: lax.reduce_sum_p.bind(x, axes=(0,)), x)) == 21
    assert work(equation_of(lambda x: lax.transpose(x, (1, 0)), x)) == 0
    assert work(equation_of(lax.dot, x, x.T)) == 2 * 3 * 7 * 3
