"""Interpreters of blocks: evaluate them as they are, or rebuild a `scan`, `cond` or `while`.

An environment binds variables to values. `evaluate` and `replay` compute exactly what the function
computes; `scan` and `switch` let the caller put other bodies in the place of an equation's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jax import lax

from verifiable.jaxpr import flatten
from verifiable.jaxpr.blocks import Array, Atom, Block, Env, Equation, Literal, Var


def read(env: Env, atom: Atom) -> Array:
    """Value of an atom."""
    return atom.value if isinstance(atom, Literal) else env[atom]


def read_all(env: Env, atoms: Sequence[Atom]) -> list[Array]:
    """Values of several atoms."""
    return [read(env, atom) for atom in atoms]


def write(env: Env, variables: Sequence[Var], values: Sequence[Array]) -> None:
    """Bind values to variables."""
    env.update(zip(variables, values, strict=True))


def apply(equation: Equation, values: Sequence[Array]) -> list[Array]:
    """Apply an equation without bodies to values of its inputs."""
    return list(flatten.as_function(equation)(*values))


def evaluate(block: Block, env: Env) -> list[Array]:
    """Outputs of a block, whose inputs and free variables are in `env`."""
    for equation in block.equations:
        replay(equation, env)
    return read_all(env, block.outputs)


def replay(equation: Equation, env: Env) -> None:
    """Evaluate one equation, with all that its bodies hold."""
    if equation.kind == "scan":
        outputs = scan(equation, env, lambda inner, _: (evaluate(equation.bodies[0], inner), ()))[0]
    elif equation.kind == "cond":
        branches = [lambda b=b: evaluate(b, dict(env)) for b in equation.bodies]
        outputs = switch(equation, env, branches)
    elif equation.kind == "while":
        outputs, _ = while_loop(equation, env)
    else:
        outputs = apply(equation, read_all(env, equation.inputs))
    write(env, equation.outputs, outputs)


def scan(
    equation: Equation,
    env: Env,
    body: Callable[[Env, Any], tuple[Sequence[Array], Any]],
    *,
    extra: Any = (),
    carried: Iterable[bool] | None = None,
    scanned: Iterable[bool] | None = None,
) -> tuple[list[Array], Any]:
    """Rebuild a `scan` around `body`.

    Args:
      equation: the scan.
      env: the environment that it stands in; the body sees a copy with its inputs bound.
      body: `(env, slice of extra) -> (outputs, more to stack)`; first the carries that take part,
        then what the equation is to stack.
      extra: pytree of arrays scanned beside the equation's own.
      carried: which carries take part (default all); the others are unbound in the body.
      scanned: which scanned inputs take part.

    Returns:
      The final carries and the stacks, and what else the body stacked.
    """
    params = equation.params
    count = params["num_carry"]
    inputs, block = equation.inputs, equation.bodies[0]
    carried = itertools.repeat(True) if carried is None else carried
    scanned = itertools.repeat(True) if scanned is None else scanned
    carry_vars = list(itertools.compress(block.inputs[:count], carried))
    scan_vars = list(itertools.compress(block.inputs[count:], scanned))
    init = read_all(env, list(itertools.compress(inputs[:count], carried)))
    slices = read_all(env, list(itertools.compress(inputs[count:], scanned)))

    def step(carry: list[Array], xs: Any) -> tuple[list[Array], Any]:
        values, more = xs
        inner = dict(env)
        write(inner, carry_vars, carry)
        write(inner, scan_vars, values)
        outputs, stack = body(inner, more)
        outputs = list(outputs)
        return outputs[: len(carry_vars)], (outputs[len(carry_vars) :], stack)

    final, (stacks, more) = lax.scan(
        step,
        init,
        (slices, extra),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*final, *stacks], more


def switch(equation: Equation, env: Env, branches: Sequence[Callable[[], Any]]) -> Any:
    """Rebuild a `cond` around other branches, which take no operands."""
    return lax.switch(read(env, equation.inputs[0]), branches)


def while_loop(equation: Equation, env: Env, limit: int | None = None) -> tuple[list[Array], Array]:
    """Rebuild a `while`; with a limit, stop after that many trips.

    Returns:
      The carries, and whether the loop was stopped by the limit.
    """
    predicate, body = equation.bodies
    init = read_all(env, equation.inputs)

    def go_on(carry: list[Array]) -> Array:
        inner = dict(env)
        write(inner, predicate.inputs, carry)
        return evaluate(predicate, inner)[0]

    def turn(carry: list[Array]) -> list[Array]:
        inner = dict(env)
        write(inner, body.inputs, carry)
        return evaluate(body, inner)

    if limit is None:
        return lax.while_loop(go_on, turn, init), np.False_
    final, _ = lax.while_loop(
        lambda state: go_on(state[0]) & (state[1] < limit),
        lambda state: (turn(state[0]), state[1] + 1),
        (init, np.int32(0)),
    )
    return final, go_on(final)
