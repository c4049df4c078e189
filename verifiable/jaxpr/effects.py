"""Glue: what rounding does in the equations that are no claims, which the verifier replays.

For a value that two honest devices compute with different rounding, an equation is either *exact*
(it moves or selects values), *continuous* (a small difference stays small), *narrow* (a cast to
fewer digits: a difference becomes one in the last of these), a *step* (`round`, comparisons,
`argmax`, casts to integers: a difference in the last bit may flip the result) or *unknown*: what
no table names may round, and may be discontinuous. (`is_finite` is a comparison with the largest
number, which no honest value comes close to.)
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from verifiable.jaxpr.blocks import Equation

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})

EXACT = frozenset(
    """
    abs and broadcast_in_dim clamp clz concatenate copy copy_p cummax cummin device_put
    dynamic_slice dynamic_update_slice expand_dims gather imag iota is_finite max min neg not
    opt_barrier optimization_barrier or pad real reduce_and reduce_max reduce_min reduce_or
    reduce_window_max reduce_window_min reduce_xor reshape rev scatter select_n slice split squeeze
    stack stop_gradient tile transpose unstack xor
    """.split()
)

CONTINUOUS = frozenset(
    """
    acos acosh add add_any asin asinh atan atanh bessel_i0e bessel_i1e cbrt cholesky complex
    conj conv_general_dilated cos cosh cumlogsumexp cumprod cumsum digamma div dot_general erf
    erf_inv erfc exp exp2 expm1 fft integer_pow lgamma log log1p logistic mul pow
    ragged_dot_general reduce_prod reduce_sum reduce_window_sum regularized_incomplete_beta
    rsqrt scatter-add scatter_add scatter-mul scatter_mul sin sinh sqrt square sub tan tanh
    triangular_solve
    """.split()
)

# Discontinuous, but what they return is exact.
STEPS = frozenset(
    """
    argmax argmin ceil convert_element_type eq floor ge gt le lt ne reduce_precision round sign sort
    top_k
    """.split()
)

# Cheap enough to compute again from smaller inputs rather than to keep the result in a key.
REBUILT = (EXACT | CONTINUOUS) - frozenset(
    """
    cholesky conv_general_dilated dot_general fft gather ragged_dot_general scatter scatter-add
    scatter-mul scatter_add scatter_mul sort triangular_solve
    """.split()
) | frozenset(
    """
    convert_element_type eq floor ge gt le lt ne random_bits random_fold_in random_seed
    random_split random_unwrap random_wrap rem round shift_left shift_right_arithmetic
    shift_right_logical sign threefry2x32
    """.split()
)


def is_float(dtype: Any) -> bool:
    """Whether a type is a real or complex floating-point type."""
    return jnp.issubdtype(dtype, np.inexact)


def rounding_dtype(dtype: Any) -> str:
    """The type whose rounding a value of a floating-point type goes through: its component's."""
    return str(jnp.finfo(dtype).dtype.name)


def effect_on_rounding(equation: Equation) -> tuple[str, ...]:
    """`exact`, `continuous`, `narrow`, `step` or `unknown`, for each output."""
    kind, outputs = equation.kind, equation.outputs
    if kind == "convert_element_type":
        effect = _conversion(equation.inputs[0].dtype, outputs[0].dtype)
    elif kind == "top_k":
        return ("exact", "step")
    elif kind in EXACT or (kind == "sort" and len(outputs) == 1):
        effect = "exact"
    elif kind in CONTINUOUS:
        effect = "continuous"
    else:
        effect = "step" if kind in STEPS else "unknown"
    return (effect,) * len(outputs)


def _conversion(source: np.dtype[Any], target: np.dtype[Any]) -> str:
    if not is_float(source):
        return "exact"
    if not is_float(target):
        return "step"
    from_, to = jnp.finfo(source), jnp.finfo(target)
    widens = to.nmant >= from_.nmant and to.maxexp >= from_.maxexp and to.minexp <= from_.minexp
    if widens:
        return "exact"
    return "narrow" if np.dtype(target).name in FLOATS else "step"
