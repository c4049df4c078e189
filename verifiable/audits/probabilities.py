"""Probabilities of audits: how often a draw misses every bad receipt, and measured rates.

Of N receipts, b are bad. A draw of u without replacement misses all bad ones with probability

    C(N - b, u) / C(N, u)                                                    (hypergeometric)

Tail probabilities are computed directly, never as one minus the other tail, so that small ones keep
their digits. Sources: specs/sampling.md, 2 and 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from scipy.special import betainc, betaincinv


def _log_miss(population: int, bad: int, audits: int) -> float:
    """ln C(N - b, u) / C(N, u) = sum over i < min(b, u) of ln(1 - max(b, u) / (N - i))."""
    if bad + audits > population:
        return -math.inf
    few, many = min(bad, audits), max(bad, audits)
    return float(np.log1p(-many / (population - np.arange(few))).sum())


def _log_hypergeometric(
    population: int, bad: int, audits: int
) -> tuple[int, Float64[np.ndarray, " cases"]]:
    """The least possible number j of bad receipts drawn, and ln P(X = j) from there on."""
    if not (0 <= bad <= population and 0 <= audits <= population):
        raise ValueError(
            f"bad and audits must be in 0 .. {population}, the population, got {bad} and {audits}"
        )
    least, most = max(0, bad + audits - population), min(bad, audits)
    # If more receipts are bad than are left out, at least `least` bad ones are drawn: then only bad
    # ones are left out.
    start = (
        _log_miss(population, population - bad, population - audits)
        if least
        else _log_miss(population, bad, audits)
    )
    j = np.arange(least, most, dtype=np.float64)
    ratios = (bad - j) * (audits - j) / ((j + 1) * (population - bad - audits + j + 1))
    return least, start + np.concatenate(([0.0], np.cumsum(np.log(ratios))))


def miss_probability(population: int, bad: int, audits: int, *, detection: float = 1.0) -> float:
    """Probability that no audit finds any of the bad receipts.

    Sum over j of P(X = j) (1 - d)^j with X hypergeometric; C(N - b, u) / C(N, u) for d = 1.

    Args:
      population: number of receipts N.
      bad: number of bad ones among them, b.
      audits: number of receipts drawn, without replacement.
      detection: probability d that the audit of a bad receipt detects it.

    Raises:
      ValueError: a count is outside 0 .. N, or the detection outside [0, 1].
    """
    _probability(detection=detection)
    if detection == 1.0 and 0 <= bad <= population and 0 <= audits <= population:
        return math.exp(_log_miss(population, bad, audits))
    least, logs = _log_hypergeometric(population, bad, audits)
    found = np.arange(least, least + len(logs))
    return min(1.0, math.fsum(np.exp(logs + found * math.log1p(-detection))))


def audits_needed(population: int, bad: int, error: float, *, detection: float = 1.0) -> int:
    """The fewest audits that miss all bad receipts with probability at most `error`.

    Args:
      population: number of receipts N.
      bad: number of bad ones among them, b.
      error: upper bound on the probability that no bad receipt is found.
      detection: probability d that the audit of a bad receipt detects it.

    Raises:
      ValueError: no number of audits reaches the error, or an argument is out of range.
    """
    _probability(error=error)

    def suffice(audits: int) -> bool:
        return miss_probability(population, bad, audits, detection=detection) <= error

    found = least_integer(suffice, start=0, limit=population)
    if found is None:
        raise ValueError(
            f"no number of audits reaches an error of {error}: even all {population} receipts, "
            f"audited with detection {detection}, miss {bad} bad ones more often"
        )
    return found


def least_integer(holds: Callable[[int], bool], *, start: int, limit: int) -> int | None:
    """The least integer from `start` to `limit` for which a monotone predicate holds, or None."""
    if not holds(limit):
        return None
    low, high = start, limit
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def hypergeometric_tail(population: int, bad: int, size: int, threshold: int) -> float:
    """P(X >= threshold), X the number of bad members in a committee drawn without replacement.

    Args:
      population: number of identities N.
      bad: number of bad ones among them.
      size: number of identities drawn.
      threshold: the least number of bad members.

    Raises:
      ValueError: a count is outside 0 .. N.
    """
    least, logs = _log_hypergeometric(population, bad, size)
    if threshold <= least:
        return 1.0
    return min(1.0, math.fsum(np.exp(logs[threshold - least :])))


def binomial_tail(trials: int, probability: float, threshold: int) -> float:
    """P(X >= threshold), X binomial: the regularised incomplete beta function.

    Args:
      trials: number of trials.
      probability: probability of success in each.
      threshold: the least number of successes.

    Raises:
      ValueError: the trials are negative, or the probability is outside [0, 1].
    """
    _probability(probability=probability)
    if trials < 0:
        raise ValueError(f"trials must not be negative, got {trials}")
    if threshold <= 0:
        return 1.0
    if threshold > trials:
        return 0.0
    return float(betainc(threshold, trials - threshold + 1, probability))


def clopper_pearson(
    successes: int, trials: int, *, confidence: float = 0.99
) -> tuple[float, float]:
    """Exact two-sided confidence interval of a measured probability.

    Source: Clopper and Pearson, Biometrika 26, 1934.

    Args:
      successes: number of successes.
      trials: number of trials, at least 1.
      confidence: the least probability with which the interval covers the true value.

    Returns:
      Lower and upper end of the interval.

    Raises:
      ValueError: the successes are outside 0 .. trials, there are no trials, or the confidence is
        outside (0, 1).
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(
            f"need 0 <= successes <= trials and trials >= 1, got {successes} of {trials}"
        )
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be above 0 and below 1, got {confidence}")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else betaincinv(successes, trials - successes + 1, tail)
    high = 1.0 if successes == trials else betaincinv(successes + 1, trials - successes, 1.0 - tail)
    return float(low), float(high)


def _probability(**named: float) -> None:
    for name, value in named.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must be a probability in [0, 1], got {value}")
