"""Choices as claims: which elements an `argmax`, `top_k` or `sort` picked on the device, in order.

The replayed values of the verifier differ from the device's in the last bits, and of two that are
nearly equal, either may be the larger. So the device commits to the indices that it picked, both
sides go on with these, and the verifier tests them where they stand. Let v be a replayed row (along
the axis of the choice; with the sign turned round if the largest come first), s its slack
(`origin`), and i_1, ..., i_k the committed indices. They are accepted iff they are distinct, and

    v[i_p] - s[i_p] <= v[i_q] + s[i_q]      for all p < q
    v[i_p] - s[i_p] <= v[j] + s[j]          for all p, and all j that were not picked

which holds iff the choice is right, up to ties, for some row within the slack of v. So a device
whose row is within the slack of the verifier's always passes, and a cheat can choose only where
elements are so close. (Comparing neighbours would not do: a row of small steps could be turned
round.) The test uses no randomness.

A sort may have several keys: a key decides where those before it are equal for certain, which
inexact numbers never are. Keys that all honest devices compute alike have no slack. Elements that
are equal in all keys, such as a mask of infinities, keep their order if the primitive promises so.
From a row with NaN, the choice must be the verifier's own, or the test shows nothing.

Other outputs of the equation follow: the elements at these indices, of the verifier's own row. The
indices are committed in the smallest unsigned type that holds them all. One beyond the row, or
picked twice, is out of range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.claims import origin, slack
from verifiable.claims.decisions import choice_pairs
from verifiable.claims.form import Form, Proposal, View, Yardstick
from verifiable.claims.origin import Origin
from verifiable.claims.statistic import Deviation, Statistic, deviation, worst_row
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Equation
from verifiable.jaxpr.effects import FLOATS, Effect, effects_of, keys_of

KINDS = frozenset({"argmax", "argmin", "sort", "top_k"})

# What is out of order by less than this part of the slack is no flip. In float32, rounding is
# within a quarter of it. In types of few digits it is not, but in long choices within the other.
NEAR = 1 / 64
NEAR_IF_LONG = 1 / 2
COARSE = 2.0**-12
"""An eps above it is that of float16 or bfloat16, and leaves most tokens of a model to a cheat."""

SHORT = 8  # indices of a row; all pairs of so few are decisions


class Picked(NamedTuple):
    """How a committed choice fits the replayed rows; arrays (rows, picked) unless said otherwise.

    Attributes:
      value: of the pair that says most, what comes later minus what comes before (`order`).
      slack: of the two together.
      index: the indices, within the row.
      valid: (rows,), whether the indices are distinct and in range.
      absent: (rows,), whether a key is NaN.
      near: the part of the slack below which nothing is a flip.
    """

    value: Array
    slack: Array
    index: Array
    valid: Array
    absent: Array
    near: float

    @property
    def beyond(self) -> Array:
        """The value, of which so much is cut off that it is negative for a flip."""
        return self.value + self.near * self.slack

    @property
    def flipped(self) -> Array:
        """Whether it is negative.

        Not read from the sum: equal elements differ by the least normal number, of which a compiled
        sum leaves a subnormal one, which is flushed to zero.
        """
        return self.value < -self.near * self.slack


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceForm(Form):
    """The form of a choice.

    Attributes:
      kind: the primitive.
      shape: of its operands.
      axis: along which it chooses.
      count: how many it picks of each row.
      keys: types of the operands that decide.
      inexact: of each key, whether honest devices compute it with other rounding.
      stable: whether equal elements keep their order.
      origins: the glue before each key, as far as it can be followed.
      dtype: of an output of indices.
      operands: how many there are; all are sorted along.
    """

    mismatch: ClassVar[str] = "decision-mismatch"
    shifts: ClassVar[bool] = False

    kind: str
    shape: tuple[int, ...]
    axis: int
    count: int
    keys: tuple[np.dtype[Any], ...]
    inexact: tuple[bool, ...]
    stable: bool
    dtype: np.dtype[Any]
    operands: int
    origins: tuple[Origin | None, ...] = ()

    @property
    def observes(self) -> bool:
        """The values that decide are not committed."""
        return any(self.inexact)

    def eps_types(self, rounding_dtypes: frozenset[str]) -> frozenset[str]:
        """Types that the keys were rounded to."""
        return rounding_dtypes if any(self.inexact) else frozenset()

    @property
    def decisions(self) -> int:
        """One for each pair of indices of a row, and each with the rest; one an index of many."""
        each = self.count * (self.count + 1) // 2 if self.count <= SHORT else self.count
        return math.prod(self.shape) // self.length * each if any(self.inexact) else 0

    @property
    def length(self) -> int:
        """Elements in a row."""
        return self.shape[self.axis]

    @property
    def moved_from(self) -> tuple[int | None, ...]:
        """A sort moves its operands, `top_k` its only one; the other outputs are indices."""
        if self.kind == "sort":
            return tuple(range(self.operands))
        return (0, None) if self.kind == "top_k" else (None,)

    def evaluate(
        self, equation: Equation, inputs: Sequence[Array], apply: interpret.Apply = interpret.apply
    ) -> list[Array]:
        """The outputs; a sort takes positions along, as its last operand."""
        if self.kind != "sort":
            return apply(equation, inputs)
        positions = lax.broadcasted_iota(jnp.int32, self.shape, self.axis)
        return self._sorted([*inputs, positions], self.axis)

    def packed(
        self, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """The indices along the axis, or without it where one is picked."""
        before, after = self.shape[: self.axis], self.shape[self.axis + 1 :]
        middle = () if self._single else (self.count,)
        return (*before, *middle, *after), np.min_scalar_type(self.length - 1)

    def pack(self, out: Array) -> Array:
        """The indices in the smallest type."""
        return out.astype(np.min_scalar_type(self.length - 1))

    def unpack(self, claim: Array) -> Array:
        """The indices along the axis, int32; those beyond the row are its last."""
        index = jnp.minimum(claim, self.length - 1).astype(jnp.int32)
        return jnp.expand_dims(index, self.axis) if self._single else index

    def outputs(self, claim: Array, sources: Sequence[Array | None]) -> list[Array]:
        """The indices, or the elements at them."""
        index = self.unpack(claim)
        given = index.squeeze(self.axis) if self._single else index
        return [
            given.astype(self.dtype)
            if source is None
            else jnp.take_along_axis(source, index, self.axis, mode="promise_in_bounds")
            for source in sources
        ]

    def row_width(self, shape: tuple[int, ...]) -> int:
        """Each index that was picked is tested by itself."""
        return self.count

    def test(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Statistic:
        """Test a committed choice; runs under `jax.enable_x64`.

        Args:
          operands: the keys and the leaves of their glue, as the verifier replayed them.
          claim: the committed indices.
          yardstick: eps is the slack as a fraction of |value| + rms.

        Returns:
          `worst` is the largest distance by which an element is out of order, as a fraction of the
          slack; `row` counts over all axes but that of the choice.
        """
        found = self.picked(operands, claim, yardstick.eps)
        ratio = jnp.maximum(-found.value, 0) / found.slack
        by_row = jnp.max(ratio, axis=-1, initial=0.0)
        by_row = jnp.where(found.absent, 0, by_row)
        by_row = jnp.where(found.valid, by_row, jnp.inf).astype(jnp.float64)
        true = jnp.ones((), bool)
        shown = found.valid & ~found.absent

        def as_own() -> Array:
            equal = jnp.all(found.index == self._own(operands[: len(self.keys)]), axis=-1)
            return jnp.all(~found.absent | equal)

        return Statistic(
            *worst_row(by_row),
            finite_claim=true,
            in_range=jnp.all(found.valid),
            finite_operands=lax.cond(jnp.any(found.absent), as_own, lambda: true),
            ties=jnp.sum(jnp.abs(found.value) <= found.slack, dtype=jnp.int32),
            flips=jnp.sum(found.flipped & shown[:, None], dtype=jnp.int32),
        )

    def deviate(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Deviation:
        """Of each index that was picked, how far it is from being out of order, and the slack."""
        found = self.picked(operands, claim, yardstick.eps)
        valid = jnp.broadcast_to(found.valid[:, None], found.value.shape)
        value = jnp.where(found.absent[:, None], jnp.nan, found.beyond)
        low, high = jnp.where(valid, 0.0, jnp.inf), jnp.where(valid, jnp.inf, -jnp.inf)
        scale = found.slack / yardstick.eps if yardstick.eps else found.slack
        return deviation(value, low, high, (1 - found.near) * found.slack, scale)

    def slacks(self, operands: list[Array], eps: float) -> list[Array]:
        """The slack of each key, in its shape; zero if it is exact."""
        before, after = self.shape[: self.axis], self.shape[self.axis + 1 :]
        return [
            jnp.zeros(self.shape, jnp.float32)
            if key.slack is None
            else jnp.moveaxis(key.slack.reshape(*before, *after, self.length), -1, self.axis)
            for key in self._keys(operands, eps)
        ]

    def apart(self, mine: list[Array], theirs: list[Array]) -> Array:
        """The largest distance of a key from the replayed one, in units of its slack."""
        own = self._keys(mine, origin.SMALL), self._keys(theirs, origin.SMALL)
        each = [
            slack.apart(a.value, b.value, a.slack / origin.SMALL)
            for a, b in zip(*own, strict=True)
            if a.slack is not None
        ]
        return jnp.max(jnp.stack(each))

    def room(self, operands: list[Array], far: Array | None, out: Array, eps: float) -> Array:
        """One where another index would pass, else zero: a choice has no derivative."""
        found = self.picked(operands, self.pack(out), eps)
        return (jnp.abs(found.value) <= found.slack).astype(jnp.float32)

    def picked(self, operands: list[Array], claim: Array, eps: float) -> Picked:
        """How a committed choice fits the replayed keys; see `Picked`."""
        index = self._rows(self.unpack(claim))
        rows, positions = len(index), lax.iota(jnp.int32, self.length)
        inside = claim <= self.length - 1
        inside = self._rows(jnp.expand_dims(inside, self.axis) if self._single else inside)
        if self.count == 1:
            taken = positions == index
        else:
            taken = jnp.zeros((rows, self.length), bool)
            taken = taken.at[jnp.arange(rows)[:, None], index].set(True)
        keys = self._keys(operands, eps)
        absent = [jnp.any(jnp.isnan(k.value), axis=-1) for k in keys if k.dtype.name in FLOATS]
        found = choice_pairs.pairs(keys, index, taken, stable=self.stable)
        return Picked(
            value=found.value,
            slack=found.slack,
            index=index,
            valid=jnp.all(inside, axis=-1) & (jnp.sum(taken, axis=-1) == self.count),
            absent=jnp.any(jnp.stack([*absent, jnp.zeros(rows, bool)]), axis=0),
            near=NEAR_IF_LONG if eps > COARSE and self.count > SHORT else NEAR,
        )

    def _keys(self, operands: list[Array], eps: float) -> list[choice_pairs.Key]:
        """The keys by rows, such that the least come first, with their slack."""
        count = len(self.keys)
        known = self.origins or (None,) * count
        bounds = origin.bounds(known, operands[count:], eps)
        found: list[choice_pairs.Key] = []
        for key, bound, inexact, dtype in zip(
            operands[:count], bounds, self.inexact, self.keys, strict=True
        ):
            value, own = self._rows(jnp.asarray(key)), None
            if inexact:
                value = slack.widened(value)
                rows = None if bound is None else self._rows(bound)
                own = origin.slack_of(value, eps, dtype, rows)
            value = value if self.kind in ("argmin", "sort") else -value
            found.append(choice_pairs.Key(value, own, dtype, self.kind == "top_k"))
        return found

    def _own(self, operands: list[Array]) -> Array:
        """The verifier's own choice, as rows."""
        keys = [self._rows(jnp.asarray(x)) for x in operands]
        if self.kind == "sort":
            positions = lax.broadcasted_iota(jnp.int32, keys[0].shape, 1)
            return self._sorted([*keys, positions], 1)[-1]
        if self.kind == "top_k":
            return lax.top_k(keys[0], self.count)[1].astype(jnp.int32)
        pick = lax.argmax if self.kind == "argmax" else lax.argmin
        return pick(keys[0], 1, jnp.int32)[:, None]

    def _sorted(self, values: list[Array], axis: int) -> list[Array]:
        keys = len(self.keys)
        return list(lax.sort(values, dimension=axis, is_stable=self.stable, num_keys=keys))

    def _rows(self, value: Array) -> Array:
        """(rows, elements), the elements along the axis of the choice."""
        value = jnp.moveaxis(value, self.axis, -1)
        return value.reshape(math.prod(value.shape[:-1]), value.shape[-1])

    @property
    def _single(self) -> bool:
        """Whether the axis is dropped."""
        return self.kind in ("argmax", "argmin")


