"""Pieces as claims: on which piece a device evaluated a function that jumps (`jaxpr.pieces`).

Both sides go on with the committed piece, on which the function is continuous. With v the replayed
value that decides and [low, high] the values of a piece, a piece is accepted iff

    low - slack(v) <= v <= high + slack(v).

The piece of an angle or of a sign bit is a boolean, tested as the comparison v < 0 (`decision`).
That of a remainder is a whole number, and is committed as one.

A whole number has a tie at every step, and a large one is off by more than a small one. So it
counts as a flip if it is out of its interval by more than a part of the slack, as in a choice of
many elements (`choice`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from verifiable.claims import origin, slack
from verifiable.claims.decisions.choice import COARSE, NEAR, NEAR_IF_LONG
from verifiable.claims.decisions.decision import Comparison, DecisionForm, Margins
from verifiable.claims.form import Proposal, View, Yardstick
from verifiable.claims.origin import Origin
from verifiable.claims.statistic import Deviation, Statistic, deviation
from verifiable.jaxpr.blocks import Array, Equation, Literal
from verifiable.jaxpr.pieces import FUNCTIONS, PIECE

KINDS = frozenset({PIECE})


@dataclass(frozen=True, slots=True, kw_only=True)
class SignBit(Comparison):
    """The form of a boolean piece: a comparison with zero that tells zeros apart."""

    def margins(self, operands: list[Array], eps: float) -> Margins:
        """See `Comparison`."""
        found = Comparison.margins(self, operands, eps)
        own = FUNCTIONS["signbit"].own(jnp.broadcast_to(operands[0], self.shape))
        own, size = own.reshape(found.own.shape), jnp.abs(found.value)
        return found._replace(value=jnp.where(own, size, -size), own=own)


@dataclass(frozen=True, slots=True, kw_only=True)
class WholePiece(DecisionForm):
    """The form of a piece that is a whole number.

    Attributes:
      function: name of the entry.
      shape: of the output.
      dtype: of the value that decides.
      inputs: number of operands of the function; they are replayed beside the value.
      origins: the glue before the value, as far as it can be followed, and nothing for the others.
    """

    function: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    inputs: int
    origins: tuple[Origin | None, ...]

    @property
    def decisions(self) -> int:
        """One for each element."""
        return math.prod(self.shape)

    def packed(
        self, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """The whole numbers; a scalar is a row of one."""
        return self._rows, np.dtype(dtype)

    def pack(self, out: Array) -> Array:
        """The whole numbers."""
        return out.reshape(self._rows)

    def unpack(self, claim: Array) -> Array:
        """The whole numbers."""
        return claim.reshape(self.shape)

    def read(self, claim: Array) -> tuple[Array, Array]:
        """The numbers, of which whole ones are valid."""
        return claim, jnp.isfinite(claim) & (claim == jnp.trunc(claim))

    def interval(self, decided: Array) -> tuple[Array, Array]:
        """The values of each piece."""
        ends = FUNCTIONS[self.function].ends
        if ends is None:
            raise AssertionError("a piece without ends is a boolean")
        return ends(decided)

    def margins(self, operands: list[Array], eps: float) -> Margins:
        """The value, which is NaN where no piece has it, as that of a quotient by zero."""
        value, own = self._value(operands), self._own(operands)
        low, high = self.interval(own)
        shown = jnp.isfinite(value) | ((value >= low) & (value <= high))
        return Margins(
            value=jnp.where(shown, value, jnp.nan),
            slack=self.slacks(operands, eps)[0],
            own=own,
        )

    def test(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Statistic:
        """See `DecisionForm`; ties are those at the ends of the verifier's own piece."""
        found, eps = self.margins(operands, yardstick.eps), yardstick.eps
        decided, valid = self.read(claim)
        low, high = self.interval(decided)
        beyond = jnp.maximum(low - found.value, found.value - high)
        own_low, own_high = self.interval(found.own)
        margin = jnp.minimum(found.value - own_low, own_high - found.value)
        return DecisionForm.test(self, operands, claim, yardstick)._replace(
            ties=jnp.sum(margin <= found.slack, dtype=jnp.int32),
            flips=jnp.sum(valid & (beyond > _near(eps) * found.slack), dtype=jnp.int32),
        )

    def deviate(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Deviation:
        """The value, the piece with what counts as no flip, and the rest of the slack."""
        found, near = self.margins(operands, yardstick.eps), _near(yardstick.eps)
        decided, valid = self.read(claim)
        low, high = self.interval(decided)
        low = jnp.where(valid, low - near * found.slack, jnp.inf)
        high = jnp.where(valid, high + near * found.slack, -jnp.inf)
        limit = (1 - near) * found.slack
        return deviation(found.value, low, high, limit, found.slack / yardstick.eps)

    def room(self, operands: list[Array], far: Array | None, out: Array, eps: float) -> Array:
        """One piece towards the nearer end, if it is within the slack."""
        found = self.margins(operands, eps)
        low, high = (x - found.value for x in self.interval(found.own))
        tie = jnp.minimum(-low, high) <= found.slack
        return tie.astype(jnp.float32).reshape(out.shape)

    def shifted(
        self, operands: list[Array], out: Array, shift: Array, eps: float, kappa: float
    ) -> Array:
        """The piece beside it in the direction of the shift, if the value is near that end."""
        found = self.margins(operands, eps)
        low, high = self.interval(found.own)
        end = jnp.where(shift.reshape(low.shape) < 0, found.value - low, high - found.value)
        near = (end <= found.slack).reshape(out.shape)
        return jnp.where(near, out + jnp.sign(shift), out).astype(out.dtype)

    def apart(self, mine: list[Array], theirs: list[Array]) -> Array:
        """The largest distance of the value from the replayed one, in units of its slack."""
        unit = self.slacks(mine, origin.SMALL)[0] / origin.SMALL
        return slack.apart(self._value(mine), self._value(theirs), unit)

    def slacks(self, operands: list[Array], eps: float) -> list[Array]:
        """The slack of the value, by rows."""
        leaves = origin.leaves_of(self.origins, operands)
        [bound] = origin.bounds(self.origins, leaves, eps)
        bound = None if bound is None else bound.reshape(self._rows)
        return [origin.slack_of(self._value(operands), eps, self.dtype, bound)]

    @property
    def _rows(self) -> tuple[int, ...]:
        return self.shape or (1,)

    def _value(self, operands: list[Array]) -> Array:
        return jnp.broadcast_to(slack.widened(operands[0]), self.shape).reshape(self._rows)

    def _own(self, operands: list[Array]) -> Array:
        own = FUNCTIONS[self.function].own(*operands[: 1 + self.inputs])
        return jnp.broadcast_to(own, self.shape).reshape(self._rows)


def _near(eps: float) -> float:
    """The part of the slack within which a whole number is no flip."""
    return NEAR_IF_LONG if eps > COARSE else NEAR


def propose(equation: Equation, view: View) -> Proposal | None:
    """Claim a piece, if its value is not exact; see `form.Rule`."""
    value, *inputs = equation.inputs
    if isinstance(value, Literal) or view.exact(value):
        return None
    [out], name, known = equation.outputs, equation.params["of"], origin.before(value, view)
    operands = value, *inputs, *origin.read_by([known])
    if out.dtype == np.bool_:
        operands = value, *origin.read_by([known])
        form: DecisionForm = SignBit(
            kind="lt",
            shape=out.shape,
            dtype=value.dtype,
            inexact=(True, False),
            origins=(known, None),
        )
    else:
        form = WholePiece(
            function=name,
            shape=out.shape,
            dtype=value.dtype,
            inputs=len(inputs),
            origins=(known,),
        )
    return Proposal(form=form, operands=operands, covers=frozenset({equation.name}))
