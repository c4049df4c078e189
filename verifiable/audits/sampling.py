"""Audits: which receipts are drawn, and how likely a draw misses all bad ones.

Drawn without replacement, u audits of N receipts of which b are bad miss all of them with
probability

    C(N - b, u) / C(N, u)                                                    (hypergeometric)

The draw is a function of a seed that is unknown until the receipts are committed: the epoch's
public challenge. Any holder of the seed can recompute the draw, and check that every receipt drawn
was audited. A draw of u + 1 begins with the draw of u, so an audit can be extended, or stopped
early by a sequential test, without a new draw.

The probability of a rare event is computed as the sum of its own tail, never as one minus the other
tail. Sources: specs/sampling.md.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv

_CONTEXT = "verifiable v1 sampling"


class _Stream:
    """Uniform integers from BLAKE3's extendable output, keyed by a seed and a label."""

    __slots__ = ("_buffer", "_hasher", "_label", "_position", "_read")

    def __init__(self, seed: bytes, label: str):
        if len(seed) != 32:
            raise ValueError(f"a seed has 32 bytes, got {len(seed)}")
        self._hasher = blake3(seed, derive_key_context=_CONTEXT).update(label.encode())
        self._buffer, self._position, self._read = b"", 0, 0

    def words(self, count: int) -> NDArray[np.uint64]:
        """The first `count` words of the stream, uint64."""
        return np.frombuffer(self._hasher.digest(length=8 * count), dtype="<u8")

    def below(self, bound: int) -> int:
        """Uniform in 0 .. bound - 1, without bias: take as many bits as bound - 1 has, or retry."""
        bits = (bound - 1).bit_length()
        size, mask = (bits + 7) // 8, (1 << bits) - 1
        while True:
            if self._position + size > len(self._buffer):
                self._read += self._position
                self._buffer = self._hasher.digest(length=max(4096, size), seek=self._read)
                self._position = 0
            end = self._position + size
            value = int.from_bytes(self._buffer[self._position : end], "little") & mask
            self._position = end
            if value < bound:
                return value


def draw(seed: bytes, population: int, audits: int, *, label: str = "audits") -> tuple[int, ...]:
    """Draw distinct indices uniformly, in random order; a longer draw begins with a shorter one.

    Args:
      seed: 32 bytes that were unknown when the population was fixed.
      population: number of receipts N; indices run from 0 to N - 1.
      audits: how many to draw.
      label: separates draws from one seed, such as one per worker.

    Returns:
      The indices in the order drawn (sparse Fisher-Yates shuffle).

    Raises:
      ValueError: more audits than receipts, a negative number, or a seed of another length.
    """
    if not 0 <= audits <= population:
        raise ValueError(f"cannot draw {audits} of {population}")
    stream = _Stream(seed, f"draw/{label}")
    moved: dict[int, int] = {}
    drawn: list[int] = []
    for place in range(audits):
        chosen = place + stream.below(population - place)
        drawn.append(moved.get(chosen, chosen))
        moved[chosen] = moved.pop(place, place)
    return tuple(drawn)


def draw_each(
    seed: bytes, rates: Sequence[float] | NDArray[np.float64], *, label: str = "audits"
) -> tuple[int, ...]:
    """Draw each receipt independently at its own rate; returns the indices drawn, ascending.

    Receipt i is drawn iff the i-th 64-bit word of the stream is below rates[i] * 2^64, rounded up.

    Raises:
      ValueError: a rate outside [0, 1] or NaN, or a seed of another length.
    """
    wanted = np.asarray(rates, dtype=np.float64)
    if wanted.ndim != 1 or not np.all((wanted >= 0.0) & (wanted <= 1.0)):
        raise ValueError(
            f"rates must be a vector of numbers from 0 to 1, got an array of shape {wanted.shape}"
        )
    certain = wanted == 1.0
    limit = np.ceil(np.ldexp(np.where(certain, 0.0, wanted), 64)).astype(np.uint64)
    words = _Stream(seed, f"each/{label}").words(len(wanted))
    return tuple(np.flatnonzero(certain | (words < limit)).tolist())


