"""Scans whose iterations are layers: what a test of some iterations reads, and in which rows.

What leads to the carry before an iteration is found backwards, iteration by iteration: without
cuts, the claims that enter the carry in each iteration before; with cuts (`analysis.cuts`), the cut
of the iteration before, alone. Where only some rows of an iteration are tested (`rows`), the same
goes for rows: of the cut before it, the rows that its tests read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from verifiable.check.analysis.partition import Analysis
from verifiable.check.partial.row_test import Indices
from verifiable.check.partial.rows import Pulled, RowPlan, pull
from verifiable.check.replay.needed import Needs, needed
from verifiable.check.tiling.rules import Cut
from verifiable.jaxpr.blocks import Block, Equation, Var
from verifiable.jaxpr.effects import CUT
from verifiable.trace import Layout

Part = frozenset[tuple[Cut, Indices]] | None  # in which rows something is read; None if whole


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
    _pulls: dict[tuple[int, Cut], Pulled] = field(default_factory=dict, repr=False)

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

    def rows_of(self, layers: Sequence[int], rows: Sequence[Indices]) -> dict[int, Indices]:
        """By iteration, the rows in which it is tested; empty if all are.

        Args:
          layers: numbers of the audited layers.
          rows: of each; empty if all are tested in all.
        """
        plan, pairs = self.rows, zip(layers, rows, strict=False)
        own = {i - self.first: r for i, r in pairs if 0 <= i - self.first < self.length}
        some = plan is not None and any(len(r) < plan.length for r in own.values())
        return own if some else {}

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
    def _tests(self) -> Needs:
        return needed(self.body, self.analysis, self.claims)

    @cached_property
    def _passing(self) -> tuple[Needs, ...]:
        """What each carry that an iteration passes on needs of it; known ones need nothing."""
        outputs = zip(self.body.outputs, self.carried, strict=False)
        return tuple(
            needed(self.body, self.analysis, (), [a] if unknown else []) for a, unknown in outputs
        )

    @cached_property
    def passes(self) -> Needs:
        """What all that an iteration passes on or stacks needs of it."""
        flags = (*self.carried, *self.stacked)
        outputs = [a for a, unknown in zip(self.body.outputs, flags, strict=True) if unknown]
        return needed(self.body, self.analysis, (), outputs)

    @cached_property
    def _stacks(self) -> Needs:
        outputs = self.body.outputs[len(self.carried) :]
        wanted = [a for a, unknown in zip(outputs, self.stacked, strict=True) if unknown]
        return needed(self.body, self.analysis, (), wanted)

    def _read(self, needs: Needs) -> set[int]:
        """The carries that something in an iteration reads."""
        inputs = enumerate(zip(self.body.inputs, self.carried, strict=False))
        return {i for i, (v, unknown) in inputs if unknown and v in needs.variables}

    @cached_property
    def rows(self) -> RowPlan | None:
        """How an iteration is tested in some rows; None if it shows none."""
        return RowPlan.of(self.body, self.analysis, self.carries)

    @cached_property
    def cuts(self) -> bool:
        """Whether an iteration is replayed from a cut, so that its rows are drawn by themselves."""
        return any(c.primitive == CUT for c in self.analysis.claims_in(self.body))

    @cached_property
    def direct(self) -> tuple[int, ...] | None:
        """The cut that each carry is passed on as, by index of the claim; None if one is not.

        Then what enters an iteration is committed as it is, and no iteration before is replayed.
        """
        found: list[int] = []
        for atom in itertools.compress(self.body.outputs, self.carried):
            maker = next((e for e in self.body.equations if atom in e.outputs), None)
            claim = None if maker is None else self.analysis.by_equation.get(maker)
            if claim is None or claim.primitive != CUT:
                return None
            found.append(claim.index)
        return tuple(found) if found and not any(self.stacked) else None

    def before(self, trips: Sequence[int]) -> tuple[int, ...]:
        """The iterations whose carries enter some iterations; of the first, any."""
        step = 1 if self.equation.params["reverse"] else -1
        return tuple(min(max(t + step, 0), self.length - 1) for t in trips)

    @property
    def first_trip(self) -> int:
        """The iteration that runs first."""
        return self.length - 1 if self.equation.params["reverse"] else 0

    @cached_property
    def carries(self) -> tuple[Var, ...]:
        """The carries that depend on the job, as inputs of the body."""
        return tuple(itertools.compress(self.body.inputs, self.carried))

    def groups(self, layout: Layout, block: int) -> dict[int, tuple[int, int]]:
        """Rows of a leaf, and of the groups that leaves begin anew with, by index of the claim.

        Leaves begin anew with every iteration. Of a claim that is read in some rows, a leaf holds a
        block of them; one that is read whole is one leaf.

        Args:
          layout: in which claims are not in groups.
          block: rows of a block.
        """
        found: dict[int, tuple[int, int]] = {}
        whole = frozenset[int]() if self.rows is None else self.rows.pulled.needs.reads
        tests = {t.claim.index: t for t in self.rows.tests} if self.rows else {}
        for claim in self.analysis.claims_in(self.body):
            tensor = layout.tensors[claim.index]
            each, test = tensor.rows // self.length, tests.get(claim.index)
            if not tensor.leaves or len(tensor.shape) < 2:
                continue
            found[claim.index] = min(tensor.rows_per_leaf, each), each
            if claim.index in whole:
                found[claim.index] = each, each
            elif test is not None:
                found[claim.index] = test.leaves(tensor.shape[1:], block)
        return found

    def _pulled(self, carry: int, cut: Cut) -> Pulled:
        """What some rows of a carry that an iteration passes on need of it."""
        if (carry, cut) not in self._pulls:
            wanted = [(self.body.outputs[carry], cut)]
            self._pulls[carry, cut] = pull(self.body, self.analysis, wanted)
        return self._pulls[carry, cut]

    def opened(
        self,
        chosen: Sequence[int],
        rows: Mapping[int, Indices] = MappingProxyType({}),
        ends: Mapping[Var, frozenset[Cut] | None] = MappingProxyType({}),
    ) -> dict[int, dict[int, Part]]:
        """What tests of some iterations, and what follows, read of each claim.

        Args:
          chosen: the iterations.
          rows: those that are tested, by iteration; all by default.
          ends: where the last carries are read; whole by default.
        """
        found: dict[int, dict[int, Part]] = {}
        final = self.equation.outputs[: len(self.carried)]
        want: dict[int, Part] = {}  # carries after the iteration
        for i, v in enumerate(final):
            if self.carried[i] and v in self.wanted:
                cuts = ends.get(v)
                want[i] = None if cuts is None else frozenset((cut, (0,)) for cut in cuts)
        trips = range(self.length)
        carries = {v: i for i, v in enumerate(self.body.inputs[: len(self.carried)])}
        for trip in trips if self.equation.params["reverse"] else reversed(trips):
            whole = [self._stacks, *(self._passing[i] for i, part in want.items() if part is None)]
            some = [
                (self._pulled(i, cut), rows) for i, part in want.items() for cut, rows in part or ()
            ]
            claims = set[int]()
            if trip in chosen and self.rows is not None and trip in rows:
                some.append((self.rows.pulled, rows[trip]))
                claims.update(self.rows.beside)
            elif trip in chosen:
                whole.append(self._tests)
                claims.update(self.claims)
            whole += [pulled.needs for pulled, _ in some]
            want = dict.fromkeys(set[int]().union(*map(self._read, whole)))
            claims.update(i for n in whole for i in n.reads)
            for pulled, indices in some:
                for i, cuts in pulled.claims.items():
                    _add(found.setdefault(i, {}), trip, cuts, indices)
                for v, cuts in pulled.inputs.items():
                    if v in carries and self.carried[carries[v]]:
                        _add(want, carries[v], cuts, indices)
            for claim in claims:
                found.setdefault(claim, {})[trip] = None
        return found


def _add(parts: dict[int, Part], at: int, cuts: Iterable[Cut], rows: Indices) -> None:
    """Add rows to what is read at some place."""
    before = parts.get(at, frozenset())
    parts[at] = None if before is None else before | {(cut, rows) for cut in cuts}
