"""Replicated execution of one job: dispatch, commit, reveal, vote, and an audit on disagreement.

`step(state, event) -> (state, effects)` is a pure function. Every event carries its time, so
lateness depends only on when a message came. The caller carries out the effects, sends a `Tick` at
`state.deadline`, and keeps the state. `phases` lists the phases.

A ballot counts iff it opens a commitment that its own worker made, for this job and epoch, before
any answer of its round was revealed. Seats are drawn by weight from a seed that was unknown when
the weights were fixed; one identity never holds two seats. A worker that drops out is replaced; a
dissenter is audited. A rejection voids a ballot; only a conviction blames a worker. Rules:
specs/replicated.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, cast

from protocols.events import Tick
from protocols.messages import AnswerForm, Commit, Job, Reveal, Signed
from protocols.replicated.ballots import index_of, seats_in, with_seat
from protocols.replicated.phases import (
    close_audits,
    close_commits,
    close_reveals,
    dispatch,
    end_window,
    pass_time,
    vote,
)
from protocols.replicated.state import (
    Audited,
    Blame,
    Drawn,
    Effect,
    Event,
    Phase,
    Place,
    Received,
    Record,
    Refuse,
    Rules,
    State,
    Transition,
    WindowClosed,
)
from verifiable.audits import sampling
from verifiable.challenge import Beacon
from verifiable.report import Verdict
from verifiable.voting.agreement import Exact
from verifiable.voting.quorum import NEWCOMER, Standing

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
) -> Transition:
    """Draw the workers of a job, and send it to the first of them.

    Args:
      job: the job.
      rules: what the coordinator decides by.
      now: the time, in seconds since 1970-01-01 UTC.
      workers: identities that may be drawn. If identities cost nothing, seats cost nothing: a
        weight should be what an identity had to put up, such as its stake.
      weights: a non-negative integer for each worker.
      seed: 32 bytes that were unknown when the weights were fixed, such as `Challenge.derive`.
      standings: standings of workers that are not newcomers; read after the draw.

    Returns:
      The first state, and a `Dispatch` for each worker asked.

    Raises:
      ValueError: a repeated identity, another number of weights than workers, an expired job,
        fewer workers of positive weight, or dispatches, than the policy requests at first, or a
        job that asks for digests of answers under another agreement than an exact one on 32 bytes.
    """
    if len(set(workers)) != len(workers) or len(weights) != len(workers):
        raise ValueError("every identity must be listed once, with one weight")
    if now >= job.expiry:
        raise ValueError(f"the job expired at {job.expiry}, and it is {now}")
    if job.answer is AnswerForm.DIGEST and rules.agreement != Exact(size=32):
        raise ValueError("digests of answers can only be compared by Exact(size=32)")
    job_id = job.digest
    size = min(rules.dispatches, sum(weight > 0 for weight in weights))
    drawn = sampling.select(seed, weights, size, label=f"seats/{job_id.hex()}")
    reserve = tuple((workers[i], standings.get(workers[i], NEWCOMER)) for i in drawn)
    first = rules.policy.first([standing for _, standing in reserve])
    if first > len(reserve):
        raise ValueError(f"the policy requests {first} workers, and {len(reserve)} can be drawn")
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
    return dispatch(state, first)


def step(state: State, event: Event) -> Transition:
    """The transition that an event causes. Never raises, whatever a device sent.

    Args:
      state: from `start` or `step`.
      event: what happened. A time before that of an earlier event is taken as that earlier time.

    Returns:
      The new state, and the tasks for the caller, in this order.
    """
    state = replace(state, now=max(state.now, event.at))
    state, effects = pass_time(state)
    match event:
        case Tick():
            more: tuple[Effect, ...] = ()
        case Received(message=message):
            state, more = _receive(state, message)
        case Drawn(beacon=beacon):
            state, more = _drawn(state, beacon)
        case Audited(worker=worker, verdict=verdict, convicted=convicted):
            state, more = _audited(state, worker, verdict, convicted=convicted)
        case WindowClosed(worker=worker, cleared=cleared):
            state, more = _window_closed(state, worker, cleared)
    return state, effects + more


def _receive(state: State, signed: Signed[Commit] | Signed[Reveal]) -> Transition:
    """Take a commit or a reveal, or refuse it."""
    message = signed.message
    index = index_of(state, message.worker)
    if message.job != state.job_id:
        return _refuse(state, message.worker, "other-job")
    if message.epoch != state.job.epoch:
        return _refuse(state, message.worker, "other-epoch")
    if index is None:
        return _refuse(state, message.worker, "not-seated")
    if isinstance(message, Commit):
        return _take_commit(state, index, cast("Signed[Commit]", signed))
    return _take_reveal(state, index, cast("Signed[Reveal]", signed))


def _take_commit(state: State, index: int, commit: Signed[Commit]) -> Transition:
    seat = state.seats[index]
    if seat.commit is not None:
        same = seat.commit.message == commit.message
        return _refuse(state, seat.worker, "duplicate" if same else "second-commit")
    if seat.place is not Place.DISPATCHED or state.phase is not Phase.COMMIT:
        return _refuse(state, seat.worker, "too-late")
    state = with_seat(state, index, replace(seat, place=Place.COMMITTED, commit=commit))
    effects: tuple[Effect, ...] = (Record(commit=commit),)
    if not seats_in(state, Place.DISPATCHED):
        state, more = close_commits(state)
        effects += more
    return state, effects


def _take_reveal(state: State, index: int, reveal: Signed[Reveal]) -> Transition:
    seat = state.seats[index]
    if seat.reveal is not None:
        return _refuse(state, seat.worker, "duplicate")
    if seat.commit is None or state.phase is Phase.COMMIT:
        early = seat.place in {Place.DISPATCHED, Place.COMMITTED}
        return _refuse(state, seat.worker, "too-early" if early else "too-late")
    if seat.place is not Place.COMMITTED or state.phase is not Phase.REVEAL:
        return _refuse(state, seat.worker, "too-late")
    if reveal.message.commit != seat.commit.message:
        return _refuse(state, seat.worker, "opening-mismatch")
    state = with_seat(state, index, replace(seat, place=Place.REVEALED, reveal=reveal))
    if seats_in(state, Place.COMMITTED):
        return state, ()
    return close_reveals(state)


def _drawn(state: State, beacon: Beacon) -> Transition:
    if state.phase is not Phase.BEACON:
        return _refuse(state, b"", "not-asked")
    if (beacon.chain, beacon.round) != (state.rules.beacon.chain, state.round):
        return _refuse(state, b"", "other-beacon")
    return vote(replace(state, beacon=beacon))


def _audited(state: State, worker: bytes, verdict: Verdict, *, convicted: bool) -> Transition:
    index = index_of(state, worker)
    seat = None if index is None else state.seats[index]
    if index is None or seat is None or state.phase is not Phase.AUDIT:
        return _refuse(state, worker, "not-asked")
    if seat.place is not Place.REVEALED or seat.verdict is not None:
        return _refuse(state, worker, "not-asked")
    effects: tuple[Effect, ...] = ()
    seat = replace(seat, verdict=verdict)
    if verdict is Verdict.REJECT:
        seat = replace(seat, place=Place.VOID)
    if convicted:
        commit, reveal = seat.ballot
        effects = (Blame(commit=commit, reveal=reveal),)
    state = with_seat(state, index, seat)
    if all(seat.verdict is not None for seat in seats_in(state, Place.REVEALED)):
        state, more = close_audits(state)
        effects += more
    return state, effects


def _window_closed(state: State, worker: bytes, cleared: bool) -> Transition:
    index = index_of(state, worker)
    seat = None if index is None else state.seats[index]
    if index is None or seat is None or state.phase is not Phase.WINDOW:
        return _refuse(state, worker, "not-asked")
    if seat.place is not Place.REVEALED:
        return _refuse(state, worker, "not-asked")
    if not cleared:
        return end_window(state)
    standing = replace(seat.standing, cleared=True)
    return vote(with_seat(state, index, replace(seat, standing=standing)))


def _refuse(state: State, worker: bytes, reason: str) -> Transition:
    return state, (Refuse(worker=worker, reason=reason),)
