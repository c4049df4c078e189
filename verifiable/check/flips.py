"""Flips: decisions that are not the verifier's own, and how many an honest device may have.

The test of a decision lets a device choose what is within the slack of a tie. An honest device does
not choose: its operands are off by far less than the slack, and only where a tie lies in between is
its decision another one. So with n decisions of a claim, each other with probability at most p, the
number of flips exceeds

    limit = the least k with P(Binomial(n, p) > k) <= phi

with probability at most phi. p is `Policy.tie_rate` times the tolerance, since a value is within a
distance d of a tie with a probability of about d over the typical size of its row, and honest
devices are off by a fraction of the tolerance; or, if it is more, what calibration measured.

A program may have many claims of one decision, of which each may be a flip. So all flips of a run
are held together to the same limit, with n all decisions and p their mean probability: of
independent events, as many as in a binomial distribution of the same mean are the most that reach a
number above it (Hoeffding 1956, theorem 4).

Decisions of equal rows flip together, and behind glue that amplifies rounding many do. So more
flips only accuse: a second look counts how many decisions other rounding turns round (`recount`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from verifiable.claims.claim import Claim
from verifiable.policy import Policy

FEW = 8  # replays, after which a clear case ends a second look
CLEAR = 4.0  # spreads beyond the limit
_MOST = 2**31 - 1  # of `bdtrc`; fewer decisions allow for no more flips


def limit(claim: Claim, policy: Policy) -> int:
    """How many decisions of a claim may differ from the verifier's own, over all trips."""
    return _quantile(claim.decisions, policy.tie_rate_of(claim, claim.name), policy.phi)


def total(claims: Sequence[Claim], policy: Policy) -> int:
    """How many decisions of some claims together may differ from the verifier's own."""
    count = sum(c.decisions for c in claims)
    mean = sum(c.decisions * min(policy.tie_rate_of(c, c.name), 1.0) for c in claims)
    return max(_quantile(count, mean / max(count, 1), policy.phi), math.ceil(mean))


def _quantile(n: int, p: float, phi: float) -> int:
    """The least k with P(Binomial(n, p) > k) <= phi."""
    from scipy.special import bdtrc  # noqa: PLC0415 - slow to load

    n = min(n, _MOST)
    if p >= 1:
        return n
    low, high = -1, n  # P(X > high) is zero
    while high - low > 1:
        middle = (low + high) // 2
        if bdtrc(middle, n, p) <= phi:
            high = middle
        else:
            low = middle
    return high


def explained(flips: int, most: int, others: Iterable[float]) -> bool:
    """Whether a number of flips is what other rounding may do.

    Args:
      flips: decisions that differ.
      most: from `limit`.
      others: flips of perturbed replays, in multiples of those at the size of honest rounding.
    """
    spread = 0.0
    for count, changed in enumerate(others, start=1):
        spread = max(spread, changed)
        if flips <= most + spread:
            return True
        # As in `spread.decide`, few replays decide only where they move little.
        if count == FEW and flips > most + CLEAR * spread and spread <= CLEAR * most:
            return False
    return False
