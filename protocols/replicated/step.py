"""Replicated execution of one job: dispatch, commit, reveal, vote, and an audit on disagreement.

`step(state, event) -> (state, effects)` is a function and nothing else. Every event carries its
time, so lateness is judged by when a message came and not by when anybody looked. The caller sends
what the effects say, wakes up at `state.deadline`, and keeps the state.

    COMMIT   workers of the round commit; whoever does not is replaced before anything is revealed
    REVEAL   those who committed reveal; what does not open its commitment is turned away
    BEACON   the round of the beacon that follows breaks ties; nobody knew it when revealing
    AUDIT    ballots disagree: their committed traces are audited, heads are not counted
    WINDOW   a trusted worker's lone answer waits until its window of audits has closed
    ENDED    one `Conclude`; every later message is turned away

A ballot is counted iff it opens a commitment that its own worker made, for this job and epoch,
before any answer of its round was revealed. Seats are drawn by weight from a seed that nobody knew
when weights were fixed; one identity never holds two. A worker that drops out is replaced; a
dissenter is audited. Blame takes an audit that rejects, and nothing else. Every dispatch uses up a
drawn worker and every phase has a deadline, so every run ends. Rules: specs/replicated.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from protocols.messages import Commit, Decision, Job, Reason, Reveal, Signed, answer_digest
from protocols.replicated.state import (
    Absent,
    AskReveal,
    Audit,
    Audited,
    AwaitBeacon,
    AwaitWindow,
    Blame,
    Conclude,
    Dispatch,
    Drawn,
    Effect,
    Event,
    Phase,
    Place,
    Received,
    Record,
    Refuse,
    Rules,
    Seat,
    State,
    Tick,
    WindowClosed,
)
from verifiable import voting
from verifiable.audits import sampling
from verifiable.challenge import Beacon
from verifiable.encoding import tagged_hash
from verifiable.errors import VerificationError
from verifiable.report import Verdict
from verifiable.voting import Ballot, VoteOutcome, quorum
from verifiable.voting.agreement import Agreement, Candidate
from verifiable.voting.quorum import NEWCOMER, Standing

Step = tuple[State, tuple[Effect, ...]]
_NO_STANDINGS: Final[Mapping[bytes, Standing]] = {}


def start(
    job: Job,
    rules: Rules,
    *,
    now: int,
    workers: Sequence[bytes],
    weights: Sequence[int],
    seed: bytes,
    standings: Mapping[bytes, Standing] = _NO_STANDINGS,
) -> Step:
    """Draw the workers of a job, and send it to the first of them.

    Args:
      job: the job.
      rules: what is decided by.
      now: the time, in seconds since 1970-01-01 UTC.
      workers: identities that may be drawn. Whoever can make identities at no cost can fill seats
        at no cost: a weight should be what an identity had to put up, such as its stake.
      weights: a non-negative integer for each.
      seed: 32 bytes that nobody knew when the weights were fixed, such as `Challenge.derive`.
      standings: of workers that are not newcomers; looked at after the draw.

    Raises:
      ValueError: an identity twice, another number of weights, an expired job, or fewer workers of
        positive weight, or dispatches, than the policy asks for at first.
    """
    if len(set(workers)) != len(workers) or len(weights) != len(workers):
        raise ValueError("every identity is listed once, with one weight")
    if now >= job.expiry:
        raise ValueError(f"the job expired at {job.expiry}, and it is {now}")
    job_id = job.digest
    size = min(rules.dispatches, sum(weight > 0 for weight in weights))
    drawn = sampling.select(seed, weights, size, label=f"seats/{job_id.hex()}")
    reserve = tuple((workers[i], standings.get(workers[i], NEWCOMER)) for i in drawn)
    first = rules.policy.first([standing for _, standing in reserve])
    if first > len(reserve):
        raise ValueError(f"the policy asks for {first} workers, and {len(reserve)} can be drawn")
    state = State(
        rules=rules,
        job=job,
        job_id=job_id,
        phase=Phase.COMMIT,
        now=now,
        deadline=now,
        seats=(),
        reserve=reserve,
        requested=first,
    )
    return _dispatch(state, first)


def step(state: State, event: Event) -> Step:
    """What an event leads to. It never raises, whatever a device sent.

    Args:
      state: from `start` or `step`.
      event: what happened. If its time is before that of an earlier event, it counts as then.

    Returns:
      The new state, and what the caller has to do, in this order.
    """
    state = replace(state, now=max(state.now, event.at))
    state, effects = _pass_time(state)
    match event:
        case Tick():
            more: tuple[Effect, ...] = ()
        case Received(message=message):
            state, more = _receive(state, message)
        case Drawn(beacon=beacon):
            state, more = _drawn(state, beacon)
        case Audited(worker=worker, verdict=verdict):
            state, more = _audited(state, worker, verdict)
        case WindowClosed(worker=worker, cleared=cleared):
            state, more = _window_closed(state, worker, cleared)
    return state, effects + more


def _pass_time(state: State) -> Step:
    """End every phase whose deadline has passed."""
    effects: tuple[Effect, ...] = ()
    while state.phase is not Phase.ENDED and state.now >= state.deadline:
        state, more = _TIMEOUTS[state.phase](state)
        effects += more
    return state, effects


# Phases, in the order in which a job goes through them.


def _dispatch(state: State, count: int) -> Step:
    """Send the job to the next workers drawn; a round begins."""
    if state.now >= state.job.expiry:
        return _end(state, Reason.EXPIRED)
    if count > len(state.reserve):
        return _end(state, Reason.NO_WORKERS)
    seats = tuple(Seat(worker=w, standing=s) for w, s in state.reserve[:count])
    deadline = min(state.now + state.rules.commit_seconds, state.job.expiry)
    state = replace(
        state,
        phase=Phase.COMMIT,
        deadline=deadline,
        seats=state.seats + seats,
        reserve=state.reserve[count:],
    )
    return state, tuple(Dispatch(worker=seat.worker, deadline=deadline) for seat in seats)


def _close_commits(state: State) -> Step:
    """Replace those who did not commit, while there is somebody; then ask for the reveals."""
    state, absent = _drop(state, Place.DISPATCHED)
    count = min(len(absent), len(state.reserve))
    if count and state.now < state.job.expiry:
        state, effects = _dispatch(state, count)
        return state, absent + effects
    committed = _in(state, Place.COMMITTED)
    if not committed:
        reason = Reason.EXPIRED if state.now >= state.job.expiry else Reason.NO_WORKERS
        state, effects = _end(state, reason)
        return state, absent + effects
    deadline = state.now + state.rules.reveal_seconds
    state = replace(state, phase=Phase.REVEAL, deadline=deadline)
    asks = tuple(AskReveal(worker=seat.worker, deadline=deadline) for seat in committed)
    return state, absent + asks


def _close_reveals(state: State) -> Step:
    """Close the round, and wait for the beacon's next round."""
    state, absent = _drop(state, Place.COMMITTED)
    schedule = state.rules.beacon
    number = schedule.after(state.now)
    due = schedule.genesis + (number - 1) * schedule.period
    state = replace(
        state,
        phase=Phase.BEACON,
        deadline=due + state.rules.beacon_seconds,
        round=number,
        beacon=None,
    )
    return state, (*absent, AwaitBeacon(chain=schedule.chain, round=number))


