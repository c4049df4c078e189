"""What is turned most easily in a row, for numbers of any magnitude."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from verifiable.check.freedom.closest import closest


@pytest.mark.parametrize("magnitude", [2.0**-110, 2.0**-70, 1.0, 2.0**70, 2.0**110])
@pytest.mark.parametrize("blocks", [(0, 0, 0), (0, 1, 1)])
def test_no_magnitude_hides_or_makes_a_near_tie(magnitude: float, blocks: tuple[int, ...]):
    values = np.float32([[1.0, 0.875, -2.0], [1.0, -3.0, 0.75]]) * np.float32(magnitude)
    room = np.float32([[0.03125, 0.0625, 0.25], [0.125, 0.0, 0.0]]) * np.float32(magnitude)
    arrays = (jnp.asarray(x) for x in (values, room, np.zeros_like(values), np.array(blocks)))
    found = closest(*arrays, count=1)
    first = 0.125 / (np.hypot(0.03125, 0.0625) if blocks[1] == 0 else 0.09375)
    np.testing.assert_allclose(found.kappa, [first, 2.0], rtol=1e-6)
    assert found.chosen.tolist() == [0, 0]
    assert found.other.tolist() == [1, 2]


def test_what_may_be_moved_without_limit_is_a_near_tie():
    values, room = np.float32([[2.0, 1.0]]), np.float32([[np.inf, np.inf]])
    found = closest(*map(jnp.asarray, (values, room, np.zeros_like(values), np.zeros(2, int))), 1)
    assert found.kappa.tolist() == [0.0]
