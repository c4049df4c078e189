"""Honest devices, real and simulated: the same program, rounded in other ways.

`jit` and `op by op` are two compilations of XLA. A simulated device evaluates each equation, then
moves inexact results, claimed results too, so that they are off by up to one unit in the last place
of their type:

    ulp independent    each element up, down or not at all
    ulp coherent       all elements of an equation the same way: up, down, away from zero or towards
                       it; in half of the runs all equations the same way, as where a device
                       truncates, in the others each its own

    k lanes            sums in k partial sums, each from first to last, as where registers hold k
    narrow sums        products in float16 or bfloat16 accumulated in that type

The result of an operation on single elements is one of the two numbers around the exact result,
which double precision tells: an exact result, such as a half of a number, is not moved. Sums,
products and results in double precision are moved from where XLA has rounded them already.

What moves or selects values stays exact, and so do casts, which IEEE 754 rounds correctly, and sums
and products of integers that their type holds. Zeros and infinities stay what they are. The same
seed and inputs give the same bits.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from verifiable.check import execute
from verifiable.claims.claim import Claim
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Env, Equation
from verifiable.jaxpr.effects import Effect, effects_of
from verifiable.jaxpr.perturb import in_float64
from verifiable.program import Program
from verifiable.trace import Trace

Answer: TypeAlias = "tuple[Any, Trace]"
# A device runs `(params, inputs, run)`; the number of the run is its source of chance.
Device: TypeAlias = Callable[[Any, "tuple[Any, ...]", int], Answer]

UP, DOWN, AWAY, TOWARDS, EACH, INDEPENDENT = range(6)
NAMES = ("jit", "op by op", "ulp independent", "ulp coherent")
# Simulated devices run a few times: LLVM's optimisations cost more than they save.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def devices(program: Program) -> dict[str, Device]:
    """The honest devices of a program, by name."""
    jitted = jax.jit(program.execute)
    moving = jax.jit(functools.partial(_moving, program), compiler_options=QUICK)

    def compiled(params: Any, inputs: Any, run: int) -> Answer:
        del run
        return jitted(params, *inputs)

    def op_by_op(params: Any, inputs: Any, run: int) -> Answer:
        del run
        with jax.disable_jit():
            return program.execute(params, *inputs)

    def independent(params: Any, inputs: Any, run: int) -> Answer:
        with jax.enable_x64(True):
            return moving(params, inputs, np.uint32(run), np.uint32(INDEPENDENT))

    def coherent(params: Any, inputs: Any, run: int) -> Answer:
        way = run % 8 if run % 8 < EACH else EACH
        with jax.enable_x64(True):
            return moving(params, inputs, np.uint32(run), np.uint32(way))

    return dict(zip(NAMES, (compiled, op_by_op, independent, coherent), strict=True))


def lanes(program: Program, count: int) -> Device:
    """A device that adds in `count` partial sums."""

    def run(params: Any, inputs: Any) -> Answer:
        return executed(program, params, inputs, functools.partial(_in_lanes, count))

    jitted = jax.jit(run, compiler_options=QUICK)
    return lambda params, inputs, _: jitted(params, inputs)


def narrow_sums(program: Program) -> Device:
    """A device whose accumulators are as narrow as the results."""

    def apply(equation: Equation, values: Sequence[Array]) -> list[Array]:
        out = equation.outputs[0]
        if equation.kind != "dot_general" or out.dtype not in (jnp.float16, jnp.bfloat16):
            return interpret.apply(equation, values)
        if equation.params["dimension_numbers"] != (((1,), (0,)), ((), ())):
            return interpret.apply(equation, values)
        a, b = values
        return [_summed_narrowly(a, b, out.dtype)]

    def run(params: Any, inputs: Any) -> Answer:
        return executed(program, params, inputs, apply)

    jitted = jax.jit(run, compiler_options=QUICK)
    return lambda params, inputs, _: jitted(params, inputs)


def executed(
    program: Program, params: Any, inputs: tuple[Any, ...], apply: interpret.Apply
) -> Answer:
    """Answer and trace of a device that evaluates equations by `apply`."""

    def emit(claim: Claim, equation: Equation, env: Env, _: Any) -> tuple[list[Array], Array]:
        if equation.bodies:
            results = claim.evaluate(env, apply)
        else:
            operands = lax.optimization_barrier(interpret.read_all(env, equation.inputs))
            results = lax.optimization_barrier(claim.form.evaluate(equation, operands, apply))
        if claim.transpose is not None:
            [env[claim.transpose.outputs[0]]] = interpret.apply(claim.transpose, results)
        return results[: len(equation.outputs)], claim.form.pack(results[-1])

    env = program.bind(params, inputs)
    outputs, found = execute.execute(
        program.function.block, program.analysis, env, emit=emit, apply=apply
    )
    values = tuple(found[claim.index] for claim in program.claims)
    return program.unflatten(outputs), Trace(values=values)


def _moving(program: Program, params: Any, inputs: Any, seed: Array, way: Array) -> Answer:
    numbers, analysis = itertools.count(), program.analysis

    def apply(equation: Equation, values: Sequence[Array]) -> list[Array]:
        results, number = interpret.apply(equation, values), np.uint32(next(numbers))
        single = elementwise(equation)
        exact = in_float64(equation, values) if single else [None] * len(results)
        effects = effects_of(equation)
        if equation not in analysis.by_equation:
            # Numbers that their type holds, such as a count.
            held = (analysis.facts[v].exact for v in equation.outputs)
            effects = tuple(
                Effect.EXACT if e else effect for e, effect in zip(held, effects, strict=True)
            )
        return [
            moved(x, wide, seed, number, way) if inexact(effect, x) else x
            for effect, x, wide in zip(effects, results, exact, strict=True)
        ]

    return executed(program, params, inputs, apply)


def inexact(effect: Effect, x: Array) -> bool:
    """Whether devices may round a result of an equation in different ways."""
    rounds = effect in (Effect.CONTINUOUS, Effect.UNKNOWN)
    return rounds and jnp.issubdtype(x.dtype, jnp.inexact)


def elementwise(equation: Equation) -> bool:
    """Whether each element of a float32 or narrower result comes from one of each operand."""
    [out, *others] = equation.outputs
    same = all(_spread(x.shape, out.shape) for x in equation.inputs)
    real = jnp.issubdtype(out.dtype, jnp.floating) and out.dtype != jnp.float64
    return not others and real and same and equation.kind not in _TOGETHER


def _spread(shape: tuple[int, ...], out: tuple[int, ...]) -> bool:
    """Whether an operand has an element for each of the result, or one for a whole dimension."""
    return not shape or (
        len(shape) == len(out) and all(a in (b, 1) for a, b in zip(shape, out, strict=True))
    )


_TOGETHER = frozenset(
    """
    cholesky conv_general_dilated cumlogsumexp cumprod cumsum dot_general fft reduce_window_sum
    scatter-add scatter-mul scatter_add scatter_mul triangular_solve
    """.split()
)


@jax.jit
def moved(x: Array, exact: Array | None, seed: Array, number: Array, way: Array) -> Array:
    """Move each element by at most one unit in the last place.

    Args:
      x: floats, real or complex.
      exact: the same in double precision, towards which elements move, or nowhere; None if it is
        not known: then every element may move.
      seed: source of chance, uint32.
      number: of the equation, uint32.
      way: how to move, one of the constants above, uint32.
    """
    if jnp.iscomplexobj(x):
        parts = (moved(p, None, seed, number, way) for p in (jnp.real(x), jnp.imag(x)))
        return lax.complex(*parts)
    drawn = _mixed(seed ^ (np.uint32(0x9E3779B9) * (number + np.uint32(1))))
    place = lax.iota(jnp.uint32, max(x.size, 1))[: x.size].reshape(x.shape)
    # The bits of the value take part, so that the iterations of a scan differ.
    each = _mixed(_mixed(place ^ drawn) ^ _bits(x))
    way = jnp.where(way == EACH, drawn % np.uint32(EACH), way)
    sign = jnp.sign(x).astype(jnp.int32)
    steps = [jnp.ones_like(sign), -jnp.ones_like(sign), sign, -sign]
    alone = (each % np.uint32(3)).astype(jnp.int32) - 1
    if exact is not None:
        alone = jnp.where(each % np.uint32(2) == 0, 1, -1)
    step = jnp.select([way == n for n in (UP, DOWN, AWAY, TOWARDS)], steps, alone)
    if exact is not None:
        step = jnp.where(step == jnp.sign(exact - x.astype(exact.dtype)), step, 0)
    target = jnp.where(step > 0, jnp.inf, -jnp.inf).astype(x.dtype)
    after = jnp.nextafter(x, target)
    moves = (step != 0) & (x != 0) & jnp.isfinite(x) & jnp.isfinite(after)
    return jnp.where(moves, after, x)


def _bits(x: Array) -> Array:
    size = x.dtype.itemsize
    bits = lax.bitcast_convert_type(x, jnp.uint32 if size >= 4 else jnp.uint16)
    return (bits[..., 0] if size == 8 else bits).astype(jnp.uint32)


def _mixed(x: Array) -> Array:
    """A permutation of 32 bits without pattern (the finaliser of MurmurHash3)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x ^ (x >> np.uint32(16))


