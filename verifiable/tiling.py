"""Tests of claims a few rows at a time, with the glue that leads to their operands.

A test of `C = A B` looks at each row by itself. If the rows of the near operand A run unchanged
through the replayed equations before it, these can be evaluated for a few rows only: layer norms
and activations in the rows of a token, attention in the rows of its queries (keys and values stay
whole). So nothing that is as large as a claim, a matrix of attention scores or a copy in double
precision is ever whole.

`plan` goes backwards through a block. A value that is needed to test a claim, and whose primitive
has a rule below, is computed *inside* the tiles of that claim. If later equations or claims need
it too, such as a residual stream, the tiles return it whole. What somebody needs before is
computed whole, and cut. What costs next to nothing, because it depends on claims, inputs and known
values alone (a bias added, a mask), is rather computed twice than kept.

A rule says along which axis each input is cut when the output is cut along an axis, or that the
input is needed whole. A primitive without a rule is evaluated whole.
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

Axes = tuple[int | None, ...]  # the axis along which each input is cut; None where it is whole
Rule = Callable[[Equation, int], Axes | None]
Step = tuple[Equation, int, Axes]
Resize = Callable[[Equation, int, int], dict[str, Any]]

ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil
    convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
    integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or pow
    reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh
    xor
    """.split()
)


def _elementwise(equation: Equation, axis: int) -> Axes | None:
    shape = equation.outputs[0].shape
    if any(len(a.shape) not in (0, len(shape)) for a in equation.inputs):
        return None
    # Operands of length one are spread over the others.
    return tuple(
        axis if isinstance(a, Var) and a.shape[axis : axis + 1] == shape[axis : axis + 1] else None
        for a in equation.inputs
    )


def _broadcast_in_dim(equation: Equation, axis: int) -> Axes | None:
    operand, dims = equation.inputs[0], equation.params["broadcast_dimensions"]
    if len(equation.inputs) > 1:
        return None
    if axis in dims:
        source = tuple(dims).index(axis)
        if operand.shape[source] == equation.outputs[0].shape[axis]:
            return (source,)
    return (None,)


def _reshape(equation: Equation, axis: int) -> Axes | None:
    [operand], out = equation.inputs, equation.outputs[0].shape
    if equation.params.get("dimensions") is not None:
        return None
    before, length = math.prod(out[:axis]), out[axis]
    for source, size in enumerate(operand.shape):
        if size == length and math.prod(operand.shape[:source]) == before:
            return (source,)
    return None


def _transpose(equation: Equation, axis: int) -> Axes:
    return (equation.params["permutation"][axis],)


def _reduce(equation: Equation, axis: int) -> Axes | None:
    if len(equation.inputs) != 1:
        return None
    gone = equation.params["axes"]
    kept = [d for d in range(len(equation.inputs[0].shape)) if d not in gone]
    return (kept[axis],)


def _same_length(equation: Equation, axis: int) -> Axes | None:
    """Inputs and outputs of one rank, in each of which the axis is all there."""
    length = equation.outputs[0].shape[axis]
    values = [v for v in (*equation.inputs, *equation.outputs) if isinstance(v, Var)]
    if any(v.shape[axis] != length for v in values):
        return None
    return (axis,) * len(equation.inputs)


def _along(name: str) -> Rule:
    """A primitive that mixes the elements of one axis only, which a parameter names."""
    return lambda equation, axis: (
        None if equation.params[name] == axis else _same_length(equation, axis)
    )


def _slice(equation: Equation, axis: int) -> Axes | None:
    # Of the same length, it leaves the axis as it is: a stride or an offset would shorten it.
    return _same_length(equation, axis)


def _stack(equation: Equation, axis: int) -> Axes | None:
    new = equation.params["axis"]
    return None if axis == new else (axis - (axis > new),) * len(equation.inputs)


def _rev(equation: Equation, axis: int) -> Axes | None:
    return None if axis in equation.params["dimensions"] else (axis,)


def _dot_general(equation: Equation, axis: int) -> Axes:
    (lc, rc), (lb, rb) = equation.params["dimension_numbers"]
    if axis < len(lb):
        return lb[axis], rb[axis]
    free = [
        [d for d in range(len(a.shape)) if d not in {*c, *b}]
        for a, c, b in zip(equation.inputs, (lc, rc), (lb, rb), strict=True)
    ]
    axis -= len(lb)
    if axis < len(free[0]):
        return free[0][axis], None
    return None, free[1][axis - len(free[0])]


RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"), _reduce),
    **dict.fromkeys(("reduce_and", "reduce_or", "argmax", "argmin"), _reduce),
    **dict.fromkeys(("cumsum", "cummax", "cummin", "cumprod", "cumlogsumexp"), _along("axis")),
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": _along("dimension"),
    "dot_general": _dot_general,
    "expand_dims": _reshape,
    "iota": lambda equation, axis: (),
    "reshape": _reshape,
    "rev": _rev,
    "slice": _slice,
    "split": _along("axis"),
    "squeeze": _reshape,
    "stack": _stack,
    "transpose": _transpose,
}


def _resized(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


# Parameters that hold the length of an axis.
RESIZE: dict[str, Resize] = {
    "broadcast_in_dim": lambda e, axis, size: {"shape": _resized(e.params["shape"], axis, size)},
    "iota": lambda e, axis, size: {"shape": _resized(e.params["shape"], axis, size)},
    "reshape": lambda e, axis, size: {"new_sizes": _resized(e.params["new_sizes"], axis, size)},
    "slice": lambda e, axis, size: {
        "limit_indices": _resized(e.params["limit_indices"], axis, size)
    },
}


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
                # The value that is rounded; of what was computed narrow, all that it is made of.
                own = claim.near is equation.outputs[0]
                self._need_whole(place, equation.inputs if own else [claim.near])
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
