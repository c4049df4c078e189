"""Computes op by op with numpy what has one result to the last bit: JAX compiles it for each shape.

IEEE 754 defines sums, products, quotients, square roots and comparisons, also of float32, and the
arithmetic of integers wraps around. All else is left to JAX: sums of many terms, functions of a
library, narrow floats; numbers that XLA flushes or that are none; zeros of either sign, of which
one must be the larger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Operation = Callable[..., Any]

_ANY: dict[str, Operation] = {
    **{"add": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative, "abs": np.abs},
    **{"max": np.maximum, "min": np.minimum, "square": np.square},
    **{"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal},
    **{"gt": np.greater, "ge": np.greater_equal},
}
_FLOATS: dict[str, Operation] = {"div": np.divide, "sqrt": np.sqrt, "is_finite": np.isfinite}
_BITS: dict[str, Operation] = {
    **{"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert},
}
_REDUCED: dict[str, Operation] = {
    **{"reduce_max": np.max, "reduce_min": np.min},
    **{"reduce_and": np.bitwise_and.reduce, "reduce_or": np.bitwise_or.reduce},
}
# Kinds of integers that JAX refuses, or computes otherwise.
_NOT_OF = {
    **dict.fromkeys(("add", "sub", "mul", "neg", "square"), "b"),
    **dict.fromkeys(("reduce_and", "reduce_or"), "iu"),
    "abs": "bu",
}
_WIDE = 4  # bytes; narrower floats are computed in wider ones
_ORDERED = frozenset({"max", "min", "reduce_max", "reduce_min"})


def operations() -> dict[str, Operation]:
    """What numpy computes, by name of the primitive: `(*operands, **params)`, or None."""
    names = {**_ANY, **_FLOATS, **_BITS, **_REDUCED}
    return {name: _operation(name, found) for name, found in names.items()} | {
        "integer_pow": _power,
        "select_n": select_n,
        "shift_right_logical": _shift,
    }


def _operation(name: str, compute: Operation) -> Operation:
    def computed(*operands: Any, **params: Any) -> Any:
        axes = {"axis": tuple(params.pop("axes"))} if name in _REDUCED else {}
        like = operands[0]
        alike = _alike(operands) and all(x.dtype == like.dtype for x in operands)
        if not alike or any(params.values()) or (axes and not like.size):
            return None
        if not (_exact if like.dtype.kind == "f" else _whole)(name, operands):
            return None
        with np.errstate(all="ignore"):
            found = compute(*operands, **axes)
        # What comes near the least normal number may have been rounded to it.
        return found if found.dtype.kind != "f" or _normal(found, 2) else None

    return computed


def _alike(operands: Sequence[Any]) -> bool:
    """Whether all shapes are equal, except for scalars."""
    return len({x.shape for x in operands} - {()}) <= 1


def _exact(name: str, operands: Sequence[Any]) -> bool:
    """Whether an operation on floats has one result."""
    if name in _BITS or operands[0].dtype.itemsize < _WIDE or not all(map(_normal, operands)):
        return False
    if name == "div" and operands[0].shape != operands[1].shape:
        return False  # XLA multiplies by the reciprocal of a scalar
    return name not in _ORDERED or not any(np.any((x == 0) & np.signbit(x)) for x in operands)


def _whole(name: str, operands: Sequence[Any]) -> bool:
    """Whether JAX has an operation on integers or booleans, and numpy the same."""
    kind = operands[0].dtype.kind
    return kind in "biu" and name not in _FLOATS and kind not in _NOT_OF.get(name, "")


def _normal(x: Any, least: int = 1) -> bool:
    """Whether an array holds no subnormal numbers, and only numbers."""
    return bool(np.all((x == 0) | (np.abs(x) >= least * np.finfo(x.dtype).tiny)))


def _power(x: Any, *, y: int) -> Any:
    return _SQUARE(x) if y == 2 else None  # others are products of products, in some order


_SQUARE = _operation("square", np.square)


def select_n(which: Any, *cases: Any) -> Any:
    """Of two cases."""
    alike = len({(x.shape, x.dtype) for x in cases}) == 1
    if not alike or which.dtype != bool or which.shape not in ((), cases[0].shape):
        return None
    return np.where(which, cases[1], cases[0])


def _shift(x: Any, by: Any) -> Any:
    if x.dtype.kind != "u" or not _alike((x, by)) or np.any(by >= 8 * x.dtype.itemsize):
        return None
    return np.right_shift(x, by)