def _in_lanes(count: int, equation: Equation, values: Sequence[Array]) -> list[Array]:
    """Evaluate an equation; sums are in lanes if their length is a multiple of `count`."""
    if equation.kind != "reduce_sum":
        return interpret.apply(equation, values)
    [x], axes = values, tuple(equation.params["axes"])
    length = int(np.prod([x.shape[axis] for axis in axes]))
    if length % count or not jnp.issubdtype(x.dtype, jnp.inexact):
        return interpret.apply(equation, values)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    rest = tuple(x.shape[axis] for axis in kept)
    parts = lax.transpose(x, [*axes, *kept]).reshape(length // count, count, *rest)
    return [_in_order(_in_order(parts))]


def _in_order(x: Array) -> Array:
    """Sum along the first axis, from first to last."""
    return lax.scan(lambda total, item: (total + item, None), jnp.zeros_like(x[0]), x)[0]


def _summed_narrowly(a: Array, b: Array, dtype: Any) -> Array:
    """`a @ b` accumulated in a narrow type, from first to last: (m, k), (k, n) -> (m, n)."""

    def step(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        column, row = pair
        return (total + column[:, None] * row).astype(dtype), None

    zero = jnp.zeros((a.shape[0], b.shape[1]), dtype)
    return lax.scan(step, zero, (a.T.astype(dtype), b.astype(dtype)))[0]
