"""Populations: how many workers are honest, and what the others do.

    colluders   send one and the same wrong answer
    erring      send a wrong answer of their own
    copycats    repeat another's commitment, which they cannot open: a seat without a ballot
    stallers    never answer, and are replaced; so are honest workers that are offline
    scattered   honest workers whose answers agree with no other

`drawing` draws workers without replacement, as a coordinator does. Rules: specs/simulation.md, 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from verifiable.voting.assurance import bad_among_answers
from verifiable.voting.quorum import NEWCOMER, Standing

Ints: TypeAlias = "NDArray[np.int64]"
Draw: TypeAlias = "Callable[[Ints], Ints]"
"""From indices of jobs to the `Kind` of the next worker of each."""


class Kind(IntEnum):
    """What a worker does when it is asked."""

    HONEST = 0
    COLLUDER = 1
    ERRING = 2
    SCATTERED = 3
    COPYCAT = 4
    STALLER = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """All registered workers. Fractions are of all workers; the rest are honest.

    Attributes:
      size: number of workers.
      colluders: fraction that sends one wrong answer.
      erring: fraction that sends wrong answers, each its own.
      copycats: fraction that copies ballots.
      stallers: fraction that never answers.
      offline: fraction of the honest workers that is offline, and does not answer either.
      scatter: fraction of the honest workers online whose answers agree with no other.
      checks: checks that an honest worker has passed.
      bad_checks: checks that a colluding or erring worker has passed.
    """

    size: int = 100_000
    colluders: float = 0.0
    erring: float = 0.0
    copycats: float = 0.0
    stallers: float = 0.0
    offline: float = 0.0
    scatter: float = 0.0
    checks: int = 0
    bad_checks: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for a fraction outside [0, 1], or if no worker would answer."""
        parts = (self.colluders, self.erring, self.copycats, self.stallers)
        for fraction in (*parts, self.offline, self.scatter):
            if not 0.0 <= fraction <= 1.0:
                raise ValueError(f"a fraction must be between 0 and 1, got {fraction}")
        if sum(parts) > 1.0:
            raise ValueError(f"the fractions add up to {sum(parts)}, which is more than 1")
        if self.size < 1 or self.counts[: Kind.COPYCAT].sum() == 0:
            raise ValueError("a population must have at least one worker that answers")

    @property
    def counts(self) -> Ints:
        """[kinds]: number of workers of each `Kind`."""
        bad = [self.colluders, self.erring, self.copycats, self.stallers]
        colluders, erring, copycats, stallers = (round(self.size * part) for part in bad)
        honest = self.size - colluders - erring - copycats - stallers
        offline = round(honest * self.offline)
        scattered = round((honest - offline) * self.scatter)
        return np.array(
            [
                honest - offline - scattered,
                colluders,
                erring,
                scattered,
                copycats,
                stallers + offline,
            ]
        )

    @property
    def bad(self) -> float:
        """The bad fraction among ballots that arrive, which a policy has to assume."""
        wrong = self.colluders + self.erring
        able = 1.0 - self.copycats - self.stallers
        return bad_among_answers(wrong / able, honest_availability=1.0 - self.offline)

    def standing(self, kind: Kind) -> Standing:
        """Standing of a worker of some kind."""
        bad = kind in {Kind.COLLUDER, Kind.ERRING}
        checks = self.bad_checks if bad else self.checks
        return Standing(passed=checks) if checks else NEWCOMER


def drawing(population: Population, jobs: int, rng: np.random.Generator) -> Draw:
    """A draw for some jobs: without replacement within a job, all workers equally likely.

    Raises:
      ValueError: (the draw) a job has already been sent to every worker.
    """
    left = np.tile(population.counts, (jobs, 1))

    def draw(which: Ints) -> Ints:
        remaining = left[which].cumsum(axis=1)
        if (remaining[:, -1] == 0).any():
            raise ValueError("the population is exhausted: no worker is left to ask")
        place = rng.integers(0, remaining[:, -1])
        kinds = (place[:, None] >= remaining).sum(axis=1)
        left[which, kinds] -= 1
        return kinds

    return draw
