"""Votes on answers that are compared with a tolerance, against colluders that see every answer.

    drag     the same point, as far from all honest answers as can still become the medoid
    veto     the same point, within tolerance of all honest answers but one
    front    the same point, at the edge of the tolerance of all honest answers; it arrives first

A majority of colluders sends an answer far from all honest ones. Answers are points of a Euclidean
space whose unit is the tolerance. `canonical_ballots` evaluates the rule for all jobs at once; a
test compares it with `voting.decide` case by case. Three things are measured: how often the
accepted answer is within tolerance of no honest one; how far from honest answers it lies otherwise,
beside the bound of specs/voting.md (theorem on drag); and how many votes were prevented.

Rules: specs/simulation.md, 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protocols.simulation.population import Ints
from protocols.simulation.votes import VoteStatistics

Floats: TypeAlias = "NDArray[np.float64]"
Attack: TypeAlias = Literal["drag", "veto", "front"]

_BATCH = 4096  # jobs whose distances are held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Drag:
    """What colluders inside the tolerance achieved.

    Attributes:
      statistics: accepted, wrong (within tolerance of no honest answer) and undecided jobs.
      mean: mean distance of an accepted answer to the nearest honest one, in tolerances.
      worst: the largest such distance where most ballots requested are honest.
      excess: the largest ratio of that distance to the bound of specs/voting.md for the job.
      vetoed: jobs that ended undecided although a majority of ballots was honest.
    """

    statistics: VoteStatistics
    mean: float
    worst: float
    excess: float
    vetoed: int


def canonical_ballots(distances: Floats, threshold: int) -> Ints:
    """The rule of `voting`, for many jobs at once.

    Args:
      distances: [jobs, ballots, ballots] in tolerances, ballots in order of their workers.
      threshold: support that a value needs.

    Returns:
      [jobs]: position of the canonical ballot of each job, the first of equals; -1 if undecided.
    """
    support = (distances <= 1.0).sum(axis=2)
    scores = np.minimum(distances, 2.0).sum(axis=2)
    scores[support < threshold] = np.inf
    best = scores.argmin(axis=1)
    return np.where(np.isfinite(scores.min(axis=1)), best, -1)


def simulate_tolerance(
    *,
    size: int,
    bad: float,
    attack: Attack,
    spread: float = 0.3,
    jobs: int = 100_000,
    seed: int = 0,
    rule: Callable[[Floats, int], Ints] = canonical_ballots,
) -> Drag:
    """Votes of `size` ballots on vectors, against colluders that see every honest answer.

    Args:
      size: ballots requested; all arrive, and a strict majority decides.
      bad: probability that a ballot is a colluder's.
      attack: what the colluders do.
      spread: distance between two honest answers, in tolerances, approximately.
      jobs: number of jobs.
      seed: seed of all randomness.
      rule: from distances and threshold to the accepted ballots; distances come in the order of
        arrival, colluders first.
    """
    rng = np.random.default_rng(seed)
    threshold = size // 2 + 1
    counts = rng.binomial(size, bad, jobs)
    found = _Found()
    for b in range(size + 1):
        chosen = int((counts == b).sum())
        for start in range(0, chosen, _BATCH):
            count = min(_BATCH, chosen - start)
            distances, delta = _geometry(rng, count, size, b, attack, spread)
            winner = rule(distances, threshold)
            decided = winner >= 0
            nearest = distances[np.arange(count), np.maximum(winner, 0), b:].min(
                axis=1, initial=np.inf
            )[decided]
            found.count(nearest, undecided=int((~decided).sum()))
            if size - b >= threshold:
                bound = np.minimum(1.0, delta * (size - b - 1) / (size - 2 * b))[decided]
                found.measure(nearest, bound, vetoed=int((~decided).sum()))
    runs = jobs * size
    return Drag(
        statistics=VoteStatistics(
            accepted=found.accepted,
            wrong=found.wrong,
            undecided=found.undecided,
            runs=runs,
            dispatches=runs,
        ),
        mean=found.total / max(1, found.accepted),
        worst=found.worst,
        excess=found.excess,
        vetoed=found.vetoed,
    )


@dataclass(slots=True)
class _Found:
    """Sums over the jobs simulated so far."""

    accepted: int = 0
    wrong: int = 0
    undecided: int = 0
    vetoed: int = 0
    total: float = 0.0
    worst: float = 0.0
    excess: float = 0.0

    def count(self, nearest: Floats, *, undecided: int) -> None:
        """Count jobs by the distance of their accepted answers to the nearest honest one."""
        self.accepted += len(nearest)
        self.wrong += int((nearest > 1.0).sum())
        self.undecided += undecided

    def measure(self, nearest: Floats, bound: Floats, *, vetoed: int) -> None:
        """Compare these distances with the bound, for jobs with an honest majority."""
        self.vetoed += vetoed
        self.total += float(nearest.sum())
        self.worst = max(self.worst, float(nearest.max(initial=0.0)))
        ratios = nearest[nearest > 0] / bound[nearest > 0]
        self.excess = max(self.excess, float(ratios.max(initial=0.0)))


def _geometry(
    rng: np.random.Generator, jobs: int, size: int, b: int, attack: Attack, spread: float
) -> tuple[Floats, Floats]:
    """Distances [jobs, size, size], b colluders first, and the largest between honest answers.

    Honest answers are Gaussian in 32 dimensions, which makes them nearly a regular simplex.
    """
    h = size - b
    honest = rng.standard_normal((jobs, h, 32)) * spread / 8.0
    if h == 0:
        return np.zeros((jobs, size, size)), np.zeros(jobs)
    delta = _distances(honest).max(axis=(1, 2))
    centre = honest.mean(axis=1)
    # A veto leaves the last honest answer out.
    away = centre - honest[:, -1] if attack == "veto" else rng.standard_normal((jobs, 32))
    if attack != "veto":
        # Orthogonal to all honest answers, so that it is nearly equally far from each.
        basis = np.linalg.qr((honest - centre[:, None]).transpose(0, 2, 1))[0]
        away = away - (basis @ (basis.transpose(0, 2, 1) @ away[..., None]))[..., 0]
    length = np.linalg.norm(away, axis=1, keepdims=True)
    away = away / np.where(length > 0.0, length, 1.0)
    if b >= size // 2 + 1:
        reach = np.full(jobs, 10.0)  # a majority needs no honest answer near its own
    elif attack == "veto":
        reach = np.maximum(0.0, 1.001 - length[:, 0])
    elif attack == "front":
        radius = np.linalg.norm(honest - centre[:, None], axis=2).max(axis=1)
        reach = np.sqrt(np.maximum(0.0, 0.998 - radius**2))
    else:
        reach = _farthest(honest, centre, b, size // 2 + 1)
    colluding: Any = np.repeat((centre + away * reach[:, None])[:, None], b, axis=1)
    return _distances(np.concatenate([colluding, honest], axis=1)), delta


def _farthest(honest: Floats, centre: Floats, b: int, threshold: int) -> Floats:
    """The farthest from the centre that b equal colluding answers can still win."""
    squares = np.square(honest - centre[:, None]).sum(axis=2)
    sums = _distances(honest).sum(axis=2)
    best = np.zeros(len(honest))
    for reach in np.linspace(0.0, 1.0, 65):
        near = np.sqrt(squares + reach**2)
        supported = (near <= 1.0).sum(axis=1) + b >= threshold
        wins = near.sum(axis=1) < (sums + b * near).min(axis=1)
        best[supported & wins] = reach
    return best


def _distances(points: Floats) -> Floats:
    return np.linalg.norm(points[:, :, None] - points[:, None, :], axis=3)
