"""The device's half: a function that also returns the output of every claim.

Outputs of claims under `scan` are stacked over its iterations. Every branch of a `cond` returns
the claims of all branches, zero where they are not its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable import interpreter
from verifiable.analysis import Analysis, Claim
from verifiable.interpreter import Array, Block, Env, Equation
from verifiable.rounding import NARROW


def execute(
    block: Block, analysis: Analysis, env: Env, depth: int = 0
) -> tuple[list[Array], dict[int, Array]]:
    """Evaluate a block.

    Args:
      block: a block, whose inputs and free variables are in `env`.
      analysis: of the whole function.
      env: values by variable; this function writes to it.
      depth: number of scans around the block.

    Returns:
      The outputs, and the outputs of claims by index.
    """
    found: dict[int, Array] = {}
    turned: set[Equation] = set()
    for equation in block.equations:
        if equation in analysis.claims:
            claim = analysis.claims[equation]
            out = claimed(claim, equation, interpreter.read_all(env, equation.inputs))
            if claim.turned is not None and claim.turned in block.equations:
                out = turn(claim.turned, out, env)
                turned.add(claim.turned)
            found[claim.index] = env[equation.outputs[0]] = out
        elif equation in turned:
            continue
        elif not any(analysis.claims_in(body) for body in equation.bodies):
            interpreter.replay(equation, env)
        else:
            several = _scan if equation.kind == "scan" else _switch
            outputs, claims = several(equation, analysis, env, depth)
            found |= claims
            interpreter.write(env, equation.outputs, outputs)
    return interpreter.read_all(env, block.outputs), found


def claimed(claim: Claim, equation: Equation, operands: Sequence[Array]) -> Array:
    """Evaluate a claimed equation, so that what is checked is what was consumed.

    In types narrower than float32, XLA may keep more digits of a value than its type has, for
    whoever consumes it inside a compiled program; and it may compute a rounding twice, differently.
    A barrier makes it use the value that it returns.
    """
    narrow = any(v.dtype.name in NARROW for v in (*equation.inputs, *equation.outputs))
    if narrow:
        operands = lax.optimization_barrier(list(operands))
    [out] = interpreter.apply(equation, operands)
    return lax.optimization_barrier(out) if narrow or claim.contraction is None else out


def turn(transpose: Equation, out: Array, env: Env) -> Array:
    """Bind the transpose of a claim that nothing else reads, and return the claim, made from it.

    XLA merges a product with its transpose, which may sum in another order; if the claim itself
    were read, it could not, and the result would not be that of the plain function.
    """
    [env[transpose.outputs[0]]] = lax.optimization_barrier(interpreter.apply(transpose, [out]))
    inverse = np.argsort(transpose.params["permutation"])
    return lax.transpose(env[transpose.outputs[0]], inverse)


def _scan(
    equation: Equation, analysis: Analysis, env: Env, depth: int
) -> tuple[list[Array], dict[int, Array]]:
    [body] = equation.bodies
    return interpreter.scan(
        equation, env, lambda inner, _: execute(body, analysis, inner, depth + 1)
    )


def _switch(
    equation: Equation, analysis: Analysis, env: Env, depth: int
) -> tuple[list[Array], dict[int, Array]]:
    every = [c for body in equation.bodies for c in analysis.claims_in(body)]

    def branch(body: Block) -> tuple[list[Array], dict[int, Array]]:
        outputs, claims = execute(body, analysis, dict(env), depth)
        zeros = {c.index: jnp.zeros(c.shape[depth:], c.dtype) for c in every}
        return outputs, zeros | claims

    branches = [lambda body=body: branch(body) for body in equation.bodies]
    return interpreter.switch(equation, env, branches)
