"""A program with an honest run, made once for a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from verifiable import challenge, program
from verifiable.policy import Policy
from verifiable.report import Report
from verifiable.trace import Trace

ROWS, WIDTH = 8, 32
FEW = Policy(draws=4)  # at this width, more draws would cost more than the products
SECRET = challenge.secret(b"tests of verifiable/program.py  ")
RNG = np.random.default_rng(20)


def weights(*shape: int, dtype: Any = np.float32) -> Any:
    """Random weights whose columns have norms of about one."""
    return (RNG.standard_normal(shape) / np.sqrt(shape[-2])).astype(dtype)


X = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)
PARAMS = {
    "square": weights(WIDTH, WIDTH),
    "other": weights(WIDTH, WIDTH),
    "stack": weights(3, WIDTH, WIDTH),
    "wide": weights(WIDTH, 2 * WIDTH),
    "narrow": weights(2 * WIDTH, WIDTH),
    "left": weights(ROWS, ROWS),
    "scale": RNG.uniform(0.5, 1.5, WIDTH).astype(np.float32),
}


class Case:
    """A compiled program with its key and an honest run."""

    def __init__(self, fn: Any, params: Any, *inputs: Any, policy: Policy = FEW):
        self.fn, self.params, self.inputs = fn, params, inputs
        self.program = program.compile(fn, params, *inputs, policy=policy)
        self.key = self.program.setup(params, SECRET)
        self.y, self.trace = jax.jit(self.program.execute)(params, *inputs)

    def op_by_op(self) -> tuple[Any, Trace]:
        with jax.disable_jit():
            return self.program.execute(self.params, *self.inputs)

    def check(self, y: Any = None, claims: Any = None) -> Report:
        y = self.y if y is None else y
        claims = self.trace.values if claims is None else claims
        return self.program.check(self.key, *self.inputs, y=y, trace=claims)

    def changed(self, index: int, change: Callable[[Any], None]) -> list[Any]:
        claims = [np.array(c) for c in self.trace.values]
        change(claims[index])
        return claims
