"""Decisions as claims: what a comparison of floats, or a sign, came to on the device.

The replayed values of the verifier differ from the device's in the last bits, and a comparison may
turn a last bit into any difference. So the device commits to the decision, both sides go on with
the committed one, and the verifier tests it where it stands. With a and b the replayed operands,

    a op b    c is accepted iff  c = (a op b)  or  |a - b| <= slack(a) + slack(b)
    sign(v)   c is accepted iff  c = sign(v)  or  c = 0 or -sign(v) and |v| <= slack(v)

(`slack`; a literal, or an operand that all honest devices compute alike, has none). A device whose
operands are within the slack of the verifier's always passes. A decision that passes is that of
operands within the slack: a cheat can choose only where the operands are so close. The test uses no
randomness. How many decisions are not the verifier's own is counted: a cheat could have all ties
its way, and honest devices differ in few (`check.flips`).

Infinities are compared like numbers that are far apart: a mask of minus infinity decides the same
on every device. Of NaN, a decision must equal the verifier's own, or the test shows nothing.

Booleans are committed as bits, eight to a byte along the last axis: element 8 j + i is bit i of
byte j, and the bits beyond the axis are zero. A sign is committed as an int8: -1, 0, 1, or 2, which
stands for NaN.
"""

from __future__ import annotations

import math
import operator
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.claims import origin, slack
from verifiable.claims.form import Form, Proposal, View, Yardstick
from verifiable.claims.origin import Origin
from verifiable.claims.statistic import Deviation, Statistic, deviation, strictly, worst_row
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Equation
from verifiable.jaxpr.effects import FLOATS, is_float


def _in_total_order(primitive: Any) -> Callable[[Array, Array], Array]:
    """A comparison of a total order of floats, in which NaN is beyond infinity."""
    return lambda a, b: primitive.bind(jnp.asarray(a), jnp.asarray(b))


COMPARISONS: dict[str, Callable[[Array, Array], Array]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt_to": _in_total_order(lax.lt_to_p),
    "le_to": _in_total_order(lax.le_to_p),
}

# A cast to booleans compares with zero.
KINDS = frozenset({*COMPARISONS, "convert_element_type", "sign"})

_NAN = 2  # the code of the sign of NaN


class Margins(NamedTuple):
    """What decides, element by element.

    Attributes:
      value: a number with the interval that each decision stands for; infinities are replaced by
        the largest number.
      slack: how far an honest device's may be from it.
      own: the verifier's own decision, as it is committed by others, but not packed.
    """

    value: Array
    slack: Array
    own: Array


