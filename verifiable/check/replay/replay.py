"""The coordinator's half: a function in which every contraction is replaced by its claim.

`setup` evaluates, once, everything that depends on parameters only. `check` evaluates the rest for
a run, with each claimed output in place of its contraction, and tests the claim there. Both are
pure JAX functions that run under `jax.enable_x64`, and return statistics, never verdicts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax.numpy as jnp

from verifiable.check.analysis.partition import Analysis, Frame
from verifiable.check.outputs import OutputStatistic
from verifiable.check.schedule import Strategy
from verifiable.check.specification import Specification
from verifiable.check.tiling import evaluate
from verifiable.check.tiling.plan import Region, plan
from verifiable.claims.claim import Claim
from verifiable.claims.form import Yardstick
from verifiable.claims.products.condensed import condensed, restored
from verifiable.claims.statistic import Statistic, summary, untaken
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Block, Env, Equation
from verifiable.policy import Policy

_ANY = Strategy()
Residual = dict[str, Any]  # kept: [array], projected: [pytree], children: [Residual]
Measure = Callable[[Frame, Env, Any], Residual]


class Findings(NamedTuple):
    """What a check measures, as arrays; a pytree.

    Attributes:
      statistics: by index of the claim; stacked over the trips of the scans around it.
      taken: by index of the claim, whether its branch was taken.
      stopped: by name of the loop, whether it ran into the trip limit.
      outputs: by index of the leaf of the output.
    """

    statistics: dict[int, Statistic]
    taken: dict[int, Array]
    stopped: dict[str, Array]
    outputs: dict[int, OutputStatistic]

    def update(self, other: Findings) -> None:
        """Add other findings to these."""
        self.statistics.update(other.statistics)
        self.taken.update(other.taken)
        self.stopped.update(other.stopped)
        self.outputs.update(other.outputs)


def setup(
    frame: Frame,
    analysis: Analysis,
    env: Env,
    vectors: Mapping[str, Array],
    policy: Policy,
    apply: interpret.Apply = interpret.apply,
) -> Residual:
    """Evaluate the known part of a block.

    Args:
      frame: the known part.
      analysis: of the whole function.
      env: values of constants and parameters; this function writes to it.
      vectors: random vectors by label.
      policy: for the tolerances.
      apply: evaluates an equation without bodies.

    Returns:
      Values to keep, projections, and the same for each scan, stacked over its iterations.
    """

    def measure(frame: Frame, env: Env, _: Any) -> Residual:
        projected = [
            condensed(c, _project(c, env, given := yardstick(c, vectors, policy)), given.eps)
            for c in projecting(frame, policy)
        ]
        return {"kept": [env[v] for v in frame.kept], "projected": projected}

    return known(frame, analysis, env, measure, apply)


def known(
    frame: Frame,
    analysis: Analysis,
    env: Env,
    measure: Measure,
    apply: interpret.Apply = interpret.apply,
    extra: Any = None,
) -> Residual:
    """Evaluate the known part of a block, and measure it and that of the scans inside it.

    Args:
      frame: the known part.
      analysis: of the whole function.
      env: values of constants and parameters; this function writes to it.
      measure: `(frame, env, extra of the frame) -> what is wanted of it`, by name.
      apply: evaluates an equation without bodies.
      extra: arrays for `measure`, in the form of a residual.
    """
    children: list[Residual] = []
    for equation in frame.steps:
        if equation in frame.children:
            below = None if extra is None else extra["children"][len(children)]
            child = frame.children[equation]
            children.append(_known_scan(equation, child, analysis, env, measure, apply, below))
        else:
            interpret.replay(equation, env, apply)
    return {**measure(frame, env, extra), "children": children}


def projecting(frame: Frame, policy: Policy) -> list[Claim]:
    """Of the claims that share a projection of a frame, the one whose yardstick makes it.

    Where weights are subnormal, the smallest tolerance asks for the largest projection.
    """
    return [
        min(claims, key=lambda c: policy.eps_of(c, c.name)) for claims in frame.projected.values()
    ]


def yardstick(
    claim: Claim,
    vectors: Mapping[str, Array],
    policy: Policy,
    limit: float = 0.0,
    projection: Any = None,
) -> Yardstick:
    """What a claim is tested against, besides its operands; see `form.Yardstick`."""
    return Yardstick(
        eps=policy.eps_of(claim, claim.name),
        limit=limit,
        vectors=None if claim.vectors is None else vectors[claim.vectors],
        projection=projection,
    )


def _project(claim: Claim, env: Env, yardstick: Yardstick) -> Any:
    if claim.far is None:
        return None
    return claim.form.project(interpret.read(env, claim.far), yardstick)


def _known_scan(
    equation: Equation,
    frame: Frame,
    analysis: Analysis,
    env: Env,
    measure: Measure,
    apply: interpret.Apply,
    extra: Any,
) -> Residual:
    carried, scanned, stacked = _slots(equation, analysis)
    wanted = list(itertools.compress(equation.bodies[0].outputs, carried + stacked))

    def step(inner: Env, extra: Any) -> tuple[list[Array], Residual]:
        residual = known(frame, analysis, inner, measure, apply, extra)
        return interpret.read_all(inner, wanted), residual

    outputs, residual = interpret.scan(
        equation, env, step, extra=extra, carried=carried, scanned=scanned
    )
    variables = list(itertools.compress(equation.outputs, carried + stacked))
    interpret.write(env, variables, outputs)
    return residual


def _slots(equation: Equation, analysis: Analysis) -> tuple[list[bool], list[bool], list[bool]]:
    """Which carries, scanned inputs and stacked outputs of a scan are known."""
    [body] = equation.bodies
    count = equation.params["num_carry"]
    inputs = [analysis.facts[v].known for v in body.inputs]
    stacked = [analysis.fact(a).known for a in body.outputs[count:]]
    return inputs[:count], inputs[count:], stacked


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """Everything that the check of a block looks up.

    Attributes:
      analysis: of the whole function.
      policy: tolerances and limits.
      limit: of the statistic, L of `freivalds`.
      vectors: random vectors by label.
      claimed: claimed outputs by index, without the dimensions of the scans around.
      tested: indices of the claims to test.
      strategy: for the sizes of the tiles; see `tiling`.
      projections: of known operands, by index of the claim.
      children: known part and residual of each scan.
      moves: how far other rounding moves known far operands and tables, by index of the claim; in
        a second look, or where there are tables (`parameter_values`).
      changes: the same of what the key keeps for the frame; none or one for each.
      apply: evaluates an equation without bodies, of those that `check` replays.
    """

    analysis: Analysis
    policy: Policy
    limit: float
    vectors: Mapping[str, Array]
    claimed: Mapping[int, Array]
    tested: frozenset[int]
    strategy: Strategy
    projections: Mapping[int, Any] = field(default_factory=dict)
    children: Mapping[Equation, tuple[Frame, Residual]] = field(default_factory=dict)
    moves: Mapping[int, Array | None] = field(default_factory=dict)
    changes: Sequence[Array | None] = ()
    apply: interpret.Apply = interpret.apply

    def yardstick(self, claim: Claim, env: Env) -> Yardstick:
        """The yardstick of a claim, whose far operand the key has projected or `env` holds."""
        found = yardstick(claim, self.vectors, self.policy, self.limit)
        projection = self.projections.get(claim.index)
        if projection is None:
            projection = _project(claim, env, found)
        return replace(found, projection=projection, moves=self.moves.get(claim.index))

    def of_loops(self, claim: Claim) -> tuple[float, int]:
        """Tolerance and trip limit of a claim, as `Claim.prepare` takes them."""
        return self.policy.eps_of(claim, claim.name), self.policy.trip_limit

    def inside(self, frame: Frame, residual: Residual, env: Env) -> Context:
        """The context of a frame's block; binds in `env` what the key keeps for it."""
        interpret.write(env, frame.kept, residual["kept"])
        pairs = zip(frame.projected.values(), residual["projected"], strict=True)
        own = {c.index: restored(c, kept) for claims, kept in pairs for c in claims}
        below = zip(frame.children.values(), residual["children"], strict=True)
        inside = replace(
            self,
            projections={**self.projections, **own},
            children=dict(zip(frame.children, below, strict=True)),
        )
        moves = residual.get("moves")
        if moves is None:
            return inside
        moved = {**self.moves, **frame.moves(moves)}
        return replace(inside, moves=moved, changes=moves["kept"])


