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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.check import execute
from verifiable.check.partition import Analysis, Claim
from verifiable.check.specification import Specification
from verifiable.claims import rounding
from verifiable.claims.contraction import Contraction
from verifiable.claims.freivalds import column_weights
from verifiable.claims.rounding import Rounding
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Block, Env, Equation
from verifiable.report import Corridor
from verifiable.trace import Trace

Answer = Callable[[Any], Any]


class Room(NamedTuple):
    """What one claim may be shifted by; the first two for contractions, the others for roundings.

    Attributes:
      sigma: of each row, float64 (batch..., rows...).
      weights: w, float64 (batch, columns).
      low: lowest committed value that passes, minus the honest one.
      high: highest.
    """

    sigma: Array | None = None
    weights: Array | None = None
    low: Array | None = None
    high: Array | None = None


def margin(scores: Array) -> Array:
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
    shares = _by_claim(_share, analysis, rooms, slopes, kappa)
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
    slack, or kappa of it, that does. Arguments as of `_reach`.
    """
    _, rooms, slopes = _slopes(block, analysis, dict(env), eps, answer)
    shifts = _by_claim(_steepest, analysis, rooms, slopes, kappa)

    def emit(claim: Claim, equation: Equation, env: Env, shift: Any) -> tuple[Array, Array]:
        out, _ = execute.honest(claim, equation, env)
        if isinstance(claim.form, Rounding):
            value = _rounded(claim, claim.form, equation, env)
            slack = min(kappa, 1.0) * rounding.slack(claim.form, value, eps[claim.name])
            low, high = rounding.extremes(claim.form, value, slack)
            wanted = jnp.where(shift < 0, low, jnp.where(shift > 0, high, out.astype(low.dtype)))
            out = wanted.astype(out.dtype)
        elif shift is not None:
            out = (out.astype(jnp.float64) + shift).astype(out.dtype)
            if claim.turned is not None:
                [env[claim.turned.outputs[0]]] = interpret.apply(claim.turned, [out])
        return out, out

    return execute.execute(block, analysis, env, emit=emit, given=shifts)


def _slopes(
    block: Block,
    analysis: Analysis,
    env: Env,
    eps: Mapping[str, float],
    answer: Callable[[list[Array]], Array],
) -> tuple[Array, dict[int, Room], dict[int, Array]]:
    """The answer, the room of each claim, and the answer's derivative by each claim."""
    inexact = [c for c in analysis.by_equation.values() if c.eps_types]
    wide = {c.index: jnp.float64 if c.dtype == np.float64 else jnp.float32 for c in inexact}
    still = {c.index: jnp.zeros(c.shape, wide[c.index]) for c in inexact}

    def run(shifts: dict[int, Array]) -> tuple[Array, dict[int, Room]]:
        def emit(claim: Claim, equation: Equation, env: Env, shift: Any) -> tuple[Array, Room]:
            return _emit(claim, equation, env, shift, eps[claim.name])

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


def _emit(claim: Claim, equation: Equation, env: Env, shift: Any, eps: float) -> tuple[Array, Room]:
    operands = interpret.read_all(env, equation.inputs)
    form = claim.form
    if isinstance(form, Rounding):
        value = _rounded(claim, form, equation, env)
        rounded = rounding.forward(form, value)
        still = lax.stop_gradient(value)
        ends = rounding.extremes(form, still, rounding.slack(form, still, eps))
        low, high = (x - rounding.forward(form, still) for x in ends)
        # The derivative goes through a rounding as if it were the identity.
        out = value + lax.stop_gradient(rounded - value) + shift
        if jnp.issubdtype(claim.dtype, jnp.floating):
            out = out.astype(claim.dtype)
        return out, Room(low=low, high=high)
    if form.exact:
        return _real_product(equation, operands), Room()
    [out] = interpret.apply(equation, operands)
    near, far = operands[form.near], operands[form.far]
    room = lax.stop_gradient(room_of(form, near, far, out, eps))
    return (out.astype(shift.dtype) + shift).astype(out.dtype), room


