"""Votes in a population, many jobs at a time: how often a wrong answer is accepted, at what cost.

`simulate_votes` runs jobs through whole votes under a policy of the library: workers are drawn
without replacement, workers that do not answer are replaced, a round is decided, and the decision
says how many more to ask. The rule itself is not modelled: jobs with equal tallies are decided
once, by `voting.decide`, so that 10^5 jobs take a second. Rules: specs/simulation.md, 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np

from protocols.simulation.population import Draw, Ints, Kind, Population, drawing
from verifiable.audits.probabilities import clopper_pearson
from verifiable.voting import Ballot, VoteOutcome, decide
from verifiable.voting.agreement import Exact
from verifiable.voting.quorum import QuorumPolicy, RulingReason, Standing

_BEACON = bytes(16)  # equal answers never tie


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteStatistics:
    """Counts over many jobs.

    Attributes:
      accepted: jobs with an accepted answer.
      wrong: jobs whose accepted answer is wrong.
      undecided: jobs that ended without an answer.
      runs: answers computed, audits included at their price in runs.
      dispatches: workers that a job was sent to, including those that never answered.
      cluster: number of wrong answers that are accepted or void together, such as all of one
        window.
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


class Tally(NamedTuple):
    """A closed round: ballots requested, and ballots received of each kind."""

    requested: int
    honest: int
    colluding: int
    erring: int
    scattered: int


class RoundResult(NamedTuple):
    """Result of a round.

    Attributes:
      accepted: whether an answer was accepted.
      wrong: whether the accepted answer is wrong.
      more: ballots to ask for; 0 if the job has ended.
      seats: how many of them are newly requested.
    """

    accepted: bool
    wrong: bool
    more: int
    seats: int


Rule: TypeAlias = "Callable[[Tally], RoundResult]"


def rule_of(policy: QuorumPolicy, population: Population) -> Rule:
    """The library's rule: `voting.decide` decides every tally, once."""
    agreement = Exact(size=4)

    @cache
    def rule(tally: Tally) -> RoundResult:
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
            wrong = decision.canonical[0] in {Kind.COLLUDER, Kind.ERRING}
            return RoundResult(accepted=True, wrong=wrong, more=0, seats=0)
        more = decision.more if decision.reason is RulingReason.UNDECIDED else 0
        return RoundResult(accepted=False, wrong=False, more=more, seats=decision.seats)

    return rule


def run_votes(
    rule: Rule, *, opening: int, jobs: int, draw: Draw, ends: Ints | None = None
) -> VoteStatistics:
    """Run jobs through votes: ask, replace workers that do not answer, decide, and ask for more.

    Args:
      rule: from the tally of a round to its result.
      opening: ballots requested at first.
      jobs: number of jobs.
      draw: draws the `Kind` of the next worker of each job given.
      ends: int64[jobs], filled in if given: 1 for a right answer, -1 for a wrong one, 0 for none.
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
            # A staller is replaced; a copycat takes a seat and computes nothing.
            need[asking] -= kinds != Kind.STALLER
            runs += int((kinds < Kind.COPYCAT).sum())
            asking = asking[need[asking] > 0]
        rows = np.column_stack([requested[open_], tallies[open_, : Kind.COPYCAT]])
        right, bad, more, seats = _results(rule, rows).T
        accepted += int(right.sum())
        wrong += int(bad.sum())
        undecided += int(((right == 0) & (more == 0)).sum())
        if ends is not None:
            ends[open_] = right - 2 * bad
        need[open_] = more
        requested[open_] += seats
        open_ = open_[more > 0]
    return VoteStatistics(
        accepted=accepted, wrong=wrong, undecided=undecided, runs=runs, dispatches=dispatches
    )


def _results(rule: Rule, rows: Ints) -> Ints:
    """[jobs, 4]: the result of each tally, where equal tallies are decided once."""
    # One integer for each row, because sorting integers is much faster than sorting rows.
    base = int(rows.max()) + 1
    _, first, inverse = np.unique(
        rows @ base ** np.arange(rows.shape[1]), return_index=True, return_inverse=True
    )
    return np.array([rule(Tally(*rows[i].tolist())) for i in first], dtype=np.int64)[inverse]


def simulate_votes(
    policy: QuorumPolicy, population: Population, *, jobs: int = 100_000, seed: int = 0
) -> VoteStatistics:
    """Run jobs through votes under a policy.

    Args:
      policy: any policy that decides by votes alone; its `bad` should be the population's.
      population: the workers.
      jobs: number of jobs.
      seed: seed of all randomness.

    Raises:
      ValueError: a job needs more workers than there are.
    """
    rng = np.random.default_rng(seed)
    opening = policy.first([population.standing(Kind.HONEST)] * 64)
    return run_votes(
        rule_of(policy, population),
        opening=opening,
        jobs=jobs,
        draw=drawing(population, jobs, rng),
    )
