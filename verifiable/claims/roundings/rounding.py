"""Roundings as claims: a value just after it was narrowed, on its way into a contraction.

The replayed values of the verifier differ from the device's in the last bits, and a rounding may
turn a last bit into a whole step. So the device commits to the rounded values q. The verifier
replays the value v before the rounding f, which is monotone and does not decrease, and tests each
element:

    q is in f([v - slack, v + slack]),        slack = eps (|v| + rms(row of v)) + tiny.

(`slack`). A device whose v is within the slack of the verifier's always passes. A q that passes is
the rounding of a value within the slack: a cheat can change only elements that are so close to a
tie, and by one step. The test uses no randomness. The contraction after the rounding is tested with
q, the operand that the device used.

The slack allows for the worst of many elements; moved to its end in all of them, a row could turn
what is chosen from the product. So with d_k the distance of v_k from the values that round to q_k,
a row of n elements is also held to

    sum_k (d_k / slack_k)^2 <= max(1, n SHARE^2).

A device whose values are all within SHARE of the slack always passes. Behind arithmetic in narrow
types, which may move a row further, a second look accepts what a device's rounding moves as far
(`judging.spread.allowance`). Rows of the operand of a product that decides are held to what their
own glue does to them, where it can be followed (`row_error`).

f is a chain of steps, each with a literal or no second operand: casts to narrower floats or to
integers, `round`, `floor`, `ceil`, `clamp`, `max`, `min`. The test computes the closed interval of
values that f takes to q, from the last step back to the first, and compares v with it. The empty
chain stands for an operand that was computed in a narrow type: the interval is q itself.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.claims.form import Form, Yardstick
from verifiable.claims.origin import Origin
from verifiable.claims.roundings import cheap_test, row_error
from verifiable.claims.roundings.axes import LAST, Axes, from_rows, in_rows, places, row_length
from verifiable.claims.roundings.midpoints import beyond, halfway, has_infinity
from verifiable.claims.roundings.row_error import RowErrors
from verifiable.claims.roundings.steps import Interval, RoundingStep
from verifiable.claims.slack import apart, least, rms
from verifiable.claims.slack import slack as slack_of
from verifiable.claims.statistic import Deviation, Statistic, deviation, strictly, worst_row
from verifiable.jaxpr.blocks import Array, Equation
from verifiable.jaxpr.effects import FLOAT8, HALF_PRECISION, is_float

SHARE = 0.25
"""Of the slack: how far all elements of a row may be off at once."""


class RoundingRoom(NamedTuple):
    """How far each element of a rounding may be shifted: lowest and highest change that passes."""

    low: Array
    high: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding(Form):
    """The form of a rounding claim; see `Form`.

    Attributes:
      steps: from the value that is rounded to the one that is committed.
      source: type of the value that is rounded.
      dtype: type of the committed value.
      decides: whether something is chosen from the next product.
      ways: the axes along which its rows lie (`axes`); each way is tested. The slack of an element
        depends on its row of the first way.
      origin: the glue before the value, if its rows are held to what it does to them (`row_error`).
    """

    mismatch: ClassVar[str] = "rounding-mismatch"
    rows_too: ClassVar[bool] = True

    steps: tuple[RoundingStep, ...]
    source: np.dtype[Any]
    dtype: np.dtype[Any]
    decides: bool = False
    ways: tuple[Axes, ...] = (LAST,)
    origin: Origin | None = None

    def eps_types(self, rounding_dtypes: frozenset[str]) -> frozenset[str]:
        """Types that the value before the rounding was rounded to."""
        return rounding_dtypes

    @property
    def wide(self) -> Any:
        """A type in which the middle between two neighbours of the narrow type is exact."""
        large = any(s.dtype is not None and s.dtype.name in ("int32", "uint32") for s in self.steps)
        return jnp.float64 if large or self.source.itemsize == 8 else jnp.float32

    def test(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Statistic:
        """Test a committed rounding; runs under `jax.enable_x64`.

        Args:
          operands: the value before the rounding, as the verifier replayed it, then the leaves of
            `origin`.
          claim: the committed value.
          yardstick: eps is the slack as a fraction of |value| + rms.

        Returns:
          `worst` is the largest distance of a value from the interval that rounds to the claim, as
          a fraction of the slack; `row` counts the rows of one way after those of another.
        """
        longest = max(row_length(claim.shape, axes) for axes in self.ways)
        if yardstick.cheap and longest <= cheap_test.LONGEST:
            test = functools.partial(self._clear, yardstick.eps)
            if self.source == jnp.float16:
                return cheap_test.once(test, operands[0], claim)
            return test(operands[0], claim)
        v, q = self._by_rows(operands[0], claim)
        q = self.standard(q, v)
        _, root = rms(v)
        own = jnp.isfinite(root) | (not v.shape[-1])
        low, high, exists = self.preimage(q)
        slack, most = slack_of(v, yardstick.eps, self._floats), row_limit(v.shape[-1])
        found = last = None
        if self.origin is not None:
            found, last = self._followed(self.origin, operands, v)
            v = found.value
            low, high = (low, high) if self.steps else halfway(q, self.dtype)
            alone, together = found.bounds()
            slack = jnp.maximum(slack, alone + together)
            alone, together = (jnp.linalg.norm(x / slack, axis=-1) for x in (alone, together))
            most = jnp.maximum(most, alone) + together
        short = jnp.maximum(jnp.maximum(low - v, v - high), 0)
        ratio = short / slack
        # A distance from NaN is none; divided by an infinite slack, it is zero or not a number.
        ratio = jnp.where(exists & ~jnp.isnan(ratio), ratio, jnp.inf)
        # XLA takes several times as long over the maximum of what it widens first.
        ratio = jnp.where(own, ratio, 0)
        whole = jnp.sqrt(jnp.sum(ratio * ratio, axis=-1)) / most
        by_row = jnp.maximum(jnp.max(ratio, axis=-1, initial=0.0), whole)
        if found is not None:
            excess = jnp.maximum(by_row, row_error.excess(found, low, high, q, last))
            by_row = jnp.where(own.reshape(by_row.shape), excess, by_row)
        by_way = [by_row, *self._of_other_ways(ratio * ratio, operands[0].shape)]
        by_row = jnp.concatenate(by_way).astype(jnp.float64)
        return Statistic(
            *worst_row(by_row),
            finite_claim=jnp.all(~jnp.isnan(q) | ~own),
            in_range=jnp.ones((), bool),
            finite_operands=jnp.all(own),
        )

    def cheapened(self, yardstick: Yardstick) -> Yardstick:
        """In as few passes as suffice for what is clear, unless rows are long (`cheap_test`)."""
        cheap = self.origin is None and self.wide == jnp.float32
        return replace(yardstick, cheap=cheap)

    def _clear(self, eps: float, value: Array, claim: Array) -> Statistic:
        v, q = self._by_rows(value, claim)
        q = self.standard(q, v)
        slack, usable = cheap_test.slack(v, eps, least(self._floats))
        ratio = self._short(v, q) / slack
        squares = ratio * ratio
        whole = jnp.sqrt(jnp.sum(squares, axis=-1)) / row_limit(v.shape[-1])
        usable = usable & ~jnp.isnan(whole)
        by_row = jnp.maximum(jnp.max(ratio, axis=-1, initial=0.0), whole)
        by_row = jnp.where(usable, by_row, jnp.inf)
        by_way = [by_row, *self._of_other_ways(squares, value.shape)]
        return cheap_test.statistic(jnp.concatenate(by_way))

    def _short(self, value: Array, claim: Array) -> Array:
        """How far a value is from what the chain takes to a claim; NaN of a NaN."""
        half = self.dtype.name in HALF_PRECISION
        if not self.steps:
            return jnp.abs(value - claim)
        if half and [step.dtype for step in self.steps] == [self.dtype]:
            return beyond(value, claim, self.dtype)
        low, high, exists = self.preimage(claim)
        # NaN is neither above nor below an end.
        short = jnp.where(value >= low, jnp.where(value <= high, 0, value - high), low - value)
        return jnp.where(exists, short, jnp.inf)

    def retest(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Statistic:
        """The test; a row that is NaN in all of operand and claim leaves nothing to choose."""
        v, q = self._by_rows(operands[0], claim)
        own = jnp.all(jnp.isfinite(v), axis=-1)
        absent = jnp.all(jnp.isnan(v) & jnp.isnan(q), axis=-1)
        found = self.test(operands, claim, yardstick)
        return found._replace(finite_operands=jnp.all(own | absent))

    def _of_other_ways(self, squares: Array, shape: tuple[int, ...]) -> list[Array]:
        """The norm of each row of the ways after the first as a fraction of its limit.

        Args:
          squares: of the elements' ratios, in rows of the first way.
          shape: of the value.
        """
        squares = from_rows(squares, shape, self.ways[0])
        rows = [in_rows(squares, axes) for axes in self.ways[1:]]
        return [jnp.sqrt(jnp.sum(x, axis=-1)) / row_limit(x.shape[-1]) for x in rows]

    def _followed(
        self, origin: Origin, operands: list[Array], value: Array
    ) -> tuple[RowErrors, Array | None]:
        """The value in float32 with its errors, and the last operation's own loss if that rounds.

        Where it cannot be followed, as derivatives at zero are infinite, it is the replayed one.
        """
        [axes] = self.ways
        found = row_error.errors(origin, axes, operands[1:], rounded=bool(self.steps))
        found = found.in_rows(axes).where_finite(value)
        return found, None if self.steps else row_error.ulp(found.value, self.dtype)

    def _by_rows(self, *arrays: Array) -> list[Array]:
        """Arrays as (rows, elements) of the first way, in type `wide`."""
        return [in_rows(x.astype(self.wide), self.ways[0]) for x in arrays]

    def wholes(self, shape: tuple[int, ...], elements: int) -> list[np.ndarray[Any, Any]]:
        """See `Form.wholes`."""
        del elements
        return [places(shape, axes) for axes in self.ways]

    def deviate(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Deviation:
        """Each element, the interval of values that round to the claim, and the slack."""
        v, q = (x.astype(self.wide) for x in (operands[0], claim))
        q = self.standard(q, v)
        low, high, exists = self.preimage(q)
        finite = jnp.isfinite(v)
        slack = self.slack(jnp.where(finite, v, 0), yardstick.eps, counted=finite)
        low, high = strictly(v, low, high, self.standard(self.forward(v), v) == q)
        low, high = jnp.where(exists, low, jnp.inf), jnp.where(exists, high, -jnp.inf)
        return deviation(v, low, high, slack, slack / yardstick.eps)

    def standard(self, claim: Array, value: Array) -> Array:
        """The claim, with an infinity where a type without infinities has NaN for it."""
        if self.dtype.name not in FLOAT8 or has_infinity(self.dtype):
            return claim
        return jnp.where(jnp.isnan(claim), jnp.copysign(jnp.inf, value), claim)

    def slack(self, value: Array, eps: float, counted: Array | None = None) -> Array:
        """How far a device's value may be from the verifier's; see `slack`."""
        first, *_ = self.ways
        counted = None if counted is None else in_rows(counted, first)
        found = slack_of(in_rows(value, first), eps, self._floats, counted)
        return from_rows(found, value.shape, first)

    def slack_of(self, operands: list[Array], eps: float) -> Array:
        """The same, given all operands: at least what the glue before the value may lose."""
        value = operands[0].astype(self.wide)
        allowed = self.slack(value, eps)
        if self.origin is None:
            return allowed
        [axes] = self.ways
        own = in_rows(value, axes)
        found, last = self._followed(self.origin, operands, own)
        bound = sum(found.bounds(), jnp.abs(found.value - own))
        bound = bound if last is None else bound + last
        return jnp.maximum(allowed, from_rows(bound, value.shape, axes))

    def unfounded(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Array:
        """Elements that are numbers where the value is NaN or infinite, and does not round to one.

        What NaN becomes as an integer is left to the device.
        """
        v, q = (x.astype(self.wide) for x in (operands[0], claim))
        low, high, exists = self.preimage(self.standard(q, v))
        outside = jnp.isinf(v) & ~(exists & (v >= low) & (v <= high))
        number = jnp.isnan(v) & ~jnp.isnan(q)
        return (outside | (number & is_float(self.dtype))).reshape(-1, 1)

    @property
    def _floats(self) -> list[Any]:
        """Types of the value and of what it is narrowed to."""
        return [self.source, *(s.dtype for s in self.steps if s.kind == "narrow")]

    @property
    def observes(self) -> bool:
        """Whether the value before the rounding is another one than is committed."""
        return bool(self.steps)

    def apart(self, mine: list[Array], theirs: list[Array]) -> Array:
        """The largest distance of two values before the rounding, over |value| + rms."""
        a, b = (values[0].astype(self.wide) for values in (mine, theirs))
        return apart(a, b, self.slack(a, 1.0))

    def forward(self, value: Array) -> Array:
        """The rounded value, as a number of the type of `value`."""
        for step in self.steps:
            value = step.forward(value)
        return value

    def preimage(self, claim: Array) -> Interval:
        """The closed interval of values that the chain takes to each element, in type `wide`."""
        low = high = claim
        exists = jnp.ones(claim.shape, bool)
        steps = list(self.steps)
        half = self.dtype.name in HALF_PRECISION and claim.dtype == jnp.float32
        if half and steps and steps[-1].dtype == self.dtype:
            steps.pop()
            low, high = halfway(claim, self.dtype)
        for step in reversed(steps):
            low, high, valid = step.back(low, high)
            exists = exists & valid
        return low, high, exists

    def extremes(self, value: Array, slack: Array) -> tuple[Array, Array]:
        """The least and the greatest value that passes as the rounding of `value`."""
        if self.steps:
            return self.forward(value - slack), self.forward(value + slack)
        # An operand that was computed in a narrow type is a value of that type within the slack.
        low, high = ((value + d).astype(self.dtype) for d in (-slack, slack))
        up, down = (jnp.full(value.shape, end, self.dtype) for end in (np.inf, -np.inf))
        low = jnp.where(low.astype(value.dtype) < value - slack, lax.nextafter(low, up), low)
        high = jnp.where(high.astype(value.dtype) > value + slack, lax.nextafter(high, down), high)
        return low.astype(value.dtype), high.astype(value.dtype)

    def smooth(self, equation: Equation, inputs: list[Array], operands: list[Array]) -> Array:
        """The rounded value, with the derivative of the identity."""
        value = operands[0].astype(self.wide)
        return value + lax.stop_gradient(self.forward(value) - value)

    def room(
        self, operands: list[Array], far: Array | None, out: Array, eps: float
    ) -> RoundingRoom:
        """Differences from the honest value to the extremes that pass."""
        value = operands[0].astype(self.wide)
        own = self.forward(value)
        low, high = self.extremes(value, self.slack(value, eps))
        return RoundingRoom(low - own, high - own)

    def reach(self, room: RoundingRoom, slope: Array, kappa: float) -> Array:
        """sum_ij |slope_ij| times the larger of the two changes."""
        return jnp.sum(jnp.abs(slope) * jnp.maximum(jnp.abs(room.low), jnp.abs(room.high)))

    def steepest(self, room: RoundingRoom, slope: Array, kappa: float) -> Array:
        """Its sign says which of the two extremes lowers the answer."""
        return -slope

    def shifted(
        self, operands: list[Array], out: Array, shift: Array, eps: float, kappa: float
    ) -> Array:
        """The extremes of kappa of the slack that all elements of a row may have at once."""
        value = operands[0].astype(self.wide)
        widths = [max(p.shape[1], 1) for p in self.wholes(value.shape, value.size)]
        share = min(row_limit(width) / math.sqrt(width) for width in widths)
        most = jnp.minimum(kappa, 1.0) * share
        low, high = self.extremes(value, most * self.slack(value, eps))
        wanted = jnp.where(shift < 0, low, jnp.where(shift > 0, high, out.astype(low.dtype)))
        return wanted.astype(out.dtype)


def row_limit(width: int) -> float:
    """The largest 2-norm of the distances of a row of elements, each in units of its slack."""
    return max(1.0, SHARE * math.sqrt(width))