def select(
    seed: bytes, weights: Sequence[int], seats: int, *, label: str = "seats"
) -> tuple[int, ...]:
    """Seat distinct identities, each next one with probability proportional to its weight.

    Splitting a weight among sybils leaves its share of a seat as it was; of several seats, sybils
    can win more than the one that an undivided identity is limited to. Exact in integers, so that
    everyone who recomputes the selection finds the same seats.

    Args:
      seed: 32 bytes that were unknown when the weights were fixed.
      weights: a non-negative integer for each identity, such as its stake in the smallest unit.
      seats: how many to select; one identity never holds two.
      label: separates selections from one seed, such as one per job.

    Returns:
      Positions of the identities, in the order selected.

    Raises:
      ValueError: a weight is negative, or fewer than `seats` weights are positive.
    """
    ends: list[int] = []
    total = 0
    for weight in weights:
        if weight < 0:
            raise ValueError(f"a weight cannot be negative, got {weight}")
        total += weight
        ends.append(total)
    if not 0 <= seats <= sum(weight > 0 for weight in weights):
        raise ValueError(f"cannot fill {seats} seats from identities of positive weight")
    stream = _Stream(seed, f"select/{label}")
    chosen: list[int] = []
    taken: list[tuple[int, int]] = []  # (start, weight) of the chosen intervals, ascending
    for _ in range(seats):
        point = stream.below(total - sum(weight for _, weight in taken))
        # The intervals already taken are skipped, which leaves the others as if they were alone.
        for start, weight in taken:
            if point >= start:
                point += weight
        index = bisect_right(ends, point)
        chosen.append(index)
        taken.append((ends[index] - weights[index], weights[index]))
        taken.sort()
    return tuple(chosen)


def _log_miss(population: int, bad: int, audits: int) -> float:
    """ln C(N - b, u) / C(N, u) = sum over i < min(b, u) of ln(1 - max(b, u) / (N - i))."""
    if bad + audits > population:
        return -math.inf
    few, many = min(bad, audits), max(bad, audits)
    return float(np.log1p(-many / (population - np.arange(few))).sum())


def _log_hypergeometric(population: int, bad: int, audits: int) -> tuple[int, NDArray[np.float64]]:
    """The least possible number of bad ones drawn, and ln P(X = j) from there on."""
    if not (0 <= bad <= population and 0 <= audits <= population):
        raise ValueError(f"cannot draw {audits} of {population} receipts of which {bad} are bad")
    least, most = max(0, bad + audits - population), min(bad, audits)
    # With more bad receipts than are left out, the least case is that only bad ones are left out.
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
      bad: how many of them are bad.
      audits: how many are drawn, without replacement.
      detection: probability d that the audit of a bad receipt fails.

    Raises:
      ValueError: a count outside 0 .. N, or a detection outside [0, 1].
    """
    _probability(detection=detection)
    if detection == 1.0 and 0 <= bad <= population and 0 <= audits <= population:
        return math.exp(_log_miss(population, bad, audits))
    least, logs = _log_hypergeometric(population, bad, audits)
    if detection == 1.0:
        return math.exp(logs[0]) if least == 0 else 0.0
    found = np.arange(least, least + len(logs))
    return min(1.0, math.fsum(np.exp(logs + found * math.log1p(-detection))))


def audits_needed(population: int, bad: int, error: float, *, detection: float = 1.0) -> int:
    """The fewest audits that miss all bad receipts with probability at most `error`.

    Args:
      population: number of receipts N.
      bad: how many of them are bad.
      error: bound on the probability that no audit fails.
      detection: probability d that the audit of a bad receipt fails.

    Raises:
      ValueError: no number of audits reaches it, or an argument is out of range.
    """
    _probability(error=error)
    if miss_probability(population, bad, population, detection=detection) > error:
        raise ValueError(
            f"even auditing all {population} receipts misses {bad} bad ones with probability "
            f"above {error}: detection is {detection}"
        )
    low, high = 0, population
    while low < high:
        middle = (low + high) // 2
        if miss_probability(population, bad, middle, detection=detection) <= error:
            high = middle
        else:
            low = middle + 1
    return low


def hypergeometric_tail(population: int, bad: int, size: int, threshold: int) -> float:
    """P(X >= threshold), X the number of bad members in a sample without replacement.

    Args:
      population: number of members N.
      bad: how many of them are bad.
      size: number drawn.
      threshold: number of bad ones drawn.

    Raises:
      ValueError: a count outside 0 .. N.
    """
    least, logs = _log_hypergeometric(population, bad, size)
    if threshold <= least:
        return 1.0
    return min(1.0, math.fsum(np.exp(logs[threshold - least :])))


def binomial_tail(trials: int, probability: float, threshold: int) -> float:
    """P(X >= threshold) for X binomial; the regularised incomplete beta function.

    Raises:
      ValueError: a probability outside [0, 1], or a negative number of trials.
    """
    _probability(probability=probability)
    if trials < 0:
        raise ValueError(f"trials cannot be negative, got {trials}")
    if threshold <= 0:
        return 1.0
    if threshold > trials:
        return 0.0
    return float(betainc(threshold, trials - threshold + 1, probability))


def clopper_pearson(
    successes: int, trials: int, *, confidence: float = 0.99
) -> tuple[float, float]:
    """Exact two-sided interval for a probability that was measured.

    Raises:
      ValueError: successes outside 0 .. trials, no trials, or a confidence outside (0, 1).
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"cannot have {successes} successes in {trials} trials")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"a confidence is above 0 and below 1, got {confidence}")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else betaincinv(successes, trials - successes + 1, tail)
    high = 1.0 if successes == trials else betaincinv(successes + 1, trials - successes, 1.0 - tail)
    return float(low), float(high)


