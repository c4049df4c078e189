"""Many cheats on one stake: the profit of workers that cheat before the first result is settled.

    profit = m G - P(at least one is found) (S + m R)

for m cheats of gain G, a stake S and a reward R, each result audited as `sampling.draw_each` says
and found with the probability of detection. Rules: specs/simulation.md, 5; specs/sampling.md, 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from verifiable.audits.sampling import draw_each
from verifiable.audits.stakes import Terms
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
