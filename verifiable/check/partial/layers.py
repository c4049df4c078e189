"""The layers of a program, and what a test of some of them reads.

A layer is an iteration of an outermost scan that holds claims; without such scans, the claims of a
numbered scope, such as `block_3`; without these, one claim. Claims of no layer are part of every
audit, and so are the outputs.

A test of an iteration reads all claims of that iteration, and the carry before it. What leads to
that carry is found backwards, iteration by iteration: without cuts, the claims that enter the
carry in each iteration before; with cuts (`check.cuts`), the cut of the iteration before, alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from verifiable.check import operands
from verifiable.check.cuts import layered
from verifiable.check.partition import Analysis
from verifiable.check.specification import Specification
from verifiable.jaxpr.blocks import Block, Equation, Var
from verifiable.trace import Layout

Trips = frozenset[int] | None  # iterations of the outermost scan around a claim; None for all
Opened = Mapping[int, Trips]  # by index of the tensor in a layout

_NUMBERED = re.compile(r"\d\W*$")  # the end of a scope such as `layers_3`, or `vmap(layers_3)`


def reduced(block: Block, needs: operands.Needs) -> Block:
    """The equations of a block that some claims and values need."""

    def kept(equation: Equation) -> bool:
        inside = (e for body in equation.bodies for e in body.walk())
        claims = [needs.analysis.by_equation.get(e) for e in (equation, *inside)]
        tested = any(c is not None and c.index in needs.claims for c in claims)
        return tested or any(v in needs.variables for v in equation.outputs)

    return Block(block.inputs, [e for e in block.equations if kept(e)], block.outputs)


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerScan:
    """A scan whose iterations are layers.

    Attributes:
      equation: the scan.
      analysis: of the program.
      first: number of the layer that its iteration 0 is.
      wanted: its outputs that the rest of the program reads.
    """

    equation: Equation = field(repr=False)
    analysis: Analysis = field(repr=False)
    first: int
    wanted: frozenset[Var] = field(repr=False)

    @property
    def body(self) -> Block:
        """Its body."""
        return self.equation.bodies[0]

    @property
    def length(self) -> int:
        """Number of iterations."""
        return int(self.equation.params["length"])

    @cached_property
    def claims(self) -> frozenset[int]:
        """Indices of the claims of its body."""
        return frozenset(c.index for c in self.analysis.claims_in(self.body))

    def chosen(self, layers: Iterable[int]) -> tuple[int, ...]:
        """Its iterations among some layers, ascending."""
        return tuple(i - self.first for i in layers if 0 <= i - self.first < self.length)

    @cached_property
    def carried(self) -> tuple[bool, ...]:
        """Which carries depend on the job."""
        count = self.equation.params["num_carry"]
        return tuple(not self.analysis.facts[v].known for v in self.body.inputs[:count])

    @cached_property
    def scanned(self) -> tuple[bool, ...]:
        """Which scanned inputs depend on the job."""
        count = self.equation.params["num_carry"]
        return tuple(not self.analysis.facts[v].known for v in self.body.inputs[count:])

    @cached_property
    def stacked(self) -> tuple[bool, ...]:
        """Which stacked outputs depend on the job and are read."""
        count = self.equation.params["num_carry"]
        pairs = zip(self.equation.outputs[count:], self.body.outputs[count:], strict=True)
        return tuple(v in self.wanted and not self.analysis.fact(a).known for v, a in pairs)

    @cached_property
    def _tests(self) -> operands.Needs:
        return operands.needed(self.body, self.analysis, self.claims)

    @cached_property
    def _passing(self) -> tuple[operands.Needs, ...]:
        """What each carry that an iteration passes on needs of it; known ones need nothing."""
        outputs = zip(self.body.outputs, self.carried, strict=False)
        return tuple(
            operands.needed(self.body, self.analysis, (), [a] if open_ else [])
            for a, open_ in outputs
        )

    @cached_property
    def passes(self) -> operands.Needs:
        """What all that an iteration passes on or stacks needs of it."""
        flags = (*self.carried, *self.stacked)
        outputs = [a for a, open_ in zip(self.body.outputs, flags, strict=True) if open_]
        return operands.needed(self.body, self.analysis, (), outputs)

    @cached_property
    def _stacks(self) -> operands.Needs:
        outputs = self.body.outputs[len(self.carried) :]
        wanted = [a for a, open_ in zip(outputs, self.stacked, strict=True) if open_]
        return operands.needed(self.body, self.analysis, (), wanted)

    def _read(self, needs: operands.Needs) -> set[int]:
        """The carries that something in an iteration reads."""
        inputs = enumerate(zip(self.body.inputs, self.carried, strict=False))
        return {i for i, (v, open_) in inputs if open_ and v in needs.variables}

    def opened(self, chosen: Sequence[int]) -> dict[int, set[int]]:
        """The iterations of each claim that tests of some iterations, and what follows, read."""
        found: dict[int, set[int]] = {}
        final = self.equation.outputs[: len(self.carried)]
        want = {
            i for i, v in enumerate(final) if self.carried[i] and v in self.wanted
        }  # carries after the iteration
        trips = range(self.length)
        for trip in trips if self.equation.params["reverse"] else reversed(trips):
            needs = [self._stacks, *(self._passing[i] for i in want)]
            if trip in chosen:
                needs.append(self._tests)
            want = set[int]().union(*map(self._read, needs))
            claims = {i for n in needs for i in n.reads} | (
                self.claims if trip in chosen else set()
            )
            for claim in claims:
                found.setdefault(claim, set()).add(trip)
        return found


@dataclass(frozen=True, eq=False, kw_only=True)
class Layers:
    """The layers of a program.

    Attributes:
      program: the compiled function.
      names: of the layers, in order.
      scans: whose iterations are layers; none if layers are groups.
      groups: the claims of each layer, else; none if layers are iterations.
      always: indices of the claims that are part of every audit.
    """

    program: Specification = field(repr=False)
    names: tuple[str, ...]
    scans: tuple[LayerScan, ...]
    groups: tuple[frozenset[int], ...]
    always: frozenset[int]

    @staticmethod
    def of(program: Specification) -> Layers:
        """The layers of a program."""
        scans = _scans(program)
        every = frozenset(c.index for c in program.claims)
        if scans:
            names = [f"{s.equation.name}[{i}]" for s in scans for i in range(s.length)]
            always = every.difference(*(s.claims for s in scans))
            return Layers(
                program=program, names=tuple(names), scans=scans, groups=(), always=always
            )
        groups: dict[str, set[int]] = {}
        for claim in program.claims:
            name = _scope(claim.name)
            if name is not None:
                groups.setdefault(name, set()).add(claim.index)
        if len(groups) < 2:
            groups = {c.name: {c.index} for c in program.claims}
        return Layers(
            program=program,
            names=tuple(groups),
            scans=(),
            groups=tuple(map(frozenset, groups.values())),
            always=every.difference(*groups.values()),
        )

    def tested(self, layers: Sequence[int]) -> dict[int, Trips]:
        """The claims that an audit of some layers tests, and their iterations."""
        found: dict[int, Trips] = dict.fromkeys(self.always)
        for scan in self.scans:
            chosen = frozenset(scan.chosen(layers))
            if chosen:
                found |= dict.fromkeys(scan.claims, chosen)
        for i in layers if self.groups else ():
            found |= dict.fromkeys(self.groups[i])
        return found

    @cached_property
    def whole(self) -> operands.Needs:
        """What the outputs and all claims need."""
        block, analysis = self.program.function.block, self.program.analysis
        every = (c.index for c in self.program.claims)
        return operands.needed(block, analysis, every, block.outputs)

    @cached_property
    def base(self) -> operands.Needs:
        """What the outputs, and the claims of every audit, need."""
        block, analysis = self.program.function.block, self.program.analysis
        return operands.needed(block, analysis, self.always, block.outputs)

    def of_group(self, layer: int) -> operands.Needs:
        """What the claims of a layer that is a group need."""
        block, analysis = self.program.function.block, self.program.analysis
        return operands.needed(block, analysis, self.groups[layer])

    def opened(self, layers: Sequence[int]) -> Opened:
        """The tensors that an audit of some layers reads, and the iterations of each."""
        count = len(self.program.claims)
        found: dict[int, Trips] = dict.fromkeys(range(count, len(self.program.layout.tensors)))
        inside = frozenset[int]().union(*(s.claims for s in self.scans))
        found |= dict.fromkeys(self.base.reads - inside)
        for i in layers if self.groups else ():
            found |= dict.fromkeys(self.of_group(i).reads)
        for scan in self.scans:
            found |= {i: frozenset(t) for i, t in scan.opened(scan.chosen(layers)).items()}
        return found

    def leaves(self, layers: Sequence[int]) -> tuple[int, ...]:
        """The leaves that hold what an audit of some layers reads, ascending."""
        layout, claims = self.program.layout, self.program.claims
        found: set[int] = set()
        for tensor, trips in self.opened(layers).items():
            length = claims[tensor].trips[0] if trips is not None else 1
            for start, stop in _rows(layout, tensor, trips, length):
                found.update(range(layout.leaf(tensor, start), layout.leaf(tensor, stop - 1) + 1))
        return tuple(sorted(found))


def _rows(layout: Layout, tensor: int, trips: Trips, length: int) -> Iterable[tuple[int, int]]:
    """Where the rows of some iterations of a tensor begin and end."""
    found = layout.tensors[tensor]
    if not found.leaves:
        return
    each, rest = divmod(found.rows, length)
    if trips is None or rest or len(found.shape) < 2:
        yield 0, found.rows
        return
    for trip in trips:
        yield trip * each, (trip + 1) * each


def _scans(program: Specification) -> tuple[LayerScan, ...]:
    block, analysis = program.function.block, program.analysis
    every = (c.index for c in program.claims)
    read = operands.needed(block, analysis, every, block.outputs).variables
    found: list[LayerScan] = []
    for equation in layered(program.function, analysis):
        wanted = frozenset(v for v in equation.outputs if v in read)
        first = sum(s.length for s in found)
        found.append(LayerScan(equation=equation, analysis=analysis, first=first, wanted=wanted))
    return tuple(found)


def _scope(name: str) -> str | None:
    """The numbered scope of a claim, with those around it; None if it has none."""
    parts = name.split("/")[:-1]
    for i, part in enumerate(parts):
        if _NUMBERED.search(part):
            return "/".join(parts[: i + 1])
    return None


def work(program: Specification, tested: Mapping[int, Trips]) -> int:
    """Operations of the contractions that an audit tests."""
    claims = program.claims
    found = 0
    for index, trips in tested.items():
        claim = claims[index]
        every = math.prod(claim.trips)
        part = every if trips is None else every // claim.trips[0] * len(trips)
        found += claim.form.work * part
    return found
