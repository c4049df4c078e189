"""Interpreters of blocks: evaluate them as they are, or rebuild a `scan`, `cond` or `while`.

An environment binds variables to values. `evaluate` and `replay` compute exactly what the function
computes, unless the caller replaces `apply`, which evaluates one equation without bodies; `scan`
and `switch` let the caller replace the bodies of an equation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.jaxpr import from_jax
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
    return list(from_jax.as_function(equation)(*values))


Apply = Callable[[Equation, Sequence[Array]], list[Array]]


def in_trip(apply: Apply, number: Array) -> Apply:
    """How equations are evaluated in a trip of a loop, if that depends on its number."""
    of_trip: Callable[[Array], Apply] | None = getattr(apply, "in_trip", None)
    return apply if of_trip is None else of_trip(number)


def evaluate(block: Block, env: Env, apply: Apply = apply) -> list[Array]:
    """Outputs of a block, whose inputs and free variables are in `env`."""
    for equation in block.equations:
        replay(equation, env, apply)
    return read_all(env, block.outputs)


def replay(equation: Equation, env: Env, apply: Apply = apply) -> None:
    """Evaluate one equation, including its bodies."""
    if equation.kind == "scan":
        [body] = equation.bodies
        outputs = scan(equation, env, lambda inner, _: (evaluate(body, inner, apply), ()))[0]
    elif equation.kind == "cond":
        branches = [lambda b=b: evaluate(b, dict(env), apply) for b in equation.bodies]
        outputs = switch(equation, env, branches)
    elif equation.kind == "while":
        outputs, _ = while_loop(equation, env, apply=apply)
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
      env: the environment of the equation; the body gets a copy with its inputs bound.
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

    final, (stacks, more) = _iterated(step, init, (slices, extra), params)
    return [*final, *stacks], more


Step = Callable[[Any, Any], tuple[Any, Any]]


def _iterated(step: Step, init: Any, slices: Any, params: Mapping[str, Any]) -> tuple[Any, Any]:
    """`lax.scan`, also op by op.

    There, JAX compiles a slice for each iteration and a stack of as many arrays, and it has no scan
    of length 0.
    """
    length, reverse = params["length"], params["reverse"]
    if not jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        unroll = params["unroll"]
        return lax.scan(step, init, slices, length=length, reverse=reverse, unroll=unroll)

    def one(i: int) -> Any:
        return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), slices)

    if not length:
        each = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), slices)
        _, stacks = jax.eval_shape(step, init, each)
        return init, jax.tree.map(lambda s: jnp.zeros((0, *s.shape), s.dtype), stacks)
    carry, found = init, [()] * length
    for i in reversed(range(length)) if reverse else range(length):
        carry, found[i] = step(carry, one(i))
    return carry, jax.tree.map(lambda *ys: _stacked(ys), *found)


def _stacked(values: Sequence[Array]) -> Array:
    try:
        return jnp.asarray(np.stack([np.asarray(y) for y in values]))
    except TypeError:  # being traced, or random keys
        return jnp.stack(values)


def switch(equation: Equation, env: Env, branches: Sequence[Callable[[], Any]]) -> Any:
    """Rebuild a `cond` around other branches, which take no operands."""
    return lax.switch(read(env, equation.inputs[0]), branches)


def union_switch(
    equation: Equation, env: Env, branch: Callable[[Block], tuple[list[Array], dict[int, Any]]]
) -> tuple[list[Array], dict[int, Any]]:
    """Rebuild a `cond` whose branches also find arrays: each returns what any of them finds.

    Args:
      equation: the `cond`.
      env: the environment of the equation.
      branch: `body -> (outputs, what it finds by index)`; what only others find is zero.
    """
    shapes: dict[int, Any] = {}
    for body in equation.bodies:
        shapes |= jax.eval_shape(lambda body=body: branch(body)[1])

    def filled(body: Block) -> tuple[list[Array], dict[int, Any]]:
        outputs, found = branch(body)
        other = {i: s for i, s in shapes.items() if i not in found}
        return outputs, found | jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), other)

    return switch(equation, env, [lambda body=body: filled(body) for body in equation.bodies])


class Budget(NamedTuple):
    """Trips that are left to nested loops, and whether one of them needed more."""

    left: Array
    stopped: Array


def while_loop(
    equation: Equation, env: Env, limit: int | None = None, apply: Apply = apply
) -> tuple[list[Array], Array]:
    """Rebuild a `while`; with a limit, stop after that many trips.

    Args:
      equation: the loop.
      env: the environment of the loop.
      limit: the most trips of this loop and of all loops inside it together.
      apply: evaluates an equation without bodies.

    Returns:
      The carries, and whether a loop was stopped by the limit.
    """
    if limit is None:
        return counted(equation, env, apply)[0], np.False_
    budget = Budget(jnp.int32(limit), jnp.zeros((), bool))
    outputs, budget = _limited_while(equation, env, budget, apply)
    return outputs, budget.stopped


def counted(equation: Equation, env: Env, apply: Apply = apply) -> tuple[list[Array], Array]:
    """Rebuild a `while`, and count its trips: int32, one number for each element of the predicate.

    Arguments and carries as of `while_loop`.
    """
    predicate, body = equation.bodies
    batched = bool(predicate.outputs[0].shape)

    def enter(inputs: Sequence[Var], carry: list[Array]) -> Env:
        inner = dict(env)
        write(inner, inputs, carry)
        return inner

    def asked(carry: list[Array]) -> Array:
        return evaluate(predicate, enter(predicate.inputs, carry), apply)[0]

    def turn(state: tuple[list[Array], Array]) -> tuple[list[Array], Array]:
        carry, trips = state
        after = evaluate(body, enter(body.inputs, carry), apply)
        if not batched:
            return after, trips + 1
        go_on = asked(carry)
        return kept(go_on, after, carry), trips + go_on.astype(jnp.int32)

    return lax.while_loop(
        lambda state: jnp.any(asked(state[0])) if batched else asked(state[0]),
        turn,
        (read_all(env, equation.inputs), jnp.zeros(predicate.outputs[0].shape, jnp.int32)),
    )


def kept(go_on: Array, after: list[Array], before: list[Array]) -> list[Array]:
    """Carries of a loop under `vmap`: examples whose predicate is false keep their values."""
    return [
        jnp.where(go_on.reshape(go_on.shape + (1,) * (new.ndim - go_on.ndim)), new, old)
        for new, old in zip(after, before, strict=True)
    ]


def limited(block: Block, env: Env, budget: Budget, apply: Apply) -> tuple[list[Array], Budget]:
    """Outputs of a block whose loops share a budget of trips, and what is left of it."""
    for equation in block.equations:
        if not any(e.kind == "while" for e in Block((), [equation]).walk()):
            replay(equation, env, apply)
            continue
        limited = {"while": _limited_while, "scan": _limited_scan, "cond": _limited_switch}
        outputs, budget = limited[equation.kind](equation, env, budget, apply)
        write(env, equation.outputs, outputs)
    return read_all(env, block.outputs), budget


def _limited_while(
    equation: Equation, env: Env, budget: Budget, apply: Apply
) -> tuple[list[Array], Budget]:
    predicate, body = equation.bodies

    def ask(carry: list[Array], budget: Budget) -> tuple[list[Array], Array, Budget]:
        inner = dict(env)
        write(inner, predicate.inputs, carry)
        [go_on], budget = limited(predicate, inner, budget, apply)
        return carry, go_on & ~budget.stopped, budget

    def turn(state: Any) -> tuple[list[Array], Array, Budget]:
        carry, before, budget = state
        inner = dict(env)
        write(inner, body.inputs, carry)
        outputs, budget = limited(body, inner, budget._replace(left=budget.left - 1), apply)
        return ask(kept(before, outputs, carry) if before.ndim else outputs, budget)

    start = ask(read_all(env, equation.inputs), budget)
    carry, go_on, budget = lax.while_loop(lambda s: jnp.any(s[1]) & (s[2].left > 0), turn, start)
    return carry, budget._replace(stopped=budget.stopped | jnp.any(go_on))


def _limited_scan(
    equation: Equation, env: Env, budget: Budget, apply: Apply
) -> tuple[list[Array], Budget]:
    [body], count = equation.bodies, equation.params["num_carry"]

    def step(state: tuple[list[Array], Budget], slices: list[Array]) -> Any:
        carry, budget = state
        inner = dict(env)
        write(inner, body.inputs, [*carry, *slices])
        outputs, budget = limited(body, inner, budget, apply)
        return (outputs[:count], budget), outputs[count:]

    inputs = read_all(env, equation.inputs)
    start = inputs[:count], budget
    (carry, budget), stacks = _iterated(step, start, inputs[count:], equation.params)
    return [*carry, *stacks], budget


def _limited_switch(
    equation: Equation, env: Env, budget: Budget, apply: Apply
) -> tuple[list[Array], Budget]:
    branches = [lambda b=b: limited(b, dict(env), budget, apply) for b in equation.bodies]
    return switch(equation, env, branches)
