"""What follows the layers reads of their last carry: of the rows before a slice, those in it.

An answer is often that of one row, such as the last token. Backwards from the answer, and from the
claims of every audit, a value is needed whole until an equation takes a slice of it; from there,
the rules of tiles say which of the rows before are needed, as in `rows`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from verifiable.check.analysis.partition import Analysis
from verifiable.check.tiling.rules import Cut, step
from verifiable.jaxpr.blocks import Atom, Block, Equation, Var
from verifiable.jaxpr.graph import uses


def read_of(
    block: Block,
    analysis: Analysis,
    ends: Collection[Var],
    always: Collection[int],
    axis: int,
) -> Mapping[Var, frozenset[Cut] | None]:
    """Which rows of some values the outputs of a block, and some of its claims, need.

    Args:
      block: the outermost block.
      analysis: of the function.
      ends: outputs of scans.
      always: indices of the claims.
      axis: along which the rows are.

    Returns:
      Of each value that is read, where it is; None if it is read whole.
    """
    pieces: dict[Var, set[Cut]] = {}
    whole: set[Var] = set()

    def need(atoms: Iterable[tuple[Atom, Cut | None]]) -> None:
        for atom, cut in atoms:
            if isinstance(atom, Var) and (cut is None or _covers(cut, atom)):
                whole.add(atom)
            elif isinstance(atom, Var) and cut is not None:
                pieces.setdefault(atom, set()).add(cut)

    need((a, None) for a in block.outputs)
    for equation in reversed(block.equations):
        claim = analysis.by_equation.get(equation)
        if claim is not None:
            need((a, None) for a in (claim.reads if claim.index in always else claim.feeds))
            continue
        if any(c.index in always for body in equation.bodies for c in analysis.claims_in(body)):
            need((a, None) for a in uses(equation))
        for v in equation.outputs:
            cuts: list[Cut | None] = [None] if v in whole else [*sorted(pieces.get(v, ()))]
            if not cuts or (analysis.known(equation) and v not in analysis.rebuilt):
                continue
            for cut in cuts:
                need(_sources(equation, v, cut, axis))
    read = (v for v in ends if v in whole or v in pieces)
    return {v: None if v in whole else frozenset(pieces[v]) for v in read}


def _covers(cut: Cut, value: Var) -> bool:
    return not cut.offset and cut.unit == value.shape[cut.axis]


def _sources(
    equation: Equation, v: Var, cut: Cut | None, axis: int
) -> Iterable[tuple[Atom, Cut | None]]:
    """Where the inputs of an equation are read, for a piece of an output, or all of it."""
    first = _slice(equation, axis) if cut is None else None
    found = None if equation.bodies or cut is None else step(equation, v, cut)
    if first is not None:
        return [(equation.inputs[0], first)]
    if found is not None:
        return zip(equation.inputs, found.sources, strict=True)
    return [(a, None) for a in uses(equation)]


def _slice(equation: Equation, axis: int) -> Cut | None:
    """Where a slice reads its operand along an axis."""
    params: Mapping[str, Any] = equation.params
    if equation.kind != "slice" or axis >= len(equation.inputs[0].shape):
        return None
    start, stop = (int(params[name][axis]) for name in ("start_indices", "limit_indices"))
    return Cut(axis, stop - start, start) if stop > start else None
