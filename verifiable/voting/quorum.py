"""How many ballots to ask for, and when they are enough: the policy interface, and counting.

Every policy assumes that each ballot is bad with probability at most f < 1/2 given those before
it, f being the bad fraction *among those who answer* (`bad_among_answers`). The worst case is
assumed throughout: bad workers collude on one wrong answer, and honest ones may scatter. A policy
only decides whether there is enough; which value wins is the one rule of `voting`, and that rule
needs a strict majority of the ballots requested, whatever the policy.

    FixedSize      k at once, quorum m         P(wrong) <= P(Binomial(k, f) >= m)
    FirstToMatch   until M agree               P(wrong) <= P(Binomial(2M - 1, f) >= M)
    Sequential     until ahead by d (SPRT)     P(wrong) <= (f / (1 - f))^d

Wrong means: within tolerance of no honest value. For that the canonical value's whole support must
be bad, and these are the probabilities that so many bad ballots meet. Policies that look at who
voted, and not only at how many, are in `reputation`. Derivations and sources: specs/voting.md.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np


def bad_among_answers(
    bad: float, *, honest_availability: float, bad_availability: float = 1.0
) -> float:
    """The bad fraction among ballots that arrive: f b / (f b + (1 - f) h).

    Args:
      bad: bad fraction f of the registered identities (by the weight they are selected with).
      honest_availability: probability h that an honest worker answers in time.
      bad_availability: the same of a bad one, b.

    Raises:
      ValueError: an argument is not a probability, or nobody answers.
    """
    for value in (bad, honest_availability, bad_availability):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"availability and bad fraction are probabilities, got {value}")
    bad_answers = bad * bad_availability
    answers = bad_answers + (1.0 - bad) * honest_availability
    if answers == 0.0:
        raise ValueError("nobody answers")
    return bad_answers / answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Assurance:
    """What a policy promises, and on what assumption.

    Attributes:
      bad: assumed bad fraction among those who answer.
      error: bound on the probability that what is accepted is within tolerance of no honest value.
      error_if_colluding: the same where bad workers collude and earn trust before they spend it.
      runs: expected runs per job where every bad worker always cheats, audits included at their
        price in runs.
      undecided: probability that the policy ends without a decision, on the same assumption.
      assumes: what `error` assumes, in words.
    """

    bad: float
    error: float
    error_if_colluding: float
    runs: float
    undecided: float
    assumes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the coordinator knows of one identity; losing a check sets it back to a newcomer's.

    Attributes:
      passed: checks passed since the last one lost: audits that nobody could foresee, or accepted
        votes. What a worker was never at risk of losing is not counted.
      cleared: the window that holds this ballot has closed, with at least the policy's number of
        audits, and every audit in it passed.
    """

    passed: int = 0
    cleared: bool = False

    def __post_init__(self) -> None:
        """Refuse a negative count."""
        if self.passed < 0:
            raise ValueError(f"checks passed cannot be negative, got {self.passed}")


NEWCOMER = Standing()


class Poll(NamedTuple):
    """One candidate value's share of the ballots.

    Attributes:
      requested: ballots requested so far, those that never came included.
      supporters: standings of those whose ballots agree with the value.
      others: standings of those whose ballots do not, malformed ones included.
    """

    requested: int
    supporters: Sequence[Standing]
    others: Sequence[Standing]


class RulingReason(Enum):
    """Why a ruling is what it is; the values are stable."""

    AGREED = "agreed"
    UNDECIDED = "more-ballots-needed"
    EXHAUSTED = "ballots-exhausted"
    AUDIT = "audit-pending"


class Ruling(NamedTuple):
    """Whether a value has enough support.

    Attributes:
      reason: AGREED, or why not.
      more: ballots that would settle it if all agreed with the value; 0 where none are needed.
      seats: how many of those are yet to be requested.
    """

    reason: RulingReason
    more: int = 0
    seats: int = 0


class QuorumPolicy(ABC):
    """When there are enough ballots."""

    __slots__ = ()

    assurance: Assurance

    @abstractmethod
    def first(self, candidates: Sequence[Standing] = ()) -> int:
        """How many ballots to request at first.

        Args:
          candidates: standings of the identities drawn for the job, in the order drawn. They must
            have been drawn before their standings were looked at.
        """

    @abstractmethod
    def rule(self, poll: Poll) -> Ruling:
        """Whether the candidate's support is enough, and if not, what would be.

        Raises:
          ValueError: more ballots were requested than the policy's bound covers.
        """


