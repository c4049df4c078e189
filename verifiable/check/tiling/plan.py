"""Which part of a check goes into the tiles of which claim.

`plan` goes backwards through a block. A value that is needed to test a claim, and whose primitive
has a rule (`tiling_rules`), is computed *inside* the tiles of that claim. If later equations or
claims need it too, such as a residual stream, the tiles return it whole. What somebody needs
before is computed whole, and cut. What costs next to nothing, because it depends on claims, inputs
and known values alone (a bias added, a mask), is rather computed twice than kept.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from verifiable.check.partition import Analysis
from verifiable.check.tiling.rules import RULES, Cut, Cuts, batched, merged, untransposed
from verifiable.claims import freivalds
from verifiable.claims.claim import Claim
from verifiable.claims.contraction import Contraction
from verifiable.jaxpr.blocks import Atom, Block, Equation, Var

# An equation, which of its outputs, and the cuts of that and of the inputs.
Step = tuple[Equation, int, Cut, Cuts]

# Bytes of the largest value in a tile of columns: as few heads as keep XLA's threads from handing
# each other trifles. A single one needs no transposed copies.
COLUMNS = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """What is evaluated inside the tiles of a claim.

    Attributes:
      length: number of indices: of rows, along the axes of `Contraction.row_axes`, or of groups of
        columns.
      size: indices in a tile.
      near: how the tiles cut the near operand: along its rows, or along columns, which the
        contraction runs over.
      steps: equations in order, with the cuts of their outputs and inputs.
      cuts: values from outside, with their cuts.
      returned: values of the steps that are needed whole afterwards, with their cuts.
    """

    length: int
    size: int
    near: Cut
    steps: tuple[Step, ...]
    cuts: tuple[tuple[Var, Cut], ...]
    returned: tuple[tuple[Var, Cut], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Regions by index of the claim, and the equations that are evaluated nowhere else."""

    regions: Mapping[int, Region] = field(default_factory=dict)
    inside: frozenset[Equation] = frozenset()


def plan(
    block: Block,
    analysis: Analysis,
    wanted: Sequence[Atom],
    tile_bytes: int,
    tested: Collection[int],
) -> Plan:
    """Decide what of a block goes into the tiles of which claim.

    Args:
      block: as `verifier.check` walks it; not the blocks that it holds.
      analysis: of the whole function.
      wanted: values that are needed besides the tests.
      tile_bytes: about as large is the largest value of a tile; 0 for no tiles at all.
      tested: indices of the claims that are tested.
    """
    return _Planner(block, analysis, tile_bytes, tested).plan(wanted) if tile_bytes else Plan()


