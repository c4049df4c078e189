"""Tests of claims a piece at a time, with the glue that leads to their operands.

A test of `C = A B` looks at each row by itself. If the rows of the near operand A run unchanged
through the replayed equations before it, these can be evaluated for a few rows only: layer norms
and activations in the rows of a token, attention in the rows of its queries. And what a test takes
from a row of A are sums over its columns, which can be made a few columns at a time: where these
come from a batch of products that are replayed, as those of attention come from its heads, tiles
are made of columns, each of one head with its own queries, keys and values. So nothing that is as
large as a claim, a matrix of attention scores or a copy in double precision is ever whole.

`tiling_plan` decides what goes where.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from verifiable.check.tiling.plan import Region, tile_size
from verifiable.check.tiling.rules import RESIZE, Cut
from verifiable.claims import freivalds
from verifiable.claims.claim import Claim
from verifiable.claims.form import Yardstick
from verifiable.claims.freivalds import Applied
from verifiable.claims.statistic import RowStatistics
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Env, Equation, Var


def test(
    region: Region,
    claim: Claim,
    env: Env,
    out: Array,
    yardstick: Yardstick,
    *,
    tile_bytes: int,
) -> RowStatistics:
    """Test a claim tile by tile.

    Args:
      region: of the claim, a contraction.
      env: values by variable: what the region cuts, and what it needs whole; this function
        writes to it what the region returns.
      out: the claimed output.
      yardstick: of the test, with the projection of the far operand.
      tile_bytes: size of the tiles.

    Returns:
      What `freivalds.compare` returns, for all rows.
    """
    form, projection, g = claim.form.contraction, yardstick.projection, yardstick.vectors
    axes = None if form is None else form.row_axes()
    if form is None or axes is None:
        raise ValueError(f"the rows of {claim.name} cannot be cut")
    _, out_axis, rows_axis = axes
    columns = form.contracted_axes().get(region.near.axis)

    def compare(applied: Applied, start: Any, size: int) -> RowStatistics:
        some = _piece(out, Cut(out_axis), start, size)
        return freivalds.compare(
            form.cut(size), applied, projection, some, g, eps=yardstick.eps, limit=yardstick.limit
        )

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
                interpret.read(env, a) if c is None or not isinstance(a, Var) else tiles[a, c]
                for a, c in zip(equation.inputs, sources, strict=True)
            ]
            result = evaluate(equation, output, cut, start, size, values)
            tiles[equation.outputs[output], cut] = result
        near = claim.near
        near = tiles[near, region.near] if isinstance(near, Var) else interpret.read(env, near)
        return use(near, start, size), *(tiles[key] for key in region.returned)

    axes = (axis, *(cut.axis for _, cut in region.returned))
    found, *returned = _loop(tile, region.length, region.size, axes)
    interpret.write(env, [v for v, _ in region.returned], returned)
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
    results = interpret.apply(replace(equation, params=params), values)
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
