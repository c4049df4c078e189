"""The second look: a failed test accuses, a recomputation rejects.

A tolerance says what rounding may do to a product. It cannot say what rounding does to the glue
before it: a layer norm of a constant row, a cancelling variance or the sine of a large angle turn
one last bit into any change. So the operands of a claim that failed are replayed again:

    centres       compiled, in the program's own types; and op by op, in float64;
    perturbed     with other rounding (`jaxpr.perturb`): half of the replays draw each element by
                  itself, half one sign for each equation; half move every result by what a device
                  may lose, half by WIDEN = 4 times as much.

With x_i what the operands lead to for row i, A_i (B r) for a product, and Delta_i its change from
the unperturbed replay, the limit of the row is widened by

    spread_i = max over the replays of  4 |Delta_i|  at the honest size,  |Delta_i|  at 4 times it.

Where glue is smooth both are the same; at a cliff, such as a variance clipped at zero, the larger
perturbation reaches it although an honest one seldom does. A row is shown wrong iff its distance
from both centres is greater than limit_i + spread_i, the spread is not a visible part of the row
(at most 2^-6 of its scale, or 32 limit_i), and, among MANY, not heavy-tailed (the largest change at
most 8 times the median, or below 2^-6 of the limit). After FEW replays the look ends if no row is
shown wrong so far, or one is beyond limit_i + 4 spread_i; otherwise MANY decide.

A claim whose decisions differ too often is looked at in the same way: its flips are compared with
those of perturbed replays (`flips`).

Every row of a claim is looked at, so that a row of noise hides no other. A claim that is not
finite, or whose operands are not, is first tested again (`Form.retest`): the compiled check does
not ask which of its rows are NaN on every device, or overflow on some. It costs nothing where every
test passes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from verifiable.check import flips, known, operands, replay
from verifiable.check.flips import CLEAR, FEW
from verifiable.check.key_layout import KeyLayout
from verifiable.check.known import SIZES, WIDEN
from verifiable.check.specification import Specification
from verifiable.claims.claim import Claim
from verifiable.claims.statistic import Deviation, Statistic
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Env
from verifiable.jaxpr.perturb import Noise, in_float64

MANY = 64
HEAVY = 8.0
VISIBLE = 2.0**-6
WITHIN = 32.0
MOST = 2**14  # rows that MANY replays decide


class Look(NamedTuple):
    """What a second look found.

    Attributes:
      wrong: whether a row is shown to be wrong.
      row: the row with the largest excess, or, if none is beyond its limit, the nearest to it.
      trip: the iteration that it belongs to, counted over the scans around the claim.
      excess: its distance over limit and spread.
    """

    wrong: bool
    row: int
    trip: int
    excess: float


@dataclass(frozen=True, eq=False, kw_only=True)
class SecondLook:
    """Second looks at the claims and outputs of one program.

    Attributes:
      program: the compiled function.
      key: the layout of a key.
    """

    program: Specification
    key: KeyLayout = field(repr=False)
    _parts: dict[tuple[str, int], operands.Part] = field(default_factory=dict, repr=False)
    _compiled: dict[tuple[str, int], Callable[..., Array]] = field(default_factory=dict, repr=False)
    _retests: dict[int, Callable[..., Statistic]] = field(default_factory=dict, repr=False)

    def look(self, arguments: Any, index: int, output: bool) -> Look:
        """Look at a claim or output again.

        Args:
          arguments: `compiled.CheckArguments` of the run.
          index: of a claim with a tolerance, or of an output of floats.
          output: whether it is an output.
        """
        target = ("output" if output else "claim", index)
        part = self._part(target)
        given = _given(part, arguments)
        given["output"] = jnp.asarray(arguments.outputs[index]) if output else None
        with jax.enable_x64(True):
            with jax.disable_jit():
                wide = self._deviation(target, part, given, in_float64)
            wide = Deviation(*(np.asarray(x) for x in wide))
            draw = functools.partial(self._draw(target, part), given)
            own = np.asarray(draw(np.uint32(0), np.float32(0), np.float32(0)))
            distance = np.minimum(distances(wide, wide.expected), distances(wide, own))
            moves = functools.partial(changes, draw, own, moves=wide.moves)
            found = decide(distance, wide.limit, wide.scale, moves)
            claim = None if output else self.program.claims[index]
            if claim is not None and not found.wrong:
                found = as_wholes(found, distance, wide, moves, claim, self.program)
            if claim is not None and claim.decisions and not found.wrong:
                found = recount(distance > 0, own, self.program.flip_limits[index], draw)
        trips, width = (1, 1) if claim is None else (math.prod(claim.trips), claim.row_width)
        each = len(distance) // (trips * width)
        trip, row = divmod(found.row // width, each)
        return found._replace(row=row, trip=trip)

    def retest(self, arguments: Any, index: int) -> Statistic:
        """Test a claim again that is not finite, not its operands, or undecided: `Form.retest`.

        Args:
          arguments: `compiled.CheckArguments` of the run.
          index: of the claim.

        Returns:
          Numpy arrays, one entry for each trip of the scans around it; zero where it is untaken.
        """
        if index not in self._retests:
            self._retests[index] = self.measurement(index, operands.retest)
        return Statistic(*(np.asarray(x) for x in self._retests[index](arguments)))

    def measurement(self, index: int, measure: operands.Measure) -> Callable[[Any], Any]:
        """A function of a run that measures one claim on its own, compiled.

        Args:
          index: of the claim.
          measure: what of it; see `operands.measure`.

        Returns:
          A function of `compiled.CheckArguments`.
        """
        part = self._part(("claim", index))

        def measured(given: Any) -> Any:
            return self._measured(part, given, measure)[1][index]

        run = jax.jit(measured)

        def call(arguments: Any) -> Any:
            with jax.enable_x64(True):
                return run(_given(part, arguments))

        return call

    def _draw(self, target: tuple[str, int], part: operands.Part) -> Callable[..., Array]:
        if target not in self._compiled:
            self._compiled[target] = jax.jit(functools.partial(self._perturbed, target, part))
        return self._compiled[target]

    def _perturbed(
        self,
        target: tuple[str, int],
        part: operands.Part,
        given: Any,
        seed: Array,
        independent: Array,
        coherent: Array,
    ) -> Array:
        losses = dict(self.program.policy.losses)
        noise = Noise(seed=seed, independent=independent, coherent=coherent, losses=losses)
        return self._deviation(target, part, given, noise.apply, known.alter(noise)).expected

    def _deviation(
        self,
        target: tuple[str, int],
        part: operands.Part,
        given: Any,
        apply: interpret.Apply,
        alter: operands.Alter = lambda value, *_: value,
    ) -> Deviation:
        """The deviation of a claim or output, over all trips of the scans around it."""
        program = self.program
        env, found = self._measured(part, given, operands.deviation, apply, alter)
        kind, index = target
        if kind == "claim":
            return operands.flattened(found[index], program.claims[index])
        return program.deviation(index, given["output"], env)

    def _measured(
        self, part: operands.Part, given: Any, measure: operands.Measure, *how: Any
    ) -> tuple[Env, dict[int, Any]]:
        key = self.key.as_tree(given["key"])
        key = {**key, "residual": known.merged(key["residual"], key["moves"])}
        env, context = replay.begin(self.program, key, given["inputs"], given["values"])
        block = self.program.function.block
        return env, operands.measure(block, part, context, env, measure, *how)

    def _part(self, target: tuple[str, int]) -> operands.Part:
        if target not in self._parts:
            kind, index = target
            block, analysis = self.program.function.block, self.program.analysis
            claims, outputs = ([index], []) if kind == "claim" else ([], [block.outputs[index]])
            self._parts[target] = operands.needed(block, analysis, claims, outputs)
        return self._parts[target]


def _given(part: operands.Part, arguments: Any) -> dict[str, Any]:
    """What a part is evaluated on."""
    return {
        "key": arguments.key,
        "inputs": jax.tree.leaves(arguments.inputs),
        "values": {i: jnp.asarray(arguments.values[i]) for i in sorted(part.reads)},
    }


Rows = np.ndarray[Any, Any]
Sizes = tuple[float, float]  # of a perturbation: independent, coherent
Changes = Callable[[Rows], Iterator[tuple[Sizes, Rows]]]


def distances(found: Deviation, expected: Rows) -> Rows:
    """The distance of each row of a claim from other operands' expectation.

    Zero where this is not finite, and decides nothing; infinite where the claim is not finite.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        short = np.maximum(np.maximum(found.low - expected, expected - found.high), 0)
        norms = np.linalg.norm(short, axis=-1)
    norms = np.where(np.isnan(norms), np.inf, norms)
    return np.where(np.isfinite(expected).all(axis=-1), norms, 0.0)


