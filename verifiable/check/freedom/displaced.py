"""Values with how far a device may move them, and what equations make of both.

A claim passes within its tolerance, and what is computed from it moves along. With v a replayed
value and e how far each element may be moved,

    moves, selections         e of the element that was moved or selected; if the condition may turn
                              round, the distance of what else is selected
    rising functions          the larger of  f(v + e) - f(v)  and  f(v) - f(v - e): max, casts to
                              fewer digits or to integers, floor, sort, ...
    add, sub, sums            the sum of e
    mul, products             |v_1| e_2 + |v_2| e_1 + e_1 e_2
    div                       (e_1 + |v| e_2) / (|v_2| - e_2)
    other functions           sum over operands of the largest |f(v +- e) - f(v)|
    comparisons               one where the operands are as close as they may be moved, else zero

and a unit in the last place where the result is rounded. Infinities are the same on all devices.
The bounds are of single elements: what moves a whole row alike is counted for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from verifiable.check.tiling.rules import ELEMENTWISE
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Equation
from verifiable.jaxpr.effects import MOVES, PRIMITIVES, Effect, is_float

COMPARISONS = frozenset("eq ge gt le le_to lt lt_to ne".split())
INDICES: Mapping[str, slice] = {
    "dynamic_slice": slice(1, None),
    "dynamic_update_slice": slice(2, None),
    "gather": slice(1, None),
    "scatter": slice(1, 2),
    "scatter-add": slice(1, 2),
    "scatter_add": slice(1, 2),
}
"""Inputs of these primitives that are indices: a moved one is a choice of its own."""

_MOVES = MOVES | frozenset(
    "concatenate cut device_put dynamic_slice dynamic_update_slice gather opt_barrier "
    "optimization_barrier pad select_n split stack stop_gradient table tile unstack".split()
)
_RISING = frozenset(
    "ceil clamp convert_element_type cummax cummin cumlogsumexp floor max min reduce_max "
    "reduce_min reduce_precision reduce_window_max reduce_window_min round sign sort".split()
)
_SAME = frozenset({"abs", "neg", "not"})
_SUMS = frozenset({"add", "add_any", "cumsum", "reduce_sum", "reduce_window_sum", "sub"})
_PRODUCTS = frozenset({"conv_general_dilated", "dot_general", "mul"})
_LOGIC = frozenset({"and", "or", "xor"})
_ANY = frozenset({"reduce_and", "reduce_or"})
_SCATTERS = frozenset({"scatter", "scatter-add", "scatter_add"})
_FUNCTIONS = (ELEMENTWISE & PRIMITIVES[Effect.CONTINUOUS]) - (
    _SUMS | _PRODUCTS | {"continued", "div", "nextafter", "polynomial"}
)
UNMOVED = frozenset("approx_top_k argmax argmin is_finite".split())
"""Of these, all results are decided, and what is decided is listed where it is."""

_FOLLOWED = (
    _MOVES | _RISING | _SAME | _SUMS | _PRODUCTS | _LOGIC | _ANY | _SCATTERS | _FUNCTIONS
) | (COMPARISONS | {"div", "top_k"})


class Moved(NamedTuple):
    """A value, and how far each element may be moved; float64, of its shape.

    Attributes:
      value: as the verifier replays it.
      spare: by roundings before the last products.
      total: by these, and by a deviation of the products that hardly passes.
    """

    value: Array
    spare: Array
    total: Array


def follows(equation: Equation) -> bool:
    """Whether the module says how far an equation's results are moved by its operands."""
    if equation.bodies:
        return False
    types = [a.dtype for a in (*equation.inputs, *equation.outputs)]
    if any(jnp.issubdtype(t, jnp.complexfloating) for t in types):
        return False
    kind = equation.kind
    if kind in _LOGIC:
        return equation.outputs[0].dtype == bool
    if kind in _FUNCTIONS | {"div"}:
        return is_float(equation.outputs[0].dtype)
    return kind in _FOLLOWED | UNMOVED


def plain(value: Any) -> Array:
    """The value alone."""
    return value.value if isinstance(value, Moved) else value


def filled(value: Any) -> Moved:
    """A value that may be moved, by zero if it is none."""
    if isinstance(value, Moved):
        return value
    zero = jnp.zeros(jnp.shape(value), jnp.float64)
    return Moved(value, zero, zero)


