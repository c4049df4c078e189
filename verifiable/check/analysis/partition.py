"""The analysis of a program: its claims, and the split of its check into setup and replay.

`dataflow` finds the claims; here they are numbered. The split is a partial evaluation: known
equations are evaluated once, in `setup`, and the known values that the check reads are the verifier
key. Each scan body has a `Frame` of its own, whose part of the key is stacked over the iterations;
values that do not depend on the iteration belong to the enclosing frame. A known value is kept in
the key, or rebuilt in the check from other values in the key if they are smaller.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from verifiable.check.analysis import arithmetic
from verifiable.check.analysis.dataflow import CERTAIN, Fact, Forward
from verifiable.claims import registry
from verifiable.claims.claim import Claim
from verifiable.claims.products.biased import BiasedProduct
from verifiable.jaxpr.blocks import Atom, Block, Equation, Literal, Var
from verifiable.jaxpr.effects import REBUILT, is_float
from verifiable.jaxpr.graph import uses
from verifiable.jaxpr.precisions import algorithm

# What decides a projection: the far operand, what else of the product it depends on
# (`Form.projects`), and the label of the vectors.
Projected = tuple[Var, Hashable, str | None]


@dataclass(slots=True, eq=False)
class Frame:
    """The known part of the outermost block, or of the body of a scan.

    Attributes:
      depth: number of scans around it.
      steps: known equations, and scans that are known in part, in order.
      children: frames of these scans.
      kept: variables whose values go into the key.
      projected: claims whose projection goes into the key, those together that share one.
      tables: of each kept variable that is a table (`tables`), its claims.
    """

    depth: int = 0
    steps: list[Equation] = field(default_factory=list)
    children: dict[Equation, Frame] = field(default_factory=dict)
    kept: list[Var] = field(default_factory=list)
    projected: dict[Projected, list[Claim]] = field(default_factory=dict)
    tables: dict[Var, list[Claim]] = field(default_factory=dict)

    def moves(self, found: Mapping[str, Any]) -> dict[int, Any]:
        """How far other rounding moves what the claims are tested with, by index of the claim.

        Args:
          found: from `parameter_values.moves`, for this frame.
        """
        moved: dict[int, Any] = {}
        for claims, move in zip(self.projected.values(), found["projected"], strict=True):
            moved |= {c.index: move for c in claims}
        for v, claims in self.tables.items():
            moved |= {c.index: found["kept"][self.kept.index(v)] for c in claims}
        return moved


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Analysis:
    """The claims of a function and the split of its check. Made by `analyse`.

    Attributes:
      facts: about every variable.
      by_equation: claims, in the order of the trace.
      frame: the known part.
      rebuilt: known variables that the check computes again.
      unread: equations that nothing in the check reads, such as a gather whose product is a claim.
      loops: replayed `while` equations outside of other such loops.
      discontinuities: names of equations where a last-bit difference may flip a value.
      flushable: by name of a comparison of exact floats, the inputs that these were moved from.
      checked: operations of claimed contractions.
      replayed: operations that the check replays.
      products: by name of a replayed product, its operations and why it is no claim.
    """

    facts: dict[Var, Fact]
    by_equation: dict[Equation, Claim]
    frame: Frame
    rebuilt: set[Var]
    unread: set[Equation]
    loops: set[Equation]
    discontinuities: tuple[str, ...]
    flushable: Mapping[str, frozenset[Var]]
    checked: int
    replayed: int
    products: Mapping[str, tuple[int, str]]

    @property
    def exact(self) -> frozenset[Var]:
        """Floats that honest devices compute in the same bits."""
        return frozenset(v for v, fact in self.facts.items() if is_float(v.dtype) and fact.exact)

    @property
    def absorbed(self) -> frozenset[Equation]:
        """Products that are tested as a part of a claim after them."""
        forms = (c.form for c in self.by_equation.values())
        return frozenset(form.product for form in forms if isinstance(form, BiasedProduct))

    @property
    def trace_bytes(self) -> int:
        """Size of all claims."""
        claims = self.by_equation.values()
        return sum(math.prod(c.shape) * c.dtype.itemsize for c in claims)

    @property
    def scans(self) -> bool:
        """Whether claims are under a scan."""
        return any(c.trips for c in self.by_equation.values())

    def fact(self, atom: Atom) -> Fact:
        """Facts about an atom."""
        return CERTAIN if isinstance(atom, Literal) else self.facts[atom]

    def known(self, equation: Equation) -> bool:
        """Whether all outputs of an equation are known."""
        return all(self.facts[v].known for v in equation.outputs)

    def claims_in(self, block: Block) -> list[Claim]:
        """Claims of a block and of the blocks inside it."""
        return [self.by_equation[e] for e in block.walk() if e in self.by_equation]

    def costs(self, block: Block, draws: int) -> list[int]:
        """Estimated cost of each claim's test and of the replay between it and the previous claim.

        In the units of `Contraction.check_cost`. A replayed operation counts half: most belong to
        large products, which CPUs compute at twice the speed of a check.

        Args:
          block: the outermost block.
          draws: random vectors of the check.
        """
        costs: list[int] = []
        replayed = 0
        for equation in block.walk():
            claim = self.by_equation.get(equation)
            if claim is not None:
                own = claim.form.check_cost(draws)
                costs.append((own + replayed // 2) * math.prod(claim.trips))
                replayed = 0
            elif not (equation.bodies or self.known(equation) or equation in self.unread):
                replayed += arithmetic.work(equation)
        return costs

    def loops_in(self, block: Block) -> list[Equation]:
        """The replayed loops of a block and of the blocks inside it."""
        return [e for e in block.walk() if e in self.loops]


def analyse(block: Block, known_inputs: int, draws: int) -> Analysis:
    """Analyse a flattened function.

    Args:
      block: its outermost block.
      known_inputs: how many of its leading inputs are constants or parameters.
      draws: random vectors of the check; they decide which products are worth a claim.
    """
    forward = Forward.over(block, known_inputs, draws)
    claims = {c.equation: c for c in _number(block, forward, ())}
    unread = _unread(block, forward, claims)
    split = _Split(forward.facts, claims, unread)
    frame = Frame()
    split.build(block, frame)
    split.demand_block(block)
    split.demand(block.outputs)
    checked = sum(c.work for c in claims.values())
    loops = [e for e in block.walk() if e.kind == "while" and not forward.outputs_known(e)]
    inside = {e for loop in loops for body in loop.bodies for e in body.walk()}
    return Analysis(
        facts=forward.facts,
        by_equation=claims,
        frame=frame,
        rebuilt=split.rebuilt,
        unread=unread,
        loops={e for e in loops if e not in inside},
        discontinuities=tuple(sorted(forward.discontinuities)),
        flushable=forward.flushable,
        checked=checked,
        replayed=arithmetic.replayed(block, forward, claims, unread, 1),
        products={
            e.name: (n, "it is in a loop" if e in inside else registry.obstacle(e, forward))
            for e, n in arithmetic.products(block, 1)
            if not (e in claims or e in unread or forward.outputs_known(e))
        },
    )


def _unread(block: Block, forward: Forward, claims: Mapping[Equation, Claim]) -> set[Equation]:
    """The equations whose outputs only claims read, for whose tests they are not needed."""
    needed = {a for claim in claims.values() for a in claim.reads}
    unread: set[Equation] = set()
    for equation in reversed(list(block.walk())):
        if equation in claims or equation.bodies or forward.outputs_known(equation):
            continue
        readers = [r for v in equation.outputs for r in forward.graph.readers.get(v, ())]
        read = not readers or any(r not in unread and r not in claims for r in readers)
        if not read and needed.isdisjoint(equation.outputs):
            unread.add(equation)
    return unread


def _number(
    block: Block,
    forward: Forward,
    trips: tuple[int, ...],
    start: int = 0,
    group: int | None = None,
) -> Iterator[Claim]:
    """The claims of a block in the order of the trace, numbered from `start`."""
    for equation in block.equations:
        if equation in forward.claims:
            yield _claim(equation, forward, trips, start, start if group is None else group)
            start += 1
        inner, around = trips, group
        if equation.kind == "scan":
            inner = (*trips, equation.params["length"])
            around = start if group is None else group
        for body in equation.bodies:
            for claim in _number(body, forward, inner, start, around):
                yield claim
                start += 1


def _claim(
    equation: Equation, forward: Forward, trips: tuple[int, ...], index: int, group: int
) -> Claim:
    found = forward.claims[equation]
    alone = len(equation.outputs) == 1 and not equation.bodies
    reader = forward.graph.only_reader(equation.outputs[0]) if alone else None
    return Claim(
        index=index,
        equation=equation,
        form=found.proposal.form,
        operands=found.proposal.operands,
        far=found.proposal.far,
        trips=trips,
        group=group,
        rounding_dtypes=found.before.rounding_dtypes | algorithm(equation).operands,
        narrow_sums=found.before.narrow_sums,
        discontinuities=found.before.discontinuities,
        flushable=found.before.flushable,
        loops=found.before.loops,
        transpose=reader if reader is not None and reader.kind == "transpose" else None,
    )


@dataclass(slots=True, eq=False)
class _Split:
    """Assigns known equations to frames, then finds which known values the check reads."""

    facts: dict[Var, Fact]
    by_equation: dict[Equation, Claim]
    unread: Collection[Equation]
    home: dict[Var, Frame] = field(default_factory=dict)
    producer: dict[Var, Equation] = field(default_factory=dict)
    rebuilt: set[Var] = field(default_factory=set)
    kept: set[Var] = field(default_factory=set)
    dependent: dict[Var, bool] = field(default_factory=dict)
    root: Frame | None = None

    def known(self, atom: Atom) -> bool:
        return isinstance(atom, Literal) or self.facts[atom].known

    def build(self, block: Block, frame: Frame) -> None:
        """Assign each known equation to the innermost frame that it depends on."""
        if self.root is None:
            self.root = frame
            for v in block.inputs:
                self.home[v] = frame
        for equation in block.equations:
            if equation.outputs and all(self.facts[v].known for v in equation.outputs):
                home = self.deepest(uses(equation))
                home.steps.append(equation)
                for v in equation.outputs:
                    self.home[v] = home
                    self.producer[v] = equation
            elif equation.kind == "scan":
                child = Frame(frame.depth + 1)
                [body] = equation.bodies
                for v in body.inputs:
                    self.home[v] = child
                self.build(body, child)
                frame.children[equation] = child
                frame.steps.append(equation)
                for v in equation.outputs:
                    self.home[v] = frame
            elif equation.kind == "cond":
                for body in equation.bodies:
                    self.build(body, frame)
            elif equation in self.by_equation:
                claim = self.by_equation[equation]
                if isinstance(claim.far, Var) and claim.form.projected:
                    uses_of = self.deepest((claim.far,)).projected
                    # One projection serves all products with a weight that need the same of it.
                    same = claim.far, claim.form.projects, claim.vectors
                    uses_of.setdefault(same, []).append(claim)

    def deepest(self, atoms: Iterable[Atom]) -> Frame:
        if self.root is None:
            raise AssertionError("build starts at the outermost block")
        frames = [self.home[a] for a in atoms if isinstance(a, Var)]
        return max(frames, key=lambda f: f.depth, default=self.root)

    def demand_block(self, block: Block) -> None:
        """Find the known values that the check of a block reads."""
        for equation in block.equations:
            if equation.outputs and all(self.facts[v].known for v in equation.outputs):
                continue
            if equation in self.unread:
                continue
            if equation.kind == "scan":
                self.demand_scan(equation)
            elif equation.kind == "cond":
                self.demand(equation.inputs)
                for body in equation.bodies:
                    self.demand_block(body)
                    self.demand(body.outputs)
            elif equation in self.by_equation:
                claim = self.by_equation[equation]
                if claim.form.is_table:
                    self.keep(claim)
                self.demand(claim.reads)
            elif equation.kind == "while":
                self.demand(uses(equation))
            else:
                self.demand(equation.inputs)

    def demand_scan(self, equation: Equation) -> None:
        [body] = equation.bodies
        count = equation.params["num_carry"]
        for i, (atom, v) in enumerate(zip(equation.inputs, body.inputs, strict=True)):
            if not self.facts[v].known:
                self.demand((atom,))
                if i < count:
                    self.demand((body.outputs[i],))
        self.demand_block(body)

    def demand(self, atoms: Iterable[Atom]) -> None:
        for atom in atoms:
            if isinstance(atom, Literal) or not self.known(atom):
                continue
            if atom in self.rebuilt or atom in self.kept:
                continue
            equation = self.producer.get(atom)
            if equation is not None and self.worth_rebuilding(atom, equation):
                self.rebuilt.update(equation.outputs)
                self.demand(equation.inputs)
            else:
                self.kept.add(atom)
                self.home[atom].kept.append(atom)

    def keep(self, claim: Claim) -> None:
        """Keep a table, even where it is rebuilt for others: the key says how far it may be off."""
        for atom in claim.operands:
            if isinstance(atom, Var):
                frame = self.home[atom]
                frame.tables.setdefault(atom, []).append(claim)
                if atom not in self.kept:
                    self.kept.add(atom)
                    frame.kept.append(atom)

    def worth_rebuilding(self, var: Var, equation: Equation) -> bool:
        if equation.bodies or equation.kind not in REBUILT:
            return False
        if not any(self.from_parameters(a) for a in equation.inputs):
            return True
        inputs = {a for a in equation.inputs if isinstance(a, Var) and self.from_parameters(a)}
        return sum(v.nbytes for v in inputs - self.kept) < var.nbytes

    def from_parameters(self, atom: Atom) -> bool:
        """Whether a known value depends on parameters or on an equation that is never rebuilt."""
        if isinstance(atom, Literal):
            return False
        if atom not in self.dependent:
            equation = self.producer.get(atom)
            leaf = equation is None or bool(equation.bodies) or equation.kind not in REBUILT
            inputs = () if equation is None else equation.inputs
            self.dependent[atom] = leaf or any(self.from_parameters(a) for a in inputs)
        return self.dependent[atom]
