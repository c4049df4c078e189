"""What a primitive does to rounding, for the equations that the verifier replays.

Two honest devices may compute a value with different rounding. Given such a value, an equation is

    exact           it moves or selects values;
    continuous      a small difference stays small;
    narrow          a cast to fewer digits: a difference becomes one in the last digit;
    discontinuous   `round`, comparisons, `argmax`, casts to integers: a difference in the last bit
                    may change the result by any amount;
    undefined       devices may choose: which of two writes to one place wins, the order of equal
                    keys in a sort that is not stable, or random bits that XLA leaves to a platform;
    unknown         a primitive that no table lists: it may round, and may be discontinuous.

Arithmetic on integers is exact, but not if its result is a float (`integers` says where it is).
`is_finite` counts as exact: it compares with the largest number, which no honest value comes near;
`nan_tests` has the comparisons that ask the same. A reduction by a function is exact if that
function only selects.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from verifiable.jaxpr import from_jax
from verifiable.jaxpr.blocks import Atom, Equation


class Effect(enum.Enum):
    """What an equation does to a difference in rounding; see the module's docstring."""

    EXACT = "exact"
    CONTINUOUS = "continuous"
    NARROW = "narrow"
    DISCONTINUOUS = "discontinuous"
    UNDEFINED = "undefined"
    UNKNOWN = "unknown"


HALF_PRECISION = frozenset({"float16", "bfloat16"})
FLOATS = HALF_PRECISION | {"float32", "float64"}
TABLE = "table"  # of an equation that `analysis.tables` adds: it returns its operand
CUT = "cut"  # of one that `analysis.cuts` adds, likewise
DRAWS_ANEW = frozenset({"rng_uniform"})  # equal equations return other numbers each time
# Types of operands only: no device adds or multiplies in them, or flushes their subnormal numbers.
FLOAT8 = frozenset({"float8_e4m3fn", "float8_e5m2"})


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


PRIMITIVES: Mapping[Effect, frozenset[str]] = {
    Effect.EXACT: _names("""
        abs and broadcast_in_dim clamp clz concatenate copy copy_p cummax cummin cut
        device_put
        dynamic_slice dynamic_update_slice expand_dims gather imag iota is_finite max min neg not
        opt_barrier optimization_barrier or pad real reduce_and reduce_max reduce_min reduce_or
        reduce_window_max reduce_window_min reduce_xor reshape rev scatter scatter-max scatter-min
        scatter_max scatter_min select_n slice split
        squeeze stack stop_gradient table tile transpose unstack xor
    """),
    Effect.CONTINUOUS: _names("""
        acos acosh add add_any asin asinh atan atanh bessel_i0e bessel_i1e cbrt cholesky complex
        conj continued conv_general_dilated cos cosh cumlogsumexp cumprod cumsum digamma div
        dot_general erf erf_inv erfc exp exp2 expm1 fft integer_pow lgamma log log1p log2 logistic
        mul nextafter one_minus_square polynomial pow ragged_dot_general reduce_prod reduce_sum
        reduce_window_sum regularized_incomplete_beta rsqrt scatter-add scatter-mul scatter-sub
        scatter_add scatter_mul scatter_sub sin sinh sqrt square sub tan tanh triangular_solve
    """),
    # Casts are here, or exact, or narrow: their types decide.
    Effect.DISCONTINUOUS: _names("""
        argmax argmin ceil convert_element_type eq floor ge gt le le_to lt lt_to ne piece
        reduce_precision round sign sort top_k
    """),
}

# Moves: each element of the result is one of the operand's. A module that follows moves adds to one
# of these the primitives that its own question allows, such as casts, or those with more operands.
SPREADS = _names("broadcast_in_dim copy copy_p expand_dims reshape squeeze")
"""All elements, in their order; some may be repeated."""
MOVES = SPREADS | _names("rev slice transpose")
"""All elements or some, in any order."""

# Complex numbers are compared by their real parts first, so a last bit of these may flip a choice.
_ORDERING = _names("""
    clamp cummax cummin max min reduce_max reduce_min reduce_window_max reduce_window_min sort
""")

# Reductions by a function, and the functions of two values that select one or combine bits.
_REDUCTIONS = _names("reduce reduce_window")
_SELECTIONS = _names("and max min or xor")

# Draws from a key. Those of the implementation `rbg`, and all of `unsafe_rbg`, differ by platform.
_RANDOM = _names("random_bits random_fold_in random_split")

