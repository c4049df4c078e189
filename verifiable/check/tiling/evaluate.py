"""Tests of claims tile by tile, with the glue that leads to their operands.

A test of `C = A B` looks at each row by itself. If the rows of the near operand A depend row by row
on the values before it, the replayed equations between them can be evaluated for a few rows at a
time: layer norms and activations in the rows of a token, attention in the rows of its queries. A
test takes sums over the columns of A, which add up, so a tile may also hold a few columns, such as
one head of attention (`columns`). No value as large as a claim, no matrix of attention scores and
no copy in double precision is ever whole.

`plan` decides which equations are evaluated in which tiles.
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
from verifiable.claims.claim import Claim
from verifiable.claims.form import Yardstick
from verifiable.claims.products import float32_test, freivalds
from verifiable.claims.products.freivalds import Applied
from verifiable.claims.products.product import Product
from verifiable.claims.statistic import RowStatistics
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Env, Equation, Var


def test(region: Region, claim: Claim, env: Env, out: Array, yardstick: Yardstick) -> RowStatistics:
    """Test a claim tile by tile.

    Args:
      region: of the claim, a contraction.
      env: values by variable: those that the region cuts, and those that it needs whole.
      out: the claimed output.
      yardstick: of the test, with the projection of the far operand.

    Returns:
      What `freivalds.compare` returns, for all rows.
    """
    form, projection, own = claim.form.contraction, yardstick.projection, claim.form
    axes = None if form is None else form.row_axes()
    if form is None or axes is None or not isinstance(own, Product):
        raise ValueError(f"the rows of {claim.name} cannot be cut")
    projection = own.completed(projection, interpret.read_all(env, claim.operands[1:]))
    _, out_axis, rows_axis = axes

    def compare(applied: Applied, start: Any, size: int) -> RowStatistics:
        some, g = _piece(out, Cut(out_axis), start, size), yardstick.vectors
        return freivalds.compare(
            form.cut(size), applied, projection, some, g, eps=yardstick.eps, limit=yardstick.limit
        )

    def by_rows(start: Any, size: int) -> Applied:
        near = _near(region, claim, env, start, size)
        return freivalds.apply(form.cut(size), near, projection)

    columns = form.contracted_axes().get(region.near.axis)

    def by_columns(axis: int, start: Any, size: int) -> Applied:
        near = _near(region, claim, env, start, size)
        first, count = region.near.bounds(start, size)
        some = freivalds.piece(projection, axis, first, count)
        return freivalds.apply(form.cut_contracted(region.near.axis, count), near, some)

    length, size, whole = region.length, region.size, form.shapes[2][out_axis]
    in_place = form.exact_in_place or float32_test.in_place(form, projection, out)
    if form.exact_in_place and not region.steps:
        size = length
    if columns is not None:
        applied = _summed(functools.partial(by_columns, columns), length, size)
    elif in_place:
        applied = _joined(by_rows, length, size, rows_axis)
    else:
        return _joined(lambda *tile: compare(by_rows(*tile), *tile), length, size, rows_axis)
    if in_place:
        return compare(applied, 0, whole)

    def compare_rows(start: Any, size: int) -> RowStatistics:
        part = jax.tree.map(lambda x: _piece(x, Cut(rows_axis), start, size), applied)
        return compare(part, start, size)

    return _joined(compare_rows, whole, region.rows, rows_axis)


def _near(region: Region, claim: Claim, env: Env, start: Any, size: int) -> Array:
    """The near operand in one tile, by the steps of the region."""
    if not isinstance(claim.near, Var):
        return interpret.read(env, claim.near)
    tiles = {(v, cut): _piece(env[v], cut, start, size) for v, cut in region.cuts}
    for equation, output, cut, sources in region.steps:
        values = [
            interpret.read(env, a) if c is None or not isinstance(a, Var) else tiles[a, c]
            for a, c in zip(equation.inputs, sources, strict=True)
        ]
        tiles[equation.outputs[output], cut] = evaluate(equation, output, cut, start, size, values)
    return tiles[claim.near, region.near]


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
      equation: an equation whose primitive has a rule.
      output: index of the output.
      cut: how tiles cut the output.
      start: first index of the tile.
      size: number of indices in the tile.
      values: the inputs, cut as the rule says.
    """
    first, count = cut.bounds(start, size)
    if equation.kind == "split" and equation.params["axis"] == cut.axis:
        return values[0]  # the input was cut where this output lies
    resize = RESIZE.get(equation.kind)
    params = {**equation.params, **(resize(equation, cut.axis, count) if resize else {})}
    results = interpret.apply(replace(equation, params=params), values)
    if equation.kind == "iota" and params["dimension"] == cut.axis:
        return results[0] + jnp.asarray(first, results[0].dtype)
    return results[output]


def over_rows(test: Callable[..., Any], *arrays: Array, tile_bytes: int) -> Any:
    """Results of `test(*arrays)`, which has one for each index of the first axis, tile by tile."""
    length = arrays[0].shape[0]
    widest = max(8 * math.prod(a.shape) for a in arrays)

    def tile(start: Any, size: int) -> Any:
        return test(*(_piece(a, Cut(0), start, size) for a in arrays))

    return _joined(tile, length, tile_size(length, widest, tile_bytes), 0)


def _joined(tile: Callable[[Any, int], Any], length: int, size: int, axis: int) -> Any:
    """Results of `tile(start, size)` over all indices, joined along an axis."""
    if size == length:
        return tile(0, size)
    whole, rest = divmod(length, size)
    stacked = lax.map(lambda start: tile(start, size), _starts(whole, size))
    joined = jax.tree.map(functools.partial(_unstacked, axis=axis), stacked)
    if not rest:
        return joined
    last = tile(length - rest, rest)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=axis), joined, last)


def _summed(tile: Callable[[Any, int], Any], length: int, size: int) -> Any:
    """Sum of the results of `tile(start, size)` over all indices."""
    if size == length:
        return tile(0, size)
    whole, rest = divmod(length, size)

    def add(total: Any, start: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, tile(start, size)), None

    like = jax.eval_shape(lambda: tile(0, size))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    total, _ = lax.scan(add, zeros, _starts(whole, size))
    return jax.tree.map(jnp.add, total, tile(length - rest, rest)) if rest else total


def _starts(count: int, size: int) -> Array:
    return size * jnp.arange(count, dtype=jnp.int32)


def _unstacked(stacked: Array, axis: int) -> Array:
    """Results (tiles, ...) with the rows of all tiles along one axis."""
    moved = jnp.moveaxis(stacked, 0, axis)
    return moved.reshape(*moved.shape[:axis], -1, *moved.shape[axis + 2 :])
