"""Scatters whose indices provably differ, so that no two writes compete for one place."""

from __future__ import annotations

from collections.abc import Mapping

from verifiable.jaxpr.blocks import Atom, Equation, Literal, Var

Producers = Mapping[Var, Equation]


def distinct(equation: Equation, producers: Producers) -> bool:
    """Whether each position of a scatter's indices has a column of its own that counts upwards.

    `x.at[arange(n), i].set(v)` is such a scatter, whatever `i` is.

    Args:
      equation: a scatter.
      producers: the equation that computes each variable.
    """
    indices = equation.inputs[1]
    batching = equation.params["dimension_numbers"].scatter_indices_batching_dims
    lengths = {d: n for d, n in enumerate(indices.shape[:-1]) if n > 1 and d not in batching}
    counted = {d for part in _columns(indices, producers) for d in _counted(part, producers)}
    return lengths.keys() <= counted


def _columns(indices: Atom, producers: Producers) -> list[Atom]:
    """The operands that are joined along the last dimension of the indices."""
    equation = producers.get(indices) if isinstance(indices, Var) else None
    if equation is None or equation.kind != "concatenate":
        return [indices]
    last = equation.params["dimension"] == len(indices.shape) - 1
    return list(equation.inputs) if last else [indices]


def _counted(atom: Atom, producers: Producers) -> set[int]:
    """The dimensions along which a value counts 0, 1, 2, ..., the same along all others."""
    equation = producers.get(atom) if isinstance(atom, Var) else None
    if equation is None:
        return set()
    params, inputs = equation.params, equation.inputs
    if equation.kind == "iota":
        return {params["dimension"]}
    if equation.kind == "broadcast_in_dim":
        own = _counted(inputs[0], producers)
        where = params["broadcast_dimensions"]
        return {where[d] for d in own if atom.shape[where[d]] == inputs[0].shape[d]}
    if equation.kind == "select_n" and _never(inputs[0], producers):
        return _counted(inputs[1], producers)
    return set()


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
