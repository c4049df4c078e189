"""A sequential test of one worker: audit until its failure rate is shown honest or cheating.

After each audit the log-likelihood ratio of the rates p1 (cheating) and p0 (honest) grows by
ln(p1 / p0) for a failure and by ln((1 - p1) / (1 - p0)) for a pass. The test ends when the ratio
leaves an interval that the two error rates determine. Specification: specs/sampling.md, 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum


class Finding(Enum):
    """Result of a sequential test so far."""

    HONEST = "honest"
    CHEATING = "cheating"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sprt:
    """Wald's sequential probability ratio test of a worker's failure rate.

    It ends as soon as the log-likelihood ratio leaves (ln(beta / (1 - alpha)), ln((1 - beta) /
    alpha)). Wald's guarantee: alpha' <= alpha / (1 - beta), beta' <= beta / (1 - alpha) and
    alpha' + beta' <= alpha + beta for the error rates that result.

    A finding schedules or ends audits. It is never evidence: only a recomputation is.

    Attributes:
      honest: failure rate of an honest worker, as measured.
      cheating: failure rate that the test must detect.
      alpha: probability of finding an honest worker cheating.
      beta: probability of finding a cheating worker honest.

    Raises:
      ValueError: not 0 < honest < cheating < 1, or alpha and beta are not positive with a sum
        below 1.

    Source: Wald, Ann. Math. Stat. 16, 1945.
    """

    honest: float
    cheating: float
    alpha: float
    beta: float

    def __post_init__(self) -> None:
        """Require rates that the test can separate."""
        if not 0.0 < self.honest < self.cheating < 1.0:
            raise ValueError(
                f"need 0 < honest < cheating < 1, got {self.honest} and {self.cheating}"
            )
        if not (self.alpha > 0.0 and self.beta > 0.0 and self.alpha + self.beta < 1.0):
            raise ValueError(
                f"need alpha > 0, beta > 0 and alpha + beta < 1, got {self.alpha} and {self.beta}"
            )

    @property
    def bounds(self) -> tuple[float, float]:
        """The log-likelihood ratios at which the test ends."""
        return (
            math.log(self.beta) - math.log1p(-self.alpha),
            math.log1p(-self.beta) - math.log(self.alpha),
        )

    @property
    def steps(self) -> tuple[float, float]:
        """Increments of the log-likelihood ratio: for a pass, and for a failure."""
        return (
            math.log1p(-self.cheating) - math.log1p(-self.honest),
            math.log(self.cheating) - math.log(self.honest),
        )

    def finding(self, *, passes: int, failures: int) -> Finding:
        """Finding after these audits; once it is not OPEN, no further audit may be counted.

        Args:
          passes: number of audits that passed.
          failures: number of audits that failed.

        Raises:
          ValueError: a count is negative.
        """
        if passes < 0 or failures < 0:
            raise ValueError(f"counts must not be negative, got {passes} and {failures}")
        low, high = self.bounds
        on_pass, on_failure = self.steps
        ratio = passes * on_pass + failures * on_failure
        if ratio >= high:
            return Finding.CHEATING
        return Finding.HONEST if ratio <= low else Finding.OPEN

    def expected_audits(self, *, cheating: bool) -> float:
        """Expected number of audits, by Wald's approximation, which neglects the overshoot.

        Args:
          cheating: whether the worker fails at the rate `cheating` rather than `honest`.
        """
        low, high = self.bounds
        on_pass, on_failure = self.steps
        rate = self.cheating if cheating else self.honest
        ends_high = 1.0 - self.beta if cheating else self.alpha
        drift = rate * on_failure + (1.0 - rate) * on_pass
        return (ends_high * high + (1.0 - ends_high) * low) / drift
