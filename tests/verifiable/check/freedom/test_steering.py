"""An answer steered to that of another input, through all that the tolerances leave."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable import challenge, program
from verifiable.claims.roundings.rounding import Rounding
from verifiable.report import Verdict

WIDTH, TOKENS, LAYERS = 64, 64, 3
RNG = np.random.default_rng(11)
INT8 = RNG.integers(-127, 128, (LAYERS, 2, WIDTH, WIDTH)).astype(np.int8)
PARAMS: dict[str, Any] = {
    "float": RNG.standard_normal((LAYERS, 2, WIDTH, WIDTH)).astype(np.float32) / 8,
    "int8": INT8,
}
X, OTHER = RNG.standard_normal((2, TOKENS, WIDTH)).astype(np.float32)

Dot = Callable[[Any, Any, int, int], Any]


def norm(x: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)


def in_type(dtype: Any) -> Dot:
    """Operands in a type, sums in float32."""

    def dot(p: Any, x: Any, layer: int, i: int) -> Any:
        w = p["float"][layer, i].astype(dtype)
        return lax.dot(x.astype(dtype), w, preferred_element_type=jnp.float32)

    return dot


def w8a8(p: Any, x: Any, layer: int, i: int) -> Any:
    scale = jnp.max(jnp.abs(x), -1, keepdims=True) / 127
    q = jnp.clip(jnp.round(x / scale), -127, 127).astype(jnp.int8)
    y = lax.dot(q, p["int8"][layer, i], preferred_element_type=jnp.int32)
    return y.astype(jnp.float32) * (scale / (73 * 8))


DOTS: dict[str, Dot] = {
    "f32": in_type(jnp.float32),
    "bf16": in_type(jnp.bfloat16),
    "f16": in_type(jnp.float16),
    "w8a8": w8a8,
}


def encode(dot: Dot, p: Any, x: Any) -> Any:
    """One vector of length 1 for a text, as sentence encoders return it."""
    for layer in range(LAYERS):
        x = x + dot(p, jax.nn.gelu(dot(p, norm(x), layer, 0)), layer, 1)
    pooled = norm(x)[:2].mean(0)
    return pooled / jnp.linalg.norm(pooled)


@functools.cache
def case(name: str) -> SimpleNamespace:
    fn = functools.partial(encode, DOTS[name])
    compiled = program.compile(fn, PARAMS, X)
    policy = compiled.calibrate(PARAMS, [(X,), (OTHER,)])
    device = jax.jit(compiled.execute)
    honest, other = (jax.device_get(device(PARAMS, x)) for x in (X, OTHER))
    away = honest[0] - other[0]
    return SimpleNamespace(
        programs={"default": compiled, "calibrated": compiled.with_policy(policy)},
        honest=honest[0],
        other=other[0],
        run_of_other=other,
        # How much nearer an answer is to the honest one than to the other input's.
        towards=lambda y: y @ away,
    )


def steered(compiled: program.Program, c: Any, kappa: float) -> tuple[Any, Verdict]:
    """The cheat's answer, and what comes of it."""
    y, trace = compiled.attack(PARAMS, X, answer=c.towards, kappa=kappa)
    key = compiled.setup(PARAMS, challenge.secret(bytes(range(32))))
    return np.asarray(y), compiled.check(key, X, y=y, trace=trace).verdict


def turned(c: Any, y: Any) -> bool:
    """Whether an answer is nearer to that of the other input."""
    return bool(y @ c.honest < y @ c.other)


each = pytest.mark.parametrize("name", DOTS)


@each
@pytest.mark.parametrize("policy", ["default", "calibrated"])
def test_an_answer_steered_through_the_tolerances_stays_where_it_was(name: str, policy: str):
    """Cheat: every claim shifted towards the answer to another input, as far as passes."""
    c = case(name)
    compiled = c.programs[policy]
    assert c.honest @ c.other < 0.5
    y, verdict = steered(compiled, c, 0.9)
    assert verdict is Verdict.ACCEPT
    assert not turned(c, y)
    assert y @ c.honest > 0.95


@each
@pytest.mark.parametrize("policy", ["default", "calibrated"])
def test_an_answer_steered_further_is_rejected(name: str, policy: str):
    """Cheat: the same, a hundred times as far, and the honest run of the other input."""
    c = case(name)
    compiled = c.programs[policy]
    key = compiled.setup(PARAMS, challenge.secret(bytes(range(32))))
    runs = [c.run_of_other]
    if name != "w8a8":  # integer products leave nothing, and roundings one step
        runs.append(compiled.attack(PARAMS, X, answer=c.towards, kappa=100.0))
    for y, trace in runs:
        report = compiled.check(key, X, y=y, trace=trace)
        assert report.verdict is Verdict.REJECT, report


@each
def test_a_calibrated_tolerance_is_looser_than_the_default_for_a_reason_only(name: str):
    c = case(name)
    default, calibrated = (c.programs[p].tolerances for p in ("default", "calibrated"))
    for m in c.programs["calibrated"].policy.calibration.measured:
        assert calibrated[m.name] <= max(default[m.name], 4 * m.worst)


def test_a_tolerance_of_nine_tenths_lets_the_answer_be_turned():
    """Calibration once allowed as much of each row in bfloat16; the cheats are no straw men."""
    c = case("bf16")
    policy = c.programs["calibrated"].policy
    roundings = {x.name for x in c.programs["default"].claims if isinstance(x.form, Rounding)}
    loose = tuple(
        replace(m, eps=0.9) if m.name in roundings else m for m in policy.calibration.measured
    )
    wide = replace(policy, calibration=replace(policy.calibration, measured=loose))
    compiled = c.programs["default"].with_policy(wide)
    y, verdict = steered(compiled, c, 1.0)
    assert verdict is Verdict.ACCEPT
    assert turned(c, y)