def begin(
    program: Specification,
    key: Any,
    inputs: Sequence[Array],
    claimed: Mapping[int, Array],
    *,
    tested: Iterable[int] = (),
    strategy: Strategy = _ANY,
) -> tuple[Env, Context]:
    """The environment and context of a check, in the outermost block.

    Args:
      program: the compiled function.
      key: what the key holds, as the tree of `setup` and the random vectors.
      inputs: leaves of the job's inputs.
      claimed: claimed outputs by index.
      tested: indices of the claims to test.
      strategy: for the sizes of the tiles.
    """
    variables = program.function.block.inputs
    env: Env = dict(zip(variables[len(variables) - len(inputs) :], inputs, strict=True))
    context = context_of(program, key["vectors"], claimed)
    context = replace(context, tested=frozenset(tested), strategy=strategy)
    return env, context.inside(program.analysis.frame, key["residual"], env)


def context_of(
    program: Specification, vectors: Mapping[str, Array], claimed: Mapping[int, Array]
) -> Context:
    """The context of a replay without a key and without tests; arguments as of `begin`."""
    return Context(
        analysis=program.analysis,
        policy=program.policy,
        limit=program.bound.limit if program.bound else 0.0,
        vectors=vectors,
        claimed=claimed,
        tested=frozenset(),
        strategy=_ANY,
    )


