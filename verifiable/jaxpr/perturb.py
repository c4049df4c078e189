"""Evaluate equations as an honest device might: with another rounding of each inexact result.

Given exact operands, a device may lose some unit roundoffs u of the result's type:

    arithmetic   c u |y|              add, multiply, square root, casts to fewer digits; casts of
                                      integers that the type holds lose nothing
    function     c u |y|              divisions, exponentials and other functions of a library;
                                      c u for those whose arguments are reduced, and where |y| is
                                      less; of steep ones, what the last bit of the argument does;
                                      in float16 and bfloat16, which devices evaluate in float32
                                      and round, no more than arithmetic
    polynomial   c u |p|(|x|)         of coefficients and arguments by their magnitudes, c of a
                                      function
    sum          what additions cut off (`_added_up`); of running sums and scatters u sum |s_k|,
                 s_k the sums of the first k terms: one addition after another
    product      c u |A| |B|          sums of products, summed in blocks; c u of the largest |y| on
                                      the last axis for Cholesky factors, triangular solvers and
                                      Fourier transforms

`Noise` adds up to such a loss to every inexact result: for each element by itself, or with one sign
for all elements of an equation, as a biased library or truncation does (all equations of a device
that truncates lose to the same side, `Noise.alike`). It is a hash of a seed, the
equation, the position and the value itself, so a replay is a pure function of its seed, and the
iterations of a loop differ. In a loop whose trips are a claim, the number of the trip takes part
too (`in_trip`): a loop that has converged would otherwise stand still in every replay, although
devices reach that point sooner or later, or never. An equation enters by its number, not by its
name: programs with the same id draw the same, however their functions and scopes are called. Moves
and selections stay exact.

`in_float64` evaluates an equation in double precision instead.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.jaxpr import from_jax, interpret
from verifiable.jaxpr.blocks import Array, Equation, Var
from verifiable.jaxpr.effects import HALF_PRECISION, Effect, effects_of, is_float
from verifiable.jaxpr.precisions import algorithm
from verifiable.policy import ROUNDOFF

P = ParamSpec("P")
R = TypeVar("R")

OWN, UP, DOWN, AWAY, TOWARDS = map(float, range(5))
"""Of `Noise.alike`."""

_ARITHMETIC = frozenset(
    "add add_any complex convert_element_type mul neg reduce_precision sqrt square sub".split()
)
_SUMS = frozenset(
    "cumsum reduce_sum reduce_window_sum scatter-add scatter-sub scatter_add scatter_sub".split()
)
_PRODUCTS = frozenset("conv_general_dilated dot_general ragged_dot_general".split())
_SOLVERS = frozenset("cholesky fft triangular_solve".split())
_REDUCED = frozenset({"cos", "digamma", "lgamma", "sin", "tan"})
_STEEP = frozenset({"acos", "acosh", "digamma", "lgamma", "tan"})
_OUTSIDE = np.uint32(0)  # of a loop whose trips are a claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How far results are moved, in multiples of what a device may lose.

    Attributes:
      seed: uint32 (), names the draw.
      independent: float32 (), of each element by itself, uniform between plus and minus this.
      coherent: float32 (), of all elements of an equation, with one sign.
      losses: c by kind of operation, `Policy.losses`.
      trip: uint32 (), of the loop whose trips are a claim, from 1 up; zero elsewhere.
      exact: variables that all devices compute in the same bits, such as a half of a whole number.
      alike: float32 (), which sign: of each equation its own (0), or of all equations the same: up
        (1), down (2), away from zero (3) or towards it (4). By default each its own.
    """

    seed: Array
    independent: Array
    coherent: Array
    losses: Mapping[str, float]
    exact: frozenset[Var] = frozenset()
    trip: Array = _OUTSIDE
    alike: Array | None = None

    def in_trip(self, number: Array) -> Noise:
        """The same in one trip of a loop; what is coherent errs alike in all of them."""
        return replace(self, trip=number.astype(jnp.uint32))

    def __call__(self, equation: Equation, values: Sequence[Array]) -> list[Array]:
        """Evaluate an equation without bodies, and move its inexact results."""
        return self.results(equation, values, interpret.apply(equation, values))

    def results(
        self, equation: Equation, values: Sequence[Array], outputs: Sequence[Array]
    ) -> list[Array]:
        """The results of an equation without bodies, of which the inexact ones are moved."""
        lost = losses(equation, values, outputs, self.losses)
        return [
            y if loss is None or v in self.exact else self.moved(y, loss, f"{equation.number}/{i}")
            for i, (v, y, loss) in enumerate(zip(equation.outputs, outputs, lost, strict=True))
        ]

    def known(self, value: Array, name: str, least: Array | None = None) -> Array:
        """Move a value that a device computes from the parameters itself, such as a table.

        Args:
          value: of any type; only floats are moved.
          name: of the value.
          least: what a device may lose at least, besides the rounding of a last operation.
        """
        if not is_float(value.dtype):
            return value
        loss = self.losses["function"] * _unit(value) * jnp.abs(value)
        return self.moved(value, loss if least is None else jnp.maximum(loss, least), name)

    def moved(self, y: Array, loss: Array, name: str) -> Array:
        """`y` plus at most `loss` times the two factors; what is not finite stays as it is."""
        if jnp.iscomplexobj(y):
            parts = (self.moved(p, loss, f"{name}/{i}") for i, p in enumerate((y.real, y.imag)))
            return lax.complex(*parts)
        names = _word(name), _word(name + "/sign")
        sizes = self.independent, self.coherent, self.alike
        return _moved(y, loss, names, (self.seed, self.trip), sizes)


