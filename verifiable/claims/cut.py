"""Cuts as claims: what one layer passes on to the next, such as the carry of a scan.

A device that commits to it makes each layer a unit of its own: the operands of a layer follow from
the cut before it, and from no earlier claim. A cut is a rounding whose step is zero: with v the
value that the verifier replays, and q the committed one, each element must satisfy

    |v - q| <= slack,        slack = eps (|v| + rms(row of v)) + tiny,

and a row as a whole less (`rounding`). Both sides go on with q, so a cut is exact for what follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import lax

from verifiable.claims.form import Proposal, View
from verifiable.claims.roundings.rounding import Rounding
from verifiable.jaxpr.blocks import Array, Equation
from verifiable.jaxpr.effects import FLOATS


@dataclass(frozen=True, slots=True, kw_only=True)
class CutForm(Rounding):
    """The form of a cut; see `Form`."""

    mismatch: ClassVar[str] = "cut-mismatch"
    barrier: ClassVar[bool] = False  # the equation is one

    def extremes(self, value: Array, slack: Array) -> tuple[Array, Array]:
        """The least and the greatest value that passes: in a wide type, their sum rounds inwards.

        `value - slack` in the type of the cut may be beyond the slack by a last bit.
        """
        low, high = super(CutForm, self).extremes(value, slack)
        if self.dtype.itemsize < value.dtype.itemsize:
            return low, high
        up, down = (jnp.full(value.shape, end, value.dtype) for end in (jnp.inf, -jnp.inf))
        low = jnp.minimum(lax.nextafter(low, up), value)
        return low, jnp.maximum(lax.nextafter(high, down), value)


def propose(equation: Equation, view: View) -> Proposal | None:
    """Claim a cut that `analysis.cuts` made, unless honest devices pass on the same bits anyway."""
    [value] = equation.inputs
    if value.dtype.name not in FLOATS or view.known(value) or view.exact(value):
        return None
    form = CutForm(steps=(), source=value.dtype, dtype=value.dtype)
    return Proposal(form=form, operands=(value,))
