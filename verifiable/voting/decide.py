"""Ballots to decision: the value within tolerance of a strict majority of the ballots requested.

**Rule.** A submitted value is a candidate iff the ballots within one tolerance of it, its own
included, are a strict majority of those *requested* and enough for the policy. Of several
candidates the canonical one is the medoid (least sum of capped distances to all well-formed
ballots); of equal ones, the one whose worker comes first under a hash with a beacon drawn after
the reveal. Otherwise the outcome is indeterminate, with the number of ballots that would settle it.

**Guarantee.** If at most b of the ballots requested are bad, and b is less than the canonical
value's support, then the b + 1 ballots nearest to it include an honest one: it lies within
`VoteDecision.radius(b)` of an honest value, whatever colluders sent, and that is at most one
tolerance. If moreover the h honest ballots are a majority, agree pairwise within delta <= 1
tolerance and are numerous enough to decide, colluders drag the medoid at most
min(1, delta (h - 1) / (h - b)) tolerances away from the nearest of them.

The decision is a function of the *set* of ballots, so neither arrival order nor a resubmission
moves it. A further ballot never takes support away: one that agrees never un-decides, and none can
veto. A coordinator decides once, on the ballots of a closed round, and keeps the decision.
Dissent calls for an audit; it is never blame. Proofs: specs/voting.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from verifiable.encoding import tagged_hash
from verifiable.errors import require_type
from verifiable.voting.agreement import Agreement, Candidate, Tolerance
from verifiable.voting.assurance import Assurance
from verifiable.voting.quorum import (
    NEWCOMER,
    Poll,
    QuorumPolicy,
    Ruling,
    RulingReason,
    Standing,
)

_NO_STANDINGS: Mapping[bytes, Standing] = {}


class Ballot(NamedTuple):
    """One worker's answer to one job.

    Attributes:
      worker: registered identity of the worker.
      value: the decoded answer, of the type that the job's agreement reads.
    """

    worker: bytes
    value: Any


class VoteOutcome(Enum):
    """A vote accepts a value or leaves the job open. It never rejects an answer: an audit does."""

    ACCEPT = "accept"
    INDETERMINATE = "indeterminate"


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteDecision:
    """Result of a vote.

    Attributes:
      outcome: whether a value was accepted.
      reason: stable code of the reason.
      canonical: reading of the accepted value (see `Agreement.read`); None if indeterminate.
      chosen: worker whose ballot holds it, and represents equal ones; None if indeterminate.
      group: workers whose ballots agree with it, ascending; empty if indeterminate.
      dissenters: workers whose ballots do not agree with it, ascending: to be audited, not blamed.
        Empty if indeterminate, because there is no value to dissent from.
      distances: distances of the group's ballots from the canonical value in tolerances, ascending.
      bound: the policy's assumption, its error on that assumption, and the expected cost.
      more: ballots that would settle the vote if they agreed with the value closest to acceptance.
      seats: how many of these must still be requested; the others are outstanding.
    """

    outcome: VoteOutcome
    reason: RulingReason
    canonical: Any
    chosen: bytes | None
    group: tuple[bytes, ...]
    dissenters: tuple[bytes, ...]
    distances: tuple[float, ...]
    bound: Assurance
    more: int
    seats: int

    def radius(self, bad: int) -> float:
        """Upper bound on the distance of the canonical value from the nearest honest one.

        Args:
          bad: upper bound on the number of bad ballots among those requested.

        Returns:
          The bound in tolerances: at most 1 if fewer ballots are bad than support the value,
          infinite otherwise. Proof: specs/voting.md, section 3.

        Raises:
          ValueError: `bad` is negative.
        """
        if bad < 0:
            raise ValueError(f"bad must not be negative, got {bad}")
        return self.distances[bad] if bad < len(self.distances) else math.inf


def decide(
    ballots: Sequence[Ballot],
    *,
    agreement: Agreement,
    policy: QuorumPolicy,
    requested: int,
    beacon: bytes,
    standings: Mapping[bytes, Standing] = _NO_STANDINGS,
) -> VoteDecision:
    """Decide a job from the ballots of a closed round.

    Args:
      ballots: the ballots of the round, one per worker, in any order. The caller has refused
        ballots for other jobs, late ones and second ones.
      agreement: when two values agree.
      policy: how much support is enough.
      requested: number of ballots requested so far in all rounds, answered or not. A seat counts
        once, even if its worker was replaced.
      beacon: at least 16 bytes that were unknown when the ballots were revealed.
      standings: standings of the workers that are not newcomers.

    Raises:
      ValueError: two ballots of one worker, more ballots than requested, more requested than the
        policy's bound covers, a policy that accepts a minority, or a beacon too short.
      TypeError: an argument, a ballot or the identity of a worker is of another type.
    """
    require_type("agreement", agreement, Agreement)
    require_type("policy", policy, QuorumPolicy)
    require_type("beacon", beacon, bytes)
    require_type("requested", requested, int)
    _require_ballots(ballots)
    if len(beacon) < 16:
        raise ValueError(f"beacon must have at least 16 bytes, got {len(beacon)}")
    ballots = sorted(ballots, key=_worker)
    workers = [worker for worker, _ in ballots]
    if len(set(workers)) != len(workers):
        raise ValueError("two ballots of one worker: refuse the second one when it arrives")
    if len(ballots) > requested:
        raise ValueError(f"got {len(ballots)} ballots, but only {requested} were requested")

    known = [standings.get(worker, NEWCOMER) for worker in workers]
    readings = [agreement.read(value) for _, value in ballots]
    accepted: list[Candidate] = []
    short: list[Ruling] = []
    for candidate in agreement.candidates(readings):
        ruling = policy.rule(_poll(candidate.members, known, requested))
        if ruling.reason is RulingReason.AGREED:
            if 2 * len(candidate.members) <= requested:
                raise ValueError(
                    "the policy accepted a value without a strict majority of the ballots"
                )
            accepted.append(candidate)
        else:
            short.append(ruling)
    if not accepted:
        short = short or [policy.rule(_poll((), known, requested))]
        best = min(short, key=lambda ruling: (ruling.more, ruling.seats))
        return VoteDecision(
            outcome=VoteOutcome.INDETERMINATE,
            reason=best.reason,
            canonical=None,
            chosen=None,
            group=(),
            dissenters=(),
            distances=(),
            bound=policy.assurance,
            more=best.more,
            seats=best.seats,
        )
    winner = _medoid(accepted, workers, beacon)
    members = set(winner.members)
    return VoteDecision(
        outcome=VoteOutcome.ACCEPT,
        reason=RulingReason.AGREED,
        canonical=readings[winner.ballot],
        chosen=workers[winner.ballot],
        group=tuple(workers[i] for i in winner.members),
        dissenters=tuple(w for i, w in enumerate(workers) if i not in members),
        distances=winner.distances,
        bound=policy.assurance,
        more=0,
        seats=0,
    )


def _require_ballots(ballots: Sequence[Ballot]) -> None:
    """Raise TypeError for what is no ballot, or a worker whose identity is not bytes."""
    for ballot in ballots:
        require_type("a ballot", ballot, Ballot)
        require_type("the worker of a ballot", ballot.worker, bytes)


def _worker(ballot: Ballot) -> bytes:
    return ballot.worker


def _poll(members: Sequence[int], known: Sequence[Standing], requested: int) -> Poll:
    if len(members) == len(known):
        return Poll(requested, known, ())
    inside = set(members)
    return Poll(
        requested,
        [known[i] for i in members],
        [standing for i, standing in enumerate(known) if i not in inside],
    )


def _medoid(candidates: Sequence[Candidate], workers: Sequence[bytes], beacon: bytes) -> Candidate:
    least = min(candidate.score for candidate in candidates)
    tied = [candidate for candidate in candidates if candidate.score == least]
    return min(tied, key=lambda c: tagged_hash("vote tie", beacon, workers[c.ballot]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Median:
    """The coordinate-wise median of some ballots.

    Attributes:
      value: array of the job's shape and dtype. Each coordinate is taken from some ballot; no
        ballot need equal the whole array.
      ballots: number of well-formed ballots used.
      tolerates: number of them that may be bad. Every coordinate then lies between the least and
        the greatest honest value of that coordinate.
    """

    value: Float[np.ndarray, "*shape"]
    ballots: int
    tolerates: int


def coordinate_median(ballots: Sequence[Ballot], *, agreement: Tolerance) -> Median:
    """The lower coordinate-wise median, for one trusted coordinator that sees all ballots.

    With n >= 2t + 1 well-formed ballots, t of them bad, at most t values of a coordinate lie above
    the honest range and at most t below it, so that the median lies within it. There is no bound
    on how coordinates fit together, and the median moves with every ballot: it may be reported
    beside a decision, but not instead of one.

    Args:
      ballots: one per worker, in any order.
      agreement: defines shape and dtype; malformed ballots are left out.

    Raises:
      ValueError: two ballots of one worker, or no well-formed ballot.
      TypeError: the agreement, a ballot or the identity of a worker is of another type.
    """
    require_type("agreement", agreement, Tolerance)
    _require_ballots(ballots)
    if len({ballot.worker for ballot in ballots}) != len(ballots):
        raise ValueError("two ballots of one worker: refuse the second one when it arrives")
    readings = [agreement.read(ballot.value) for ballot in ballots]
    valid = [reading for reading in readings if reading is not None]
    if not valid:
        raise ValueError("there is no well-formed ballot to take a median of")
    middle = (len(valid) - 1) // 2
    # float64 holds every allowed dtype exactly, so the conversions change no value.
    stack = np.stack(valid)
    value = np.partition(stack.astype(np.float64), middle, axis=0)[middle].astype(stack.dtype)
    return Median(value=value, ballots=len(valid), tolerates=middle)