def moved(draw: Callable[..., Array], first: int = 0) -> Iterator[tuple[Sizes, Rows]]:
    """The size of each perturbation, and what it makes of the expectation; MANY of them.

    Args:
      draw: `(seed, independent, coherent) -> expectation of all rows`.
      first: seed of the first draw.
    """
    for m in range(MANY):
        independent, coherent = SIZES[m % len(SIZES)]
        seed = np.uint32((first + m) % 2**32)
        found = draw(seed, np.float32(independent), np.float32(coherent))
        yield SIZES[m % len(SIZES)], np.asarray(found)


def changes(
    draw: Callable[..., Array],
    own: Rows,
    rows: Rows,
    first: int = 0,
    moves: Rows | None = None,
) -> Iterator[tuple[Sizes, Rows]]:
    """The size of each perturbation, and the norm of the change of each of some rows.

    Args:
      draw: `(seed, independent, coherent) -> expectation of all rows`.
      own: the expectation without perturbation.
      rows: indices.
      first: seed of the first draw.
      moves: what other rounding of projected operands adds, of all rows (`Deviation.moves`).
    """
    for m, (sizes, found) in enumerate(moved(draw, first)):
        with np.errstate(invalid="ignore", over="ignore"):
            change = np.linalg.norm(found[rows] - own[rows], axis=-1)
            if moves is not None:
                change = change + moves[rows, m % moves.shape[1]]
        yield sizes, np.where(np.isnan(change), np.inf, change)