def apply(equation: Equation, values: Sequence[Any]) -> list[Any]:
    """The results of an equation without bodies, whose operands may be moved.

    Results of primitives that `follows` does not know are values alone.
    """
    own = [plain(x) for x in values]
    outputs = interpret.apply(equation, own)
    moved = any(isinstance(x, Moved) for x in values)
    if not moved or equation.kind in UNMOVED or not follows(equation):
        return outputs
    both = [filled(x) for x in values]
    spare = _bounds(equation, own, outputs, [x.spare for x in both])
    total = _bounds(equation, own, outputs, [x.total for x in both])
    return [
        out if a is None or b is None else Moved(out, a, b)
        for out, a, b in zip(outputs, spare, total, strict=True)
    ]


def _bounds(
    equation: Equation, values: list[Array], outputs: list[Array], bounds: list[Array]
) -> list[Array | None]:
    """How far each result is moved; None of one that is decided."""
    kind = equation.kind
    if kind == "sort" and len(values) > 1:
        return list(_sorted(equation, values, bounds))
    if kind in _MOVES:
        found = _selected(equation, values, bounds)
        return [_settled(x, out) for x, out in zip(found, outputs, strict=True)]
    wide = [x if kind in INDICES else jnp.asarray(x).astype(jnp.float64) for x in values]
    if kind == "top_k":
        return [_settled(_largest(equation, wide, bounds, outputs[0]), outputs[0]), None]
    found = [_rule(equation)(equation, wide, bounds, outputs[0])]
    return [_settled(x, out) for x, out in zip(found, outputs, strict=True)]


def _settled(bound: Array, out: Array) -> Array:
    """A bound with what rounding the result adds; zero at infinities, infinite if it is NaN."""
    bound = jnp.broadcast_to(bound, jnp.shape(out))
    if not is_float(out.dtype):
        return bound
    value = jnp.asarray(out).astype(jnp.float64)
    last = jnp.where(bound > 0, float(jnp.finfo(out.dtype).eps) * jnp.abs(value), 0)
    bound = jnp.where(jnp.isnan(bound), jnp.inf, bound + last)
    return jnp.where(jnp.isfinite(value), bound, 0)


Rule = Callable[[Equation, list[Array], list[Array], Array], Array]


def _rule(equation: Equation) -> Rule:
    kind = equation.kind
    for kinds, rule in _RULES:
        if kind in kinds:
            return rule
    raise AssertionError(f"{kind} is not followed")


def _wide(equation: Equation, values: Sequence[Array]) -> Array:
    """A result in float64; casts are to their own type and back."""
    if equation.kind == "convert_element_type":
        return _cast(values[0], equation.outputs[0].dtype)
    if "preferred_element_type" in equation.params:
        params = {**equation.params, "preferred_element_type": jnp.dtype(jnp.float64)}
        equation = replace(equation, params=params)
    return interpret.apply(equation, values)[0]


def _cast(value: Array, dtype: Any) -> Array:
    if jnp.issubdtype(dtype, jnp.bool_):
        return (value != 0).astype(jnp.float64)
    if is_float(dtype):
        return value.astype(dtype).astype(jnp.float64)
    info = jnp.iinfo(dtype)
    return jnp.clip(jnp.trunc(value), int(info.min), int(info.max))


def _ends(equation: Equation, values: list[Array], bounds: list[Array], *_: Any) -> Array:
    own = _wide(equation, values)
    if equation.outputs[0].dtype == bool:  # a number as a boolean rises with its distance from zero
        turned = (bounds[0] > 0) & (jnp.abs(values[0]) <= bounds[0])
        return turned.astype(jnp.float64)
    up, down = (
        _wide(equation, [v + way * b for v, b in zip(values, bounds, strict=True)])
        for way in (1, -1)
    )
    return jnp.maximum(jnp.abs(up - own), jnp.abs(own - down))


def _largest(equation: Equation, values: list[Array], bounds: list[Array], out: Array) -> Array:
    """How far the largest values are moved."""
    if not is_float(out.dtype) or out.dtype == jnp.float64:
        return _ends(equation, values, bounds)
    # XLA would sort whole rows of float64 on CPUs: ends are rounded away from the value instead.
    own, far = out.astype(jnp.float64), list[Array]()
    for way in (1, -1):
        end = values[0] + way * bounds[0]
        near = end.astype(jnp.float32)
        short = way * (end - near.astype(jnp.float64)) > 0
        away = jnp.where(short, jnp.nextafter(near, jnp.float32(way * jnp.inf)), near)
        far.append(jnp.abs(interpret.apply(equation, [away])[0].astype(jnp.float64) - own))
    return jnp.maximum(*far)