def propose(equation: Equation, view: View) -> Proposal | None:
    """Claim a choice among floats that honest devices round apart; see `form.Rule`.

    Also a sort that lets devices choose the order of equal keys.
    """
    kind, params, outputs = equation.kind, equation.params, equation.outputs
    keys = keys_of(equation)
    inexact = tuple(not view.exact(a) for a in keys)
    effects = effects_of(equation)
    flips = any(inexact) and Effect.DISCONTINUOUS in effects
    if not flips and Effect.UNDEFINED not in effects:
        return None
    rounded = [a.dtype.name for a, flag in zip(keys, inexact, strict=True) if flag]
    if not FLOATS.issuperset(rounded) or any(a.dtype.kind == "c" for a in keys):
        return None
    if kind == "top_k" and not view.graph.readers.get(outputs[1]):
        return None  # the values alone are continuous
    shape = equation.inputs[0].shape
    axis = {"sort": "dimension", "top_k": "axis"}.get(kind)
    axis = params["axes"][0] if axis is None else params[axis]
    count = {"sort": shape[axis], "top_k": params.get("k")}.get(kind, 1)
    if not count:
        return None
    known = tuple(origin.before(a, view) for a in keys)
    form = ChoiceForm(
        kind=kind,
        shape=shape,
        axis=axis,
        count=count,
        keys=tuple(a.dtype for a in keys),
        inexact=inexact,
        stable=params.get("is_stable", True),
        dtype=outputs[-1].dtype,
        operands=len(equation.inputs),
        origins=known,
    )
    operands = (*keys, *origin.read_by(known))
    return Proposal(form=form, operands=operands, covers=frozenset({equation.name}))
