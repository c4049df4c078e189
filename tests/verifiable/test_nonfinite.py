"""Rows that are not finite: NaN is accepted where every device has it, numbers are rejected."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.programs import PARAMS, ROWS, Case, X
from verifiable.check.compiled import CheckArguments
from verifiable.claims.products import float32_test
from verifiable.report import Verdict


def masked(dtype: Any, p: Any, x: Any, used: Any) -> Any:
    """A row of minus infinity is all that a padding token may attend to: its softmax is NaN."""
    x, p = x.astype(dtype), {k: w.astype(dtype) for k, w in p.items()}
    scores = jnp.where(used[:, None] & used[None], x @ x.T, -jnp.inf)
    mixed = jax.nn.softmax(scores) @ jnp.where(used[:, None], x, 0)
    return jnp.where(used[:, None], jnp.tanh(mixed @ p["square"]) @ p["other"], 0)


USED = np.arange(ROWS) < ROWS - 3


@functools.cache
def case(dtype: str) -> Case:
    return Case(functools.partial(masked, jnp.dtype(dtype)), PARAMS, X, USED)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_of_nan_that_a_mask_takes_out_are_accepted(dtype: str):
    run = case(dtype)
    first = np.asarray(run.trace.values[-1]).astype(np.float32)
    assert np.isnan(first[~USED]).all()
    assert np.isfinite(first[USED]).all()
    for y, trace in ((run.y, run.trace), run.op_by_op()):
        assert np.isfinite(np.asarray(y).astype(np.float32)).all()
        report = run.check(y, trace.values)
        assert report.verdict is Verdict.ACCEPT, report


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_numbers_in_rows_of_nan_are_rejected_and_other_rows_are_judged(dtype: str):
    """Cheat: numbers where every honest device has NaN."""
    run = case(dtype)

    def numbers(claim: Any) -> None:
        claim[-1] = 1.0

    report = run.check(claims=run.changed(-1, numbers))
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")

    def wrong(claim: Any) -> None:
        claim[0] *= -1

    report = run.check(claims=run.changed(-1, wrong))
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_compiled_check_does_not_ask_which_rows_must_be_nan(dtype: str):
    """No branch for rows that are not finite, which are tested again outside of it.

    Elements of an output have one, for those whose own size decides, and so has each product that
    float32 tests, for the norms of its claim.
    """
    run = case(dtype)
    arguments = CheckArguments.of(run.key, run.inputs, run.y, run.trace)
    with jax.enable_x64(True):
        parts = run.program.compiled_check.parts
        texts = [part.lower(arguments).as_text() for part in parts]
    found = sum(text.count(x) for text in texts for x in ("stablehlo.case", "stablehlo.if"))
    sized = sum(output.glue is not None for output in run.program.outputs)
    policy, claims = run.program.policy, run.program.claims
    products = [(c, c.form.contraction) for c in claims if c.form.contraction is not None]
    cheap = sum(float32_test.suffices(of, policy.eps_of(c)) for c, of in products)
    assert cheap > 0
    assert found == sized + cheap
