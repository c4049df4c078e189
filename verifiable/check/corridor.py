"""What the tolerance leaves to a cheat: how far it can move an answer without being caught.

A cheat shifts every claim by less than what is caught, each in the direction that moves the answer
most, and computes on honestly from there. To first order it moves a scalar answer by at most

    reach = sum_i tau_i ||(d answer / d C_i) / w||,          tau_i = kappa sigma_i

over the rows i of all contractions (Cauchy and Schwarz: ||delta_i * w|| <= tau_i), and by

    sum_ij |d answer / d q_ij| max |f(v_ij +- slack) - q_ij|

over the elements of all roundings, through which the derivative goes as if they were the identity.
Integer products leave nothing. The derivatives are of the whole function, later claims included:
one vector-Jacobian product, about the cost of three runs, and it needs the parameters.

With kappa from `Bound.kappa`, a row that deviates by more is caught with probability 1 - 1e-9.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from verifiable.check import execute
from verifiable.check.partition import Analysis
from verifiable.check.specification import Specification
from verifiable.claims.claim import Claim
from verifiable.claims.form import Form
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Block, Env, Equation
from verifiable.jaxpr.effects import is_float
from verifiable.report import Corridor
from verifiable.trace import Trace

Answer = Callable[[Any], Any]


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


def _run(
    what: Callable[..., Any],
    program: Specification,
    params: Any,
    inputs: tuple[Any, ...],
    answer: Answer,
    kappa: float,
) -> Any:
    def value(outputs: list[Array]) -> Array:
        return jnp.asarray(answer(program.unflatten(outputs)))

    def run(params: Any, inputs: Any) -> Any:
        env = program.bind(params, inputs)
        block, analysis = program.function.block, program.analysis
        return what(block, analysis, env, program.tolerances, kappa, value)

    with jax.enable_x64(True):
        return jax.jit(run)(params, inputs)


def _reach(
    block: Block,
    analysis: Analysis,
    env: Env,
    eps: Mapping[str, float],
    kappa: float,
    answer: Callable[[list[Array]], Array],
) -> tuple[Array, dict[int, Array]]:
    """The answer, and how far each claim can move it; runs under `jax.enable_x64`.

    Args:
      block: the outermost block.
      analysis: of the function.
      env: values of its inputs.
      eps: tolerance by name of the claim.
      kappa: deviation of a row, in units of sigma.
      answer: scalar function of the block's outputs.
    """
    value, rooms, slopes = _slopes(block, analysis, env, eps, answer)
    shares = _by_claim(analysis, rooms, slopes, lambda f, room, slope: f.reach(room, slope, kappa))
    return value, {i: share.sum() for i, share in shares.items()}


def _attack(
    block: Block,
    analysis: Analysis,
    env: Env,
    eps: Mapping[str, float],
    kappa: float,
    answer: Callable[[list[Array]], Array],
) -> tuple[list[Array], dict[int, Array]]:
    """The cheat itself: outputs and claims of a run whose every claim is shifted by kappa sigma.

    The shift lowers the answer as steeply as the tolerance allows; roundings take the end of their
    slack, or of kappa times the slack, that does. Arguments as of `_reach`.
    """
    _, rooms, slopes = _slopes(block, analysis, dict(env), eps, answer)
    shifts = _by_claim(
        analysis, rooms, slopes, lambda f, room, slope: f.steepest(room, slope, kappa)
    )

    def emit(claim: Claim, equation: Equation, env: Env, shift: Any) -> tuple[Array, Array]:
        out, _ = execute.honest(claim, equation, env)
        if shift is not None:
            operands = _operands(claim, env)
            out = claim.form.shifted(operands, out, shift, eps[claim.name], kappa)
            if claim.transpose is not None:
                [env[claim.transpose.outputs[0]]] = interpret.apply(claim.transpose, [out])
        return out, claim.form.pack(out)

    return execute.execute(block, analysis, env, emit=emit, given=shifts)


def _slopes(
    block: Block,
    analysis: Analysis,
    env: Env,
    eps: Mapping[str, float],
    answer: Callable[[list[Array]], Array],
) -> tuple[Array, dict[int, Any], dict[int, Array]]:
    """The answer, the room of each claim, and the answer's derivative by each claim."""
    inexact = [c for c in analysis.by_equation.values() if c.eps_types and c.form.shifts]
    wide = {c.index: jnp.float64 if c.dtype == np.float64 else jnp.float32 for c in inexact}
    still = {c.index: jnp.zeros(c.shape, wide[c.index]) for c in inexact}

    def run(shifts: dict[int, Array]) -> tuple[Array, dict[int, Any]]:
        def emit(claim: Claim, equation: Equation, env: Env, shift: Any) -> tuple[Array, Any]:
            del equation
            return _emit(claim, env, shift, eps[claim.name])

        outputs, rooms = execute.execute(block, analysis, dict(env), emit=emit, given=shifts)
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
    out = claim.form.smooth(equation, inputs, operands)
    if shift is None:
        return out, ()
    far = None if claim.far is None else interpret.read(env, claim.far)
    room = claim.form.room(*lax.stop_gradient((operands, far, out)), eps)
    out = out + shift
    # The real number that stands for an integer keeps its own type: it has a derivative.
    return out.astype(claim.dtype) if is_float(claim.dtype) else out, room


def _operands(claim: Claim, env: Env) -> list[Array]:
    """Values of the operands that the test of a claim is given."""
    if claim.replays_itself:
        env = dict(env)
        interpret.replay(claim.equation, env)
    return interpret.read_all(env, claim.operands)


def _by_claim(
    analysis: Analysis,
    rooms: Mapping[int, Any],
    slopes: Mapping[int, Array],
    function: Callable[[Form, Any, Array], Array],
) -> dict[int, Array]:
    """`function(form, room, slope)` of each inexact claim, over all trips of its scans."""
    found: dict[int, Array] = {}
    for claim in analysis.by_equation.values():
        if claim.index in slopes:
            one: Callable[..., Array] = functools.partial(function, claim.form)
            for _ in claim.trips:
                one = jax.vmap(one)
            found[claim.index] = one(rooms[claim.index], slopes[claim.index].astype(jnp.float64))
    return found
