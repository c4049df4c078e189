"""Layers that are groups of claims: in which rows of the job each of them can be tested.

The rows of such a layer are the indices along an axis of the job's inputs, such as tokens or
examples. Forwards from there, values have the same rows as far as the rules of tiles show it
(`rows`), through all layers before: so one draw of rows holds for all layers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from verifiable.check.analysis.partition import Analysis
from verifiable.check.partial.row_test import RowTest
from verifiable.check.partial.rows import RowPlan, aligned, pull
from verifiable.check.tiling.rules import Cut
from verifiable.jaxpr.blocks import Block
from verifiable.trace import Layout


@dataclass(frozen=True, eq=False, kw_only=True)
class GroupRows:
    """How groups of claims are tested in some rows.

    Attributes:
      length: rows of the job, T.
      plans: of the layers with claims that are tested in some rows, by number.
    """

    length: int
    plans: Mapping[int, RowPlan] = field(repr=False)

    @staticmethod
    def of(block: Block, analysis: Analysis, groups: Sequence[Collection[int]]) -> GroupRows | None:
        """The rows along the axis of an input in which most of the arithmetic can be tested.

        Of several, those of the first input and axis; None if no input shows any.

        Args:
          block: the outermost block.
          analysis: of the function.
          groups: indices of the claims of each layer.
        """
        inside = frozenset[int]().union(*groups)
        found: list[tuple[int, list[RowTest], int, int]] = []
        for axis, length in dict.fromkeys(_axes(block, analysis)):
            tests = [t for t in _tests(block, analysis, axis, length) if t.claim.index in inside]
            found.append((sum(t.claim.form.work for t in tests), tests, axis, length))
        work, tests, axis, length = max(found, key=lambda x: x[0], default=(0, [], 0, 0))
        if not work:
            return None
        plans: dict[int, RowPlan] = {}
        for layer, claims in enumerate(groups):
            own = tuple(t for t in tests if t.claim.index in claims)
            beside = frozenset(claims) - {t.claim.index for t in own}
            if own:
                plans[layer] = RowPlan(
                    body=block,
                    analysis=analysis,
                    axis=axis,
                    length=length,
                    tests=own,
                    beside=beside,
                    pulled=pull(block, analysis, (), own, beside),
                )
        return GroupRows(length=length, plans=plans)

    def groups(
        self, layout: Layout, block: int, whole: Collection[int]
    ) -> dict[int, tuple[int, int]]:
        """Rows of a leaf, and of a group, by index of the claim, as `LayerScan.groups`.

        Args:
          layout: in which claims are not in groups.
          block: rows of a block.
          whole: indices of the claims that every audit reads whole, which keep their leaves.
        """
        found: dict[int, tuple[int, int]] = {}
        for plan in self.plans.values():
            for test in plan.tests:
                tensor = layout.tensors[test.claim.index]
                if tensor.leaves and len(tensor.shape) > 1 and test.claim.index not in whole:
                    found[test.claim.index] = test.leaves(tensor.shape, block)
        for plan in self.plans.values():
            for index in found.keys() & plan.pulled.needs.reads:
                found[index] = layout.tensors[index].rows, layout.tensors[index].rows
        return found


def _axes(block: Block, analysis: Analysis) -> Iterator[tuple[int, int]]:
    for v in block.inputs:
        if not analysis.facts[v].known:
            yield from ((axis, length) for axis, length in enumerate(v.shape) if length > 1)


def _tests(block: Block, analysis: Analysis, axis: int, length: int) -> list[RowTest]:
    """The claims of a block that are tested in the rows along an axis of its inputs."""
    inputs = [v for v in block.inputs if not analysis.facts[v].known]
    start = {v: Cut(axis) for v in inputs if v.shape[axis : axis + 1] == (length,)}
    have = aligned(block, analysis, start, length)
    top = [analysis.by_equation[e] for e in block.equations if e in analysis.by_equation]
    tests = (RowTest.of(c, have[c.output]) for c in top if c.output in have)
    return [t for t in tests if t is not None]
