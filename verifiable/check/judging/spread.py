"""The decision of a second look: what other rounding explains.

Given the distance of each row from what it should be, its limit, and its changes in perturbed
replays, `decide` says whether a row is shown wrong, as `second_look` states it; `as_wholes` does so
of rows whose elements are tested one by one. `allowance` says whether a row that is not shown wrong
is accepted: a device's rounding moves it as far. `turned` counts decisions, and `either_way` says
whether a device's rounding may take them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from verifiable.check.flips import CLEAR, FEW
from verifiable.check.replay.parameter_values import SIZES, WIDEN
from verifiable.check.specification import Target
from verifiable.claims.claim import Claim
from verifiable.claims.roundings.rounding import Rounding, row_limit
from verifiable.claims.statistic import Deviation, Statistic
from verifiable.jaxpr.blocks import Array
from verifiable.jaxpr.perturb import AWAY, DOWN, OWN, TOWARDS, UP

# Of a perturbation: independent, coherent, and which way (`Noise.alike`) if not each its own.
Sizes = tuple[float, ...]

MANY = 64
HEAVY = 8.0
VISIBLE = 2.0**-6
WITHIN = 32.0
MOST = 2**14  # rows that MANY replays decide
DEVICE: tuple[Sizes, ...] = tuple(
    (1.0, 0.0, OWN) if way is None else (0.5, 0.5, way)
    for way in (None, OWN, UP, DOWN, None, OWN, AWAY, TOWARDS)
)
"""Each element off by up to its loss to either side; all of an equation to one; and all of every
equation to the same, as a device that truncates."""


class Look(NamedTuple):
    """What a second look found.

    Attributes:
      wrong: whether a row is shown to be wrong.
      excess: its distance over limit and spread.
      row: the row with the largest excess, or, if none is beyond its limit, the nearest to it.
      trip: the iteration that it belongs to, counted over the scans around the claim.
      allowed: whether rounding of the honest size moves all rows as far, so that they are accepted.
      way: in which the row lies, of those of the claim (`Form.wholes`).
    """

    wrong: bool
    excess: float
    row: int = 0
    trip: int = 0
    allowed: bool = False
    way: int = 0


class Again(NamedTuple):
    """Looks at a run again: methods of `second_look.SecondLook`, without its arguments.

    Attributes:
      look: at a claim or output that failed.
      retest: of a claim that is not finite, whose operands are not, or that was undecided.
      recount: of the flips of several claims.
      unfounded: whether a claim or output has numbers where no replay has any.
      reads: indices of the claims that a claim or output is replayed from.
    """

    look: Callable[..., Look]
    retest: Callable[[int], Statistic]
    recount: Callable[[Sequence[int], int], Look]
    unfounded: Callable[[Target], Look]
    reads: Callable[[Target], frozenset[int]]


Rows = np.ndarray[Any, Any]
Changes = Callable[[Rows], Iterator[tuple[Sizes, Rows]]]


def norms_of(rows: Rows) -> Rows:
    """2-norms along the last axis, whose squares neither overflow nor vanish."""
    top = np.max(np.abs(rows), axis=-1, initial=0.0, keepdims=True)
    top = np.where((top > 0) & np.isfinite(top), top, 1.0)
    return top[..., 0] * np.linalg.norm(rows / top, axis=-1)


def distances(found: Deviation, expected: Rows) -> Rows:
    """The distance of each row of a claim from other operands' expectation.

    Zero where this is not finite, and decides nothing; infinite where the claim is not finite.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        short = np.maximum(np.maximum(found.low - expected, expected - found.high), 0)
        norms = norms_of(short)
    norms = np.where(np.isnan(norms), np.inf, norms)
    return np.where(np.isfinite(expected).all(axis=-1), norms, 0.0)


def unmoved(draw: Callable[..., Array]) -> Rows:
    """The expectation without perturbation; arguments as of `moved`."""
    return np.asarray(draw(np.uint32(0), np.float32(0), np.float32(0)))


def moved(
    draw: Callable[..., Array], first: int = 0, every: Sequence[Sizes] = SIZES
) -> Iterator[tuple[Sizes, Rows]]:
    """The size of each perturbation, and what it makes of the expectation; MANY of them.

    Args:
      draw: `(seed, *sizes) -> expectation of all rows`.
      first: seed of the first draw.
      every: sizes, which take turns.
    """
    for m in range(MANY):
        sizes = every[m % len(every)]
        seed = np.uint32((first + m) % 2**32)
        found = draw(seed, *map(np.float32, sizes))
        yield sizes, np.asarray(found)


