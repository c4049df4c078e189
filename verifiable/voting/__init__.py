"""Votes: run a job on several devices and accept the value that enough of their answers agree on.

    ballots = [Ballot(worker=b"a", value=ya), Ballot(worker=b"b", value=yb), ...]
    decision = decide(
        ballots,
        agreement=Tolerance.usual(shape=(1, 32000), dtype="float32"),
        policy=FirstToMatch(bad=0.1, matches=2),     # at most 10 % of those who answer are bad
        requested=3,                                  # ballots requested, answered or not
        beacon=beacon,                                # randomness drawn after the reveal
    )
    if decision.outcome is VoteOutcome.ACCEPT:
        answer = decision.canonical                   # wrong with probability decision.bound.error

    agreement   when two answers agree: digests, argmax, arrays within a tolerance
    tokens      when two answers of language models do: token ids
    assurance   error and cost of a policy, and the assumption that they rest on
    quorum      how many ballots to request, and when they are enough: policies that count
    trust       policies that look at who voted: credibility, and trusted workers with audits
    decide      from a closed round of ballots to a decision

A vote never blames: it accepts a value or leaves the job open. Specification: specs/voting.md.
"""

from __future__ import annotations

from verifiable.voting.agreement import (
    RELATIVE_TOLERANCE,
    Agreement,
    Argmax,
    Candidate,
    Equality,
    Exact,
    Metric,
    Tolerance,
    Within,
)
from verifiable.voting.assurance import Assurance, bad_among_answers
from verifiable.voting.decide import (
    Ballot,
    Median,
    VoteDecision,
    VoteOutcome,
    coordinate_median,
    decide,
)
from verifiable.voting.quorum import (
    NEWCOMER,
    FirstToMatch,
    FixedSize,
    Poll,
    QuorumPolicy,
    Ruling,
    RulingReason,
    Sequential,
    Standing,
)
from verifiable.voting.tokens import Tokens
from verifiable.voting.trust import Adaptive, Credibility, spending_bound

__all__ = [
    "NEWCOMER",
    "RELATIVE_TOLERANCE",
    "Adaptive",
    "Agreement",
    "Argmax",
    "Assurance",
    "Ballot",
    "Candidate",
    "Credibility",
    "Equality",
    "Exact",
    "FirstToMatch",
    "FixedSize",
    "Median",
    "Metric",
    "Poll",
    "QuorumPolicy",
    "Ruling",
    "RulingReason",
    "Sequential",
    "Standing",
    "Tokens",
    "Tolerance",
    "VoteDecision",
    "VoteOutcome",
    "Within",
    "bad_among_answers",
    "coordinate_median",
    "decide",
    "spending_bound",
]
