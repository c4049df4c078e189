"""One contraction verified without a program."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax

from tests.helpers.products import (
    ROWS,
    SECRET,
    SIZES,
    assert_accepted,
    assert_rejected,
    float_product,
    long_product,
    put,
    verify,
)
from verifiable.claims.products import freivalds
from verifiable.claims.products.standalone import verify_conv_general_dilated, verify_dot_general
from verifiable.policy import Policy
from verifiable.report import Verdict

# ------------------------------------------------------------------------------- the plain calls


def test_any_dimension_numbers():
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((3, 2, 4), (4, 2, 5)))
    numbers = (((2,), (0,)), ((1,), (1,)))
    right = np.asarray(lax.dot_general(a, b, numbers))
    assert_accepted(verify_dot_general(SECRET, a, b, right, numbers))
    assert_accepted(verify_dot_general(SECRET, *map(jnp.asarray, (a, b, right)), numbers))
    assert_rejected(verify_dot_general(SECRET, a, b, right[::-1], numbers))


def test_a_policy_of_the_callers_own():
    a, b, right = float_product("float32")
    wrong = put((2, 3), 10.0)(right, SIZES["float32"])
    lax_policy = Policy(eps=(("float32", 0.25),))
    assert_accepted(verify(a, b, wrong, policy=lax_policy))
    result = verify(a, b, right, policy=Policy(draws=3, phi=1e-6))
    assert result.bound == freivalds.bound(1e-6, ROWS, 3)
    with pytest.raises(ValueError, match="no tolerance for float32, only for float64"):
        verify(a, b, right, policy=Policy(eps=(("float64", 0.25),)))


@pytest.mark.parametrize("shape", [(), (0,), (6,), (24, 6), (6, 25), (1, 6, 24), (144,)], ids=str)
def test_a_claim_of_another_shape_is_rejected(shape: tuple[int, ...]):
    a, b, _ = float_product("float32")
    result = verify(a, b, np.zeros(shape, np.float32))
    assert (result.verdict, result.reason) == (Verdict.REJECT, "claim-shape")
    assert str(shape) in result.message
    assert "(6, 24)" in result.message
    assert not result.worst <= 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32", "bool", "complex64"])
def test_a_claim_of_another_type_is_rejected(dtype: str):
    """Its type decides the tolerance, so it is not the device's to choose."""
    a, b, right = float_product("float32")
    result = verify(a, b, right.astype(dtype))
    assert (result.verdict, result.reason) == (Verdict.REJECT, "claim-dtype")
    assert dtype in result.message
    assert "float32" in result.message
    a, b, right = long_product()
    result = verify(a, b, right.astype(np.int64))
    assert (result.verdict, result.reason) == (Verdict.REJECT, "claim-dtype")


@pytest.mark.parametrize(
    "claim", [None, "text", [[1.0]], object(), np.array(None), {}], ids=lambda c: type(c).__name__
)
def test_a_claim_that_is_no_array_is_rejected(claim: Any):
    a, b, _ = float_product("float32")
    result = verify(a, b, claim)
    assert result.verdict is Verdict.REJECT
    assert result.reason in ("claim-shape", "claim-dtype")


@pytest.mark.parametrize(
    ("lhs", "rhs", "out"),
    [
        ("int8", "int8", None),  # wraps to eight bits
        ("int8", "int8", "int16"),
        ("int8", "int8", "float32"),
        ("int8", "float32", "float32"),
        ("int16", "int16", "int32"),
        ("int32", "int32", "int32"),
        ("uint8", "uint8", "uint32"),
        ("bool", "bool", None),
        ("bool", "bool", "int32"),
        ("complex64", "complex64", None),
        ("float8_e4m3fn", "float8_e4m3fn", "float32"),
        ("object", "float32", None),
        ("float32", "<U1", None),
    ],
)
def test_other_types_are_the_callers_mistake(lhs: str, rhs: str, out: str | None):
    types = [getattr(ml_dtypes, d, d) for d in (lhs, rhs)]
    a, b = (np.zeros(s, t) for s, t in zip(((2, 3), (3, 2)), types, strict=True))
    with pytest.raises(TypeError, match="no check"):
        verify_dot_general(SECRET, a, b, np.zeros((2, 2)), preferred_element_type=out)


def test_what_might_wrap_is_the_callers_mistake():
    a, b = np.zeros((1, 131_072), np.int8), np.zeros((131_072, 1), np.int8)
    with pytest.raises(TypeError, match="may wrap"):
        verify(a, b, np.zeros((1, 1), np.int32))


@pytest.mark.parametrize("shapes", [((2, 3), (4, 2)), ((2, 3), (2, 3)), ((), (3,))], ids=str)
def test_operands_that_do_not_fit_are_the_callers_mistake(shapes: Any):
    a, b = (np.zeros(s, np.float32) for s in shapes)
    with pytest.raises(ValueError, match="shapes"):
        verify(a, b, np.zeros((2, 2), np.float32))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_convolutions(dtype: str):
    rng = np.random.default_rng(4)
    shapes = (2, 8, 7), (8, 4, 3)
    if dtype == "int8":
        x, kernel = (rng.integers(-128, 128, s).astype(np.int8) for s in shapes)
    else:
        x, kernel = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    out = jnp.int32 if dtype == "int8" else jnp.float32
    parameters: dict[str, Any] = {
        "feature_group_count": 2,
        "rhs_dilation": (2,),
        "preferred_element_type": out,
    }
    right = np.asarray(lax.conv_general_dilated(x, kernel, (2,), [(1, 2)], **parameters))
    result = verify_conv_general_dilated(SECRET, x, kernel, right, (2,), [(1, 2)], **parameters)
    assert_accepted(result)
    wrong = right.copy()
    wrong[1, 5, 2] += 1
    result = verify_conv_general_dilated(SECRET, x, kernel, wrong, (2,), [(1, 2)], **parameters)
    assert_rejected(result)
    result = verify_conv_general_dilated(SECRET, x, kernel, right[1:], (2,), [(1, 2)], **parameters)
    assert (result.verdict, result.reason) == (Verdict.REJECT, "claim-shape")


def test_convolutions_without_a_check_are_the_callers_mistake():
    x, kernel = np.zeros((2, 4, 5), np.float32), np.zeros((4, 4, 2), np.float32)
    with pytest.raises(TypeError, match="no check"):
        verify_conv_general_dilated(
            SECRET,
            x,
            kernel,
            np.zeros((1, 4, 4), np.float32),
            (1,),
            "VALID",
            batch_group_count=2,
        )


def test_a_result_can_be_required():
    a, b, right = float_product("float32")
    verify(a, b, right).require()
    with pytest.raises(Exception, match="claim-mismatch: worst ratio"):
        verify(a, b, -right).require()