class _Counting(QuorumPolicy):
    """A policy that looks at numbers only: at how many agree, of how many requested."""

    __slots__ = ()

    limit: int

    @property
    @abstractmethod
    def opening(self) -> int:
        """How many ballots are requested at first."""

    @abstractmethod
    def threshold(self, requested: int) -> int:
        """How many must agree; more than half, and non-decreasing in `requested`."""

    def first(self, candidates: Sequence[Standing] = ()) -> int:
        """The same for whatever workers."""
        del candidates
        return self.opening

    def rule(self, poll: Poll) -> Ruling:
        """Compare the number of supporters with the threshold."""
        requested, support = poll.requested, len(poll.supporters)
        require_covered(requested, self.limit)
        if support >= self.threshold(requested):
            return Ruling(RulingReason.AGREED)
        received = support + len(poll.others)
        more = max(1, self.threshold(requested) - support)
        while support + more < self.threshold(max(requested, received + more)):
            more += 1
        return ask_for(requested, received, more, self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedSize(_Counting):
    """Request `size` ballots at once; `quorum` must agree.

    Attributes:
      bad: assumed bad fraction among those who answer.
      size: ballots requested at first.
      quorum: how many must agree, more than half; a strict majority where not given.
      limit: how far an undecided vote may grow, its majority growing with it; `size` if not given.
        Every further look is one more chance to be wrong, and the bound includes them all.
    """

    bad: float
    size: int
    quorum: int = 0
    limit: int = 0
    assurance: Assurance = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Fill in what was not given; refuse a quorum that is no majority."""
        _set(self, quorum=self.quorum or self.size // 2 + 1, limit=self.limit or self.size)
        if not self.size // 2 < self.quorum <= self.size:
            raise ValueError(f"a quorum of {self.size} is a strict majority, got {self.quorum}")
        _set(self, assurance=_counted(self))

    @property
    def opening(self) -> int:
        """All of them."""
        return self.size

    def threshold(self, requested: int) -> int:
        """The quorum, or the strict majority of a larger number."""
        return max(self.quorum, requested // 2 + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstToMatch(_Counting):
    """Request as many as could still settle it, until `matches` agree (M-first voting).

    Attributes:
      bad: assumed bad fraction among those who answer.
      matches: M, how many must agree.
      limit: how far a vote split three ways may grow; 2M - 1, where M is a strict majority, if not
        given. Beyond that the majority grows, and the bound includes every look.
    """

    bad: float
    matches: int
    limit: int = 0
    assurance: Assurance = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Fill in the limit."""
        if self.matches < 1:
            raise ValueError(f"at least one ballot must be requested, got {self.matches}")
        _set(self, limit=self.limit or 2 * self.matches - 1)
        _set(self, assurance=_counted(self))

    @property
    def opening(self) -> int:
        """The fewest that could settle it."""
        return self.matches

    def threshold(self, requested: int) -> int:
        """M, or the strict majority of more than 2M - 1."""
        return max(self.matches, requested // 2 + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequential(_Counting):
    """Request as many as could still settle it, until one value leads all others by a margin.

    With two values this is Wald's sequential probability ratio test of "a ballot for it is right
    with probability 1 - f" against "with probability f". No test of the same error takes fewer
    runs on average (Wald and Wolfowitz 1948). The margin d is the least with
    (f / (1 - f))^d <= error; d / (1 - 2 f) runs are expected at most.

    Attributes:
      bad: assumed bad fraction among those who answer.
      error: bound on the probability of accepting a wrong value.
      limit: the most ballots that may be requested.
    """

    bad: float
    error: float
    limit: int = 500
    margin: int = field(init=False, compare=False)
    assurance: Assurance = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the margin."""
        require_minority(self.bad)
        if not 0.0 < self.error < 1.0:
            raise ValueError(f"an error is above 0 and below 1, got {self.error}")
        odds = self.bad / (1.0 - self.bad)
        margin = max(1, math.ceil(math.log(self.error) / math.log(odds)))
        # The logarithms may have rounded across an integer.
        margin += odds**margin > self.error
        margin -= margin > 1 and odds ** (margin - 1) <= self.error
        _set(self, margin=margin)
        _set(self, assurance=_counted(self))

    @property
    def opening(self) -> int:
        """The fewest that could settle it."""
        return self.margin

    def threshold(self, requested: int) -> int:
        """Ahead of all others together by the margin."""
        return (requested + self.margin + 1) // 2


def _set(policy: QuorumPolicy, **fields: object) -> None:
    for name, value in fields.items():
        object.__setattr__(policy, name, value)


def require_minority(bad: float) -> None:
    """Refuse a bad fraction against which no vote helps (ValueError)."""
    if not 0.0 < bad < 0.5:
        raise ValueError(
            f"a vote assumes a bad fraction above 0 and below 1/2 among those who answer, got {bad}"
        )


def require_covered(requested: int, limit: int) -> None:
    """Refuse more ballots than a bound accounts for (ValueError)."""
    if not 1 <= requested <= limit:
        raise ValueError(f"the bound covers 1 to {limit} ballots, but {requested} were requested")


def ask_for(requested: int, received: int, more: int, limit: int) -> Ruling:
    """Ask for more ballots, of which outstanding ones count, if the limit allows."""
    total = max(requested, received + more)
    reason = RulingReason.UNDECIDED if total <= limit else RulingReason.EXHAUSTED
    return Ruling(reason, more, total - requested)


def walk(
    bad: float,
    threshold: Callable[[int], int],
    first: int,
    limit: int,
    *,
    opened_by_bad: bool = False,
) -> tuple[float, float, float]:
    """Exact error, expected runs and probability of no decision, ballot by ballot.

    The error is that of the worst case, in which honest ballots never settle it: bad ones reach
    the threshold at any look. Runs and no decision are for honest ballots that agree. Asking for
    no more than could settle it at best ends with the same ballots as asking one at a time.
    `opened_by_bad` is for votes whose first ballot is known to be bad.
    """
    reaching = np.ones(1)  # P(b bad ballots so far, the threshold never reached)
    open_ = np.ones(1)  # P(b bad ballots so far, neither side has reached it)
    error = runs = 0.0
    for n in range(1, limit + 1):
        f = 1.0 if opened_by_bad and n == 1 else bad
        reaching, open_ = (
            np.append(p * (1.0 - f), 0.0) + np.append(0.0, p * f) for p in (reaching, open_)
        )
        if n < first:
            continue
        need = threshold(n)
        error += reaching[need:].sum()
        reaching[need:] = 0.0
        settled = open_[need:].sum() + open_[: max(0, n - need + 1)].sum()
        runs += n * settled
        open_[need:] = open_[: max(0, n - need + 1)] = 0.0
    undecided = float(open_.sum())
    return min(1.0, float(error)), float(runs) + limit * undecided, undecided


def opened_by_bad(policy: QuorumPolicy) -> tuple[float, float]:
    """Error and expected runs of a vote whose first ballot is bad; exact where only counts count.

    Whoever is drawn first decides whether there is a vote at all, so those votes that newcomers
    bring about may nearly all begin with a bad ballot.
    """
    bound = policy.assurance
    if isinstance(policy, _Counting):
        error, runs, _ = walk(
            bound.bad, policy.threshold, policy.opening, policy.limit, opened_by_bad=True
        )
        return error, runs
    # What is left of the whole for the first ballot's share; the others take one run at least.
    error = min(1.0, bound.error_if_colluding / bound.bad)
    return error, (bound.runs - (1.0 - bound.bad)) / bound.bad


def _counted(policy: FixedSize | FirstToMatch | Sequential) -> Assurance:
    require_minority(policy.bad)
    if not 1 <= policy.opening <= policy.limit:
        raise ValueError(
            f"{policy.opening} ballots are requested at first, and {policy.limit} at most"
        )
    error, runs, undecided = walk(policy.bad, policy.threshold, policy.opening, policy.limit)
    return Assurance(
        bad=policy.bad,
        error=error,
        error_if_colluding=error,
        runs=runs,
        undecided=undecided,
        assumes=f"every ballot is bad with probability at most {policy.bad:g}, given those before "
        "it; bad workers may collude, honest ones may scatter",
    )
