"""From which claims the values of a program follow, and which choices are made from them.

A forward pass. A value follows from the products and other claims that it is computed from without
another product in between; of the product itself, the roundings before its operands count too. Here
are the choices that a device may steer within the tolerance of these claims:

  - `argmax`, `argmin`, `top_k` and `sort` of such values;
  - outputs that are booleans, or integers that numbers were cast to or compared for;
  - branches and indices that are decided in the same way.

What is followed, `displaced` says; anything else loses the value, with the name of the equation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import reduce

from verifiable.check.freedom import displaced
from verifiable.check.specification import Specification
from verifiable.claims.claim import Claim
from verifiable.claims.decisions.choice import COARSE, ChoiceForm
from verifiable.claims.decisions.decision import Comparison, Sign
from verifiable.claims.products.chosen import ChosenProduct
from verifiable.claims.products.product import CHOICES, Product
from verifiable.claims.roundings.rounding import Rounding
from verifiable.jaxpr.blocks import Atom, Block, Equation, Var
from verifiable.jaxpr.effects import is_float, keys_of
from verifiable.jaxpr.graph import Graph, uses
from verifiable.jaxpr.nan_tests import asks_only

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a value follows from.

    Attributes:
      products: indices of the last products.
      others: of the other claims on the way, such as roundings.
      before: of those before the operands of the products.
      lost: names of equations that are not followed.
      blurred: the same on the way to the operands of the next product: no product counts there.
      decided: whether it is a number that others were cast to or compared for.
    """

    products: frozenset[int] = frozenset()
    others: frozenset[int] = frozenset()
    before: frozenset[int] = frozenset()
    lost: frozenset[str] = _NONE
    blurred: frozenset[str] = _NONE
    decided: bool = False

    def __bool__(self) -> bool:
        """Whether a device may move the value."""
        return bool(self.products or self.others or self.lost)

    def join(self, other: Lineage) -> Lineage:
        """Of a value that follows from two others."""
        return Lineage(
            self.products | other.products,
            self.others | other.others,
            self.before | other.before,
            self.lost | other.lost,
            self.blurred | other.blurred,
            self.decided or other.decided,
        )

    def beyond(self, name: str) -> Lineage:
        """Of a value behind an equation that is not followed."""
        if not self:
            return self
        blurred = self.blurred or (frozenset({name}) if self.others else _NONE)
        lost = self.lost or frozenset({name})
        return Lineage(lost=lost, blurred=blurred, decided=self.decided)


UNMOVED = Lineage()


@dataclass(frozen=True, slots=True, eq=False)
class MadeChoice:
    """A choice that is made from claims.

    Attributes:
      name: of the equation or output.
      equation: that chooses; None of an output of the program.
      keys: the values that decide.
      lineage: of these.
      output: index of the output of the program.
      because: why its near-ties cannot be listed; empty if they can.
      ordered: whether the order of the several elements that it chooses is returned.
      listed: whether all but that order is listed by the rows of its product (`near_ties`).
    """

    name: str
    equation: Equation | None
    keys: tuple[Atom, ...]
    lineage: Lineage
    output: int = -1
    because: str = ""
    ordered: bool = False
    listed: bool = False


