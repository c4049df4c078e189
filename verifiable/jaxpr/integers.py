"""Which values are integers, and how large they can be: where arithmetic on floats is exact.

A type whose significand has p bits holds every integer up to 2^p. If the terms of a sum or product
are integers and the largest possible result is at most 2^p, so are all partial results, in any
order: no device rounds. A bound is None where a value need not be an integer, or may be larger.
Whatever is not proven here is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from verifiable.jaxpr.blocks import Atom, Equation, Literal, Var
from verifiable.jaxpr.effects import FLOATS
from verifiable.jaxpr.sums import terms

Bound = int | None
Bounds = Sequence[int]

# Operands of products are rounded to bfloat16 on some devices, unless the program asks for more.
_OPERAND = 2**8

_MOVES = frozenset(
    """
    broadcast_in_dim concatenate convert_element_type copy copy_p cummax cummin dynamic_slice
    dynamic_update_slice expand_dims max min optimization_barrier pad reduce_max reduce_min reshape
    rev select_n slice sort split squeeze stack stop_gradient tile transpose unstack
    """.split()
)
_RULES: Mapping[str, Callable[[Bounds], int]] = {
    "abs": max,
    "neg": max,
    "add": sum,
    "add_any": sum,
    "sub": sum,
    "mul": math.prod,
    "square": lambda bounds: bounds[0] ** 2,
}
_SUMS = frozenset({"reduce_sum", "cumsum", "reduce_window_sum"})
_PRODUCTS = frozenset({"dot_general", "conv_general_dilated"})


def of_type(atom: Atom) -> Bound:
    """The bound of a value of which nothing but its type is known, or of a literal."""
    dtype = atom.dtype
    if isinstance(atom, Literal):
        value = complex(atom.value) if _numeric(dtype) else math.nan
        real = value.real if not value.imag else math.nan
        return _fitting(abs(int(real)), dtype) if float(real).is_integer() else None
    if dtype == np.bool_:
        return 1
    if jnp.issubdtype(dtype, np.integer):
        info = jnp.iinfo(dtype)
        return max(-int(info.min), int(info.max))
    return None


def of_output(equation: Equation, output: Var, inputs: Sequence[Bound]) -> Bound:
    """The bound of an output of an equation that is evaluated, given those of its inputs."""
    found = None if _wraps(equation, output) else _computed(equation, inputs)
    bound = None if found is None else _fitting(found, output.dtype)
    return of_type(output) if bound is None else bound


def _computed(equation: Equation, inputs: Sequence[Bound]) -> Bound:
    kind = equation.kind
    if kind == "iota":
        return max(equation.params["shape"][equation.params["dimension"]] - 1, 0)
    # What chooses among the cases, or says where a value goes, is no part of the result.
    taken = inputs[1:] if kind == "select_n" else inputs
    if kind in ("dynamic_slice", "dynamic_update_slice"):
        taken = inputs[: 1 + (kind == "dynamic_update_slice")]
    bounds = [b for b in taken if b is not None]
    if len(bounds) < len(taken) or not bounds:
        return None
    if kind == "clamp":
        return max(bounds[0], bounds[2])
    if kind == "integer_pow" and equation.params["y"] >= 0:
        return bounds[0] ** equation.params["y"]
    if kind in _MOVES:
        return max(bounds)
    if kind in _RULES:
        return _RULES[kind](bounds)
    if kind in _SUMS:
        return bounds[0] * terms(equation)
    if kind in _PRODUCTS and max(bounds) <= _OPERAND:
        return math.prod(bounds) * terms(equation)
    return None


def _wraps(equation: Equation, output: Var) -> bool:
    """Whether a negative number may become a large unsigned one."""
    unsigned = jnp.issubdtype(output.dtype, np.unsignedinteger)
    return unsigned and equation.kind in ("neg", "sub", "convert_element_type")


def _fitting(bound: int, dtype: np.dtype) -> Bound:
    """The bound, if a type holds every integer up to it."""
    if dtype.name in FLOATS:
        return bound if bound <= 2 ** (jnp.finfo(dtype).nmant + 1) else None
    if jnp.issubdtype(dtype, np.integer):
        return bound if bound <= int(jnp.iinfo(dtype).max) else None
    return bound if dtype == np.bool_ and bound <= 1 else None


def _numeric(dtype: np.dtype) -> bool:
    return dtype == np.bool_ or jnp.issubdtype(dtype, np.number)
