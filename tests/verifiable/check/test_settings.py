"""No flag of JAX changes a verdict, a key, or a computation without changing the program's id."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from verifiable import challenge, program
from verifiable.policy import Policy
from verifiable.report import Verdict

RNG = np.random.default_rng(8)
ROWS, WIDTH = 16, 32
W = (RNG.standard_normal((WIDTH, WIDTH)) / 6).astype(np.float32)
X = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)
SECRET = challenge.secret(b"tests of verifiable/settings.py ")


def model(w: Any, x: Any) -> Any:
    """Random numbers, a mask that is infinite, and values that are not finite but unused."""
    kept = jax.random.bernoulli(jax.random.key(3), 0.5, x.shape)
    unused = jnp.log(-jnp.abs(x))
    hidden = jnp.where(jnp.isfinite(unused), unused, jnp.where(kept, x, 0)) @ w
    mask = jnp.where(jnp.tri(ROWS, dtype=bool), jnp.float32(0), -jnp.inf)
    scores = jax.nn.softmax(hidden[:, :ROWS] + mask, axis=-1)
    return {
        "states": jnp.tanh(hidden) @ w,
        "scores": scores,
        "draws": jax.random.bits(jax.random.key(1)),
    }


def compiled() -> program.Program:
    return program.compile(model, W, jnp.abs(X), policy=Policy(draws=2))


@functools.cache
def plain() -> tuple[program.Program, Any, Any]:
    one = compiled()
    return one, one.setup(W, SECRET), one.prove(W, jnp.abs(X))


RAISING = {
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_check_tracer_leaks": True,
    "jax_transfer_guard": "disallow",
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "flags that raise": RAISING,
    "wide types": {"jax_enable_x64": True},
    "few digits": {"jax_default_matmul_precision": "bfloat16"},
    "op by op": {"jax_disable_jit": True},
    "other random numbers": {
        "jax_threefry_partitionable": False,
        "jax_default_prng_impl": "rbg",
        "jax_random_seed_offset": 7,
        "jax_high_dynamic_range_gumbel": True,
        "jax_softmax_custom_jvp": False,
    },
}


@contextmanager
def flags(changes: dict[str, Any]) -> Iterator[None]:
    """Set for the whole process: a context of JAX would spare the other threads of a check."""
    before = {name: getattr(jax.config, name) for name in changes}
    try:
        for name, value in changes.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS.keys())
def test_flags_change_no_verdict_and_no_key(changes: dict[str, Any]):
    first, key, sent = plain()
    fresh = compiled()
    y, values = jax.device_get((sent.y, sent.trace.values))
    cheat = [values[0] + np.float32(1), *values[1:]]
    x = np.abs(X)
    for one in (first, fresh):
        with flags(changes):
            mine = one.prove(W, x)
            again = one.setup(W, SECRET)
            verdicts = [
                one.verify(key, x, sent, commitment=sent.commitment).verdict,
                one.verify(again, x, mine, commitment=mine.commitment).verdict,
                one.check(key, x, y=y, trace=list(values)).verdict,
                one.check(key, x, y=y, trace=cheat).verdict,
            ]
        assert verdicts == [Verdict.ACCEPT] * 3 + [Verdict.REJECT]
        np.testing.assert_array_equal(mine.y["draws"], y["draws"])
        for name, array in again.arrays.items():
            np.testing.assert_allclose(array, key.arrays[name], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for changes in SETTINGS.values()
        for name, value in changes.items()
        if name not in ("jax_debug_nans", "jax_debug_infs")
    ],
)
def test_what_changes_a_computation_changes_the_id(name: str, value: Any):
    """Compiled under another flag, it has another id, or gives the same bits."""

    def fn(w: Any, x: Any) -> Any:
        noise = jax.random.normal(jax.random.key(3), x.shape, jnp.float32)
        return (x + noise) @ w, jax.random.bits(jax.random.split(jax.random.key(1))[1])

    first = program.compile(fn, W, X, policy=Policy(draws=2))
    with flags({name: value}):
        other = program.compile(fn, W, X, policy=Policy(draws=2))
    if other.id == first.id:
        found = [one.prove(W, X).y for one in (first, other)]
        jax.tree.map(np.testing.assert_array_equal, *found)
