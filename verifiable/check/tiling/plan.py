"""Tile planning: which equations are evaluated inside the tiles of which claim.

`plan` goes backwards through a block. A value that is needed to test a claim, and whose primitive
has a rule (`rules`), is computed *inside* the tiles of that claim, unless other equations or claims
need it too, as they need a residual stream: then it is computed once, outside the tiles, and sliced
for each tile. A value that depends only on claims, inputs and known values (an added bias, a mask)
costs next to nothing and is computed wherever it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from verifiable.check.analysis.partition import Analysis
from verifiable.check.schedule import Strategy
from verifiable.check.tiling.columns import Columns
from verifiable.check.tiling.rules import Cut, Cuts, Step, step, untransposed
from verifiable.claims.claim import Claim
from verifiable.claims.contraction import Contraction
from verifiable.jaxpr.blocks import Atom, Block, Equation, Var


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The equations that are evaluated inside the tiles of a claim.

    Attributes:
      near: how the tiles cut the near operand: along its rows, or along columns, over which the
        contraction sums.
      length: number of indices that the tiles share: rows along the axes of
        `Contraction.row_axes`, or groups of columns.
      size: indices in a tile.
      rows: rows in a tile of the comparison with the claim, which follows where tiles are made of
        columns.
      steps: equations in order, with the cuts of their outputs and inputs.
      cuts: values from outside, with their cuts.
    """

    near: Cut
    length: int
    size: int
    rows: int
    steps: tuple[Step, ...]
    cuts: tuple[tuple[Var, Cut], ...]


@dataclass(frozen=True, slots=True)
class TilingPlan:
    """Regions by index of the claim, and the equations that are evaluated nowhere else."""

    regions: Mapping[int, Region] = field(default_factory=dict)
    inside: frozenset[Equation] = frozenset()


def plan(
    block: Block,
    analysis: Analysis,
    wanted: Sequence[Atom],
    strategy: Strategy,
    tested: Collection[int],
) -> TilingPlan:
    """Plan the tiles of the claims that a block holds directly.

    Args:
      block: as `replay.check` walks it.
      analysis: of the whole function.
      wanted: values of the block that are needed besides the tests.
      strategy: for the sizes of the tiles.
      tested: indices of the claims that are tested.
    """
    if not strategy.tile_bytes:
        return TilingPlan()
    return _Planner.of(block, analysis, strategy, tested).plan(wanted)


@dataclass(slots=True)
class _Tiles:
    """The tiles of one claim while they are planned, with the steps in reverse order.

    Attributes:
      rows: length of the axis of the output along which tiles cut the claim.

    The others are of the claim and of its `Region`.
    """

    claim: Claim
    form: Contraction
    near: Cut
    rows: int
    steps: list[Step] = field(default_factory=list)


