"""Outputs that have the bytes of a claim, or of another output, under another name.

Renamed and reshaped values, and slices of consecutive bytes, are followed backwards from each
output to a claim that commits to its output as it is; also out of a scan, as one of its stacked
outputs or as its last carry. An audit opens such bytes once. That they are equal is expected of an
honest device that commits to the answer of the same run, and is never relied on.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from verifiable.check.analysis.partition import Analysis
from verifiable.check.specification import Specification
from verifiable.claims.claim import Claim
from verifiable.jaxpr.blocks import Atom, Block, Equation, Var
from verifiable.trace.copies import Copy

_RENAMED = frozenset(
    "broadcast_in_dim convert_element_type copy copy_p expand_dims opt_barrier "
    "optimization_barrier reshape squeeze stop_gradient".split()
)


class _Root(NamedTuple):
    """What a value is read from: a claim, or a variable; and the byte with which it begins."""

    of: Claim | Atom
    start: int


def copies_of(program: Specification) -> tuple[Copy, ...]:
    """The outputs that follow from a claim, or from an output before them.

    Args:
      program: the compiled function.
    """
    found: list[Copy] = []
    count, layout = len(program.claims), program.layout
    first: dict[tuple[_Root, int], int] = {}
    for tensor, atom in enumerate(program.function.block.outputs, count):
        nbytes = layout.tensors[tensor].nbytes
        root = _root(program.function.block, program.analysis, atom)
        if not nbytes:
            continue
        if isinstance(root.of, Claim):
            if 0 <= root.start <= layout.tensors[root.of.index].nbytes - nbytes:
                found.append(Copy(tensor=tensor, source=root.of.index, start=root.start))
        elif (root, nbytes) in first:
            found.append(Copy(tensor=tensor, source=first[root, nbytes], start=0))
        else:
            first[root, nbytes] = tensor
    return tuple(found)


def _root(block: Block, analysis: Analysis, atom: Atom, *, whole: bool = False) -> _Root:
    """What an atom of a block is read from.

    Args:
      block: the block.
      analysis: of the function.
      atom: of the block.
      whole: whether slices are not followed, since bytes of iterations would lie between.
    """
    start = 0
    while isinstance(atom, Var):
        equation = _maker(block, atom)
        if equation is None:
            break
        claim = analysis.by_equation.get(equation)
        if claim is not None:
            return _Root(claim if _plain(claim, atom) else atom, start)
        place = equation.outputs.index(atom)
        if equation.kind == "scan":
            found = _out_of(equation, analysis, place)
            return _Root(atom, start) if found is None else _Root(found.of, found.start + start)
        before = equation.inputs[place] if len(equation.inputs) > place else None
        skipped = None if before is None else _skipped(equation, before, atom)
        if skipped is None or before is None or (whole and before.size != atom.size):
            break
        start, atom = start + skipped, before
    return _Root(atom, start)


def _maker(block: Block, atom: Var) -> Equation | None:
    return next((e for e in block.equations if atom in e.outputs), None)


def _plain(claim: Claim, atom: Var) -> bool:
    """Whether what is committed of a claim is this output of it, in each iteration."""
    shape, dtype = claim.form.packed(atom.shape, atom.dtype)
    moved = claim.form.moved_from
    return (
        claim.loop is None
        and atom is claim.output
        and (shape, dtype) == (atom.shape, atom.dtype)
        and not (moved and moved[0] is not None)
    )


def _out_of(equation: Equation, analysis: Analysis, place: int) -> _Root | None:
    """The claim of the body that an output of a scan is, if it is one."""
    [body] = equation.bodies
    length, count = equation.params["length"], equation.params["num_carry"]
    root = _root(body, analysis, body.outputs[place], whole=place >= count)
    claim = root.of
    if not isinstance(claim, Claim) or claim.trips != (length,):
        return None
    if place >= count:
        return root
    last = 0 if equation.params["reverse"] else length - 1
    return root._replace(start=root.start + last * claim.output.nbytes)


def _skipped(equation: Equation, before: Atom, atom: Var) -> int | None:
    """How many bytes of an operand lie before a value; None if it has not its bytes in a row."""
    params = equation.params
    turned = equation.kind == "reshape" and params.get("dimensions") is not None
    if before.dtype != atom.dtype or turned:
        return None
    if equation.kind in _RENAMED:
        return 0 if before.size == atom.size else None
    if equation.kind == "transpose":
        longer = [d for d in params["permutation"] if before.shape[d] != 1]
        return 0 if longer == sorted(longer) else None
    return _sliced(before, atom, params) if equation.kind == "slice" else None


def _sliced(before: Atom, atom: Var, params: Any) -> int | None:
    """The same of a slice."""
    strides = params["strides"] or (1,) * len(atom.shape)
    several = next((d for d, n in enumerate(atom.shape) if n != 1), len(atom.shape))
    if atom.shape[several + 1 :] != before.shape[several + 1 :] or any(
        s != 1 and n > 1 for s, n in zip(strides, atom.shape, strict=True)
    ):
        return None
    elements = sum(
        start * math.prod(before.shape[d + 1 :]) for d, start in enumerate(params["start_indices"])
    )
    return elements * atom.dtype.itemsize
