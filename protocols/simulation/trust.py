"""Trust that is earned and spent, and audits that are foreseen.

`simulate_trust` runs a population under `voting.trust.Adaptive`. Every slot of the population
delivers one result after another. A bad slot behaves as its `SpendingStrategy` says, and returns
under a new identity whenever it is caught. Newcomers' jobs go through real votes (`run_votes`),
`sampling.draw` chooses the audits of a window, and the policy says which workers run alone.

The policy's bound assumes a bad share of the results *dispatched*: all slots are equally fast, and
results that become void were dispatched all the same. Rules: specs/simulation.md, 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache

import numpy as np

from protocols.simulation.population import Ints, Kind, Population, drawing
from protocols.simulation.votes import VoteStatistics, rule_of, run_votes
from verifiable.audits.sampling import draw
from verifiable.encoding import tagged_hash
from verifiable.voting.quorum import Poll, RulingReason, Standing
from verifiable.voting.trust import Adaptive


class Foresight(Enum):
    """What a bad worker knows of the audits of its window when it answers."""

    NONE = "none"
    GUESSED = "guessed"
    """It avoids the audits that it guesses: a draw like the real one, from another seed."""
    LEAKED = "leaked"
    """It avoids the real audits: the randomness was known, which the library rules out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendingStrategy:
    """How a bad worker spends trust.

    Attributes:
      share: share of the results of a window that it cheats on, once it is trusted.
      earns: whether it answers honestly until it is trusted; if not, it cheats in votes too.
      foresight: what it knows of its audits.
    """

    share: float
    earns: bool = True
    foresight: Foresight = Foresight.NONE

    def __post_init__(self) -> None:
        """Raises ValueError for a share outside [0, 1]."""
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"a share must be between 0 and 1, got {self.share}")


EARN_THEN_SPEND = SpendingStrategy(share=1.0)
"""Honest until trusted, then always cheating."""


def best_share(policy: Adaptive) -> float:
    """The share that gets most wrong results accepted: 1 / (d (u + 1)) (specs/voting.md, 6)."""
    return min(1.0, 1.0 / (policy.detection * (policy.audits + 1)))


def simulate_trust(
    policy: Adaptive,
    strategy: SpendingStrategy,
    *,
    slots: int = 1000,
    results: int = 4000,
    seed: int = 0,
) -> VoteStatistics:
    """Run a population under audited trust.

    Args:
      policy: the policy; its `bad` is the share of slots that are bad.
      strategy: what the bad slots do.
      slots: workers that are active at a time.
      results: results that each of them delivers, at least.
      seed: seed of all randomness.
    """
    population = _Slots(policy, strategy, slots, seed)

    @cache
    def runs_alone(passed: int) -> bool:
        """Whether the policy lets a worker run alone, and its answer wait for audits."""
        standing = Standing(passed=passed)
        if policy.first([standing]) != 1:
            return False
        return policy.rule(Poll(1, [standing], [])).reason is RulingReason.AUDIT

    while (active := np.flatnonzero(population.delivered < results)).size:
        alone = np.array([runs_alone(passed) for passed in population.passed[active].tolist()])
        newcomers, trusted = active[~alone], active[alone]
        if newcomers.size:
            population.vote(newcomers)
        for slot in trusted.tolist():
            population.fill_window(slot, results)
        population.retire()
    # A worker that never earns trust wins or loses its votes one by one.
    spent = round(strategy.share * policy.window) if strategy.earns else 1
    return VoteStatistics(
        accepted=population.accepted,
        wrong=population.wrong,
        undecided=population.undecided,
        runs=population.runs,
        dispatches=population.dispatches,
        cluster=max(1, spent),
    )


