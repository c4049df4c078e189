"""Every kind of contraction, with its law: jitted and op by op accepted, one element rejected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.programs import FEW, RNG, WIDTH, Case, X, weights
from verifiable.policy import Policy
from verifiable.report import Verdict

# Every kind of contraction, with its law: jitted and op by op accepted, one element rejected.


def einsum(equation: str) -> Callable[[Any, Any], Any]:
    return lambda p, x: jnp.einsum(equation, x, p, precision="highest")


@dataclass(frozen=True)
class Form:
    name: str
    fn: Any
    params: Any
    x: Any
    claims: int = 1
    policy: Policy = FEW


def conv(p: Any, x: Any) -> Any:
    return lax.conv_general_dilated(
        x, p, (2, 1), "SAME", rhs_dilation=(1, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def groups(p: Any, x: Any) -> Any:
    return lax.conv_general_dilated(
        x, p, (1,), [(1, 1)], dimension_numbers=("NCW", "OIW", "NCW"), feature_group_count=2
    )


def half(dtype: Any) -> Any:
    def fn(p: Any, x: Any) -> Any:
        return jnp.matmul(x, p, preferred_element_type=jnp.float32)

    return Form(
        f"{np.dtype(dtype).name} inputs",
        fn,
        weights(WIDTH, WIDTH).astype(dtype),
        X.astype(dtype),
    )


BYTES = RNG.integers(-128, 128, (WIDTH, WIDTH)).astype(np.int8)
FORMS = [
    Form("known right operand", lambda p, x: x @ p, weights(WIDTH, WIDTH), X),
    Form("known left operand", lambda p, x: p @ x.T, weights(WIDTH, WIDTH), X),
    Form(
        "batch",
        einsum("bij,bjk->bik"),
        weights(3, 128, 128),
        RNG.standard_normal((3, 8, 128)).astype(np.float32),
    ),
    Form("heads", einsum("tm,mhd->thd"), weights(WIDTH, 4, 16), X),
    Form("two contracted", einsum("thd,hdm->tm"), weights(2, 16, WIDTH), X.reshape(8, 2, 16)),
    Form(
        "both unknown",
        lambda p, x: (x * p) @ jnp.tanh(x.T),
        np.float32(2.0),
        RNG.standard_normal((128, 128)).astype(np.float32),
    ),
    Form(
        "convolution",
        conv,
        weights(3, 3, WIDTH, WIDTH),
        RNG.standard_normal((2, 6, 6, WIDTH)).astype(np.float32),
    ),
    Form(
        "feature groups",
        groups,
        weights(256, 32, 3),
        RNG.standard_normal((2, 64, 9)).astype(np.float32),
    ),
    half(np.float16),
    half(jnp.bfloat16),
    Form(
        "int8",
        lambda p, x: lax.dot(x, p, preferred_element_type=jnp.int32),
        BYTES,
        RNG.integers(-128, 128, (8, WIDTH)).astype(np.int8),
    ),
    Form(
        "uint8",
        lambda p, x: lax.dot(x, p, preferred_element_type=jnp.int32),
        BYTES.view(np.uint8),
        RNG.integers(0, 256, (8, WIDTH)).astype(np.uint8),
    ),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.name)
def test_contractions(form: Form) -> None:
    case = Case(form.fn, form.params, form.x, policy=form.policy)
    assert len(case.program.claims) == form.claims, str(case.program)
    np.testing.assert_array_equal(case.y, jax.jit(form.fn)(form.params, form.x))
    assert case.check().verdict is Verdict.ACCEPT, case.check()
    y, trace = case.op_by_op()
    assert case.check(y, trace.values).verdict is Verdict.ACCEPT

    def bump(c: Any) -> None:
        c.reshape(-1)[-3] += 1 if c.dtype == np.int32 else np.abs(c).max()

    report = case.check(claims=case.changed(0, bump))
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")


REPLAYED = [
    Form(
        "depthwise",
        lambda p, x: lax.conv_general_dilated(
            x, p, (1,), "SAME", dimension_numbers=("NCW", "OIW", "NCW"), feature_group_count=32
        ),
        weights(32, 1, 3),
        RNG.standard_normal((2, 32, 9)).astype(np.float32),
    ),
    Form(
        "int16",
        lambda p, x: lax.dot(x, p, preferred_element_type=jnp.int32),
        BYTES.astype(np.int16),
        BYTES.astype(np.int16),
    ),
    Form("int8 that wraps", lambda p, x: lax.dot(x, p), BYTES, BYTES),
    Form(
        "int8 that may wrap",
        lambda p, x: lax.dot(x, p, preferred_element_type=jnp.int32),
        np.ones((131_072, 2), np.int8),
        np.ones((2, 131_072), np.int8),
    ),
    Form("tiny", lambda p, x: x @ p, weights(4, 4), X[:, :4]),
    Form("known", lambda p, x: x + p @ p, weights(WIDTH, WIDTH), X[:1]),
]


@pytest.mark.parametrize("form", REPLAYED, ids=lambda f: f.name)
def test_replayed(form: Form) -> None:
    case = Case(form.fn, form.params, form.x)
    assert case.program.claims == ()
    assert case.check().verdict is Verdict.ACCEPT
    wrong = np.array(case.y)
    wrong.reshape(-1)[0] += 1
    report = case.check(wrong)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "output-mismatch")


def test_float64() -> None:
    with jax.enable_x64(True):
        x, w = X.astype(np.float64), weights(WIDTH, WIDTH, dtype=np.float64)
        case = Case(lambda p, x: jnp.tanh(x @ p), w, x)
        assert case.check().verdict is Verdict.ACCEPT
        assert case.check(*case.op_by_op()).verdict is Verdict.ACCEPT

        def bump(c: Any) -> None:
            c[3, 4] += 1e-9

        assert case.check(claims=case.changed(0, bump)).verdict is Verdict.REJECT
