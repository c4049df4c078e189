"""Booleans and integers as real numbers, so that an answer has a derivative by what was decided.

The result of a selection moves by the difference of its cases if its predicate is turned round. So
a decision is represented by a number c, and what reads it is evaluated such that

    select(c, f, t)         has the derivative  t - f  by c,
    not, and, or            are  1 - c,  a b,  a + b - a b,
    moves, casts to floats  are those of numbers.

An integer that a value was rounded to stands for the real number of the same size in arithmetic,
casts, moves and products. What something else reads, such as an index, a comparison or a branch, is
*hard*: it has no derivative.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Equation, Var
from verifiable.jaxpr.effects import MOVES, is_float
from verifiable.jaxpr.graph import Graph

_LOGIC = frozenset({"and", "not", "or"})
_ARITHMETIC = frozenset({"add", "clamp", "max", "min", "mul", "neg", "sub"})
_PRODUCTS = frozenset({"conv_general_dilated", "dot_general", "ragged_dot_general"})
_FAR = 1e30  # stands for an infinite difference


def is_hard(decision: Var, graph: Graph) -> bool:
    """Whether an equation reads a decision, or what follows from it, that has no derivative.

    Args:
      decision: the output of a claim; a float is never hard.
      graph: of the whole function.
    """
    if is_float(decision.dtype):
        return False
    pending, seen = [decision], {decision}
    while pending:
        variable = pending.pop()
        for reader in graph.readers.get(variable, ()):
            if reader is None or not _is_soft(reader, variable):
                return True
            follows = [v for v in reader.outputs if not is_float(v.dtype) and v not in seen]
            seen.update(follows)
            pending += follows
    return False


def _is_soft(reader: Equation, variable: Var) -> bool:
    kind, whole = reader.kind, variable.dtype != bool
    if whole:
        cast = kind == "convert_element_type" and reader.outputs[0].dtype != bool
        return cast or kind in MOVES | _ARITHMETIC | _PRODUCTS
    if kind == "select_n":
        predicate, *cases = reader.inputs
        numbers = len(cases) == 2 and is_float(cases[0].dtype) and variable not in cases
        return numbers and predicate is variable
    if kind == "convert_element_type":
        return is_float(reader.outputs[0].dtype)
    return kind in MOVES | _LOGIC


def apply(equation: Equation, values: Sequence[Array]) -> list[Array]:
    """Evaluate an equation, of whose boolean and integer inputs some may be real numbers."""
    pairs = zip(equation.inputs, values, strict=True)
    stand = [a.dtype for a, v in pairs if not is_float(a.dtype) and is_float(jnp.result_type(v))]
    if stand and bool not in stand:
        return _in_numbers(equation, values)
    if not stand:
        return interpret.apply(equation, values)
    if equation.kind == "select_n":
        return [_selected(*values)]
    if equation.kind == "convert_element_type":
        return [values[0].astype(equation.outputs[0].dtype)]
    if equation.kind not in _LOGIC:
        return interpret.apply(equation, values)
    a, *rest = (jnp.asarray(v, jnp.float32) for v in values)
    if equation.kind == "not":
        return [1 - a]
    [b] = rest
    return [a * b if equation.kind == "and" else a + b - a * b]


def _in_numbers(equation: Equation, values: Sequence[Array]) -> list[Array]:
    """Evaluate an equation of integers, some of which are real numbers."""
    if equation.kind == "convert_element_type":
        dtype = equation.outputs[0].dtype
        return [values[0].astype(dtype) if is_float(dtype) else values[0]]
    if equation.kind in _ARITHMETIC:
        wide = jnp.result_type(*(v.dtype for v in map(jnp.asarray, values) if is_float(v.dtype)))
        values = [jnp.asarray(v).astype(wide) for v in values]
    return interpret.apply(equation, values)


def _selected(decision: Array, false: Array, true: Array) -> Array:
    """The case of a decision, with their difference as its derivative."""
    difference = true - false
    difference = jnp.where(jnp.isnan(difference), 0, jnp.clip(difference, -_FAR, _FAR))
    difference = difference.astype(jnp.float32)
    turned = (decision - lax.stop_gradient(decision)) * lax.stop_gradient(difference)
    return jnp.where(decision > 0.5, true, false) + turned.astype(true.dtype)
