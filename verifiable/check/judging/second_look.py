"""The second look: a failed test accuses, a recomputation rejects.

A tolerance says what rounding may do to a product. It cannot say what rounding does to the glue
before it: a layer norm of a constant row, a cancelling variance or the sine of a large angle turn
one last bit into any change. So the operands of a claim that failed are replayed again:

    centres       compiled, in the program's own types; and op by op, in float64; where values
                  come near the ends of their types (`jaxpr.ranges`), also compiled such that
                  factors may be put together;
    perturbed     with other rounding (`jaxpr.perturb`): half of the replays draw each element by
                  itself, half one sign for each equation; half move every result by what a device
                  may lose, half by WIDEN = 4 times as much.

With x_i what the operands lead to for row i, A_i (B r) for a product, and Delta_i its change from
the unperturbed replay, the limit of the row is widened by

    spread_i = max over the replays of  4 |Delta_i|  at the honest size,  |Delta_i|  at 4 times it.

Where glue is smooth both are the same; at a cliff, such as a variance clipped at zero, the larger
perturbation reaches it although an honest one seldom does. A row is shown wrong iff its distance
from all centres is greater than limit_i + spread_i, the spread is not a visible part of the row
(at most 2^-6 of its scale, or 32 limit_i), and, among MANY, not heavy-tailed (of each size, of
independent and of coherent ones: the largest change at most 8 times the median, or below 2^-6 of
the limit; of loops, 2^-6 of the distance). After FEW replays the look ends if no row is shown wrong
so far, or one is beyond limit_i + 4 spread_i with a spread of at most 4 limit_i; otherwise MANY
decide.

A claim whose decisions differ too often is looked at in the same way: its flips are compared with
those of perturbed replays (`flips`), and accepted if a device's own rounding decides each of them
so.

Every row of a claim is looked at, so that a row of noise hides no other. A claim that is not
finite, or whose operands are not, is first tested again (`Form.retest`): the compiled check does
not ask which of its rows are NaN on every device, or overflow on some. It costs nothing where every
test passes.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from verifiable.check import flips, outputs
from verifiable.check.judging import aftermath
from verifiable.check.judging.spread import (
    DEVICE,
    Again,
    Look,
    Rows,
    allowance,
    as_wholes,
    changes,
    decide,
    distances,
    either_way,
    moved,
    turned,
    unmoved,
)
from verifiable.check.replay import operands
from verifiable.check.replay.needed import Needs
from verifiable.check.replay.on_demand import Replays
from verifiable.check.specification import Target
from verifiable.claims.claim import Claim
from verifiable.claims.statistic import Deviation, Statistic
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array
from verifiable.jaxpr.perturb import in_float64
from verifiable.jaxpr.ranges import Watched

_LOG = logging.getLogger(__name__)


class Centres(NamedTuple):
    """Replays of a claim or output: with other rounding, in float64, and as it is.

    Attributes:
      draw: as of `spread.moved`, a perturbed replay.
      wide: the deviation from the replay in float64.
      own: the expectation of the compiled replay.
      distance: of each row, from the nearest of all centres.
    """

    draw: Callable[..., Array]
    wide: Deviation
    own: Rows
    distance: Rows


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SecondLook(Replays):
    """Second looks at the claims and outputs of one program."""

    _compiled: dict[Target, Callable[..., Array]] = field(default_factory=dict)
    _plain: dict[Target, Callable[..., Array]] = field(default_factory=dict)
    _numbers: dict[Target, tuple[Any, Any]] = field(default_factory=dict)
    _retests: dict[int, Callable[..., Statistic]] = field(default_factory=dict)
    _effects: dict[int, tuple[Any, Any]] = field(default_factory=dict)

    def on(self, arguments: Any) -> Again:
        """The looks at one run.

        Args:
          arguments: `compiled.CheckArguments` of the run.
        """
        return Again(
            look=functools.partial(self.look, arguments),
            retest=functools.partial(self.retest, arguments),
            recount=functools.partial(self.recount, arguments),
            unfounded=functools.partial(self.unfounded, arguments),
            reads=self.reads,
        )

    def look(
        self, arguments: Any, target: Target, *, strict: bool = False, last: int | None = None
    ) -> Look:
        """Look at a claim or output again.

        Args:
          arguments: `compiled.CheckArguments` of the run.
          target: a claim with a tolerance, or an output of floats.
          strict: whether only what other rounding does is allowed, and no tolerance.
          last: iteration, over the scans around the claim, after which nothing is looked at.
        """
        claim = None if target.output else self.program.claims[target.index]
        name = self.program.outputs[target.index].name if claim is None else claim.name
        _LOG.info("second look at %s: its parts compile at first use", name)
        with jax.enable_x64(True):
            centres = self._centres(target, arguments)
            draw, wide, own, distance = centres
            distance = np.where(self._until(target, last, len(distance)), distance, 0.0)
            centres = centres._replace(distance=distance)
            limit = np.zeros(len(distance)) if strict else wide.limit
            # Steps of a loop that has converged are nearly zero: any change exceeds their slack.
            tail = distance if claim is not None and claim.loop is not None else limit
            moves = functools.partial(changes, draw, own, moves=wide.moves)
            found = decide(distance, limit, wide.scale, moves, tail)
            if claim is not None and not (found.wrong or strict):
                found = self._as_claimed(claim, centres, found, arguments)
        return self._placed(target, found, len(distance))

    def _as_claimed(self, claim: Claim, centres: Centres, found: Look, arguments: Any) -> Look:
        """Look at rows as wholes, at what follows a loop, and at flips; no element is shown wrong.

        Args:
          claim: that is looked at.
          centres: of it.
          found: of its elements.
          arguments: `compiled.CheckArguments` of the run.
        """
        draw, wide, own, distance = centres
        if claim.form.rows_too:
            moves = functools.partial(changes, draw, own, moves=wide.moves)
            found = as_wholes(found, distance, wide, moves, claim.wholes(len(distance)))
            if found.wrong:
                return found
            # Rounded as a whole, a product loses no more than its last operation.
            moves = functools.partial(changes, self._gently(draw), own, every=DEVICE)
            found = allowance(found, distance, wide, moves, claim)
        flipped = distance > 0
        if claim.loop is not None:
            found = self._without_effect(found, claim, arguments)
            # Beyond its limit, what rounding explains leaves the claim undecided; other rounding
            # need not turn it round: a step is never zero with noise.
            flipped &= distance <= wide.limit
        if claim.decisions and not found.allowed:
            count, most = int(np.count_nonzero(flipped)), self._most_flips(claim.index)
            may_flip = functools.partial(self._may_flip, claim, centres)
            found = _of_flips(count, most, turned(own, draw), may_flip)
            found = found._replace(row=int(np.argmax(flipped)))
        return found

    def _may_flip(self, claim: Claim, centres: Centres) -> bool:
        """Whether the flips of a claim are those of a device's own rounding (`either_way`)."""
        draw, wide, own, distance = centres
        gently, most = self._gently(draw), self._most_flips(claim.index)
        return claim.loop is None and either_way(distance > 0, wide, own, gently, most)

    def _gently(self, draw: Callable[..., Array]) -> Callable[..., Array]:
        """A draw whose products lose no more than their last operation, as on a device."""
        least = np.float32(dict(self.program.policy.losses)["arithmetic"])
        return functools.partial(draw, product=least)

    def recount(self, arguments: Any, indices: Sequence[int], most: int) -> Look:
        """Whether several claims have more flips together than other rounding explains.

        Args:
          arguments: `compiled.CheckArguments` of the run.
          indices: of claims with decisions.
          most: how many flips they may have.
        """
        with jax.enable_x64(True):
            found = {i: self._centres(Target(False, i), arguments) for i in indices}
            count = sum(int(np.count_nonzero(c.distance > 0)) for c in found.values())
            others = zip(*(turned(c.own, c.draw) for c in found.values()), strict=True)

            def may_flip() -> bool:
                claims = self.program.claims
                return all(self._may_flip(claims[i], c) for i, c in found.items())

            return _of_flips(count, most, map(sum, others), may_flip)

    def unfounded(self, arguments: Any, target: Target, *, last: int | None = None) -> Look:
        """Whether a claim or output has numbers where no replay has any: `Form.unfounded`.

        Arguments as of `look`. A row is shown wrong iff it is so for both centres, compiled as a
        device does it, and in MANY perturbed replays, because of the same element.
        """
        claim = None if target.output else self.program.claims[target.index]
        needs, given = self._given(target, arguments)
        if target not in self._numbers:
            replayed = functools.partial(self._unfounded, target, needs)

            def perturbed(given: Any, *draw: Any) -> Array:
                return replayed(given, *self._noise(*draw))

            self._numbers[target] = jax.jit(replayed), jax.jit(perturbed)
        plain, noisy = self._numbers[target]
        with jax.enable_x64(True):
            with jax.disable_jit():
                rows = np.asarray(self._unfounded(target, needs, given, in_float64))
            looked = self._looked(target, len(rows)) & self._until(target, last, len(rows))
            rows = rows & looked[:, None]
            if rows.any():
                rows = rows & np.asarray(plain(given))
            if rows.any():
                for _, found in moved(functools.partial(noisy, given)):
                    rows = rows & found
        blocks = claim.row_width if claim is not None and claim.work else 1
        wrong = np.repeat(np.any(rows, axis=-1), blocks)
        place = int(np.argmax(wrong))
        return self._placed(target, Look(bool(wrong[place]), np.inf, place), len(wrong))

    def _until(self, target: Target, last: int | None, rows: int) -> np.ndarray[Any, Any]:
        """Which rows of a claim are in iterations up to the last one; all, if there is none."""
        if last is None:
            return np.ones(rows, bool)
        trips = math.prod(self.program.claims[target.index].trips)
        return np.repeat(np.arange(trips) <= last, rows // trips)

    def _placed(self, target: Target, found: Look, rows: int) -> Look:
        """What was found of a row of a `Deviation`, with its place in a claim or output."""
        claim = None if target.output else self.program.claims[target.index]
        if claim is None:
            return found
        trip, row = claim.place(found.row, found.way, rows)
        return found._replace(row=row, trip=trip)

    def _centres(self, target: Target, arguments: Any) -> Centres:
        needs, given = self._given(target, arguments)
        draw, watched = functools.partial(self._draw(target, needs), given), Watched(in_float64)
        with jax.disable_jit():
            wide = self._deviation(target, needs, given, watched)
        wide = Deviation(*(np.asarray(x) for x in wide))
        own = unmoved(draw)
        distance = np.minimum(distances(wide, wide.expected), distances(wide, own))
        if watched.extreme:
            if target not in self._plain:
                found = functools.partial(self._deviation, target, needs, apply=interpret.apply)
                self._plain[target] = jax.jit(lambda given: found(given).expected)
            plain = np.asarray(self._plain[target](given))
            distance = np.minimum(distance, distances(wide, plain))
        looked = self._looked(target, len(distance))

        def of_looked(*arguments: Any, **more: Any) -> Any:
            return np.where(looked[:, None], np.asarray(draw(*arguments, **more)), own)

        return Centres(of_looked, wide, own, np.where(looked, distance, 0.0))

    def _looked(self, target: Target, rows: int) -> np.ndarray[Any, Any]:
        """Which rows of a `Deviation` are looked at: all of them."""
        del target
        return np.ones(rows, bool)

    def _most_flips(self, index: int) -> int:
        """How many decisions of a claim may differ from the verifier's own."""
        return self.program.flip_limits[index]

    def retest(self, arguments: Any, index: int) -> Statistic:
        """Test a claim again that is not finite, not its operands, or undecided: `Form.retest`.

        Args:
          arguments: `compiled.CheckArguments` of the run.
          index: of the claim.

        Returns:
          Numpy arrays, one entry for each trip of the scans around it; zero where it is untaken.
        """
        if index not in self._retests:
            _LOG.info("second test of %s: compiles at first use", self.program.claims[index].name)
            self._retests[index] = self.measurement(index, operands.retest)
        return Statistic(*(np.asarray(x) for x in self._retests[index](arguments)))

    def _without_effect(self, found: Look, claim: Claim, arguments: Any) -> Look:
        """What was found of a loop, allowed if what was committed changes nothing after it."""
        needs, given = self._given(Target(output=False, index=claim.index), arguments)
        if claim.index not in self._effects:
            measured = functools.partial(self._measured, needs)
            losses = dict(self.program.policy.losses)
            self._effects[claim.index] = aftermath.effects(claim, measured, self._noise, losses)
        allowed = aftermath.changes_nothing(*self._effects[claim.index], given)
        return found._replace(excess=1.0, allowed=True) if allowed else found

    def _draw(self, target: Target, needs: Needs) -> Callable[..., Array]:
        if target not in self._compiled:
            self._compiled[target] = jax.jit(functools.partial(self._perturbed, target, needs))
        return self._compiled[target]

    def _perturbed(
        self,
        target: Target,
        needs: Needs,
        given: Any,
        *draw: Array,
        product: Array | None = None,
    ) -> Array:
        how = self._noise(*draw, product=product)
        return self._deviation(target, needs, given, *how).expected

    def _unfounded(self, target: Target, needs: Needs, given: Any, *how: Any) -> Array:
        env, found = self._measured(needs, given, operands.unfounded, *how)
        output, index = target.output, target.index
        if not output:
            return found[index].reshape(-1, found[index].shape[-1])
        mine = interpret.read(env, self.program.function.block.outputs[index])
        return outputs.unfounded(given["output"], jnp.asarray(mine))


def _of_flips(count: int, most: int, others: Iterable[float], may_flip: Callable[[], bool]) -> Look:
    """Whether flips are more than other rounding explains; if not, whether each is allowed.

    Args:
      count: decisions that differ.
      most: how many may.
      others: flips of perturbed replays, as of `flips.explained`.
      may_flip: whether they are those of a device's own rounding.
    """
    wrong = not flips.explained(count, most, others)
    allowed = not wrong and may_flip()
    return Look(wrong, 1.0 if allowed else count / max(most, 0.5), allowed=allowed)
