"""Settling: from the verdicts of an epoch to one signed submission, as a pure step function.

`step(state, event) -> (state, effects)` collects the votes of the committee in office on one
statement: the next epoch (`start_epoch`), or the hand-over to another committee (`start_rotation`).
The caller sends what the effects say, wakes up at `state.deadline`, and keeps the state.

    ASK      votes come in; whoever is missing at a deadline is asked again
    GRACE    the quorum is there; the rest may still join, since each absent member costs gas
    DONE     one `Submit`; votes are still looked at, for equivocations

A vote is checked before it counts, in batches: when enough came in to decide something, or at a
deadline. A forged vote in somebody's name is turned away and keeps nobody from voting. A member
that signed another statement for the same place is accused once, with the evidence; both of its
signatures being valid, its vote for this one counts as it would on chain. The weights of the batch
test are random: but for those, and up to their error of 2^-128, all is a function of its arguments.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from protocols.settlement.committee import Committee
from protocols.settlement.statements import EpochStatement, Rotation, SettlementError
from protocols.settlement.submission import Head, Submission
from protocols.settlement.verdicts import EpochLog
from protocols.settlement.votes import Equivocation, Vote
from verifiable import bls
from verifiable.bls import InfiniteAggregate, Signature

S = TypeVar("S", EpochStatement, Rotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How votes are collected.

    Attributes:
      batch: votes that are checked at once at the latest, at least 1.
      ask_seconds: how long to wait before whoever is missing is asked again, at least 1.
      grace_seconds: how long to wait for the rest once the quorum is there; 0 for not at all.
    """

    batch: int = 32
    ask_seconds: int = 60
    grace_seconds: int = 0

    def __post_init__(self) -> None:
        """Refuse rules under which nothing would ever be checked or asked."""
        if self.batch < 1 or self.ask_seconds < 1 or self.grace_seconds < 0:
            raise ValueError("batch and ask_seconds are positive, grace_seconds is not negative")


class Phase(enum.Enum):
    """Where a settlement stands."""

    ASK = "ask"
    GRACE = "grace"
    DONE = "done"