@dataclass(slots=True, eq=False)
class Lineages:
    """The pass, and what it found.

    Attributes:
      program: the compiled function.
      graph: of the function.
      coarse: indices of products with a coarse tolerance; these count before the product of two
        activations, too.
      of: lineage by variable; none of what no device can move.
      made: choices by equation.
    """

    program: Specification
    graph: Graph
    coarse: frozenset[int]
    of: dict[Var, Lineage] = field(default_factory=dict)
    made: dict[Equation, MadeChoice] = field(default_factory=dict)

    @staticmethod
    def over(program: Specification) -> Lineages:
        """The pass over a program."""
        block, eps = program.function.block, program.tolerances
        products = [c for c in program.claims if isinstance(c.form, Product)]
        coarse = frozenset(c.index for c in products if eps[c.name] > COARSE)
        found = Lineages(program, Graph.of(block), coarse)
        found._block(block, "")
        return found

    @property
    def choices(self) -> tuple[MadeChoice, ...]:
        """All choices, those of outputs last."""
        outputs = list[MadeChoice]()
        for i, atom in enumerate(self.program.function.block.outputs):
            lineage = self.lineage(atom)
            if lineage and lineage.decided and not is_float(atom.dtype):
                name, because = self.program.outputs[i].name, _why(lineage)
                outputs.append(MadeChoice(name, None, (atom,), lineage, i, because))
        return (*self.made.values(), *outputs)

    def lineage(self, *atoms: Atom) -> Lineage:
        """Of what follows from some values."""
        found = (self.of[a] for a in atoms if isinstance(a, Var) and a in self.of)
        return reduce(Lineage.join, found, UNMOVED)

    def _set(self, variables: Iterable[Var], lineage: Lineage) -> None:
        for v in variables:
            if lineage:
                self.of[v] = lineage

    def _block(self, block: Block, inside: str) -> None:
        for equation in block.equations:
            claim = self.program.analysis.by_equation.get(equation)
            if equation.kind in CHOICES:
                self._choose(equation, inside)
            if claim is not None:
                self._claim(claim, inside)
            elif self.program.analysis.known(equation):
                continue
            elif equation.kind == "scan":
                self._scan(equation, inside)
            elif equation.kind == "cond":
                self._cond(equation)
            elif equation.bodies or not displaced.follows(equation):
                self._lose(equation)
            else:
                self._first_order(equation, inside)

    def _choose(self, equation: Equation, inside: str) -> None:
        keys = keys_of(equation)
        lineage = self.lineage(*keys)
        # Values in order, without the indices, are continuous.
        last = equation.outputs[-1]
        read = equation.kind != "sort" or last is not equation.outputs[0]
        if equation.kind == "top_k":
            read = last in self.graph.readers
        if lineage and read:
            because = inside or _why(lineage)
            if equation.kind == "approx_top_k":
                because = "it is approximate"
            self.made[equation] = MadeChoice(
                equation.name, equation, keys, lineage, because=because
            )

    def _decide(self, equation: Equation, lineage: Lineage, because: str) -> None:
        """A choice by a branch or an index."""
        self.made[equation] = MadeChoice(equation.name, equation, (), lineage, because=because)

    def _claim(self, claim: Claim, inside: str) -> None:
        equation, form = claim.equation, claim.form
        own, index = self.lineage(*equation.inputs), frozenset({claim.index})
        if isinstance(form, Product):
            near, far = self.lineage(claim.near), self.lineage(*([claim.far] if claim.far else []))
            if far and isinstance(form, ChosenProduct):
                far = far.beyond(equation.name)
            near = near.join(far)
            lineage = Lineage(index, before=near.others, lost=near.blurred)
            if not form.far_known and self.coarse:
                before = near.others | near.products & self.coarse
                lineage = Lineage(index, before=before, lost=near.lost)
            if self.lineage(*claim.operands[1:]):
                self._decide(equation, own, "it chooses matrices")
            self._set(equation.outputs, lineage)
            if claim.transpose is not None:
                self._set(claim.transpose.outputs, lineage)
        elif isinstance(form, Rounding):
            before = self.lineage(claim.operands[0])
            decided = before.decided or not is_float(claim.dtype)
            lineage = replace(before, others=before.others | index, decided=decided)
            self._set(equation.outputs, lineage)
        elif isinstance(form, Comparison | Sign):
            if own:
                others = own.others | index
                self._set(equation.outputs, replace(own, others=others, decided=True))
        elif isinstance(form, ChoiceForm):
            for v, source in zip(equation.outputs, form.moved_from, strict=True):
                if source is not None:
                    self._set([v], self.lineage(equation.inputs[source]))
        elif equation.bodies:
            self._lose(equation)
        elif own and not form.is_table:
            self._decide(equation, own, inside or "it is an index")
            self._set(equation.outputs, own.beyond(equation.name))

    def _first_order(self, equation: Equation, inside: str) -> None:
        kind, joined = equation.kind, self.lineage(*equation.inputs)
        if kind in displaced.INDICES:
            index = self.lineage(*equation.inputs[displaced.INDICES[kind]])
            if index:
                self._decide(equation, index, inside or "it is an index")
                joined = joined.beyond(equation.name)
        if kind in displaced.UNMOVED or not joined:
            return
        if kind == "sort":
            for v, atom in zip(equation.outputs, equation.inputs, strict=True):
                self._set([v], self.lineage(atom))
            return
        first, [out, *_] = equation.inputs[0], equation.outputs
        compared = kind in displaced.COMPARISONS and not asks_only(equation, self.graph.producers)
        if compared or (
            kind == "convert_element_type" and is_float(first.dtype) and not is_float(out.dtype)
        ):
            joined = replace(joined, decided=True)
        self._set(equation.outputs[:1] if kind == "top_k" else equation.outputs, joined)

    def _lose(self, equation: Equation) -> None:
        """An equation that is not followed, with the choices inside of it."""
        joined = self.lineage(*uses(equation))
        if not joined:
            return
        beyond = joined.beyond(equation.name)
        for v in equation.outputs:
            # The trips of a loop are a claim that counts its own ties.
            decided = equation.kind != "while" and not is_float(v.dtype)
            self._set([v], replace(beyond, decided=beyond.decided or decided))
        for body in equation.bodies:
            for inner in body.walk():
                if inner.kind in CHOICES:
                    self._decide(inner, joined, f"it is inside of {equation.name}")

    def _scan(self, equation: Equation, inside: str) -> None:
        [body] = equation.bodies
        count = equation.params["num_carry"]
        carries = body.inputs[:count]
        for atom, v in zip(equation.inputs, body.inputs, strict=True):
            self._set([v], self.lineage(atom))
        while True:
            before = [self.lineage(v) for v in carries]
            self._block(body, inside)
            after = [self.lineage(v, a) for v, a in zip(carries, body.outputs, strict=False)]
            for v, lineage in zip(carries, after, strict=True):
                self._set([v], lineage)
            if after == before:
                break
        for v, inner, atom in zip(equation.outputs, carries, body.outputs, strict=False):
            self._set([v], self.lineage(inner, atom))
        for v, atom in zip(equation.outputs[count:], body.outputs[count:], strict=True):
            self._set([v], self.lineage(atom))

    def _cond(self, equation: Equation) -> None:
        index = self.lineage(equation.inputs[0])
        if index:
            self._decide(equation, index, "it is a branch")
        for body in equation.bodies:
            self._block(body, "it is inside of a branch")
        for i, v in enumerate(equation.outputs):
            joined = self.lineage(*(body.outputs[i] for body in equation.bodies))
            self._set([v], joined.join(index).beyond(equation.name) if index else joined)


def _why(lineage: Lineage) -> str:
    lost = sorted(lineage.lost)
    return f"{lost[0]} is not followed" if lost else ""
