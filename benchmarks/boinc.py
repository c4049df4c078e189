"""BOINC's rules of acceptance, simulated from their published description, to measure ours beside.

- *Quorum* ("Job replication", github.com/BOINC/boinc/wiki/Job-replication, and the description of
  validators): `min_quorum` results are asked for; as soon as so many have come, the first one that
  `min_quorum // 2 + 1` results agree with is canonical. If there is none, one more is asked for,
  and what is needed does not grow.
- *Adaptive replication* (wiki page "AdaptiveReplication"): the server counts a host's consecutive
  valid results, CV, of replicated jobs; it is zeroed by an invalid one. A host with CV below 10 is
  not trusted; any other is, with probability 1 - 1/CV. A trusted host runs alone, and its result is
  accepted; otherwise the job is replicated, here with a quorum of two.
"""

from __future__ import annotations

import numpy as np

from protocols.simulation import (
    Population,
    RoundResult,
    Rule,
    Tally,
    VoteStatistics,
    drawing,
    run_votes,
)

MOST_RESULTS = 20
"""Results after which a job is given up (`max_success_results`; a project chooses it)."""


def quorum_rule(min_quorum: int) -> Rule:
    """What a round leads to under a quorum of at least 2."""
    matches = min_quorum // 2 + 1

    def rule(tally: Tally) -> RoundResult:
        received = sum(tally[1:])
        if received >= min_quorum and max(tally.honest, tally.colluding) >= matches:
            return RoundResult(True, tally.colluding >= matches, 0, 0)
        if received >= MOST_RESULTS:
            return RoundResult(False, False, 0, 0)
        more = max(1, min_quorum - received)
        return RoundResult(False, False, more, more)

    return rule


def quorum(min_quorum: int, population: Population, *, jobs: int, seed: int = 0) -> VoteStatistics:
    """Jobs under a quorum."""
    draw = drawing(population, jobs, np.random.default_rng(seed))
    return run_votes(quorum_rule(min_quorum), opening=min_quorum, jobs=jobs, draw=draw)


def adaptive(
    bad: float,
    *,
    share: float,
    threshold: int = 10,
    lifetime: int = 1000,
    slots: int = 1000,
    results: int = 3000,
    seed: int = 0,
) -> VoteStatistics:
    """A population under adaptive replication; every slot delivers one result after another.

    Args:
      bad: fraction of slots that are bad.
      share: share of results that a bad host cheats on, once its CV is `threshold`.
      threshold: the CV from which a host may be trusted; 10 as published.
      lifetime: results that an honest host delivers before a new one takes its place.
      slots: hosts that are active at a time.
      results: what each of them delivers, after one lifetime that is not counted.
      seed: of all randomness.
    """
    rng = np.random.default_rng(seed)
    bad_slots = np.arange(slots) < round(bad * slots)
    valid = np.zeros(slots, dtype=np.int64)
    age = rng.integers(0, lifetime, slots)
    accepted = wrong = 0
    runs = 0.0
    for result in range(-lifetime, results):
        cheats = bad_slots & (valid >= threshold) & (rng.random(slots) < share)
        trusted = (valid >= threshold) & (rng.random(slots) < 1.0 - 1.0 / np.maximum(valid, 1))
        # Of a replicated job the other results are from hosts drawn at random, and bad ones side
        # with a cheat: two decide, or the third.
        second, third = rng.random((2, slots)) < bad
        split = cheats & ~second
        lost = split & ~third
        valid = np.where(trusted, valid, np.where(lost, 0, valid + 1))
        age += 1
        valid[~bad_slots & (age % lifetime == 0)] = 0
        if result >= 0:
            runs += float(np.where(trusted, 1, 2 + split).sum())
            accepted += slots
            wrong += int((cheats & (trusted | ~lost)).sum())
    return VoteStatistics(
        accepted=accepted, wrong=wrong, runs=runs, dispatches=round(runs), cluster=threshold
    )
