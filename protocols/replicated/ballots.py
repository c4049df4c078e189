"""Seats, and the ballots that stand: revealed, and neither rejected by an audit nor void.

`count` decides the ballots that stand under the rules of the job. Whatever `Rules.decode`, or the
agreement, does with a value that a device sent, nothing is raised: a value that cannot be read is a
ballot that agrees with no other, and two values that cannot be compared do not agree. Ballots are
sorted by worker, so the result is a function of the ballots and the beacon, not of the order in
which messages came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from protocols.replicated.state import Absent, Effect, Place, Rules, Seat, State
from verifiable import voting
from verifiable.voting import Ballot, VoteDecision
from verifiable.voting.agreement import Agreement, Candidate

_APART: Final = Candidate(0, (0,), (0.0,), 2.0)
"""Either of two readings that cannot be compared, at the greatest distance that a score counts."""


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
      candidates: values that could be canonical, and the ballots that agree with each.
      decision: decision of the vote on them.
    """

    ballots: tuple[Seat, ...]
    readings: tuple[Any, ...]
    candidates: tuple[Candidate, ...]
    decision: VoteDecision

    @property
    def unaudited(self) -> tuple[Seat, ...]:
        """Ballots that have no verdict from an audit."""
        return tuple(seat for seat in self.ballots if seat.verdict is None)

    @property
    def readable(self) -> tuple[Seat, ...]:
        """Ballots whose value can be read."""
        pairs = zip(self.ballots, self.readings, strict=True)
        return tuple(seat for seat, reading in pairs if reading is not None)

    def group_of(self, seat: Seat) -> tuple[bytes, ...]:
        """Workers whose ballots agree with a readable one, its own included."""
        ballot = self.ballots.index(seat)
        # One of several equal values may represent them all.
        own = [c for c in self.candidates if c.ballot == ballot]
        found = own[0] if own else next(c for c in self.candidates if ballot in c.members)
        return tuple(self.ballots[i].worker for i in found.members)


def count(state: State) -> Count:
    """Decide the ballots that stand."""
    ballots = tuple(sorted(seats_in(state, Place.REVEALED), key=lambda seat: seat.worker))
    readings = tuple(_read(state.rules, seat) for seat in ballots)
    agreement = _AsRead(_candidates(state.rules.agreement, readings))
    decision = voting.decide(
        [Ballot(seat.worker, reading) for seat, reading in zip(ballots, readings, strict=True)],
        agreement=agreement,
        policy=state.rules.policy,
        requested=state.requested,
        beacon=beacon_value(state),
        standings={seat.worker: seat.standing for seat in ballots},
    )
    return Count(
        ballots=ballots,
        readings=readings,
        candidates=tuple(agreement.found),
        decision=decision,
    )


def _read(rules: Rules, seat: Seat) -> Any:
    """What the agreement reads in a ballot; None, whatever goes wrong with it alone."""
    agreement = rules.agreement
    try:
        reading = agreement.read(rules.decode(seat.ballot[1].message.value))
        return reading if reading is not None and agreement.candidates([reading]) else None
    except Exception:  # A device chose the bytes.
        return None


def _candidates(agreement: Agreement, readings: Sequence[Any]) -> list[Candidate]:
    """Candidates among some readings; a comparison that raises tells two of them apart."""
    try:
        return agreement.candidates(readings)
    except Exception:  # Devices chose what is compared.
        valid = [i for i, reading in enumerate(readings) if reading is not None]
        return [_alone(agreement, readings, i, valid) for i in valid]


def _alone(
    agreement: Agreement, readings: Sequence[Any], ballot: int, valid: Sequence[int]
) -> Candidate:
    """The candidate of one ballot, compared with one other at a time."""
    near, score = [(0.0, ballot)], 0.0
    for other in valid:
        if other != ballot:
            found = _pair(agreement, readings[ballot], readings[other])
            score += found.score
            if len(found.members) == 2:
                near.append((found.distances[1], other))
    return Candidate(
        ballot,
        tuple(sorted(other for _, other in near)),
        tuple(sorted(distance for distance, _ in near)),
        score,
    )


def _pair(agreement: Agreement, own: Any, other: Any) -> Candidate:
    try:
        return next(c for c in agreement.candidates([own, other]) if 0 in c.members)
    except Exception:  # Devices chose what is compared.
        return _APART


class _AsRead(Agreement):
    """An agreement on values that were read and compared already."""

    __slots__ = ("found",)

    def __init__(self, found: list[Candidate]):
        self.found = found

    def read(self, value: Any) -> Any:
        return value

    def candidates(self, readings: Sequence[Any]) -> list[Candidate]:
        return self.found
