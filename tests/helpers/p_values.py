"""p-values and intervals of a few tests; to load scipy's module of statistics takes a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special


def chisquare(observed: Sequence[int] | np.ndarray, expected: Sequence[float] = ()) -> float:
    """Pearson's test of counts; by default, all are expected alike."""
    counts = np.asarray(observed, np.float64)
    means = np.asarray(expected) if len(expected) else np.full(len(counts), counts.mean())
    return float(special.chdtrc(len(counts) - 1, np.sum((counts - means) ** 2 / means)))


def normal(drawn: Any) -> float:
    """The test of Kolmogorov and Smirnov that many numbers are normal."""
    n, below = len(drawn), special.ndtr(np.sort(drawn))
    places = np.arange(n + 1) / n
    distance = max(np.max(places[1:] - below), np.max(below - places[:-1]))
    return float(special.kolmogorov(math.sqrt(n) * distance))


def binomial(successes: int, trials: int, p: float) -> float:
    """Twice the smaller tail."""
    tails = at_most(successes, trials, p), above(successes - 1, trials, p)
    return min(1.0, 2 * min(tails))


def at_most(k: int, n: int, p: float) -> float:
    """P(X <= k) for X ~ Binomial(n, p)."""
    return float(special.betainc(n - k, k + 1, 1 - p)) if k < n else 1.0


def above(k: int, n: int, p: float) -> float:
    """P(X > k) for X ~ Binomial(n, p)."""
    return float(special.betainc(k + 1, n - k, p)) if 0 <= k < n else float(k < 0)


def proportion(successes: int, trials: int, level: float) -> tuple[float, float]:
    """Clopper and Pearson's interval."""
    tail, failures = (1 - level) / 2, trials - successes
    low = special.betaincinv(successes, failures + 1, tail) if successes else 0.0
    high = special.betaincinv(successes + 1, failures, 1 - tail) if failures else 1.0
    return float(low), float(high)