def check(
    block: Block, context: Context, env: Env, wanted: Sequence[Atom] | None = None
) -> tuple[list[Array], Findings]:
    """Evaluate what is not known of a block, and test its claims.

    Args:
      block: a block; the unknown ones of its inputs and free variables are in `env`.
      context: see `Context`.
      env: values by variable; this function writes to it.
      wanted: atoms to return, by default the outputs of the block.

    Returns:
      Values of the wanted atoms, and the findings.
    """
    analysis, apply = context.analysis, context.apply
    findings = Findings({}, {}, {}, {})
    wanted = block.outputs if wanted is None else wanted
    tiles = plan(block, analysis, wanted, context.strategy, context.tested)
    for equation in block.equations:
        if equation in tiles.inside or equation in analysis.unread:
            continue
        if analysis.known(equation):
            if analysis.rebuilt.intersection(equation.outputs):
                interpret.replay(equation, env, apply)
        elif equation in analysis.by_equation:
            claim = analysis.by_equation[equation]
            committed, tested = context.claimed[claim.index], claim.index in context.tested
            if tested or equation.bodies:
                found = claim.prepare(committed, env, *context.of_loops(claim), apply)
                findings.stopped.update(found)
            if tested:
                findings.statistics[claim.index] = _test(claim, context, env, tiles.regions)
                findings.taken[claim.index] = jnp.ones((), bool)
            interpret.write(env, equation.outputs, claim.outputs(committed, env))
        elif equation.kind == "while":
            limit, name = context.policy.trip_limit, equation.name
            outputs, findings.stopped[name] = interpret.while_loop(equation, env, limit, apply)
            interpret.write(env, equation.outputs, outputs)
        elif equation.bodies:
            several = _check_scan if equation.kind == "scan" else _check_switch
            findings.update(several(equation, context, env))
        else:
            interpret.replay(equation, env, apply)
    return interpret.read_all(env, wanted), findings


def _test(claim: Claim, context: Context, env: Env, regions: Mapping[int, Region]) -> Statistic:
    out = context.claimed[claim.index]
    given = context.yardstick(claim, env)
    given = claim.form.cheapened(given) if context.strategy.cheap_first else given
    region = regions.get(claim.index)
    if region is None:
        return claim.form.test(interpret.read_all(env, claim.operands), out, given)
    return summary(evaluate.test(region, claim, env, out, given))


def _check_scan(equation: Equation, context: Context, env: Env) -> Findings:
    [body] = equation.bodies
    carried, scanned, stacked = (
        [not k for k in known] for known in _slots(equation, context.analysis)
    )
    wanted = list(itertools.compress(body.outputs, carried + stacked))
    frame, residual = context.children[equation]
    claimed = {c.index: context.claimed[c.index] for c in context.analysis.claims_in(body)}

    def step(inner: Env, slices: Any) -> tuple[list[Array], Findings]:
        residual, claimed = slices
        here = replace(context, claimed=claimed)
        return check(body, here.inside(frame, residual, inner), inner, wanted)

    outputs, findings = interpret.scan(
        equation, env, step, extra=(residual, claimed), carried=carried, scanned=scanned
    )
    interpret.write(env, list(itertools.compress(equation.outputs, carried + stacked)), outputs)
    # One flag a loop, however many scans are around it: branches must return the same shapes.
    stopped = {name: jnp.any(flags) for name, flags in findings.stopped.items()}
    return findings._replace(stopped=stopped)


def _check_switch(equation: Equation, context: Context, env: Env) -> Findings:
    analysis = context.analysis
    inside = [c for body in equation.bodies for c in analysis.claims_in(body)]
    claims = [c for c in inside if c.index in context.tested]
    loops = [e for body in equation.bodies for e in analysis.loops_in(body)]

    def branch(body: Block) -> tuple[list[Array], Findings]:
        outputs, own = check(body, context, dict(env))
        absent: dict[int, Statistic] = {}
        for c in claims:
            if c.index not in own.statistics:
                out = context.claimed[c.index]
                # Scans inside of the branch: each of their trips has a statistic.
                trips = out.shape[: len(c.trips) - (len(c.shape) - out.ndim)]
                absent[c.index] = untaken(out, trips)
        return outputs, Findings(
            statistics=absent | own.statistics,
            taken={i: jnp.zeros(s.passed.shape, bool) for i, s in absent.items()} | own.taken,
            stopped={e.name: jnp.zeros((), bool) for e in loops} | own.stopped,
            outputs={},
        )

    branches = [lambda body=body: branch(body) for body in equation.bodies]
    outputs, findings = interpret.switch(equation, env, branches)
    interpret.write(env, equation.outputs, outputs)
    return findings
