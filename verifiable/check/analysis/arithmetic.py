"""How many arithmetic operations a function has, and how many of them a check replays."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from verifiable.check.analysis.dataflow import Forward
from verifiable.claims.claim import Claim
from verifiable.claims.products.product import CONTRACTIONS
from verifiable.claims.registry import operations
from verifiable.jaxpr.blocks import Block, Equation
from verifiable.jaxpr.effects import PRIMITIVES, Effect

# Primitives that cost no arithmetic.
_MOVES = PRIMITIVES[Effect.EXACT] - {"max", "min", "reduce_max"}


def products(block: Block, trips: int) -> Iterator[tuple[Equation, int]]:
    """The products of a block, with their operations in all iterations around them."""
    for equation in block.equations:
        if equation.kind in CONTRACTIONS:
            yield equation, trips * operations(equation)
        for body in equation.bodies:
            yield from products(body, trips * equation.params.get("length", 1))


def work(equation: Equation) -> int:
    """Arithmetic operations of a first-order equation: 2mnk for a contraction, else its size."""
    product = operations(equation)
    if product:
        return product
    if equation.kind in _MOVES:
        return 0
    return max(v.size for v in (*equation.inputs, *equation.outputs))


def replayed(
    block: Block,
    forward: Forward,
    claims: Mapping[Equation, Claim],
    unread: Collection[Equation],
    trips: int,
) -> int:
    """Operations that the check replays, counting one iteration of each `while`."""
    total = 0
    for equation in block.equations:
        claim = claims.get(equation)
        if equation in unread or (claim is not None and claim.work):
            continue
        if equation.outputs and forward.outputs_known(equation):
            continue
        if equation.bodies:
            inner = trips * equation.params.get("length", 1)
            total += sum(replayed(b, forward, claims, unread, inner) for b in equation.bodies)
        else:
            total += trips * work(equation)
    return total
