"""Sums that a device may accumulate in a narrow type, and how many terms they have.

Whether the terms of a product with a float16 or bfloat16 output are added up in that type or in
float32 is the device's choice, unless the program asks for a wider output with
`preferred_element_type`. Added up one by one, K terms lose about u sqrt(K) of their scale, with u
the unit roundoff of the type; rounded once, u.
"""

from __future__ import annotations

import math

from verifiable.jaxpr.blocks import Equation
from verifiable.jaxpr.effects import HALF_PRECISION
from verifiable.policy import NarrowSum


def narrow_sum(equation: Equation) -> frozenset[NarrowSum]:
    """The sum that an equation may add up in a narrow type; empty if it has none."""
    dtypes = {v.dtype.name for v in equation.outputs} & HALF_PRECISION
    length = terms(equation) if dtypes and equation.inputs else 1
    return frozenset(NarrowSum(dtype, length) for dtype in dtypes if length > 1)


def terms(equation: Equation) -> int:
    """Number of terms of each sum of an equation; 1 if it adds nothing up."""
    kind, params, first = equation.kind, equation.params, equation.inputs[0]
    if kind == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return math.prod(first.shape[d] for d in contracted)
    if kind == "conv_general_dilated":
        kernel = equation.inputs[1]
        features = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        return kernel.size // max(features, 1)
    if kind == "ragged_dot_general":
        (contracted, _), _ = params["ragged_dot_dimension_numbers"].dot_dimension_numbers
        return math.prod(first.shape[d] for d in contracted)
    if kind in ("reduce_sum", "reduce_prod"):
        return math.prod(first.shape[d] for d in params["axes"])
    if kind in ("cumsum", "cumprod", "cumlogsumexp"):
        return first.shape[params["axis"]]
    if kind == "reduce_window_sum":
        return math.prod(params["window_dimensions"])
    if kind.startswith("scatter") and kind.endswith(("add", "mul")):
        # At worst all windows are added to one place.
        return 1 + math.prod(equation.inputs[1].shape[:-1])
    return 1