class DecisionForm(Form):
    """The form of a decision; see `Form`."""

    mismatch: ClassVar[str] = "decision-mismatch"

    @property
    def observes(self) -> bool:
        """The values that decide are not committed."""
        return True

    def eps_types(self, rounding_dtypes: frozenset[str]) -> frozenset[str]:
        """Types that the operands were rounded to."""
        return rounding_dtypes

    @abstractmethod
    def margins(self, operands: list[Array], eps: float) -> Margins:
        """What decides, given the replayed operands."""

    @abstractmethod
    def read(self, claim: Array) -> tuple[Array, Array]:
        """The committed decisions, one for each element, and whether each could be one at all."""

    @abstractmethod
    def interval(self, decided: Array) -> tuple[Array, Array]:
        """The closed interval of `Margins.value` that leads to each decision."""

    def test(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Statistic:
        """Test committed decisions; runs under `jax.enable_x64`.

        Args:
          operands: as the verifier replayed them.
          claim: what was committed.
          yardstick: eps is the slack as a fraction of |value| + rms.

        Returns:
          `worst` is the largest distance of a value from the interval that leads to the decision,
          as a fraction of the slack; `row` counts over all axes but the last.
        """
        found = self.margins(operands, yardstick.eps)
        decided, valid = self.read(claim)
        low, high = self.interval(decided)
        absent = jnp.isnan(found.value)
        short = jnp.maximum(low - found.value, found.value - high)
        ratio = jnp.where(absent, 0, short / found.slack)
        ratio = jnp.where(valid, ratio, jnp.inf).astype(jnp.float64)
        rows = math.prod(ratio.shape[:-1]), ratio.shape[-1]
        by_row = jnp.max(ratio.reshape(rows), axis=-1, initial=0.0)
        return Statistic(
            *worst_row(by_row),
            finite_claim=jnp.all(self.finite(decided) | absent),
            in_range=jnp.all(valid),
            finite_operands=jnp.all(~absent | (decided == found.own)),
            ties=jnp.sum(jnp.abs(found.value) <= found.slack, dtype=jnp.int32),
            flips=jnp.sum((decided != found.own) & ~absent & valid, dtype=jnp.int32),
        )

    def finite(self, decided: Array) -> Array:
        """Whether a decision is that of a number."""
        return jnp.ones(decided.shape, bool)

    def deviate(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Deviation:
        """The value of each element, the interval that leads to its decision, and the slack."""
        found = self.margins(operands, yardstick.eps)
        decided, valid = self.read(claim)
        low, high = self.interval(decided)
        possible = valid & (self.finite(decided) | jnp.isnan(found.value))
        low, high = strictly(found.value, low, high, decided == found.own)
        low, high = jnp.where(possible, low, jnp.inf), jnp.where(possible, high, -jnp.inf)
        return deviation(found.value, low, high, found.slack, found.slack / yardstick.eps)

    def unfounded(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Array:
        """Decisions of NaN that are not the verifier's own."""
        found = self.margins(operands, yardstick.eps)
        return (jnp.isnan(found.value) & (self.read(claim)[0] != found.own)).reshape(-1, 1)

    def smooth(self, equation: Equation, inputs: list[Array], operands: list[Array]) -> Array:
        """The decision as a number; it does not move with its operands."""
        [out] = interpret.apply(equation, inputs)
        number = out.dtype if is_float(out.dtype) else jnp.float32
        return lax.stop_gradient(out).astype(number)

    def room(self, operands: list[Array], far: Array | None, out: Array, eps: float) -> Array:
        """How far a flip moves each element; zero if it is not within its slack of a tie."""
        found = self.margins(operands, eps)
        tie = (jnp.abs(found.value) <= found.slack).reshape(out.shape)
        return jnp.where(tie, self.turn(out), jnp.float32(0))

    def turn(self, out: Array) -> Array:
        """How far a flip moves a decision."""
        return jnp.ones(out.shape, jnp.float32)

    def shifted(
        self, operands: list[Array], out: Array, shift: Array, eps: float, kappa: float
    ) -> Array:
        """The decision in the direction of the shift."""
        wanted = jnp.sign(shift) if is_float(out.dtype) else shift > 0
        return jnp.where(shift == 0, out, wanted.astype(out.dtype))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(DecisionForm):
    """The form of a comparison.

    The value that decides is b - a for `lt`, `le`, `lt_to` and `le_to`, a - b for `gt` and `ge`,
    |a - b| for `ne` and -|a - b| for `eq`: true stands for numbers from zero up, false for numbers
    up to zero.

    Attributes:
      kind: name of the comparison.
      shape: of the output.
      dtype: of the operands.
      inexact: of each operand, whether honest devices compute it with other rounding.
      origins: the glue before each inexact operand, as far as it can be followed.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    inexact: tuple[bool, ...]
    origins: tuple[Origin | None, ...] = (None, None)

    @property
    def decisions(self) -> int:
        """One for each element."""
        return math.prod(self.shape)

    def packed(
        self, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Bytes of eight decisions; a scalar is a row of one."""
        rows, columns = _row(shape)
        return (*rows, -(-columns // 8)), np.dtype(np.uint8)

    def pack(self, out: Array) -> Array:
        """Element 8 j + i as bit i of byte j."""
        return jnp.packbits(out.reshape(_joined(self.shape)), axis=-1, bitorder="little")

    def unpack(self, claim: Array) -> Array:
        """The bits; those beyond the last axis are ignored."""
        # In 32 bits: LLVM cannot compile some fusions of `jnp.unpackbits`, and ends the process.
        bits = claim.astype(jnp.int32)[..., None] >> np.arange(8, dtype=np.int32) & 1
        rows, columns = _row(self.shape)
        decided = bits.reshape(*rows, 8 * claim.shape[-1])[..., :columns] == 1
        return decided.reshape(self.shape)

    def read(self, claim: Array) -> tuple[Array, Array]:
        """The bits; in a row whose last byte has a bit beyond the axis, none is valid."""
        decided = self.unpack(claim).reshape(_joined(self.shape))
        count = _row(self.shape)[1]
        padding = claim[..., -1:] >> np.uint8(count % 8) if count % 8 else claim[..., :0]
        none = jnp.all(padding == 0, axis=-1, keepdims=True)
        return decided, jnp.broadcast_to(none, decided.shape)

    def interval(self, decided: Array) -> tuple[Array, Array]:
        """From zero to infinity for true, from minus infinity to zero for false."""
        zero, inf = np.float32(0), np.float32(np.inf)
        return jnp.where(decided, zero, -inf), jnp.where(decided, inf, zero)

    def margins(self, operands: list[Array], eps: float) -> Margins:
        """See the class."""
        a, b = (self._aligned(slack.widened(x)) for x in self._both(operands))
        own = COMPARISONS[self.kind](a, b)
        largest = jnp.finfo(a.dtype).max
        distance = jnp.where((a == b) & jnp.isinf(a), largest, jnp.abs(a - b))
        distance = jnp.minimum(distance, largest)
        allowed = sum(self.slacks(operands, eps))
        return Margins(
            value=jnp.where(own, distance, -distance),
            slack=jnp.broadcast_to(jnp.minimum(allowed, largest), distance.shape),
            own=own,
        )

    def apart(self, mine: list[Array], theirs: list[Array]) -> Array:
        """The largest distance of an operand from the replayed one, in units of its slack."""
        units = [x / origin.SMALL for x in self.slacks(mine, origin.SMALL)]
        own, other = (
            [self._aligned(slack.widened(x)) for x in self._both(operands)]
            for operands in (mine, theirs)
        )
        each = [
            slack.apart(a, b, unit)
            for a, b, unit, inexact in zip(own, other, units, self.inexact, strict=True)
            if inexact
        ]
        return jnp.max(jnp.stack(each))

    def slacks(self, operands: list[Array], eps: float) -> list[Array]:
        """The slack of both operands, by rows of the output; zero if one is exact."""
        both, leaves = self._both(operands), origin.leaves_of(self.origins, operands)
        aligned = [self._aligned(slack.widened(x)) for x in both]
        bounds = origin.bounds(self.origins, leaves, eps)
        return [
            origin.slack_of(x, eps, self.dtype, None if bound is None else self._aligned(bound))
            if inexact
            else jnp.zeros((), x.dtype)
            for x, bound, inexact in zip(aligned, bounds, self.inexact, strict=True)
        ]

    def _both(self, operands: list[Array]) -> list[Array]:
        keys = origin.keys_of(self.origins, operands)
        return keys if len(keys) == 2 else [*keys, np.zeros((), self.dtype)]

    def _aligned(self, value: Array) -> Array:
        """An operand with the shape of the output, whose last axis is a row."""
        return jnp.broadcast_to(value, self.shape).reshape(_joined(self.shape))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign(DecisionForm):
    """The form of a sign. What decides is the value itself.

    Attributes:
      shape: of the output.
      dtype: of operand and output.
      origins: the glue before the operand, as far as it can be followed.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    origins: tuple[Origin | None, ...] = (None,)

    @property
    def decisions(self) -> int:
        """One for each element."""
        return math.prod(self.shape)

    def packed(
        self, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """A code for each element; a scalar is a row of one."""
        return _joined(shape), np.dtype(np.int8)

    def pack(self, out: Array) -> Array:
        """The codes."""
        return _code(out).reshape(_joined(self.shape))

    def unpack(self, claim: Array) -> Array:
        """The signs as numbers of the operand's type; what is no code counts as itself."""
        signs = jnp.where(claim == _NAN, jnp.nan, claim.astype(jnp.float32))
        return signs.astype(self.dtype).reshape(self.shape)

    def read(self, claim: Array) -> tuple[Array, Array]:
        """The codes; -1, 0, 1 and 2 are valid."""
        return claim, (claim >= -1) & (claim <= _NAN)

    def interval(self, decided: Array) -> tuple[Array, Array]:
        """The numbers of that sign, and zero."""
        zero, inf = np.float32(0), np.float32(np.inf)
        return jnp.where(decided < 0, -inf, zero), jnp.where(decided > 0, inf, zero)

    def turn(self, out: Array) -> Array:
        """To zero, or to the other sign."""
        return 1 + jnp.abs(out.astype(jnp.float32))

    def finite(self, decided: Array) -> Array:
        """Whether the code is not that of NaN."""
        return decided != _NAN

    def margins(self, operands: list[Array], eps: float) -> Margins:
        """The value, within the largest number."""
        v = self._value(operands)
        largest, [allowed] = jnp.finfo(v.dtype).max, self.slacks(operands, eps)
        return Margins(
            value=jnp.clip(v, min=-largest, max=largest), slack=allowed, own=_code(jnp.sign(v))
        )

    def apart(self, mine: list[Array], theirs: list[Array]) -> Array:
        """The largest distance of the value from the replayed one, in units of its slack."""
        [allowed] = self.slacks(mine, origin.SMALL)
        return slack.apart(self._value(mine), self._value(theirs), allowed / origin.SMALL)

    def _value(self, operands: list[Array]) -> Array:
        return slack.widened(operands[0]).reshape(_joined(self.shape))

    def slacks(self, operands: list[Array], eps: float) -> list[Array]:
        """The slack of the value, by rows."""
        [bound] = origin.bounds(self.origins, origin.leaves_of(self.origins, operands), eps)
        bound = None if bound is None else bound.reshape(_joined(self.shape))
        return [origin.slack_of(self._value(operands), eps, self.dtype, bound)]


def _joined(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with a last axis, even of a scalar."""
    return shape or (1,)


def _row(shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    *rows, columns = _joined(shape)
    return tuple(rows), columns


def _code(sign: Array) -> Array:
    return jnp.where(jnp.isnan(sign), np.int8(_NAN), sign.astype(jnp.int8))


def propose(equation: Equation, view: View) -> Proposal | None:
    """Claim a comparison or sign of floats that honest devices round apart; see `form.Rule`."""
    [operand, *_], [out] = equation.inputs, equation.outputs
    dtype, inexact = operand.dtype, tuple(not view.exact(a) for a in equation.inputs)
    if not any(inexact) or dtype.name not in FLOATS:
        return None
    known = tuple(origin.before(a, view) for a in equation.inputs)
    if equation.kind == "sign":
        form = Sign(shape=out.shape, dtype=dtype, origins=known)
    elif out.dtype == np.bool_:
        kind = equation.kind if equation.kind in COMPARISONS else "ne"
        both = (*inexact, False)[:2]  # a cast compares with zero
        known = (*known, None)[:2]
        form = Comparison(kind=kind, shape=out.shape, dtype=dtype, inexact=both, origins=known)
    else:
        return None
    operands = (*equation.inputs, *origin.read_by(known))
    return Proposal(form=form, operands=operands, covers=frozenset({equation.name}))
