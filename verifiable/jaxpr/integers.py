"""Which values are integers times a power of two, and how large: where floats are exact.

A type whose significand has p bits holds every k 2^-s with |k| up to 2^p, unless it is subnormal.
If the terms of a sum or product are such numbers, and the largest possible result is one too, so
are all partial results, in any order: no device rounds. Positions with a half added are such
numbers, and so are uniform random numbers, which are made from random bits. A bound is None where
a value need not be one, or may be larger. Whatever is not proven here is rounded.

A whole number of any size is exact too where it is only doubled and halved: `multiple` follows
those, as in 2 round(n / 2) = n, which asks whether n is even.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np

from verifiable.jaxpr.blocks import Atom, Equation, Literal, Var
from verifiable.jaxpr.effects import FLOATS, MOVES, Effect, effects_of, is_float
from verifiable.jaxpr.sums import terms


class FixedPoint(NamedTuple):
    """The value is k 2^-scale, k an integer with |k| <= largest."""

    largest: int
    scale: int = 0

    @property
    def magnitude(self) -> int:
        """The largest magnitude, rounded up to an integer."""
        return -(-self.largest >> self.scale)

    def at(self, scale: int) -> int:
        """`largest` in units of 2^-scale, for a scale at least as large."""
        return self.largest << (scale - self.scale)


Bounds = Callable[[Atom], FixedPoint | None]
Producers = Mapping[Var, Equation]
T = TypeVar("T")

# Operands of products are rounded to bfloat16 on some devices, unless the program asks for more.
_OPERAND = 2**8

_MOVES = MOVES | frozenset(
    """
    concatenate convert_element_type cummax cummin dynamic_slice dynamic_update_slice max min
    optimization_barrier pad reduce_max reduce_min select_n sort split stack stop_gradient tile
    unstack
    """.split()
)


def _largest(bounds: Sequence[FixedPoint]) -> FixedPoint:
    scale = max(b.scale for b in bounds)
    return FixedPoint(max(b.at(scale) for b in bounds), scale)


def _sum(bounds: Sequence[FixedPoint]) -> FixedPoint:
    scale = max(b.scale for b in bounds)
    return FixedPoint(sum(b.at(scale) for b in bounds), scale)


def _product(bounds: Sequence[FixedPoint]) -> FixedPoint:
    return FixedPoint(math.prod(b.largest for b in bounds), sum(b.scale for b in bounds))


_RULES: Mapping[str, Callable[[Sequence[FixedPoint]], FixedPoint]] = {
    "abs": _largest,
    "neg": _largest,
    "add": _sum,
    "add_any": _sum,
    "sub": _sum,
    "mul": _product,
    "square": lambda bounds: _product([bounds[0]] * 2),
}
_SUMS = frozenset({"reduce_sum", "cumsum", "reduce_window_sum"})
_PRODUCTS = frozenset({"dot_general", "conv_general_dilated"})
_WHOLE = frozenset({"ceil", "floor", "round"})


def of_type(atom: Atom) -> FixedPoint | None:
    """The bound of a value of which nothing but its type is known, or of a literal."""
    dtype = atom.dtype
    if isinstance(atom, Literal):
        value = complex(atom.value) if _numeric(dtype) else math.nan
        if isinstance(value, float) or value.imag or not math.isfinite(value.real):
            return None
        number = Fraction(value.real)
        return _fitting(
            FixedPoint(abs(number.numerator), number.denominator.bit_length() - 1), dtype
        )
    if dtype == np.bool_:
        return FixedPoint(1)
    if jnp.issubdtype(dtype, np.integer):
        info = jnp.iinfo(dtype)
        return FixedPoint(max(-int(info.min), int(info.max)))
    return None


def of_output(
    equation: Equation, output: Var, bound: Bounds, producers: Producers
) -> FixedPoint | None:
    """The bound of an output of an equation that is evaluated, given those of its inputs.

    Args:
      equation: any without bodies.
      output: one of its outputs.
      bound: of an atom.
      producers: the equation that computes each variable.
    """
    found = _uniform(equation, bound, producers)
    if found is None and not _wraps(equation, output):
        found = _computed(equation, [bound(a) for a in equation.inputs])
    fitting = None if found is None else _fitting(found, output.dtype)
    return of_type(output) if fitting is None else fitting


def multiple(equation: Equation, output: Var, scale: Callable[[Atom], int | None]) -> int | None:
    """The s for which an output is k 2^-s, k an integer of any size, and is not rounded if its
    operands are not; None if that need not be.

    Args:
      equation: any without bodies.
      output: one of its outputs.
      scale: the same of an atom.
    """
    if output.dtype.name not in FLOATS:
        return None
    found = _multiple(equation, scale)
    # Larger ones could be subnormal, which some devices take for zero.
    return found if found is None or found <= -jnp.finfo(output.dtype).minexp else None


def _multiple(equation: Equation, scale: Callable[[Atom], int | None]) -> int | None:
    kind = equation.kind
    if kind in _WHOLE:
        return 0
    if kind in ("mul", "div"):
        value, factor = equation.inputs
        if kind == "mul" and isinstance(value, Literal):
            value, factor = factor, value
        by, units = _exponent(factor), scale(value)
        if by is None or units is None:
            return None
        return max(units - by if kind == "mul" else units + by, 0)
    if kind not in _MOVES | {"abs", "neg"} or _rounds(equation):
        return None
    units = [scale(a) for a in _taken(equation, equation.inputs)]
    return None if None in units else max((u for u in units if u is not None), default=None)


def _rounds(equation: Equation) -> bool:
    """Whether an equation is a cast that may drop digits of a large number."""
    return equation.kind == "convert_element_type" and effects_of(equation)[0] is not Effect.EXACT


def _exponent(factor: Atom) -> int | None:
    """The e of a literal 2^e or -2^e of floats; None for any other atom."""
    if not isinstance(factor, Literal) or not is_float(factor.dtype):
        return None
    mantissa, exponent = math.frexp(float(abs(factor.value)))
    return exponent - 1 if mantissa == 0.5 else None


def _taken(equation: Equation, inputs: Sequence[T]) -> Sequence[T]:
    """Inputs of an equation that moves values, without those that choose or say where it goes."""
    if equation.kind == "select_n":
        return inputs[1:]
    if equation.kind in ("dynamic_slice", "dynamic_update_slice"):
        return inputs[: 1 + (equation.kind == "dynamic_update_slice")]
    return inputs


def _computed(equation: Equation, inputs: Sequence[FixedPoint | None]) -> FixedPoint | None:
    kind = equation.kind
    if kind == "iota":
        return FixedPoint(max(equation.params["shape"][equation.params["dimension"]] - 1, 0))
    taken = _taken(equation, inputs)
    bounds = [b for b in taken if b is not None]
    if len(bounds) < len(taken) or not bounds:
        return None
    if kind in _WHOLE or (
        kind == "convert_element_type" and not is_float(equation.outputs[0].dtype)
    ):
        return FixedPoint(bounds[0].magnitude)
    if kind == "clamp":
        low, value, high = bounds
        return _largest([low, value._replace(largest=0), high])
    if kind in _MOVES:
        return _largest(bounds)
    if kind == "integer_pow" and equation.params["y"] >= 0:
        return _product([bounds[0]] * equation.params["y"])
    if kind == "shift_right_logical" and isinstance(equation.inputs[1], Literal):
        unsigned = jnp.issubdtype(equation.inputs[0].dtype, np.unsignedinteger)
        return FixedPoint(bounds[0].largest >> int(equation.inputs[1].value)) if unsigned else None
    if kind == "div":
        return _quotient(bounds[0], equation.inputs[1])
    if kind in _RULES:
        return _RULES[kind](bounds)
    if kind in _SUMS:
        return bounds[0]._replace(largest=bounds[0].largest * terms(equation))
    if kind in _PRODUCTS and max(b.largest for b in bounds) <= _OPERAND:
        found = _product(bounds)
        return found._replace(largest=found.largest * terms(equation))
    return None


def _quotient(dividend: FixedPoint, divisor: Atom) -> FixedPoint | None:
    """The bound of a quotient by a power of two, such as a literal 8.0; None for any other."""
    exponent = _exponent(divisor)
    if exponent is None or exponent < 0:
        return None
    return dividend._replace(scale=dividend.scale + exponent)


def _uniform(equation: Equation, bound: Bounds, producers: Producers) -> FixedPoint | None:
    """The bound of a uniform random number; None for any other value.

    It is made from random bits: these become the significand of a number between one and two, from
    which one is subtracted.
    """
    if equation.kind != "sub" or equation.outputs[0].dtype.name not in FLOATS:
        return None
    number, one = equation.inputs
    cast = producers.get(number) if isinstance(number, Var) else None
    if cast is None or cast.kind != "bitcast_convert_type":
        return None
    [bits] = cast.inputs
    joined = producers.get(bits) if isinstance(bits, Var) else None
    if joined is None or joined.kind != "or" or bits.dtype.itemsize != number.dtype.itemsize:
        return None
    unit, digits = np.ones((), number.dtype), jnp.finfo(number.dtype).nmant
    exponent, significand = joined.inputs[1], bound(joined.inputs[0])
    right = (
        _is_bits(one, unit)
        and _is_bits(exponent, unit)
        and significand is not None
        and significand.largest < 2**digits
    )
    return FixedPoint(2**digits, digits) if right else None


def _is_bits(atom: Atom, value: np.ndarray) -> bool:
    return isinstance(atom, Literal) and atom.value.tobytes() == value.tobytes()


def _wraps(equation: Equation, output: Var) -> bool:
    """Whether a negative number may become a large unsigned one."""
    if not jnp.issubdtype(output.dtype, np.unsignedinteger):
        return False
    source = equation.inputs[0].dtype if equation.inputs else output.dtype
    signed = not (source == np.bool_ or jnp.issubdtype(source, np.unsignedinteger))
    return equation.kind in ("neg", "sub") or (equation.kind == "convert_element_type" and signed)


def _fitting(bound: FixedPoint, dtype: np.dtype) -> FixedPoint | None:
    """The bound, if a type holds every number within it."""
    if dtype.name in FLOATS:
        info = jnp.finfo(dtype)
        fits = bound.largest <= 2 ** (info.nmant + 1) and bound.scale <= -info.minexp
        return bound if fits else None
    if bound.scale:
        return None
    if jnp.issubdtype(dtype, np.integer):
        return bound if bound.largest <= int(jnp.iinfo(dtype).max) else None
    return bound if dtype == np.bool_ and bound.largest <= 1 else None


def _numeric(dtype: np.dtype) -> bool:
    return dtype == np.bool_ or jnp.issubdtype(dtype, np.number)
