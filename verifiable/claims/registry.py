"""The rule table: which primitives become claims.

A contraction `C = A B` is a claim: its output is committed and tested instead of recomputed. A new
kind of it is a new entry in `contractions`. Everything else is glue, which the verifier replays.
"""

from __future__ import annotations

from collections.abc import Callable

from verifiable.claims.contraction import Contraction
from verifiable.claims.convolution import Convolution
from verifiable.claims.dot_general import DotGeneral
from verifiable.jaxpr.blocks import Equation
from verifiable.jaxpr.effects import PRIMITIVES, Effect

contractions: dict[str, Callable[[Equation, int], Contraction | None]] = {
    "dot_general": DotGeneral.of,
    "conv_general_dilated": Convolution.of,
}

_MOVES = PRIMITIVES[Effect.EXACT] - {"max", "min", "reduce_max"}


def contraction(equation: Equation, near: int = 0) -> Contraction | None:
    """The form of an equation as a contraction, or None if it is none that has a check."""
    rule = contractions.get(equation.kind)
    form = rule(equation, near) if rule else None
    return form if form is not None and form.checkable else None


def work(equation: Equation) -> int:
    """Arithmetic operations of a first-order equation: 2mnk for a contraction, else its size."""
    form = contraction(equation)
    if form is not None:
        return form.work
    if equation.kind in _MOVES:
        return 0
    return max(v.size for v in (*equation.inputs, *equation.outputs))
