"""Replay only what the operands of some claims and outputs need, with every claim given.

For the second look and the judge of evidence (`second_look`, `evidence`). `check.replay` evaluates
a whole check; this module evaluates a part of it, and may evaluate equations in another way: with
other rounding, or in double precision. `needed` finds the variables, backwards from the operands
to the nearest claims; `measure` evaluates them. Values that depend on parameters only are in the
key; a judge, who has the parameters and no key, evaluates them too.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from verifiable.check.partition import Analysis, Frame
from verifiable.check.replay import Context
from verifiable.claims.claim import Claim
from verifiable.claims.form import Form, Yardstick
from verifiable.claims.statistic import Deviation, Statistic
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Block, Env, Equation, Var
from verifiable.jaxpr.effects import CUT
from verifiable.jaxpr.graph import uses

Measure = Callable[[Claim, Env, Context], Any]
Alter = Callable[[Array, str, Array | None], Array]
Later = tuple[Equation, Claim]

LATER = -1  # index of what is measured before a later equation


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Needs:
    """What some claims and outputs need of a program.

    Attributes:
      analysis: of the program.
      claims: indices of the claims whose operands are wanted.
      variables: all that are needed: evaluated here, held by the key, or given.
      reads: indices of the claims whose values are read.
      keyed: whether a key holds the known values that are not rebuilt.
      later: an equation, outside of branches, before which a claim is measured once more; then
        nothing else is measured.
    """

    analysis: Analysis
    later: Later | None = None
    claims: frozenset[int]
    variables: frozenset[Var]
    reads: frozenset[int]
    keyed: bool

    def held(self, variable: Var) -> bool:
        """Whether the key holds a variable, if it is needed at all."""
        known = self.analysis.facts[variable].known
        return self.keyed and known and variable not in self.analysis.rebuilt

    def evaluates(self, variable: Var) -> bool:
        """Whether a variable is needed and not held by the key."""
        return variable in self.variables and not self.held(variable)


def needed(
    block: Block,
    analysis: Analysis,
    claims: Iterable[int],
    outputs: Iterable[Atom] = (),
    *,
    keyed: bool = True,
    later: Later | None = None,
) -> Needs:
    """What the operands of some claims, and some outputs, need.

    Args:
      block: the outermost block.
      analysis: of the function.
      claims: indices of claims.
      outputs: outputs of the block.
      keyed: whether a key holds the known values that are not rebuilt; else they are evaluated.
      later: see `Needs`.
    """
    search = _Search(analysis, frozenset(claims), keyed, later and later[0], set(), set())
    search.want(outputs)
    before = -1
    while len(search.variables) != before:  # a carry may need another carry
        before = len(search.variables)
        search.block(block)
    return Needs(
        analysis=analysis,
        claims=search.claims,
        variables=frozenset(search.variables),
        reads=frozenset(search.reads),
        keyed=keyed,
        later=later,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    analysis: Analysis
    claims: frozenset[int]
    keyed: bool
    later: Equation | None
    variables: set[Var]
    reads: set[int]

    def want(self, atoms: Iterable[Atom]) -> None:
        self.variables.update(a for a in atoms if isinstance(a, Var))

    def wanted(self, equation: Equation) -> list[bool]:
        return [v in self.variables for v in equation.outputs]

    def held(self, equation: Equation) -> bool:
        known = self.keyed and self.analysis.known(equation)
        return known and self.analysis.rebuilt.isdisjoint(equation.outputs)

    def block(self, block: Block) -> None:
        for equation in reversed(block.equations):
            claim = self.analysis.by_equation.get(equation)
            if equation is self.later:
                self.want(equation.inputs)
            if claim is not None:
                if claim.index in self.claims:
                    self.want(claim.reads)
                    if not self.keyed and claim.far is not None:
                        self.want((claim.far,))
                    self.reads.add(claim.index)
                if any(self.wanted(equation)):
                    self.want(claim.feeds)
                    self.reads.add(claim.index)
            elif self.held(equation):
                continue
            elif equation.kind == "scan":
                self.scan(equation)
            elif equation.kind == "cond":
                for body in equation.bodies:
                    self.want(itertools.compress(body.outputs, self.wanted(equation)))
                    self.block(body)
                if any(self.wanted(equation)) or self.inside(equation):
                    self.want(equation.inputs)
            elif any(self.wanted(equation)):
                self.want(uses(equation))

    def scan(self, equation: Equation) -> None:
        [body] = equation.bodies
        count = equation.params["num_carry"]
        self.want(itertools.compress(body.outputs, self.wanted(equation)))
        self.want(itertools.compress(body.inputs[:count], self.wanted(equation)))
        self.block(body)
        for i, v in enumerate(body.inputs):
            if v in self.variables and not (self.keyed and self.analysis.facts[v].known):
                self.want((equation.inputs[i],))
                if i < count:
                    self.want((body.outputs[i],))

    def inside(self, equation: Equation) -> bool:
        found = (c.index for body in equation.bodies for c in self.analysis.claims_in(body))
        return not self.claims.isdisjoint(found)


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
        last one as in `known`, if the context has it.

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
        cuts = [i for a in wanted if (i := self.cut(body, a)) is not None]
        if idle and not any(stacked) and equation.params["length"] and len(cuts) == len(wanted):
            last = 0 if equation.params["reverse"] else -1  # committed: nothing is replayed
            interpret.write(env, variables, [context.claimed[i][last] for i in cuts])
            return {}
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

    def cut(self, body: Block, atom: Atom) -> int | None:
        """The claim that commits to a value of a body as it is passed on, if one does."""
        made = (e for e in body.equations if atom in e.outputs)
        found = filter(None, map(self.needs.analysis.by_equation.get, made))
        return next((c.index for c in found if c.primitive == CUT), None)

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