def _compiled(function: Callable[P, R], **how: Any) -> Callable[P, R]:
    """Compile a function even where equations are evaluated op by op.

    What a device may lose is no part of what it computes, and takes many more operations. A program
    has hundreds of results of few shapes: each shape is traced once.
    """
    jitted = jax.jit(function, **how)

    @functools.wraps(function)
    def run(*arguments: P.args, **options: P.kwargs) -> R:
        with jax.disable_jit(False):
            return jitted(*arguments, **options)

    return run


@_compiled
def _moved(
    y: Array,
    loss: Array,
    names: tuple[Array, Array],
    draw: tuple[Array, Array],
    sizes: tuple[Array, Array, Array | None],
) -> Array:
    """`Noise.moved` of real numbers.

    Args:
      y: a result.
      loss: what a device may lose in it.
      names: uint32 () each, of the result and of its sign.
      draw: seed and trip of the noise.
      sizes: independent, coherent and alike of the noise.
    """
    (own, common), (seed, trip), (independent, coherent, alike) = names, draw, sizes
    wide = jnp.float64 if y.dtype == jnp.float64 else jnp.float32
    place = lax.iota(jnp.uint32, y.size).reshape(y.shape)
    bits = _mixed(_bits(y) ^ _mixed(place + _mixed(seed ^ own)) ^ _mixed(trip))
    uniform = bits.astype(jnp.float32) * 2.0**-31 - 1
    sign = jnp.where(_mixed(seed ^ common) < np.uint32(2**31), 1.0, -1.0)
    if alike is not None:
        outward = jnp.sign(y.astype(wide))
        ways = [alike == way for way in (UP, DOWN, AWAY, TOWARDS)]
        sign = jnp.select(ways, [1.0, -1.0, outward, -outward], sign)
    factor = (independent * uniform + coherent * sign).astype(wide)
    moved = y.astype(wide) + loss.astype(wide) * factor
    return jnp.where(jnp.isfinite(moved), moved.astype(y.dtype), y)


def _word(name: str) -> np.uint32:
    digest = hashlib.blake2s(name.encode(), digest_size=4).digest()
    return np.uint32(int.from_bytes(digest, "little"))


