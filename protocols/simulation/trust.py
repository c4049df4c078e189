"""Trust that is earned and spent, audits that are foreseen, and many cheats on one stake.

`trust` lets a population live under `reputation.Adaptive`. Every slot of the population delivers
one result after another; a bad slot behaves as its `Strategy` says, and comes back under a new
identity whenever it is caught. Newcomers' jobs go through real votes (`simulation.hold`), windows
are audited where `sampling.draw` says, and what the policy trusts is asked of the policy.

The policy's bound assumes a bad share of the results *dispatched*: all slots are equally fast, and
results that become void were dispatched all the same.

`profit` plays workers that have many results unsettled on one stake, audited where
`sampling.draw_each` says. Rules and formulas: specs/simulation.md, specs/sampling.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from protocols.simulation import Ints, Kind, Measured, Population, drawing, hold, rule_of
from verifiable.audits.sampling import draw, draw_each
from verifiable.audits.stakes import Terms
from verifiable.encoding import tagged_hash
from verifiable.voting.quorum import Poll, RulingReason, Standing
from verifiable.voting.trust import Adaptive


class Foresight(Enum):
    """What a bad worker knows of the audits of its window while it answers."""

    NONE = "none"
    GUESSED = "guessed"
    """It avoids what it guesses will be audited: a draw like the real one, from another seed."""
    LEAKED = "leaked"
    """It avoids what will be audited: the randomness was known. What the library rules out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """What a bad worker does.

    Attributes:
      share: share of the results of a window that it cheats on, once it is trusted.
      earns: whether it answers honestly until it is trusted; if not, it cheats in votes too.
      foresight: what it knows of its audits.
    """

    share: float
    earns: bool = True
    foresight: Foresight = Foresight.NONE

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"a share is between 0 and 1, got {self.share}")


EARN_THEN_SPEND = Strategy(share=1.0)
"""Honest until trusted, then always cheating."""


def best_share(policy: Adaptive) -> float:
    """The share that gets most wrong results accepted: 1 / (d (u + 1)) (specs/voting.md, 6)."""
    return min(1.0, 1.0 / (policy.detection * (policy.audits + 1)))


@dataclass(slots=True)
class _Count:
    accepted: int = 0
    wrong: int = 0
    undecided: int = 0
    runs: float = 0.0
    dispatches: int = 0


def trust(
    policy: Adaptive,
    strategy: Strategy,
    *,
    slots: int = 1000,
    results: int = 4000,
    seed: int = 0,
) -> Measured:
    """Let a population live under audited trust.

    Args:
      policy: the policy; its `bad` is the share of slots that are bad.
      strategy: what the bad ones do.
      slots: workers that are active at a time.
      results: what each of them delivers, at least.
      seed: of all randomness.
    """
    rng = np.random.default_rng(seed)
    secret = tagged_hash("simulated audits", seed.to_bytes(8, "little"))
    bad = np.arange(slots) < round(policy.bad * slots)
    passed, age = np.zeros(slots, dtype=np.int64), np.zeros(slots, dtype=np.int64)
    clock = np.zeros(slots, dtype=np.int64)
    windows = np.zeros(slots, dtype=np.int64)
    count = _Count()
    # Slots start at different ages, as in a population that has been there for long.
    age[~bad] = rng.integers(0, round(policy.lifetime), size=int((~bad).sum()))
    passed[~bad] = np.minimum(age[~bad], policy.probation)
    while (active := np.flatnonzero(clock < results)).size:
        alone = np.array([_waits_alone(policy, int(p)) for p in passed[active]])
        newcomers, trusted = active[~alone], active[alone]
        if newcomers.size:
            won = _probation(policy, strategy, bad[newcomers], rng, count)
            passed[newcomers] = np.where(
                won > 0, passed[newcomers] + 1, np.where(won < 0, 0, passed[newcomers])
            )
            clock[newcomers] += 1
            age[newcomers] += 1
        for slot in trusted.tolist():
            # Windows close early where an honest identity retires, and where the simulation ends.
            left = results - clock[slot]
            if not bad[slot]:
                left = min(left, policy.lifetime - age[slot])
            size = int(min(policy.window, max(left, policy.audits)))
            label = f"{slot}/{windows[slot]}"
            share = strategy if bad[slot] else None
            cleared = _window(policy, share, size, secret, label, rng, count)
            passed[slot] = passed[slot] + policy.audits if cleared else 0
            windows[slot] += 1
            clock[slot] += size
            age[slot] += size
        # An honest identity that has lived its life is followed by a newcomer.
        gone = ~bad & (age >= policy.lifetime)
        passed[gone] = age[gone] = 0
    # A worker that never earns trust wins or loses votes, each for itself.
    spent = round(strategy.share * policy.window) if strategy.earns else 1
    return Measured(
        accepted=count.accepted,
        wrong=count.wrong,
        undecided=count.undecided,
        runs=count.runs,
        dispatches=count.dispatches,
        cluster=max(1, spent),
    )