def as_wholes(
    found: Look,
    distance: Rows,
    elements: Deviation,
    changes: Changes,
    claim: Claim,
    program: Specification,
    factor: float = 1.0,
) -> Look:
    """Look at the rows of a claim as wholes, if they are tested besides their elements.

    Args:
      found: of the elements, of which none is shown wrong.
      distance: of each element.
      elements: of whole rows.
      changes: of elements by index.
      claim: of the elements.
      program: of the claim.
      factor: times the tolerance.

    Returns:
      What is found of a row as a whole, named by its first element, or `found`.
    """
    row_eps, width = program.policy.row_eps_of(claim, claim.name), claim.row_width
    if not (row_eps and claim.form.rows_too and len(distance)):
        return found

    def of_rows(rows: Rows) -> Iterator[tuple[Sizes, Rows]]:
        for sizes, change in changes((rows[:, None] * width + np.arange(width)).reshape(-1)):
            yield sizes, np.linalg.norm(change.reshape(-1, width), axis=-1)

    with np.errstate(over="ignore"):
        norms = np.linalg.norm(elements.expected.reshape(-1, width), axis=-1)
        total = np.linalg.norm(distance.reshape(-1, width), axis=-1)
    limit = factor * claim.form.row_slack(norms, width, row_eps)
    whole = decide(total, limit, norms, of_rows)
    return whole._replace(row=whole.row * width) if whole.excess > found.excess else found


def recount(flipped: Rows, own: Rows, most: int, draw: Callable[..., Array]) -> Look:
    """Whether more decisions differ from the verifier's own than other rounding explains.

    Args:
      flipped: which decisions of a claim differ.
      own: what decides, without perturbation.
      most: how many may differ.
      draw: as of `moved`.
    """
    others = (
        np.count_nonzero(np.sign(found) != np.sign(own)) * (WIDEN / max(sizes))
        for sizes, found in moved(draw)
    )
    count = int(np.count_nonzero(flipped))
    wrong = not flips.explained(count, most, others)
    return Look(wrong, int(np.argmax(flipped)), 0, count / max(most, 0.5))


def decide(distance: Rows, limit: Rows, scale: Rows, changes: Changes) -> Look:
    """Whether a row is beyond its limit by more than other rounding explains.

    Args:
      distance: of each row, without perturbation; the least of all centres.
      limit: of each row.
      scale: of each row.
      changes: of rows by index, the size of each perturbation and the change of each row; MANY of
        them, read as needed.
    """
    rows = np.flatnonzero(distance > limit)
    if not rows.size:
        with np.errstate(invalid="ignore"):
            within = np.nan_to_num(distance / limit, nan=0.0)
        worst = int(np.argmax(within)) if within.size else 0
        return Look(False, worst, 0, float(np.max(within, initial=0.0)))
    distance, limit, scale = distance[rows], limit[rows], scale[rows]
    seen: dict[float, list[Rows]] = {}
    spread = np.zeros_like(limit)
    excess = np.zeros_like(limit)
    kept = np.arange(rows.size)
    for count, (sizes, change) in enumerate(changes(rows), start=1):
        change = change[kept]  # noqa: PLW2901 - of all rows before
        seen.setdefault(max(sizes), []).append(change)
        spread = np.maximum(spread, change * (WIDEN / max(sizes)))
        if count not in (FEW, MANY):
            continue
        explained = spread > np.maximum(VISIBLE * scale, WITHIN * limit)
        if count == MANY:  # the median of a few says nothing
            explained |= _heavy(seen.values(), limit)
        with np.errstate(invalid="ignore"):
            excess = np.nan_to_num(distance / (limit + spread), nan=0.0, posinf=np.inf)
        excess = np.where(explained, np.minimum(excess, 1.0), excess)
        clear = (distance > limit + CLEAR * spread) & (excess > 1.0)
        if clear.any() or not (excess > 1.0).any():
            break
        if count == FEW:  # No other row can be shown wrong any more.
            few = np.flatnonzero(excess > 1.0)
            few = np.sort(few[np.argsort(-excess[few], kind="stable")[:MOST]])
            distance, limit, scale, spread, excess, kept = (
                x[few] for x in (distance, limit, scale, spread, excess, kept)
            )
            seen = {size: [x[few] for x in draws] for size, draws in seen.items()}
    rows = rows[kept]
    worst = int(np.argmax(excess))
    return Look(bool(excess[worst] > 1.0), int(rows[worst]), 0, float(excess[worst]))


def _heavy(seen: Iterable[list[Rows]], limit: Rows) -> Rows:
    """Where the largest change is far from the typical one, so that a larger one may exist."""
    heavy = np.zeros(limit.shape, bool)
    for draws in seen:
        largest, median = np.max(draws, axis=0), np.median(draws, axis=0)
        heavy |= (largest > HEAVY * median) & (largest > VISIBLE * limit)
    return heavy
