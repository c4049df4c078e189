"""Sums that a device may accumulate in a narrow type, and how many terms they have.

Whether the terms of a product with a float16 or bfloat16 output are added up in that type or in
float32 is the device's choice, unless the program asks for a wider output with
`preferred_element_type`; an algorithm may name a narrow one (`precisions`). Added up one by one, K
terms lose about u sqrt(K) of their scale, with u the unit roundoff of the type; rounded once, u.

Additions that follow one another are such a sum too, as in a residual stream: a + b has the terms
of a and of b, and a cast to the narrow type counts as one more. A device that keeps float32 between
them rounds none of them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from verifiable.jaxpr.blocks import Equation
from verifiable.jaxpr.effects import HALF_PRECISION
from verifiable.jaxpr.precisions import algorithm
from verifiable.policy import NarrowSum

NarrowSums = frozenset[NarrowSum]

_ADDITIONS = frozenset({"add", "add_any", "sub"})
_MOST = 2**20  # tolerances stop growing long before


def narrow_sums(equation: Equation, inputs: Sequence[NarrowSums]) -> NarrowSums:
    """The longest sum in each narrow type that leads to a result of an equation that rounds.

    Args:
      equation: its inputs are not all exact, or it is no cast.
      inputs: the same of each of its inputs.
    """
    longest = _longest([s for sums in inputs for s in sums])
    types = {v.dtype.name for v in equation.outputs} & HALF_PRECISION
    for dtype in types | algorithm(equation).sums:
        before = [_longest(sums).get(dtype, 1) for sums in inputs]
        if equation.kind in _ADDITIONS:
            length = sum(before)
        elif equation.kind == "convert_element_type":
            length = 1 + before[0]
        else:
            length = terms(equation) if inputs else 1
        longest[dtype] = max(longest.get(dtype, 1), length)
    return _sums(longest)


def after_trips(before: NarrowSums, after: NarrowSums, trips: int) -> NarrowSums:
    """The sums that lead to a carry of a loop, given those before and after one trip."""
    start, end = _longest(before), _longest(after)
    grown = {d: start.get(d, 1) + trips * max(n - start.get(d, 1), 0) for d, n in end.items()}
    return _sums(grown)


def _longest(sums: Collection[NarrowSum]) -> dict[str, int]:
    return {d: max(s.terms for s in sums if s.dtype == d) for d in {s.dtype for s in sums}}


def _sums(longest: dict[str, int]) -> NarrowSums:
    return frozenset(NarrowSum(d, min(n, _MOST)) for d, n in longest.items() if n > 1)


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
    if kind.startswith("scatter") and kind.endswith(("add", "mul", "sub")):
        # At worst all windows are added to one place.
        return 1 + math.prod(equation.inputs[1].shape[:-1])
    return 1
