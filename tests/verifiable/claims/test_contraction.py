"""What has a check, and what it costs."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.contractions import contraction_of, conv, matrix_form
from verifiable.claims.products import exposure, freivalds, nonfinite
from verifiable.claims.products.product import contraction

LEVELS = np.ones((4, 8), np.int8)


def product_of(lhs: str, rhs: str, out: str, contracted: int) -> Any:
    """The form of (4, contracted) @ (contracted, 4), or None."""

    def product(a: Any, b: Any) -> Any:
        return lax.dot_general(a, b, (((1,), (0,)), ((), ())), preferred_element_type=out)

    shapes = jax.ShapeDtypeStruct((4, contracted), lhs), jax.ShapeDtypeStruct((contracted, 4), rhs)
    return contraction_of(product, *shapes)


@pytest.mark.parametrize(
    ("lhs", "rhs", "longest"),
    [
        ("int8", "int8", 131_071),
        ("uint8", "uint8", 33_025),
        ("int8", "uint8", 65_793),
        ("uint8", "int8", 65_793),
    ],
)
def test_integers_have_a_check_where_they_cannot_wrap(lhs: str, rhs: str, longest: int):
    form = product_of(lhs, rhs, "int32", longest)
    assert form.exact
    extreme = [max(abs(int(np.iinfo(d).min)), int(np.iinfo(d).max)) for d in (lhs, rhs)]
    assert form.magnitude == longest * math.prod(extreme) <= 2**31 - 1
    assert product_of(lhs, rhs, "int32", longest + 1) is None


@pytest.mark.parametrize(
    ("lhs", "rhs", "out"),
    [
        ("int8", "int8", "int8"),  # wraps to eight bits
        ("int8", "int8", "int16"),
        ("int8", "int8", "float32"),
        ("uint8", "uint8", "uint32"),
        ("int16", "int16", "int32"),
        ("int32", "int32", "int32"),
        ("complex64", "complex64", "complex64"),
    ],
)
def test_other_types_have_none(lhs: str, rhs: str, out: str):
    assert product_of(lhs, rhs, out, 2) is None


@pytest.mark.parametrize(
    ("lhs", "rhs", "out"),
    [
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("bfloat16", "bfloat16", "float32"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("float16", "float16", "float32"),
        ("float16", "float16", "float16"),
        ("bfloat16", "float32", "float32"),
    ],
)
def test_floats_have_a_check(lhs: str, rhs: str, out: str):
    form = product_of(lhs, rhs, out, 2)
    assert form is not None
    assert not form.exact
    assert tuple(d.name for d in form.dtypes) == (lhs, rhs, out)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)], ids=str)
def test_empty_products_have_none(shape: tuple[int, int, int]):
    rows, contracted, columns = shape
    operands = np.zeros((rows, contracted)), np.zeros((contracted, columns))
    assert contraction_of(lax.dot, *operands) is None


def test_a_check_is_cheaper_than_a_wide_product_and_dearer_than_a_thin_one():
    wide, thin = matrix_form(128, 512, 512), matrix_form(128, 512, 2)
    assert wide.check_cost(16, far_known=True) < wide.work / 5
    assert thin.check_cost(16, far_known=True) > thin.work
    assert wide.check_cost(16, far_known=True) < wide.check_cost(16, far_known=False)
    assert wide.check_cost(16, far_known=True) < wide.check_cost(32, far_known=True)
    depthwise = contraction(conv(feature_group_count=4))
    assert depthwise is not None
    assert depthwise.check_cost(16, far_known=True) > depthwise.work


@pytest.mark.parametrize(
    ("batch", "far_known", "each"),
    [
        (1, True, lambda t: 2 * t + 16),
        (1, False, lambda t: 2 * t + 16),
        (6, True, lambda t: 4 * (2 * t + 16)),
        (6, False, lambda t: 2 * t + 400),
    ],
)
def test_costs_are_those_of_the_specification(batch: int, far_known: bool, each: Any):
    operands = np.zeros((batch, 3, 5)), np.zeros((batch, 5, 7))
    form = contraction_of(lax.batch_matmul, *operands)
    assert form is not None
    elements = batch * (3 * 5 + 3 * 7 + (0 if far_known else 5 * 7))
    for draws in (1, 4, 16):
        assert form.check_cost(draws, far_known=far_known) == elements * each(draws)


@pytest.mark.parametrize("draws", [1, 4, 16])
def test_attention_is_replayed_however_few_the_draws(draws: int):
    def scores(heads: int, tokens: int, size: int) -> Any:
        x = jax.ShapeDtypeStruct((heads, tokens, size), np.float32)
        return contraction_of(lambda q, k: jnp.einsum("hqd,hkd->hqk", q, k), x, x)

    small, large = scores(8, 2048, 64), scores(2, 4096, 1024)
    assert small.check_cost(draws, far_known=False) > small.work
    assert large.check_cost(draws, far_known=False) < large.work


def test_integers_have_no_norms():
    form = matrix_form(4, 8, 6, ("int8", "int8", "int32"))
    none: Any = SimpleNamespace(image=None, weights=None, norms=None, floor=None, energy=None)
    for use in (
        lambda: freivalds.piece(none, 0, 0, 1),
        lambda: freivalds.deviations(form, none, none, LEVELS, LEVELS, 0.1),
        lambda: exposure.moved(form, LEVELS, none, LEVELS),
    ):
        with pytest.raises(ValueError, match="integers"):
            use()
    assert not np.any(nonfinite.unfounded(form, LEVELS, none, LEVELS))


def test_a_convolution_has_no_rows_of_its_own_and_no_axis_to_add_up():
    """An element of the image belongs to several rows of the product."""
    form: Any = contraction(conv(), 0)
    assert form.near_rows(np.zeros(form.shapes[0])) is None
    assert form.contracted_axes() == {}
    with pytest.raises(ValueError, match="axis 1"):
        form.cut_contracted(1, 2)


def test_a_vector_has_no_rows_that_can_be_cut():
    form: Any = contraction_of(lambda a, b: a @ b, np.zeros(8), np.zeros((8, 6)))
    assert form.row_axes() is None
    with pytest.raises(ValueError, match="no rows"):
        form.cut(1)
