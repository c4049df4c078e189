"""Honest runs of small programs, one for each kind of claim, that cheats are made from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable import challenge, program
from verifiable.policy import Policy
from verifiable.report import Report, Verdict

ACCEPT, REJECT, INDETERMINATE = Verdict.ACCEPT, Verdict.REJECT, Verdict.INDETERMINATE
ROWS, WIDTH = 32, 128
RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.standard_normal((WIDTH, WIDTH)) / 8, jnp.float32)
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)
SECRET_SEED = bytes(range(32))
SMALL = jnp.asarray(RNG.integers(-128, 128, (WIDTH, WIDTH)), jnp.int8)
# With few draws, products of this size are worth a claim.
POLICY = Policy(draws=4, trip_limit=50)


@dataclass(frozen=True)
class Run:
    """An honest run, as the device sends it."""

    program: program.Program
    key: Any = field(repr=False)
    inputs: tuple[Any, ...] = field(repr=False)
    y: Any = field(repr=False)
    claims: tuple[np.ndarray, ...] = field(repr=False)

    @classmethod
    def of(cls, fn: Any, params: Any, *inputs: Any, policy: Policy) -> Run:
        compiled = program.compile(fn, params, *inputs, policy=policy)
        y, trace = jax.device_get(jax.jit(compiled.execute)(params, *inputs))
        key = compiled.setup(params, challenge.secret(SECRET_SEED))
        return cls(compiled, key, inputs, y, trace.values)

    def check(self, y: Any, trace: Any, inputs: Any = None) -> Report:
        return self.program.check(
            self.key, *(self.inputs if inputs is None else inputs), y=y, trace=trace
        )


def dense(p: Any, x: Any, n: Any) -> Any:
    """Two claims of different shapes, float outputs and an integer one."""
    hidden = jnp.tanh(x @ p)
    return {"a": hidden @ p[:, :64], "b": [n * 2, hidden.sum()]}


def quantised(p: Any, x: Any) -> Any:
    return lax.dot_general(x, p, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32)


def branching(p: Any, x: Any) -> Any:
    return lax.cond(x[0, 0] > 0, lambda: x @ p, lambda: (x + 1) @ p.T)


def choosing(p: Any, x: Any) -> Any:
    """A cast of bits may jump, and is no claim."""
    return reinterpreted(jnp.tanh(x)) @ p


def reinterpreted(x: Any) -> Any:
    """A float32 by its bits, which no table knows to be continuous."""
    return lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.int32), jnp.float32)


def deciding(p: Any, x: Any) -> Any:
    return jnp.where(jnp.tanh(x) > 0.3, x, -1.0) @ p


def rounding(p: Any, x: Any) -> Any:
    return quantised(p, jnp.clip(jnp.round(jnp.tanh(x) * 127), -127, 127).astype(jnp.int8))


def looping(p: Any, x: Any, n: Any) -> Any:
    """As many trips as the input says; the policy allows fifty."""
    y = lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 1.01), (0, x))[1]
    return y @ p


def logarithm(p: Any, x: Any) -> Any:
    """Not finite on some inputs, after all claims."""
    return jnp.log((x @ p) - 1e6 * (x[0, 0] > 1e3))


def scanned(p: Any, x: Any) -> Any:
    return lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, p)[0]


FUNCTIONS: dict[str, tuple[Callable[..., Any], Any, tuple[Any, ...]]] = {
    "dense": (dense, W, (X, jnp.arange(5))),
    "quantised": (quantised, SMALL, (SMALL[:ROWS],)),
    "branching": (branching, W, (X,)),
    "choosing": (choosing, W, (X,)),
    "deciding": (deciding, W, (X,)),
    "rounding": (rounding, SMALL, (X,)),
    "looping": (looping, W, (X, jnp.int32(5))),
    "logarithm": (logarithm, jnp.abs(W), (jnp.abs(X),)),
    "scanned": (scanned, jnp.stack([W, W.T, -W]), (X,)),
}


@functools.cache
def honest(name: str) -> Run:
    fn, params, inputs = FUNCTIONS[name]
    return Run.of(fn, params, *inputs, policy=POLICY)


def put(array: Any, position: Any, value: Any) -> np.ndarray:
    changed = np.array(array)
    changed[position] = value
    return changed


def one_step(array: Any) -> np.ndarray:
    """Another value than any tolerance allows, in one element."""
    return put(array, (4, 4), np.asarray(array)[4, 4] + 1)
