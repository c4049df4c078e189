"""Votes on answers that are compared with a tolerance, against colluders who see every honest one.

    drag     the same point, as far from all honest answers as can still become the medoid
    veto     the same point, within tolerance of all honest answers but one
    front    the same point, as far as is within tolerance of all honest answers; it arrives first

Where colluders are a majority they answer what they like. Answers are points of a Euclidean space
whose unit is the tolerance. The rule is evaluated for all jobs at once by `canonical`, which the
tests hold to `voting.decide` case by case. What is measured is how often the accepted answer is
within tolerance of no honest one, how far from honest answers it lies otherwise, beside what
`specs/voting.md` states for the job (its theorem on drag), and how many votes were prevented.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protocols.simulation import Ints, Measured

Floats: TypeAlias = "NDArray[np.float64]"
Attack: TypeAlias = Literal["drag", "veto", "front"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dragged:
    """What colluders inside the tolerance achieved.

    Attributes:
      measured: accepted, wrong (within tolerance of no honest answer) and undecided jobs.
      mean: mean distance of an accepted answer to the nearest honest one, in tolerances.
      worst: the largest such distance where most ballots requested are honest.
      excess: the largest ratio of that distance to what `specs/voting.md` states for the job.
      vetoed: jobs that ended undecided although a majority of ballots was honest.
    """

    measured: Measured
    mean: float
    worst: float
    excess: float
    vetoed: int


def canonical(distances: Floats, threshold: int) -> Ints:
    """The rule of `voting`, for many jobs at once.

    Args:
      distances: [jobs, ballots, ballots] in tolerances, ballots in order of their workers.
      threshold: support that a value needs.

    Returns:
      Position of the canonical ballot of each job, the first of equals; -1 if undecided.
    """
    support = (distances <= 1.0).sum(axis=2)
    scores = np.minimum(distances, 2.0).sum(axis=2)
    scores[support < threshold] = np.inf
    best = scores.argmin(axis=1)
    return np.where(np.isfinite(scores.min(axis=1)), best, -1)


def tolerance_votes(
    *,
    size: int,
    bad: float,
    attack: Attack,
    spread: float = 0.3,
    jobs: int = 100_000,
    seed: int = 0,
    rule: Callable[[Floats, int], Ints] = canonical,
) -> Dragged:
    """Votes of `size` ballots on vectors, against colluders that see every honest answer.

    Args:
      size: ballots requested, all of which arrive; a strict majority decides.
      bad: probability that a ballot is a colluder's.
      attack: what the colluders do.
      spread: distance between two honest answers, in tolerances, at least nearly.
      jobs: how many jobs.
      seed: of all randomness.
      rule: what decides; distances come in the order of arrival, colluders first.
    """
    rng = np.random.default_rng(seed)
    threshold = size // 2 + 1
    counts = rng.binomial(size, bad, jobs)
    counted: dict[str, int] = {"accepted": 0, "wrong": 0, "undecided": 0, "vetoed": 0}
    total = worst = excess = 0.0
    for b in range(size + 1):
        chosen = int((counts == b).sum())
        for start in range(0, chosen, 4096):
            count = min(4096, chosen - start)
            distances, delta = _geometry(rng, count, size, b, attack, spread)
            winner = rule(distances, threshold)
            found = winner >= 0
            nearest = distances[np.arange(count), np.maximum(winner, 0), b:].min(
                axis=1, initial=np.inf
            )[found]
            counted["accepted"] += int(found.sum())
            counted["wrong"] += int((nearest > 1.0).sum())
            counted["undecided"] += int((~found).sum())
            if size - b >= threshold:
                counted["vetoed"] += int((~found).sum())
                total += float(nearest.sum())
                stated = np.minimum(1.0, delta * (size - b - 1) / (size - 2 * b))[found]
                worst = max(worst, float(nearest.max(initial=0.0)))
                ratios = nearest[nearest > 0] / stated[nearest > 0]
                excess = max(excess, float(ratios.max(initial=0.0)))
    vetoed = counted.pop("vetoed")
    runs = jobs * size
    return Dragged(
        measured=Measured(runs=runs, dispatches=runs, **counted),
        mean=total / max(1, counted["accepted"]),
        worst=worst,
        excess=excess,
        vetoed=vetoed,
    )


def _geometry(
    rng: np.random.Generator, jobs: int, size: int, b: int, attack: Attack, spread: float
) -> tuple[Floats, Floats]:
    """Distances [jobs, size, size] with b colluders first, and how far honest answers lie apart.

    Honest answers are Gaussian in 32 dimensions, hence nearly a regular simplex.
    """
    h = size - b
    honest = rng.standard_normal((jobs, h, 32)) * spread / 8.0
    if h == 0:
        return np.zeros((jobs, size, size)), np.zeros(jobs)
    delta = _distances(honest).max(axis=(1, 2))
    centre = honest.mean(axis=1)
    # Of the honest answers the last is the one to be left out.
    away = centre - honest[:, -1] if attack == "veto" else rng.standard_normal((jobs, 32))
    if attack != "veto":
        # Orthogonal to all honest answers, so that it is equally far from them, nearly.
        basis = np.linalg.qr((honest - centre[:, None]).transpose(0, 2, 1))[0]
        away = away - (basis @ (basis.transpose(0, 2, 1) @ away[..., None]))[..., 0]
    length = np.linalg.norm(away, axis=1, keepdims=True)
    away = away / np.where(length > 0.0, length, 1.0)
    if b >= size // 2 + 1:
        reach = np.full(jobs, 10.0)  # they decide alone, and need no honest answer near
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
    """How far from the centre b equal colluding answers, as seen from there, can still win."""
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
