"""Guarantees of a policy: its error and cost, computed exactly under the assumption on bad workers.

Assumption A(f): each ballot is bad with probability at most f < 1/2 given those before it, f being
the bad fraction *among those who answer*. With a registered bad fraction F, which answers with
probability b, and honest workers that answer with probability h,

    f = F b / (F b + (1 - F) h).

For a policy that counts, `walk` follows the number of bad ballots from one ballot to the next.
Derivations: specs/voting.md, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Assurance:
    """Guarantee of a policy, and the assumption that it rests on.

    Attributes:
      bad: assumed bad fraction among those who answer.
      error: upper bound on the probability that the accepted value is within tolerance of no
        honest value.
      error_if_colluding: the same bound if bad workers collude and earn trust before they cheat.
      runs: expected runs per job if every bad worker always cheats; audits are included, converted
        to runs by their cost.
      undecided: probability that the policy ends without a decision, on the same assumption.
      assumes: the assumption of `error`, in words.
    """

    bad: float
    error: float
    error_if_colluding: float
    runs: float
    undecided: float
    assumes: str


def bad_among_answers(
    bad: float, *, honest_availability: float, bad_availability: float = 1.0
) -> float:
    """The bad fraction among ballots that arrive: f b / (f b + (1 - f) h).

    Args:
      bad: bad fraction f of the registered identities (by the weight they are selected with).
      honest_availability: probability h that an honest worker answers in time.
      bad_availability: probability b that a bad worker answers in time.

    Raises:
      ValueError: an argument is not a probability, or no worker answers.
    """
    for value in (bad, honest_availability, bad_availability):
        if not 0.0 <= value <= 1.0:
            raise ValueError(
                f"availability and bad fraction must be probabilities in [0, 1], got {value}"
            )
    bad_answers = bad * bad_availability
    answers = bad_answers + (1.0 - bad) * honest_availability
    if answers == 0.0:
        raise ValueError("no worker answers: the fraction of bad answers is undefined")
    return bad_answers / answers


def require_minority(bad: float) -> None:
    """Raise ValueError for a bad fraction against which no vote helps."""
    if not 0.0 < bad < 0.5:
        raise ValueError(
            f"bad must be above 0 and below 1/2: a vote assumes an honest majority, got {bad}"
        )


def require_covered(requested: int, limit: int) -> None:
    """Raise ValueError for more ballots than a policy's bound covers."""
    if not 1 <= requested <= limit:
        raise ValueError(f"the bound covers 1 to {limit} ballots, but {requested} were requested")


def walk(
    bad: float,
    threshold: Callable[[int], int],
    first: int,
    limit: int,
    *,
    opened_by_bad: bool = False,
) -> tuple[float, float, float]:
    """Exact error, expected runs and probability of no decision, ballot by ballot.

    The error is the worst case: honest ballots never settle the vote, and bad ones reach the
    threshold at any look. Runs and no decision assume honest ballots that agree. Requesting at
    most the ballots that could settle the vote gives the same result as requesting one at a time.

    Args:
      bad: probability that a ballot is bad, given those before it.
      threshold: number that must agree, by number requested, and at most one more than it.
      first: number of ballots requested at first.
      limit: the most ballots that may be requested.
      opened_by_bad: whether the first ballot is known to be bad.

    Returns:
      Error, expected runs, and probability of no decision.
    """
    # P(b bad ballots so far, the threshold never reached), and P(neither side has reached it).
    reaching = open_ = np.ones(1)
    error = runs = 0.0
    for n in range(1, limit + 1):
        f = 1.0 if opened_by_bad and n == 1 else bad
        reaching, open_ = (np.convolve(states, (1.0 - f, f)) for states in (reaching, open_))
        if n < first:
            continue
        need = threshold(n)
        error += reaching[need:].sum()
        reaching[need:] = 0.0
        settled = open_[need:].sum() + open_[: n - need + 1].sum()
        runs += n * settled
        open_[need:] = open_[: n - need + 1] = 0.0
    undecided = min(1.0, float(open_.sum()))
    return float(error), float(runs) + limit * undecided, undecided