def _vote(state: State) -> Step:
    """Decide the closed round; on disagreement, ask for audits instead."""
    ballots, readings, decision = _decide(state)
    if decision.outcome is VoteOutcome.ACCEPT:
        agree = not decision.dissenters
    else:
        candidates = state.rules.agreement.candidates(readings)
        agree = not ballots or any(len(c.members) == len(ballots) for c in candidates)
    unaudited = [seat.ballot for seat in ballots if seat.verdict is None]
    if agree or not unaudited:
        return _conclude(state, ballots, readings, decision)
    deadline = state.now + state.rules.audit_seconds
    state = replace(state, phase=Phase.AUDIT, deadline=deadline)
    return state, tuple(
        Audit(commit=commit, reveal=reveal, deadline=deadline) for commit, reveal in unaudited
    )


def _close_audits(state: State) -> Step:
    """Judge by what the audits showed; where they showed nothing, the vote stands."""
    seats = tuple(
        replace(seat, verdict=Verdict.INDETERMINATE)
        if seat.place is Place.REVEALED and seat.verdict is None
        else seat
        for seat in state.seats
    )
    state = replace(state, seats=seats)
    ballots, readings, decision = _decide(state)
    verified = [
        index
        for index, (seat, reading) in enumerate(zip(ballots, readings, strict=True))
        if seat.verdict is Verdict.ACCEPT and reading is not None
    ]
    if not verified:
        return _conclude(state, ballots, readings, decision)
    # All of these are right. The vote's own choice is kept where it is among them.
    canonical = next((i for i in verified if readings[i] is decision.canonical), None)
    if canonical is None:
        beacon = _beacon_value(state)
        canonical = min(verified, key=lambda i: tagged_hash("vote tie", beacon, ballots[i].worker))
    group = _around(state.rules.agreement.candidates(readings), canonical)
    return _accept(
        state,
        Reason.AUDITED,
        winner=ballots[canonical],
        group=tuple(ballots[i].worker for i in group.members),
    )


