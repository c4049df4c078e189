"""The price of cheating: how large a stake deters, and how large a one honest workers accept.

A cheat gains G (the saved cost, and the reward if it is paid for the wrong answer). It is detected
with probability q d: results are audited at rate q, and each audit convicts the worker of a wrong
result with probability d; a rejection without conviction takes no stake. A worker whose cheat is
detected loses its stake S and the rewards R of all its unsettled results. With at most n results
unsettled on one stake,

    cheating on m of them does not pay    iff  S >= m G / (1 - (1 - q d)^m) - m R,
    honest work on m of them pays         iff  S <= m (R - C) / (1 - (1 - q phi)^m) - m R,

where C is the cost of an honest result and phi the probability that its audit convicts by mistake.
m / (1 - (1 - p)^m) is convex in m: the first is hardest at m = 1 or m = n, and the second is
checked for a worker that keeps all its n seats filled. Both can hold for one result iff
phi / d <= (R - C) / G, for any audit rate. A worker can make many cheats before the first is
settled, so n is a security parameter: cap it (`outstanding_cap`).

Stakes deter workers that care about losing them. They bound no error: against a worker that accepts
the loss, only `voting` and `sampling` do. All amounts are in one unit of the caller's choice.

A worker that learns of its audit before it opens anything (`protocols.audited`) can vanish: no
proof, no stake, but no reward, and its no-show bond D is forfeit. With a the probability that an
honest worker answers an audit, and e = d (1 - rho), where rho is the probability that a cheap
answer is the right one, whose audit then passes,

    cheating and vanishing does not pay  iff  D >= C / (q a e) - R,
    honest work then pays                iff  R >= C (1 + (1 - a) / (a e)),    whatever q;

for e = 1 these are C / (q a) - R and C / a. Derivations: specs/sampling.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Payments and costs of a job, and its audits.

    Attributes:
      gain: G, gain of a cheat by one wrong result.
      reward: R, payment for a result; lost if the result is unsettled when a cheat is detected.
      cost: C, cost of an honest result to its worker.
      audit_rate: q, probability that a result is audited.
      detection: d, probability that the audit of a wrong result convicts.
      false_reject: phi, probability that the audit of an honest result convicts; at most the
        measured probability that it rejects.
      outstanding: n, the most unsettled results on one stake.

    Raises:
      ValueError: an amount is negative or infinite, a probability or n is out of range.
    """

    gain: float
    reward: float
    cost: float
    audit_rate: float
    detection: float = 1.0
    false_reject: float = 0.0
    outstanding: int = 1

    def __post_init__(self) -> None:
        """Require terms within their ranges."""
        for name in ("gain", "reward", "cost"):
            value = getattr(self, name)
            if not (value >= 0.0 and math.isfinite(value)):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        for name in ("audit_rate", "detection"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
        if not 0.0 <= self.false_reject <= 1.0:
            raise ValueError(
                f"false_reject must be a probability in [0, 1], got {self.false_reject}"
            )
        if self.outstanding < 1:
            raise ValueError(f"outstanding must be at least 1, got {self.outstanding}")

    @property
    def least_stake(self) -> float:
        """The smallest stake, at least 0, at which no number of cheats pays; may be infinite."""
        caught = self.audit_rate * self.detection
        if caught == 0.0:  # the product of two tiny probabilities
            return math.inf if self.gain > 0.0 else 0.0
        return max(
            0.0,
            *(
                m * self.gain / _at_least_once(caught, m) - m * self.reward
                for m in (1, self.outstanding)
            ),
        )

    @property
    def greatest_stake(self) -> float:
        """The largest stake at which honest work with n results unsettled still pays.

        Infinite if no honest result is ever rejected; negative if honest work never pays.
        """
        surplus = self.outstanding * (self.reward - self.cost)
        blamed = _at_least_once(self.audit_rate * self.false_reject, self.outstanding)
        if blamed == 0.0:
            return math.inf if surplus >= 0.0 else -math.inf
        return surplus / blamed - self.outstanding * self.reward

    @property
    def workable(self) -> bool:
        """Whether some stake deters cheats and lets honest work pay."""
        return self.least_stake <= self.greatest_stake


@dataclass(frozen=True, slots=True, kw_only=True)
class Vanishing:
    """Payments of a job whose worker can vanish once it knows that it is audited.

    Attributes:
      reward: R, payment for a result that is not audited, or passes.
      cost: C, cost of an honest result, which a cheat saves.
      audit_rate: q, probability that a result is audited.
      answers: a, probability that an honest worker answers an audit in time; a cheat is as
        reliable, where it does answer.
      detection: d, probability that the audit of a wrong result meets what is wrong.
      agreement: rho, probability that a cheap answer is the right one.

    Raises:
      ValueError: an amount is negative or infinite, or a probability is out of range.
    """

    reward: float
    cost: float
    audit_rate: float
    answers: float = 1.0
    detection: float = 1.0
    agreement: float = 0.0

    def __post_init__(self) -> None:
        """Require terms within their ranges."""
        for name in ("reward", "cost"):
            value = getattr(self, name)
            if not (value >= 0.0 and math.isfinite(value)):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        for name in ("audit_rate", "answers", "detection"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
        if not 0.0 <= self.agreement < 1.0:
            raise ValueError(f"agreement must be from 0 to below 1, got {self.agreement}")

    @property
    def met(self) -> float:
        """e = d (1 - rho), the probability that the audit of a cheat would reject it."""
        return self.detection * (1.0 - self.agreement)

    @property
    def least_bond(self) -> float:
        """The smallest bond, at least 0, at which vanishing does not pay; may be infinite."""
        caught = self.audit_rate * self.answers * self.met
        if caught == 0.0:  # the product of tiny probabilities
            return math.inf if self.cost > 0.0 else 0.0
        return max(0.0, self.cost / caught - self.reward)

    @property
    def least_reward(self) -> float:
        """The smallest reward at which honest work pays under the least bond; may be infinite."""
        answered = self.answers * self.met
        if answered == 0.0:
            return math.inf if self.cost > 0.0 and self.answers < 1.0 else self.cost
        return self.cost * (1.0 + (1.0 - self.answers) / answered)

    def honest_profit(self, bond: float) -> float:
        """Expected profit of an honest result: an audit that it does not answer costs the bond."""
        missed = self.audit_rate * (1.0 - self.answers)
        return self.reward * (1.0 - missed) - self.cost - bond * missed

    def cheat_profit(self, bond: float) -> float:
        """Expected profit of a cheat that costs nothing, and vanishes where it would be met."""
        missed = self.audit_rate * (1.0 - self.answers * (1.0 - self.met))
        return self.reward * (1.0 - missed) - bond * missed


def outstanding_cap(
    stake: float, *, gain: float, reward: float, audit_rate: float, detection: float = 1.0
) -> int:
    """The most unsettled results among which no number of cheats pays.

    Args:
      stake: S, amount that a worker loses if a cheat is detected.
      gain: G, gain of a cheat by one wrong result.
      reward: R, payment for a result.
      audit_rate: q, probability that a result is audited.
      detection: d, probability that the audit of a wrong result convicts.

    Returns:
      At most 2^53; 0 if a single cheat pays already.

    Raises:
      ValueError: an argument is out of range.
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
