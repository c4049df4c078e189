"""Policies that look at who voted: credibility that is earned, and trust that is audited.

    Credibility    until the group's odds do   P(wrong) <= error, if faults are independent
    Adaptive       trusted workers run alone   P(wrong) <= f / (1 - f) u^u / ((u + 1)^(u + 1) d),
                                               or what a vote that a bad newcomer opens leaves

Trust that is earned by honest work and then spent is the attack on both. It voids the first, whose
`error_if_colluding` says so. The second is built against it: of each window of a worker's results,
u are audited, drawn after the window has closed, each finding a wrong result with probability d,
and where one fails all of the window is void. A worker who cheats on a share x of a window gets it
past the audits with probability at most (1 - d x)^u, so that a share of at most

    max over x of x (1 - d x)^u  =  u^u / ((u + 1)^(u + 1) d)  <  1 / (e u d)

of its results is wrong and accepted, whenever it cheats, however it earned its trust, and however
cheap a new identity is. It is the constant that Sarmenta found for a worker that fails at a
constant rate; drawing after the fact makes it hold for all. Derivations: specs/voting.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, count, repeat

from verifiable.voting.assurance import Assurance, require_covered, require_minority, walk
from verifiable.voting.quorum import (
    NEWCOMER,
    Poll,
    QuorumPolicy,
    Ruling,
    RulingReason,
    Standing,
    ask_for,
    opened_by_bad,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credibility(QuorumPolicy):
    """Request ballots until the group that agrees is credible enough (Sarmenta 2001).

    A worker that passed s checks has credibility c = 1 - f / max(s, 1). A group is credible with

        P(all of it good, the others bad) / P(the same, or all of it bad),

    which is at most Sarmenta's value however the others are grouped. The products assume that
    faults are independent and that a worker fails at a constant rate. Workers that collude, or
    that are honest until they are trusted, void both: `error_if_colluding` is then f, because a
    worker with enough checks may run alone.

    Attributes:
      bad: assumed bad fraction among those who answer.
      error: a group is accepted if it is credible with probability 1 - error.
      limit: the most ballots that may be requested.
      typical: checks that a typical worker has passed; affects the expected cost only.
      assurance: bounds on error and cost.

    Source: Sarmenta, CCGrid 2001; derivation in specs/voting.md, section 6.
    """

    bad: float
    error: float
    limit: int = 100
    typical: int = 0
    assurance: Assurance = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Compute the cost for typical workers; raise ValueError for an argument out of range."""
        require_minority(self.bad)
        if not 0.0 < self.error < 1.0:
            raise ValueError(f"error must be above 0 and below 1, got {self.error}")
        standing = Standing(passed=self.typical)

        def threshold(requested: int) -> int:
            return next(
                support
                for support in count(requested // 2 + 1)
                if support > requested
                or self._log_odds(repeat(standing, support), repeat(standing, requested - support))
                >= self._target
            )

        opening = self.first([standing] * self.limit)
        _, runs, undecided = walk(self.bad, threshold, opening, self.limit)
        object.__setattr__(
            self,
            "assurance",
            Assurance(
                bad=self.bad,
                error=self.error,
                error_if_colluding=self.bad,
                runs=runs,
                undecided=undecided,
                assumes=f"a bad fraction of at most {self.bad:g} among those who answer, faults "
                "independent between workers and over time; collusion voids it",
            ),
        )

    @property
    def _target(self) -> float:
        return math.log1p(-self.error) - math.log(self.error)

    def _log_odds(self, supporters: Iterable[Standing], others: Iterable[Standing]) -> float:
        f = self.bad
        return math.fsum(
            math.log(max(worker.passed, 1) / f - 1.0) for worker in supporters
        ) + math.fsum(math.log(f / max(worker.passed, 1)) for worker in others)

    def first(self, candidates: Sequence[Standing] = ()) -> int:
        """The fewest of the candidates, in order, that are credible if they all agree."""
        workers, target = chain(candidates, repeat(NEWCOMER)), self._target
        odds = accumulate(self._log_odds((worker,), ()) for worker in workers)
        return next(n for n, all_ in enumerate(odds, 1) if all_ >= target or n >= self.limit)

    def rule(self, poll: Poll) -> Ruling:
        """Compare the group's odds with the target; further ballots count as newcomers'."""
        requested, support = poll.requested, len(poll.supporters)
        require_covered(requested, self.limit)
        lacking = self._target - self._log_odds(poll.supporters, poll.others)
        if lacking <= 0.0 and support > requested // 2:
            return Ruling(RulingReason.AGREED)
        received = support + len(poll.others)
        more = math.ceil(lacking / self._log_odds((NEWCOMER,), ()))
        while support + more <= max(requested, received + more) // 2:
            more += 1
        return ask_for(requested, received, more, self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive(QuorumPolicy):
    """Workers that passed `probation` checks run alone; jobs of newcomers go to a vote.

    The answers of a trusted worker stay provisional until its window closes: at most `window`
    results, of which `audits` are then drawn with randomness that was unknown before. If an audit
    fails, every result of the window is void, its jobs start over, and the worker is a newcomer
    again. A window that closes with fewer results than `audits`, or with an unanswered audit, is
    void too, without blame: silence clears nothing.

    No result is accepted without the risk of an audit, so trust earned by honest work cannot be
    spent: see the bound at the head of this module. A worker that never earns trust turns each of
    its jobs into a vote, which costs more, and is wrong at most as often as votes that begin with
    a bad ballot. Bound and cost are the worse of the two cases.

    Attributes:
      bad: assumed bad fraction among those who answer.
      newcomers: the policy that decides newcomers' ballots.
      probation: checks that a worker must pass before it runs alone.
      window: the most results of one worker in a window.
      audits: audits of each window, drawn without replacement.
      detection: probability d that the audit of a wrong result fails.
      audit_cost: cost of an audit, in runs.
      lifetime: results that an honest identity delivers on average; affects the cost, and the
        share of jobs that newcomers' votes decide.
      runs_if_spent: expected runs per job if bad workers earn trust and cheat always from then on;
        `assurance.runs` also covers workers that never earn any.
      assurance: bounds on error and cost.
    """

    bad: float
    newcomers: QuorumPolicy
    probation: int = 10
    window: int = 200
    audits: int = 8
    detection: float = 1.0
    audit_cost: float = 1.0
    lifetime: float = 1000.0
    runs_if_spent: float = field(init=False)
    assurance: Assurance = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Compute the bound and the cost; raise ValueError for an argument out of range."""
        require_minority(self.bad)
        if not 1 <= self.audits <= self.window or self.probation < 1:
            raise ValueError(
                "need 1 <= audits <= window and probation >= 1, got audits "
                f"{self.audits}, window {self.window} and probation {self.probation}"
            )
        if not 0.0 < self.detection <= 1.0 or not self.audit_cost >= 0.0:
            raise ValueError(
                f"need 0 < detection <= 1 and audit_cost >= 0, got detection {self.detection} and "
                f"audit_cost {self.audit_cost}"
            )
        if not self.lifetime >= self.probation:
            raise ValueError(
                f"lifetime must be at least the probation of {self.probation}, got {self.lifetime}"
            )
        if self.newcomers.assurance.bad < self.bad:
            raise ValueError(
                f"the newcomers' policy must assume a bad fraction of at least {self.bad:g}, "
                f"got {self.newcomers.assurance.bad:g}"
            )
        object.__setattr__(self, "assurance", self._assure())

    def _assure(self) -> Assurance:
        f, n, s, vote = self.bad, self.window, self.probation, self.newcomers.assurance
        alone = 1.0 + self.audit_cost * self.audits / n
        voted = s / self.lifetime
        honest = alone + (vote.runs - alone) * voted
        # A worker that cheats in every result of its windows: each window is void, and the worker
        # passes a new probation. Every void job starts over.
        starts = 1.0 / (1.0 - f * n / (s + n))
        cheat = (s * vote.runs + n * alone) / (s + n)
        spent = ((1.0 - f) * honest + f * cheat) * starts
        # A worker that never passes its probation: there is a vote whenever it is drawn first.
        slip, vote_runs = opened_by_bad(self.newcomers)
        never = (1.0 - f) * honest + f * vote_runs
        votes = f + (1.0 - f) * voted
        cheats = f / (1.0 - f) * max(spending_bound(self.audits, self.detection), slip)
        object.__setattr__(self, "runs_if_spent", spent)
        return Assurance(
            bad=f,
            error=min(1.0, cheats + voted * vote.error),
            error_if_colluding=min(1.0, cheats + voted * vote.error_if_colluding),
            runs=max(spent, never),
            undecided=min(1.0, starts * votes * vote.undecided),
            assumes=f"a bad fraction of at most {f:g} among those who answer, who may collude; "
            f"{self.audits} unforeseeable audits of every window; honest identities deliver "
            f"{self.lifetime:g} results",
        )

    def trusts(self, standing: Standing) -> bool:
        """Whether a worker of this standing runs alone."""
        return standing.passed >= self.probation

    def first(self, candidates: Sequence[Standing] = ()) -> int:
        """1 if the first worker drawn is trusted; otherwise the number for newcomers."""
        if candidates and self.trusts(candidates[0]):
            return 1
        return self.newcomers.first(candidates)

    def rule(self, poll: Poll) -> Ruling:
        """Accept a trusted worker's lone ballot once its window is cleared."""
        match poll.supporters:
            case [worker] if poll.requested == 1 and self.trusts(worker):
                return Ruling(RulingReason.AGREED if worker.cleared else RulingReason.AUDIT)
            case _:
                return self.newcomers.rule(poll)


def spending_bound(audits: int, detection: float = 1.0) -> float:
    """The largest share of wrong results that a worker gets accepted from audited windows.

    max over x in [0, 1] of x (1 - d x)^u, which is u^u / ((u + 1)^(u + 1) d) < 1 / (e u d) if the
    maximum lies inside the interval. It holds for every window of n >= u results: a sample without
    replacement misses all of m bad ones, each found with probability d, with probability at most
    (1 - d m / n)^u (Hoeffding 1963, theorem 4).

    Args:
      audits: audits of each window, u.
      detection: probability d that the audit of a wrong result fails.
    """
    x = min(1.0, 1.0 / (detection * (audits + 1)))
    return x * (1.0 - detection * x) ** audits