class _Slots:
    """The slots of a population, with the identity in each, and what was counted so far.

    Attributes:
      bad: [slots], whether the slot is bad.
      passed: [slots], checks that the present identity has passed.
      age: [slots], results that the present identity has delivered.
      delivered: [slots], results that the slot has delivered.
      windows: [slots], windows that the slot has filled.
    """

    def __init__(self, policy: Adaptive, strategy: SpendingStrategy, slots: int, seed: int):
        self.policy, self.strategy = policy, strategy
        self.rng = np.random.default_rng(seed)
        self.secret = tagged_hash("simulated audits", seed.to_bytes(8, "little"))
        self.bad = np.arange(slots) < round(policy.bad * slots)
        self.passed, self.age, self.delivered, self.windows = np.zeros((4, slots), dtype=np.int64)
        self.accepted = self.wrong = self.undecided = self.dispatches = 0
        self.runs = 0.0
        # Honest slots start at different ages, as in a population that has existed for long.
        honest = ~self.bad
        self.age[honest] = self.rng.integers(0, round(policy.lifetime), size=int(honest.sum()))
        self.passed[honest] = np.minimum(self.age[honest], policy.probation)
        others = Population(colluders=0.0 if strategy.earns else policy.bad)
        self.others, self.rule = others, rule_of(policy.newcomers, others)

    def vote(self, newcomers: Ints) -> None:
        """Put one job of each newcomer to a vote, with its ballot as the first."""
        won = np.zeros(newcomers.size, dtype=np.int64)
        cheats = self.bad[newcomers] & (not self.strategy.earns)
        first = np.where(cheats, Kind.COLLUDER, Kind.HONEST)
        rest = drawing(self.others, newcomers.size, self.rng)
        fresh = np.ones(newcomers.size, dtype=bool)

        def seat(which: Ints) -> Ints:
            kinds = np.where(fresh[which], first[which], rest(which))
            fresh[which] = False
            return kinds

        for own in (Kind.HONEST, Kind.COLLUDER):
            chosen = np.flatnonzero(first == own)
            if not chosen.size:
                continue
            ends = np.zeros(chosen.size, dtype=np.int64)
            found = run_votes(
                self.rule,
                opening=self.policy.newcomers.first(),
                jobs=chosen.size,
                draw=lambda which, chosen=chosen: seat(chosen[which]),
                ends=ends,
            )
            self.accepted += found.accepted
            self.wrong += found.wrong
            self.undecided += found.undecided
            self.runs += found.runs
            self.dispatches += found.dispatches
            won[chosen] = ends if own is Kind.HONEST else -ends
        passed = self.passed[newcomers]
        self.passed[newcomers] = np.where(won > 0, passed + 1, np.where(won < 0, 0, passed))
        self.delivered[newcomers] += 1
        self.age[newcomers] += 1

    def fill_window(self, slot: int, results: int) -> None:
        """One window of a trusted worker: answers, then audits of some of them."""
        policy = self.policy
        # A window closes early when an honest identity retires and when the simulation ends.
        left = results - self.delivered[slot]
        if not self.bad[slot]:
            left = min(left, policy.lifetime - self.age[slot])
        size = int(min(policy.window, max(left, policy.audits)))
        label = f"{slot}/{self.windows[slot]}"
        audited = set(draw(self.secret, size, policy.audits, label=label))
        wrong = self._cheats(size, audited, label) if self.bad[slot] else set[int]()
        caught = self.rng.binomial(len(audited & wrong), policy.detection) > 0
        self.runs += size + policy.audit_cost * policy.audits
        self.dispatches += size
        if not caught:
            self.accepted += size
            self.wrong += len(wrong)
        self.passed[slot] = 0 if caught else self.passed[slot] + policy.audits
        self.windows[slot] += 1
        self.delivered[slot] += size
        self.age[slot] += size

    def _cheats(self, size: int, audited: set[int], label: str) -> set[int]:
        """Positions of a window that a bad worker cheats on."""
        if self.strategy.share == 0.0:
            return set()
        avoided: set[int] = set()
        if self.strategy.foresight is Foresight.LEAKED:
            avoided = audited
        elif self.strategy.foresight is Foresight.GUESSED:
            guess = tagged_hash("guessed audits", self.secret)
            avoided = set(draw(guess, size, self.policy.audits, label=label))
        places = [place for place in range(size) if place not in avoided]
        return set(places[: round(self.strategy.share * size)])

    def retire(self) -> None:
        """Replace each honest identity that has reached its lifetime by a newcomer."""
        gone = ~self.bad & (self.age >= self.policy.lifetime)
        self.passed[gone] = self.age[gone] = 0
