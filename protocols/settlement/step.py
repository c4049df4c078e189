"""Collection of votes: from the verdicts of an epoch to one signed submission.

`step(state, event) -> (state, effects)` collects the votes of the committee in office on one
statement. A coordinator collects three times: prepares of a choice (`start_prepare`), locks on it
(`start_lock`), and signatures of the decided epoch (`start_epoch`) or rotation (`start_rotation`).
Each submission is the certificate that members demand in the next step; the last goes on chain. The
caller carries out the effects, sends a `Tick` at `state.deadline`, and keeps the state.

    ASK      votes come in; at each deadline, missing members are asked again
    GRACE    there is a quorum; other votes may still join, since each absent member costs gas
    DONE     one `SubmitSettlement`; later votes are still checked for equivocations

Votes are verified in batches: when enough have come in to decide something, or at a deadline. A
forged vote in a member's name is refused and does not keep that member from voting. A member that
signed another statement for the same place is accused once, with the evidence; both its signatures
are valid, so its vote on this statement counts, as it would on chain. The weights of the batch test
are random: apart from them, and up to their error of 2^-128, `step` is a function of its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from protocols.settlement.committee import Committee
from protocols.settlement.state import (
    Accuse,
    AskVotes,
    RefuseVote,
    SettlementEffect,
    SettlementEvent,
    SettlementPhase,
    SettlementRules,
    SettlementState,
    SettlementTransition,
    SubmitSettlement,
    VoteReceived,
)
from protocols.settlement.statements import (
    EpochStatement,
    Lock,
    LockReport,
    Prepare,
    Rotation,
    SettlementError,
)
from protocols.settlement.submission import Head, SettlementSubmission
from protocols.settlement.verdicts import EpochLog
from protocols.settlement.votes import Equivocation, Vote
from verifiable import bls
from verifiable.bls import InfiniteAggregate, Signature

S = TypeVar("S", EpochStatement, Rotation, Prepare, Lock, LockReport)


def start_epoch(
    head: Head, log: EpochLog, rules: SettlementRules, *, now: int
) -> SettlementTransition[EpochStatement]:
    """Ask the committee in office to sign the verdicts of the next epoch.

    Args:
      head: the chain, as the coordinator sees it.
      log: the verdicts of the next epoch.
      rules: how votes are collected.
      now: the time, in seconds since 1970-01-01 UTC.

    Raises:
      SettlementError: other-epoch: the log is not of the next epoch.
    """
    if log.epoch != head.epoch:
        raise SettlementError("other-epoch", expected=head.epoch, found=log.epoch)
    statement = head.statement(root=log.tree.root, size=log.tree.size, policy=log.policy)
    return _start(head, statement, rules, now)


def start_rotation(
    head: Head, incoming: Committee, rules: SettlementRules, *, now: int
) -> SettlementTransition[Rotation]:
    """Ask the committee in office to hand over to another."""
    return _start(head, head.rotation(incoming), rules, now)


def start_prepare(
    head: Head, choice: EpochStatement | Rotation, attempt: int, rules: SettlementRules, *, now: int
) -> SettlementTransition[Prepare]:
    """Ask the committee in office to prepare a statement, with `Justification` if attempt > 0."""
    return _start(head, head.attempt(Prepare, attempt, choice.digest), rules, now)


def start_lock(
    head: Head, prepared: SettlementSubmission[Prepare], rules: SettlementRules, *, now: int
) -> SettlementTransition[Lock]:
    """Ask the committee in office to lock what more than two thirds prepared."""
    attempt, choice = prepared.statement.attempt, prepared.statement.choice
    return _start(head, head.attempt(Lock, attempt, choice), rules, now)


def step(state: SettlementState[S], event: SettlementEvent[S]) -> SettlementTransition[S]:
    """The transition that an event causes. Never raises, whatever a member sent.

    Args:
      state: from `start_epoch`, `start_rotation` or `step`.
      event: what happened. A time before that of an earlier event is taken as that earlier time.

    Returns:
      The new state, and the tasks for the caller, in this order.
    """
    state = replace(state, now=max(state.now, event.at))
    state, effects = _pass_time(state)
    if isinstance(event, VoteReceived):
        state, more = _receive(state, event.vote)
        effects += more
    return state, effects


def _start(head: Head, statement: S, rules: SettlementRules, now: int) -> SettlementTransition[S]:
    state = SettlementState(
        rules=rules, committee=head.committee, statement=statement, now=now, deadline=now
    )
    return _ask(state)


def _ask(state: SettlementState[S]) -> SettlementTransition[S]:
    """Ask every member whose signature is missing."""
    deadline = state.now + state.rules.ask_seconds
    everyone = range(len(state.committee.members))
    missing = tuple(i for i in everyone if i not in state.signatures)
    ask = AskVotes(statement=state.statement, members=missing, deadline=deadline)
    return replace(state, deadline=deadline), (ask,)


def _pass_time(state: SettlementState[S]) -> SettlementTransition[S]:
    """At a deadline, verify the pending votes, then submit or ask again."""
    if state.deadline is None or state.now < state.deadline:
        return state, ()
    state, effects = _verify_pending(state)
    if state.phase is SettlementPhase.GRACE:
        state, more = _submit(state)
        effects += more
    if state.phase is SettlementPhase.ASK:
        state, more = _ask(state)
        effects += more
    return state, effects


def _receive(state: SettlementState[S], vote: Vote[S]) -> SettlementTransition[S]:
    """Take a vote, and verify the pending votes if they may decide something."""
    refusal = _refusal(state, vote)
    if refusal is not None:
        return state, (RefuseVote(member=vote.member, reason=refusal),)
    state = replace(state, pending=(*state.pending, vote))
    hoped = {v.member for v in state.pending if v.statement == state.statement}
    hoped |= state.signatures.keys()
    asking = state.phase is SettlementPhase.ASK
    decides = (asking and state.committee.has_quorum(frozenset(hoped))) or len(hoped) == len(
        state.committee.members
    )
    done = state.phase is SettlementPhase.DONE
    if decides or done or len(state.pending) >= state.rules.batch:
        return _verify_pending(state)
    return state, ()


def _refusal(state: SettlementState[S], vote: Vote[S]) -> str | None:
    """Why a vote is refused before its signature is verified; None if it is not."""
    if vote.member >= len(state.committee.members):
        return "unknown-member"
    same_kind = type(vote.statement) is type(state.statement)
    if not same_kind or vote.statement.place != state.statement.place:
        return "other-place"
    counted = vote.statement == state.statement and (
        vote.signature == state.signatures.get(vote.member)
    )
    if vote in state.pending or counted or vote == state.strays.get(vote.member):
        return "duplicate"
    return None


def _verify_pending(state: SettlementState[S]) -> SettlementTransition[S]:
    """Verify all pending votes at once, and count the valid ones."""
    if not state.pending:
        return state, ()
    effects: list[SettlementEffect] = []
    invalid = _invalid(state)
    signatures, strays, accused = dict(state.signatures), dict(state.strays), set(state.accused)
    for position, vote in enumerate(state.pending):
        if position in invalid:
            effects.append(RefuseVote(member=vote.member, reason="bad-signature"))
            continue
        if vote.statement == state.statement:
            signatures[vote.member] = vote.signature
        else:
            effects.append(RefuseVote(member=vote.member, reason="other-statement"))
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


def _invalid(state: SettlementState[S]) -> frozenset[int]:
    """Positions of the pending votes whose signatures do not verify."""
    members = state.committee.members
    batch = [
        bls.SignedMessage(members[v.member].key.key, v.statement.message, v.signature)
        for v in state.pending
    ]
    return frozenset(bls.find_invalid(batch, domain=state.statement.DOMAIN).invalid)


def _evidence(
    statement: S, vote: Vote[S], signatures: Mapping[int, Signature], strays: Mapping[int, Vote[S]]
) -> Equivocation[S] | None:
    """The equivocation that a valid vote completes with earlier votes of its member, if any."""
    earlier = [strays[vote.member]] if vote.member in strays else []
    if vote.member in signatures:
        signature = signatures[vote.member]
        earlier.append(Vote(statement=statement, member=vote.member, signature=signature))
    other = next((v for v in earlier if v.statement != vote.statement), None)
    return None if other is None else Equivocation.of(vote, other)


def _advance(state: SettlementState[S]) -> SettlementTransition[S]:
    """Submit once every member has voted, or there is a quorum and no grace period."""
    if state.phase is SettlementPhase.DONE:
        return state, ()
    if not state.committee.has_quorum(frozenset(state.signatures)):
        return state, ()
    if state.everyone_voted or not state.rules.grace_seconds:
        return _submit(state)
    if state.phase is SettlementPhase.ASK:
        deadline = state.now + state.rules.grace_seconds
        state = replace(state, phase=SettlementPhase.GRACE, deadline=deadline)
    return state, ()


def _submit(state: SettlementState[S]) -> SettlementTransition[S]:
    try:
        submission = SettlementSubmission.combine(
            state.statement, state.signatures, state.committee
        )
    except InfiniteAggregate:
        # The signers chose keys that cancel out. One more vote makes the sum finite.
        return replace(state, phase=SettlementPhase.ASK), ()
    state = replace(state, phase=SettlementPhase.DONE, deadline=None)
    return state, (SubmitSettlement(submission=submission),)
