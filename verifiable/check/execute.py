"""The device's half: a function that also returns what every claim commits to.

Arrays of claims under `scan` are stacked over its iterations. Every branch of a `cond` returns
the claims of all branches, zero where they are not its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax import lax

from verifiable.check.analysis.partition import Analysis
from verifiable.claims.claim import Claim
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Block, Env, Equation
from verifiable.jaxpr.effects import HALF_PRECISION

Given = Mapping[int, Any]
Emit = Callable[[Claim, Equation, Env, Any], tuple[list[Array], Any]]


def honest(
    claim: Claim,
    equation: Equation,
    env: Env,
    _: Any = None,
    apply: interpret.Apply = interpret.apply,
) -> tuple[list[Array], Array]:
    """Evaluate a claimed equation, so that the checked value is the consumed value.

    Returns its outputs and what is committed. Of a loop, `apply` evaluates the equations.

    In types narrower than float32, XLA may keep more digits of a value than its type has while it
    stays inside a compiled program, and it may compute a rounding twice, with different results. An
    optimisation barrier makes XLA use the value that it returns.
    """
    if equation.bodies:
        outputs = claim.evaluate(env, apply)  # a compiler computes a loop once
        return outputs[: len(equation.outputs)], claim.form.pack(outputs[-1])
    operands, narrow = _read(equation, env), _narrow(equation)
    outputs = claim.form.evaluate(equation, operands)
    if claim.transpose is not None:
        outputs = [_transposed(claim.transpose, outputs[0], env)]
    elif narrow or claim.form.barrier:
        outputs = lax.optimization_barrier(outputs)
    return outputs[: len(equation.outputs)], claim.form.pack(outputs[-1])


def _narrow(equation: Equation) -> bool:
    return any(v.dtype.name in HALF_PRECISION for v in (*equation.inputs, *equation.outputs))


def _read(equation: Equation, env: Env) -> Sequence[Array]:
    """The inputs of an equation that is tested, as their types hold them."""
    read = interpret.read_all(env, equation.inputs)
    return lax.optimization_barrier(read) if _narrow(equation) else read


def _transposed(transpose: Equation, out: Array, env: Env) -> Array:
    """Bind the transpose of a claim that has no other reader, and return the claim made from it.

    XLA merges a product with its transpose, which may sum in another order. If the claim itself
    were read, XLA could not, and the result would differ from the plain function's.
    """
    [turned] = lax.optimization_barrier(interpret.apply(transpose, [out]))
    env[transpose.outputs[0]] = turned
    return lax.transpose(turned, np.argsort(transpose.params["permutation"]))


def execute(
    block: Block,
    analysis: Analysis,
    env: Env,
    *,
    emit: Emit | None = None,
    given: Given | None = None,
    apply: interpret.Apply = interpret.apply,
) -> tuple[list[Array], dict[int, Any]]:
    """Evaluate a block.

    Args:
      block: a block, whose inputs and free variables are in `env`.
      analysis: of the whole function.
      env: values by variable; this function writes to it.
      emit: `(claim, equation, env, what is given for it) -> (outputs, what to return for it)`; by
        default `honest`.
      given: by index of the claim, pytrees that `emit` gets; stacked over the scans around it.
      apply: evaluates an equation that is not a claim and has no bodies.

    Returns:
      The outputs, and what `emit` returned by index of the claim.
    """
    found: dict[int, Any] = {}
    given = given or {}
    emit = functools.partial(honest, apply=apply) if emit is None else emit
    absorbed = analysis.absorbed
    for equation in block.equations:
        if equation in analysis.by_equation:
            claim = analysis.by_equation[equation]
            outputs, found[claim.index] = emit(claim, equation, env, given.get(claim.index))
            interpret.write(env, equation.outputs, outputs)
        elif equation.outputs and all(v in env for v in equation.outputs):
            continue  # bound with the claim before it
        elif equation in absorbed:
            interpret.write(env, equation.outputs, apply(equation, _read(equation, env)))
        elif not any(analysis.claims_in(body) for body in equation.bodies):
            interpret.replay(equation, env, apply)
        else:
            several = _scan if equation.kind == "scan" else _switch
            outputs, claims = several(equation, analysis, env, emit, given, apply)
            found |= claims
            interpret.write(env, equation.outputs, outputs)
    return interpret.read_all(env, block.outputs), found


def _scan(
    equation: Equation,
    analysis: Analysis,
    env: Env,
    emit: Emit,
    given: Given,
    apply: interpret.Apply,
) -> tuple[list[Array], dict[int, Any]]:
    [body] = equation.bodies
    own = {c.index: given[c.index] for c in analysis.claims_in(body) if c.index in given}

    def step(inner: Env, slices: Given) -> tuple[list[Array], dict[int, Any]]:
        return execute(body, analysis, inner, emit=emit, given=slices, apply=apply)

    return interpret.scan(equation, env, step, extra=own)


def _switch(
    equation: Equation,
    analysis: Analysis,
    env: Env,
    emit: Emit,
    given: Given,
    apply: interpret.Apply,
) -> tuple[list[Array], dict[int, Any]]:
    def branch(body: Block) -> tuple[list[Array], dict[int, Any]]:
        return execute(body, analysis, dict(env), emit=emit, given=given, apply=apply)

    return interpret.union_switch(equation, env, branch)
