"""Many cheats on one stake: the profit of workers that cheat before the first result is settled.

    profit = m G - P(at least one is found) (S + m R)

for m cheats of gain G, a stake S and a reward R, each result audited as `sampling.draw_each` says
and found with the probability of detection.

    profit = -D if it is audited and silent, else R; less C of an honest worker

of a worker that vanishes whenever its audit would reject it (`simulate_vanishing`), beside that of
an honest one. Rules: specs/simulation.md, 5; specs/sampling.md, 5, 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from verifiable.audits.sampling import draw_each
from verifiable.audits.stakes import Terms, Vanishing
from verifiable.encoding import tagged_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Profit:
    """Profit of cheating, per worker, in units of the gain.

    Attributes:
      mean: mean profit of the cheats, above the profit of honest work.
      deviation: standard error of the mean.
    """

    mean: float
    deviation: float


def simulate_profit(
    terms: Terms, *, stake: float, cheats: int, workers: int = 20_000, seed: int = 0
) -> Profit:
    """Profit of workers that cheat several times before the first result is settled.

    Args:
      terms: gain, reward, audit rate and detection; `outstanding` limits the cheats.
      stake: what a worker that is caught loses, once, however often it cheated.
      cheats: number of its unsettled results that it cheats on.
      workers: number of such workers.
      seed: seed of all randomness.

    Raises:
      ValueError: more cheats than results may be unsettled.
    """
    if not 1 <= cheats <= terms.outstanding:
        raise ValueError(
            f"{cheats} cheats, but {terms.outstanding} results may be unsettled: "
            "choose from 1 to that number"
        )
    secret = tagged_hash("simulated settlement", seed.to_bytes(8, "little"))
    results = workers * cheats
    audited = np.zeros(results, dtype=bool)
    audited[list(draw_each(secret, np.full(results, terms.audit_rate)))] = True
    found = audited & (np.random.default_rng(seed).random(results) < terms.detection)
    caught = found.reshape(workers, cheats).any(axis=1)
    lost = stake + cheats * terms.reward
    share = float(caught.mean())
    return Profit(
        mean=cheats * terms.gain - share * lost,
        deviation=lost * math.sqrt(share * (1.0 - share) / workers),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VanishingProfits:
    """Mean profits of a job under a no-show bond, and the standard errors of the means.

    Attributes:
      honest: of an honest worker.
      cheat: of a cheat that vanishes whenever its audit would reject it.
      gain: of the cheat above the honest worker, on the same jobs.
      honest_error: standard error of `honest`.
      gain_error: of `gain`.
    """

    honest: float
    cheat: float
    gain: float
    honest_error: float
    gain_error: float


def simulate_vanishing(
    terms: Vanishing, *, bond: float, jobs: int = 20_000, seed: int = 0
) -> VanishingProfits:
    """Profits of workers that learn which units are opened before they open any.

    Both are drawn by `sampling.draw_each`, and both are offline as often. The cheat answers at no
    cost. If it is audited and its answer is right, or the units that are opened are not the wrong
    ones, it opens them and passes; else it is silent.

    Args:
      terms: reward, cost, audit rate, and what audits meet.
      bond: D, forfeit by a worker that is audited and silent.
      jobs: number of jobs.
      seed: seed of all randomness.
    """
    secret = tagged_hash("simulated vanishing", seed.to_bytes(8, "little"))
    rng = np.random.default_rng(seed)
    audited = np.zeros(jobs, dtype=bool)
    audited[list(draw_each(secret, np.full(jobs, terms.audit_rate)))] = True
    online = rng.random(jobs) < terms.answers
    wrong = rng.random(jobs) >= terms.agreement
    opened = rng.random(jobs) < terms.detection

    def paid(answers: np.ndarray) -> np.ndarray:
        return np.where(audited & ~answers, -bond, terms.reward)

    honest = paid(online) - terms.cost
    cheat = paid(online & ~(wrong & opened))

    def error(values: np.ndarray) -> float:
        return float(values.std() / math.sqrt(jobs))

    return VanishingProfits(
        honest=float(honest.mean()),
        cheat=float(cheat.mean()),
        gain=float((cheat - honest).mean()),
        honest_error=error(honest),
        gain_error=error(cheat - honest),
    )
