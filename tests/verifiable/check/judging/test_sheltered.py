"""What is not finite shelters no cheat, and frames no honest device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.accusations import against
from tests.helpers.runs import ACCEPT, INDETERMINATE, REJECT, SECRET_SEED
from verifiable import challenge, program
from verifiable.check.compiled import CheckArguments
from verifiable.check.judging.evidence import verify_evidence
from verifiable.check.specification import Target
from verifiable.policy import Policy
from verifiable.report import Report
from verifiable.trace import Trace

ROWS, WIDTH = 8, 32
POLICY = Policy(draws=4)
RNG = np.random.default_rng(5)
W = (RNG.standard_normal((3, WIDTH, WIDTH)) / 6).astype(np.float32)
NOISE = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)
EMPTY = 3  # a row of zeros


def made(fn: Callable[..., Any], x: Any) -> SimpleNamespace:
    compiled = program.compile(fn, W, x, policy=POLICY)
    key = compiled.setup(W, challenge.secret(SECRET_SEED))
    y, trace = jax.device_get(jax.jit(compiled.execute)(W, x))
    values = [np.array(v) for v in trace.values]
    return SimpleNamespace(program=compiled, key=key, x=x, y=y, values=values)


def checked(case: SimpleNamespace, y: Any, values: Any) -> Report:
    return case.program.check(case.key, case.x, y=y, trace=values)


# ------------------------------------------------------------------- decisions that make it


def guarded(w: Any, x: Any) -> Any:
    """A quotient, a logarithm and a root behind comparisons that keep them finite."""
    h = x @ w[0]
    n = jnp.sum(h * h, -1, keepdims=True)
    ratio = jnp.where(n > 0, h / n, 0)
    log = jnp.where(h * n > 0, jnp.log(h * n), 0)
    return jnp.tanh(h + jnp.tanh(ratio @ w[1]) + jnp.tanh(log @ w[1])) @ w[2]


@functools.cache
def quotients() -> SimpleNamespace:
    x = NOISE.copy()
    x[EMPTY] = 0
    return made(guarded, x)


def test_honest_guards_are_accepted():
    case = quotients()
    assert [v.dtype.name for v in case.values].count("uint8") == 2
    assert checked(case, case.y, case.values).verdict is ACCEPT
    with jax.disable_jit():
        y, trace = case.program.execute(W, case.x)
    assert checked(case, y, trace.values).verdict is ACCEPT


def test_an_output_also_reads_the_claim_of_its_own_number():
    """Or a cheat in it, which makes the output not finite, would not be looked for."""
    compiled = program.compile(lambda w, x: jnp.tanh(x @ w[0]), W, NOISE, policy=POLICY)
    look = compiled.compiled_check.second_look
    assert look.reads(Target(output=True, index=0)) == {0}
    assert not look.reads(Target(output=False, index=0))


@pytest.mark.parametrize("decision", [0, 1])
@pytest.mark.parametrize("behind", ["numbers", "nan"])
def test_a_tie_that_no_rounding_moves_launders_nothing(decision: int, behind: str):
    """Cheat: an exact zero counts as positive, and the claim after it is made up, or NaN."""
    case = quotients()
    values = [v.copy() for v in case.values]
    place = [i for i, v in enumerate(values) if v.dtype == np.uint8][decision]
    values[place][EMPTY] ^= 1
    [_, *products, _] = [i for i, v in enumerate(values) if v.dtype == np.float32]
    values[products[decision]][EMPTY] = 7 if behind == "numbers" else np.nan
    report = checked(case, case.y, values)
    assert report.verdict is REJECT, report
    assert report.reason in ("claim-mismatch", "decision-ties", "output-mismatch"), report


# What a cheat makes not finite in a row of zeros, of the claim h and its squared norm n.
MADE: dict[str, Callable[[Any, Any], Any]] = {
    "a root below zero": lambda h, n: jnp.where(n > 0, jnp.sqrt(n - 1e-3) + h, h),
    "an arc cosine beyond one": lambda h, n: jnp.where(n > 0, jnp.arccos(2 / (1 + 9 * n)) + h, h),
    "an overflow": lambda h, n: jnp.where(n > 0, jnp.exp(99 / (1 + n)) * h, h),
    "a rounding": lambda h, n: h + jnp.where(n > 0, 0, jnp.log(0.5 + jnp.floor(h * 3))),
}


@pytest.mark.parametrize("name", MADE)
def test_what_a_cheat_makes_not_finite_shelters_no_numbers(name: str):
    """Cheat: an exact tie is decided or rounded the other way, before made-up numbers."""

    def fn(w: Any, x: Any) -> Any:
        h = x @ w[0]
        n = jnp.sum(h * h, -1, keepdims=True)
        return jnp.tanh(MADE[name](h, n)) @ w[1]

    x = NOISE.copy()
    x[EMPTY] = 0
    case = made(fn, x)
    assert checked(case, case.y, case.values).verdict is ACCEPT
    values = [v.copy() for v in case.values]
    if name == "a rounding":
        [place] = [
            i for i, v in enumerate(values) if v.dtype == np.float32 and (v == np.floor(v)).all()
        ]
        values[place][EMPTY] = -1
    else:
        [place] = [i for i, v in enumerate(values) if v.dtype == np.uint8]
        values[place][EMPTY] ^= 1
    y = np.array(case.y)
    y[EMPTY] = values[-1][EMPTY] = 7
    assert checked(case, y, values).verdict is REJECT


def test_a_tie_that_rounding_moves_is_not_rejected():
    """Honest: the device's value is on the other side of zero, where the logarithm exists."""

    def fn(w: Any, x: Any) -> Any:
        h = jnp.exp(x)
        v = h * 0.3 + h * 0.7 - h
        return jnp.where(v > 0, jnp.log(v), 0) @ w[0]

    case = made(fn, NOISE)
    values = [v.copy() for v in case.values]
    values[0] ^= 255
    claim = np.full((ROWS, WIDTH), -3, np.float32)
    assert checked(case, claim, [values[0], claim]).verdict is INDETERMINATE


