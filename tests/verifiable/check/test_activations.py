"""Six layers with any activation that compares or orders floats: no cheat hides behind one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn
from jax.scipy.special import xlogy

from verifiable import challenge, program
from verifiable.policy import Policy
from verifiable.report import Verdict

LAYERS, ROWS, WIDTH = 6, 4, 32
RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.standard_normal((LAYERS, WIDTH, WIDTH)) / 6, jnp.float32)
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "selu": nn.selu,
    "softplus": nn.softplus,
    "mish": nn.mish,
    "log_sigmoid": nn.log_sigmoid,
    "logaddexp": lambda h: jnp.logaddexp(h, 0.5 * h),
    "hard_tanh": nn.hard_tanh,
    "nan_to_num": jnp.nan_to_num,
    "sinc": jnp.sinc,
    "hypot": lambda h: jnp.hypot(h, 1.0),
    "median": lambda h: h - jnp.median(h, axis=-1, keepdims=True),
    "quantile": lambda h: h - jnp.quantile(h, 0.3, axis=-1, keepdims=True),
    "xlogy": lambda h: xlogy(h, jnp.abs(h) + 1),
    "where": lambda h: jnp.where(h > 0, h, 0.1 * h),
}


def skipped(w: Any) -> Any:
    """One layer of six: the weights of the others are zero."""
    return w.at[1:].set(0)


def int4(w: Any) -> Any:
    scale = jnp.max(jnp.abs(w)) / 7
    return jnp.round(w / scale) * scale


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_another_model_is_rejected_behind_an_activation(name: str):
    """Cheats: a device that skips five of its layers, and one that rounds its weights to int4."""
    act = ACTIVATIONS[name]

    def fn(w: Any, x: Any) -> Any:
        def layer(h: Any, u: Any) -> tuple[Any, None]:
            n = lax.rsqrt(jnp.mean(h * h, axis=-1, keepdims=True))
            return h + act((n * h) @ u + 0.1), None

        return lax.scan(layer, x, w)[0]

    compiled = program.compile(fn, W, X, policy=Policy(draws=1), self_test=False)
    assert not compiled.coverage.discontinuities
    key = compiled.setup(W, challenge.secret())
    device = jax.jit(compiled.execute)
    with jax.disable_jit():
        op_by_op = compiled.execute(W, X)
    for y, trace in (device(W, X), op_by_op):
        report = compiled.check(key, X, y=y, trace=trace)
        assert report.verdict is Verdict.ACCEPT, report
    for change in (skipped, int4):
        y, trace = device(change(W), X)
        report = compiled.check(key, X, y=y, trace=trace)
        assert report.verdict is Verdict.REJECT, report
        assert report.claim is not None
