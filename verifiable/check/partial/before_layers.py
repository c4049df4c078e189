"""What leads into the first layer: claims before a scan of layers that are tested in some rows.

Rows of the first carry, such as tokens, often come from the same rows of claims of no layer, such
as the rows of an embedding that the job's tokens look up. Where nothing else reads them, an audit
in rows tests these claims in the rows of the first layer, whether that layer is audited or not.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from verifiable.check.analysis.partition import Analysis
from verifiable.check.partial.row_test import RowTest
from verifiable.check.partial.rows import Pulled, RowPlan, pull
from verifiable.check.partial.scans import LayerScan
from verifiable.check.replay.needed import needed
from verifiable.check.tiling.rules import Cut
from verifiable.jaxpr.blocks import Atom, Block, Var
from verifiable.jaxpr.graph import uses
from verifiable.trace import Layout

Wanted = list[tuple[Atom, Cut | None]]


@dataclass(frozen=True, eq=False, kw_only=True)
class LeadIn:
    """Claims before a scan of layers that are tested in rows.

    Attributes:
      plan: their tests.
      carries: what rows of the first carries need.
    """

    plan: RowPlan = field(repr=False)
    carries: Pulled = field(repr=False)

    @property
    def claims(self) -> frozenset[int]:
        """Indices of the claims."""
        return frozenset(t.claim.index for t in self.plan.tests)

    @staticmethod
    def of(block: Block, analysis: Analysis, scan: LayerScan, always: Collection[int]) -> LeadIn:
        """The claims that lead into a scan of layers; there may be none.

        Args:
          block: the outermost block.
          analysis: of the function.
          scan: with rows.
          always: indices of the claims of no layer.
        """
        if scan.rows is None:
            raise ValueError("a scan of layers without rows has no entry in rows")
        equations = list(itertools.takewhile(lambda e: e is not scan.equation, block.equations))
        before = Block(block.inputs, equations, ())
        wanted = _carries(scan, scan.rows.pulled)
        carries = pull(before, analysis, wanted)
        tests = list(_tests(before, analysis, carries, always)) if scan.direct else []
        left = -1
        while len(tests) != left:  # one that is tested whole may read others whole
            left, kept = len(tests), {t.claim.index for t in tests}
            read = _others(block, analysis, scan, wanted, {*always} - kept) | carries.needs.reads
            tests = [t for t in tests if t.claim.index not in read]
        plan = RowPlan(
            body=before,
            analysis=analysis,
            axis=scan.rows.axis,
            length=scan.rows.length,
            tests=tuple(tests),
            beside=frozenset(),
            pulled=pull(before, analysis, (), tests),
        )
        return LeadIn(plan=plan, carries=carries)

    def groups(self, layout: Layout, block: int) -> dict[int, tuple[int, int]]:
        """Rows of a leaf, and of a group, as `LayerScan.groups`."""
        found: dict[int, tuple[int, int]] = {}
        for test in self.plan.tests:
            tensor = layout.tensors[test.claim.index]
            if tensor.leaves and len(tensor.shape) > 1:
                found[test.claim.index] = test.leaves(tensor.shape, block)
        return found


def _carries(scan: LayerScan, pulled: Pulled) -> Wanted:
    """What enters the first layer, and where it is read."""
    found: Wanted = []
    pairs = zip(scan.equation.inputs, scan.body.inputs, strict=True)
    for atom, v in itertools.compress(pairs, scan.carried):
        if v in pulled.needs.variables:
            found.append((atom, None))
        else:
            found += [(atom, cut) for cut in sorted(pulled.inputs.get(v, ()))]
    return found


def _tests(
    before: Block, analysis: Analysis, carries: Pulled, always: Collection[int]
) -> Iterator[RowTest]:
    for equation in before.equations:
        claim = analysis.by_equation.get(equation)
        cuts = () if claim is None else carries.claims.get(claim.index, ())
        if claim is None or claim.index not in always or len(cuts) != 1:
            continue
        test = RowTest.of(claim, next(iter(cuts)))
        if test is not None and not _follows(before, analysis, test, always):
            yield test


def _follows(before: Block, analysis: Analysis, test: RowTest, always: Collection[int]) -> bool:
    """Whether a test reads what layers of an earlier scan pass on."""
    read = pull(before, analysis, (), [test]).needs.variables
    return any(
        c.index not in always
        for e in before.equations
        if any(v in read for v in e.outputs)
        for body in e.bodies
        for c in analysis.claims_in(body)
    )


def _others(
    block: Block, analysis: Analysis, scan: LayerScan, wanted: Wanted, claims: Collection[int]
) -> frozenset[int]:
    """The claims that all else reads: other claims of no layer, the answer, and all layers."""
    rows = {atom for atom, cut in wanted if cut is not None}
    inside = list(uses(scan.equation))[len(scan.equation.inputs) :]
    beside = [a for a in scan.equation.inputs if a not in rows]
    # A carry that is scanned or free in the body as well is read whole.
    beside += [a for a in scan.equation.inputs[len(scan.carried) :] if a in rows]
    rest = Block(block.inputs, [e for e in block.equations if e is not scan.equation], ())
    outputs: list[Atom] = [a for a in (*block.outputs, *inside, *beside) if isinstance(a, Var)]
    return needed(rest, analysis, claims, outputs).reads