class Finding(Enum):
    """What a sequential test has found."""

    HONEST = "honest"
    CHEATING = "cheating"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sprt:
    """Wald's sequential probability ratio test of a worker's failure rate.

    It ends as soon as the log-likelihood ratio leaves (ln(beta / (1 - alpha)), ln((1 - beta) /
    alpha)). Wald's guarantee: alpha' <= alpha / (1 - beta), beta' <= beta / (1 - alpha) and
    alpha' + beta' <= alpha + beta for the error rates that result.

    A finding schedules or ends audits. It is not evidence: only a recomputation convicts.

    Attributes:
      honest: failure rate of an honest worker, as measured.
      cheating: failure rate that must be found.
      alpha: probability of finding an honest worker cheating.
      beta: probability of finding a cheating worker honest.
    """

    honest: float
    cheating: float
    alpha: float
    beta: float

    def __post_init__(self) -> None:
        """Refuse rates that the test cannot separate."""
        if not 0.0 < self.honest < self.cheating < 1.0:
            raise ValueError(f"need 0 < honest < cheating < 1, got {self.honest}, {self.cheating}")
        if not (self.alpha > 0.0 and self.beta > 0.0 and self.alpha + self.beta < 1.0):
            raise ValueError(f"need alpha, beta > 0, sum below 1, got {self.alpha}, {self.beta}")

    @property
    def bounds(self) -> tuple[float, float]:
        """The log-likelihood ratios at which the test ends."""
        return (
            math.log(self.beta) - math.log1p(-self.alpha),
            math.log1p(-self.beta) - math.log(self.alpha),
        )

    @property
    def steps(self) -> tuple[float, float]:
        """What a pass and a failure add to the log-likelihood ratio."""
        return (
            math.log1p(-self.cheating) - math.log1p(-self.honest),
            math.log(self.cheating) - math.log(self.honest),
        )

    def finding(self, *, passes: int, failures: int) -> Finding:
        """Judge the audits so far; once it is not OPEN, no further audit may be counted.

        Raises:
          ValueError: a negative count.
        """
        if passes < 0 or failures < 0:
            raise ValueError(f"counts cannot be negative, got {passes} and {failures}")
        low, high = self.bounds
        on_pass, on_failure = self.steps
        ratio = passes * on_pass + failures * on_failure
        if ratio >= high:
            return Finding.CHEATING
        return Finding.HONEST if ratio <= low else Finding.OPEN

    def expected_audits(self, *, cheating: bool) -> float:
        """Wald's approximation (overshoot neglected) of how many audits the test takes."""
        low, high = self.bounds
        on_pass, on_failure = self.steps
        rate = self.cheating if cheating else self.honest
        ends_high = 1.0 - self.beta if cheating else self.alpha
        drift = rate * on_failure + (1.0 - rate) * on_pass
        return (ends_high * high + (1.0 - ends_high) * low) / drift


def _probability(**named: float) -> None:
    for name, value in named.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} is a probability, got {value}")
