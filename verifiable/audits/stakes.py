"""The price of cheating: the least stake that deters, and the largest that honest workers accept.

A cheat gains G (saved cost, and the reward where it is paid for the wrong answer), and is detected
with probability q d: it is audited at rate q, and its audit fails with probability d. A worker
whose cheat is detected loses the stake S and the rewards R of all its unsettled results. With at
most n results unsettled on one stake,

    cheating on m of them does not pay    iff  S >= m G / (1 - (1 - q d)^m) - m R,
    honest work on m of them pays         iff  S <= m (R - C) / (1 - (1 - q phi)^m) - m R,

where C is the cost of an honest result and phi the probability that its audit fails by mistake.
m / (1 - (1 - p)^m) is convex in m: the first is hardest at m = 1 or m = n, and the second is
checked for a worker that keeps n results unsettled. Both can hold for one result iff
phi / d <= (R - C) / G, whatever the audit rate. A worker can cheat many times before its first
cheat is settled, so n is a security parameter: cap it (`outstanding_cap`).

Deterrence works only on workers that avoid losing a stake, and bounds no error; against other
workers, only votes (`voting`) and audits (`sampling`) do. Amounts are in any one unit. Derivations:
specs/sampling.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a job pays and costs, and how it is audited.

    Attributes:
      gain: what a cheat gains by one wrong result, G.
      reward: what a result is paid, R; forfeited where it is unsettled when its worker is caught.
      cost: what an honest result costs its worker, C.
      audit_rate: probability that a result is audited, q.
      detection: probability that the audit of a wrong result fails, d.
      false_reject: probability that the audit of an honest result fails, phi, as measured.
      outstanding: the most unsettled results on one stake, n.
    """

    gain: float
    reward: float
    cost: float
    audit_rate: float
    detection: float = 1.0
    false_reject: float = 0.0
    outstanding: int = 1

    def __post_init__(self) -> None:
        """Refuse terms outside their ranges."""
        for name in ("gain", "reward", "cost"):
            value = getattr(self, name)
            if not (value >= 0.0 and math.isfinite(value)):
                raise ValueError(f"{name} is a finite amount, not negative, got {value}")
        for name in ("audit_rate", "detection"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is above 0 and at most 1, got {getattr(self, name)}")
        if not 0.0 <= self.false_reject <= 1.0:
            raise ValueError(f"false_reject is a probability, got {self.false_reject}")
        if self.outstanding < 1:
            raise ValueError(f"outstanding is at least 1, got {self.outstanding}")

    @property
    def least_stake(self) -> float:
        """The smallest stake, at least 0, with which no number of cheats pays."""
        caught = self.audit_rate * self.detection
        return max(
            0.0,
            *(
                m * self.gain / _at_least_once(caught, m) - m * self.reward
                for m in (1, self.outstanding)
            ),
        )

    @property
    def greatest_stake(self) -> float:
        """The largest stake at which honest work with n unsettled results still pays.

        Infinite where no honest result is ever rejected; negative where honest work never pays.
        """
        surplus = self.outstanding * (self.reward - self.cost)
        blamed = _at_least_once(self.audit_rate * self.false_reject, self.outstanding)
        if blamed == 0.0:
            return math.inf if surplus >= 0.0 else -math.inf
        return surplus / blamed - self.outstanding * self.reward

    @property
    def workable(self) -> bool:
        """Whether some stake deters cheats and is accepted by honest workers."""
        return self.least_stake <= self.greatest_stake


def outstanding_cap(
    stake: float, *, gain: float, reward: float, audit_rate: float, detection: float = 1.0
) -> int:
    """The most unsettled results that a stake covers, so that no number of cheats among them pays.

    Returns:
      0 where a single cheat pays already. At most 2^53.

    Raises:
      ValueError: an argument outside its range.
    """

    def covers(outstanding: int) -> bool:
        terms = Terms(
            gain=gain,
            reward=reward,
            cost=0.0,
            audit_rate=audit_rate,
            detection=detection,
            outstanding=outstanding,
        )
        return terms.least_stake <= stake

    # least_stake is non-decreasing in n (the greatest over more m), so bisection finds the cap.
    if not covers(1):
        return 0
    low, high = 1, 2
    while high < 2**53 and covers(high):
        low, high = high, 2 * high
    if high >= 2**53:
        return 2**53
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if covers(middle) else (low, middle)
    return low


def _at_least_once(probability: float, times: int) -> float:
    """1 - (1 - p)^m, to full precision for small p."""
    if probability == 1.0:
        return 1.0
    return -math.expm1(times * math.log1p(-probability))
