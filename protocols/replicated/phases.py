"""Phases of a job, in order: each function ends one phase and begins the next.

    COMMIT   workers of the round commit; one that does not is replaced before anything is revealed
    REVEAL   workers that committed reveal; a reveal that does not open its commitment is refused
    BEACON   the next round of the beacon breaks ties; it was unknown when answers were revealed
    AUDIT    ballots disagree: their committed traces are audited, no majority decides
    WINDOW   a trusted worker's lone answer waits until its window of audits has closed
    ENDED    one `Conclude`; every later message is refused

Every dispatch uses up a drawn worker and every phase has a deadline, so every run ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from protocols.messages import Decision, Reason, answer_digest
from protocols.replicated.ballots import Count, beacon_value, count, seats_in, vacate
from protocols.replicated.state import (
    AskReveal,
    Audit,
    AwaitBeacon,
    AwaitWindow,
    Conclude,
    Dispatch,
    Effect,
    Phase,
    Place,
    Seat,
    State,
    Transition,
)
from verifiable.encoding import tagged_hash
from verifiable.report import Verdict
from verifiable.voting import VoteOutcome
from verifiable.voting.quorum import RulingReason


def pass_time(state: State) -> Transition:
    """End every phase whose deadline has passed."""
    effects: tuple[Effect, ...] = ()
    while state.phase is not Phase.ENDED and state.now >= state.deadline:
        state, more = _TIMEOUTS[state.phase](state)
        effects += more
    return state, effects


def dispatch(state: State, number: int) -> Transition:
    """Send the job to the next workers drawn: a round begins, in COMMIT."""
    if state.now >= state.job.expiry:
        return _end(state, Reason.EXPIRED)
    if number > len(state.reserve):
        return _end(state, Reason.NO_WORKERS)
    seats = tuple(Seat(worker=w, standing=s) for w, s in state.reserve[:number])
    deadline = min(state.now + state.rules.commit_seconds, state.job.expiry)
    state = replace(
        state,
        phase=Phase.COMMIT,
        deadline=deadline,
        seats=state.seats + seats,
        reserve=state.reserve[number:],
    )
    return state, tuple(Dispatch(worker=seat.worker, deadline=deadline) for seat in seats)


def close_commits(state: State) -> Transition:
    """Replace workers that did not commit, while the reserve lasts; then ask for the reveals."""
    state, absent = vacate(state, Place.DISPATCHED)
    number = min(len(absent), len(state.reserve))
    if number and state.now < state.job.expiry:
        state, effects = dispatch(state, number)
        return state, absent + effects
    committed = seats_in(state, Place.COMMITTED)
    if not committed:
        reason = Reason.EXPIRED if state.now >= state.job.expiry else Reason.NO_WORKERS
        state, effects = _end(state, reason)
        return state, absent + effects
    deadline = state.now + state.rules.reveal_seconds
    state = replace(state, phase=Phase.REVEAL, deadline=deadline)
    asks = tuple(AskReveal(worker=seat.worker, deadline=deadline) for seat in committed)
    return state, absent + asks


def close_reveals(state: State) -> Transition:
    """Close the round, and wait for the beacon's next round."""
    state, absent = vacate(state, Place.COMMITTED)
    schedule = state.rules.beacon
    number = schedule.after(state.now)
    state = replace(
        state,
        phase=Phase.BEACON,
        deadline=schedule.appears(number) + state.rules.beacon_seconds,
        round=number,
        beacon=None,
    )
    return state, (*absent, AwaitBeacon(chain=schedule.chain, round=number))


def vote(state: State) -> Transition:
    """Decide the closed round; on disagreement, ask for audits instead."""
    counted = count(state)
    if counted.decision.outcome is VoteOutcome.ACCEPT:
        agree = not counted.decision.dissenters
    else:
        size = len(counted.ballots)
        agree = not size or any(len(c.members) == size for c in counted.candidates)
    unaudited = counted.unaudited
    if agree or not unaudited:
        return _conclude(state, counted)
    deadline = state.now + state.rules.audit_seconds
    state = replace(state, phase=Phase.AUDIT, deadline=deadline)
    ballots = (seat.ballot for seat in unaudited)
    return state, tuple(Audit(commit=c, reveal=r, deadline=deadline) for c, r in ballots)