def _waits_alone(policy: Adaptive, passed: int) -> bool:
    """Whether the policy lets a worker run alone, and its answer wait for audits."""
    standing = Standing(passed=passed)
    if policy.first([standing]) != 1:
        return False
    return policy.rule(Poll(1, [standing], [])).reason is RulingReason.AUDIT


def _probation(
    policy: Adaptive, strategy: Strategy, bad: Any, rng: np.random.Generator, count: _Count
) -> Ints:
    """Put the job of each newcomer to a vote. 1 where its ballot won, -1 where it lost, else 0."""
    jobs = len(bad)
    cheats = np.where(bad & (not strategy.earns), Kind.COLLUDER, Kind.HONEST)
    others = Population(colluders=0.0 if strategy.earns else policy.bad)
    rest = drawing(others, jobs, rng)
    fresh = np.ones(jobs, dtype=bool)

    def seat(which: Ints) -> Ints:
        kinds = np.where(fresh[which], cheats[which], rest(which))
        fresh[which] = False
        return kinds

    rule = rule_of(policy.newcomers, others)
    opening = policy.newcomers.first()
    won = np.zeros(jobs, dtype=np.int64)
    for own in (Kind.HONEST, Kind.COLLUDER):
        chosen = np.flatnonzero(cheats == own)
        if not chosen.size:
            continue
        ends = np.zeros(chosen.size, dtype=np.int64)
        measured = hold(
            rule,
            opening=opening,
            jobs=chosen.size,
            draw=lambda which, chosen=chosen: seat(chosen[which]),
            ends=ends,
        )
        count.accepted += measured.accepted
        count.wrong += measured.wrong
        count.undecided += measured.undecided
        count.runs += measured.runs
        count.dispatches += measured.dispatches
        won[chosen] = ends if own is Kind.HONEST else -ends
    return won


def _window(
    policy: Adaptive,
    strategy: Strategy | None,
    size: int,
    secret: bytes,
    label: str,
    rng: np.random.Generator,
    count: _Count,
) -> bool:
    """One window of a trusted worker: answers, then audits of some. Whether it is cleared."""
    audited = set(draw(secret, size, policy.audits, label=label))
    wrong: set[int] = set()
    if strategy is not None and strategy.share > 0.0:
        avoided: set[int] = set()
        if strategy.foresight is Foresight.LEAKED:
            avoided = audited
        elif strategy.foresight is Foresight.GUESSED:
            guess = tagged_hash("guessed audits", secret)
            avoided = set(draw(guess, size, policy.audits, label=label))
        places = [place for place in range(size) if place not in avoided]
        wrong = set(places[: round(strategy.share * size)])
    caught = rng.binomial(len(audited & wrong), policy.detection) > 0
    count.runs += size + policy.audit_cost * policy.audits
    count.dispatches += size
    if caught:
        return False
    count.accepted += size
    count.wrong += len(wrong)
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Profit:
    """What cheating brought, per worker.

    Attributes:
      mean: mean profit of the cheats, above what honest work brings.
      deviation: standard error of the mean.
    """

    mean: float
    deviation: float


def profit(
    terms: Terms, *, stake: float, cheats: int, workers: int = 20_000, seed: int = 0
) -> Profit:
    """Profit of workers that cheat several times before the first result is settled.

    Args:
      terms: gain, reward, audit rate and detection; `outstanding` caps the cheats.
      stake: what a worker that is caught loses, once, however often it cheated.
      cheats: how many of its unsettled results it cheats on.
      workers: how many such workers.
      seed: of all randomness.

    Raises:
      ValueError: more cheats than results may be unsettled.
    """
    if not 1 <= cheats <= terms.outstanding:
        raise ValueError(f"{cheats} cheats, but {terms.outstanding} results may be unsettled")
    secret = tagged_hash("simulated settlement", seed.to_bytes(8, "little"))
    receipts = workers * cheats
    audited = np.zeros(receipts, dtype=bool)
    audited[list(draw_each(secret, np.full(receipts, terms.audit_rate)))] = True
    found = audited & (np.random.default_rng(seed).random(receipts) < terms.detection)
    caught = found.reshape(workers, cheats).any(axis=1)
    lost = stake + cheats * terms.reward
    share = float(caught.mean())
    return Profit(
        mean=cheats * terms.gain - share * lost,
        deviation=lost * math.sqrt(share * (1.0 - share) / workers),
    )
