"""The registry: which primitives become claims, and of which kind.

The device commits to the output of a claim and the verifier tests it. Every other equation is
glue, which the verifier replays. A new kind of claim is one module, with a `Form` and a `Rule`,
and one row of the table.
"""

from __future__ import annotations

from collections.abc import Collection

from verifiable.claims import chains, choice, decision, product, ragged
from verifiable.claims.form import Proposal, Rule, View
from verifiable.jaxpr.blocks import Equation

# Primitives and the rule for them; None stands for every primitive. The first proposal wins.
TABLE: tuple[tuple[Collection[str] | None, Rule], ...] = (
    (product.CONTRACTIONS.keys() - ragged.PRIMITIVES, product.propose),
    (ragged.PRIMITIVES, ragged.propose),
    (chains.STEPS, chains.propose),
    (decision.KINDS, decision.propose),
    (choice.KINDS, choice.propose),
    (None, chains.propose_operand),
)


def propose(equation: Equation, view: View) -> Proposal | None:
    """The claim that an equation becomes, or None if it is replayed."""
    for primitives, rule in TABLE:
        if primitives is None or equation.kind in primitives:
            proposal = rule(equation, view)
            if proposal is not None:
                return proposal
    return None
