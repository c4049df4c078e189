"""Exact checks: over whole tiny fields, and integer products with their cheats."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.contractions import (
    contraction_of,
    matrix_form,
)
from tests.helpers.products import (
    LONG,
    SECRET,
    Array,
    added,
    assert_accepted,
    assert_rejected,
    exact_product,
    integers,
    long_product,
    public_challenge,
    statistics_of,
    verify,
)
from verifiable import challenge
from verifiable.field import F61, Field

# ------------------------------------------------------------------- exact: every vector there is


def rank(matrix: Array, p: int) -> int:
    """Rank modulo a prime, by elimination in plain integers."""
    rows = [[int(x) % p for x in row] for row in matrix]
    found = 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((r for r in rows[found:] if r[column]), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        inverse = pow(pivot[column], -1, p)
        pivot = [x * inverse % p for x in pivot]
        rows = [[(x - r[column] * y) % p for x, y in zip(r, pivot, strict=True)] for r in rows]
        rows.insert(found, pivot)
        found += 1
    return found


def every_vector(p: int, columns: int) -> Array:
    """(p^columns, columns, 1): all of F_p^columns."""
    return np.array(list(itertools.product(range(p), repeat=columns)), np.uint64)[..., None]


TINY = [(2, 4, 0), (3, 3, 0), (3, 3, 1), (5, 2, 0)]


@pytest.mark.parametrize(("exponent", "columns", "near"), TINY)
def test_over_a_tiny_field_a_wrong_product_is_accepted_by_one_in_p_to_its_rank(
    exponent: int, columns: int, near: int
):
    """So at most 1/p of all vectors, exactly as proven, and a right product by all of them."""
    field, rows, contracted = Field(exponent), 3, 2
    p = field.p
    rng = np.random.default_rng(exponent)
    left, right = (rows, columns) if near == 0 else (columns, rows)
    shapes = ((left, contracted), (contracted, right))
    operands = [rng.integers(-128, 128, s).astype(np.int8) for s in shapes]

    def product(a: Any, b: Any) -> Any:
        return lax.dot(a, b, preferred_element_type=jnp.int32)

    form = contraction_of(product, *operands, near=near)
    right_one = operands[0].astype(np.int32) @ operands[1].astype(np.int32)
    deviations = [np.zeros((rows, columns), np.int64)]
    for nonzero in range(1, rows + 1):
        for _ in range(6):
            deviation = np.zeros((rows, columns), np.int64)
            deviation[:nonzero] = rng.integers(-p, p + 1, (nonzero, columns))
            deviations.append(rng.permutation(deviation))
    for position in np.ndindex(rows, columns):
        deviations += [np.zeros((rows, columns), np.int64) for _ in range(2)]
        deviations[-2][position], deviations[-1][position] = 1, -(p - 1)
    signed = [d if near == 0 else d.T for d in deviations]
    run = statistics_of(form, eps=0.0, limit=1.0, field=field)
    found = run(
        operands[near],
        operands[1 - near],
        [(right_one + d).astype(np.int32) for d in signed],
        every_vector(p, columns),
    )
    accepted = found.passed.sum(axis=0)
    ranks = [rank(d, p) for d in deviations]
    assert {0, 1, 2} <= set(ranks)
    assert accepted.tolist() == [p ** (columns - r) for r in ranks]
    wrong = np.array([r > 0 for r in ranks])
    assert np.all(accepted[wrong] * p <= p**columns)
    assert np.array_equal(found.worst[..., ~wrong] == 0, found.passed[..., ~wrong])
    assert np.all((found.worst == 0) == found.passed)


def test_a_multiple_of_the_modulus_passes():
    """Which is why p is larger than the difference of any two accumulators of 32 bits."""
    field = Field(3)
    form = matrix_form(2, 3, 2, ("int8", "int8", "int32"))
    a, b = (np.arange(6, dtype=np.int8).reshape(s) for s in ((2, 3), (3, 2)))
    right = a.astype(np.int32) @ b.astype(np.int32)
    deviation = np.array([[7, -14], [0, 21]], np.int32)
    run = statistics_of(form, eps=0.0, limit=1.0, field=field)
    assert np.all(run(a, b, [right + deviation], every_vector(7, 2)).passed)
    accepted = run(a, b, [right + deviation + np.eye(2, dtype=np.int32)], every_vector(7, 2))
    assert accepted.passed.sum() == 1  # the zero vector
    assert F61.p > 2 * 2**31


def test_two_draws_square_the_probability():
    field = Field(2)
    form = matrix_form(1, 2, 2, ("int8", "int8", "int32"))
    a, b = np.array([[3, 4]], np.int8), np.array([[1, 2], [5, 6]], np.int8)
    right = a.astype(np.int32) @ b.astype(np.int32)
    singles = every_vector(3, 2)[..., 0]
    pairs = [np.stack(pair, axis=-1) for pair in itertools.product(singles, singles)]
    run = statistics_of(form, eps=0.0, limit=1.0, field=field)
    accepted = run(a, b, [right, right + np.array([[1, 0]], np.int32)], pairs).passed.sum(axis=0)
    assert accepted.tolist() == [81, 9]


# ------------------------------------------------------------------------------ exact: integers


@pytest.mark.parametrize("lhs", ["int8", "uint8"])
@pytest.mark.parametrize("rhs", ["int8", "uint8"])
def test_every_single_wrong_element_of_an_integer_product_is_rejected(lhs: str, rhs: str):
    a, b = integers((3, 5), lhs, 0), integers((5, 4), rhs, 1)
    right = exact_product(a, b)
    claims = [right]
    for position in np.ndindex(right.shape):
        for change in (1, -1, 256, 65536):
            claims.append(right.copy())
            claims[-1][position] += change
    form = matrix_form(3, 5, 4, (lhs, rhs, "int32"))
    gs = [SECRET.residues(f"test/{i}", (4, 1)) for i in range(3)]
    found = statistics_of(form, eps=0.0, limit=1.0)(a, b, claims, gs)
    assert np.all(found.passed[:, 0])
    assert not np.any(found.passed[:, 1:])
    rows = [position[0] for position in np.ndindex(right.shape) for _ in range(4)]
    assert np.all(found.row[:, 1:] == rows)
    assert_accepted(verify(a, b, right))
    assert_accepted(verify(a, b, right, public_challenge()))
    assert_rejected(verify(a, b, claims[1], public_challenge()))
    assert verify(a, b, right).exact


# layout, letters of the batch and of the columns, shapes, near operand, whether it is in place
LAYOUTS: list[tuple[str, str, str, tuple[int, ...], tuple[int, ...], int, bool]] = [
    ("abk,kn->abn", "", "n", (2, 3, 5), (5, 4), 0, True),
    ("akl,klmn->amn", "", "mn", (3, 2, 5), (2, 5, 4, 2), 0, True),
    ("bk,bkn->bn", "b", "n", (3, 5), (3, 5, 4), 0, True),
    ("abk,bkn->ban", "b", "n", (2, 3, 5), (3, 5, 4), 0, False),
    ("ka,kn->an", "", "n", (5, 3), (5, 4), 0, False),
    ("mk,kn->mn", "", "m", (3, 5), (5, 4), 1, False),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]}, near={layout[-2]}")
def test_residues_are_those_of_python_integers(layout: Any):
    """In one pass where the layout allows it: of extremes, in several draws, out of range too."""
    formula, batch, columns, *shapes, near, in_place = layout
    operands = [integers(shape, "int8", i) for i, shape in enumerate(shapes)]
    operands[near] = np.where(operands[near] > 0, 127, -128).astype(np.int8)
    product = functools.partial(jnp.einsum, formula, preferred_element_type=jnp.int32)
    form = contraction_of(product, *operands, near=near)
    assert form is not None
    assert form.exact_in_place == in_place
    *sides, result = formula.replace("->", ",").split(",")
    far, rows = sides[1 - near], "".join(x for x in result if x not in columns)
    summed = "".join(x for x in far if x in sides[near] and x not in batch)
    a, b = (x.astype(object) for x in operands)
    out, sizes = np.einsum(formula, a, b), dict(zip(far, shapes[1 - near], strict=True))
    g = SECRET.residues("layout", (form.columns, 2))
    r = g.astype(object).reshape([*(sizes[x] for x in columns), 2])
    image = np.einsum(f"{far},{columns}z->{batch}{summed}z", (a, b)[1 - near], r) % F61.p
    want = np.einsum(f"{result},{columns}z->{rows}z", out, r) % F61.p
    beyond = out.astype(np.int32)
    beyond[(0,) * out.ndim], beyond[(-1,) * out.ndim] = form.magnitude + 1, -(2**31)
    with jax.enable_x64(True):
        applied = form.apply_exactly(jnp.asarray(operands[near]), image.astype(np.uint64), F61)
        folded, all_in_range = form.fold_exactly(jnp.asarray(out.astype(np.int32)), g, F61)
        _, in_range = form.fold_exactly(jnp.asarray(beyond), g, F61)
    assert np.array_equal(applied, want.astype(np.uint64))
    assert np.array_equal(folded, applied)
    assert np.all(all_in_range)
    assert [np.ravel(in_range)[i] for i in (0, -1)] == [False, False]
    assert np.sum(~np.asarray(in_range)) == 2


@dataclass(frozen=True)
class Cheat:
    """A wrong claim by name."""

    name: str
    tamper: Callable[[Array], Array]
    reason: str = "claim-mismatch"


def opposite(claim: Array) -> Array:
    claim = claim.copy()
    claim[1, 0] += 1000
    claim[1, 1] -= 1000
    return claim


INTEGER_CHEATS = [
    Cheat("one more", added((1, 0), 1)),
    Cheat("one less", added((1, 1), -1)),
    Cheat("equal and opposite changes in a row", opposite),
    Cheat("another by 2^30", added((0, 1), -(2**30))),
    Cheat("a deviation of 2^31", added((0, 0), -(2**31))),
    Cheat("a wrap-around by 2^32 - 1", added((0, 0), 2**32 - 1)),
    Cheat("every sign flipped", np.negative),
    Cheat("rows swapped", lambda c: c[::-1]),
    Cheat("columns swapped", lambda c: c[:, ::-1]),
    Cheat("all zero", np.zeros_like),
    Cheat("the largest integer", lambda c: np.full_like(c, np.iinfo(np.int32).max), "claim-range"),
    Cheat("the smallest integer", lambda c: np.full_like(c, np.iinfo(np.int32).min), "claim-range"),
    Cheat("just out of range", lambda c: np.full_like(c, LONG * 2**14 + 1), "claim-range"),
    Cheat("just in range", lambda c: np.full_like(c, LONG * 2**14)),
]


@pytest.mark.parametrize("cheat", INTEGER_CHEATS, ids=lambda c: c.name)
def test_integer_cheats(cheat: Cheat):
    a, b, right = long_product()
    assert right[0, 0] > 2**30
    wrong = cheat.tamper(right)
    assert not np.array_equal(wrong, right)
    for seed in range(3):
        made = challenge.secret(seed.to_bytes(32, "big"))
        assert_rejected(verify(a, b, wrong, made), cheat.reason)


def test_the_extremes_of_the_accumulator_are_in_range():
    a, b, right = long_product()
    assert right.max() == LONG * 2**14
    assert_accepted(verify(a, b, right))


def test_a_check_modulo_two_to_the_32_would_miss_a_deviation_of_two_to_the_31():
    """Half of all vectors annihilate it there; modulo p not one in fifty does."""
    a, b, right = long_product()
    wrong = added((0, 0), -(2**31))(right)
    assert int(right[0, 0]) - int(wrong[0, 0]) == 2**31
    deviation = wrong.astype(object) - right.astype(object)
    rng = np.random.default_rng(0)
    draws = [[int(x) for x in rng.integers(0, 2**32, 2)] for _ in range(200)]
    naive = [all(x % 2**32 == 0 for x in deviation @ np.array(r, object)) for r in draws]
    assert 60 < sum(naive) < 140
    form = matrix_form(2, LONG, 2, ("int8", "int8", "int32"))
    gs = [SECRET.residues(f"modulus/{i}", (2, 1)) for i in range(20)]
    found = statistics_of(form, eps=0.0, limit=1.0)(a, b, [wrong], gs)
    assert np.all(found.in_range)
    assert not np.any(found.passed)


def test_signs_would_miss_equal_and_opposite_changes():
    """Half of all +-1 vectors do: the reason why none are drawn, neither here nor over floats."""
    right = long_product()[2]
    deviation = (opposite(right) - right).astype(np.int64)
    signs = np.random.default_rng(0).choice([-1, 1], (200, 2))
    missed = np.all(deviation @ signs.T == 0, axis=0).sum()
    assert 60 < missed < 140
