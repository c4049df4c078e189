"""Tests of claims a few rows at a time, with the glue that leads to their operands.

A test of `C = A B` looks at each row by itself. If the rows of the near operand A run unchanged
through the replayed equations before it, these can be evaluated for a few rows only: layer norms
and activations in the rows of a token, attention in the rows of its queries (keys and values stay
whole). So nothing that is as large as a claim, a matrix of attention scores or a copy in double
precision is ever whole.

`plan` goes backwards through a block. A value that is needed to test a claim, and whose primitive
has a rule (`tiling_rules`), is computed *inside* the tiles of that claim. If later equations or
claims need it too, such as a residual stream, the tiles return it whole. What somebody needs
before is computed whole, and cut. What costs next to nothing, because it depends on claims, inputs
and known values alone (a bias added, a mask), is rather computed twice than kept.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from verifiable import interpreter
from verifiable.analysis import Analysis, Claim
from verifiable.claims import Contraction
from verifiable.interpreter import Array, Atom, Block, Env, Equation, Var
from verifiable.tiling_rules import RESIZE, RULES, Axes

Step = tuple[Equation, int, Axes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """What is evaluated inside the tiles of a claim.

    Attributes:
      length: number of rows, along the axes of `Contraction.row_axes`.
      size: rows in a tile.
      steps: equations in order, with the axes of their outputs and inputs that hold the rows.
      cuts: values from outside, with the axis that holds the rows.
      returned: values of the steps that are needed whole afterwards, with that axis.
    """

    length: int
    size: int
    steps: tuple[Step, ...]
    cuts: tuple[tuple[Var, int], ...]
    returned: tuple[tuple[Var, int], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Regions by index of the claim, and the equations that are evaluated nowhere else."""

    regions: Mapping[int, Region] = field(default_factory=dict)
    inside: frozenset[Equation] = frozenset()


def plan(block: Block, analysis: Analysis, wanted: Sequence[Atom], tile_bytes: int) -> Plan:
    """Decide what of a block goes into the tiles of which claim.

    Args:
      block: as `verifier.check` walks it; not the blocks that it holds.
      analysis: of the whole function.
      wanted: values that are needed besides the tests.
      tile_bytes: about as large is the largest value of a tile; 0 for no tiles at all.
    """
    return _Planner(block, analysis, tile_bytes).plan(wanted) if tile_bytes else Plan()


@dataclass(slots=True)
class _Planner:
    """Goes backwards through a block, and collects who needs which value."""

    block: Block
    analysis: Analysis
    tile_bytes: int
    whole: dict[Var, int] = field(default_factory=dict)  # where it is first needed whole
    tiles: dict[Var, dict[int, set[int]]] = field(default_factory=dict)  # by claim: axes
    steps: dict[int, list[Step]] = field(default_factory=dict)
    returned: dict[int, list[tuple[Var, int]]] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)  # of claims, in the block
    axes: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # see `row_axes`
    inside: set[Equation] = field(default_factory=set)

    def plan(self, wanted: Sequence[Atom]) -> Plan:
        equations = self.block.equations
        computed = {v for e in equations if not self._given(e) for v in e.outputs}
        self._need_whole(len(equations), wanted)
        claims: list[Claim] = []
        for place in reversed(range(len(equations))):
            equation = equations[place]
            claim = self.analysis.claims.get(equation)
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

    def _need_tiles(self, index: int, atoms: Sequence[Atom], axes: Axes) -> None:
        for atom, axis in zip(atoms, axes, strict=True):
            if axis is None:
                self._need_whole(self.places[index], [atom])
            elif isinstance(atom, Var):
                self.tiles.setdefault(atom, {}).setdefault(index, set()).add(axis)

    def _claim(self, place: int, claim: Claim, form: Contraction) -> None:
        axes = form.row_axes()
        self._need_whole(place, [claim.far])
        if axes is None:
            self._need_whole(place, [claim.near])
            return
        self.places[claim.index] = place
        self.axes[claim.index] = axes
        self.steps[claim.index] = []
        self.returned[claim.index] = []
        self._need_tiles(claim.index, [claim.near], (axes[0],))

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
        for index, (axis, axes) in users.items():
            self.steps[index].append((equation, axis, axes))
            self._need_tiles(index, equation.inputs, axes)

    def _users(
        self, outputs: Sequence[Var], equation: Equation
    ) -> dict[int, tuple[int, Axes]] | None:
        """By claim that needs the outputs in tiles, the axes of the outputs and of the inputs.

        None if the equation cannot be cut as some claim needs it.
        """
        needed: dict[int, set[int]] = {}
        for v in outputs:
            for index, axes in self.tiles.get(v, {}).items():
                needed.setdefault(index, set()).update(axes)
        rule = RULES.get(equation.kind)
        found: dict[int, tuple[int, Axes]] = {}
        for index, wanted in needed.items():
            axis = min(wanted)
            axes = rule(equation, axis) if rule and len(wanted) == 1 else None
            if axes is None:
                return None
            found[index] = (axis, axes)
        return found

    def _returning(self, outputs: Sequence[Var], equation: Equation) -> dict[int, tuple[int, Axes]]:
        """The first claim that needs an output in tiles, if nobody needs it whole before."""
        if len(equation.outputs) > 1:
            return {}
        [v] = outputs
        first = min(self.tiles.get(v, {}), key=self.places.__getitem__, default=None)
        if first is None or self.whole.get(v, len(self.block.equations)) <= self.places[first]:
            return {}
        rule, axes = RULES.get(equation.kind), self.tiles[v][first]
        sources = rule(equation, min(axes)) if rule and len(axes) == 1 else None
        if sources is None:
            return {}
        self.returned[first].append((v, min(axes)))
        return {first: (min(axes), sources)}

    def _region(self, claim: Claim, form: Contraction) -> Region:
        steps = self.steps[claim.index][::-1]
        made = {v for equation, *_ in steps for v in equation.outputs}
        cuts = [
            (v, axis)
            for v, by_claim in self.tiles.items()
            for axis in sorted(by_claim.get(claim.index, ()))
            if v not in made
        ]
        # Near operand and claim are converted to float64.
        widest = max(8 * math.prod(s) for s in (form.shapes[form.near], form.shapes[2]))
        widest = max([widest, *(v.nbytes for equation, *_ in steps for v in equation.outputs)])
        length = form.shapes[2][self.axes[claim.index][1]]
        return Region(
            length=length,
            size=tile_size(length, widest, self.tile_bytes),
            steps=tuple(steps),
            cuts=tuple(cuts),
            returned=tuple(self.returned[claim.index]),
        )