@dataclass(slots=True)
class _Planner:
    """Goes backwards through a block, and collects who needs which value."""

    block: Block
    analysis: Analysis
    tile_bytes: int
    tested: Collection[int]
    whole: dict[Var, int] = field(default_factory=dict)  # where it is first needed whole
    tiles: dict[Var, dict[int, set[Cut]]] = field(default_factory=dict)  # by claim
    steps: dict[int, list[Step]] = field(default_factory=dict)
    returned: dict[int, list[tuple[Var, Cut]]] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)  # of claims, in the block
    near: dict[int, Cut] = field(default_factory=dict)  # of claims
    length: dict[int, int] = field(default_factory=dict)  # of claims: how many tiles at most
    inside: set[Equation] = field(default_factory=set)
    makers: dict[Var, Equation] = field(default_factory=dict)  # of what is computed

    def plan(self, wanted: Sequence[Atom]) -> Plan:
        equations = self.block.equations
        self.makers = {v: e for e in equations if not self._given(e) for v in e.outputs}
        computed = self.makers.keys()
        self._need_whole(len(equations), wanted)
        claims: list[Claim] = []
        for place in reversed(range(len(equations))):
            equation = equations[place]
            claim = self.analysis.by_equation.get(equation)
            if claim is not None and claim.index not in self.tested:
                continue
            form = None if claim is None else claim.form.contraction
            if claim is not None and form is not None:
                self._claim(place, claim, form)
                claims.append(claim)
            elif claim is not None:
                self._need_whole(place, claim.reads)
            elif self._stays_outside(equation):
                self._need_whole(place, equation.inputs)
                for body in equation.bodies:
                    for inner in body.walk():
                        self._need_whole(place, inner.inputs)
                        for nested in inner.bodies:
                            self._need_whole(place, nested.outputs)
                    self._need_whole(place, body.outputs)
            else:
                free = computed.isdisjoint(a for a in equation.inputs if isinstance(a, Var))
                self._equation(place, equation, free)
        regions = {
            c.index: self._region(c, c.form.contraction)
            for c in claims
            if c.form.contraction is not None and c.index in self.steps
        }
        return Plan(regions, frozenset(self.inside))

    def _given(self, equation: Equation) -> bool:
        """Whether the check has the outputs of an equation without computing anything."""
        return equation in self.analysis.by_equation or self.analysis.known(equation)

    def _stays_outside(self, equation: Equation) -> bool:
        """Whether an equation is never evaluated in tiles; that of a key's values is nowhere."""
        rebuilt = self.analysis.rebuilt.intersection(equation.outputs)
        known = self.analysis.known(equation) and not rebuilt
        return known or bool(equation.bodies) or bool(getattr(equation.origin, "effects", None))

    def _need_whole(self, place: int, atoms: Sequence[Atom]) -> None:
        for a in atoms:
            if isinstance(a, Var):
                self.whole[a] = min(place, self.whole.get(a, place))

    def _need_tiles(self, index: int, atoms: Sequence[Atom], cuts: Cuts) -> None:
        for atom, cut in zip(atoms, cuts, strict=True):
            if cut is None:
                self._need_whole(self.places[index], [atom])
            elif isinstance(atom, Var):
                self.tiles.setdefault(atom, {}).setdefault(index, set()).add(cut)

    def _claim(self, place: int, claim: Claim, form: Contraction) -> None:
        self._need_whole(place, claim.reads[1:])
        axes = form.row_axes()
        if axes is None:
            self._need_whole(place, [claim.near])
            return
        near = self._columns(claim.near, form) or Cut(axes[0])
        self.places[claim.index] = place
        self.near[claim.index] = near
        self.length[claim.index] = claim.near.shape[near.axis] // near.unit
        self.steps[claim.index] = []
        self.returned[claim.index] = []
        self._need_tiles(claim.index, [claim.near], (near,))

    def _columns(self, near: Atom, form: Contraction) -> Cut | None:
        """The cut of a near operand along columns that goes between batched products before it."""
        if not isinstance(near, Var) or not freivalds.additive(form):
            return None
        for axis in form.contracted_axes():
            cut, length = Cut(axis), near.shape[axis]
            while cut.unit < length and length % cut.unit == 0:
                found, times = self._reaches_batch(near, cut)
                if found:
                    return cut
                if times == 1:
                    break
                cut = cut._replace(unit=cut.unit * times)
        return None

    def _reaches_batch(self, v: Var, cut: Cut) -> tuple[bool, int]:
        """Whether a cut goes between replayed products, and by how much its unit should grow.

        It does not if these are needed whole as well, such as for a norm of all columns.
        """
        seen: set[tuple[Var, Cut]] = set()
        products: set[Equation] = set()
        left, whole, times = [(v, cut)], list[Var](), 1
        while left:
            v, cut = left.pop()
            equation = self.makers.get(v)
            if (v, cut) in seen or equation is None or self._stays_outside(equation):
                continue
            seen.add((v, cut))
            step = _step(equation, v, cut)
            if batched(equation, cut):
                products.add(equation)
            elif step is None:
                times = max(times, merged(equation, cut))
                whole.append(v)
            else:
                for a, c in zip(equation.inputs, step[3], strict=True):
                    if isinstance(a, Var) and c is None:
                        whole.append(a)
                    elif isinstance(a, Var) and c is not None:
                        left.append((a, c))
        return bool(products) and not self._depend(whole, products), times

    def _depend(self, atoms: Sequence[Atom], equations: Collection[Equation]) -> bool:
        """Whether values depend on what some equations of the block compute."""
        seen: set[Atom] = set()
        left = list(atoms)
        while left:
            a = left.pop()
            equation = self.makers.get(a) if isinstance(a, Var) else None
            if equation is None or a in seen:
                continue
            if equation in equations:
                return True
            seen.add(a)
            left += equation.inputs
        return False

    def _equation(self, place: int, equation: Equation, free: bool) -> None:
        """Place an equation inside tiles, outside of them, or both."""
        whole = [v for v in equation.outputs if v in self.whole]
        users = self._users([v for v in equation.outputs if free or v not in self.whole], equation)
        if users is None:
            self._need_whole(place, [*equation.outputs, *equation.inputs])
            return
        if len(users) > 1 and not free:
            whole, users = list(equation.outputs), {}
        if whole and not users:
            users = self._returning(whole, equation)
            if users:
                whole = []
        if whole:
            self._need_whole(place, [*whole, *equation.inputs])
        else:
            self.inside.add(equation)
        for index, steps in users.items():
            self.steps[index] += steps
            for step, _, _, sources in steps:
                self._need_tiles(index, step.inputs, sources)

    def _users(self, outputs: Sequence[Var], equation: Equation) -> dict[int, list[Step]] | None:
        """By claim that needs the outputs in tiles, the steps that make these.

        None if the equation cannot be cut as some claim needs it: in pieces side by side, such as
        queries, keys and values of a head, but not both ways.
        """
        found: dict[int, list[Step]] = {}
        for v in outputs:
            for index, cuts in self.tiles.get(v, {}).items():
                for cut in sorted(cuts):
                    step = _step(untransposed(equation, self.makers), v, cut)
                    if step is None:
                        return None
                    found.setdefault(index, []).append(step)
        ways = [{cut[:2] for _, _, cut, _ in steps} for steps in found.values()]
        return found if all(len(way) == 1 for way in ways) else None

    def _returning(self, outputs: Sequence[Var], equation: Equation) -> dict[int, list[Step]]:
        """The first claim that needs an output in tiles, if nobody needs it whole before."""
        if len(equation.outputs) > 1:
            return {}
        [v] = outputs
        first = min(self.tiles.get(v, {}), key=self.places.__getitem__, default=None)
        if first is None or self.whole.get(v, len(self.block.equations)) <= self.places[first]:
            return {}
        [cut, *others] = self.tiles[v][first]
        step = _step(untransposed(equation, self.makers), v, cut)
        all_of_it = cut.bounds(0, self.length[first]) == (0, v.shape[cut.axis])
        if step is None or others or not all_of_it:
            return {}
        self.returned[first].append((v, cut))
        return {first: [step]}

    def _region(self, claim: Claim, form: Contraction) -> Region:
        steps = self.steps[claim.index][::-1]
        made = {v for equation, *_ in steps for v in equation.outputs}
        cuts = [
            (v, cut)
            for v, by_claim in self.tiles.items()
            for cut in sorted(by_claim.get(claim.index, ()))
            if v not in made
        ]
        near, length = self.near[claim.index], self.length[claim.index]
        # The near operand is converted to float64; so is the claim, which is cut along rows only.
        rows = near.axis not in form.contracted_axes()
        shapes = [form.shapes[form.near], *([form.shapes[2]] if rows else [])]
        widest = max(8 * math.prod(s) for s in shapes)
        widest = max([widest, *(v.nbytes for equation, *_ in steps for v in equation.outputs)])
        tile_bytes = self.tile_bytes if rows else min(COLUMNS, self.tile_bytes)
        return Region(
            length=length,
            size=tile_size(length, widest, tile_bytes),
            near=near,
            steps=tuple(steps),
            cuts=tuple(cuts),
            returned=tuple(self.returned[claim.index]),
        )


def _step(equation: Equation, v: Var, cut: Cut) -> Step | None:
    rule, output = RULES.get(equation.kind), equation.outputs.index(v)
    sources = rule(equation, output, cut) if rule else None
    return None if sources is None else (equation, output, cut, sources)


def tile_size(length: int, nbytes: int, tile_bytes: int) -> int:
    """Rows in a tile: of about `tile_bytes` if all are `nbytes`, and a divisor if one is near."""
    if length <= 1 or not tile_bytes or nbytes <= tile_bytes:
        return length
    most = max(1, length * tile_bytes // nbytes)
    divisors = [n for n in range(-(-most // 2), most + 1) if length % n == 0]
    return max(divisors, default=most)