@pytest.mark.parametrize(("size", "verdict"), [(3, REJECT), (ROWS, INDETERMINATE)])
def test_numbers_where_devices_may_choose_are_not_unfounded(size: int, verdict: Any):
    """Sizes of groups whose sum is larger than the number of rows are defined nowhere."""
    case = experts()
    x, sizes = NOISE, np.array([size, size, 1], np.int32)
    y = np.zeros((ROWS, WIDTH), np.float32)
    assert checked(SimpleNamespace(**{**vars(case), "x": (x, sizes)}), y, [y]).verdict is verdict


@pytest.mark.parametrize("row", [0, 3, 6])
@pytest.mark.parametrize("kind", ["product", "rounding", "output"])
def test_the_row_with_numbers_where_no_device_has_any_is_named(kind: str, row: int):
    """Cheat: zeros in one row of what is NaN on every device."""
    case = {"product": experts, "rounding": floors, "output": logarithms}[kind]()
    y, values = np.array(case.y), [v.copy() for v in case.values]
    wrong = [y] if kind == "output" else [y, values[-1]]
    for value in wrong:
        assert np.isnan(value[row]).any()
        value[row] = 0
    report = checked(case, y, values)
    assert report.verdict is REJECT
    [result] = [r for r in report.results if r.verdict is REJECT]
    assert (result.name == "output") == (kind == "output")
    assert (result.row, result.trip) == (row, 0)


@functools.cache
def experts() -> SimpleNamespace:
    """The logarithm of noise, much of it negative, times a matrix for each group of rows."""
    x = NOISE, np.array([3, 3, 1], np.int32)
    return made(lambda w, x: jax.lax.ragged_dot(jnp.log(x[0]), w, x[1]), x)


@functools.cache
def logarithms() -> SimpleNamespace:
    return made(lambda w, x: jnp.log(x @ w[0]), NOISE)


@functools.cache
def floors() -> SimpleNamespace:
    return made(lambda w, x: jnp.floor(jnp.log(x @ w[0]) * 3), NOISE)