def changes(
    draw: Callable[..., Array],
    own: Rows,
    rows: Rows,
    first: int = 0,
    moves: Rows | None = None,
    every: Sequence[Sizes] = SIZES,
) -> Iterator[tuple[Sizes, Rows]]:
    """The size of each perturbation, and the norm of the change of each of some rows.

    Args:
      draw: `(seed, *sizes) -> expectation of all rows`.
      own: the expectation without perturbation.
      rows: indices.
      first: seed of the first draw.
      moves: what other rounding of projected operands adds, of all rows (`Deviation.moves`).
      every: sizes, which take turns.
    """
    for m, (sizes, found) in enumerate(moved(draw, first, every)):
        with np.errstate(invalid="ignore", over="ignore"):
            change = norms_of(found[rows] - own[rows])
            if moves is not None:
                change = change + moves[rows, m % moves.shape[1]]
        yield sizes, np.where(np.isnan(change), np.inf, change)


def as_wholes(
    found: Look, distance: Rows, elements: Deviation, changes: Changes, ways: Sequence[Rows]
) -> Look:
    """Look at the rows of a claim as wholes, if they are tested besides their elements.

    Args:
      found: of the elements, of which none is shown wrong.
      distance: of each element.
      elements: of whole rows.
      changes: of elements by index.
      ways: the elements of each row, (rows, width), for each way in which rows lie.

    Returns:
      What is found of a row as a whole, named by its first element, or `found`.
    """
    for way, places in enumerate(ways):
        if not places.size:
            continue
        limits = elements.limit[places]

        def norms(values: Rows, limits: Rows = limits) -> Rows:
            with np.errstate(over="ignore", invalid="ignore"):
                return norms_of(values.reshape(limits.shape) / limits)

        def of_rows(
            rows: Rows, places: Rows = places, limits: Rows = limits
        ) -> Iterator[tuple[Sizes, Rows]]:
            for sizes, change in changes(places[rows].reshape(-1)):
                yield sizes, norms_of(change.reshape(-1, places.shape[1]) / limits[rows])

        limit = np.full(len(places), row_limit(places.shape[1]))
        whole = decide(norms(distance[places]), limit, norms(elements.scale[places]), of_rows)
        if (whole.wrong, whole.excess) > (found.wrong, found.excess):
            found = whole._replace(row=int(places[whole.row, 0]), way=way)
    return found


def allowance(
    found: Look, distance: Rows, elements: Deviation, changes: Changes, claim: Claim
) -> Look:
    """Whether rows beyond a limit are no further off than a device's rounding moves them.

    A row is, if its norm is at most that of some replay's change, and its largest element too; of
    an operand of a product that decides, no element may be beyond its limit.

    Args:
      found: what is beyond its limits, none of it shown wrong.
      distance: of each element.
      elements: of whole rows.
      changes: of elements by index, as rounding of the size of a device's moves them.
      claim: of the elements.

    Returns:
      `found`, or the row that is furthest off, in units of what it is moved by.
    """
    form = claim.form
    # What is beyond the limits that the glue of a row gives may be beyond those alone.
    if not (claim.narrow and isinstance(form, Rounding) and form.origin is None):
        return found
    looks = [
        _allowed(found, distance, elements, changes, rows, decides=form.decides)._replace(way=way)
        for way, rows in enumerate(claim.wholes(len(distance)))
    ]
    return max(looks, key=lambda look: (not look.allowed, look.excess))


def _allowed(
    found: Look, distance: Rows, elements: Deviation, changes: Changes, rows: Rows, *, decides: bool
) -> Look:
    """Whether the rows of one way are allowed; arguments as of `allowance`, and

    Args:
      rows: the elements of each row, (rows, width).
      decides: whether something is chosen from the next product.
    """
    most_of = row_limit(rows.shape[1])
    off = distance[rows] / elements.limit[rows]
    both = np.stack([norms_of(off) / most_of, np.max(off, axis=-1, initial=0.0)])
    beyond = np.flatnonzero((both > 1.0).any(axis=0))
    if beyond.size > MOST or (decides and (both[1] > 1.0).any()):
        return found
    if not beyond.size:
        return found._replace(excess=1.0, allowed=True)
    rows = rows[beyond]
    limits, scale = elements.limit[rows], elements.scale[rows]
    most = np.ones((2, len(rows)))
    for _, change in changes(rows.reshape(-1)):
        moved = change.reshape(limits.shape) / limits
        most = np.maximum(most, [norms_of(moved) / most_of, np.max(moved, axis=-1)])
    excess = np.max(both[:, beyond] / most, axis=0)
    noise = WIDEN * most[0] > np.maximum(VISIBLE * norms_of(scale / limits) / most_of, WITHIN)
    worst = int(np.argmax(excess))
    allowed = bool(excess[worst] <= 1.0 and not noise.any())
    return Look(False, float(excess[worst]), int(rows[worst, 0]), allowed=allowed)


