"""What honest rounding in a narrow type does to a row, as far as its glue can be followed.

A value that all elements of a row share, such as the reciprocal of its norm, moves the row in one
direction when it is rounded another way; what is computed of each element moves that element alone.
With v the row in float32, from exact values on, g_j the derivative of v by shared value j times
what that may lose, and a_k what the other operations may lose of element k, to first order,

    device's v = v + sum_j alpha_j g_j + e,      |alpha_j| <= 1,  |e_k| <= a_k

An operation in float16 or bfloat16 loses at most a unit in the last place of its result. What
operations lose of one element adds up linearly: a device that truncates errs to one side in all of
them. Over the elements of a row it adds up in squares, and the mean square of an error that is
uniform up to its bound is a third of its square.

Of a rounded row q, alpha is fitted (least squares), and the distances d_k of v + alpha g from the
values that round to q are held to

    sqrt(sum_k d_k^2 / m_k^2) <= sqrt(n) + 4,    m_k^2 = a_k^2 / 3 + ulp^2 / 24

the last term only where v is computed in the type itself: a device that takes either neighbour of v
is beyond the middle between them by a mean square of ulp^2 / 24. The sum has mean n and a standard
deviation of at most 1.6 sqrt(n): chance exceeds the limit as seldom as a normal number exceeds five
standard deviations. A factor of the whole row leaves no choice, so that of a norm a cheat is left
no more than the choice between the two neighbours of each element.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.claims.origin import Origin
from verifiable.claims.roundings.axes import Axes, in_rows, lying, span
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Equation, Var
from verifiable.jaxpr.effects import HALF_PRECISION, SPREADS, Effect, effects_of

BEYOND = 4.0
SINGLE = 8 * 2.0**-24  # what an operation in float32 loses

_MOVES = SPREADS | {"transpose"}
_ALONG = frozenset({"reduce_max", "reduce_min", "reduce_sum"})
_ALONE = frozenset(
    "abs add convert_element_type div exp integer_pow logistic max min mul neg "
    "optimization_barrier rsqrt sqrt square sub tanh".split()
)


class RowErrors(NamedTuple):
    """A value in float32, and how other rounding moves it.

    Attributes:
      value: the value.
      own: a_k, what each element may lose by itself; None of an exact value.
      shared: by name, the directions in which all elements are moved together.
      clear: whether all of it was finite.
    """

    value: Array
    own: Array | None
    shared: dict[int, Array]
    clear: Array | None = None

    def in_rows(self, axes: Axes) -> RowErrors:
        """The same as (rows, elements)."""
        own = None if self.own is None else in_rows(self.own, axes)
        shared = {name: in_rows(x, axes) for name, x in self.shared.items()}
        return RowErrors(in_rows(self.value, axes), own, shared)

    def where_finite(self, value: Array) -> RowErrors:
        """The same where it is finite, else another value that nothing moves."""
        parts = [self.value, *([] if self.own is None else [self.own]), *self.shared.values()]
        finite = functools.reduce(jnp.logical_and, [jnp.isfinite(x) for x in parts])
        own = None if self.own is None else jnp.where(finite, self.own, 0)
        shared = {name: jnp.where(finite, x, 0) for name, x in self.shared.items()}
        return RowErrors(jnp.where(finite, self.value, value), own, shared, finite)

    def bounds(self) -> tuple[Array, Array]:
        """How far each element may be moved by itself, and how far together with its row."""
        zero = jnp.zeros_like(self.value)
        alone = zero if self.own is None else self.own
        return alone, sum((jnp.abs(x) for x in self.shared.values()), zero)


def follows(origin: Origin, axes: Axes) -> bool:
    """Whether the module's equation holds of a value: all of its glue keeps to its rows.

    Args:
      origin: the glue before it.
      axes: along which its rows lie.
    """
    narrow = any(v.dtype.name in HALF_PRECISION for e in origin.equations for v in e.outputs)
    kinds = all(e.kind in _MOVES | _ALONG | _ALONE for e in origin.equations)
    if not (narrow and kinds and all(origin.exact)):
        return False
    return lying(origin.equations, origin.value, axes) is not None


def errors(origin: Origin, axes: Axes, leaves: Sequence[Array], *, rounded: bool) -> RowErrors:
    """A value and its errors.

    Args:
      origin: the glue before it, which `follows`.
      axes: along which its rows lie.
      leaves: what it is computed from.
      rounded: whether the last operation's own loss counts.
    """
    found: dict[Var, RowErrors] = {}
    along = lying(origin.equations, origin.value, axes)
    if along is None:
        raise AssertionError("only glue that keeps to rows has errors")
    spans = {v: span(v, a) for v, a in along.items()}
    for v, x in zip(origin.leaves, leaves, strict=True):
        found[v] = _exact(jnp.asarray(x))
    for number, equation in enumerate(origin.equations):
        given = [_read(found, a) for a in equation.inputs]
        [out] = equation.outputs
        joins = [isinstance(a, Var) and spans[a] != spans[out] for a in equation.inputs]
        if equation.kind in _MOVES:
            found[out] = _moved(equation, given[0], number, shares=joins[0])
            continue
        last = equation is origin.equations[-1] and not rounded
        found[out] = _computed(equation, given, number, joins, 0.0 if last else 1.0)
    return _read(found, origin.value)


def excess(found: RowErrors, low: Array, high: Array, claim: Array, rounds: Array | None) -> Array:
    """The norm of the distances of each row over its limit.

    Args:
      found: of the rows before the rounding, (rows, n).
      low: the least of the values that round to the claim.
      high: the largest.
      claim: the rounded rows.
      rounds: the unit in the last place of a value that was computed in the narrow type, or None.
    """
    square = jnp.zeros_like(low) if found.own is None else found.own * found.own / 3
    if rounds is not None:
        square = square + rounds * rounds / 24
    least = float(jnp.finfo(jnp.float32).tiny)
    size = jnp.sqrt(jnp.maximum(square, least))
    # What is rounded lies anywhere between the two ends.
    noise = jnp.sqrt(jnp.maximum(square + jnp.square(high - low) / 12, least))
    moved = found.value
    basis: list[Array] = []
    for direction in found.shared.values():
        unit = direction / noise
        for other in basis:
            unit = unit - jnp.sum(unit * other, axis=-1, keepdims=True) * other
        norm = jnp.sqrt(jnp.sum(unit * unit, axis=-1, keepdims=True))
        unit = jnp.where(norm > 0, unit / jnp.where(norm > 0, norm, 1), 0)
        basis.append(unit)
        short = jnp.sum((claim - moved) / noise * unit, axis=-1, keepdims=True)
        moved = moved + jnp.where(unit == 0, 0, short * unit * noise)
    short = jnp.maximum(jnp.maximum(low - moved, moved - high), 0) / size
    norm = jnp.sqrt(jnp.sum(short * short, axis=-1)) / (np.sqrt(moved.shape[-1]) + BEYOND)
    norm = jnp.where(jnp.isnan(norm), jnp.inf, norm)
    if found.clear is None:
        return norm
    # Derivatives at zero may be infinite: the row is held to its slack alone.
    return jnp.where(jnp.all(found.clear, axis=-1), norm, 0)


def ulp(x: Array, dtype: np.dtype[np.generic]) -> Array:
    """The unit in the last place of numbers of a narrow type, given as float32."""
    info = jnp.finfo(dtype)
    power = lax.bitcast_convert_type(
        lax.bitcast_convert_type(x, jnp.int32) & jnp.int32(0x7F800000), jnp.float32
    )
    return jnp.maximum(power, float(info.tiny)) * float(info.eps)


def _exact(x: Array) -> RowErrors:
    x = x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x
    return RowErrors(x, None, {})


def _read(found: dict[Var, RowErrors], atom: Atom) -> RowErrors:
    return found[atom] if isinstance(atom, Var) else _exact(jnp.asarray(atom.value))


def _moved(equation: Equation, given: RowErrors, number: int, *, shares: bool) -> RowErrors:
    """A value that is moved; one that is repeated along a row is shared by it."""

    def move(x: Array) -> Array:
        return interpret.apply(equation, [x])[0]

    shared = {name: move(x) for name, x in given.shared.items()}
    own = None if given.own is None else move(given.own)
    if own is not None and shares:
        shared[number] = own
        own = jnp.zeros_like(own)
    return RowErrors(move(given.value), own, shared)


def _computed(
    equation: Equation,
    given: Sequence[RowErrors],
    number: int,
    shares: Sequence[bool],
    loses: float,
) -> RowErrors:
    """A value that is computed; an operand of which a row has one number is shared by it."""
    values = [x.value for x in given]
    value = _wide(equation, values)
    own, shared = jnp.zeros(value.shape, jnp.float32), dict[int, Array]()
    for place, x in enumerate(given):
        if x.own is None:
            continue

        def along(z: Array, place: int = place) -> Array:
            return _wide(equation, [*values[:place], z, *values[place + 1 :]])

        if equation.kind in _ALONG:
            together = jnp.sum if equation.kind == "reduce_sum" else jnp.max
            own = own + together(x.own, axis=tuple(equation.params["axes"]))
        else:
            slope = jax.jvp(along, (x.value,), (jnp.ones_like(x.value),))[1]
            if shares[place]:
                shared[number] = shared.get(number, 0) + slope * x.own
            else:
                own = own + jnp.abs(slope) * x.own
        for name, direction in x.shared.items():
            change = jax.jvp(along, (x.value,), (direction,))[1]
            shared[name] = shared[name] + change if name in shared else change
    dtype = equation.outputs[0].dtype
    if effects_of(equation)[0] in (Effect.CONTINUOUS, Effect.NARROW):
        narrow = dtype.name in HALF_PRECISION
        lost = ulp(value, dtype) if narrow else SINGLE * jnp.abs(value)
        own = own + loses * lost
    return RowErrors(value, own, shared)


def _wide(equation: Equation, values: Sequence[Array]) -> Array:
    """The result in float32."""
    if equation.kind == "convert_element_type":
        return values[0].astype(jnp.float32)
    return interpret.apply(equation, list(values))[0].astype(jnp.float32)