# Events: what happened, and when, in seconds since 1970-01-01 UTC as the coordinator saw it.


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time went by."""

    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Received(Generic[S]):
    """A vote came. Nothing of it has been checked but its form (`Vote.decode`)."""

    at: int
    vote: Vote[S]


# Effects: what the caller has to do.


@dataclass(frozen=True, slots=True, kw_only=True)
class AskVotes(Generic[S]):
    """Send the statement to members, with what it is about: the verdicts, or the committee."""

    statement: S
    members: tuple[int, ...]
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """A vote was turned away. That is no blame: anybody can send one in anybody's name.

    Attributes:
      member: whom it names.
      reason: unknown-member, other-place, other-statement, duplicate, or bad-signature.
    """

    member: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuse(Generic[S]):
    """A member signed two statements for one place. Comes once for each member."""

    evidence: Equivocation[S]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit(Generic[S]):
    """Send this to the contract, again if the chain loses it. Comes once."""

    submission: Submission[S]


Effect = AskVotes[Any] | Refuse | Accuse[Any] | Submit[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class State(Generic[S]):
    """All that is known of one statement's votes.

    Attributes:
      rules: how they are collected.
      committee: whose votes.
      statement: on what.
      now: time of the latest event; it never goes back.
      deadline: wake up with a `Tick` then; None once there is nothing to wait for.
      phase: where it stands.
      signatures: valid ones on the statement, by member.
      strays: the first valid vote of a member on another statement for this place.
      pending: votes not yet checked, in order of arrival.
      accused: members already accused.
    """

    rules: Rules
    committee: Committee
    statement: S
    now: int
    deadline: int | None
    phase: Phase = Phase.ASK
    signatures: Mapping[int, Signature] = field(default_factory=dict[int, Signature])
    strays: Mapping[int, Vote[S]] = field(default_factory=dict[int, Vote[S]])
    pending: tuple[Vote[S], ...] = ()
    accused: frozenset[int] = frozenset()


def start_epoch(
    head: Head, log: EpochLog, rules: Rules, *, now: int
) -> tuple[State[EpochStatement], tuple[Effect, ...]]:
    """Ask the committee in office to sign the verdicts of the next epoch.

    Raises:
      SettlementError: other-epoch: the log is not of the epoch that comes next.
    """
    if log.epoch != head.epoch:
        raise SettlementError("other-epoch", expected=head.epoch, found=log.epoch)
    statement = head.statement(root=log.tree.root, size=log.tree.size, policy=log.policy)
    return _start(head, statement, rules, now)


def start_rotation(
    head: Head, incoming: Committee, rules: Rules, *, now: int
) -> tuple[State[Rotation], tuple[Effect, ...]]:
    """Ask the committee in office to hand over to another."""
    return _start(head, head.rotation(incoming), rules, now)


def step(state: State[S], event: Tick | Received[S]) -> tuple[State[S], tuple[Effect, ...]]:
    """What an event leads to. It never raises, whatever a member sent.

    Args:
      state: from `start_epoch`, `start_rotation` or `step`.
      event: what happened. If its time is before that of an earlier event, it counts as then.

    Returns:
      The new state, and what the caller has to do, in this order.
    """
    state = replace(state, now=max(state.now, event.at))
    state, effects = _pass_time(state)
    if isinstance(event, Received):
        state, more = _receive(state, event.vote)
        effects += more
    return state, effects


def _start(head: Head, statement: S, rules: Rules, now: int) -> tuple[State[S], tuple[Effect, ...]]:
    state = State(rules=rules, committee=head.committee, statement=statement, now=now, deadline=now)
    return _ask(state)


def _ask(state: State[S]) -> tuple[State[S], tuple[Effect, ...]]:
    """Ask everybody whose signature is missing."""
    deadline = state.now + state.rules.ask_seconds
    everybody = range(len(state.committee.members))
    missing = tuple(i for i in everybody if i not in state.signatures)
    ask = AskVotes(statement=state.statement, members=missing, deadline=deadline)
    return replace(state, deadline=deadline), (ask,)


def _pass_time(state: State[S]) -> tuple[State[S], tuple[Effect, ...]]:
    """At a deadline, check what is there, then submit or ask again."""
    if state.deadline is None or state.now < state.deadline:
        return state, ()
    state, effects = _check(state)
    if state.phase is Phase.GRACE and state.deadline is not None and state.now >= state.deadline:
        state, more = _submit(state)
        effects += more
    if state.phase is Phase.ASK:
        state, more = _ask(state)
        effects += more
    return state, effects


def _receive(state: State[S], vote: Vote[S]) -> tuple[State[S], tuple[Effect, ...]]:
    """Take a vote, and check what is there if that may decide something."""
    known = (state.signatures.get(vote.member), state.strays.get(vote.member))
    if vote.member >= len(state.committee.members):
        return state, (Refuse(member=vote.member, reason="unknown-member"),)
    if type(vote.statement) is not type(state.statement) or (
        vote.statement.place != state.statement.place
    ):
        return state, (Refuse(member=vote.member, reason="other-place"),)
    same = vote.statement == state.statement
    if vote in state.pending or (same and vote.signature == known[0]) or vote == known[1]:
        return state, (Refuse(member=vote.member, reason="duplicate"),)
    state = replace(state, pending=(*state.pending, vote))
    hoped = {v.member for v in state.pending if v.statement == state.statement}
    hoped |= state.signatures.keys()
    decides = (state.phase is Phase.ASK and state.committee.has_quorum(frozenset(hoped))) or len(
        hoped
    ) == len(state.committee.members)
    if decides or state.phase is Phase.DONE or len(state.pending) >= state.rules.batch:
        return _check(state)
    return state, ()


def _check(state: State[S]) -> tuple[State[S], tuple[Effect, ...]]:
    """Verify all that is pending at once, and count what is valid."""
    effects: list[Effect] = []
    invalid: frozenset[int] = frozenset()
    if state.pending:
        members = state.committee.members
        batch = [
            bls.SignedMessage(members[v.member].key.key, v.statement.message, v.signature)
            for v in state.pending
        ]
        report = bls.find_invalid(batch, domain=state.statement.DOMAIN)
        invalid = frozenset(report.invalid)
    signatures, strays, accused = dict(state.signatures), dict(state.strays), set(state.accused)
    for position, vote in enumerate(state.pending):
        if position in invalid:
            effects.append(Refuse(member=vote.member, reason="bad-signature"))
            continue
        if vote.statement == state.statement:
            signatures[vote.member] = vote.signature
        else:
            effects.append(Refuse(member=vote.member, reason="other-statement"))
        evidence = _evidence(state.statement, vote, signatures, strays)
        if vote.statement != state.statement:
            strays.setdefault(vote.member, vote)
        if evidence is not None and vote.member not in accused:
            accused.add(vote.member)
            effects.append(Accuse(evidence=evidence))
    state = replace(
        state, signatures=signatures, strays=strays, accused=frozenset(accused), pending=()
    )
    state, more = _advance(state)
    return state, (*effects, *more)


def _evidence(
    statement: S, vote: Vote[S], signatures: Mapping[int, Signature], strays: Mapping[int, Vote[S]]
) -> Equivocation[S] | None:
    """What a valid vote, taken with the earlier ones of its member, convicts of."""
    earlier = [strays[vote.member]] if vote.member in strays else []
    if vote.member in signatures:
        signature = signatures[vote.member]
        earlier.append(Vote(statement=statement, member=vote.member, signature=signature))
    other = next((v for v in earlier if v.statement != vote.statement), None)
    return None if other is None else Equivocation.of(vote, other)


def _advance(state: State[S]) -> tuple[State[S], tuple[Effect, ...]]:
    """Submit once everybody has voted, or the quorum has and there is no time of grace."""
    signers = frozenset(state.signatures)
    if state.phase is Phase.DONE or not state.committee.has_quorum(signers):
        return state, ()
    if len(signers) == len(state.committee.members) or not state.rules.grace_seconds:
        return _submit(state)
    if state.phase is Phase.ASK:
        deadline = state.now + state.rules.grace_seconds
        state = replace(state, phase=Phase.GRACE, deadline=deadline)
    return state, ()


def _submit(state: State[S]) -> tuple[State[S], tuple[Effect, ...]]:
    try:
        submission = Submission.combine(state.statement, state.signatures, state.committee)
    except InfiniteAggregate:
        # Their holders chose keys that cancel out. They have a quorum: one more vote mends it.
        return replace(state, phase=Phase.ASK), ()
    return replace(state, phase=Phase.DONE, deadline=None), (Submit(submission=submission),)
