"""Tables as claims: values of parameters and constants that a device computes with its own library.

A table of frequencies, sines or decays depends on no input, but its last bits are the device's own.
Behind the sine of a large angle they turn into any difference, in everything that follows. So the
device commits to the table. The verifier tests each element q against its own v,

    |q - v| <= min(HONEST change, VISIBLE) size + tiny,        size = |v| + rms(v) + tiny,

and both go on with q. `change` is how far other rounding moves this element at most, in units of
the size: `setup` evaluates what leads to it with other rounding (`replay.parameter_values`), and
the key holds what it finds. An element that other rounding moves by a visible part of its size is
only held to VISIBLE of it; beyond that, a second look leaves open what other rounding explains.

The test uses no randomness. A device that chooses each element within its limit has a table that
honest devices of other libraries may have, up to the factor HONEST.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from verifiable.claims.extremes import tiny
from verifiable.claims.form import Form, Proposal, View, Yardstick
from verifiable.claims.slack import slack
from verifiable.claims.statistic import Deviation, Statistic, deviation, worst_row
from verifiable.jaxpr.blocks import Array, Equation
from verifiable.jaxpr.effects import FLOATS, TABLE

HONEST = 4.0  # times what a replay with other rounding was moved by
VISIBLE = 2.0**-6  # of the size of an element


@dataclass(frozen=True, slots=True, kw_only=True)
class TableForm(Form):
    """The form of a table; see `Form`.

    Attributes:
      dtype: of the table.
    """

    mismatch: ClassVar[str] = "table-mismatch"
    barrier: ClassVar[bool] = False  # the equation is one
    shifts: ClassVar[bool] = False
    is_table: ClassVar[bool] = True

    dtype: np.dtype[Any]

    def eps_types(self, rounding_dtypes: frozenset[str]) -> frozenset[str]:
        """None: the key says what rounding does, in place of a tolerance by type."""
        del rounding_dtypes
        return frozenset()

    def test(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Statistic:
        """Test a committed table; runs under `jax.enable_x64`.

        Args:
          operands: the verifier's own table.
          claim: the committed one.
          yardstick: `moves` is the change of each element, in units of its size.

        Returns:
          `worst` is the largest distance of an element as a fraction of its limit; `row` counts
          over all axes but the last. An element that is not finite must be equal, else nothing is
          shown.
        """
        v, q = self._wide(*operands, claim)
        same = (q == v) | (jnp.isnan(q) & jnp.isnan(v))
        own = jnp.isfinite(v)
        ratio = jnp.abs(q - v) / self._limit(v, yardstick.moves)
        ratio = jnp.where(jnp.isnan(ratio), jnp.inf, ratio)
        ratio = jnp.where(same | ~own, 0, ratio).astype(jnp.float64)
        rows = math.prod(v.shape[:-1]), math.prod(v.shape[-1:])
        by_row = jnp.max(ratio.reshape(rows), axis=-1, initial=0.0)
        return Statistic(
            *worst_row(by_row),
            finite_claim=jnp.all(jnp.isfinite(q) | ~own),
            in_range=jnp.ones((), bool),
            finite_operands=jnp.all(own | same),
        )

    def deviate(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Deviation:
        """Each element and its limit; a judge, who has no key, allows for nothing beforehand."""
        v, q = self._wide(*operands, claim)
        return deviation(v, q, q, self._limit(v, yardstick.moves), size(v, self.dtype))

    def _limit(self, value: Array, change: Array | None) -> Array:
        allowed = 0.0 if change is None else jnp.minimum(HONEST * change, VISIBLE)
        return allowed * size(value, self.dtype) + tiny(self.dtype)

    @staticmethod
    def _wide(*arrays: Array) -> list[Array]:
        return [jnp.asarray(x).astype(jnp.float64) for x in arrays]


def size(value: Array, dtype: np.dtype[Any]) -> Array:
    """The size of each element of a table, real and not zero; rms is over all elements.

    Args:
      value: float32 or float64.
      dtype: of the table.
    """
    finite = jnp.isfinite(value)
    every = jnp.where(finite, value, 0).reshape(-1)
    return slack(every, 1.0, [dtype], counted=finite.reshape(-1)).reshape(value.shape)


def propose(equation: Equation, view: View) -> Proposal | None:
    """Claim a table that `analysis.tables` found; see `form.Rule`."""
    [value] = equation.inputs
    if equation.kind != TABLE or value.dtype.name not in FLOATS or view.exact(value):
        return None
    return Proposal(form=TableForm(dtype=value.dtype), operands=(value,))
