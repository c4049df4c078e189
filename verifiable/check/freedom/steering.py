"""Which choices of a program a device may steer, and how a report tells of them.

A choice that follows from the rows of one product, and the roundings in its block, is listed with
the columns of that product (`near_ties`). Others are replayed with how far each element may be
moved (`several_products`). What is neither is `unlisted`: a device may steer it, and a report only
says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from verifiable.check.freedom.leeway import LastProduct
from verifiable.check.freedom.lineage import Lineages, MadeChoice
from verifiable.check.freedom.one_product import Choice, choices
from verifiable.check.specification import Specification
from verifiable.jaxpr.blocks import Equation, Var
from verifiable.jaxpr.effects import MOVES

_CARRIES = MOVES | frozenset(
    "concatenate cond convert_element_type dynamic_update_slice gather optimization_barrier pad "
    "scan select_n split stack".split()
)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Steering:
    """The choices of a program.

    Attributes:
      orders: those of the order of chosen elements that are listed by the rows of a product.
      followed: those that are listed by themselves.
      unlisted: those that are not listed, by name, and why.
      movable: variables that a device may move within tolerances.
    """

    orders: Sequence[Choice]
    followed: Sequence[MadeChoice]
    unlisted: Mapping[str, str]
    movable: frozenset[Var] = field(repr=False)


def steering(program: Specification) -> Steering:
    """The choices of a program; found once."""
    if not program.steerable:
        program.steerable.append(_found(program))
    return program.steerable[0]


def _found(program: Specification) -> Steering:
    found = Lineages.over(program)
    heads: dict[Equation, list[Choice]] = {}
    for one in choices(program) if found.choices else ():
        heads.setdefault(one.equation, []).append(one)
    followed: list[MadeChoice] = []
    orders: list[Choice] = []
    unlisted: dict[str, str] = {}
    kinds = {e.kind for e in program.function.block.walk()}
    returned = found.graph.reaching((), kinds - _CARRIES, returned=True)
    for choice in found.choices:
        own = heads.get(choice.equation, []) if choice.equation is not None else []
        covering = [one for one in own if not one.narrowed and _covers(one.head, choice)]
        whole, ordered = bool(covering), _ordered(choice, returned)
        of_rows = [one for one in covering if _row_by_row(one, program)]
        if choice.because:
            if not whole or ordered:
                unlisted[choice.name] = choice.because
        elif ordered and of_rows:
            orders.append(of_rows[0]._replace(ordered=True))
        elif not whole or ordered:
            followed.append(replace(choice, ordered=ordered, listed=whole))
    movable = frozenset(found.of)
    return Steering(orders=orders, followed=followed, unlisted=unlisted, movable=movable)


def _covers(head: LastProduct, choice: MadeChoice) -> bool:
    """Whether a choice follows from a product, and the roundings in its block, alone."""
    lineage = choice.lineage
    alone = lineage.products == frozenset({head.claim.index}) and not lineage.lost
    return alone and lineage.others | lineage.before <= head.indices


def _row_by_row(choice: Choice, program: Specification) -> bool:
    """Whether the rows that something is chosen from are those of the product, one for one."""
    operand, claim = choice.equation.inputs[0], choice.head.claim
    outermost = not claim.trips and choice.equation in program.function.block.equations
    rows = math.prod(operand.shape[:-1])
    return outermost and choice.glue is None and rows == choice.head.form.rows


def _ordered(choice: MadeChoice, returned: set[Var]) -> bool:
    equation = choice.equation
    if equation is None or equation.kind != "top_k" or equation.params["k"] < 2:
        return False
    return equation.outputs[1] in returned
