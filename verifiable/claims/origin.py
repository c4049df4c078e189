"""How far rounding may move a value that is replayed from exact ones, element by element.

The rms of a row says how large the numbers are from which its elements were computed, unless the
row has elements of other sizes: a mask of -1e7, an outlier, two scales. So the glue before a value
is followed back to exact values, and each element has a bound of its own. With v the value, e its
bound, and  r = eps |v| + tiny  what the operation itself may lose,

    exact                     e = 0
    moves, selections         e of the element that was moved or selected
    max, min, sort            the larger of  f(v + e) - f(v)  and  f(v) - f(v - e)
    add, sub                  e_1 + e_2 + r
    mul                       |v_1| e_2 + |v_2| e_1 + e_1 e_2 + r
    div                       (e_1 + |v| e_2) / (|v_2| - e_2) + r
    sums                      sum(e) + eps sum |v| + tiny
    functions                 sum over operands of the largest |f(v +- e) - f(v)|, + r

Where the glue goes further than it can be followed (a product, a loop, a known value), the value is
a leaf with the slack of its row. The bound is to first order in eps, which is many units in the
last place, and holds where it is finite; the slack of the row bounds it from above (`slack`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from verifiable.claims import slack
from verifiable.claims.extremes import tiny
from verifiable.claims.form import View
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Env, Equation, Literal, Var
from verifiable.jaxpr.effects import FLOATS, MOVES

MOST = 128  # equations that are followed
SMALL = 2.0**-20  # an eps at which bounds are proportional to it

_MOVES = MOVES | {"concatenate", "dynamic_slice", "gather", "pad", "select_n"}
_RISING = frozenset("clamp cummax cummin max min reduce_max reduce_min sort".split())
_SUMS = frozenset({"cumsum", "reduce_sum", "reduce_window_sum"})
_SAME = frozenset({"abs", "convert_element_type", "neg", "optimization_barrier"})
_FUNCTIONS = frozenset(
    "acos acosh asin asinh atan atan2 atanh cbrt cosh erf erf_inv erfc exp exp2 expm1 integer_pow "
    "logistic pow rsqrt sinh sqrt square tan tanh".split()
)
# Off by a part of one where the result is near zero, in some libraries.
_ABSOLUTE = frozenset("cos digamma lgamma log log1p log2 sin".split())
_FOLLOWED = _MOVES | _RISING | _SUMS | _SAME | _FUNCTIONS | _ABSOLUTE | {"add", "sub", "mul", "div"}


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """The glue before one value.

    Attributes:
      value: the value.
      equations: in order.
      leaves: what they read.
      exact: of each leaf, whether honest devices compute the same bits.
    """

    value: Atom
    equations: tuple[Equation, ...]
    leaves: tuple[Var, ...]
    exact: tuple[bool, ...]

    def bound(self, leaves: Sequence[Array], eps: float) -> Array:
        """The bound of each element, in float32 or float64; not finite where there is none.

        Args:
          leaves: their values.
          eps: what an operation may lose, as a fraction of its result.
        """
        wide = jnp.float64 if any(_bytes(x) == 8 for x in leaves) else jnp.float32
        env: Env = {}
        bounds: Env = {}
        for v, x, exact in zip(self.leaves, leaves, self.exact, strict=True):
            # A decision that has derivatives is a float (`Form.smooth`).
            env[v] = x if x.dtype == v.dtype else jnp.asarray(x).astype(v.dtype)
            if v.dtype.name in FLOATS:
                env[v] = jnp.asarray(x).astype(wide)
                bounds[v] = jnp.zeros(v.shape, wide)
                if not exact:
                    bounds[v] = slack.of_numbers(env[v], eps, v.dtype)
        for equation in self.equations:
            values = [_read(env, a, wide) for a in equation.inputs]
            given = [_bound(bounds, a, x) for a, x in zip(equation.inputs, values, strict=True)]
            [out] = equation.outputs
            env[out] = _apply(equation, values)
            found = _step(equation, values, given, env[out], eps)
            # All devices agree on an infinity, such as that of a mask.
            bounds[out] = jnp.where(jnp.isfinite(env[out]), found, 0)
        return _bound(bounds, self.value, _read(env, self.value, wide))


def before(atom: Atom, view: View) -> Origin | None:
    """The glue before a value; None if it cannot be followed at all."""
    search = _Followed(view, {}, [])
    search.visit(atom)
    if not search.equations:
        return None
    leaves = tuple(search.leaves)
    return Origin(atom, tuple(search.equations), leaves, tuple(search.leaves[v] for v in leaves))


def read_by(several: Sequence[Origin | None]) -> tuple[Var, ...]:
    """The leaves of the glue before some values, one after the other: operands after these."""
    return tuple(v for one in several if one is not None for v in one.leaves)


def keys_of(several: Sequence[Origin | None], operands: list[Array]) -> list[Array]:
    """The values themselves, of operands with the leaves after them."""
    return operands[: len(operands) - len(read_by(several))]


def leaves_of(several: Sequence[Origin | None], operands: list[Array]) -> list[Array]:
    """The leaves, of operands with these after the values."""
    return operands[len(operands) - len(read_by(several)) :]


def bounds(
    several: Sequence[Origin | None], leaves: Sequence[Array], eps: float
) -> list[Array | None]:
    """The bounds of some values, each None if its glue is."""
    found: list[Array | None] = []
    for one in several:
        count = 0 if one is None else len(one.leaves)
        found.append(None if one is None else one.bound(leaves[:count], eps))
        leaves = leaves[count:]
    return found


def slack_of(value: Array, eps: float, dtype: np.dtype[Any], bound: Array | None) -> Array:
    """The slack of each element: that of the row, or the bound of the glue if it is less.

    Args:
      value: float32 or float64, whose last axis is a row.
      eps: tolerance.
      dtype: of the value in the program.
      bound: from `bounds`, aligned with the value.
    """
    of_row = slack.of_numbers(value, eps, dtype)
    if bound is None:
        return of_row
    each = bound.astype(value.dtype) + tiny(dtype)
    return jnp.where(each < of_row, each, of_row)


@dataclass(frozen=True, slots=True, eq=False)
class _Followed:
    view: View
    leaves: dict[Var, bool]
    equations: list[Equation]

    def visit(self, atom: Atom) -> None:
        """Add what a value is computed from, then its equation."""
        if isinstance(atom, Literal) or atom in self.leaves:
            return
        equation = self.view.graph.producers.get(atom)
        if equation in self.equations:
            return
        exact = self.view.exact(atom)
        if exact or self.view.known(atom) or equation is None or not self.follows(equation):
            self.leaves[atom] = exact
            return
        for a in equation.inputs:
            self.visit(a)
        self.equations.append(equation)

    def follows(self, equation: Equation) -> bool:
        kind, [out, *others] = equation.kind, equation.outputs
        floats = all(a.dtype.name in FLOATS for a in (*equation.inputs, out))
        typed = floats or kind in _MOVES | {"integer_pow", "pow"}
        alone = not others and not equation.bodies and not self.view.claimed(equation)
        known = out.dtype.name in FLOATS and kind in _FOLLOWED
        indices = all(a.dtype.name in FLOATS or self.view.exact(a) for a in equation.inputs)
        return typed and alone and known and indices and len(self.equations) < MOST


def _bytes(x: Array) -> int:
    x = jnp.asarray(x)
    return x.dtype.itemsize if x.dtype.name in FLOATS else 0


def _read(env: Env, atom: Atom, wide: Any) -> Array:
    value = jnp.asarray(interpret.read(env, atom))
    return value.astype(wide) if atom.dtype.name in FLOATS else value


def _bound(bounds: Env, atom: Atom, value: Array) -> Array:
    """The bound of an operand; zero for literals, and for what is no float."""
    return bounds[atom] if isinstance(atom, Var) and atom in bounds else jnp.zeros_like(value)


def _apply(equation: Equation, values: Sequence[Array]) -> Array:
    """The result of an equation in a wider type; a cast to fewer digits keeps them."""
    if equation.kind == "convert_element_type":
        return values[0]
    return interpret.apply(equation, values)[0]


def _step(
    equation: Equation, values: list[Array], bounds: list[Array], out: Array, eps: float
) -> Array:
    """The bound of a result; see the module's docstring."""
    kind, least = equation.kind, tiny(equation.outputs[0].dtype)
    lost = eps * jnp.abs(out) + least
    if kind in _MOVES:
        pairs = zip(equation.inputs, values, bounds, strict=True)
        return _apply(equation, [b if a.dtype.name in FLOATS else v for a, v, b in pairs])
    if kind in _RISING:
        up, down = (
            _apply(equation, [v + sign * b for v, b in zip(values, bounds, strict=True)])
            for sign in (1, -1)
        )
        return jnp.maximum(up - out, out - down)
    if kind in _SAME:
        return bounds[0] + lost if _narrows(equation) else bounds[0]
    if kind in _SUMS:
        total = _apply(equation, [jnp.abs(values[0])])
        return _apply(equation, bounds) + eps * total + least
    if kind in ("add", "sub"):
        return bounds[0] + bounds[1] + lost
    if kind == "mul":
        (a, b), (x, y) = values, bounds
        return jnp.abs(a) * y + jnp.abs(b) * x + x * y + lost
    if kind == "div":
        nearest = jnp.abs(values[1]) - bounds[1]
        moved = bounds[0] + jnp.abs(out) * bounds[1]
        return jnp.where(nearest > 0, moved / nearest, jnp.inf) + lost
    lost = lost + eps if kind in _ABSOLUTE else lost
    return lost + sum(_moved(equation, values, bounds, out, i) for i in range(len(values)))


def _moved(
    equation: Equation, values: list[Array], bounds: list[Array], out: Array, place: int
) -> Array:
    """How far a function's result is moved by one of its operands."""
    if equation.inputs[place].dtype.name not in FLOATS:
        return jnp.zeros_like(out)
    others = [list(values), list(values)]
    others[0][place] = values[place] + bounds[place]
    others[1][place] = values[place] - bounds[place]
    up, down = (jnp.abs(_apply(equation, other) - out) for other in others)
    change = jnp.maximum(up, down)
    return jnp.where(jnp.isnan(change), jnp.inf, change)


def _narrows(equation: Equation) -> bool:
    source, target = (jnp.finfo(a.dtype) for a in (equation.inputs[0], equation.outputs[0]))
    return target.nmant < source.nmant or target.maxexp < source.maxexp
