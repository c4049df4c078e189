"""Claims of some rows: the smaller claim says of its rows what the whole one says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import verifiable as vf
from verifiable import challenge
from verifiable.claims.cut import CutForm
from verifiable.claims.decisions.decision import Comparison, Sign
from verifiable.claims.form import Yardstick
from verifiable.claims.lookup import Lookup
from verifiable.claims.products import freivalds
from verifiable.claims.products.dot_general import DotGeneral
from verifiable.claims.products.product import Product
from verifiable.claims.roundings.axes import LAST
from verifiable.claims.selected_rows import row_subset

F32 = np.dtype(np.float32)
RNG = np.random.default_rng(1)
A = RNG.standard_normal((3, 8, 4, 6)).astype(np.float32)  # a batch of three
B = RNG.standard_normal((3, 6, 5)).astype(np.float32)
ROWS = np.array([1, 2, 6])


@pytest.mark.parametrize("near", [0, 1])
def test_rows_of_a_product_keep_their_ratios(near: int):
    """Along an axis of rows that is neither the longest nor the only one."""
    operands = (A, B) if near == 0 else (B, A)
    contracting = ((3,), (1,)) if near == 0 else ((1,), (3,))
    dims = (contracting, ((0,), (0,)))
    out = np.array(lax.dot_general(*operands, dims, precision=lax.Precision.HIGHEST))
    axis = 1 if near == 0 else 2  # of length 8, of A's free axes (8, 4)
    place = [2, 6, 3, 1] if near == 0 else [2, 1, 6, 3]
    out[tuple(place)] += 0.1
    maps = DotGeneral(
        near=near,
        shapes=(operands[0].shape, operands[1].shape, out.shape),
        dtypes=(F32, F32, F32),
        batch=3,
        rows=32,
        contracted=6,
        columns=5,
        contracting=contracting,
        batching=((0,), (0,)),
    )
    form = Product(maps=maps, far_known=False)
    found = row_subset(form, out.shape, axis, len(ROWS))
    assert found is not None
    assert found.near == 1
    assert isinstance(found.form, Product)
    near_part, part = A.take(ROWS, axis=1), out.take(ROWS, axis=axis)

    def ratios(g: Any) -> tuple[Any, Any]:
        given = Yardstick(eps=1e-5, limit=60.0, vectors=g)
        given = replace(given, projection=form.project(jnp.asarray(B), given))
        pairs = (form, A, out), (found.form, near_part, part)
        whole, own = (
            f.rows([jnp.asarray(a)], jnp.asarray(c), given, again=False) for f, a, c in pairs
        )
        return whole.ratio.reshape(-1), own.ratio.reshape(-1)

    with jax.enable_x64(True):
        vectors = freivalds.vectors(challenge.secret(bytes(32)), form.vectors, 4)
        whole, own = map(np.asarray, jax.jit(ratios)(vectors))
    numbers = found.numbers(out.shape, axis, ROWS)
    np.testing.assert_allclose(own, whole[numbers], rtol=1e-6)
    assert own.max() > 1 > np.sort(own)[-2]
    # Columns and products of a batch are not rows.
    assert row_subset(form, out.shape, 0, 2) is None
    assert row_subset(form, out.shape, 3 if near == 0 else 1, 2) is None


def test_elements_are_tested_along_any_axis_but_the_last():
    shape, given = (4, 8, 6), Yardstick(eps=1e-5)
    v = RNG.standard_normal(shape).astype(np.float32)
    cut = CutForm(steps=(), source=F32, dtype=F32, ways=(LAST,))
    sign = Sign(shape=shape, dtype=F32)
    above = Comparison(kind="gt", shape=shape, dtype=F32, inexact=(True, False))
    cases: list[tuple[Any, Any, Any]] = [
        (cut, v, v + np.float32(1e-3)),
        (sign, np.sign(v).astype(np.int8), np.sign(-v).astype(np.int8)),
        (above, np.packbits(v > 0, axis=-1, bitorder="little"), np.zeros((4, 8, 1), np.uint8) + 21),
    ]
    for form, honest, wrong in cases:
        found = row_subset(form, shape, 1, len(ROWS))
        assert found is not None
        assert found.near == 1
        claim = np.array(honest)
        claim[2, 6] = wrong[2, 6]
        others = [jnp.float32(0)] if form is above else []
        pairs = (form, v, claim), (found.form, v.take(ROWS, axis=1), claim.take(ROWS, axis=1))
        with jax.enable_x64(True):
            whole, own = (
                jax.jit(f.test, static_argnums=2)([x, *others], c, given) for f, x, c in pairs
            )
        assert not whole.passed
        assert not own.passed
        assert found.numbers(shape, 1, ROWS)[int(own.row)] == int(whole.row) == 2 * 8 + 6
        assert row_subset(form, shape, 2, 1) is None
    assert above.decisions == 192
    kept = row_subset(above, shape, 1, 3)
    assert kept is not None
    assert kept.form.decisions == 72


def test_rows_of_a_lookup_are_those_of_its_indices():
    table = jnp.asarray(RNG.standard_normal((200, 5)), jnp.float32)
    indices = jnp.asarray(RNG.integers(0, 200, (2, 8)))
    program = vf.compile(lambda p, i: jnp.sin(p[i]), table, indices, self_test=False)
    [claim] = program.claims
    form, shape = claim.form, claim.output.shape
    assert isinstance(form, Lookup)
    found = row_subset(form, shape, 1, len(ROWS))
    assert found is not None
    assert row_subset(form, shape, 2, 1) is None
    out, place = np.array(table[indices]), np.asarray(indices)[..., None]
    out[1, 6, 2] += 1
    with jax.enable_x64(True):
        g = freivalds.vectors(challenge.secret(bytes(32)), form.vectors, 2)
        given = Yardstick(eps=0.0, limit=0.0, vectors=g)
        given = replace(given, projection=form.project(table, given))
        whole = form.test([jnp.asarray(place)], jnp.asarray(out), given)
        near, part = place.take(ROWS, axis=found.near), out.take(ROWS, axis=1)
        own = found.form.test([jnp.asarray(near)], jnp.asarray(part), given)
        rest = [r for r in range(8) if r not in ROWS]
        other = row_subset(form, shape, 1, len(rest))
        assert other is not None
        fine = other.form.test(
            [jnp.asarray(place.take(rest, axis=1))], jnp.asarray(out.take(rest, axis=1)), given
        )
    assert not whole.passed
    assert not own.passed
    assert fine.passed
    assert found.numbers(shape, 1, ROWS)[int(own.row)] == int(whole.row) == 14


def test_rows_along_other_axes_are_tested_whole():
    form = CutForm(steps=(), source=F32, dtype=F32, ways=((1,), LAST))
    assert row_subset(form, (4, 8, 6), 0, 1) is None