def losses(
    equation: Equation,
    values: Sequence[Array],
    outputs: Sequence[Array],
    losses: Mapping[str, float],
) -> list[Array | None]:
    """What a device may lose in each result, as non-negative arrays; None for exact ones.

    Args:
      equation: without bodies.
      values: of its inputs.
      outputs: its results.
      losses: c by kind of operation.
    """
    effects = effects_of(equation)
    exact = [
        not is_float(y.dtype) or effect in (Effect.EXACT, Effect.DISCONTINUOUS)
        for y, effect in zip(outputs, effects, strict=True)
    ]
    if all(exact):
        return [None] * len(outputs)
    kind = equation.kind
    if kind == "reduce_sum":
        return [_added_up(values[0], equation.params["axes"])]
    if kind in _SUMS:
        return [_unit(outputs[0]) * _partial_sums(equation, values, outputs[0])]
    if kind in _PRODUCTS:
        # In the type of the magnitudes, which are real and, of narrow types, wider: |A| |B| must
        # not overflow where A B does not.
        params = {**equation.params, "preferred_element_type": None}
        sizes = [*(_size(v) for v in values[:2]), *values[2:]]  # beside the operands: of groups
        [magnitude] = interpret.apply(replace(equation, params=params), sizes)
        # Operands that are rounded both lose half a step of their type.
        rounded = sum(2 * ROUNDOFF[t] for t in frozenset().union(*algorithm(equation)))
        return [(losses["product"] * _unit(outputs[0]) + rounded) * magnitude]
    if kind == "polynomial":
        # Its terms may cancel.
        [magnitude] = interpret.apply(equation, [jnp.abs(v) for v in values])
        return [losses["function"] * _unit(outputs[0]) * magnitude]
    found: list[Array | None] = []
    for y, unmoved in zip(outputs, exact, strict=True):
        size = jnp.abs(y)
        if kind in _SOLVERS:
            axes = tuple(range(-_dimensions(equation), 0))
            size = jnp.broadcast_to(jnp.max(size, axis=axes, keepdims=True, initial=0), y.shape)
        elif kind in _REDUCED:
            size = jnp.maximum(size, 1)
        name = "product" if kind in _SOLVERS else "function"
        c = losses["arithmetic" if kind in _ARITHMETIC else name]
        half = y.dtype.name in HALF_PRECISION
        if half and name == "function":
            c = min(c, losses["arithmetic"])
        loss = c * _unit(y) * size
        if kind in _STEEP and not half:
            loss = jnp.maximum(loss, _beside(equation, values[0], y))
        if kind == "convert_element_type" and jnp.issubdtype(values[0].dtype, jnp.integer):
            loss = jnp.where(_held(values[0], y), 0, loss)
        found.append(None if unmoved else loss)
    return found


def _held(x: Array, y: Array) -> Array:
    """Whether each integer has no more digits than the type of `y`, to which it is cast."""
    limit, bounds = 2 ** (jnp.finfo(y.dtype).nmant + 1), jnp.iinfo(x.dtype)
    return (x >= max(-limit, int(bounds.min))) & (x <= min(limit, int(bounds.max)))


def _beside(equation: Equation, x: Array, y: Array) -> Array:
    """How far the result of a function is from those of the numbers beside its argument."""
    found = jnp.zeros_like(y)
    for end in (-jnp.inf, jnp.inf):
        [other] = interpret.apply(equation, [lax.nextafter(x, jnp.full_like(x, end))])
        change = jnp.abs(other - y)
        found = jnp.maximum(found, jnp.where(jnp.isfinite(change), change, 0))
    return found


def _partial_sums(equation: Equation, values: Sequence[Array], out: Array) -> Array:
    """A bound of the magnitudes of all partial sums of running sums or a scatter, added up.

    Terms of both signs keep partial sums small; of terms of one sign they grow, and so does what an
    accumulator loses.
    """
    kind, params = equation.kind, equation.params
    if kind == "cumsum":
        [below] = interpret.apply(equation, [_size(values[0])])
        [sums] = interpret.apply(equation, [_size(out)])
        return _size(out) + sums + below
    if kind == "reduce_window_sum":
        [magnitude] = interpret.apply(equation, [_size(values[0])])
        return math.prod(params["window_dimensions"]) * magnitude
    operand, indices, updates = (jnp.asarray(v) for v in values)
    # A scatter holds a function of its own types; one that subtracts adds up what is negative.
    sign = -1 if kind.endswith("sub") else 1
    sizes = [_size(v).astype(v.dtype) for v in (operand, updates)]
    ones = jnp.ones_like(operand), jnp.ones_like(updates)
    [magnitude] = interpret.apply(equation, [sizes[0], indices, sign * sizes[1]])
    [terms] = interpret.apply(equation, [ones[0], indices, sign * ones[1]])
    return _size(terms) * _size(magnitude)


