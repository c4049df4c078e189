"""Votes in a population, many jobs at a time: how often a wrong answer is accepted, at what cost.

A `Population` says what its workers do; `vote` runs jobs through whole votes under a policy of the
library: workers are drawn without replacement, whoever does not answer is replaced, a round is
decided, and as many more are asked as the decision says. Nothing stands in for the rule itself:
jobs whose ballots are alike are decided once, by `voting.decide`, so that 10^5 jobs take a second.

    colluders   send one and the same wrong answer
    erring      send a wrong answer of their own
    copycats    repeat another's commitment, which they cannot open: a seat without a ballot
    stallers    never answer, and are replaced; so are honest workers that are offline
    scattered   honest answers that agree with nobody's

Colluders inside a tolerance are in `simulation_tolerance`; workers that earn trust to spend it,
foresee audits, or cheat many times on one stake in `simulation_trust`. Rules: specs/simulation.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from verifiable.audits.sampling import clopper_pearson
from verifiable.voting import Ballot, VoteOutcome, decide
from verifiable.voting.agreement import Exact
from verifiable.voting.quorum import (
    NEWCOMER,
    QuorumPolicy,
    RulingReason,
    Standing,
    bad_among_answers,
)

Ints: TypeAlias = "NDArray[np.int64]"

_BEACON = bytes(16)  # equal answers never tie


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was counted.

    Attributes:
      accepted: jobs with an accepted answer.
      wrong: those of them whose answer is wrong.
      undecided: jobs that ended without an answer.
      runs: answers computed, audits included at their price in runs.
      dispatches: workers that a job was sent to, those included that never answered.
      cluster: how many wrong answers may stand or fall together, such as those of one window.
    """

    accepted: int
    wrong: int
    undecided: int = 0
    runs: float
    dispatches: int
    cluster: int = 1

    @property
    def jobs(self) -> int:
        """All jobs that ended."""
        return self.accepted + self.undecided

    @property
    def error(self) -> float:
        """Share of jobs that ended with a wrong answer."""
        return self.wrong / self.jobs

    @property
    def runs_per_job(self) -> float:
        """Runs per job that ended."""
        return self.runs / self.jobs

    def interval(self, confidence: float = 0.99) -> tuple[float, float]:
        """Clopper-Pearson interval of the error; answers of one cluster count as one."""
        return clopper_pearson(
            self.wrong // self.cluster, max(1, self.jobs // self.cluster), confidence=confidence
        )


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
    """Who is registered. Fractions are of all workers; the rest are honest.

    Attributes:
      size: how many workers.
      colluders: fraction that sends one wrong answer.
      erring: fraction that sends wrong answers, each its own.
      copycats: fraction that copies ballots.
      stallers: fraction that never answers.
      offline: fraction of the honest that is offline, and does not answer either.
      scatter: fraction of the honest online whose answers agree with nobody's.
      checks: checks that an honest worker has passed.
      bad_checks: checks that a colluding or erring one has passed.
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
        """Refuse fractions that are none, and a population in which nobody answers."""
        parts = (self.colluders, self.erring, self.copycats, self.stallers)
        for fraction in (*parts, self.offline, self.scatter):
            if not 0.0 <= fraction <= 1.0:
                raise ValueError(f"a fraction is between 0 and 1, got {fraction}")
        if self.size < 1 or sum(parts) > 1.0 or self.counts[: Kind.COPYCAT].sum() == 0:
            raise ValueError("fractions that exceed the population, or nobody who answers")

    @property
    def counts(self) -> Ints:
        """How many workers there are of each `Kind`."""
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
        """The bad fraction among ballots that arrive: what a policy has to assume."""
        wrong = self.colluders + self.erring
        able = 1.0 - self.copycats - self.stallers
        return bad_among_answers(wrong / able, honest_availability=1.0 - self.offline)

    def standing(self, kind: Kind) -> Standing:
        """What is known of a worker of some kind."""
        bad = kind in {Kind.COLLUDER, Kind.ERRING}
        checks = self.bad_checks if bad else self.checks
        return Standing(passed=checks) if checks else NEWCOMER


class Tally(NamedTuple):
    """A round that has closed: ballots requested, and ballots received of each kind."""

    requested: int
    honest: int
    colluding: int
    erring: int
    scattered: int


class Verdict(NamedTuple):
    """What becomes of a round: ended or not; if accepted, whether wrong; if not, how many more."""

    accepted: bool
    wrong: bool
    more: int
    seats: int


Rule: TypeAlias = "Callable[[Tally], Verdict]"
Draw: TypeAlias = "Callable[[Ints], Ints]"


def rule_of(policy: QuorumPolicy, population: Population) -> Rule:
    """The library's rule: every tally is decided by `voting.decide`, once."""
    agreement = Exact(size=4)

    @cache
    def rule(tally: Tally) -> Verdict:
        kinds = [k for k, n in zip(Kind, tally[1:], strict=False) for _ in range(n)]
        ballots: list[Ballot] = []
        standings: dict[bytes, Standing] = {}
        for index, kind in enumerate(kinds):
            worker = index.to_bytes(4, "big")
            alone = kind in {Kind.ERRING, Kind.SCATTERED}
            own = index + 1 if alone else 0
            ballots.append(Ballot(worker, bytes([kind]) + own.to_bytes(3, "big")))
            standings[worker] = population.standing(kind)
        decision = decide(
            ballots,
            agreement=agreement,
            policy=policy,
            requested=tally.requested,
            beacon=_BEACON,
            standings=standings,
        )
        if decision.outcome is VoteOutcome.ACCEPT:
            return Verdict(True, decision.canonical[0] in {Kind.COLLUDER, Kind.ERRING}, 0, 0)
        open_ = decision.reason is RulingReason.UNDECIDED
        return Verdict(False, False, decision.more if open_ else 0, decision.seats)

    return rule


