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
    """Whether each position of a scatter's indices has a column of its own that counts upwards.

    `x.at[arange(n), i].set(v)` is such a scatter, whatever `i` is, if no index that it counts is
    changed on its way: it may be beyond the axis only if such writes are dropped.

    Args:
      equation: a scatter.
      producers: the equation that computes each variable.
    """
    indices = equation.inputs[1]
    batching = equation.params["dimension_numbers"].scatter_indices_batching_dims
    lengths = {d: n for d, n in enumerate(indices.shape[:-1]) if n > 1 and d not in batching}
    counted: set[int] = set()
    column = 0
    for part, columns in _columns(indices, producers):
        dims = _counted(part, producers)
        for place in range(column, column + columns):
            counted |= {d for d in dims & lengths.keys() if _stays(equation, place, lengths[d])}
        column += columns
    return lengths.keys() <= counted


def _stays(equation: Equation, column: int, count: int) -> bool:
    """Whether writes at 0, 1, ..., count - 1 in a column of the indices meet nowhere."""
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


def _holds(atom: Atom, largest: int) -> bool:
    """Whether a type holds every integer up to the largest one."""
    return jnp.issubdtype(atom.dtype, jnp.integer) and largest <= int(jnp.iinfo(atom.dtype).max)


def _never(atom: Atom, producers: Producers) -> bool:
    """Whether a predicate asks if a value that counts upwards is negative.

    JAX replaces negative indices i by i + n, with a `select_n` on `i < 0`.
    """
    equation = producers.get(atom) if isinstance(atom, Var) else None
    if equation is None or equation.kind != "lt":
        return False
    value, bound = equation.inputs
    zero = isinstance(bound, Literal) and bound.value == 0
    return zero and bool(_counted(value, producers))