def _selected(equation: Equation, values: list[Array], bounds: list[Array]) -> list[Array]:
    """Bounds of elements that are moved or selected."""
    kind = equation.kind
    if kind == "select_n":
        [found] = interpret.apply(equation, [values[0], *bounds[1:]])
        which = jnp.broadcast_to(bounds[0], found.shape) > 0
        cases = [jnp.asarray(x).astype(jnp.float64) for x in values[1:]]
        [own] = interpret.apply(equation, [values[0], *cases])
        # Of infinities that are both selected, the difference is no number.
        far = [
            jnp.where(x == own, 0, jnp.abs(x - own)) + b
            for x, b in zip(cases, bounds[1:], strict=True)
        ]
        return [jnp.where(which, jnp.max(jnp.stack(far), axis=0), found)]
    places = range(len(values))[INDICES.get(kind, slice(0, 0))]
    return interpret.apply(
        equation, [values[i] if i in places else b for i, b in enumerate(bounds)]
    )


def _sorted(equation: Equation, values: list[Array], bounds: list[Array]) -> Sequence[Array]:
    """Bounds that are moved as a sort of several operands moves these."""
    params = equation.params
    both = lax.sort(
        [*values, *bounds],
        dimension=params["dimension"],
        is_stable=params["is_stable"],
        num_keys=params["num_keys"],
    )
    return both[len(values) :]


def _sum(equation: Equation, values: list[Array], bounds: list[Array], out: Array) -> Array:
    if equation.kind in ("add", "add_any", "sub"):
        return bounds[0] + bounds[1]
    return _wide(equation, bounds)


def _product(equation: Equation, values: list[Array], bounds: list[Array], out: Array) -> Array:
    (a, b), (x, y) = map(jnp.abs, values), bounds
    pairs = ((a, y), (x, b), (x, y))
    return sum((_wide(equation, pair) for pair in pairs), jnp.zeros(out.shape))


def _quotient(equation: Equation, values: list[Array], bounds: list[Array], out: Array) -> Array:
    nearest = jnp.abs(values[1]) - bounds[1]
    far = bounds[0] + jnp.abs(values[0] / values[1]) * bounds[1]
    return jnp.where(far == 0, 0, jnp.where(nearest > 0, far / nearest, jnp.inf))


def _function(equation: Equation, values: list[Array], bounds: list[Array], out: Array) -> Array:
    own, total = _wide(equation, values), jnp.zeros(out.shape)
    for i, (v, b) in enumerate(zip(values, bounds, strict=True)):
        ends = [[*values[:i], v + way * b, *values[i + 1 :]] for way in (1, -1)]
        up, down = (jnp.abs(_wide(equation, x) - own) for x in ends)
        total += jnp.maximum(up, down)
    return total


def _turned(equation: Equation, values: list[Array], bounds: list[Array], out: Array) -> Array:
    room = bounds[0] + bounds[1]
    near = (values[0] == values[1]) | (jnp.abs(values[0] - values[1]) <= room)
    return ((room > 0) & near).astype(jnp.float64)


def _either(equation: Equation, values: list[Array], bounds: list[Array], out: Array) -> Array:
    return jnp.maximum(*bounds)


def _any(equation: Equation, values: list[Array], bounds: list[Array], out: Array) -> Array:
    return jnp.max(bounds[0], axis=tuple(equation.params["axes"]), initial=0)


def _scattered(equation: Equation, values: list[Array], bounds: list[Array], out: Array) -> Array:
    params = equation.params
    put = lax.scatter if equation.kind == "scatter" else lax.scatter_add
    return put(
        bounds[0],
        values[1],
        bounds[2],
        params["dimension_numbers"],
        indices_are_sorted=params["indices_are_sorted"],
        unique_indices=params["unique_indices"],
        mode=params["mode"],
    )


_RULES: tuple[tuple[frozenset[str], Rule], ...] = (
    (_RISING, _ends),
    (_SAME, lambda equation, values, bounds, out: bounds[0]),
    (_SUMS, _sum),
    (_PRODUCTS, _product),
    (frozenset({"div"}), _quotient),
    (_FUNCTIONS, _function),
    (COMPARISONS, _turned),
    (_LOGIC, _either),
    (_ANY, _any),
    (_SCATTERS, _scattered),
)
