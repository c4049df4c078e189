"""Replay only what the operands of some claims and outputs need, with every claim given.

For the second look and the judge of evidence (`second_look`, `evidence`). `replay.replay` evaluates
a whole check; this module evaluates a part of it, which `needed` finds, and may evaluate equations
in another way: with other rounding, or in double precision.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from verifiable.check.analysis.partition import Frame
from verifiable.check.replay.needed import Needs
from verifiable.check.replay.replay import Context
from verifiable.claims.claim import Claim
from verifiable.claims.form import Form, Yardstick
from verifiable.claims.statistic import Deviation, Statistic
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Block, Env, Equation, Var

Measure = Callable[[Claim, Env, Context], Any]
Alter = Callable[[Array, str, Array | None], Array]

LATER = -1  # index of what is measured before a later equation


def measure(
    block: Block,
    needs: Needs,
    context: Context,
    env: Env,
    measure: Measure,
    apply: interpret.Apply = interpret.apply,
    alter: Alter = lambda value, *_: value,
) -> dict[int, Any]:
    """Evaluate a part of a program, and measure its claims.

    Args:
      block: the outermost block; its inputs that are needed and not held by the key are in `env`.
      needs: from `needed`.
      context: of the check, inside the outermost frame.
      env: values by variable; this function writes to it.
      measure: `(claim, env, context) -> pytree`; the operands of the claim are in `env`.
      apply: evaluates an equation without bodies.
      alter: `(value, name, change) -> value`, applied to inexact values that the key holds; the
        last one as in `parameter_values`, if the context has it.

    Returns:
      What `measure` returned by index of the claim, stacked over the trips of the scans around it;
      zeros where a branch was not taken.
    """
    walk = _Walk(needs, measure, apply, alter)
    if needs.keyed:
        walk.enter(needs.analysis.frame, context, env)
    return walk.block(block, context, env)


@dataclass(frozen=True, slots=True, eq=False)
class _Walk:
    needs: Needs
    measure: Measure
    apply: interpret.Apply
    alter: Alter

    def enter(self, frame: Frame, context: Context, env: Env) -> None:
        """Alter the inexact values that the key holds for a frame."""
        changes = context.changes or [None] * len(frame.kept)
        for i, (v, change) in enumerate(zip(frame.kept, changes, strict=True)):
            if not self.needs.analysis.facts[v].exact:
                env[v] = self.alter(env[v], f"kept/{frame.depth}/{i}", change)

    def block(self, block: Block, context: Context, env: Env) -> dict[int, Any]:
        analysis, found, later = self.needs.analysis, {}, self.needs.later
        for equation in block.equations:
            if later is not None and equation is later[0]:
                found[LATER] = self.measure(later[1], env, context)
            claim = analysis.by_equation.get(equation)
            if claim is not None:
                measured = claim.index in self.needs.claims
                read = any(v in self.needs.variables for v in equation.outputs)
                if measured or (read and equation.bodies):
                    claim.prepare(
                        context.claimed[claim.index], env, *context.of_loops(claim), self.apply
                    )
                if measured and later is None:
                    found[claim.index] = self.measure(claim, env, context)
                if read:
                    outputs = claim.outputs(context.claimed[claim.index], env)
                    interpret.write(env, equation.outputs, outputs)
            elif self.needs.keyed and analysis.known(equation) and equation.bodies:
                continue
            elif equation.kind in ("scan", "cond"):
                several = self.scan if equation.kind == "scan" else self.switch
                found |= several(equation, context, env)
            elif not any(self.needs.evaluates(v) for v in equation.outputs):
                continue
            elif equation.kind == "while":
                limit = context.policy.trip_limit
                outputs, _ = interpret.while_loop(equation, env, limit, self.apply)
                interpret.write(env, equation.outputs, outputs)
            else:
                interpret.replay(equation, env, self.apply)
        return found

    def scan(self, equation: Equation, context: Context, env: Env) -> dict[int, Any]:
        if equation in self.needs.ended:  # committed: nothing is replayed
            for v, i in self.needs.ended[equation].items():
                env[v] = context.claimed[i]
            return {}
        [body] = equation.bodies
        count = equation.params["num_carry"]
        slots = [self.needs.evaluates(v) for v in body.inputs]
        stacked = [self.needs.evaluates(v) for v in equation.outputs[count:]]
        inside = [c.index for c in self.needs.analysis.claims_in(body)]
        idle = self.needs.claims.isdisjoint(inside)
        if self.needs.later is not None:
            idle = self.needs.later[0] not in body.walk()
        if idle and not any(slots[:count] + stacked):
            return {}
        wanted = list(itertools.compress(body.outputs, slots[:count] + stacked))
        variables = list(itertools.compress(equation.outputs, slots[:count] + stacked))
        frame, residual = context.children[equation] if self.needs.keyed else (None, None)
        claimed = {i: context.claimed[i] for i in inside if i in context.claimed}

        def step(inner: Env, slices: Any) -> tuple[list[Array], dict[int, Any]]:
            residual, claimed = slices
            here = replace(context, claimed=claimed)
            if frame is not None:
                here = here.inside(frame, residual, inner)
                self.enter(frame, here, inner)
            found = self.block(body, here, inner)
            return interpret.read_all(inner, wanted), found

        outputs, found = interpret.scan(
            equation,
            env,
            step,
            extra=(residual, claimed),
            carried=slots[:count],
            scanned=slots[count:],
        )
        interpret.write(env, variables, outputs)
        return found

    def switch(self, equation: Equation, context: Context, env: Env) -> dict[int, Any]:
        wanted = [self.needs.evaluates(v) for v in equation.outputs]
        inside = [c.index for body in equation.bodies for c in self.needs.analysis.claims_in(body)]
        if not any(wanted) and self.needs.claims.isdisjoint(inside):
            return {}

        def branch(body: Block) -> tuple[list[Array], dict[int, Any]]:
            inner = dict(env)
            found = self.absent(inside, context) | self.block(body, context, inner)
            return interpret.read_all(inner, list(itertools.compress(body.outputs, wanted))), found

        branches = [functools.partial(branch, body) for body in equation.bodies]
        outputs, found = interpret.switch(equation, env, branches)
        variables = itertools.compress(equation.outputs, wanted)
        interpret.write(env, list(variables), outputs)
        return found

    def absent(self, indices: Iterable[int], context: Context) -> dict[int, Any]:
        """What is found of the measured ones of some claims that are not evaluated: zeros.

        Their shapes follow from the claim alone. A body that is not evaluated is not traced either:
        op by op in double precision, its branches and iterations may have different types.
        """
        found: dict[int, Any] = {}
        claims = {c.index: c for c in self.needs.analysis.by_equation.values()}
        for index in self.needs.claims.intersection(indices):
            claim, value = claims[index], context.claimed[index]
            trips = value.shape[: len(claim.trips) - (len(claim.shape) - value.ndim)]
            found[index] = jax.tree.map(
                lambda s, trips=trips: jnp.zeros(trips + s.shape, s.dtype),
                self.measured(claim, context),
            )
        return found

    def measured(self, claim: Claim, context: Context) -> Any:
        """Shapes of what is found of a claim in one iteration."""
        read = [*claim.operands, *([] if claim.far is None else [claim.far])]
        if claim.loop is not None:
            read += [*claim.reads, *claim.equation.outputs]
        variables = [a for a in read if isinstance(a, Var)]
        structs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in variables]
        packed = claim.form.packed(claim.output.shape, claim.output.dtype)
        structs.append(jax.ShapeDtypeStruct(*packed))

        def one(values: list[Array]) -> Any:
            here = replace(context, claimed={claim.index: values[-1]}, projections={})
            return self.measure(claim, dict(zip(variables, values, strict=False)), here)

        return jax.eval_shape(one, structs)


def deviation(claim: Claim, env: Env, context: Context) -> Deviation:
    """The deviation of a claim from its operands: a `Measure`."""
    return _apart("deviate", claim, env, context)


def effect(claim: Claim, env: Env, context: Context) -> Deviation:
    """What another number of trips changes after a loop: a `Measure`; see `LoopForm.effect`."""
    if claim.loop is None:
        raise TypeError(f"only a loop has an effect, and {claim.name} is a {claim.primitive}")
    return claim.loop.effect(claim.equation, env, *context.of_loops(claim), interpret.apply)


def retest(claim: Claim, env: Env, context: Context) -> Statistic:
    """The test of a claim that is not finite, not its operands, or undecided: a `Measure`."""
    return _apart("retest", claim, env, context)


def unfounded(claim: Claim, env: Env, context: Context) -> Array:
    """Which rows have numbers although the operands leave none: a `Measure`."""
    return _apart("unfounded", claim, env, context)


def _apart(method: str, claim: Claim, env: Env, context: Context) -> Any:
    """A method of the claim's form.

    Only the glue is the user's; the test itself is compiled where the glue goes op by op.
    """
    projection, far = context.projections.get(claim.index), None
    if projection is None and claim.far is not None:
        far = jnp.asarray(interpret.read(env, claim.far), claim.far.dtype)
    vectors = None if claim.vectors is None else context.vectors[claim.vectors]
    arrays = (
        interpret.read_all(env, claim.operands),
        far,
        context.claimed[claim.index],
        projection,
        vectors,
        context.moves.get(claim.index),
    )
    policy = context.policy
    eps = policy.eps_of(claim, claim.name)
    with jax.disable_jit(False):
        return _compiled(claim.form, method, eps, context.limit, arrays)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _compiled(form: Form, method: str, eps: float, limit: float, arrays: Any) -> Any:
    read, far, value, projection, vectors, moves = arrays
    yardstick = Yardstick(eps=eps, limit=limit, vectors=vectors, projection=projection, moves=moves)
    if far is not None:
        yardstick = replace(yardstick, projection=form.project(far, yardstick))
    return getattr(form, method)(read, value, yardstick)


def flattened(found: Deviation, claim: Claim) -> Deviation:
    """The deviations of a claim over all trips of the scans around it, as one sequence of rows."""
    around = len(claim.trips)
    return Deviation(*(x.reshape((-1, *x.shape[around + 1 :])) for x in found))
