"""Roundings as claims: a value just after it was narrowed, on its way into a contraction.

The verifier's glue differs from the device's in the last bits, and a rounding may turn a last bit
into a whole step. So the device commits to the rounded values q, and the verifier, who replays the
value v that was rounded, tests each element: with f the rounding, monotone and not decreasing,

    q is in f([v - slack, v + slack]),        slack = eps (|v| + rms(row of v)) + tiny,

where rms is over the last axis and tiny allows for flushed subnormal numbers. An honest device,
whose own v lies within the slack of the verifier's, always passes. Whatever passes is the rounding
of a value within the slack: only elements that close to a tie can be turned, by one step. No
randomness is involved. What comes after goes on with q, so the contraction that it was rounded for
is checked on the very operand that the device used.

f is a chain of steps, each with a literal or no second operand: casts to narrower floats or to
integers, `round`, `floor`, `ceil`, `clamp`, `max`, `min`. The test computes the closed interval of
values that f takes to q, from the last step back to the first, and compares v with it. The empty
chain stands for an operand that was computed in a narrow type: it is its own interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.claims.freivalds import Statistic, first
from verifiable.jaxpr.blocks import Array, Equation, Literal

NARROW = frozenset({"float16", "bfloat16"})
_TARGETS = NARROW | {"float32"}
_INTEGERS = frozenset({"int4", "uint4", "int8", "uint8", "int16", "uint16", "int32", "uint32"})

Interval = tuple[Array, Array, Array]  # low, high, and whether any value is in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One monotone step.

    Attributes:
      kind: `narrow`, `truncate`, `cast` (of what is integral already), `round`, `floor`, `ceil` or
        `clamp`.
      low: lower end of a clamp.
      high: upper end of a clamp.
      dtype: what a cast casts to.
    """

    kind: str
    low: float = -math.inf
    high: float = math.inf
    dtype: np.dtype[Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """The form of a rounding claim.

    Attributes:
      steps: from the value that is rounded to the one that is committed.
      source: type of the value that is rounded.
      dtype: type of the committed value.
    """

    steps: tuple[Step, ...]
    source: np.dtype[Any]
    dtype: np.dtype[Any]

    near = 0
    tests = 0
    work = 0
    exact = False


def wide(form: Rounding) -> Any:
    """The type to compute in: the middle between two narrow values must be exact in it."""
    large = any(s.dtype is not None and s.dtype.name in ("int32", "uint32") for s in form.steps)
    return jnp.float64 if large or form.source.itemsize == 8 else jnp.float32


def extend(steps: Sequence[Step], equation: Equation) -> tuple[Step, ...] | None:
    """The chain that an equation makes of another chain's output; None if it is no step of one."""
    step = _step(equation, integral=_integral(steps))
    return None if step is None else (*steps, step)


def _integral(steps: Sequence[Step]) -> bool:
    """Whether a chain gives integers only: a clamp off the integers undoes a `round`."""
    integral = False
    for step in steps:
        if step.kind == "clamp":
            ends = [x for x in (step.low, step.high) if math.isfinite(x)]
            integral = integral and all(x.is_integer() for x in ends)
        elif step.kind != "narrow":
            integral = True
    return integral


def operand(equation: Equation) -> Any:
    """The operand that a step rounds: the one that is no literal; None if there are several."""
    candidates = [a for a in equation.inputs if not isinstance(a, Literal)]
    return candidates[0] if len(candidates) == 1 else None


def _step(equation: Equation, *, integral: bool) -> Step | None:
    kind = equation.kind
    if operand(equation) is None:
        return None
    if kind == "convert_element_type":
        target, source = equation.outputs[0].dtype, equation.inputs[0].dtype
        if target.name in _INTEGERS and jnp.issubdtype(source, jnp.floating):
            return Step(kind="cast" if integral else "truncate", dtype=target)
        narrows = jnp.issubdtype(source, jnp.floating) and target.itemsize < source.itemsize
        return Step(kind="narrow", dtype=target) if target.name in _TARGETS and narrows else None
    if kind in ("round", "floor", "ceil"):
        return Step(kind=kind)
    if kind == "clamp" and equation.inputs[1] is operand(equation):
        low, _, high = equation.inputs
        return Step(kind="clamp", low=_number(low), high=_number(high))
    if kind in ("max", "min"):
        [bound] = [a for a in equation.inputs if isinstance(a, Literal)]
        number = _number(bound)
        low, high = (number, math.inf) if kind == "max" else (-math.inf, number)
        return Step(kind="clamp", low=low, high=high)
    return None


def _number(literal: Any) -> float:
    return float(literal.value)


def test(form: Rounding, value: Array, claim: Array, *, eps: float) -> Statistic:
    """Test a committed rounding; runs under `jax.enable_x64`.

    Args:
      form: the rounding.
      value: what the verifier replayed, before it was rounded.
      claim: what the device committed to.
      eps: slack, as a fraction of |value| + rms.

    Returns:
      `worst` is the largest distance of a value from what rounds to the claim, as a fraction of
      the slack; `row` counts over all but the last axis.
    """
    v, q = (x.astype(wide(form)) for x in (value, claim))
    rows = (math.prod(v.shape[:-1]), math.prod(v.shape[-1:]))
    v, q = v.reshape(rows), q.reshape(rows)
    own = jnp.all(jnp.isfinite(v), axis=-1, keepdims=True)
    low, high, exists = preimage(form, q)
    short = jnp.maximum(jnp.maximum(low - v, v - high), 0)
    ratio = short / slack(form, v, eps)
    # Divided by a slack that overflowed, a distance would vanish.
    ratio = jnp.where(exists & ~jnp.isnan(ratio) & ~jnp.isnan(q), ratio, jnp.inf)
    ratio = jnp.where(own, ratio, 0).astype(jnp.float64)
    by_row = jnp.max(ratio, axis=-1, initial=0.0)
    worst = jnp.max(by_row, initial=0.0)
    return Statistic(
        worst=worst,
        row=first(by_row == worst),
        passed=jnp.all(by_row <= 1.0),
        finite_claim=jnp.all(~jnp.isnan(q) | ~own),
        in_range=jnp.ones((), bool),
        finite_operands=jnp.all(own),
    )


def slack(form: Rounding, value: Array, eps: float) -> Array:
    """How far a device's value may be from the verifier's: eps (|v| + rms(row)) + tiny."""
    top = jnp.max(jnp.abs(value), axis=-1, keepdims=True, initial=0)
    # Divided by the largest element, squares neither overflow nor vanish.
    top = jnp.where((top > 0) & jnp.isfinite(top), top, 1)
    rms = top * jnp.sqrt(jnp.mean(jnp.square(value / top), axis=-1, keepdims=True))
    types = [form.source, *(s.dtype for s in form.steps if s.kind == "narrow")]
    tiny = max(float(jnp.finfo(t).tiny) for t in types if t is not None)
    return jnp.minimum(eps * (jnp.abs(value) + rms) + tiny, jnp.finfo(value.dtype).max)


def forward(form: Rounding, value: Array) -> Array:
    """The chain itself: the rounded value, as a number of the type of `value`."""
    for step in form.steps:
        if step.kind == "narrow":
            value = value.astype(step.dtype).astype(value.dtype)
        elif step.kind == "clamp":
            value = jnp.clip(value, step.low, step.high)
        elif step.kind in ("cast", "truncate"):
            info = jnp.iinfo(step.dtype)
            value = jnp.clip(jnp.trunc(value), int(info.min), int(info.max))
        else:
            value = {"round": jnp.round, "floor": jnp.floor, "ceil": jnp.ceil}[step.kind](value)
    return value


def extremes(form: Rounding, value: Array, slack: Array) -> tuple[Array, Array]:
    """The least and the greatest value that passes as the rounding of `value`."""
    if form.steps:
        return forward(form, value - slack), forward(form, value + slack)
    # What was computed in a narrow type has to be one of its values, and within the slack.
    low, high = ((value + d).astype(form.dtype) for d in (-slack, slack))
    up, down = (jnp.full(value.shape, sign * np.inf, form.dtype) for sign in (1, -1))
    low = jnp.where(low.astype(value.dtype) < value - slack, lax.nextafter(low, up), low)
    high = jnp.where(high.astype(value.dtype) > value + slack, lax.nextafter(high, down), high)
    return low.astype(value.dtype), high.astype(value.dtype)


def preimage(form: Rounding, claim: Array) -> Interval:
    """The closed interval of values that the chain takes to each element, in `wide(form)`."""
    low = high = claim
    exists = jnp.ones(claim.shape, bool)
    for step in reversed(form.steps):
        low, high, valid = _back(step, low, high)
        exists = exists & valid
    return low, high, exists


def _back(step: Step, low: Array, high: Array) -> Interval:
    true = low <= high
    if step.kind == "narrow":
        return _middle(low, step.dtype, -1), _middle(high, step.dtype, +1), true
    if step.kind in ("cast", "truncate"):
        info = jnp.iinfo(step.dtype)
        bottom, top = low <= int(info.min), high >= int(info.max)
        if step.kind == "truncate":
            low, high = jnp.where(low > 0, low, low - 1), jnp.where(high < 0, high, high + 1)
        # What lies beyond the type is cast to its ends.
        return jnp.where(bottom, -jnp.inf, low), jnp.where(top, jnp.inf, high), true
    if step.kind == "clamp":
        valid = (high >= step.low) & (low <= step.high)
        low = jnp.where(low <= step.low, -jnp.inf, low)
        return low, jnp.where(high >= step.high, jnp.inf, high), true & valid
    # Only integers come out of the others.
    low, high = jnp.ceil(low), jnp.floor(high)
    before, after = {"round": (0.5, 0.5), "floor": (0.0, 1.0), "ceil": (1.0, 0.0)}[step.kind]
    return low - before, high + after, low <= high


def _middle(x: Array, dtype: Any, direction: int) -> Array:
    """The middle between a value of a narrow type and its neighbour; ends of the type included.

    Values of magnitude at or above the largest finite one plus half its step round to infinity.
    """
    info = jnp.finfo(dtype)
    largest = float(info.max)
    beyond = largest + (largest - float(np.nextafter(np.asarray(info.max, dtype), 0))) / 2
    narrow = x.astype(dtype)
    towards = jnp.full(x.shape, direction * np.inf, dtype)
    neighbour = lax.nextafter(narrow, towards).astype(x.dtype)
    middle = x / 2 + neighbour / 2
    middle = jnp.where(jnp.isinf(neighbour), direction * beyond, middle)
    inward = jnp.where(x == -direction * jnp.inf, -direction * beyond, x)
    return jnp.where(jnp.isinf(x), inward, middle)
