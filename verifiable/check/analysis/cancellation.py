"""The scale of an output that is a sum whose terms may cancel.

The rounding of a sum goes by its terms, not by its value: y = sum_k a_k b_k may be off by
u sqrt(sum_k (a_k b_k)^2) even where it is near zero. A long row of outputs does not cancel as a
whole, but the score of a reward model is a row of one number. So such a row is held to

    eps max(||row||, theta ||terms||)

with theta the tolerance of a claim over the tolerance of an output, as the policy has them by type.
Where nothing cancels, ||row|| decides, as in every other row.

`plan` follows an output backwards through what moves, adds, scales or bends single numbers, to the
last sums before it; `terms` evaluates it. A value that is exact, such as a claim, adds no error,
and any other value counts with its own size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import lax

from verifiable.check.analysis.partition import Analysis
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Block, Env, Equation, Var
from verifiable.jaxpr.effects import MOVES, is_float

FEW = 32  # a row of more numbers does not cancel as a whole

_MOVES = MOVES | frozenset(
    "concatenate convert_element_type dynamic_slice gather neg stop_gradient".split()
)
_SUMS = frozenset({"reduce_sum", "cumsum", "reduce_window_sum"})
_PRODUCTS = frozenset({"dot_general", "conv_general_dilated"})
_BENDS = frozenset("erf exp exp2 expm1 log log1p log2 logistic tanh".split())
_PAIRS = frozenset({"add", "add_any", "sub", "mul", "div"})


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Cancellation:
    """The equations that lead from sums to one output, in order.

    Attributes:
      output: what is returned.
      equations: in the outermost block; each is replayed.
      exact: the atoms among their inputs that honest devices have in the same bits.
    """

    output: Var
    equations: tuple[Equation, ...]
    exact: frozenset[Atom]

    def terms(self, env: Env) -> Array:
        """Root of the sum of the squared terms of each element, float64; under `enable_x64`.

        Args:
          env: values by variable, those of the equations and of their inputs among them.
        """
        found: dict[Var, Array] = {}
        for equation in self.equations:
            own = [self._of(a, found, env) for a in equation.inputs]
            found[equation.outputs[0]] = _propagated(equation, own, env)
        return found[self.output]

    def _of(self, atom: Atom, found: Mapping[Var, Array], env: Env) -> Array:
        if isinstance(atom, Var) and atom in found:
            return found[atom]
        value = jnp.abs(jnp.asarray(interpret.read(env, atom))).astype(jnp.float64)
        return jnp.zeros_like(value) if atom in self.exact else value


def plan(block: Block, analysis: Analysis, output: Atom) -> Cancellation | None:
    """How the terms of an output are found; None if it is no sum, or its rows are long."""
    wide = len(output.shape) > 0 and output.shape[-1] > FEW
    if wide or not isinstance(output, Var) or not jnp.issubdtype(output.dtype, jnp.floating):
        return None
    producers = {v: e for e in block.equations for v in e.outputs}
    sums: dict[Var, bool] = {}  # whether a sum leads to a value
    order: list[Equation] = []

    def visit(atom: Atom) -> bool:
        if not isinstance(atom, Var) or analysis.fact(atom).exact:
            return False
        if atom not in sums:
            equation = producers.get(atom)
            sums[atom] = False
            if equation is not None and _followed(equation, analysis):
                ends = equation.kind in _SUMS | _PRODUCTS
                reached = [visit(a) for a in _sources(equation)]
                adds = equation.kind in ("add", "add_any", "sub")
                sums[atom] = ends or any(reached) or adds
                if sums[atom]:
                    order.append(equation)
        return sums[atom]

    if not visit(output):
        return None
    exact = {a for e in order for a in e.inputs if analysis.fact(a).exact}
    return Cancellation(output=output, equations=tuple(order), exact=frozenset(exact))


def _followed(equation: Equation, analysis: Analysis) -> bool:
    kinds = _MOVES | _SUMS | _PRODUCTS | _BENDS | _PAIRS
    replayed = equation not in analysis.by_equation and not analysis.known(equation)
    return equation.kind in kinds and replayed


def _sources(equation: Equation) -> Sequence[Atom]:
    """The inputs through which a sum may lead to the output; a sum itself ends the search."""
    return () if equation.kind in _SUMS | _PRODUCTS else equation.inputs


def _propagated(equation: Equation, own: Sequence[Array], env: Env) -> Array:
    """The terms of an output, given those of the inputs."""
    kind = equation.kind
    values = [jnp.asarray(interpret.read(env, a)) for a in equation.inputs]
    if kind in _PRODUCTS:
        wide = {"preferred_element_type": None, "precision": lax.Precision.HIGHEST}
        squares = [jnp.square(v.astype(jnp.float64)) for v in values]
        widened = replace(equation, params={**equation.params, **wide})
        return jnp.sqrt(interpret.apply(widened, squares)[0])
    if kind in _SUMS:
        return jnp.sqrt(interpret.apply(equation, [jnp.square(values[0].astype(jnp.float64))])[0])
    if kind in _MOVES:
        if kind == "convert_element_type":
            return own[0]
        moved = [o if is_float(v.dtype) else v for o, v in zip(own, values, strict=True)]
        return jnp.abs(interpret.apply(equation, moved)[0])
    if kind in _BENDS:
        [value], [tangent] = values, own
        bend: Callable[[Array], Array] = lambda x: interpret.apply(equation, [x])[0]  # noqa: E731
        return jnp.abs(jax.jvp(bend, (value.astype(jnp.float64),), (tangent,))[1])
    a, b = (jnp.abs(v.astype(jnp.float64)) for v in values)
    if kind == "mul":
        return jnp.hypot(own[0] * b, own[1] * a)
    if kind == "div":
        return jnp.hypot(own[0], own[1] * a / b) / b
    return jnp.hypot(own[0], own[1])
