"""Comparisons of numbers that some devices flush to zero and others keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tests.helpers.accusations import against
from tests.helpers.programs import FEW, PARAMS, Case, X
from verifiable import challenge, program
from verifiable.check.analysis.subnormal import ambiguous
from verifiable.check.judging import evidence
from verifiable.jaxpr.blocks import Var
from verifiable.report import Verdict

pytestmark = pytest.mark.optimised

TINY = 1e-40


def gated(p: Any, x: Any) -> Any:
    """Open where an input is positive."""
    return jnp.where(x[:, ::2].repeat(2, axis=1) > 0, x, -1.0) @ p["square"]


def subnormal_input() -> Any:
    x = X.copy()
    x[0, 0] = TINY
    return x


def by_numpy(x: Any) -> Any:
    """A device that keeps subnormal numbers, or, given zeros in their place, one that does not."""
    return np.where(x[:, ::2].repeat(2, axis=1) > 0, x, np.float32(-1)) @ PARAMS["square"]


def test_a_device_that_keeps_and_one_that_flushes_are_both_not_rejected():
    x = subnormal_input()
    case = Case(gated, PARAMS, x)
    keeps, flushes = by_numpy(x), by_numpy(np.where(np.abs(x) < 1e-38, np.float32(0), x))
    assert (keeps != flushes).any()
    verdicts = {case.check(y, (y,)).verdict for y in (keeps, flushes)}
    assert Verdict.REJECT not in verdicts
    assert Verdict.ACCEPT in verdicts  # the one that agrees with the verifier


def test_evidence_frames_no_device_that_keeps_subnormal_numbers():
    """A judge that flushes, in both centres where the program itself is in float64."""
    x = X.astype(np.float64)
    x[0, 0] = 1e-310
    params = {"square": PARAMS["square"].astype(np.float64)}
    with jax.enable_x64(True):
        compiled = program.compile(gated, params, x, policy=FEW)
        for normal in (1e-300, 0.0):  # what keeping and what flushing leads to
            sent = compiled.prove(params, np.where(x == x[0, 0], normal, x))
            accused = against(compiled, sent)
            assert not evidence.verify_evidence(accused, compiled, params, x).guilty


def test_a_cheat_finds_no_shelter_in_a_comparison_of_normal_numbers():
    """Cheat: another model behind a comparison of inputs that are all normal."""
    case = Case(gated, PARAMS, X)
    assert case.program.analysis.flushable
    y = -np.asarray(case.y)
    report = case.check(y, (y,))
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")


def test_subnormal_numbers_that_nothing_compares_change_nothing():
    """Cheat: the same, in a job with subnormal numbers that only products read."""
    x = subnormal_input()
    case = Case(lambda p, x: jnp.tanh(x @ p["square"]) @ p["other"], PARAMS, x)
    report = case.check(claims=case.changed(0, lambda c: np.negative(c, out=c)))
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")


@pytest.mark.parametrize(
    ("before", "ties"),
    [
        (lambda p, x: jnp.where(x.T.reshape(x.shape) > 0, x, 1.0), {"gt"}),
        (lambda p, x: jnp.where(x.astype(jnp.bfloat16) > 0, x, 1.0), {"gt"}),
        (lambda p, x: jnp.where(x.astype(jnp.float16) > 0, x, 1.0), {"gt"}),
        (lambda p, x: jnp.sign(x), {"sign"}),
        (lambda p, x: jnp.where(p["scale"] > 0, x, 1.0), {"gt"}),
        (lambda p, x: jnp.where(jnp.arange(x.shape[1], dtype=jnp.float32) > 3, x, 1.0), set()),
        (lambda p, x: jnp.where(jnp.tanh(x) > 0, x, 1.0), set()),  # a discontinuity already
        (lambda p, x: jnp.maximum(x, 0), set()),
    ],
)
def test_ties_are_comparisons_of_inputs_and_parameters(before: Callable[..., Any], ties: Any):
    compiled = program.compile(lambda p, x: before(p, x) @ p["square"], PARAMS, X, policy=FEW)
    assert {name.rpartition("/")[2] for name in compiled.analysis.flushable} == ties
    assert {name.rpartition("/")[2] for name in compiled.claims[-1].flushable} == ties


def test_parameters_that_are_compared_must_be_normal():
    def fn(p: Any, x: Any) -> Any:
        return jnp.where(p["scale"] > 0, x, 1.0) @ p["square"]

    compiled = program.compile(fn, PARAMS, X, policy=FEW)
    compiled.setup(PARAMS, challenge.secret())
    # A parameter that no comparison reads may hold them.
    square = PARAMS["square"].copy()
    square[3, 3] = TINY
    compiled.setup(PARAMS | {"square": square}, challenge.secret())
    scale = PARAMS["scale"].copy()
    scale[3] = -TINY
    with pytest.raises(ValueError, match=r"gt compares parameters below .* set them to zero"):
        compiled.setup(PARAMS | {"scale": scale}, challenge.secret())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_subnormal_numbers_are_read_from_their_bits(dtype: Any):
    info = jnp.finfo(dtype)
    least, most = np.asarray(info.smallest_subnormal, dtype), np.asarray(info.tiny, dtype)
    variable = Var((), np.dtype(dtype))
    ties = {"gt": frozenset({variable})}
    for value in (0.0, -0.0, most, -most, np.inf, np.nan, 1.0):
        assert not ambiguous(ties, [variable], [np.asarray(value, dtype)])
    for value in (least, -least, np.nextafter(most, np.asarray(0, dtype))):
        for array in (np.asarray(value, dtype), np.asarray([1, value], dtype)):
            assert ambiguous(ties, [variable], [jax.device_get(array)]) == {"gt"}