@pytest.mark.optimised
def test_numbers_of_devices_that_put_factors_together_are_founded():
    """Honest: on others, and in float64, a factor overflows before the next makes it small."""
    with jax.enable_x64(True):
        x = NOISE.astype(np.float64) * 10
        case = made(lambda w, x: (x * 1e308 * 1e-300) @ w[0], x)
        arguments = CheckArguments.of(case.key, (x,), case.y, Trace(values=tuple(case.values)))
        if not np.isfinite(case.y).all():
            pytest.skip("this XLA leaves the factors apart")
        look = case.program.compiled_check.second_look
        assert not look.unfounded(arguments, Target(output=False, index=0)).wrong


# ------------------------------------------------------------------- flips of many claims


def unrolled(w: Any, x: Any) -> Any:
    """Comparisons of one number each."""
    h, out = jnp.exp(x[0]), x
    for i in range(8):
        out = jnp.where(h[i] * 0.3 + h[i] * 0.7 < h[i] * (1 + x[1, i]), out, -out)
    return out @ w[0]


@pytest.mark.parametrize(("distance", "verdict"), [(3e-6, REJECT), (0.0, ACCEPT)])
def test_flips_of_many_claims_are_held_together(distance: float, verdict: Any):
    """Cheat: one flip in each claim of one decision, where other rounding turns none.

    Where they are ties in exact arithmetic, they are a device's own.
    """
    x = NOISE.copy()
    x[1, :8] = distance
    case = made(unrolled, x)
    assert case.program.most_flips < 6
    turned = [v ^ 1 if v.dtype == np.uint8 and i < 7 else v for i, v in enumerate(case.values)]
    signs = 1 if sum(int(v.sum()) for v in turned if v.dtype == np.uint8) % 2 == 0 else -1
    y = np.asarray(jax.lax.dot(signs * x, W[0]))
    report = checked(case, y, [*turned[:-1], y])
    assert report.verdict is verdict, report
    assert report.reason == ("decision-ties" if verdict is REJECT else "ok")


# ------------------------------------------------------------------- what compilers put together

GLUE: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "constants whose product overflows": (lambda x: (x * 1e38) * 10, NOISE * 1e-38),
    "constants whose products vanish": (lambda x: (x * 1e-30) * 1e-30 * 1e30 * 1e30, NOISE),
    "a quotient of quotients": (lambda x: x / (x / (2 * x)), NOISE * 1e-30),
    "an exponential below": (
        lambda x: x / jnp.exp(jnp.abs(x) * 1e-38 + 88.2),
        NOISE * 1e38,
    ),
}


@pytest.mark.optimised
@pytest.mark.parametrize("name", GLUE)
def test_factors_that_a_compiler_puts_together_frame_nobody(name: str):
    glue, x = GLUE[name]
    compiled = program.compile(lambda w, x: glue(x) @ w[0], W, x, policy=POLICY)
    key = compiled.setup(W, challenge.secret(SECRET_SEED))
    sent = compiled.prove(W, x)
    report = compiled.check(key, x, y=sent.y, trace=sent.trace)
    assert report.verdict is not REJECT
    frame = against(compiled, sent)
    assert not verify_evidence(frame, compiled, W, x).guilty


def test_large_outputs_in_double_precision_are_judged():
    """Squares of what is beyond 1e154 overflow: a wrong row is rejected."""
    with jax.enable_x64(True):
        x = NOISE.astype(np.float64)

        def fn(w: Any, x: Any) -> Any:
            return jnp.sin(x) * 1e200 + jnp.tanh(x @ w)

        compiled = program.compile(fn, W[0], x, policy=POLICY)
        key = compiled.setup(W[0], challenge.secret(SECRET_SEED))
        y, trace = jax.device_get(compiled.execute(W[0], x))
        assert compiled.check(key, x, y=y, trace=trace).verdict is ACCEPT
        wrong = np.array(y)
        wrong[2] *= -1
        report = compiled.check(key, x, y=wrong, trace=trace)
        assert (report.verdict, report.results[-1].row) == (REJECT, 2)
