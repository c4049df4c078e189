"""Equal roundings are one claim."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable import challenge, program
from verifiable.claims.roundings.rounding import Rounding
from verifiable.report import Verdict

WIDTH, ROWS, NAMES = 64, 48, ("q", "k", "v")
PARAMS = {
    name: jnp.asarray(np.random.default_rng(i).integers(-127, 128, (WIDTH, WIDTH)), jnp.int8)
    for i, name in enumerate(NAMES)
}
X = jnp.asarray(np.random.default_rng(9).normal(size=(ROWS, WIDTH)), jnp.float32)


def dense(kernel: Any, x: Any, levels: float = 127) -> Any:
    """A layer that rounds its operand to 8 bits."""
    scale = jnp.maximum(jnp.max(jnp.abs(x), axis=-1, keepdims=True) / levels, 1e-9)
    small = jnp.clip(jnp.round(x / scale), -127, 127).astype(jnp.int8)
    whole = jnp.matmul(small, kernel, preferred_element_type=jnp.int32)
    return whole.astype(jnp.float32) * scale


def layers(params: Any, x: Any) -> Any:
    """Three layers of one activation."""
    x = jnp.tanh(x)
    return tuple(dense(params[name], x) for name in NAMES)


def roundings(compiled: program.Program) -> list[Any]:
    """The claims that are roundings."""
    return [c for c in compiled.claims if isinstance(c.form, Rounding)]


def test_layers_of_one_activation_share_a_rounding():
    compiled = program.compile(layers, PARAMS, X)
    assert [c.primitive for c in compiled.claims] == ["convert_element_type"] + 3 * ["dot_general"]
    y, trace = compiled.execute(PARAMS, X)
    for mine, plain in zip(y, layers(PARAMS, X), strict=True):
        assert np.array_equal(mine, plain)
    key = compiled.setup(PARAMS, challenge.secret())
    assert compiled.check(key, X, y=y, trace=trace).verdict is Verdict.ACCEPT
    # A step in an element that is not at a tie, with products that follow from it.
    values = np.array(trace.values[0])
    values[3, 5] += -1 if values[3, 5] > 0 else 1
    wide = values.astype(np.int32)
    others = [jnp.asarray(wide @ np.asarray(PARAMS[n], np.int32)) for n in NAMES]
    forged = (jnp.asarray(values), *others)
    report = compiled.check(key, X, y=y, trace=forged)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "rounding-mismatch")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda x: dense(PARAMS["k"], x, levels=63), id="scale"),
        pytest.param(lambda x: dense(PARAMS["k"], x[::-1]), id="activation"),
        pytest.param(lambda x: dense(PARAMS["k"], jnp.tanh(x)), id="more before"),
    ],
)
def test_other_roundings_stay_by_themselves(other: Any):
    def fn(params: Any, x: Any) -> Any:
        x = jnp.tanh(x)
        return dense(params["q"], x), other(x)

    assert len(roundings(program.compile(fn, PARAMS, X))) == 2


def test_numbers_that_are_drawn_anew_are_not_equal():
    """`rng_uniform` has a state: nobody can verify what it returns, but it is called twice."""

    def noisy(params: Any, x: Any) -> Any:
        low, high = jnp.float32(0), jnp.float32(1)
        return tuple(dense(params[n], x + lax.rng_uniform(low, high, (WIDTH,))) for n in ("q", "k"))

    assert len(roundings(program.compile(noisy, PARAMS, X))) == 2


def test_blocks_have_their_own():
    def fn(params: Any, x: Any) -> Any:
        def body(x: Any, _: Any) -> Any:
            q, k, v = layers(params, x)
            return jnp.tanh(q + k * v), ()

        x, _ = jax.lax.scan(body, x, None, length=2)
        return layers(params, x)

    compiled = program.compile(fn, PARAMS, X)
    assert [c.shape for c in roundings(compiled)] == [(2, ROWS, WIDTH), (ROWS, WIDTH)]


def test_a_rounding_that_is_returned_too_is_the_first():
    def fn(params: Any, x: Any) -> Any:
        a, b = (jnp.round(8 * jnp.tanh(x)) for _ in range(2))
        return a, b, b @ params["q"].astype(jnp.float32)

    compiled = program.compile(fn, PARAMS, X)
    assert len(roundings(compiled)) == 1
    y, trace = compiled.execute(PARAMS, X)
    assert np.array_equal(y[0], y[1])
    assert np.array_equal(y[0], np.round(8 * np.tanh(np.asarray(X))))
    key = compiled.setup(PARAMS, challenge.secret())
    assert compiled.check(key, X, y=y, trace=trace).verdict is Verdict.ACCEPT
