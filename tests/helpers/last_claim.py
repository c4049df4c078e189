"""The decision or choice at the end of a small function: evaluated op by op, tested compiled."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verifiable.check.analysis.dataflow import Forward
from verifiable.claims.form import Yardstick
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Equation
from verifiable.jaxpr.effects import effects_of
from verifiable.jaxpr.from_jax import flatten
from verifiable.policy import Policy
from verifiable.testing.devices import inexact, moved


def off_by_a_bit(seed: int, way: int) -> interpret.Apply:
    """A device whose inexact results are off by up to a unit in the last place, in some way."""
    numbers = iter(range(10**6))

    def apply(equation: Equation, values: Any) -> list[Array]:
        results, number = interpret.apply(equation, values), np.uint32(next(numbers))
        return [
            moved(x, None, np.uint32(seed), number, np.uint32(way)) if inexact(effect, x) else x
            for effect, x in zip(effects_of(equation), results, strict=True)
        ]

    return apply


def last_claim(fn: Callable[..., Any], *inputs: Any) -> SimpleNamespace:
    """Form, tolerance, own decision and operands of the last claim of `fn`, whose inputs are exact.

    `tested(claim)` tests a committed array; `operands_of(apply)` are those of another device.
    """
    function = flatten(jax.make_jaxpr(fn)(*inputs))
    block, given = function.block, (*function.constants, *inputs)
    forward = Forward.over(block, 0, 1)
    equation, claimed = list(forward.claims.items())[-1]
    form: Any = claimed.proposal.form
    tested: Any = SimpleNamespace(
        eps_types=form.eps_types(claimed.before.rounding_dtypes),
        narrow_sums=claimed.before.narrow_sums,
        own_sums=(),
        decisive=0,
        decisions=form.decisions,
        name=equation.name,
    )
    eps = Policy().eps_of(tested)

    def operands_of(apply: interpret.Apply = interpret.apply) -> list[Array]:
        env = dict(zip(block.inputs, map(jnp.asarray, given), strict=True))
        for e in block.equations:
            interpret.replay(e, env, apply)
        return interpret.read_all(env, claimed.proposal.operands)

    def own(operands: list[Array]) -> Array:
        keys = operands[: len(equation.inputs)]
        return form.pack(form.evaluate(equation, keys)[-1])

    @jax.jit
    def test(operands: list[Array], claim: Array) -> Any:
        return form.test(operands, claim, Yardstick(eps=eps))

    def judged(claim: Any) -> Any:
        with jax.enable_x64(True):
            return test(operands, jnp.asarray(claim))

    operands = operands_of()
    return SimpleNamespace(
        form=form,
        eps=eps,
        equation=equation,
        operands=operands,
        operands_of=operands_of,
        own=own(operands),
        choose=own,
        tested=judged,
        claim=tested,
    )
