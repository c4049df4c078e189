"""Rules of rounding claims: chains of rounding steps, such as those before a contraction.

A chain starts where a value that is not exact is rounded, and continues while a single equation,
which is a step again, reads the result. Its last step becomes a claim if it reaches an operand of
a contraction, or if a step is discontinuous: a cast to fewer digits changes a last digit, which the
tolerance of other values can allow for, but `round`, `floor` and casts to integers jump. The empty
chain stands for an operand that was computed in a narrow type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from verifiable.claims import origin
from verifiable.claims.form import Proposal, View
from verifiable.claims.products.product import CONTRACTIONS
from verifiable.claims.roundings import axes, row_error
from verifiable.claims.roundings.rounding import Rounding
from verifiable.claims.roundings.steps import RoundingStep
from verifiable.jaxpr.blocks import Equation, Literal, Var
from verifiable.jaxpr.effects import FLOAT8, HALF_PRECISION, MOVES, Effect, effects_of, precision
from verifiable.jaxpr.graph import Graph

STEPS = frozenset("convert_element_type reduce_precision round floor ceil clamp max min".split())

_TARGETS = HALF_PRECISION | FLOAT8 | {"float32"}
# Narrower integers have no canonical bytes: what is rounded to them is committed before the cast.
_INTEGERS = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32"})

# Primitives that may stand between the equation that computes a narrow operand and a contraction.
_MOVES = MOVES | {"convert_element_type", "split", "stop_gradient"}


class RoundingChain(NamedTuple):
    """The value that is rounded, the steps so far, and the names of their equations.

    `jumps` says whether a step is discontinuous.
    """

    source: Var
    steps: tuple[RoundingStep, ...]
    names: frozenset[str]
    jumps: bool


def propose(equation: Equation, view: View) -> Proposal | None:
    """Claim the last step of a chain; see `form.Rule`."""
    chain = _chain(equation, view)
    if chain is None:
        return None
    out = equation.outputs[0]
    if not chain.jumps and out not in view.graph.reaching(CONTRACTIONS):
        return None
    reader = view.graph.only_reader(out)
    if reader is not None and extend(chain.steps, reader) is not None:
        return None
    return _proposed(chain.source, chain.steps, out, chain.names, view)


def propose_operand(equation: Equation, view: View) -> Proposal | None:
    """Claim an operand of a contraction where it was computed in a narrow type."""
    if len(equation.outputs) != 1 or _moves(equation):
        return None
    out = equation.outputs[0]
    narrow = out.dtype.name in HALF_PRECISION and not view.exact(out)
    if not narrow or not _is_operand(out, view.graph):
        return None
    return _proposed(out, (), out, frozenset(), view)


def _proposed(
    value: Var,
    steps: tuple[RoundingStep, ...],
    out: Var,
    names: frozenset[str],
    view: View,
) -> Proposal:
    """The claim of a rounding; with the glue before, if a product decides it (`row_error`)."""
    (decides, ways), glue = axes.ways(out, view.graph), None
    if decides and value.shape and value.dtype.itemsize <= 4:
        glue = origin.before(value, view)
        glue = glue if glue is not None and row_error.follows(glue, ways[0]) else None
    form = Rounding(
        steps=steps,
        source=value.dtype,
        dtype=out.dtype,
        decides=decides,
        ways=ways if glue is None else ways[:1],
        origin=glue,
    )
    return Proposal(form=form, operands=(value, *origin.read_by([glue])), covers=names)


def _chain(equation: Equation, view: View) -> RoundingChain | None:
    """The chain that ends with an equation; None if it is not a rounding step."""
    value = operand(equation)
    if equation.kind not in STEPS or not isinstance(value, Var):
        return None
    before = view.graph.producers.get(value)
    # A claimed value is exact, so no chain continues after it.
    chain = None if before is None or view.claimed(before) else _chain(before, view)
    effects = effects_of(equation)
    if chain is None:
        starts = {Effect.DISCONTINUOUS, Effect.NARROW}.intersection(effects)
        if view.exact(value) or not starts:
            return None
        chain = RoundingChain(value, (), frozenset(), jumps=False)
    steps = extend(chain.steps, equation)
    if steps is None:
        return None
    jumps = chain.jumps or Effect.DISCONTINUOUS in effects
    return RoundingChain(chain.source, steps, chain.names | {equation.name}, jumps)


def _moves(equation: Equation) -> bool:
    """Whether an equation moves or widens a value, without rounding it."""
    if equation.kind not in _MOVES:
        return False
    return equation.inputs[0].dtype.itemsize <= equation.outputs[0].dtype.itemsize


def _is_operand(variable: Var, graph: Graph) -> bool:
    """Whether a contraction reads a variable, possibly moved."""
    readers = [r for r in graph.readers.get(variable, ()) if r is not None]
    return any(
        reader.kind in CONTRACTIONS
        or (_moves(reader) and any(_is_operand(v, graph) for v in reader.outputs))
        for reader in readers
    )


def extend(steps: Sequence[RoundingStep], equation: Equation) -> tuple[RoundingStep, ...] | None:
    """The steps of a chain and of the equation after it; None if that is not a step."""
    step = _step(equation, integral=_integral(steps))
    return None if step is None else (*steps, step)


def operand(equation: Equation) -> Any:
    """The operand that a step rounds: its only input that is not a literal; else None."""
    candidates = [a for a in equation.inputs if not isinstance(a, Literal)]
    return candidates[0] if len(candidates) == 1 else None


def _integral(steps: Sequence[RoundingStep]) -> bool:
    """Whether a chain returns integers only; after a clamp to other numbers it does not."""
    integral = False
    for step in steps:
        if step.kind == "clamp":
            ends = [x for x in (step.low, step.high) if math.isfinite(x)]
            integral = integral and all(x.is_integer() for x in ends)
        elif step.kind != "narrow":
            integral = True
    return integral


def _step(equation: Equation, *, integral: bool) -> RoundingStep | None:
    kind = equation.kind
    if operand(equation) is None:
        return None
    if kind == "convert_element_type":
        target, source = equation.outputs[0].dtype, equation.inputs[0].dtype
        if target.name in _INTEGERS and jnp.issubdtype(source, jnp.floating):
            return RoundingStep(kind="cast" if integral else "truncate", dtype=target)
        narrows = jnp.issubdtype(source, jnp.floating) and target.itemsize < source.itemsize
        narrows = narrows and target.name in _TARGETS
        return RoundingStep(kind="narrow", dtype=target) if narrows else None
    if kind == "reduce_precision":
        narrow = precision(equation)
        return None if narrow is None else RoundingStep(kind="narrow", dtype=jnp.dtype(narrow))
    if kind in ("round", "floor", "ceil"):
        return RoundingStep(kind=kind)
    if kind == "clamp" and equation.inputs[1] is operand(equation):
        low, _, high = equation.inputs
        return RoundingStep(kind="clamp", low=_number(low), high=_number(high))
    if kind in ("max", "min"):
        [bound] = [a for a in equation.inputs if isinstance(a, Literal)]
        number = _number(bound)
        low, high = (number, math.inf) if kind == "max" else (-math.inf, number)
        return RoundingStep(kind="clamp", low=low, high=high)
    return None


def _number(literal: Any) -> float:
    return float(literal.value)
