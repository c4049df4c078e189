"""The registry: which primitives become claims, and of which kind.

The device commits to the output of a claim and the verifier tests it. Every other equation is
glue, which the verifier replays. A new kind of claim is one module, with a `Form` and a `Rule`,
and one row of the table.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from verifiable.claims import cut, lookup, table
from verifiable.claims.decisions import choice, decision, pieces
from verifiable.claims.form import Proposal, Rule, View
from verifiable.claims.products import biased, gathered, product, ragged
from verifiable.claims.roundings import chains
from verifiable.jaxpr.blocks import Equation
from verifiable.jaxpr.effects import CUT, TABLE

# Primitives and the rule for them; None stands for every primitive. The first proposal wins.
RULES: tuple[tuple[Collection[str] | None, Rule], ...] = (
    ({"dot_general"}, gathered.propose),
    (product.CONTRACTIONS.keys() - ragged.PRIMITIVES, product.propose),
    (ragged.PRIMITIVES, ragged.propose),
    (biased.KINDS, biased.propose),
    (lookup.KINDS, lookup.propose),
    (chains.STEPS, chains.propose),
    (decision.KINDS, decision.propose),
    (pieces.KINDS, pieces.propose),
    (choice.KINDS, choice.propose),
    ({TABLE}, table.propose),
    ({CUT}, cut.propose),
    (None, chains.propose_operand),
)


def propose(equation: Equation, view: View) -> Proposal | None:
    """The claim that an equation becomes, or None if it is replayed."""
    for primitives, rule in RULES:
        if primitives is None or equation.kind in primitives:
            proposal = rule(equation, view)
            if proposal is not None:
                return proposal
    return None


def operations(equation: Equation) -> int:
    """Arithmetic operations of a product; zero for any other equation."""
    if equation.kind == "ragged_dot_general":
        numbers = equation.params["ragged_dot_dimension_numbers"]
        lhs, rhs, *_ = equation.inputs
        (_, contracting), (_, batching) = numbers.dot_dimension_numbers
        used = {*contracting, *batching, *numbers.rhs_group_dimensions}
        return 2 * lhs.size * math.prod(n for d, n in enumerate(rhs.shape) if d not in used)
    found = product.linear_maps(equation)
    return 0 if found is None else found.work


def obstacle(equation: Equation, view: View) -> str:
    """Why a product that is no claim is replayed.

    Args:
      equation: one of `product.CONTRACTIONS`, outside of a replayed loop.
      view: of the program.
    """
    if equation.kind in ragged.PRIMITIVES:
        found = ragged.form_of(equation, view)
        if found is None:
            return "its groups divide no rows, or its integers may wrap"
    else:
        bounds = product.bounds_of(equation, view)
        sides = [product.contraction(equation, near, bounds) for near in (0, 1)]
        if sides == [None, None]:
            return "its integers may wrap, or its types or dimensions have no check"
        if all(
            s is None or (s.far_must_be_known and not view.known(equation.inputs[1])) for s in sides
        ):
            return "its kernel depends on the job"
    return "its check would cost more"
