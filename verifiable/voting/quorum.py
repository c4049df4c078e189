"""How many ballots to ask for, and when they are enough: the policy interface, and counting.

Every policy assumes that each ballot is bad with probability at most f < 1/2 given those before
it, f being the bad fraction *among those who answer* (`bad_among_answers`). The worst case is
assumed throughout: bad workers collude on one wrong answer, and honest ones may scatter. A policy
only decides whether there is enough; which value wins is the one rule of `decide`, and that rule
needs a strict majority of the ballots requested, whatever the policy.

    FixedSize      k at once, quorum m         P(wrong) <= P(Binomial(k, f) >= m)
    FirstToMatch   until M agree               P(wrong) <= P(Binomial(2M - 1, f) >= M)
    Sequential     until ahead by d (SPRT)     P(wrong) <= (f / (1 - f))^d

Wrong means: within tolerance of no honest value. For that the canonical value's whole support must
be bad, and these are the probabilities that so many bad ballots meet. Policies that look at who
voted, and not only at how many, are in `trust`. Derivations and sources: specs/voting.md.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from verifiable.voting.assurance import Assurance, require_covered, require_minority, walk


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The coordinator's record of one identity; a lost check resets it to a newcomer's.

    Attributes:
      passed: checks passed since the last one lost: unforeseeable audits, or accepted votes. Only
        checks that the worker could have lost count.
      cleared: true if the window with this ballot has closed with at least the policy's number of
        audits, and every audit in it passed.
    """

    passed: int = 0
    cleared: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a negative count."""
        if self.passed < 0:
            raise ValueError(f"passed must not be negative, got {self.passed}")


NEWCOMER = Standing()
"""Standing of an identity without a record."""


class Poll(NamedTuple):
    """The ballots for and against one candidate value.

    Attributes:
      requested: number of ballots requested so far, answered or not.
      supporters: standings of the workers whose ballots agree with the value.
      others: standings of all other workers that answered, with malformed ballots included.
    """

    requested: int
    supporters: Sequence[Standing]
    others: Sequence[Standing]


class RulingReason(Enum):
    """Reason of a ruling, as a stable code."""

    AGREED = "agreed"
    UNDECIDED = "more-ballots-needed"
    EXHAUSTED = "ballots-exhausted"
    AUDIT = "audit-pending"


class Ruling(NamedTuple):
    """Whether a value has enough support.

    Attributes:
      reason: AGREED, or the reason why the support is not enough.
      more: ballots that would settle the vote if all agreed with the value; 0 if none are needed.
      seats: how many of these must still be requested.
    """

    reason: RulingReason
    more: int = 0
    seats: int = 0


class QuorumPolicy(ABC):
    """Decides how many ballots to request, and when a value has enough support.

    Attributes:
      assurance: bounds on error and cost, and the assumption that they rest on.
    """

    __slots__ = ()

    assurance: Assurance

    @abstractmethod
    def first(self, candidates: Sequence[Standing] = ()) -> int:
        """Number of ballots to request at first.

        Args:
          candidates: standings of the identities drawn for the job, in the order drawn. The
            identities must be drawn without regard to their standings.
        """

    @abstractmethod
    def rule(self, poll: Poll) -> Ruling:
        """Whether a candidate's support is enough, and if not, how many ballots are missing.

        Args:
          poll: the ballots for and against the candidate.

        Raises:
          ValueError: more ballots were requested than the policy's bound covers.
        """


class _Counting(QuorumPolicy):
    """A policy that uses two numbers only: ballots that agree, and ballots requested."""

    __slots__ = ()

    limit: int

    @property
    @abstractmethod
    def opening(self) -> int:
        """Number of ballots requested at first."""

    @abstractmethod
    def threshold(self, requested: int) -> int:
        """Number that must agree: more than half, and non-decreasing in `requested`."""

    def first(self, candidates: Sequence[Standing] = ()) -> int:
        """The same number for all workers."""
        del candidates
        return self.opening

    def rule(self, poll: Poll) -> Ruling:
        """Compare the number of supporters with the threshold."""
        requested, support = poll.requested, len(poll.supporters)
        require_covered(requested, self.limit)
        if support >= self.threshold(requested):
            return Ruling(RulingReason.AGREED)
        received = support + len(poll.others)
        more = self.threshold(requested) - support
        while support + more < self.threshold(max(requested, received + more)):
            more += 1
        return ask_for(requested, received, more, self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedSize(_Counting):
    """Request `size` ballots at once; `quorum` must agree.

    Attributes:
      bad: assumed bad fraction among those who answer.
      size: number of ballots requested at first.
      quorum: number that must agree, more than half; a strict majority if 0.
      limit: the most ballots that an undecided vote may grow to, the majority growing with it;
        `size` if 0. Every further look is another chance to be wrong, which the bound includes.
      assurance: bounds on error and cost, computed exactly.
    """

    bad: float
    size: int
    quorum: int = 0
    limit: int = 0
    assurance: Assurance = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Fill in the defaults; raise ValueError for a quorum that is no strict majority."""
        _set(self, quorum=self.quorum or self.size // 2 + 1, limit=self.limit or self.size)
        if not self.size // 2 < self.quorum <= self.size:
            raise ValueError(
                f"quorum must be a strict majority of {self.size} ballots, got {self.quorum}"
            )
        _set(self, assurance=_counted(self))

    @property
    def opening(self) -> int:
        """All ballots."""
        return self.size

    def threshold(self, requested: int) -> int:
        """The quorum, or the strict majority of a larger number."""
        return max(self.quorum, requested // 2 + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstToMatch(_Counting):
    """Request as many as could still settle it, until `matches` agree (M-first voting).

    Attributes:
      bad: assumed bad fraction among those who answer.
      matches: M, the number that must agree.
      limit: the most ballots that a vote split three ways may grow to; 2M - 1, of which M is a
        strict majority, if 0. Above that the majority grows, and the bound includes every look.
      assurance: bounds on error and cost, computed exactly.
    """

    bad: float
    matches: int
    limit: int = 0
    assurance: Assurance = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Fill in the limit; raise ValueError for a number out of range."""
        if self.matches < 1:
            raise ValueError(f"matches must be at least 1, got {self.matches}")
        _set(self, limit=self.limit or 2 * self.matches - 1)
        _set(self, assurance=_counted(self))

    @property
    def opening(self) -> int:
        """The fewest ballots that could settle the vote."""
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
      margin: d, the lead that decides.
      assurance: bounds on error and cost, computed exactly.
    """

    bad: float
    error: float
    limit: int = 500
    margin: int = field(init=False)
    assurance: Assurance = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Find the margin; raise ValueError for an argument out of range."""
        require_minority(self.bad)
        if not 0.0 < self.error < 1.0:
            raise ValueError(f"error must be above 0 and below 1, got {self.error}")
        odds = self.bad / (1.0 - self.bad)
        margin = math.ceil(math.log(self.error) / math.log(odds))
        # The logarithms may have been rounded across an integer.
        margin += odds**margin > self.error
        margin -= odds ** (margin - 1) <= self.error
        _set(self, margin=margin)
        _set(self, assurance=_counted(self))

    @property
    def opening(self) -> int:
        """The fewest ballots that could settle the vote."""
        return self.margin

    def threshold(self, requested: int) -> int:
        """Support that leads all other ballots together by the margin."""
        return (requested + self.margin + 1) // 2


def _set(policy: QuorumPolicy, **fields: object) -> None:
    for name, value in fields.items():
        object.__setattr__(policy, name, value)


def ask_for(requested: int, received: int, more: int, limit: int) -> Ruling:
    """Ruling that asks for `more` ballots, outstanding ones included, if the limit allows it."""
    total = max(requested, received + more)
    reason = RulingReason.UNDECIDED if total <= limit else RulingReason.EXHAUSTED
    return Ruling(reason, more, total - requested)


def opened_by_bad(policy: QuorumPolicy) -> tuple[float, float]:
    """Error and expected runs of a vote whose first ballot is bad; exact for policies that count.

    The first worker drawn decides whether there is a vote at all, so nearly all votes that
    newcomers cause may begin with a bad ballot.
    """
    bound = policy.assurance
    if isinstance(policy, _Counting):
        return _counted_from_bad(policy)
    # Bounds from the totals: a vote that opens otherwise is never wrong and takes at least one run.
    error = min(1.0, bound.error_if_colluding / bound.bad)
    return error, (bound.runs - (1.0 - bound.bad)) / bound.bad


@functools.lru_cache(maxsize=16)
def _counted_from_bad(policy: _Counting) -> tuple[float, float]:
    """The same of a policy that counts; plans ask for it once for each number of audits."""
    bad, limit = policy.assurance.bad, policy.limit
    error, runs, _ = walk(bad, policy.threshold, policy.opening, limit, opened_by_bad=True)
    return error, runs


def _counted(policy: FixedSize | FirstToMatch | Sequential) -> Assurance:
    require_minority(policy.bad)
    if policy.opening > policy.limit:
        raise ValueError(
            f"limit must be at least {policy.opening}, the ballots requested at first, "
            f"got {policy.limit}"
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