@dataclass(slots=True)
class _Planner:
    """Goes backwards through a block and collects where each value is needed.

    Attributes:
      block: the block.
      strategy: for the sizes of the tiles.
      claims: the claims of the block and of those inside it, by equation.
      tested: indices of the claims that are tested.
      makers: by value, the equation that computes it, of those that the check evaluates.
      outside: equations that are never evaluated in tiles.
      tiles: by index of the claim, its tiles.
      whole: values that are needed whole.
      pieces: values that are needed in tiles: by index of the claim, their cuts.
      inside: equations that are evaluated in tiles only.
    """

    block: Block
    strategy: Strategy
    claims: Mapping[Equation, Claim]
    tested: Collection[int]
    makers: Mapping[Var, Equation]
    outside: Collection[Equation]
    tiles: dict[int, _Tiles] = field(default_factory=dict)
    whole: set[Var] = field(default_factory=set)
    pieces: dict[Var, dict[int, set[Cut]]] = field(default_factory=dict)
    inside: set[Equation] = field(default_factory=set)

    @staticmethod
    def of(
        block: Block, analysis: Analysis, strategy: Strategy, tested: Collection[int]
    ) -> _Planner:
        claims, equations = analysis.by_equation, block.equations
        evaluated = [e for e in equations if e not in claims and not analysis.known(e)]
        return _Planner(
            block=block,
            strategy=strategy,
            claims=claims,
            tested=tested,
            makers={v: e for e in evaluated for v in e.outputs},
            outside={e for e in equations if _stays_outside(e, analysis)},
        )

    def plan(self, wanted: Sequence[Atom]) -> TilingPlan:
        self._need_whole(wanted)
        for equation in reversed(self.block.equations):
            claim = self.claims.get(equation)
            if claim is None and equation in self.outside:
                self._outside(equation)
            elif claim is None:
                self._replayed(equation)
            else:
                self._need_whole(claim.feeds)
                if claim.index in self.tested:
                    self._claim(claim)
        regions = {index: self._region(tiles) for index, tiles in self.tiles.items()}
        return TilingPlan(regions, frozenset(self.inside))

    def _need_whole(self, atoms: Iterable[Atom]) -> None:
        self.whole.update(a for a in atoms if isinstance(a, Var))

    def _need_pieces(self, index: int, atoms: Sequence[Atom], cuts: Cuts) -> None:
        for atom, cut in zip(atoms, cuts, strict=True):
            if cut is None:
                self._need_whole([atom])
            elif isinstance(atom, Var):
                self.pieces.setdefault(atom, {}).setdefault(index, set()).add(cut)

    def _outside(self, equation: Equation) -> None:
        self._need_whole(equation.inputs)
        for body in equation.bodies:
            self._need_whole(body.outputs)
            for inner in body.walk():
                self._need_whole(inner.inputs)
                for nested in inner.bodies:
                    self._need_whole(nested.outputs)

    def _claim(self, claim: Claim) -> None:
        form = claim.form.contraction
        axes = None if form is None else form.row_axes()
        if form is None or axes is None:
            self._need_whole(claim.reads)
            return
        self._need_whole(claim.reads[1:])
        columns = None
        if self.strategy.column_bytes:
            columns = Columns(self.makers, self.outside).cut(claim.near, form)
        near = columns or Cut(axes[0])
        self.tiles[claim.index] = _Tiles(claim, form, near, rows=form.shapes[2][axes[1]])
        self._need_pieces(claim.index, [claim.near], (near,))

    def _replayed(self, equation: Equation) -> None:
        """Place a replayed equation inside tiles, outside of them, or both."""
        outputs = equation.outputs
        free = self.makers.keys().isdisjoint(a for a in equation.inputs if isinstance(a, Var))
        whole = [v for v in outputs if v in self.whole]
        users = self._users([v for v in outputs if free or v not in self.whole], equation)
        if users is None or (len(users) > 1 and not free):
            whole, users = list(outputs), {}
        if whole:
            self._need_whole([*whole, *equation.inputs])
        else:
            self.inside.add(equation)
        for index, steps in users.items():
            self.tiles[index].steps += steps
            for found in steps:
                self._need_pieces(index, found.equation.inputs, found.sources)

    def _users(self, outputs: Sequence[Var], equation: Equation) -> dict[int, list[Step]] | None:
        """The steps that compute the outputs in tiles, by index of the claim that needs them.

        None if the equation cannot be cut as a claim needs it. A claim may need several pieces of
        an equation side by side, such as queries, keys and values of a head, but not along
        different axes.
        """
        found: dict[int, list[Step]] = {}
        for v in outputs:
            for index, cuts in self.pieces.get(v, {}).items():
                for cut in sorted(cuts):
                    new = step(untransposed(equation, self.makers), v, cut)
                    if new is None:
                        return None
                    found.setdefault(index, []).append(new)
        ways = [{(s.cut.axis, s.cut.unit) for s in steps} for steps in found.values()]
        return found if all(len(way) == 1 for way in ways) else None

    def _region(self, tiles: _Tiles) -> Region:
        claim, form, near = tiles.claim, tiles.form, tiles.near
        steps = tiles.steps[::-1]
        made = {v for s in steps for v in s.equation.outputs}
        cuts = [
            (v, cut)
            for v, by_claim in self.pieces.items()
            for cut in sorted(by_claim.get(claim.index, ()))
            if v not in made
        ]
        # Near operand and claim are converted to float64; only rows cut the claim too.
        by_rows = near.axis not in form.contracted_axes()
        operand, output = (8 * math.prod(s) for s in (form.shapes[form.near], form.shapes[2]))
        values = (v.nbytes for s in steps for v in s.equation.outputs)
        widest = max([operand, output if by_rows else 0, *values])
        length = claim.near.shape[near.axis] // near.unit
        most = self.strategy.tile_bytes
        column_bytes = min(most, self.strategy.column_bytes)
        return Region(
            near=near,
            length=length,
            size=tile_size(length, widest, most if by_rows else column_bytes),
            rows=tile_size(tiles.rows, output, most),
            steps=tuple(steps),
            cuts=tuple(cuts),
        )


def _stays_outside(equation: Equation, analysis: Analysis) -> bool:
    """Whether an equation is never evaluated in tiles: loops, effects, values that a key holds."""
    rebuilt = analysis.rebuilt.intersection(equation.outputs)
    known = analysis.known(equation) and not rebuilt
    return known or bool(equation.bodies) or bool(getattr(equation.origin, "effects", None))


def tile_size(length: int, nbytes: int, tile_bytes: int) -> int:
    """Indices in a tile, a divisor of their number if one is near.

    Args:
      length: number of indices.
      nbytes: size of the largest value over all indices.
      tile_bytes: approximate size of that value in a tile; 0 for no tiles.
    """
    if length <= 1 or not tile_bytes or nbytes <= tile_bytes:
        return length
    most = max(1, length * tile_bytes // nbytes)
    divisors = [n for n in range(-(-most // 2), most + 1) if length % n == 0]
    return max(divisors, default=most)
