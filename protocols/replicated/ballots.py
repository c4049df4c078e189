"""Seats, and the ballots that stand: revealed, and neither rejected by an audit nor void.

`count` decides the ballots that stand under the rules of the job. A value that cannot be read is a
ballot that agrees with no other. Ballots are sorted by worker, so the result is a function of the
ballots and the beacon, not of the order in which messages came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from protocols.replicated.state import Absent, Effect, Place, Rules, Seat, State
from verifiable import voting
from verifiable.errors import VerificationError
from verifiable.voting import Ballot, VoteDecision
from verifiable.voting.agreement import Agreement, Candidate


def index_of(state: State, worker: bytes) -> int | None:
    """Position of a worker's seat; None if it has none."""
    return next((i for i, seat in enumerate(state.seats) if seat.worker == worker), None)


def seats_in(state: State, place: Place) -> tuple[Seat, ...]:
    """Seats of the workers that have come exactly this far."""
    return tuple(seat for seat in state.seats if seat.place is place)


def with_seat(state: State, index: int, seat: Seat) -> State:
    """The state with one seat replaced."""
    return replace(state, seats=(*state.seats[:index], seat, *state.seats[index + 1 :]))


def vacate(state: State, place: Place) -> tuple[State, tuple[Effect, ...]]:
    """Vacate the seats of the workers that have come no further than this place."""
    absent = tuple(Absent(worker=s.worker, phase=state.phase) for s in seats_in(state, place))
    seats = tuple(replace(s, place=Place.ABSENT) if s.place is place else s for s in state.seats)
    return replace(state, seats=seats), absent


def beacon_value(state: State) -> bytes:
    """Value of the beacon that breaks ties."""
    if state.beacon is None:
        raise AssertionError("a round is decided after its beacon is drawn")
    return state.beacon.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """The ballots that stand, and what they decide.

    Attributes:
      ballots: seats of the ballots, sorted by worker.
      readings: what the agreement reads in each; None where the value cannot be read.
      decision: decision of the vote on them.
    """

    ballots: tuple[Seat, ...]
    readings: tuple[Any, ...]
    decision: VoteDecision

    @property
    def unaudited(self) -> tuple[Seat, ...]:
        """Ballots that have no verdict from an audit."""
        return tuple(seat for seat in self.ballots if seat.verdict is None)

    def accepted(self, index: int) -> bool:
        """Whether a ballot holds the value that the vote accepted."""
        canonical = self.decision.canonical
        return canonical is not None and self.readings[index] is canonical


def count(state: State) -> Count:
    """Decide the ballots that stand."""
    ballots = tuple(sorted(seats_in(state, Place.REVEALED), key=lambda seat: seat.worker))
    readings = tuple(_read(state.rules, seat) for seat in ballots)
    decision = voting.decide(
        [Ballot(seat.worker, reading) for seat, reading in zip(ballots, readings, strict=True)],
        agreement=_AsRead(state.rules.agreement),
        policy=state.rules.policy,
        requested=state.requested,
        beacon=beacon_value(state),
        standings={seat.worker: seat.standing for seat in ballots},
    )
    return Count(ballots=ballots, readings=readings, decision=decision)


def candidate_of(candidates: Sequence[Candidate], ballot: int) -> Candidate:
    """The candidate of a ballot, or, of equal ballots, the one that represents it."""
    own = [candidate for candidate in candidates if candidate.ballot == ballot]
    return own[0] if own else next(c for c in candidates if ballot in c.members)


def _read(rules: Rules, seat: Seat) -> Any:
    try:
        return rules.agreement.read(rules.decode(seat.ballot[1].message.value))
    except VerificationError:
        return None


class _AsRead(Agreement):
    """An agreement on values that were already read."""

    __slots__ = ("_agreement",)

    def __init__(self, agreement: Agreement):
        self._agreement = agreement

    def read(self, value: Any) -> Any:
        return value

    def candidates(self, readings: Sequence[Any]) -> list[Candidate]:
        return self._agreement.candidates(readings)
