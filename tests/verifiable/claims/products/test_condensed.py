"""Projections in float32: what their rounding moves."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from tests.helpers.products import SECRET
from verifiable.claims.products import condensed, freivalds
from verifiable.claims.products.dot_general import DotGeneral

ROWS, INNER = 64, 128
FLOAT: np.dtype[Any] = np.dtype("float32")


def form(columns: int) -> DotGeneral:
    return DotGeneral(
        near=0,
        shapes=((ROWS, INNER), (INNER, columns), (ROWS, columns)),
        dtypes=(FLOAT, FLOAT, FLOAT),
        batch=1,
        rows=ROWS,
        contracted=INNER,
        columns=columns,
        contracting=((1,), (0,)),
        batching=((), ()),
    )


FORMS = {"whole": form(96), "blocks": form(600).in_blocks()}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("size", [1.0, 2.0**90, 2.0**-90])
def test_a_projection_in_float32_moves_rho_by_a_hundredth_of_sigma(name: str, size: float):
    """At the smallest tolerance for which a key holds it so; weights and norms are not rounded."""
    of, eps = FORMS[name], 40 * 2.0**-24
    assert condensed.fine(of, eps)
    assert not condensed.fine(of, 0.99 * eps)
    rng = np.random.default_rng(7)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in of.shapes[:2])
    b = np.float32(size) * b
    b[3] *= np.float32(2.0**-30)
    with jax.enable_x64(True):
        g = freivalds.vectors(SECRET, of.vectors(far_known=True), 16)
        exact = freivalds.project(of, b, g, eps=eps)
        kept = condensed.in_float64(of, condensed.in_float32(of, exact))
        for field in ("weights", "norms", "floor"):
            assert np.array_equal(getattr(kept, field), getattr(exact, field))
        out = np.asarray(a.astype(np.float64) @ b)
        moved = []
        for projection in (kept, exact):
            applied = freivalds.apply(of, a, projection)
            rho, _, sigma, _ = freivalds.deviations(of, applied, projection, out, g, eps)
            moved.append(np.asarray(rho / sigma[..., None]))
    assert np.sqrt(np.mean((moved[0] - moved[1]) ** 2)) <= 0.01
    assert np.max(np.abs(moved[0] - moved[1])) <= 0.05
