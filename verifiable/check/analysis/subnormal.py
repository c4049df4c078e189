"""Comparisons of subnormal numbers, which many devices flush to zero before they compare.

An exact value is the same on every device, and so is a comparison of it; but 1e-40 > 0 is false on
a device that flushes. Which comparisons read values that were moved from an input or a parameter is
known beforehand (`dataflow.Fact.sources`); whether these hold subnormal numbers is known with them:

    an input      what follows such a comparison is discontinuous in this job;
    a parameter   `setup` refuses it: the coordinator can set such numbers to zero once.

float16 is exempt: every device keeps its subnormal numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from verifiable.jaxpr.blocks import Var

Flushable = Mapping[
    str, frozenset[Var]
]  # by name of a comparison, the variables that it reads from

_BITS: Mapping[Any, Any] = {
    np.dtype(np.float32): np.uint32,
    np.dtype(np.float64): np.uint64,
    np.dtype(ml_dtypes.bfloat16): np.uint16,
}


def may_flush(dtype: Any) -> bool:
    """Whether devices may flush subnormal numbers of a type."""
    return dtype in _BITS


def ambiguous(
    flushable: Flushable, variables: Sequence[Var], values: Sequence[Any]
) -> frozenset[str]:
    """The comparisons that read a value with a subnormal number in it.

    Args:
      flushable: comparisons of exact values.
      variables: inputs of the function.
      values: their values, as arrays.
    """
    read: Collection[Var] = {v for sources in flushable.values() for v in sources}
    pairs = zip(variables, values, strict=True)
    found = {v for v, value in pairs if v in read and _has_subnormal(value)}
    return frozenset(name for name, sources in flushable.items() if sources & found)


def _has_subnormal(value: Any) -> bool:
    array = np.ascontiguousarray(value)
    bits = np.atleast_1d(array).view(_BITS[array.dtype])
    # From the bits: arithmetic may flush, too.
    digits = {4: 23, 8: 52, 2: 7}[array.dtype.itemsize]
    magnitude = bits & np.array(2 ** (8 * array.dtype.itemsize - 1) - 1, bits.dtype)
    return bool(np.any((magnitude > 0) & (magnitude < 2**digits)))