def _conclude(
    state: State, ballots: Sequence[Seat], readings: Sequence[Any], decision: voting.VoteDecision
) -> Step:
    """Accept what was agreed on, wait for a window, ask for more ballots, or end."""
    if decision.outcome is VoteOutcome.ACCEPT:
        winner = next(
            seat
            for seat, reading in zip(ballots, readings, strict=True)
            if reading is decision.canonical
        )
        return _accept(state, Reason.AGREED, winner=winner, group=decision.group)
    match decision.reason:
        case quorum.RulingReason.AUDIT:
            deadline = state.now + state.rules.window_seconds
            state = replace(state, phase=Phase.WINDOW, deadline=deadline)
            return state, tuple(
                AwaitWindow(reveal=seat.ballot[1], deadline=deadline) for seat in ballots
            )
        case quorum.RulingReason.EXHAUSTED:
            return _end(state, Reason.EXHAUSTED)
        case _:
            # The ballots that settle it: new seats, and those that others left vacant.
            if decision.more > len(state.reserve):
                return _end(state, Reason.NO_WORKERS)
            state = replace(state, requested=state.requested + decision.seats)
            return _dispatch(state, decision.more)


def _end_window(state: State) -> Step:
    """Silence clears nothing: the answer is void, without blame, and others start over."""
    seats = tuple(
        replace(seat, place=Place.VOID) if seat.place is Place.REVEALED else seat
        for seat in state.seats
    )
    return _vote(replace(state, seats=seats))


def _accept(state: State, reason: Reason, *, winner: Seat, group: tuple[bytes, ...]) -> Step:
    return _end(state, reason, value=winner.ballot[1].message.value, group=group)