def drawing(population: Population, jobs: int, rng: np.random.Generator) -> Draw:
    """Draw the next worker of each of some jobs: without replacement, and of equal weight."""
    left = np.tile(population.counts, (jobs, 1))

    def draw(which: Ints) -> Ints:
        remaining = left[which].cumsum(axis=1)
        if (remaining[:, -1] == 0).any():
            raise ValueError("the population is exhausted: nobody is left to ask")
        place = rng.integers(0, remaining[:, -1])
        kinds = (place[:, None] >= remaining).sum(axis=1)
        left[which, kinds] -= 1
        return kinds

    return draw


def hold(rule: Rule, *, opening: int, jobs: int, draw: Draw, ends: Ints | None = None) -> Measured:
    """Run jobs through votes: ask, replace who does not answer, decide, and ask for more.

    Args:
      rule: what a round leads to.
      opening: ballots requested at first.
      jobs: how many jobs.
      draw: the `Kind` of the next worker of each job named.
      ends: [jobs], filled in where given: 1 for a right answer, -1 for a wrong one, 0 for none.
    """
    tallies = np.zeros((jobs, len(Kind)), dtype=np.int64)
    requested = np.full(jobs, opening)
    need = np.full(jobs, opening)
    dispatches = accepted = wrong = undecided = 0
    runs = 0.0
    open_ = np.arange(jobs)
    while len(open_):
        asking = open_[need[open_] > 0]
        while len(asking):
            kinds = draw(asking)
            dispatches += len(asking)
            tallies[asking, kinds] += 1
            # Who does not answer is replaced; a copycat holds a seat, and computes nothing.
            need[asking] -= kinds != Kind.STALLER
            runs += int((kinds < Kind.COPYCAT).sum())
            asking = asking[need[asking] > 0]
        rows = np.column_stack([requested[open_], tallies[open_, : Kind.COPYCAT]])
        # One integer for each row, because sorting those is much faster than sorting rows.
        base = int(rows.max()) + 1
        _, first, inverse = np.unique(
            rows @ base ** np.arange(rows.shape[1]), return_index=True, return_inverse=True
        )
        verdicts = np.array([rule(Tally(*rows[i].tolist())) for i in first], dtype=np.int64)
        good, bad, more, seats = verdicts[inverse].T
        accepted += int(good.sum())
        wrong += int(bad.sum())
        undecided += int(((good == 0) & (more == 0)).sum())
        if ends is not None:
            ends[open_] = good - 2 * bad
        need[open_] = more
        requested[open_] += seats
        open_ = open_[more > 0]
    return Measured(
        accepted=accepted, wrong=wrong, undecided=undecided, runs=runs, dispatches=dispatches
    )


def vote(
    policy: QuorumPolicy, population: Population, *, jobs: int = 100_000, seed: int = 0
) -> Measured:
    """Run jobs through votes under a policy.

    Args:
      policy: any that decides by votes alone; its `bad` should be the population's.
      population: who is drawn.
      jobs: how many jobs.
      seed: of all randomness.

    Raises:
      ValueError: a job needs more workers than there are.
    """
    rng = np.random.default_rng(seed)
    opening = policy.first([population.standing(Kind.HONEST)] * 64)
    return hold(
        rule_of(policy, population),
        opening=opening,
        jobs=jobs,
        draw=drawing(population, jobs, rng),
    )
