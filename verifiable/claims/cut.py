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

from verifiable.claims.form import Proposal, View
from verifiable.claims.rounding import Rounding
from verifiable.jaxpr.blocks import Equation
from verifiable.jaxpr.effects import CUT, FLOATS


@dataclass(frozen=True, slots=True, kw_only=True)
class CutForm(Rounding):
    """The form of a cut; see `Form`."""

    mismatch: ClassVar[str] = "cut-mismatch"
    barrier: ClassVar[bool] = False  # the equation is one


def propose(equation: Equation, view: View) -> Proposal | None:
    """Claim a cut that `check.cuts` made, unless honest devices pass on the same bits anyway."""
    [value] = equation.inputs
    inexact = value.dtype.name in FLOATS and not (view.known(value) or view.exact(value))
    if equation.kind != CUT or not inexact:
        return None
    form = CutForm(steps=(), source=value.dtype, dtype=value.dtype)
    return Proposal(form=form, operands=(value,))