def turned(own: Rows, draw: Callable[..., Array]) -> Iterator[float]:
    """How many decisions each perturbation turns round, in multiples of those at honest size.

    Args:
      own: what decides, without perturbation.
      draw: as of `moved`.
    """
    for sizes, found in moved(draw):
        yield np.count_nonzero(np.sign(found) != np.sign(own)) * (WIDEN / max(sizes))


def either_way(
    flipped: Rows, elements: Deviation, own: Rows, draw: Callable[..., Array], most: int
) -> bool:
    """Whether a device's own rounding decides each of some decisions as it is, and as many at once.

    Such decisions are ties in exact arithmetic, or as good as that: no device can know better. None
    may be moved by more than its slack, as where glue makes noise of what it is given.

    Args:
      flipped: which decisions are not the verifier's own.
      elements: of all decisions.
      own: what decides, without perturbation.
      draw: as of `moved`, of rounding that loses what a device's does.
      most: how many more than are turned round at once may be.
    """
    left, count, at_once = np.flatnonzero(flipped), int(np.count_nonzero(flipped)), 0
    for _, found in moved(draw, every=DEVICE):
        with np.errstate(invalid="ignore"):
            change = norms_of(found - own)
        if not (change[flipped] <= elements.limit[flipped]).all():
            return False
        left = left[distances(elements, found)[left] > 0]
        at_once = max(at_once, int(np.count_nonzero(np.sign(found) != np.sign(own))))
        if not left.size and count <= most + at_once:
            return True
    return False


def decide(
    distance: Rows, limit: Rows, scale: Rows, changes: Changes, tail: Rows | None = None
) -> Look:
    """Whether a row is beyond its limit by more than other rounding explains.

    Args:
      distance: of each row, without perturbation; the least of all centres.
      limit: of each row.
      scale: of each row.
      changes: of rows by index, the size of each perturbation and the change of each row; MANY of
        them, read as needed.
      tail: of each row, what the largest of heavy-tailed changes is compared with; its limit, if
        none is given.
    """
    tail = limit if tail is None else tail
    rows = np.flatnonzero(distance > limit)
    if not rows.size:
        with np.errstate(invalid="ignore"):
            within = np.nan_to_num(distance / limit, nan=0.0)
        worst = int(np.argmax(within)) if within.size else 0
        return Look(False, float(np.max(within, initial=0.0)), worst)
    distance, limit, scale, tail = distance[rows], limit[rows], scale[rows], tail[rows]
    seen: dict[Sizes, list[Rows]] = {}
    spread = np.zeros_like(limit)
    excess = np.zeros_like(limit)
    kept = np.arange(rows.size)
    for count, (sizes, change) in enumerate(changes(rows), start=1):
        change = change[kept]  # noqa: PLW2901 - of all rows before
        seen.setdefault(sizes, []).append(change)
        spread = np.maximum(spread, change * (WIDEN / max(sizes)))
        if count not in (FEW, MANY):
            continue
        explained = spread > np.maximum(VISIBLE * scale, WITHIN * limit)
        if count == MANY:  # the median of a few says nothing
            explained |= _heavy(seen.values(), tail)
        with np.errstate(invalid="ignore", divide="ignore"):
            excess = np.nan_to_num(distance / (limit + spread), nan=0.0, posinf=np.inf)
        excess = np.where(explained, np.minimum(excess, 1.0), excess)
        # Few replays of what they move far may all miss where it jumps: a clamp, a branch.
        steady = spread <= WIDEN * limit
        clear = (distance > limit + CLEAR * spread) & (excess > 1.0) & steady
        if clear.any() or not (excess > 1.0).any():
            break
        if count == FEW:  # No other row can be shown wrong any more.
            few = np.flatnonzero(excess > 1.0)
            few = np.sort(few[np.argsort(-excess[few], kind="stable")[:MOST]])
            distance, limit, scale, tail, spread, excess, kept = (
                x[few] for x in (distance, limit, scale, tail, spread, excess, kept)
            )
            seen = {size: [x[few] for x in draws] for size, draws in seen.items()}
    rows = rows[kept]
    worst = int(np.argmax(excess))
    return Look(bool(excess[worst] > 1.0), float(excess[worst]), int(rows[worst]))


def _heavy(seen: Iterable[list[Rows]], tail: Rows) -> Rows:
    """Where the largest change is far from the typical one, so that a larger one may exist."""
    heavy = np.zeros(tail.shape, bool)
    for draws in seen:
        largest, median = np.max(draws, axis=0), np.median(draws, axis=0)
        heavy |= (largest > HEAVY * median) & (largest > VISIBLE * tail)
    return heavy
