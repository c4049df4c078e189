"""The norms of columns and rows of a far operand, against sums in numpy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tests.helpers.contractions import matrix_form
from tests.helpers.products import weights_of
from verifiable.claims.extremes import tiny
from verifiable.claims.products import far_norms

FLUSHED = {np.float32: 2.0**-126, ml_dtypes.bfloat16: 2.0**-126}


def test_weights_are_those_of_the_text():
    b = np.random.default_rng(5).standard_normal((1, 6, 24)) * np.logspace(3, -3, 24)
    b[..., 7] = 0
    form = matrix_form(1, 6, 24)
    with jax.enable_x64(True):
        found = far_norms.column_weights(form, jnp.asarray(b[0]))
        none = far_norms.column_weights(form, jnp.zeros((6, 24)))
    np.testing.assert_allclose(found, weights_of(b), rtol=1e-12)
    assert np.all(np.isfinite(none))


def subnormals(b: Any) -> Any:
    """Which elements lie between zero and the smallest normal number, by their values."""
    wide = np.abs(b.astype(np.longdouble))
    return (wide > 0) & (wide < FLUSHED[b.dtype.type])


@pytest.mark.parametrize("columns", [24, 1300])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("lost", [0, 1, 40])
def test_rows_count_what_devices_may_flush(columns: int, dtype: Any, lost: int):
    """||B_k: * w||^2, and K (tiny w_j / eps)^2 for each subnormal element of the row."""
    rng = np.random.default_rng(lost)
    b = rng.standard_normal((6, columns)).astype(dtype)
    b.reshape(-1)[rng.choice(b.size, lost, replace=False)] = 1e-39
    b[2] = 0
    form, eps = matrix_form(1, 6, columns), 2.0**-100
    form = form.in_blocks() if columns > 600 else form
    w = rng.uniform(0.5, 2, columns)
    with jax.enable_x64(True):
        scaled = jnp.asarray(b.astype(np.float64) * w)
        found = far_norms.rows(form, scaled, jnp.asarray(b), jnp.asarray(w)[None], eps)
    squares = (b.astype(np.float64) * w) ** 2
    squares += 6 * (subnormals(b) * tiny(dtype) * w / eps) ** 2
    width = columns if form.blocks == 1 else form.width
    expected = np.sqrt(np.add.reduceat(squares, np.arange(0, columns, width), axis=1))
    assert found.shape == (6, form.blocks)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert (np.max(expected) > 1e-8) and (lost == 0 or np.any(subnormals(b)))
