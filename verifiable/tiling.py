"""Tests of claims a piece at a time, with the glue that leads to their operands.

A test of `C = A B` looks at each row by itself. If the rows of the near operand A run unchanged
through the replayed equations before it, these can be evaluated for a few rows only: layer norms
and activations in the rows of a token, attention in the rows of its queries. And what a test takes
from a row of A are sums over its columns, which can be made a few columns at a time: where these
come from a batch of products that are replayed, as those of attention come from its heads, tiles
are made of columns, each of one head with its own queries, keys and values. So nothing that is as
large as a claim, a matrix of attention scores or a copy in double precision is ever whole.

`plan` goes backwards through a block. A value that is needed to test a claim, and whose primitive
has a rule (`tiling_rules`), is computed *inside* the tiles of that claim. If later equations or
claims need it too, such as a residual stream, the tiles return it whole. What somebody needs
before is computed whole, and cut. What costs next to nothing, because it depends on claims, inputs
and known values alone (a bias added, a mask), is rather computed twice than kept.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from verifiable import freivalds, interpreter
from verifiable.analysis import Analysis, Claim
from verifiable.contraction import Contraction
from verifiable.freivalds import Applied, Projection, RowStatistics
from verifiable.interpreter import Array, Atom, Block, Env, Equation, Var
from verifiable.tiling_rules import RESIZE, RULES, Cut, Cuts, batched, merged, untransposed

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
            claim = self.analysis.claims.get(equation)
            if claim is not None and claim.index not in self.tested:
                continue
            if claim is not None and claim.contraction is not None:
                self._claim(place, claim, claim.contraction)
                claims.append(claim)
            elif claim is not None:
                self._need_whole(place, claim.reads(equation))
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
            c.index: self._region(c, c.contraction)
            for c in claims
            if c.contraction is not None and c.index in self.steps
        }
        return Plan(regions, frozenset(self.inside))

    def _given(self, equation: Equation) -> bool:
        """Whether the check has the outputs of an equation without computing anything."""
        return equation in self.analysis.claims or self.analysis.known(equation)

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
        self._need_whole(place, [claim.far])
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


def test(
    region: Region,
    claim: Claim,
    env: Env,
    projection: Projection,
    out: Array,
    g: Array,
    *,
    eps: float,
    limit: float,
    tile_bytes: int,
) -> RowStatistics:
    """Test a claim tile by tile.

    Args:
      region: of the claim, a contraction.
      env: values by variable: what the region cuts, and what it needs whole; this function
        writes to it what the region returns.
      tile_bytes: size of the tiles.

    The other arguments, and what it returns for all rows, are those of `freivalds.compare`.
    """
    form = claim.contraction
    axes = None if form is None else form.row_axes()
    if form is None or axes is None:
        raise ValueError(f"the rows of {claim.name} cannot be cut")
    _, out_axis, rows_axis = axes
    columns = form.contracted_axes().get(region.near.axis)

    def compare(applied: Applied, start: Any, size: int) -> RowStatistics:
        some = _piece(out, Cut(out_axis), start, size)
        return freivalds.compare(form.cut(size), applied, projection, some, g, eps=eps, limit=limit)

    def of_rows(near: Array, start: Any, size: int) -> RowStatistics:
        return compare(freivalds.apply(form.cut(size), near, projection), start, size)

    if columns is None:
        return _over_tiles(region, claim, env, of_rows, rows_axis)

    def of_columns(near: Array, start: Any, size: int) -> Applied:
        first, count = region.near.bounds(start, size)
        some = freivalds.piece(projection, columns, first, count)
        return freivalds.apply(form.cut_contracted(region.near.axis, count), near, some)

    applied = _over_tiles(region, claim, env, of_columns, None)

    def rows(start: Any, size: int) -> tuple[RowStatistics]:
        part = jax.tree.map(lambda x: _piece(x, Cut(rows_axis), start, size), applied)
        return (compare(part, start, size),)

    length = form.shapes[2][out_axis]
    size = tile_size(length, 8 * math.prod(form.shapes[2]), tile_bytes)
    [found] = _loop(rows, length, size, (rows_axis,))
    return found


def _over_tiles(
    region: Region,
    claim: Claim,
    env: Env,
    use: Callable[[Array, Any, int], Any],
    axis: int | None,
) -> Any:
    """What `use(near, start, size)` makes of all pieces of the near operand; see `_loop`."""

    def tile(start: Any, size: int) -> tuple[Any, ...]:
        tiles = {(v, cut): _piece(env[v], cut, start, size) for v, cut in region.cuts}
        for equation, output, cut, sources in region.steps:
            values = [
                interpreter.read(env, a) if c is None or not isinstance(a, Var) else tiles[a, c]
                for a, c in zip(equation.inputs, sources, strict=True)
            ]
            result = evaluate(equation, output, cut, start, size, values)
            tiles[equation.outputs[output], cut] = result
        near = claim.near
        near = tiles[near, region.near] if isinstance(near, Var) else interpreter.read(env, near)
        return use(near, start, size), *(tiles[key] for key in region.returned)

    axes = (axis, *(cut.axis for _, cut in region.returned))
    found, *returned = _loop(tile, region.length, region.size, axes)
    interpreter.write(env, [v for v, _ in region.returned], returned)
    return found


def _piece(value: Array, cut: Cut, start: Any, size: int) -> Array:
    first, count = cut.bounds(start, size)
    if count == value.shape[cut.axis]:
        return value
    return lax.dynamic_slice_in_dim(value, first, count, cut.axis)


def evaluate(
    equation: Equation, output: int, cut: Cut, start: Any, size: int, values: Sequence[Array]
) -> Array:
    """A piece of one of an equation's outputs, from pieces of its inputs.

    Args:
      equation: with a rule.
      output: index of the output.
      cut: of the output.
      start: first index of the tile.
      size: indices of the tile.
      values: of the inputs, cut as the rule says.
    """
    first, count = cut.bounds(start, size)
    if equation.kind == "split" and equation.params["axis"] == cut.axis:
        return values[0]  # the input was cut out of where this output lies
    resize = RESIZE.get(equation.kind)
    params = {**equation.params, **(resize(equation, cut.axis, count) if resize else {})}
    results = interpreter.apply(replace(equation, params=params), values)
    if equation.kind == "iota" and params["dimension"] == cut.axis:
        return results[0] + jnp.asarray(first, results[0].dtype)
    return results[output]


def over_rows(test: Callable[..., Any], *arrays: Array, tile_bytes: int) -> Any:
    """`test(*arrays)` some rows, along the first axis, at a time; it returns a value for each."""
    length = arrays[0].shape[0]
    widest = max(8 * math.prod(a.shape) for a in arrays)
    size = tile_size(length, widest, tile_bytes)

    def tile(start: Any, size: int) -> tuple[Any]:
        return (test(*(_piece(a, Cut(0), start, size) for a in arrays)),)

    return _loop(tile, length, size, (0,))[0]


def tile_size(length: int, nbytes: int, tile_bytes: int) -> int:
    """Rows in a tile: of about `tile_bytes` if all are `nbytes`, and a divisor if one is near."""
    if length <= 1 or not tile_bytes or nbytes <= tile_bytes:
        return length
    most = max(1, length * tile_bytes // nbytes)
    divisors = [n for n in range(-(-most // 2), most + 1) if length % n == 0]
    return max(divisors, default=most)


def _loop(
    tile: Callable[[Any, int], tuple[Any, ...]], length: int, size: int, axes: Sequence[int | None]
) -> tuple[Any, ...]:
    """Results of `tile(start, size)` for all: joined along the axis of each, or summed if None."""
    if size == length:
        return tile(0, size)

    def sums(results: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(r if axis is None else None for r, axis in zip(results, axes, strict=True))

    def others(results: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(None if axis is None else r for r, axis in zip(results, axes, strict=True))

    def join(join: Callable[..., Array], *results: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            jax.tree.map(functools.partial(join, axis=axis), *parts)
            for axis, *parts in zip(axes, *results, strict=True)
        )

    def step(total: Any, start: Array) -> tuple[Any, Any]:
        results = tile(start, size)
        return jax.tree.map(jnp.add, total, sums(results)), others(results)

    whole, rest = divmod(length, size)
    starts = size * jnp.arange(whole, dtype=jnp.int32)
    like = jax.eval_shape(lambda start: sums(tile(start, size)), starts[0])
    total = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    total, stacked = lax.scan(step, total, starts)
    joined = join(_joined, stacked)
    if rest:
        last = tile(length - rest, rest)
        total = jax.tree.map(jnp.add, total, sums(last))
        joined = join(lambda a, b, axis: jnp.concatenate([a, b], axis=axis), joined, others(last))
    return tuple(b if a is None else a for a, b in zip(total, joined, strict=True))


def _joined(stacked: Array, axis: int) -> Array:
    """Results (tiles, ...) with the rows of all tiles along one axis."""
    moved = jnp.moveaxis(stacked, 0, axis)
    return moved.reshape(*moved.shape[:axis], -1, *moved.shape[axis + 2 :])