def _end(
    state: State, reason: Reason, *, value: bytes | None = None, group: tuple[bytes, ...] = ()
) -> Step:
    voted = {seat.worker for seat in state.seats if seat.reveal is not None}
    accepted = value is not None
    decision = Decision(
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


def _no_beacon(state: State) -> Step:
    return _end(state, Reason.NO_BEACON)


_TIMEOUTS: Final[Mapping[Phase, Callable[[State], Step]]] = {
    Phase.COMMIT: _close_commits,
    Phase.REVEAL: _close_reveals,
    Phase.BEACON: _no_beacon,
    Phase.AUDIT: _close_audits,
    Phase.WINDOW: _end_window,
}


# Events.


def _receive(state: State, signed: Signed[Commit] | Signed[Reveal]) -> Step:
    """Take a commit or a reveal, or turn it away."""
    message = signed.message
    index = _index(state, message.worker)
    if message.job != state.job_id:
        return _refuse(state, message.worker, "other-job")
    if message.epoch != state.job.epoch:
        return _refuse(state, message.worker, "other-epoch")
    if index is None:
        return _refuse(state, message.worker, "not-seated")
    seat = state.seats[index]
    if isinstance(message, Commit):
        if seat.commit is not None:
            same = seat.commit.message == message
            return _refuse(state, message.worker, "duplicate" if same else "second-commit")
        if seat.place is not Place.DISPATCHED or state.phase is not Phase.COMMIT:
            return _refuse(state, message.worker, "too-late")
        commit = cast("Signed[Commit]", signed)
        state = _seat(state, index, replace(seat, place=Place.COMMITTED, commit=commit))
        effects: tuple[Effect, ...] = (Record(commit=commit),)
        closing, close = Place.DISPATCHED, _close_commits
    else:
        if seat.reveal is not None:
            return _refuse(state, message.worker, "duplicate")
        if seat.commit is None or state.phase is Phase.COMMIT:
            early = seat.place in {Place.DISPATCHED, Place.COMMITTED}
            return _refuse(state, message.worker, "too-early" if early else "too-late")
        if seat.place is not Place.COMMITTED or state.phase is not Phase.REVEAL:
            return _refuse(state, message.worker, "too-late")
        if message.commit != seat.commit.message:
            return _refuse(state, message.worker, "opening-mismatch")
        reveal = cast("Signed[Reveal]", signed)
        state = _seat(state, index, replace(seat, place=Place.REVEALED, reveal=reveal))
        effects = ()
        closing, close = Place.COMMITTED, _close_reveals
    if not _in(state, closing):
        state, more = close(state)
        effects += more
    return state, effects


def _drawn(state: State, beacon: Beacon) -> Step:
    if state.phase is not Phase.BEACON:
        return _refuse(state, b"", "not-asked")
    if (beacon.chain, beacon.round) != (state.rules.beacon.chain, state.round):
        return _refuse(state, b"", "other-beacon")
    return _vote(replace(state, beacon=beacon))


def _audited(state: State, worker: bytes, verdict: Verdict) -> Step:
    index = _index(state, worker)
    seat = None if index is None else state.seats[index]
    if index is None or seat is None or state.phase is not Phase.AUDIT:
        return _refuse(state, worker, "not-asked")
    if seat.place is not Place.REVEALED or seat.verdict is not None:
        return _refuse(state, worker, "not-asked")
    effects: tuple[Effect, ...] = ()
    seat = replace(seat, verdict=verdict)
    if verdict is Verdict.REJECT:
        commit, reveal = seat.ballot
        seat = replace(seat, place=Place.VOID)
        effects = (Blame(commit=commit, reveal=reveal),)
    state = _seat(state, index, seat)
    if all(seat.verdict is not None for seat in _in(state, Place.REVEALED)):
        state, more = _close_audits(state)
        effects += more
    return state, effects


def _window_closed(state: State, worker: bytes, cleared: bool) -> Step:
    index = _index(state, worker)
    seat = None if index is None else state.seats[index]
    if index is None or seat is None or state.phase is not Phase.WINDOW:
        return _refuse(state, worker, "not-asked")
    if seat.place is not Place.REVEALED:
        return _refuse(state, worker, "not-asked")
    if not cleared:
        return _end_window(state)
    standing = replace(seat.standing, cleared=True)
    return _vote(_seat(state, index, replace(seat, standing=standing)))


def _refuse(state: State, worker: bytes, reason: str) -> Step:
    return state, (Refuse(worker=worker, reason=reason),)


# Seats and ballots.


def _index(state: State, worker: bytes) -> int | None:
    return next((i for i, seat in enumerate(state.seats) if seat.worker == worker), None)


def _in(state: State, place: Place) -> tuple[Seat, ...]:
    return tuple(seat for seat in state.seats if seat.place is place)


def _seat(state: State, index: int, seat: Seat) -> State:
    return replace(state, seats=(*state.seats[:index], seat, *state.seats[index + 1 :]))


def _drop(state: State, place: Place) -> tuple[State, tuple[Effect, ...]]:
    """Vacate the seats of those who have not come further than this."""
    absent = tuple(Absent(worker=s.worker, phase=state.phase) for s in _in(state, place))
    seats = tuple(replace(s, place=Place.ABSENT) if s.place is place else s for s in state.seats)
    return replace(state, seats=seats), absent


def _ballots(state: State) -> list[Seat]:
    return sorted(_in(state, Place.REVEALED), key=lambda seat: seat.worker)


def _beacon_value(state: State) -> bytes:
    if state.beacon is None:
        raise AssertionError("a round is decided after its beacon is drawn")
    return state.beacon.value


class _AsRead(Agreement):
    """An agreement on values that were read before."""

    __slots__ = ("_agreement",)

    def __init__(self, agreement: Agreement):
        self._agreement = agreement

    def read(self, value: Any) -> Any:
        return value

    def candidates(self, readings: Sequence[Any]) -> list[Candidate]:
        return self._agreement.candidates(readings)


def _decide(state: State) -> tuple[list[Seat], list[Any], voting.VoteDecision]:
    """The ballots that stand, their readings, and what they decide."""
    ballots = _ballots(state)
    readings = [_read(state.rules, seat) for seat in ballots]
    decision = voting.decide(
        [Ballot(seat.worker, reading) for seat, reading in zip(ballots, readings, strict=True)],
        agreement=_AsRead(state.rules.agreement),
        policy=state.rules.policy,
        requested=state.requested,
        beacon=_beacon_value(state),
        standings={seat.worker: seat.standing for seat in ballots},
    )
    return ballots, readings, decision


def _read(rules: Rules, seat: Seat) -> Any:
    try:
        return rules.agreement.read(rules.decode(seat.ballot[1].message.value))
    except VerificationError:
        return None


def _around(candidates: Sequence[Candidate], ballot: int) -> Candidate:
    """The candidate of a ballot, or, of equal ones, the one that stands for it."""
    own = [candidate for candidate in candidates if candidate.ballot == ballot]
    return own[0] if own else next(c for c in candidates if ballot in c.members)
