"""What the tolerance leaves to a cheat: how far it can move an answer without being caught.

A cheat shifts every claim by less than what is caught, each in the direction that moves the answer
most, and computes on honestly from there. To first order it moves a scalar answer by at most

    reach = sum_i tau_i ||(d answer / d C_i) / w||,          tau_i = kappa sigma_i

over the rows i of all contractions (Cauchy and Schwarz: ||delta_i * w|| <= tau_i), and by

    sum_ij |d answer / d q_ij| max |f(v_ij +- slack) - q_ij|

over the elements of all roundings, through which the derivative goes as if they were the identity,
and, of each decision claim, by

    sum_ij |d answer / d c_ij|

over as many near-ties as may be flips (`flips`), those that move the answer most: the derivative is
the difference of what the decision selects (`relaxed`). Decisions that are branches or indices have
no derivative; the reach is infinite if one of them is a near-tie. Integer products leave nothing.
The derivatives are of the whole function, later claims included: one vector-Jacobian product, about
the cost of three runs, and it needs the parameters.

With kappa from `Bound.kappa`, a row that deviates by more is caught with probability 1 - 1e-9.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from verifiable.check import execute
from verifiable.check.analysis.partition import Analysis
from verifiable.check.freedom import relaxed
from verifiable.check.specification import Specification
from verifiable.claims.claim import Claim
from verifiable.claims.form import Form
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Block, Env, Equation
from verifiable.jaxpr.effects import is_float
from verifiable.jaxpr.graph import Graph
from verifiable.report import Corridor
from verifiable.trace import Trace

Answer = Callable[[Any], Any]

_KEPT = 4
"""For how many answers a program keeps what was compiled."""


def margin(scores: Float[Any, " classes"]) -> Float[Any, ""]:
    """The largest score minus the second largest: what has to be overcome to change an argmax.

    Args:
      scores: (classes,), at least two.
    """
    best, second = lax.top_k(jnp.ravel(scores), 2)[0]
    return best - second


def corridor(
    program: Specification,
    params: Any,
    inputs: tuple[Any, ...],
    answer: Answer,
    kappa: float | None,
) -> Corridor:
    """How far the tolerance lets a cheat move an answer on some inputs; see `Program.corridor`."""
    if kappa is None:
        kappa = program.bound.kappa() if program.bound else 1.0
    value, found = _run(_reach, program, params, inputs, answer, kappa)
    shares = [(c.name, float(found[c.index])) for c in program.claims if c.index in found]
    return Corridor(
        margin=float(value),
        reach=sum(x for _, x in shares),
        kappa=kappa,
        shares=tuple(sorted(shares, key=lambda item: -item[1])),
        answer=answer,
    )


def attack(
    program: Specification, params: Any, inputs: tuple[Any, ...], answer: Answer, kappa: float
) -> tuple[Any, Trace]:
    """Answer and trace of the cheat itself; see `Program.attack`."""
    outputs, found = _run(_attack, program, params, inputs, answer, kappa)
    trace = Trace(values=tuple(found[c.index] for c in program.claims))
    return program.unflatten(outputs), trace


def differentiable(program: Specification) -> bool:
    """Whether an answer of a program has derivatives by its claims.

    It has none through a `while`, of which nobody knows beforehand how many trips to go back.
    """
    graph = Graph.of(program.function.block)
    return not _looped(_soft(program.analysis, graph), graph)


def _looped(claims: Sequence[Claim], graph: Graph) -> bool:
    """Whether a `while` follows from one of some claims."""
    reaching = graph.reaching({"while"})
    return any(c.output in reaching for c in claims)


def _soft(analysis: Analysis, graph: Graph) -> list[Claim]:
    """The claims that a cheat can shift, and that have a derivative."""
    claims = analysis.by_equation.values()
    inexact = [c for c in claims if c.eps_types and c.form.shifts]
    return [c for c in inexact if not relaxed.is_hard(c.output, graph)]


def _run(
    what: Callable[..., Any],
    program: Specification,
    params: Any,
    inputs: tuple[Any, ...],
    answer: Answer,
    kappa: float,
) -> Any:
    """Compiled for the first job, and again only for another answer."""
    known, key = program.steered, (what, id(answer))
    if key not in known:
        for oldest in list(known)[: len(known) + 1 - _KEPT]:
            known.pop(oldest, None)
        known[key] = jax.jit(functools.partial(_traced, what, program, answer))
    with jax.enable_x64(True):
        return known[key](params, inputs, kappa)


def _traced(
    what: Callable[..., Any],
    program: Specification,
    answer: Answer,
    params: Any,
    inputs: Any,
    kappa: float,
) -> Any:
    def value(outputs: list[Array]) -> Array:
        return jnp.asarray(answer(program.unflatten(outputs)))

    env = program.bind(params, inputs)
    block, analysis, eps = program.function.block, program.analysis, program.tolerances
    slopes = _slopes(block, analysis, dict(env), eps, value)
    return what(_Slopes(*slopes, program.flip_limits), block, analysis, env, eps, kappa)


class _Slopes(NamedTuple):
    """How an answer depends on the claims, to first order.

    Attributes:
      value: the answer.
      rooms: by index of the claim, from `Form.room`; stacked over the trips of its scans.
      slopes: of the claims that have a derivative, the answer's derivative by the output.
      limits: how many decisions may be flips, by index of the claim.
    """

    value: Array
    rooms: dict[int, Any]
    slopes: dict[int, Array]
    limits: Mapping[int, int]

    def by_claim(
        self, analysis: Analysis, function: Callable[[Form, Any, Array], Array]
    ) -> dict[int, Array]:
        """`function(form, room, slope)` of each product and rounding, over all of its trips."""
        found: dict[int, Array] = {}
        for claim in analysis.by_equation.values():
            if claim.index in self.slopes and claim.index not in self.limits:
                one: Callable[..., Array] = functools.partial(function, claim.form)
                for _ in claim.trips:
                    one = jax.vmap(one)
                slope = self.slopes[claim.index].astype(jnp.float64)
                found[claim.index] = one(self.rooms[claim.index], slope)
        return found

    def flips(self) -> dict[int, Array]:
        """Of each decision claim with a derivative, what a flip of each near-tie may do.

        Zero where there is no tie, and where there are more than may be flips, of all but those.
        """
        found: dict[int, Array] = {}
        for index, most in self.limits.items():
            if index in self.slopes:
                effect = jnp.abs(self.slopes[index].astype(jnp.float64)) * self.rooms[index]
                ranks = jnp.argsort(jnp.argsort(-effect.reshape(-1))).reshape(effect.shape)
                found[index] = jnp.where(ranks < most, effect, 0)
        return found

    def hard(self) -> dict[int, Array]:
        """Of each claim without a derivative, infinity if another result would pass."""
        hard = {i: room for i, room in self.rooms.items() if i not in self.slopes}
        ties = {i: jnp.any(room > 0) for i, room in hard.items() if not isinstance(room, tuple)}
        return {i: jnp.where(tie, jnp.inf, 0.0) for i, tie in ties.items()}


def _reach(
    found: _Slopes,
    block: Block,
    analysis: Analysis,
    env: Env,
    eps: Mapping[str, float],
    kappa: float,
) -> tuple[Array, dict[int, Array]]:
    """The answer, and how far each claim can move it; runs under `jax.enable_x64`.

    Args:
      found: slopes of the answer.
      block: the outermost block.
      analysis: of the function.
      env: values of its inputs.
      eps: tolerance by name of the claim.
      kappa: deviation of a row, in units of sigma.
    """
    del block, env, eps
    shares = found.by_claim(analysis, lambda f, room, slope: f.reach(room, slope, kappa))
    shares |= found.flips() | found.hard()
    return found.value, {i: share.sum() for i, share in shares.items()}


def _attack(
    found: _Slopes,
    block: Block,
    analysis: Analysis,
    env: Env,
    eps: Mapping[str, float],
    kappa: float,
) -> tuple[list[Array], dict[int, Array]]:
    """The cheat itself: outputs and claims of a run whose every claim is shifted by kappa sigma.

    The shift lowers the answer as steeply as the tolerance allows; roundings take the end of their
    slack, or of kappa times the slack, that does, and near-ties the decision that does. Arguments
    as of `_reach`.
    """
    shifts = found.by_claim(analysis, lambda f, room, slope: f.steepest(room, slope, kappa))
    for index, effect in found.flips().items():
        shifts[index] = jnp.where(effect > 0, -jnp.sign(found.slopes[index]), 0)

    def emit(claim: Claim, equation: Equation, env: Env, shift: Any) -> tuple[list[Array], Array]:
        outputs, committed = execute.honest(claim, equation, env)
        if shift is None:
            return outputs, committed
        operands = _operands(claim, env)
        out = claim.form.shifted(operands, outputs[0], shift, eps[claim.name], kappa)
        if claim.transpose is not None:
            [env[claim.transpose.outputs[0]]] = interpret.apply(claim.transpose, [out])
        return [out], claim.form.pack(out)

    return execute.execute(block, analysis, env, emit=emit, given=shifts)


def _slopes(
    block: Block,
    analysis: Analysis,
    env: Env,
    eps: Mapping[str, float],
    answer: Callable[[list[Array]], Array],
) -> tuple[Array, dict[int, Any], dict[int, Array]]:
    """The answer, the room of each claim, and the answer's derivative by each claim.

    Args:
      block: the outermost block.
      analysis: of the function.
      env: values of its inputs.
      eps: tolerance by name of the claim.
      answer: scalar function of the block's outputs.
    """
    graph = Graph.of(block)
    soft = _soft(analysis, graph)
    if _looped(soft, graph):
        raise ValueError("the answer has no derivative: a while loop follows from a claim")
    wide = {c.index: jnp.float64 if c.dtype == np.float64 else jnp.float32 for c in soft}
    still = {c.index: jnp.zeros(c.trips + c.output.shape, wide[c.index]) for c in soft}

    def run(shifts: dict[int, Array]) -> tuple[Array, dict[int, Any]]:
        def emit(claim: Claim, equation: Equation, env: Env, shift: Any) -> tuple[list[Array], Any]:
            if not claim.form.shifts:
                found = claim.evaluate(env, relaxed.apply if equation.bodies else interpret.apply)
                read = lax.stop_gradient(_operands(claim, env, found[-1], eps[claim.name]))
                room = claim.form.room(read, None, found[-1], eps[claim.name])
                return found[: len(equation.outputs)], room
            out, room = _emit(claim, env, shift, eps[claim.name])
            return [out], room

        outputs, rooms = execute.execute(
            block, analysis, dict(env), emit=emit, given=shifts, apply=relaxed.apply
        )
        value = answer(outputs)
        if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(
                f"the answer is a float scalar, got {value.dtype} of shape {value.shape}"
            )
        return value, rooms

    value, pull, rooms = jax.vjp(run, still, has_aux=True)
    [slopes] = pull(jnp.ones((), value.dtype))
    return value, rooms, slopes


def _emit(claim: Claim, env: Env, shift: Any, eps: float) -> tuple[Array, Any]:
    """The output of a claim plus a shift, and the room for the shift."""
    equation, operands = claim.equation, _operands(claim, env)
    inputs = interpret.read_all(env, equation.inputs)
    if shift is None and claim.eps_types and claim.form.shifts:  # an index, say
        [out] = interpret.apply(equation, inputs)
        room = claim.form.room(lax.stop_gradient(operands), None, out, eps)
        return out, functools.reduce(jnp.maximum, map(jnp.abs, jax.tree.leaves(room)))
    out = claim.form.smooth(equation, inputs, operands)
    if shift is None:
        return out, ()
    far = None if claim.far is None else interpret.read(env, claim.far)
    room = claim.form.room(*lax.stop_gradient((operands, far, out)), eps)
    out = out + shift
    # The real number that stands for an integer keeps its own type: it has a derivative.
    dtype = claim.output.dtype
    return out.astype(dtype) if is_float(dtype) else out, room


def _operands(
    claim: Claim, env: Env, committed: Array | None = None, eps: float = 0.0
) -> list[Array]:
    """Values of the operands that the test of a claim is given; of a loop, with its trips."""
    env = dict(env)
    claim.prepare(committed, env, eps, 2**31 - 1, relaxed.apply)
    return interpret.read_all(env, claim.operands)
