"""Functions that jump, as a decision and a function that does not jump.

`rem` and its like are continuous on each of some *pieces*, and have a continuation beyond the ends
of a piece: x - q y is a remainder for every integer q. `from_jax` replaces such an equation by

    value      what decides, by ordinary equations: x / y;
    piece      which piece it is: q = trunc(x / y);
    continued  the function on that piece, continued to where its operands are: x - q y.

`piece` is discontinuous, so it is a claim (`decisions.pieces`); `continued` is continuous, given
the piece. Where the piece is that of the operands, it returns what the primitive returns, bit for
bit.

A new function is a new entry of `FUNCTIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.jaxpr.blocks import Array

PIECE = "piece"
CONTINUED = "continued"
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """A function of floats, element by element, that jumps.

    Attributes:
      value: what decides, of the operands; not negative or negative, if there are no `ends`.
      own: the piece, of the value and the operands.
      continued: the function, of a piece and the operands; None if it is the piece itself.
      ends: the closed interval of values of each piece; None if the piece is a boolean, which is
        true where the value has the sign of negative numbers.
    """

    value: Callable[..., Array]
    own: Callable[..., Array]
    continued: Callable[..., Array] | None
    ends: Callable[[Array], tuple[Array, Array]] | None = None

    def dtype(self, source: np.dtype[Any]) -> np.dtype[Any]:
        """Type of the piece, given that of the operands: whole numbers are floats."""
        if self.ends is None:
            return np.dtype(bool)
        return np.dtype(np.float64 if source.itemsize == 8 else np.float32)


def _wide(x: Array) -> Array:
    x = jnp.asarray(x)
    return x if x.dtype.itemsize == 8 else x.astype(jnp.float32)


def _over(x: Array, y: Array) -> Array:
    return _wide(x) / _wide(y)


def _aligned(x: Array, y: Array) -> list[Array]:
    """Of one shape, and of one type where only one is widened to double precision."""
    dtype = jnp.promote_types(x.dtype, y.dtype)
    return [v.astype(dtype) for v in jnp.broadcast_arrays(x, y)]


def _rem(x: Array, y: Array) -> Array:
    return lax.rem(*_aligned(x, y))


def _quotient(x: Array, y: Array, r: Array) -> Array:
    """The whole number q of x = q y + r; zero where the remainder r is no number."""
    x, y = _wide(x), _wide(y)
    return _number(jnp.round((x - _wide(r)) / y))


def _number(q: Array) -> Array:
    return jnp.where(jnp.isfinite(q), q, 0)


def _truncate(_: Array, x: Array, y: Array) -> Array:
    return _quotient(x, y, _rem(x, y))


def _floor(_: Array, x: Array, y: Array) -> Array:
    return _quotient(x, y, jnp.remainder(x, y))


def _floor_divide(_: Array, x: Array, y: Array) -> Array:
    return _number(_wide(jnp.floor_divide(x, y)))


def _shifted(q: Array, own: Array, r: Array, y: Array) -> Array:
    """r, or what it is with another quotient than its own."""
    other = _wide(r) + (own - q) * _wide(y)
    return jnp.where(own == q, r, other.astype(r.dtype))


def _remainder(q: Array, x: Array, y: Array) -> Array:
    r = _rem(x, y)
    return _shifted(q, _quotient(x, y, r), r, y)


def _modulus(q: Array, x: Array, y: Array) -> Array:
    r = jnp.remainder(x, y)
    return _shifted(q, _quotient(x, y, r), r, y)


def _divided(q: Array, x: Array, y: Array) -> Array:
    own = jnp.floor_divide(x, y)
    return jnp.where(_number(_wide(own)) == q, own, q.astype(own.dtype))


def _truncated(q: Array) -> tuple[Array, Array]:
    return jnp.where(q > 0, q, q - 1), jnp.where(q < 0, q, q + 1)


def _floored(q: Array) -> tuple[Array, Array]:
    return q, q + 1


def _negative(value: Array, *_: Array) -> Array:
    """Whether the sign is that of a negative number, of zeros and NaN too."""
    return jnp.signbit(value)


def _first(x: Array, *_: Array) -> Array:
    return x


def _angle(below: Array, y: Array, x: Array) -> Array:
    """atan2, whose cut is crossed where y has not the sign that was decided."""
    y, x = _aligned(y, x)
    angle = lax.atan2(y, x)
    own = _negative(y)
    turned = _wide(angle) + jnp.where(own, 2 * math.pi, -2 * math.pi)
    return jnp.where((own != below) & (x < 0), turned.astype(angle.dtype), angle)


FUNCTIONS: Mapping[str, Pieces] = {
    "rem": Pieces(value=_over, own=_truncate, continued=_remainder, ends=_truncated),
    "atan2": Pieces(value=_first, own=_negative, continued=_angle),
    "signbit": Pieces(value=_first, own=_negative, continued=None),
    "remainder": Pieces(value=_over, own=_floor, continued=_modulus, ends=_floored),
    "floor_divide": Pieces(value=_over, own=_floor_divide, continued=_divided, ends=_floored),
}

# Functions of `jax.numpy` that are calls in a jaxpr. They are known by what they compute.
_CALLS: Mapping[str, Callable[..., Any]] = {
    "floor_divide": jnp.floor_divide,
    "remainder": jnp.remainder,
    "signbit": jnp.signbit,
}


def of(eqn: Any) -> str | None:
    """The entry that stands for an equation of JAX; None if there is none."""
    kind = eqn.primitive.name
    operands = [v.aval for v in eqn.invars]
    types = {str(getattr(a, "dtype", None)) for a in operands}
    if len(types) != 1 or not types <= _FLOATS:
        return None
    if kind in FUNCTIONS:
        return kind
    name = eqn.params.get("name")
    if kind not in ("jit", "pjit") or name not in _CALLS:
        return None
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in operands]
    try:
        [same, *others] = jax.make_jaxpr(_CALLS[name])(*shapes).eqns
    except (TypeError, ValueError):  # a function of the user's, or under `vmap`
        return None
    equal = not others and str(same.params.get("jaxpr")) == str(eqn.params["jaxpr"])
    return name if equal else None


def function(kind: str, name: str) -> Callable[..., Array]:
    """What an equation `piece` or `continued` of an entry computes."""
    entry = FUNCTIONS[name]
    if kind == PIECE:
        return entry.own
    if entry.continued is None:
        raise ValueError(f"expected a function beside its pieces, got {name}: read the piece")
    return entry.continued