@functools.partial(_compiled, static_argnames="axes")
def _added_up(x: Array, axes: Sequence[int]) -> Array:
    """What a sum over some axes may lose, in whatever order or number of partial sums it adds up.

    A partial sum is a multiple of its last digit, so each addition loses what the term has below
    that digit. Of about sqrt(n) blocks of terms, these are added up: their sum over any run of
    blocks may be lost, which for equal terms is much more than for random ones. A tree of partial
    sums loses some roundoffs of the largest.
    """
    if jnp.iscomplexobj(x):
        return _added_up(jnp.real(x), axes) + _added_up(jnp.imag(x), axes)
    kept = [d for d in range(x.ndim) if d not in axes]
    n, digits = math.prod(x.shape[d] for d in axes), jnp.finfo(x.dtype).nmant
    wide = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
    x = jnp.transpose(jnp.asarray(x, wide), [*kept, *axes])
    x = x.reshape([x.shape[d] for d in range(len(kept))] + [n])
    blocks = max(1, math.isqrt(n))
    size = -(-n // blocks)
    x = jnp.pad(x, [(0, 0)] * len(kept) + [(0, blocks * size - n)])
    x = x.reshape([*x.shape[:-1], blocks, size])
    sums = jnp.sum(x, axis=-1)
    until = jnp.cumsum(sums, axis=-1)
    before, after = until - sums, until[..., -1:] - until
    # The largest partial sum in each block, from either end.
    reach = jnp.maximum(jnp.abs(before), jnp.abs(after)) + jnp.sum(jnp.abs(x), axis=-1)
    unit = lax.nextafter(reach, jnp.full_like(reach, jnp.inf)) - reach
    unit = unit * 2.0 ** (jnp.finfo(wide).nmant - digits)
    step = jnp.maximum(unit, jnp.finfo(wide).tiny)[..., None]
    walk = jnp.cumsum(jnp.sum(x - jnp.round(x / step) * step, axis=-1), axis=-1)
    range_ = jnp.max(walk, axis=-1, initial=0) - jnp.min(walk, axis=-1, initial=0)
    return range_ + 2.0**-digits * jnp.max(reach, axis=-1, initial=0)


def _dimensions(equation: Equation) -> int:
    """Over how many of the last dimensions a solver or transform spreads its errors."""
    return len(equation.params["fft_lengths"]) if equation.kind == "fft" else 2


def _size(value: Array) -> Array:
    """The magnitude of each element, real; of integers and narrow floats as float32."""
    value = _widened_half(jnp.asarray(value))
    return jnp.abs(value if is_float(value.dtype) else value.astype(jnp.float32))


def _widened_half(value: Array) -> Array:
    """A float16 or bfloat16 as float32, in which its sums do not overflow."""
    return value.astype(jnp.float32) if value.dtype.name in HALF_PRECISION else value


def _unit(y: Array) -> float:
    """Unit roundoff of the type of a value."""
    return float(jnp.finfo(y.dtype).eps) / 2


def _bits(y: Array) -> Array:
    return lax.bitcast_convert_type(y.astype(jnp.float32), jnp.uint32)


def _mixed(x: Array) -> Array:
    """A bijection of 32-bit words whose output bits all depend on all input bits.

    (The finalizer of MurmurHash3.)
    """
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def in_float64(equation: Equation, values: Sequence[Array]) -> list[Array]:
    """Evaluate an equation with all real floats in double precision; runs under `enable_x64`.

    What has no such form is evaluated in its own types: complex numbers, primitives that no table
    lists, and those that hold functions.
    """
    wide = [_widened(v) for v in values]
    known = Effect.UNKNOWN not in effects_of(equation)
    # Bits stand for another number in another type, and so does the number after another.
    known = known and equation.kind not in ("bitcast_convert_type", "nextafter")
    if known and all(_real(v) for v in (*wide, *equation.outputs)):
        params = {
            name: np.dtype(np.float64) if name in _TYPES and _is_real_float(value) else value
            for name, value in equation.params.items()
        }
        if not any(True for _ in from_jax.subprograms(params)):
            try:
                outputs = interpret.apply(replace(equation, params=params), wide)
            except (TypeError, ValueError, NotImplementedError):
                pass  # The primitive has no implementation for these types.
            else:
                return [_widened(y) for y in outputs]
    own = [
        v if v.dtype == a.dtype else jnp.asarray(v).astype(a.dtype)  # random keys are not cast
        for v, a in zip(values, equation.inputs, strict=True)
    ]
    return [_widened(y) for y in interpret.apply(equation, own)]


_TYPES = frozenset({"new_dtype", "preferred_element_type"})


def _widened(value: Array) -> Array:
    """A real float as float64; everything else as it is."""
    return value.astype(jnp.float64) if _is_real_float(value.dtype) else value


def _is_real_float(dtype: Any) -> bool:
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating)


def _real(value: Any) -> bool:
    return not jnp.issubdtype(value.dtype, jnp.complexfloating)
