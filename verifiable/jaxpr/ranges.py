"""Whether the values of a replay come near the ends of their types.

A compiler puts factors and divisors together: (x / a) / b becomes x / (a b), exp(x) exp(-x) becomes
exp(x - x), x / exp(y) becomes x exp(-y). The result is the same up to rounding, unless a factor
overflows or vanishes on one of the two ways. Where all values of a replay, zero apart, are between
the roots of the smallest and of the largest normal number of their types, no product or quotient of
two of them does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verifiable.jaxpr.blocks import Array, Equation
from verifiable.jaxpr.effects import is_float
from verifiable.jaxpr.interpret import Apply


class Watched:
    """Evaluates equations op by op, and remembers whether a value was near an end of its type.

    Attributes:
      apply: evaluates an equation; the results may be wider than the types of its outputs.
      extreme: whether a float was too small or too large, or not finite.
    """

    def __init__(self, apply: Apply) -> None:
        """Nothing is extreme so far."""
        self.apply = apply
        self.extreme = False

    def __call__(self, equation: Equation, values: Sequence[Array]) -> list[Array]:
        """The outputs of an equation; its inputs and outputs are looked at."""
        outputs = self.apply(equation, values)
        pairs = zip((*equation.inputs, *equation.outputs), (*values, *outputs), strict=True)
        self.extreme = self.extreme or any(_extreme(a.dtype, value) for a, value in pairs)
        return outputs


def _extreme(dtype: Any, value: Any) -> bool:
    if not is_float(dtype):
        return False
    try:
        size = np.abs(np.asarray(value))
    except jax.errors.TracerArrayConversionError:
        return True
    info = jnp.finfo(dtype)
    low, high = float(info.tiny) ** 0.5, float(info.max) ** 0.5
    with np.errstate(invalid="ignore"):
        return not bool(np.all((size == 0) | ((size >= low) & (size <= high))))
