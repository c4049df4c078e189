"""Which rows of its inputs an equation needs for some rows of its output.

A rule says along which axis each input is cut when the output is cut along an axis, or that the
input is needed whole; None if the output cannot be cut so. A primitive without a rule is evaluated
whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from verifiable.interpreter import Equation, Var

Axes = tuple[int | None, ...]  # the axis along which each input is cut; None where it is whole
Rule = Callable[[Equation, int], Axes | None]
Resize = Callable[[Equation, int, int], dict[str, Any]]

ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil
    convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
    integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or pow
    reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh
    xor
    """.split()
)


def _elementwise(equation: Equation, axis: int) -> Axes | None:
    shape = equation.outputs[0].shape
    if any(len(a.shape) not in (0, len(shape)) for a in equation.inputs):
        return None
    # Operands of length one are spread over the others.
    return tuple(
        axis if isinstance(a, Var) and a.shape[axis : axis + 1] == shape[axis : axis + 1] else None
        for a in equation.inputs
    )


def _broadcast_in_dim(equation: Equation, axis: int) -> Axes | None:
    operand, dims = equation.inputs[0], equation.params["broadcast_dimensions"]
    if len(equation.inputs) > 1:
        return None
    if axis in dims:
        source = tuple(dims).index(axis)
        if operand.shape[source] == equation.outputs[0].shape[axis]:
            return (source,)
    return (None,)


def _reshape(equation: Equation, axis: int) -> Axes | None:
    [operand], out = equation.inputs, equation.outputs[0].shape
    if equation.params.get("dimensions") is not None:
        return None
    before, length = math.prod(out[:axis]), out[axis]
    for source, size in enumerate(operand.shape):
        if size == length and math.prod(operand.shape[:source]) == before:
            return (source,)
    return None


def _transpose(equation: Equation, axis: int) -> Axes:
    return (equation.params["permutation"][axis],)


def _reduce(equation: Equation, axis: int) -> Axes | None:
    if len(equation.inputs) != 1:
        return None
    gone = equation.params["axes"]
    kept = [d for d in range(len(equation.inputs[0].shape)) if d not in gone]
    return (kept[axis],)


def _same_length(equation: Equation, axis: int) -> Axes | None:
    """Inputs and outputs of one rank, in each of which the axis is all there."""
    length = equation.outputs[0].shape[axis]
    values = [v for v in (*equation.inputs, *equation.outputs) if isinstance(v, Var)]
    if any(v.shape[axis] != length for v in values):
        return None
    return (axis,) * len(equation.inputs)


def _along(name: str) -> Rule:
    """A primitive that mixes the elements of one axis only, which a parameter names."""
    return lambda equation, axis: (
        None if equation.params[name] == axis else _same_length(equation, axis)
    )


def _slice(equation: Equation, axis: int) -> Axes | None:
    # Of the same length, it leaves the axis as it is: a stride or an offset would shorten it.
    return _same_length(equation, axis)


def _stack(equation: Equation, axis: int) -> Axes | None:
    new = equation.params["axis"]
    return None if axis == new else (axis - (axis > new),) * len(equation.inputs)


def _rev(equation: Equation, axis: int) -> Axes | None:
    return None if axis in equation.params["dimensions"] else (axis,)


def _dot_general(equation: Equation, axis: int) -> Axes:
    (lc, rc), (lb, rb) = equation.params["dimension_numbers"]
    if axis < len(lb):
        return lb[axis], rb[axis]
    free = [
        [d for d in range(len(a.shape)) if d not in {*c, *b}]
        for a, c, b in zip(equation.inputs, (lc, rc), (lb, rb), strict=True)
    ]
    axis -= len(lb)
    if axis < len(free[0]):
        return free[0][axis], None
    return None, free[1][axis - len(free[0])]


RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"), _reduce),
    **dict.fromkeys(("reduce_and", "reduce_or", "argmax", "argmin"), _reduce),
    **dict.fromkeys(("cumsum", "cummax", "cummin", "cumprod", "cumlogsumexp"), _along("axis")),
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": _along("dimension"),
    "dot_general": _dot_general,
    "expand_dims": _reshape,
    "iota": lambda equation, axis: (),
    "reshape": _reshape,
    "rev": _rev,
    "slice": _slice,
    "split": _along("axis"),
    "squeeze": _reshape,
    "stack": _stack,
    "transpose": _transpose,
}


def _resized(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


# Parameters that hold the length of an axis.
RESIZE: dict[str, Resize] = {
    "broadcast_in_dim": lambda e, axis, size: {"shape": _resized(e.params["shape"], axis, size)},
    "iota": lambda e, axis, size: {"shape": _resized(e.params["shape"], axis, size)},
    "reshape": lambda e, axis, size: {"new_sizes": _resized(e.params["new_sizes"], axis, size)},
    "slice": lambda e, axis, size: {
        "limit_indices": _resized(e.params["limit_indices"], axis, size)
    },
}
