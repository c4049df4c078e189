"""The layers of a program, and what a test of some of them reads.

A layer is an iteration of an outermost scan that holds claims; without such scans, the claims of a
numbered scope, such as `block_3`; without these, one claim. Claims of no layer are part of every
audit, and so are the outputs.

A test of an iteration reads all claims of that iteration, and the carry before it (`scans`); or
some rows of them (`rows`).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from verifiable.check.analysis.cuts import layered
from verifiable.check.partial.after_layers import read_of
from verifiable.check.partial.before_layers import LeadIn
from verifiable.check.partial.groups import GroupRows
from verifiable.check.partial.row_test import Indices, RowsTested, places_of
from verifiable.check.partial.rows import RowPlan
from verifiable.check.partial.scans import LayerScan, Part
from verifiable.check.replay.needed import Needs, needed
from verifiable.check.specification import Specification
from verifiable.check.tiling.rules import Cut
from verifiable.jaxpr.blocks import Var
from verifiable.trace import TensorLayout
from verifiable.trace.audit_plan import drawn_rows

Trips = frozenset[int] | None  # iterations of the outermost scan around a claim; None for all
Opened = Mapping[int, Mapping[int, Part] | None]  # by index of the tensor, by iteration; None: all

_NUMBERED = re.compile(r"\d\W*$")  # the end of a scope such as `layers_3`, or `vmap(layers_3)`


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

    @cached_property
    def in_scans(self) -> frozenset[int]:
        """Indices of the claims of all scans whose iterations are layers."""
        return frozenset[int]().union(*(s.claims for s in self.scans))

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
    def whole(self) -> Needs:
        """What the outputs and all claims need."""
        block, analysis = self.program.function.block, self.program.analysis
        every = (c.index for c in self.program.claims)
        return needed(block, analysis, every, block.outputs)

    @cached_property
    def base(self) -> Needs:
        """What the outputs, and the claims of every audit, need."""
        block, analysis = self.program.function.block, self.program.analysis
        return needed(block, analysis, self.always, block.outputs)

    def of_group(self, layer: int) -> Needs:
        """What the claims of a layer that is a group need."""
        block, analysis = self.program.function.block, self.program.analysis
        return needed(block, analysis, self.groups[layer])

    @cached_property
    def most_rows(self) -> int:
        """The most rows that a layer has, T; 1 if no layer shows any."""
        if self.group_rows is not None:
            return self.group_rows.length
        return max((s.rows.length for s in self.scans if s.rows is not None), default=1)

    @cached_property
    def group_rows(self) -> GroupRows | None:
        """How layers that are groups are tested in some rows; None if they show none."""
        block, analysis = self.program.function.block, self.program.analysis
        return GroupRows.of(block, analysis, self.groups) if self.groups else None

    def plan_of(self, layer: int, rows: Indices) -> RowPlan | None:
        """How a layer that is a group is tested in some rows; None if it is in all.

        Args:
          layer: its number.
          rows: those that are audited; none for all.
        """
        return self.group_rows.plans.get(layer) if self.group_rows and rows else None

    @cached_property
    def entries(self) -> Mapping[LayerScan, LeadIn]:
        """The claims of no layer that are tested in rows, by the scan that they lead into."""
        block, analysis = self.program.function.block, self.program.analysis
        scans = (s for s in self.scans if s.rows is not None)
        found = {s: LeadIn.of(block, analysis, s, self.always) for s in scans}
        return {s: entry for s, entry in found.items() if entry.claims}

    def entering(self, seed: bytes, count: int | None) -> dict[LayerScan, Indices]:
        """The rows in which these claims are tested: those of the first layer of the scan.

        Args:
          seed: of the plan.
          count: as of `rows`.
        """
        return dict(self._entering(seed, count))

    @cached_property
    def _entering(self) -> Callable[[bytes, int | None], Mapping[LayerScan, Indices]]:
        """The last draws: plan and verdict need the same."""

        @functools.lru_cache(maxsize=256)
        def entering(seed: bytes, count: int | None) -> Mapping[LayerScan, Indices]:
            if count is None or count >= self.most_rows:
                return {}
            drawn = {s: self._drawn(seed, s.first + s.first_trip, count) for s in self.entries}
            return {s: r for s, r in drawn.items() if s.rows is not None and len(r) < s.rows.length}

        return entering

    def rows(self, seed: bytes, layers: Sequence[int], count: int | None) -> tuple[Indices, ...]:
        """The rows in which some layers are tested; empty if all are tested in all.

        Args:
          seed: of the plan.
          layers: numbers of the layers.
          count: number of rows, r; None for all. A layer that has no more is tested in all.
        """
        if count is None or count >= self.most_rows:
            return ()
        return tuple(self._drawn(seed, layer, count) for layer in layers)

    def _drawn(self, seed: bytes, layer: int, count: int) -> Indices:
        for scan in self.scans:
            if scan.chosen([layer]) and scan.rows is not None:
                number, block = layer if scan.cuts else None, self.program.row_block or 1
                sure = self.answer_blocks(scan, count)
                return drawn_rows(seed, number, scan.rows.length, count, block=block, sure=sure)
        if self.group_rows is not None and layer in self.group_rows.plans:
            block = self.program.row_block or 1
            return drawn_rows(seed, None, self.group_rows.length, count, block=block)
        return ()

    def answer_blocks(self, scan: LayerScan, count: int) -> tuple[int, ...]:
        """The blocks of rows of a layer that the answer follows from; none if they are many.

        Args:
          scan: with the layer.
          count: number of rows that are audited, r: more than the blocks may have.
        """
        ends, rows, block = self._ends[scan], scan.rows, self.program.row_block or 1
        found: set[int] = set()
        for v, cuts in ends.items():
            if rows is None or cuts is None or any(cut.axis != rows.axis for cut in cuts):
                return ()
            if v.shape[rows.axis] != rows.length:  # what is read of it are no rows of a layer
                return ()
            for cut in cuts:
                found.update(n // block for n in range(cut.offset, cut.offset + cut.unit))
        return tuple(sorted(found)) if len(found) * block < count else ()

    def most_answer_rows(self, count: int) -> int:
        """Rows of these blocks in the layer that has the most; so many fewer of r are drawn."""
        block = self.program.row_block or 1
        return max((len(self.answer_blocks(s, count)) for s in self.scans), default=0) * block

    def parts(
        self,
        layers: Sequence[int],
        rows: Sequence[Indices],
        entering: Mapping[LayerScan, Indices] = MappingProxyType({}),
    ) -> dict[int, RowsTested]:
        """The claims that an audit tests in some rows, by index.

        Args:
          layers: numbers of the audited layers.
          rows: of each; empty if all are tested in all.
          entering: see the method.
        """
        found: dict[int, RowsTested] = {}
        for scan, own in entering.items():
            for test in self.entries[scan].plan.tests:
                found[test.claim.index] = RowsTested(test=test, rows={0: own})
        for scan in self.scans:
            own = scan.rows_of(layers, rows)
            for test in scan.rows.tests if own and scan.rows is not None else ():
                found[test.claim.index] = RowsTested(test=test, rows=own)
        for layer, own in zip(layers, rows, strict=False):
            plan = self.plan_of(layer, own)
            for test in () if plan is None else plan.tests:
                found[test.claim.index] = RowsTested(test=test, rows={0: own})
        return found

    @cached_property
    def _ends(self) -> Mapping[LayerScan, Mapping[Var, frozenset[Cut] | None]]:
        """Which rows of the last carries of each scan the rest of the program reads."""
        block, analysis = self.program.function.block, self.program.analysis
        return {
            s: {}
            if s.rows is None
            else read_of(block, analysis, s.equation.outputs, self.always, s.rows.axis)
            for s in self.scans
        }

    def opened(
        self,
        layers: Sequence[int],
        rows: Sequence[Indices] = (),
        entering: Mapping[LayerScan, Indices] = MappingProxyType({}),
    ) -> Opened:
        """What an audit of some layers, in some rows, reads of the tensors of a layout.

        Arguments as of `parts`.
        """
        count = len(self.program.claims)
        found: dict[int, Mapping[int, Part] | None] = dict.fromkeys(
            range(count, len(self.program.layout.tensors))
        )
        found |= dict.fromkeys(self.base.reads - self.in_scans)
        for scan, own in entering.items():
            entry = self.entries[scan]
            for pulled in (entry.plan.pulled, entry.carries):
                for i in pulled.claims.keys() & entry.claims:
                    found[i] = _with(found[i] or {}, pulled.claims[i], own)
        for n, layer in enumerate(layers if self.groups else ()):
            own = rows[n] if rows else ()
            plan = self.plan_of(layer, own)
            whole = self.of_group(layer).reads if plan is None else plan.pulled.needs.reads
            found |= dict.fromkeys(whole)
            for i, cuts in {} if plan is None else plan.pulled.claims.items():
                before = found.get(i, {})
                found[i] = None if before is None else _with(before, cuts, own)
        for scan in self.scans:
            ends = self._ends[scan] if rows or self.program.row_block else {}
            found |= scan.opened(scan.chosen(layers), scan.rows_of(layers, rows), ends)
        return found

    def leaves(
        self,
        layers: Sequence[int],
        rows: Sequence[Indices] = (),
        entering: Mapping[LayerScan, Indices] = MappingProxyType({}),
    ) -> tuple[int, ...]:
        """The leaves that hold what an audit reads, ascending; arguments as of `parts`."""
        layout, found = self.program.layout, [np.empty(0, np.int64)]
        for tensor, parts in self.opened(layers, rows, entering).items():
            own = layout.tensors[tensor]
            shape = own.shape if tensor in self.in_scans else (1, *own.shape)
            if own.leaves:
                found += [layout.leaf(tensor, 0) + x for x in _leaves(own, shape, parts)]
        return tuple(np.unique(np.concatenate(found)).tolist())


def _with(parts: Mapping[int, Part], cuts: Iterable[Cut], rows: Indices) -> Mapping[int, Part]:
    """What is read of a claim of no scan, with some rows more."""
    return {0: (parts.get(0) or frozenset()) | {(cut, rows) for cut in cuts}}


def _leaves(
    found: TensorLayout, shape: Sequence[int], parts: Mapping[int, Part] | None
) -> Iterator[np.ndarray[Any, Any]]:
    """The leaves of a tensor that are read, from 0; some more than once.

    Args:
      found: the tensor.
      shape: its shape, of which the first axis counts iterations.
      parts: what is read of each iteration; None if all is.
    """
    if parts is None or len(shape) < 2:
        yield np.arange(found.leaves)
        return
    each, inner = found.rows // shape[0], shape[1:-1]
    whole: list[int] = []
    pieces: dict[tuple[Cut, int], list[tuple[int, Indices]]] = {}
    for trip, part in parts.items():
        if part is None or any(cut.axis >= len(inner) for cut, _ in part):
            whole.append(trip)
            continue
        for cut, rows in part:
            pieces.setdefault((cut, len(rows)), []).append((trip, rows))
    for trip in whole:
        yield np.arange(found.leaf(trip * each), found.leaf(trip * each + each - 1) + 1)
    for (cut, _), some in pieces.items():
        trips, rows = (np.asarray(x, np.int64) for x in zip(*some, strict=True))
        yield found.leaf(places_of(shape, trips, cut, rows).ravel())


def _scans(program: Specification) -> tuple[LayerScan, ...]:
    block, analysis = program.function.block, program.analysis
    every = (c.index for c in program.claims)
    read = needed(block, analysis, every, block.outputs).variables
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


def work(
    program: Specification,
    tested: Mapping[int, Trips],
    parts: Mapping[int, RowsTested] = MappingProxyType({}),
) -> int:
    """Operations of the contractions that an audit tests.

    Args:
      program: the compiled function.
      tested: the claims, and their iterations.
      parts: of those that are tested in some rows, the rows.
    """
    claims = program.claims
    found = 0
    for index, trips in tested.items():
        claim = claims[index]
        every = math.prod(claim.trips)
        if index in parts:
            found += parts[index].form.work * len(parts[index].rows)
            continue
        share = every if trips is None else every // claim.trips[0] * len(trips)
        found += claim.form.work * share
    return found