def over_tiles(
    region: Region,
    claim: Claim,
    env: Env,
    out: Array,
    test: Callable[[Contraction, Array, Array], Any],
) -> Any:
    """Test a claim tile by tile.

    Args:
      region: of the claim.
      claim: a contraction.
      env: values by variable: what the region cuts, and what it needs whole; this function
        writes to it what the region returns.
      out: the claimed output.
      test: form, near operand and output of some rows -> pytree of (batch..., rows...).

    Returns:
      What `test` returns, for all rows.
    """
    form = claim.contraction
    axes = None if form is None else form.row_axes()
    if form is None or axes is None:
        raise ValueError(f"the rows of {claim.name} cannot be cut")
    near_axis, out_axis, rows_axis = axes

    def tile(start: Any, size: int) -> Any:
        def cut(value: Array, axis: int) -> Array:
            if size == region.length:
                return value
            return lax.dynamic_slice_in_dim(value, start, size, axis)

        tiles = {(v, axis): cut(env[v], axis) for v, axis in region.cuts}
        for equation, axis, sources in region.steps:
            values = [
                interpreter.read(env, a) if d is None or not isinstance(a, Var) else tiles[a, d]
                for a, d in zip(equation.inputs, sources, strict=True)
            ]
            results = evaluate(equation, axis, start, size, values)
            tiles |= {(v, axis): x for v, x in zip(equation.outputs, results, strict=True)}
        near = claim.near
        near = tiles[near, near_axis] if isinstance(near, Var) else interpreter.read(env, near)
        return test(form.cut(size), near, cut(out, out_axis)), *(tiles[v] for v in region.returned)

    axes = (rows_axis, *(axis for _, axis in region.returned))
    found, *returned = _loop(tile, region.length, region.size, axes)
    interpreter.write(env, [v for v, _ in region.returned], returned)
    return found


def evaluate(
    equation: Equation, axis: int, start: Any, size: int, values: Sequence[Array]
) -> list[Array]:
    """The piece of an equation's outputs from `start` along an axis, from pieces of its inputs."""
    resize = RESIZE.get(equation.kind)
    params = {**equation.params, **(resize(equation, axis, size) if resize else {})}
    results = interpreter.apply(replace(equation, params=params), values)
    if equation.kind == "iota" and params["dimension"] == axis:
        results = [results[0] + jnp.asarray(start, results[0].dtype)]
    return results


def over_rows(test: Callable[..., Any], *arrays: Array, tile_bytes: int) -> Any:
    """`test(*arrays)` some rows, along the first axis, at a time; it returns a value for each."""
    length = arrays[0].shape[0]
    widest = max(8 * math.prod(a.shape) for a in arrays)
    size = tile_size(length, widest, tile_bytes)

    def tile(start: Any, size: int) -> tuple[Any]:
        return (test(*(lax.dynamic_slice_in_dim(a, start, size) for a in arrays)),)

    return test(*arrays) if size == length else _loop(tile, length, size, (0,))[0]


def tile_size(length: int, nbytes: int, tile_bytes: int) -> int:
    """Rows in a tile: of about `tile_bytes` if all are `nbytes`, and a divisor if one is near."""
    if length <= 1 or not tile_bytes or nbytes <= tile_bytes:
        return length
    most = max(1, length * tile_bytes // nbytes)
    divisors = [n for n in range(-(-most // 2), most + 1) if length % n == 0]
    return max(divisors, default=most)


def _loop(
    tile: Callable[[Any, int], tuple[Any, ...]], length: int, size: int, axes: Sequence[int]
) -> tuple[Any, ...]:
    """Results of `tile(start, size)` for all rows, which each of them holds along its axis."""
    if size == length:
        return tile(0, size)

    def each(join: Callable[..., Array], *results: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            jax.tree.map(functools.partial(join, axis=axis), *parts)
            for axis, *parts in zip(axes, *results, strict=True)
        )

    whole, rest = divmod(length, size)
    starts = size * jnp.arange(whole, dtype=jnp.int32)
    found = each(_joined, lax.map(lambda start: tile(start, size), starts))
    if not rest:
        return found
    last = tile(length - rest, rest)
    return each(lambda a, b, axis: jnp.concatenate([a, b], axis=axis), found, last)


def _joined(stacked: Array, axis: int) -> Array:
    """Results (tiles, ...) with the rows of all tiles along one axis."""
    moved = jnp.moveaxis(stacked, 0, axis)
    return moved.reshape(*moved.shape[:axis], -1, *moved.shape[axis + 2 :])
