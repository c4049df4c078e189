"""Equal roundings, of which a device commits to the first only.

A layer that quantises its operand is applied to one activation several times, as by queries, keys
and values: each computes the same scale and rounds the same numbers. Where equal equations compute
such roundings from equal variables in one block, the output of the first is read in place of the
others, which nothing reads then. So there is one claim to send, to hash and to test, and a device
has one choice at a tie instead of several.
"""

from __future__ import annotations

from verifiable.check.analysis.partition import Analysis
from verifiable.check.analysis.program_id import equation_digest
from verifiable.claims.roundings.rounding import Rounding
from verifiable.encoding import encode, tagged_hash
from verifiable.jaxpr.blocks import Atom, Block, Var
from verifiable.jaxpr.effects import DRAWS_ANEW
from verifiable.jaxpr.graph import uses


def merge(block: Block, found: Analysis) -> bool:
    """Let the first of equal roundings be read in place of the others.

    Args:
      block: outermost block of a flattened function; it is changed in place.
      found: the analysis of the function.

    Returns:
      Whether there were any. Then there are equations that nothing reads, and the analysis is of
      the function as it was.
    """
    if sum(isinstance(c.form, Rounding) for c in found.by_equation.values()) < 2:
        return False
    first: dict[Var, Var] = {}
    _collect(block, found, {}, first)
    if first:
        _replace(block, first)
    return bool(first)


def _collect(
    block: Block, found: Analysis, digests: dict[Var, bytes], first: dict[Var, Var]
) -> None:
    """Find the roundings of a block, and of those inside it, that are equal to an earlier one.

    Args:
      block: the block.
      found: the analysis of the function.
      digests: what each variable before is computed from; this function writes to it.
      first: by output of a rounding, that of the first; this function writes to it.
    """
    for v in block.inputs:
        digests[v] = tagged_hash("rounded", encode(["leaf", len(digests)]))
    made: dict[bytes, Var] = {}
    for equation in block.equations:
        read = {a: digests[a] for a in uses(equation) if isinstance(a, Var)}
        what = equation_digest(equation, read)
        if equation.kind in DRAWS_ANEW:
            what += encode(len(digests))
        for i, v in enumerate(equation.outputs):
            digests[v] = tagged_hash("rounded", encode(["result", what, i]))
        for body in equation.bodies:
            _collect(body, found, digests, first)
        claim = found.by_equation.get(equation)
        if claim is not None and isinstance(claim.form, Rounding):
            [v] = equation.outputs
            earlier = made.setdefault(digests[v], v)
            if earlier is not v:
                first[v] = earlier


def _replace(block: Block, first: dict[Var, Var]) -> None:
    def read(atoms: tuple[Atom, ...]) -> tuple[Atom, ...]:
        return tuple(first.get(a, a) if isinstance(a, Var) else a for a in atoms)

    for equation in block.equations:
        equation.inputs = read(equation.inputs)
        for body in equation.bodies:
            _replace(body, first)
    block.outputs = read(block.outputs)
