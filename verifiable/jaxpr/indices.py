"""Scatters whose indices provably differ, so that no two writes compete for one place.

Indices that differ may still meet: modes clamp them, a window longer than one element covers its
neighbours, and a counter wraps where its type ends.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jax.lax import GatherScatterMode

from verifiable.jaxpr.blocks import Atom, Equation, Literal, Var

Producers = Mapping[Var, Equation]


def distinct(equation: Equation, producers: Producers) -> bool:
    """Whether no two positions of a scatter's indices are the same.

    Each dimension has a column of its own that counts upwards, as in `x.at[arange(n), i].set(v)`,
    whatever `i` is. One dimension may have a column that is chosen along it instead, as in
    `x.at[arange(n)[:, None], top_k(z, k)[1]].set(v)`: indices of `top_k` or of a sort differ where
    the others are the same. No such index may be changed on its way: it may be beyond the axis only
    if such writes are dropped.

    Args:
      equation: a scatter.
      producers: the equation that computes each variable.
    """
    indices = equation.inputs[1]
    batching = equation.params["dimension_numbers"].scatter_indices_batching_dims
    lengths = {d: n for d, n in enumerate(indices.shape[:-1]) if n > 1 and d not in batching}
    counted: set[int] = set()
    chosen: set[int] = set()
    column = 0
    for part, columns in _columns(indices, producers):
        dims, differing = _counted(part, producers), _chosen(part, producers)
        for place in range(column, column + columns):
            counted |= {d for d in dims & lengths.keys() if _stays(equation, place, lengths[d])}
            chosen |= {d for d, n in differing.items() if _stays(equation, place, n)}
        column += columns
    left = lengths.keys() - counted
    return not left or (len(left) == 1 and left <= chosen)


def _stays(equation: Equation, column: int, count: int) -> bool:
    """Whether writes at some of 0, 1, ..., count - 1 in a column of the indices meet nowhere."""
    operand, _, updates = equation.inputs
    numbers = equation.params["dimension_numbers"]
    axis = numbers.scatter_dims_to_operand_dims[column]
    single = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    if axis not in single:
        windows = [d for d in range(len(operand.shape)) if d not in single]
        if updates.shape[numbers.update_window_dims[windows.index(axis)]] != 1:
            return False
    drops = equation.params["mode"] == GatherScatterMode.FILL_OR_DROP
    return drops or count <= operand.shape[axis]


def _columns(indices: Atom, producers: Producers) -> list[tuple[Atom, int]]:
    """The operands that are joined along the last dimension of the indices, with their lengths."""
    equation = producers.get(indices) if isinstance(indices, Var) else None
    last = len(indices.shape) - 1
    if equation is None or equation.kind != "concatenate" or equation.params["dimension"] != last:
        return [(indices, indices.shape[last])]
    return [(a, a.shape[last]) for a in equation.inputs]


def _counted(atom: Atom, producers: Producers) -> set[int]:
    """The dimensions along which a value counts 0, 1, 2, ..., the same along all others."""
    equation = producers.get(atom) if isinstance(atom, Var) else None
    if equation is None:
        return set()
    params, inputs = equation.params, equation.inputs
    if equation.kind == "iota":
        dimension = params["dimension"]
        return {dimension} if _holds(atom, atom.shape[dimension] - 1) else set()
    if equation.kind == "broadcast_in_dim":
        own = _counted(inputs[0], producers)
        where = params["broadcast_dimensions"]
        return {where[d] for d in own if atom.shape[where[d]] == inputs[0].shape[d]}
    if equation.kind == "select_n" and _never(inputs[0], producers):
        return _counted(inputs[1], producers)
    return set()


def _chosen(atom: Atom, producers: Producers) -> dict[int, int]:
    """The dimensions along which a value holds different indices, and how many there are.

    A device that commits to such indices is rejected unless they differ, and are of the axis.
    """
    equation = producers.get(atom) if isinstance(atom, Var) else None
    if equation is None:
        return {}
    params, inputs = equation.params, equation.inputs
    if equation.kind == "top_k" and atom is equation.outputs[1]:
        axis = params.get("axis", len(inputs[0].shape) - 1) % len(inputs[0].shape)
        return {axis: inputs[0].shape[axis]}
    if equation.kind == "sort":
        axis, moved = params["dimension"], inputs[equation.outputs.index(atom)]
        return {axis: atom.shape[axis]} if axis in _counted(moved, producers) else {}
    if equation.kind == "broadcast_in_dim":
        own, where = _chosen(inputs[0], producers), params["broadcast_dimensions"]
        kept = {where[d]: n for d, n in own.items()}
        return {d: n for d, n in kept.items() if atom.shape[d] == inputs[0].shape[where.index(d)]}
    if equation.kind == "select_n" and _never(inputs[0], producers):
        return _chosen(inputs[1], producers)
    return {}


def _holds(atom: Atom, largest: int) -> bool:
    """Whether a type holds every integer up to the largest one."""
    return jnp.issubdtype(atom.dtype, jnp.integer) and largest <= int(jnp.iinfo(atom.dtype).max)


def _never(atom: Atom, producers: Producers) -> bool:
    """Whether a predicate asks if a value that counts upwards, or is an index, is negative.

    JAX replaces negative indices i by i + n, with a `select_n` on `i < 0`.
    """
    equation = producers.get(atom) if isinstance(atom, Var) else None
    if equation is None or equation.kind != "lt":
        return False
    value, bound = equation.inputs
    zero = isinstance(bound, Literal) and bound.value == 0
    return zero and bool(_counted(value, producers) or _chosen(value, producers))