# Cheap enough to compute again from smaller inputs instead of keeping the result in a key.
REBUILT = (PRIMITIVES[Effect.EXACT] | PRIMITIVES[Effect.CONTINUOUS]) - _names("""
    cholesky conv_general_dilated dot_general fft gather ragged_dot_general scatter scatter-add
    scatter-max scatter-min scatter-mul scatter-sub scatter_add scatter_max scatter_min scatter_mul
    scatter_sub sort triangular_solve
""") | _names("""
    bitcast_convert_type convert_element_type eq floor ge gt le le_to lt lt_to ne piece random_bits
    random_fold_in random_seed random_split random_unwrap random_wrap rem round shift_left
    shift_right_arithmetic shift_right_logical sign threefry2x32
""")


def is_float(dtype: Any) -> bool:
    """Whether a type is a real or complex floating-point type."""
    return jnp.issubdtype(dtype, np.inexact)


def rounding_dtype(dtype: Any) -> str:
    """Name of the type that arithmetic in a floating-point type rounds to: its component's."""
    return str(jnp.finfo(dtype).dtype.name)


def effects_of(equation: Equation) -> tuple[Effect, ...]:
    """The effect of an equation on each of its outputs."""
    kind, outputs = equation.kind, equation.outputs
    if kind == "top_k":
        return (Effect.EXACT, Effect.DISCONTINUOUS)
    if kind in _REDUCTIONS and len(outputs) == 1:
        operation = from_jax.single_operation(equation.params)
        kind = operation if operation in _SELECTIONS else kind
    first = equation.inputs[0].dtype if equation.inputs else np.dtype(bool)
    if kind == "convert_element_type":
        effect = _cast(first, outputs[0].dtype)
    elif kind == "reduce_precision" and precision(equation) is not None:
        effect = Effect.NARROW
    elif jnp.issubdtype(first, np.complexfloating) and kind in _ORDERING | {"abs"}:
        effect = Effect.CONTINUOUS if kind == "abs" else Effect.DISCONTINUOUS
    elif _undefined(equation):
        effect = Effect.UNDEFINED
    elif (kind == "sort" and len(outputs) == 1) or (
        kind == "bitcast_convert_type" and not is_float(first)
    ):
        effect = Effect.EXACT
    else:
        found = (effect for effect, names in PRIMITIVES.items() if kind in names)
        effect = next(found, Effect.UNKNOWN)
    return (effect,) * len(outputs)


def precision(equation: Equation) -> str | None:
    """The type that a float32 value is narrowed to, and keeps as float32; None if there is none.

    Only bfloat16: its exponents are those of float32. With fewer exponents, small numbers are
    flushed that a cast keeps.
    """
    bits = equation.params.get("exponent_bits"), equation.params.get("mantissa_bits")
    float32 = equation.outputs[0].dtype.name == "float32"
    return "bfloat16" if float32 and bits == (8, 7) else None


def keys_of(equation: Equation) -> tuple[Atom, ...]:
    """The inputs whose values decide: the keys of a sort, else all of them."""
    count = equation.params["num_keys"] if equation.kind == "sort" else None
    return tuple(equation.inputs[:count])


def _undefined(equation: Equation) -> bool:
    """Whether devices may choose between results, unless what they choose from is equal."""
    params = equation.params
    if equation.kind in _RANDOM or equation.kind.startswith("rng_"):
        names = {a.dtype.name for a in equation.inputs}
        own = {"key<urbg>"} | ({"key<rbg>"} if equation.kind == "random_bits" else set())
        return equation.kind.startswith("rng_") or bool(names & own)
    if equation.kind == "sort":
        ties = params["num_keys"] < len(equation.outputs)  # sorted along, and no part of the key
        return ties and not params["is_stable"]
    if equation.kind == "scatter" and not params["unique_indices"]:
        indices, numbers = equation.inputs[1], params["dimension_numbers"]
        batch = math.prod(indices.shape[d] for d in numbers.scatter_indices_batching_dims)
        return math.prod(indices.shape[:-1]) > batch  # more than one write to each array
    return False


def _cast(source: np.dtype[Any], target: np.dtype[Any]) -> Effect:
    if not is_float(source):
        return Effect.CONTINUOUS if is_float(target) else Effect.EXACT
    if not is_float(target):
        return Effect.DISCONTINUOUS
    from_, to = jnp.finfo(source), jnp.finfo(target)
    if to.nmant >= from_.nmant and to.maxexp >= from_.maxexp and to.minexp <= from_.minexp:
        return Effect.EXACT
    return Effect.NARROW if np.dtype(target).name in FLOATS else Effect.DISCONTINUOUS