def close_audits(state: State) -> Transition:
    """Accept an audited answer; if the audits accepted none, vote again."""
    seats = tuple(
        replace(seat, verdict=Verdict.INDETERMINATE)
        if seat.place is Place.REVEALED and seat.verdict is None
        else seat
        for seat in state.seats
    )
    state = replace(state, seats=seats)
    counted = count(state)
    verified = [seat for seat in counted.readable if seat.verdict is Verdict.ACCEPT]
    if not verified:
        return _conclude(state, counted)
    # All of these are right. The vote's own choice comes first, then the group that it chose.
    decision, beacon = counted.decision, beacon_value(state)
    chosen = min(
        verified,
        key=lambda seat: (
            seat.worker != decision.chosen,
            seat.worker not in decision.group,
            tagged_hash("vote tie", beacon, seat.worker),
        ),
    )
    return _accept(state, Reason.AUDITED, winner=chosen, group=counted.group_of(chosen))


def end_window(state: State) -> Transition:
    """Discard an answer whose window is void or unanswered, without blame, and ask others."""
    seats = tuple(
        replace(seat, place=Place.VOID) if seat.place is Place.REVEALED else seat
        for seat in state.seats
    )
    return vote(replace(state, seats=seats))


def _conclude(state: State, counted: Count) -> Transition:
    """Accept the agreed answer, wait for a window, ask for more ballots, or end."""
    decision = counted.decision
    if decision.outcome is VoteOutcome.ACCEPT:
        winner = next(seat for seat in counted.ballots if seat.worker == decision.chosen)
        return _accept(state, Reason.AGREED, winner=winner, group=decision.group)
    match decision.reason:
        case RulingReason.AUDIT:
            deadline = state.now + state.rules.window_seconds
            state = replace(state, phase=Phase.WINDOW, deadline=deadline)
            return state, tuple(
                AwaitWindow(reveal=seat.ballot[1], deadline=deadline) for seat in counted.ballots
            )
        case RulingReason.EXHAUSTED:
            return _end(state, Reason.EXHAUSTED)
        case _:
            # `more` ballots would settle it: `seats` new ones, and the seats left vacant.
            if decision.more > len(state.reserve):
                return _end(state, Reason.NO_WORKERS)
            state = replace(state, requested=state.requested + decision.seats)
            return dispatch(state, decision.more)


def _accept(state: State, reason: Reason, *, winner: Seat, group: tuple[bytes, ...]) -> Transition:
    return _end(state, reason, value=winner.ballot[1].message.value, group=group)


def _end(
    state: State, reason: Reason, *, value: bytes | None = None, group: tuple[bytes, ...] = ()
) -> Transition:
    voted = {seat.worker for seat in state.seats if seat.reveal is not None}
    accepted = value is not None
    decision = Decision(
        coordinator=state.job.coordinator,
        job=state.job_id,
        epoch=state.job.epoch,
        outcome=VoteOutcome.ACCEPT if accepted else VoteOutcome.INDETERMINATE,
        reason=reason,
        answer=answer_digest(value) if value is not None else None,
        group=tuple(sorted(group)),
        dissenters=tuple(sorted(voted.difference(group))) if accepted else (),
        requested=state.requested,
        beacon=None if state.beacon is None else state.beacon.round,
        error=state.rules.policy.assurance.error if reason is Reason.AGREED else None,
    )
    state = replace(state, phase=Phase.ENDED, decision=decision, reserve=())
    return state, (Conclude(decision=decision, value=value),)


def _no_beacon(state: State) -> Transition:
    return _end(state, Reason.NO_BEACON)


_TIMEOUTS: Final[Mapping[Phase, Callable[[State], Transition]]] = {
    Phase.COMMIT: close_commits,
    Phase.REVEAL: close_reveals,
    Phase.BEACON: _no_beacon,
    Phase.AUDIT: close_audits,
    Phase.WINDOW: end_window,
}