def _rounded(claim: Claim, form: Rounding, equation: Equation, env: Env) -> Array:
    """The value that a rounding claim rounds, in the type to compute in."""
    if claim.near is equation.outputs[0]:
        [value] = interpret.apply(equation, interpret.read_all(env, equation.inputs))
    else:
        value = interpret.read(env, claim.near)
    return value.astype(rounding.wide(form))


def _real_product(equation: Equation, operands: list[Array]) -> Array:
    """An integer product, of floats where roundings before it are to be differentiable."""
    if not any(jnp.issubdtype(x.dtype, jnp.floating) for x in operands):
        return interpret.apply(equation, operands)[0]
    a, b = (x.astype(jnp.float32) for x in operands)
    dims = equation.params["dimension_numbers"]
    if equation.kind != "dot_general":
        raise ValueError(f"no corridor through the integer convolution {equation.name}")
    return lax.dot_general(a, b, dims, precision=lax.Precision.HIGHEST)


def room_of(form: Contraction, near: Array, far: Array, out: Array, eps: float) -> Room:
    """sigma and w of `freivalds`, without its floors; runs under `jax.enable_x64`.

    Args:
      form: the contraction.
      near: its near operand.
      far: its far operand.
      out: the claimed output.
      eps: tolerance, as a fraction of the scale.
    """
    near, far, out = (x.astype(jnp.float64) for x in (near, far, out))
    weights = column_weights(form, far)
    scaled = form.scale_far(far, weights)
    variances = form.project(scaled * scaled, jnp.ones((form.columns, 1), jnp.float64))
    own = form.near_sums(near * near, variances)
    claimed = form.scale_out(out, weights)
    return Room(sigma=eps * jnp.sqrt(own + form.out_sums(claimed * claimed)), weights=weights)


def _by_claim(
    function: Callable[[Claim, float, Room, Array], Array],
    analysis: Analysis,
    rooms: Mapping[int, Room],
    slopes: Mapping[int, Array],
    kappa: float,
) -> dict[int, Array]:
    """What a function makes of each inexact claim, over all trips of the scans around it."""
    found: dict[int, Array] = {}
    for claim in analysis.by_equation.values():
        if claim.index in slopes:
            one: Callable[..., Array] = functools.partial(function, claim, kappa)
            for _ in claim.trips:
                one = jax.vmap(one)
            found[claim.index] = one(rooms[claim.index], slopes[claim.index])
    return found


def _share(claim: Claim, kappa: float, room: Room, slope: Array) -> Array:
    """How far the shifts of one claim can move the answer."""
    slope = slope.astype(jnp.float64)
    form = claim.form
    if isinstance(form, Rounding):
        widest = jnp.maximum(jnp.abs(_some(room.low)), jnp.abs(_some(room.high)))
        return jnp.sum(jnp.abs(slope) * widest)
    steepness = form.scale_out(slope, _inverse(room))
    return kappa * jnp.sum(_some(room.sigma) * jnp.sqrt(form.out_sums(steepness * steepness)))


def _steepest(claim: Claim, kappa: float, room: Room, slope: Array) -> Array:
    """The shift of one claim that lowers the answer most."""
    slope = slope.astype(jnp.float64)
    form = claim.form
    if isinstance(form, Rounding):
        return -slope  # which of the ends to take is all that counts
    inverse = _inverse(room)
    # delta * w = -kappa sigma u, for u the direction of slope / w in each row.
    steepness = form.scale_out(slope, inverse)
    norms = jnp.sqrt(form.out_sums(steepness * steepness))
    size = -kappa * _some(room.sigma) / jnp.where(norms == 0, 1, norms)
    return form.scale_out(steepness, inverse) * form.over_rows(size)


def _inverse(room: Room) -> Array:
    """1 / w; zero in a branch that was not taken, whose room is."""
    weights = _some(room.weights)
    return jnp.where(weights == 0, 0.0, 1 / jnp.where(weights == 0, 1.0, weights))


def _some(x: Array | None) -> Array:
    if x is None:
        raise AssertionError("a room is that of a contraction or of a rounding")
    return x
