"""The cheap form of a rounding's test passes nothing that the test in full would not pass."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from verifiable.claims.form import Yardstick
from verifiable.claims.roundings import cheap_test
from verifiable.claims.roundings.rounding import Rounding
from verifiable.claims.roundings.steps import RoundingStep
from verifiable.claims.statistic import Statistic

F32, BF16, F16, I8 = (np.dtype(t) for t in (np.float32, ml_dtypes.bfloat16, np.float16, np.int8))
EPS = 2.0**-6
SHAPE = 16, 48
CLIP = RoundingStep(kind="clamp", low=-127.0, high=127.0)
ROUND, RELU = RoundingStep(kind="round"), RoundingStep(kind="clamp", low=0.0)
LEVELS = ROUND, CLIP, RoundingStep(kind="cast", dtype=I8)


def narrowing(dtype: np.dtype[Any]) -> Rounding:
    return Rounding(steps=(RoundingStep(kind="narrow", dtype=dtype),), source=F32, dtype=dtype)


FORMS = {
    "bf16": narrowing(BF16),
    "f16": narrowing(F16),
    "relu": Rounding(steps=(*narrowing(BF16).steps, RELU), source=F32, dtype=BF16),
    "int8": Rounding(steps=LEVELS, source=F32, dtype=I8),
    "integers in bf16": Rounding(steps=(ROUND,), source=BF16, dtype=BF16),
    "computed in bf16": Rounding(steps=(), source=BF16, dtype=BF16),
    "computed in f16": Rounding(steps=(), source=F16, dtype=F16),
    "two ways": Rounding(steps=narrowing(BF16).steps, source=F32, dtype=BF16, ways=((-1,), (0,))),
}

# What is done to the values before the rounding (rows), given a generator.
Change = Callable[[np.ndarray[Any, Any], np.random.Generator], np.ndarray[Any, Any]]


def scaled(factor: float) -> Change:
    return lambda v, _: v * np.float32(factor)


def one(number: float) -> Change:
    def change(v: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
        v = v.copy()
        v[rng.integers(len(v)), rng.integers(v.shape[1])] = number
        return v

    return change


def off(size: float, *, everywhere: bool) -> Change:
    """Elements moved by `size` of the slack, all of them or a few."""

    def change(v: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
        root = np.sqrt(np.mean(np.square(v), axis=-1, keepdims=True))
        chosen = everywhere | (rng.random(v.shape) < 0.01)
        return v + chosen * size * EPS * (np.abs(v) + root) * np.sign(rng.standard_normal(v.shape))

    return change


CHANGES: dict[str, Change] = {
    "none": scaled(1),
    "small": scaled(1e-25),
    "subnormal": scaled(1e-42),
    "zero": scaled(0),
    "large": scaled(1e25),
    "a spike": one(1e30),
    "a spike among the largest": one(3e38),
    "NaN": one(np.nan),
    "infinity": one(-np.inf),
    **{f"{s} of a few": off(s, everywhere=False) for s in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0)},
    **{f"{s} of all": off(s, everywhere=True) for s in (0.1, 0.24, 0.25, 0.26, 0.3)},
}


@functools.cache
def measure(name: str, *, cheap: bool) -> Callable[..., Statistic]:
    form = FORMS[name]
    given = form.cheapened(Yardstick(eps=EPS)) if cheap else Yardstick(eps=EPS)
    assert given.cheap is cheap
    # What else a claim reads, such as leaves of its origin, comes behind the value.
    run = jax.jit(lambda v, q: form.test([v, jnp.zeros(3)], q, given))

    def call(v: Any, q: Any) -> Statistic:
        with jax.enable_x64(True):
            return Statistic(*(np.asarray(x) for x in run(v, q)))

    return call


def accepts(found: Statistic) -> bool:
    return bool(found.passed & (found.worst <= 1) & found.finite_claim & found.finite_operands)


def committed(form: Rounding, v: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with np.errstate(over="ignore", invalid="ignore"):
        v = np.rint(v) if ROUND in form.steps else v
        v = np.clip(v, -127, 127) if CLIP in form.steps else v
        return (np.maximum(v, 0) if RELU in form.steps else v).astype(form.dtype)


@pytest.mark.parametrize("name", FORMS)
def test_what_is_clear_passes_the_test_itself(name: str):
    form, rng, passed = FORMS[name], np.random.default_rng(7), dict[str, int]()
    for change, move in CHANGES.items():
        for _ in range(20):
            v = (40 * rng.standard_normal(SHAPE)).astype(np.float32)
            v = np.where(v < 0, np.maximum(v, np.float32(-126)), v)
            with np.errstate(over="ignore", invalid="ignore"):
                theirs = move(v if form.steps else v.astype(form.source).astype(F32), rng)
                mine = v if "of" in change.split() else theirs
                mine = mine.astype(np.float32).astype(form.source)
            q = committed(form, theirs.astype(np.float32))
            cheap, full = (measure(name, cheap=c)(mine, q) for c in (True, False))
            assert accepts(full) or not accepts(cheap), change
            if accepts(cheap):
                # Of a subnormal claim, half a step may be taken as zero.
                lost = 2.0**-6 if change == "subnormal" else 1e-6
                assert cheap.worst == pytest.approx(full.worst, rel=1e-3, abs=lost)
            passed[change] = passed.get(change, 0) + accepts(cheap)
    assert passed["none"] == passed["zero"] == passed["0.1 of all"] == passed["0.5 of a few"] == 20
    assert passed["NaN"] == passed["infinity"] == 0
    assert passed["2.0 of a few"] < 20


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e30])
def test_a_claim_of_other_numbers_is_not_clear(name: str, number: float):
    form = FORMS[name]
    v = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32).astype(form.source)
    q = committed(form, v.astype(np.float32))
    if form.dtype == I8:
        number = -128 if number < 0 else 100
    with np.errstate(over="ignore"):
        q[5, 11] = number
    assert not accepts(measure(name, cheap=True)(v, q))


def test_wide_types_have_no_cheap_form():
    wide = replace(FORMS["bf16"], source=np.dtype(np.float64))
    assert not wide.cheapened(Yardstick(eps=EPS)).cheap


@pytest.mark.parametrize("shape", [(20, 30), (30, 20)])
def test_longer_rows_are_tested_in_full_at_once(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    """Whichever way they lie; one element is so near its limit that nothing is clear."""
    form = Rounding(steps=(), source=F32, dtype=F32, ways=((-1,), (0,)))
    v = np.ones(shape, np.float32)
    q = v.copy()
    q[5, 11] += 0.99 * 2 * EPS
    for longest, decided in ((30, False), (29, True)):
        monkeypatch.setattr(cheap_test, "LONGEST", longest)
        with jax.enable_x64(True):
            given = form.cheapened(Yardstick(eps=EPS))
            assert (
                accepts(jax.jit(functools.partial(form.test, yardstick=given))([v], q)) is decided
            )
