"""How far each element of an output may be off by itself, whatever its row holds beside it.

A row of an output is held to eps times its norm, which is much where some of its elements are of
another size: padding of -1e9, a constant, a second result beside the first. So the glue before an
output is followed back to claims (`claims.origin`), and each element has the bound e of its own:
with c = max(e, eps |terms|) + 2^-8 eps + tiny, the deviations d of a row of n elements pass iff

    sum_j (d_j / min(l, c_j))^2 <= n,    l = eps max(||row||, theta ||terms||) / sqrt(n) + tiny

which is the rule of the norm where no c_j is less than l. A device may return the answer of a run
that rounds otherwise than the one whose claims it committed to: so a claim is no exact leaf here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from verifiable.check.analysis.partition import Analysis
from verifiable.claims import origin, slack
from verifiable.claims.extremes import tiny
from verifiable.claims.origin import Origin
from verifiable.jaxpr.blocks import Array, Atom, Block, Equation, Literal, Var
from verifiable.jaxpr.effects import FLOATS, is_float
from verifiable.jaxpr.graph import Graph, uses

LEAST = 2.0**-8  # of eps: functions such as a sigmoid lose a part of one, whatever their size


@dataclass(slots=True, eq=False)
class _Replayed:
    """The `View` of a program whose claims are rounded as anything else is."""

    analysis: Analysis
    graph: Graph
    claimed_from: frozenset[Var]
    draws: int = 0

    def known(self, atom: Atom) -> bool:
        return self.analysis.fact(atom).known

    def exact(self, atom: Atom) -> bool:
        return self.analysis.fact(atom).exact and not (
            is_float(atom.dtype) and atom in self.claimed_from
        )

    def bound(self, atom: Atom) -> None:
        del atom

    def claimed(self, equation: Equation) -> bool:
        return equation in self.analysis.by_equation


def origins(block: Block, analysis: Analysis) -> Iterator[Origin | None]:
    """The glue before each output; None where it has no bound but that of its row.

    Args:
      block: the outermost block.
      analysis: of the function.
    """
    found = set[Var]()
    for equation in block.equations:
        own = equation in analysis.by_equation or any(map(analysis.claims_in, equation.bodies))
        if own or not found.isdisjoint(uses(equation)):
            found.update(equation.outputs)
    view = _Replayed(analysis, Graph.of(block), frozenset(found))
    for atom in block.outputs:
        followed = not isinstance(atom, Literal) and atom.dtype.name in FLOATS and atom.shape
        yield origin.before(atom, view) if followed else None


def weights(limits: Array, bounds: Array, terms: Array | None, eps: float, dtype: Any) -> Array:
    """l / min(l, c) of each element: 1, or more where its own bound is less than that of its row.

    Args:
      limits: eps max(||row||, theta ||terms||) + tiny of each row, (rows,).
      bounds: e, (rows, columns); not finite where there is none.
      terms: theta times the terms of each element, (rows, columns), if there are any.
      eps: tolerance of the output.
      dtype: of the output.
    """
    least = tiny(dtype)
    own = bounds if terms is None else jnp.maximum(bounds, eps * jnp.abs(terms))
    own = own + LEAST * eps + least
    row = limits[:, None] / math.sqrt(max(bounds.shape[-1], 1)) + least
    return jnp.where(own < row, row / own, 1.0)


def clear(theirs: Array, mine: Array, eps: float) -> Array:
    """Whether no element is off by more than a fourth of eps of itself.

    c is at least as much, except of elements that are moved inputs or constants, which whoever
    reads the answer knows without it.
    """
    theirs, mine = (slack.widened(x) for x in (theirs, mine))
    return jnp.all((theirs == mine) | (jnp.abs(theirs - mine) <= 0.25 * eps * jnp.abs(mine)))
