"""Sums of products and random words as XLA defines them, with numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.helpers.interpreted.elementwise import Rule, narrow


def _threefry(eqn: Any) -> Callable[..., Any]:
    del eqn
    return _threefry_2x32


def _threefry_2x32(k0: Any, k1: Any, x0: Any, x1: Any) -> Any:
    """Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011)."""
    keys = k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA)
    x0, x1 = x0 + k0, x1 + k1
    for i in range(5):
        for by in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            x0 = x0 + x1
            x1 = ((x1 << np.uint32(by)) | (x1 >> np.uint32(32 - by))) ^ x0
        x0, x1 = x0 + keys[(i + 1) % 3], x1 + keys[(i + 2) % 3] + np.uint32(i + 1)
    return [x0, x1]


def _contraction(eqn: Any) -> Callable[..., Any]:
    (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    a, b, out = eqn.invars[0].aval, eqn.invars[1].aval, eqn.outvars[0].aval
    left_free = [i for i in range(a.ndim) if i not in (*left, *left_batch)]
    right_free = [i for i in range(b.ndim) if i not in (*right, *right_batch)]
    orders = (*left_batch, *left_free, *left), (*right_batch, *right, *right_free)
    batch, terms = [a.shape[i] for i in left_batch], math.prod(a.shape[i] for i in left)
    rows = math.prod(a.shape[i] for i in left_free)
    columns = math.prod(b.shape[i] for i in right_free)
    wide = _accumulator(a.dtype, b.dtype, out.dtype, terms)

    def run(x: Any, y: Any) -> Any:
        x = x.transpose(orders[0]).reshape((*batch, rows, terms)).astype(wide, copy=False)
        y = y.transpose(orders[1]).reshape((*batch, terms, columns)).astype(wide, copy=False)
        return (x @ y).astype(out.dtype, copy=False).reshape(out.shape)

    return run


def _accumulator(a: Any, b: Any, out: Any, terms: int) -> Any:
    """A type whose sums are as good as those of XLA: exact for integers."""
    if np.issubdtype(out, np.integer):
        exact = a.itemsize == b.itemsize == 1 and terms < 2**30 and out.itemsize >= 4
        return np.dtype(np.float64) if exact else out
    return np.dtype(np.float32) if narrow(out) or (narrow(a) and out == np.float32) else out


RULES: dict[str, Rule] = {"threefry2x32": _threefry, "dot_general": _contraction}
