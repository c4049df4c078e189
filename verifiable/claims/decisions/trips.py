"""Trips of loops as claims: how often the body of a `while` ran on the device.

The replayed values of the verifier differ from the device's in the last bits. Where a loop ends by
a comparison of floats, a last bit turns into one trip more or less, and that into any difference.
So the device commits to the number n of trips, both sides go on after n of them, and the verifier
tests the condition as it replays the loop. With r_t its margin after t trips (`conditions`),

    n is accepted iff  r_t >= -1 for all t < n,  and  r_n <= 1:

the condition is true for operands within their slack as long as the device went on, and false when
it stopped. The margin of n itself is the least of all r_t and -r_n, so that n is accepted iff this
is at least -1, and differs from the verifier's own number only if it is at most zero. A device
whose operands are within the slack of the verifier's always passes. The test uses no randomness,
and such flips are counted as those of comparisons are.

Of NaN, the condition must be the verifier's own, or the test shows nothing. The verifier never runs
more trips than its limit, nor more than PATIENCE and twice the number after which the condition was
beyond its slack: then nothing after the loop is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.claims.decisions.conditions import (
    Condition,
    Interval,
    Margin,
    Reached,
    certain,
    chosen,
    least,
    turned_round,
)
from verifiable.claims.form import Proposal, View, Yardstick
from verifiable.claims.loop import LoopForm
from verifiable.claims.slack import of_numbers
from verifiable.claims.statistic import Deviation, Statistic, deviation, first, strictly
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Env, Equation, Var
from verifiable.jaxpr.interpret import Budget

PATIENCE = 8
SCALE = 32  # of a distance; so a spread decides nothing if it is more than half of the distance
_NEVER = 2**29


class Replayed(NamedTuple):
    """How numbers of trips fit a replay; arrays of the shape of the predicate.

    Attributes:
      margin: see the module's docstring; float64.
      value: distance of the comparison that decides, positive iff it is as committed; float64.
      slack: how far an honest device's may be from it; float64.
      absent: whether a comparison of NaN decided, and not as the verifier's own.
      flips: whether another decision was not the verifier's own.
      stopped: whether the loop was cut short.
    """

    margin: Array
    value: Array
    slack: Array
    absent: Array
    flips: Array
    stopped: Array


class _State(NamedTuple):
    carry: list[Array]
    flags: list[Interval]
    done: Array  # trips
    wrong: Array  # trips before the condition was beyond its slack
    seen: Replayed
    budget: Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class TripsForm(LoopForm):
    """The form of a number of trips.

    Attributes:
      shape: of the predicate: examples under `vmap`, each with a number of its own.
      condition: what decides whether the loop goes on.
      live: positions of the carries that something reads after the loop.
    """

    mismatch: ClassVar[str] = "decision-mismatch"
    barrier: ClassVar[bool] = False
    shifts: ClassVar[bool] = False
    calibrates: ClassVar[bool] = False

    shape: tuple[int, ...]
    condition: Condition
    live: tuple[int, ...]

    def eps_types(self, rounding_dtypes: frozenset[str]) -> frozenset[str]:
        """Types that what is compared was rounded to."""
        return rounding_dtypes

    @property
    def decisions(self) -> int:
        """One for each number."""
        return math.prod(self.shape)

    def packed(
        self, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """The numbers."""
        return self.shape, np.dtype(np.int32)

    def row_width(self, shape: tuple[int, ...]) -> int:
        """Each number is tested by itself."""
        return 1

    @property
    def reads(self) -> Sequence[Atom]:
        """See `Condition.reads`."""
        return self.condition.reads

    def run(self, equation: Equation, env: Env, apply: interpret.Apply) -> list[Array]:
        """The carries after the loop on a device, and the numbers of trips."""
        carry, trips = interpret.counted(equation, env, apply)
        return [*carry, trips]

    def replay(
        self,
        equation: Equation,
        env: Env,
        committed: Array,
        eps: float,
        limit: int,
        apply: interpret.Apply,
    ) -> tuple[list[Array], Sequence[Array], Array]:
        """Replay a loop with committed numbers of trips; runs under `jax.enable_x64`.

        Args:
          equation: the loop.
          env: values that it reads, and `Condition.reads`.
          committed: any integers of the shape of the predicate.
          eps: tolerance of the condition.
          limit: the most trips of this loop and of all loops inside it together.
          apply: evaluates an equation without bodies.

        Returns:
          The carries, what `test` is given (`Replayed`), and whether the loop was cut short.
        """
        predicate, body = equation.bodies
        condition, trips = self.condition, committed

        def going(state: _State) -> Array:
            patient = state.done < 2 * state.wrong + PATIENCE
            return (state.done < trips) & patient & ~state.budget.stopped

        def asked(state: _State, tested: Array) -> _State:
            inner = dict(env)
            interpret.write(inner, predicate.inputs, state.carry)
            here = interpret.in_trip(apply, jnp.max(state.done, initial=0))
            [own], budget = interpret.limited(predicate, inner, state.budget, here)
            margin = condition.asked(inner, state.flags, eps)
            tested = tested & ~budget.stopped
            with jax.disable_jit(False):  # The test is compiled where the glue goes op by op.
                seen, beyond = _seen(state.seen, state.done < trips, own, margin, tested)
            wrong = jnp.where(beyond, jnp.minimum(state.wrong, state.done), state.wrong)
            return state._replace(seen=seen, wrong=wrong, budget=budget)

        def turn(state: _State) -> _State:
            on, inner = going(state), dict(env)
            interpret.write(inner, body.inputs, state.carry)
            budget = state.budget._replace(left=state.budget.left - 1)
            here = interpret.in_trip(apply, jnp.max(state.done, initial=0) + 1)
            carry, budget = interpret.limited(body, inner, budget, here)
            flags = condition.turned(inner, state.flags, eps)
            if self.shape:
                carry = interpret.kept(on, carry, state.carry)
                pairs = zip(flags, state.flags, strict=True)
                flags = [_kept(on, new, old) for new, old in pairs]
            done = state.done + on.astype(jnp.int32)
            return asked(state._replace(carry=carry, flags=flags, done=done, budget=budget), on)

        carry = interpret.read_all(env, equation.inputs)
        none = jnp.zeros(self.shape, bool)
        start = _State(
            carry=carry,
            flags=condition.initial(carry),
            done=jnp.zeros(self.shape, jnp.int32),
            wrong=jnp.full(self.shape, _NEVER, jnp.int32),
            seen=Replayed(*certain(~none), none, none, none),
            budget=Budget(jnp.int32(limit), jnp.zeros((), bool)),
        )
        found = lax.while_loop(
            lambda state: jnp.any(going(state)) & (state.budget.left > 0),
            turn,
            asked(start, ~none),
        )
        stopped = found.budget.stopped | (found.done < trips)
        return found.carry, found.seen._replace(stopped=stopped), jnp.any(stopped)

    def effect(
        self, equation: Equation, env: Env, eps: float, limit: int, apply: interpret.Apply
    ) -> Deviation:
        """See `LoopForm.effect`; a row is one number, with all that its live carries hold."""
        own, stopped = interpret.while_loop(equation, env, limit, apply)
        rows = math.prod(self.shape)
        none = jnp.zeros((rows, 0))
        found = [(none, none, none)]
        for j in self.live:
            after = jnp.asarray(interpret.read(env, equation.outputs[j]))
            pairs = zip(_numbers(after), _numbers(own[j]), strict=True)
            found += [self._beside(a, b, rows, eps) for a, b in pairs]
        value, low, high = (jnp.concatenate(x, axis=1) for x in zip(*found, strict=True))
        low = jnp.where(stopped, jnp.inf, low)
        return deviation(value, low, high, jnp.ones(rows), jnp.ones(rows))

    def _beside(
        self, after: Array, own: Array, rows: int, eps: float
    ) -> tuple[Array, Array, Array]:
        """A carry, and the least and most within the slack of the verifier's own, (rows, ...)."""
        free = jnp.zeros(own.shape)
        if jnp.issubdtype(own.dtype, jnp.floating):
            # A scalar of an example is a row of its own.
            each = own[..., None] if own.ndim == len(self.shape) else own
            free = of_numbers(each, eps, np.dtype(own.dtype))
        value, centre, free = (x.astype(jnp.float64).reshape(rows, -1) for x in (after, own, free))
        known = jnp.isfinite(value) & jnp.isfinite(centre)
        low = jnp.where(known, centre - free, jnp.inf)
        return jnp.where(jnp.isfinite(value), value, 0), low, centre + free

    def test(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Statistic:
        """Test committed numbers of trips.

        Args:
          operands: a `Replayed`, of a replay with these numbers.
          claim: the numbers.
          yardstick: of which the replay had the eps.

        Returns:
          `worst` is the largest distance of a condition from what was committed, as a fraction of
          its slack; a row is one number.
        """
        found = Replayed(*operands)
        valid = claim >= 0
        ratio = jnp.where(valid, jnp.maximum(-found.margin, 0), jnp.inf).reshape(-1)
        worst, true = jnp.max(ratio, initial=0.0), jnp.ones((), bool)
        return Statistic(
            worst=worst.astype(jnp.float64),
            row=first(ratio == worst),
            passed=jnp.all(ratio <= 1.0),
            finite_claim=true,
            in_range=jnp.all(valid),
            finite_operands=~jnp.any(found.absent),
            ties=jnp.sum(jnp.abs(found.margin) <= 1, dtype=jnp.int32),
            flips=jnp.sum(found.flips & valid, dtype=jnp.int32),
            stopped=jnp.any(found.stopped),
        )

    def deviate(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Deviation:
        """The distance that decides on each number, which must not be below zero, and its slack."""
        found = Replayed(*operands)
        value = jnp.where(found.absent & (found.margin >= -1), jnp.nan, found.value)
        low, high = jnp.zeros_like(value), jnp.full_like(value, jnp.inf)
        low, high = strictly(value, low, high, ~found.flips)
        low = jnp.where(claim >= 0, low, jnp.inf)
        # What is compared is often a difference of nearly equal numbers, such as the step of an
        # iteration: its own size says little about its rounding.
        scale = jnp.maximum(found.slack / yardstick.eps, SCALE * jnp.abs(found.value))
        return deviation(value, low, high, found.slack, scale)

    def unfounded(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Array:
        """Numbers that follow from comparisons of NaN, and are not the verifier's own."""
        return Replayed(*operands).absent.reshape(-1, 1)

    def room(self, operands: list[Array], far: Array | None, out: Array, eps: float) -> Array:
        """One where another number would pass, else zero: a number has no derivative."""
        return (jnp.abs(Replayed(*operands).margin) <= 1).astype(jnp.float32)


def _kept(on: Array, after: Interval, before: Interval) -> Interval:
    low, high = (chosen(on, new, old) for new, old in zip(after, before, strict=True))
    return low, high


@jax.jit
def _seen(
    before: Replayed, wanted: Array, own: Array, margin: Interval, tested: Array
) -> tuple[Replayed, Array]:
    """What one more evaluation of the condition shows, and whether it is beyond its slack.

    Args:
      before: what was seen so far.
      wanted: whether the device went on.
      own: whether the verifier would.
      margin: of the condition.
      tested: which examples were not done before.
    """
    low, high = margin
    lowest = chosen(wanted, low, turned_round(high))
    highest = chosen(wanted, high, turned_round(low))
    sure = lowest.ratio >= 0
    decided = (lowest.ratio == highest.ratio) | sure | (highest.ratio < -1)
    found = chosen(sure, lowest, highest)
    other = tested & (own != wanted)
    beyond = tested & jnp.where(decided, found.ratio < -1, other)
    so_far = Margin(before.margin, before.value, before.slack)
    worst = chosen(tested & decided, least(so_far, found), so_far)
    seen = Replayed(
        *worst,
        absent=before.absent | (other & ~decided),
        flips=before.flips | (other & decided),
        stopped=before.stopped,
    )
    return seen, beyond


def _numbers(value: Array) -> list[Array]:
    """An array as real numbers: parts of complex ones, words of random keys."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return [jax.random.key_data(value)]
    return [value.real, value.imag] if jnp.iscomplexobj(value) else [value]


def propose(followed: Reached, view: View) -> Proposal | None:
    """Claim the trips of a `while` if devices may round a covered comparison apart.

    Args:
      followed: its condition.
      view: knows the variables of the loop.
    """
    condition = Condition.of(followed, view)
    covered = followed.covered & condition.comparisons.keys()
    if not covered:
        return None
    shape = followed.loop.bodies[0].outputs[0].shape
    readers = view.graph.readers
    live = tuple(j for j, v in enumerate(followed.loop.outputs) if readers.get(v))
    form = TripsForm(shape=shape, condition=condition, live=live)
    types = *3 * (np.float64,), *3 * (np.bool_,)
    operands = tuple(Var(shape, np.dtype(t)) for t in types)
    return Proposal(form=form, operands=operands, covers=frozenset(e.name for e in covered))
