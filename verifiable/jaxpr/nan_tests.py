"""Comparisons that only ask whether a value is a number, or finite.

`x != x` and its like hold for NaN alone, and a comparison with an infinity changes only between the
largest finite number and infinity. No rounding of an honest value turns one answer into the other,
so these are exact, as `is_finite` is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from verifiable.jaxpr.blocks import Atom, Equation, Literal, Var
from verifiable.jaxpr.effects import Effect, effects_of, is_float

Producers = Mapping[Var, Equation]

COMPARISONS = frozenset("eq ge gt le lt ne".split())

_COPIES = frozenset("broadcast_in_dim convert_element_type copy copy_p reshape".split())


def asks_only(equation: Equation, producers: Producers) -> bool:
    """Whether an equation compares a value with itself or with an infinity.

    Args:
      equation: any.
      producers: the equation that computes each variable.
    """
    if equation.kind not in COMPARISONS:
        return False
    left, right = equation.inputs
    return _same(left, right, producers) or any(
        _infinite(side, producers) for side in equation.inputs
    )


def _same(a: Atom, b: Atom, producers: Producers) -> bool:
    """Whether two values are the same value, moved in the same way."""
    a, b = _original(a, producers), _original(b, producers)
    if a is b:
        return True
    if isinstance(a, Literal) or isinstance(b, Literal):
        return isinstance(a, Literal) and isinstance(b, Literal) and _equal(a, b)
    one, other = producers.get(a), producers.get(b)
    if one is None or other is None or one.kind != other.kind or one.bodies:
        return False
    if set(effects_of(one)) != {Effect.EXACT} or dict(one.params) != dict(other.params):
        return False
    if one.outputs.index(a) != other.outputs.index(b) or len(one.inputs) != len(other.inputs):
        return False
    return all(_same(x, y, producers) for x, y in zip(one.inputs, other.inputs, strict=True))


def _equal(a: Literal, b: Literal) -> bool:
    return a.dtype == b.dtype and a.value.tobytes() == b.value.tobytes()


def _original(atom: Atom, producers: Producers) -> Atom:
    """The value that an atom is a copy of, in the same shape and type."""
    while isinstance(atom, Var):
        equation = producers.get(atom)
        if equation is None or equation.kind not in _COPIES:
            break
        [source] = equation.inputs
        if source.shape != atom.shape or source.dtype != atom.dtype:
            break
        atom = source
    return atom


def _infinite(atom: Atom, producers: Producers) -> bool:
    """Whether a value is infinity everywhere, or minus infinity everywhere."""
    while isinstance(atom, Var):
        equation = producers.get(atom)
        if equation is None or equation.kind not in _COPIES:
            return False
        atom = equation.inputs[0]
    return is_float(atom.dtype) and bool(np.isinf(np.asarray(atom.value, np.complex128)))
