"""In how many bits a product is computed, as its parameter `precision` says.

By default, accelerators round float32 operands to fewer bits (TF32 or bfloat16), and which of them
do is nowhere in the program. So a default, or a coarse hint, is read as a wish for the highest
precision, on every device. An algorithm (`lax.DotAlgorithmPreset`) is in the program: it stays, and
counts as rounding of the operands, and of the sums.

Tensor cores add up products of 8-bit floats in some 14 bits, whatever precision is asked for, and
an algorithm may allow any device to do so (`allow_imprecise_accumulation`): these sums are
`TENSOR_CORE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.jaxpr.blocks import Atom, Equation
from verifiable.policy import TENSOR_CORE

_COARSE = (None, lax.Precision.DEFAULT, lax.Precision.HIGH)
_NARROWEST = 7  # stored bits of the significand of bfloat16, to which no device needs to round
_WHOLE = 22  # bits of a significand for which the tolerance of float32, of 24, has room


class RoundedTo(NamedTuple):
    """What the algorithm of a product rounds to.

    Attributes:
      operands: types to which it rounds its operands.
      sums: narrow types in which it adds up, or `TENSOR_CORE`.
    """

    operands: frozenset[str] = frozenset()
    sums: frozenset[str] = frozenset()


class _Named(NamedTuple):
    """What an algorithm says, whether it has a name or not.

    Attributes:
      operands: bits of the significands to which it rounds the operands.
      sums: name of the type in which it adds up.
      coarse: whether sums may be coarser than this type.
    """

    operands: tuple[int, ...] = ()
    sums: str = ""
    coarse: bool = False


def highest(given: Any, operands: Sequence[Atom]) -> Any:
    """The parameter `precision` as every device has to read it.

    Args:
      given: of an equation.
      operands: of the equation; if all are integers or as narrow as bfloat16, nothing is coarser.
    """
    floats = [a.dtype for a in operands if jnp.issubdtype(a.dtype, jnp.inexact)]
    if all(jnp.finfo(dtype).nmant <= _NARROWEST for dtype in floats):
        return given
    if given is None:
        return (lax.Precision.HIGHEST, lax.Precision.HIGHEST)
    if isinstance(given, lax.DotAlgorithm) or not isinstance(given, tuple):
        return given
    return tuple(lax.Precision.HIGHEST if p in _COARSE else p for p in given)


def algorithm(equation: Equation) -> RoundedTo:
    """What a product rounds to by its algorithm or operands; nothing for other equations.

    TF32 has as many bits as float16. With several parts of an operand (`X3` has two, `X6` and `X9`
    three) as many times as many.
    """
    named = _named(equation.params.get("precision"))
    fitting = (
        [name for name, own in _TYPES.items() if own <= bits < _WHOLE][-1:]
        for bits in named.operands
    )
    sums = {named.sums} & _TYPES.keys()
    product = "precision" in equation.params
    if named.coarse or (product and all(_of_8_bits(a) for a in equation.inputs[:2])):
        sums |= {TENSOR_CORE}
    return RoundedTo(frozenset(name for names in fitting for name in names), frozenset(sums))


def _of_8_bits(a: Atom) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating) and a.dtype.itemsize == 1


def _named(given: Any) -> _Named:
    if isinstance(given, lax.DotAlgorithm):
        operands = (
            (given.lhs_precision_type, given.lhs_component_count),
            (given.rhs_precision_type, given.rhs_component_count),
        )
        floats = [(t, parts) for t, parts in operands if jnp.issubdtype(t, jnp.floating)]
        bits = ((jnp.finfo(dtype).nmant + 1) * parts for dtype, parts in floats)
        coarse = given.allow_imprecise_accumulation and bool(floats)
        return _Named(tuple(bits), np.dtype(given.accumulation_type).name, coarse=coarse)
    name = getattr(given, "name", "")
    operand, _, rest = name.partition("_")
    if operand not in _SIGNIFICANDS:
        return _Named(coarse=name.startswith("ANY_F8"))
    out, _, times = rest.partition("_")[2].partition("_")
    return _Named((_SIGNIFICANDS[operand] * _PARTS.get(times, 1),), _SUMS.get(out, ""))


_SIGNIFICANDS = {"F16": 11, "BF16": 8, "TF32": 11}
_TYPES = {"bfloat16": 8, "float16": 11}
_PARTS = {"X3": 2, "X6": 3, "X9": 3}
_SUMS = {"F16": "float16", "BF16": "bfloat16"}
