"""Roundings that several tests claim: a cast to a narrower float, and a quantisation to int8."""

from __future__ import annotations

from typing import Any

import numpy as np

from verifiable.claims.roundings.rounding import Rounding
from verifiable.claims.roundings.steps import RoundingStep

F32, I8 = np.dtype(np.float32), np.dtype(np.int8)

LEVELS = Rounding(
    steps=(
        RoundingStep(kind="round"),
        RoundingStep(kind="clamp", low=-127.0, high=127.0),
        RoundingStep(kind="cast", dtype=I8),
    ),
    source=F32,
    dtype=I8,
)


def narrowing(dtype: Any) -> Rounding:
    """The cast of float32 to another type of floats."""
    dtype = np.dtype(dtype)
    return Rounding(steps=(RoundingStep(kind="narrow", dtype=dtype),), source=F32, dtype=dtype)
