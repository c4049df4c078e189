"""Equations of literals only, whose value is known when a function is flattened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from verifiable.jaxpr.blocks import Atom, Literal

# Correctly rounded on every device, so their value on literals can be computed beforehand.
_FOLDED: Mapping[str, Callable[..., Any]] = {
    "convert_element_type": lambda x: x,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "eq": np.equal,
    "ne": np.not_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
}


def fold(eqn: Any, inputs: tuple[Atom, ...]) -> Literal | None:
    """The value of an equation whose inputs are all literals; None if it is not folded."""
    literals = [a.value for a in inputs if isinstance(a, Literal)]
    function = _FOLDED.get(eqn.primitive.name)
    if function is None or len(literals) < len(inputs):
        return None
    out = np.dtype(eqn.outvars[0].aval.dtype)
    if np.issubdtype(out, np.integer) and any(np.issubdtype(v.dtype, np.inexact) for v in literals):
        return None  # Devices differ where a value is out of range.
    with np.errstate(all="ignore"):
        value = np.asarray(function(*literals))
        return Literal(value.astype(out))
