"""Wide products in blocks of columns: as linear maps, where they apply, and what they stop."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.contractions import assert_close, contraction_of
from verifiable import challenge, freivalds, program
from verifiable.claims import contraction
from verifiable.claims.contraction import BLOCK
from verifiable.claims.products import dot_general
from verifiable.policy import Policy
from verifiable.report import Verdict

RNG = np.random.default_rng(61)
ROWS, INNER, COLUMNS = 4, 32, 1100  # two blocks, and what is left
W = (RNG.standard_normal((INNER, COLUMNS)) / 6).astype(np.float32)
X = RNG.standard_normal((ROWS, INNER)).astype(np.float32)
SECRET = challenge.secret(b"tests of blocks of columns       "[:32])
EPS = 2.0**-24 * (16 + INNER**0.5)


@pytest.mark.parametrize("near", [0, 1])
@pytest.mark.parametrize("columns", [(12,), (10,), (5, 2)], ids=str)
def test_the_maps_of_every_block(
    monkeypatch: pytest.MonkeyPatch, near: int, columns: tuple[int, ...]
):
    """Each block has the maps of its own columns; `width` is the length of the vectors."""
    for module in (contraction, dot_general):
        monkeypatch.setattr(module, "BLOCK", 4)
    n = int(np.prod(columns))
    a, b = RNG.standard_normal((2, 3, 6)), RNG.standard_normal((6, *columns))

    def product(x: Any, y: Any) -> Any:
        return jnp.tensordot(x, y, ((2,), (0,))) if near == 0 else jnp.tensordot(x, y, ((0,), (2,)))

    operands = (a, b) if near == 0 else (b, a)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands]
    with jax.enable_x64(True):
        found = contraction_of(product, *shapes, near=near)
        assert found is not None
        form = found.in_blocks()
        out = product(*operands)
        g = RNG.standard_normal((form.width, 3))
        values = RNG.standard_normal((2, 3, form.blocks))
        image = form.project(b, g)
        applied, folded = form.apply(a, image), form.fold(out, g)
        sums, wide = form.out_sums(out), form.over_rows(values)
        weighed, energy = form.weigh(a, np.abs(form.project(b, g[:, :1])))
        near_sums = form.near_sums(a, form.project(b, np.ones((form.width, 1))))
    assert (form.blocks, form.width, form.tests) == (-(-n // 4), 4, 6 * form.blocks)
    assert form.vectors(far_known=True) == "float/parameters/4"
    c = (a.reshape(6, 6) @ b.reshape(6, n)).reshape(2, 3, n)
    cuts = [slice(i, min(i + 4, n)) for i in range(0, n, 4)]
    each = [c[..., s] @ g[: s.stop - s.start] for s in cuts]
    assert_close(np.asarray(folded), np.stack(each, axis=2))
    assert_close(np.asarray(applied), np.stack(each, axis=2))
    assert_close(np.asarray(sums), np.stack([c[..., s].sum(-1) for s in cuts], axis=-1))
    assert_close(np.asarray(near_sums), np.asarray(sums))
    moved = np.moveaxis(np.asarray(wide), *(((), ()) if near == 0 else ((-2, -1), (0, 1))))
    assert_close(moved.reshape(2, 3, n), np.repeat(values, 4, axis=-1)[..., :n])
    norms = np.stack([b.reshape(6, n)[:, s] @ g[: s.stop - s.start, :1] for s in cuts], 1)[..., 0]
    assert_close(np.asarray(energy), np.square(a) @ np.square(norms))
    np.testing.assert_array_equal(np.asarray(weighed), a)


@pytest.mark.parametrize("columns", [BLOCK, 2 * BLOCK], ids=str)
def test_a_row_of_one_block_is_tested_as_a_whole(columns: int):
    shapes = [jax.ShapeDtypeStruct(s, np.float32) for s in ((3, 4), (4, columns))]
    form = contraction_of(jnp.matmul, *shapes)
    assert form is not None
    assert form.in_blocks().blocks == columns // BLOCK


def blocks_of(fn: Any, w: Any, x: Any) -> int:
    """How many blocks the last product of a program has."""
    made = program.compile(fn, w, x, policy=Policy(draws=4), self_test=False)
    product = next(c.form.contraction for c in reversed(made.claims) if c.form.contraction)
    return product.blocks


WIDE: dict[str, tuple[int, Any]] = {
    "the answer itself": (3, lambda w, x: x @ w),
    "an argmax": (3, lambda w, x: jnp.argmax(jnp.tanh(x @ w), -1)),
    "top_k": (3, lambda w, x: lax.top_k(x @ w, 5)[1]),
    "an argmax in a scan": (
        3,
        lambda w, x: lax.scan(lambda c, r: (c, jnp.argmax((r @ w) * 2, -1)), 0, x[:, None])[1],
    ),
    "another product behind it": (1, lambda w, x: jnp.tanh(x @ w) @ w[:8].T @ jnp.ones((8, 8))),
}


@pytest.mark.parametrize("name", WIDE)
def test_only_what_decides_is_tested_in_blocks(name: str):
    blocks, fn = WIDE[name]
    assert blocks_of(fn, W, X) == blocks


def test_a_narrow_last_layer_is_not_cut_unless_a_choice_is_made_from_it():
    w, x = np.ones((BLOCK + 64, BLOCK + 32), np.float32), np.ones((8, BLOCK + 64), np.float32)
    assert blocks_of(lambda w, x: x @ w, w, x) == 1
    assert blocks_of(lambda w, x: jnp.argmax(x @ w, -1), w, x) == 2


def spent(size: float) -> Any:
    """The cheat: a multiple of what one whole row may deviate by, spent on one element."""
    b, right = W.astype(np.float64), (X.astype(np.float64) @ W).astype(np.float64)
    w = 1 / np.linalg.norm(b, axis=0)
    scale = np.sqrt(np.square(X) @ np.square(b * w).sum(1) + np.square(right * w).sum(1))
    wrong = right.copy()
    wrong[2, 700] += size * EPS * scale[2] / w[700]
    return right.astype(np.float32), wrong.astype(np.float32)


def test_the_freedom_of_a_row_spent_on_one_column_is_caught(monkeypatch: pytest.MonkeyPatch):
    """It passes as a deviation of the whole row; its block has a third of the tolerance."""
    right, wrong = spent(1.6)
    assert freivalds.verify_dot_general(SECRET, X, W, right).verdict is Verdict.ACCEPT
    result = freivalds.verify_dot_general(SECRET, X, W, wrong)
    assert (result.verdict, result.reason, result.row) == (Verdict.REJECT, "claim-mismatch", 2)
    assert result.bound is not None
    assert result.bound.rows == 3 * ROWS
    monkeypatch.setattr(dot_general.DotGeneral, "in_blocks", lambda form: form)
    same = Policy(eps=(("float32", EPS),))
    assert freivalds.verify_dot_general(SECRET, X, W, wrong, policy=same).verdict is Verdict.ACCEPT


def test_a_second_look_and_evidence_judge_by_blocks():
    made = program.compile(lambda w, x: jnp.tanh(x) @ w, W, X, policy=Policy(draws=8))
    key, sent = made.setup(W, SECRET), made.prove(W, X)
    assert made.verify(key, X, sent, commitment=sent.commitment).verdict is Verdict.ACCEPT
    [claim] = (np.array(v) for v in sent.trace.values)
    claim[2, 700] += np.float32(1e-2)
    report = made.check(key, X, y=claim, trace=[claim])
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")
    assert report.results[0].row == 2
    assert made.bound is not None
    assert made.bound.rows == 3 * ROWS
