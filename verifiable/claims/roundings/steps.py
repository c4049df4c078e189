"""The steps of a rounding: monotone functions of one number, and the intervals that they round."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from verifiable.claims.roundings.midpoints import middle
from verifiable.jaxpr.blocks import Array

Interval = tuple[Array, Array, Array]  # low, high, and whether any value is in it


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingStep:
    """One monotone step.

    Attributes:
      kind: `narrow`, `truncate`, `cast` (of integers), `round`, `floor`, `ceil` or `clamp`.
      low: lower end of a clamp.
      high: upper end of a clamp.
      dtype: type that `narrow`, `truncate` and `cast` cast to.
    """

    kind: str
    low: float = -math.inf
    high: float = math.inf
    dtype: np.dtype[Any] | None = None

    def forward(self, value: Array) -> Array:
        """The step applied to a value, as a number of the type of `value`."""
        if self.kind == "narrow":
            return value.astype(self.dtype).astype(value.dtype)
        if self.kind == "clamp":
            return jnp.clip(value, self.low, self.high)
        if self.kind in ("cast", "truncate"):
            info = jnp.iinfo(self.dtype)
            return jnp.clip(jnp.trunc(value), int(info.min), int(info.max))
        return {"round": jnp.round, "floor": jnp.floor, "ceil": jnp.ceil}[self.kind](value)

    def back(self, low: Array, high: Array) -> Interval:
        """The closed interval of values that the step takes into a closed interval."""
        true = low <= high
        if self.kind == "narrow":
            return middle(low, self.dtype, -1), middle(high, self.dtype, +1), true
        if self.kind in ("cast", "truncate"):
            info = jnp.iinfo(self.dtype)
            bottom, top = low <= int(info.min), high >= int(info.max)
            if self.kind == "truncate":
                low, high = jnp.where(low > 0, low, low - 1), jnp.where(high < 0, high, high + 1)
            # Values out of range are cast to the ends of the type.
            return jnp.where(bottom, -jnp.inf, low), jnp.where(top, jnp.inf, high), true
        if self.kind == "clamp":
            valid = (high >= self.low) & (low <= self.high)
            low = jnp.where(low <= self.low, -jnp.inf, low)
            return low, jnp.where(high >= self.high, jnp.inf, high), true & valid
        # The other steps return integers only.
        low, high = jnp.ceil(low), jnp.floor(high)
        before, after = {"round": (0.5, 0.5), "floor": (0.0, 1.0), "ceil": (1.0, 0.0)}[self.kind]
        return low - before, high + after, low <= high
