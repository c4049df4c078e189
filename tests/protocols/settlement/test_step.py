"""Collection of votes: every order of arrival, forged batches, equivocation, and whole epochs."""

from __future__ import annotations

import functools
import itertools
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.settlement import (
    Accuse,
    AskVotes,
    RefuseVote,
    SettlementEffect,
    SettlementPhase,
    SettlementRules,
    SettlementState,
    SubmitSettlement,
    Tick,
    VoteReceived,
    start_epoch,
    start_prepare,
    start_rotation,
    step,
)
from protocols.settlement.committee import Committee, Member, prove_registration, registered_key
from protocols.settlement.signer import Signer, sign_epoch
from protocols.settlement.statements import EpochStatement, Lock, Prepare, SettlementError
from protocols.settlement.submission import Head, verify_epoch, verify_rotation
from protocols.settlement.verdicts import EpochLog
from protocols.settlement.votes import Equivocation, Vote
from tests.helpers.committees import (
    CHAIN,
    FOUR,
    HEAD,
    LOG,
    NEXT,
    OTHER_STATEMENT,
    POLICY,
    ROTATION,
    STATEMENT,
    decision,
    holder,
    log,
    record,
    signature,
    statement,
    submission,
    vote,
)
from verifiable import bls
from verifiable.bls import BadSignature, BatchReport, SecretKey, Signature, curve

NOW = 1_000_000


@functools.cache
def holds(entry: bls.SignedMessage, domain: bytes) -> bool:
    try:
        bls.verify(entry.key, entry.message, entry.signature, domain=domain)
    except BadSignature:
        return False
    return True


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch):
    """Each signature is verified once, alone, however many orders are tried."""

    def find(batch: Sequence[bls.SignedMessage], *, domain: bytes) -> BatchReport:
        invalid = tuple(i for i, entry in enumerate(batch) if not holds(entry, domain))
        return BatchReport(size=len(batch), invalid=invalid, tests=0, bound=0.0)

    monkeypatch.setattr(bls, "find_invalid", find)


@functools.cache
def settles(made: Any, head: Head) -> Head:
    return verify_epoch(made, head)


def run(
    state: SettlementState[Any], events: Iterable[Tick | VoteReceived[Any]]
) -> tuple[SettlementState[Any], list[SettlementEffect]]:
    effects: list[SettlementEffect] = []
    for event in events:
        state, more = step(state, event)
        effects += more
    return state, effects


def kinds(effects: Iterable[SettlementEffect], kind: type[Any]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


FORGED = replace(vote(FOUR, 0, STATEMENT), signature=signature(FOUR, 1, STATEMENT))
ARRIVALS = {
    "member 0": vote(FOUR, 0, STATEMENT),
    "member 1": vote(FOUR, 1, STATEMENT),
    "member 2": vote(FOUR, 2, STATEMENT),
    "member 3 equivocates": vote(FOUR, 3, STATEMENT),
    "member 3": vote(FOUR, 3, OTHER_STATEMENT),
    "forged for member 0": FORGED,
    "member 1 again": vote(FOUR, 1, STATEMENT),
}


Reached = tuple[frozenset[str], SettlementState[Any], tuple[SettlementEffect, ...]]
"""Votes still to come, the state, and all effects so far."""


def same(reached: Reached) -> Any:
    """Equal for two ways of getting to one state with the same effects in any order."""
    left, state, effects = reached
    return (
        *(left, frozenset(Counter(effects).items()), state.pending, state.phase, state.deadline),
        *(frozenset(state.signatures.items()), tuple(state.strays.items()), state.accused),
    )


def after_every_order(start: SettlementState[Any]) -> Iterable[Reached]:
    """Deliver all votes in every order; go on once from orders that reached the same."""
    reached: list[Reached] = [(frozenset(ARRIVALS), start, ())]
    for _ in ARRIVALS:
        following: dict[Any, Reached] = {}
        for left, state, effects in reached:
            for name in left:
                after, more = step(state, VoteReceived(at=NOW + 1, vote=ARRIVALS[name]))
                world = (left - {name}, after, effects + more)
                following.setdefault(same(world), world)
        reached = list(following.values())
    return reached


@pytest.mark.usefixtures("remembered")
@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize("grace", [0, 5])
def test_every_order_of_arrival(batch: int, grace: int):
    rules = SettlementRules(batch=batch, ask_seconds=10, grace_seconds=grace)
    start, (ask,) = start_epoch(HEAD, LOG, rules, now=NOW)
    assert ask == AskVotes(statement=STATEMENT, members=(0, 1, 2, 3), deadline=NOW + 10)
    ends: set[Any] = set()
    for _, reached, before in after_every_order(start):
        state, after = run(reached, [Tick(at=NOW + 100), Tick(at=NOW + 200)])
        effects = [*before, *after]
        (submit,) = kinds(effects, SubmitSettlement)
        settles(submit.submission, HEAD)
        (accused,) = kinds(effects, Accuse)
        assert accused.evidence.first.member == 3
        reasons = sorted((r.member, r.reason) for r in kinds(effects, RefuseVote))
        assert reasons == [(0, "bad-signature"), (1, "duplicate"), (3, "other-statement")]
        assert (state.phase, state.pending, state.deadline) == (SettlementPhase.DONE, (), None)
        ends.add((tuple(sorted(state.signatures.items())), tuple(state.strays.items())))
    assert len(ends) == 1
    accused.evidence.verify(FOUR)


@pytest.mark.usefixtures("remembered")
def test_every_set_of_votes_with_losses_and_ticks():
    """Submitted iff a quorum voted; only equivocators accused; missing members asked again."""
    rules = SettlementRules(batch=2, ask_seconds=10)
    start, _ = start_epoch(HEAD, LOG, rules, now=NOW)
    names = list(ARRIVALS)
    for size in range(len(names) + 1):
        for chosen in itertools.combinations(names, size):
            events: list[Tick | VoteReceived[Any]] = []
            for at, name in enumerate(chosen):
                events += [
                    VoteReceived(at=NOW + 4 * at, vote=ARRIVALS[name]),
                    Tick(at=NOW + 4 * at),
                ]
            state, effects = run(start, [*events, Tick(at=NOW + 100)])
            valid = {
                v.member
                for v in map(ARRIVALS.__getitem__, chosen)
                if v.statement == STATEMENT and v is not FORGED
            }
            assert set(state.signatures) == valid
            assert len(kinds(effects, SubmitSettlement)) == (len(valid) >= 3)
            both = {"member 3", "member 3 equivocates"} <= set(chosen)
            assert len(kinds(effects, Accuse)) == both
            if len(valid) < 3:
                ask = kinds(effects, AskVotes)[-1]
                assert set(ask.members) == {0, 1, 2, 3} - valid
                assert state.deadline == ask.deadline > NOW + 100


def received(*votes: Vote[Any], at: int = NOW + 1) -> list[VoteReceived[Any]]:
    return [VoteReceived(at=at, vote=v) for v in votes]


def begin(**change: int) -> SettlementState[EpochStatement]:
    return start_epoch(HEAD, LOG, SettlementRules(**change), now=NOW)[0]


def test_a_coordinator_killed_at_any_point_goes_on():
    """The state is a value: stored and read back between all events, it does the same."""
    events = [*received(*ARRIVALS.values()), Tick(at=NOW + 60)]
    state, stored = begin(batch=3), begin(batch=3)
    for event in events:
        state, effects = step(state, event)
        stored, same = step(pickle.loads(pickle.dumps(stored)), event)  # noqa: S301
        assert (stored, same) == (state, effects)
    assert state.phase is SettlementPhase.DONE


def test_the_quorum_submits_at_once():
    state, effects = run(begin(), received(*(vote(FOUR, i, STATEMENT) for i in (3, 0, 2))))
    (submit,) = effects
    assert submit == SubmitSettlement(submission=submission(FOUR, [0, 2, 3], STATEMENT))
    assert verify_epoch(submit.submission, HEAD).epoch == 1
    _, after = run(state, received(vote(FOUR, 1, STATEMENT)))
    assert after == []


def test_grace_lets_the_rest_join():
    votes = [vote(FOUR, i, STATEMENT) for i in range(4)]
    state, effects = run(begin(grace_seconds=5), received(*votes[:3]))
    assert (effects, state.phase, state.deadline) == ([], SettlementPhase.GRACE, NOW + 6)
    _, (full,) = run(state, received(votes[3], at=NOW + 2))
    assert full == SubmitSettlement(submission=submission(FOUR, [0, 1, 2, 3], STATEMENT))
    state, effects = run(state, [Tick(at=NOW + 5)])
    assert effects == []
    _, (rest,) = run(state, [Tick(at=NOW + 6)])
    assert rest == SubmitSettlement(submission=submission(FOUR, [0, 1, 2], STATEMENT))


def test_votes_that_cannot_decide_wait_for_their_batch():
    """Signatures are verified together: each test of a batch costs two pairings."""
    asked, effects = run(begin(batch=100, grace_seconds=5), received(vote(FOUR, 0, STATEMENT)))
    assert (effects, len(asked.pending), asked.signatures) == ([], 1, {})
    votes = [vote(FOUR, i, STATEMENT) for i in (1, 2)]
    settled, _ = run(asked, received(*votes))
    assert (len(settled.pending), set(settled.signatures)) == (0, {0, 1, 2})
    assert settled.phase is SettlementPhase.GRACE
    waiting, effects = run(settled, received(vote(FOUR, 1, OTHER_STATEMENT), at=NOW + 2))
    assert (effects, len(waiting.pending)) == ([], 1)


def test_a_full_batch_is_verified():
    """No vote of it decides anything: two of four are no quorum."""
    state, _ = run(begin(batch=2), received(vote(FOUR, 0, STATEMENT)))
    assert (len(state.pending), state.signatures) == (1, {})
    state, _ = run(state, received(vote(FOUR, 1, STATEMENT)))
    assert (state.pending, set(state.signatures)) == ((), {0, 1})


def test_a_lock_is_no_prepare_of_the_same_place():
    """Their words are the same; a vote counts only for the step that it was signed for."""
    prepare, lock = (vote(FOUR, 0, HEAD.attempt(k, 0, STATEMENT.digest)) for k in (Prepare, Lock))
    assert prepare.statement.place == lock.statement.place
    state, _ = start_prepare(HEAD, STATEMENT, 0, SettlementRules(), now=NOW)
    after, effects = run(state, received(lock))
    assert effects == [RefuseVote(member=0, reason="other-place")]
    assert run(after, received(prepare))[0].pending == (prepare,)


def test_what_waits_at_the_deadline_is_verified_before_it_is_submitted():
    """A second vote, which cannot decide anything, convicts its member all the same."""
    votes = [vote(FOUR, i, STATEMENT) for i in (0, 1, 2)]
    state, _ = run(begin(batch=100, grace_seconds=5), received(*votes))
    state, _ = run(state, received(vote(FOUR, 1, OTHER_STATEMENT), at=NOW + 2))
    state, effects = run(state, [Tick(at=NOW + 5)])
    assert (effects, state.phase, len(state.pending)) == ([], SettlementPhase.GRACE, 1)
    state, effects = run(state, [Tick(at=NOW + 6)])
    assert [type(effect) for effect in effects] == [RefuseVote, Accuse, SubmitSettlement]
    assert (state.phase, state.pending) == (SettlementPhase.DONE, ())


def test_usual_rules():
    rules = SettlementRules()
    assert (rules.batch, rules.ask_seconds, rules.grace_seconds) == (32, 60, 0)
    SettlementRules(batch=1, ask_seconds=1, grace_seconds=0)
    for name, value in (("batch", 0), ("ask_seconds", 0), ("grace_seconds", -1)):
        with pytest.raises(ValueError, match="must be positive, and grace_seconds not negative"):
            SettlementRules(**{name: value})


def test_time_never_goes_back():
    state, _ = step(begin(), Tick(at=NOW + 7))
    state, _ = step(state, Tick(at=NOW))
    assert state.now == NOW + 7


def shifted(v: Vote[Any], by: Any) -> Vote[Any]:
    point = curve.active().g2.sum([v.signature.point, by])
    return replace(v, signature=Signature.from_point(point))


def test_a_forged_batch_whose_errors_cancel():
    """S1 + D and S2 - D add up to a valid sum; neither is a vote."""
    d = signature(FOUR, 3, OTHER_STATEMENT).point
    minus = curve.active().g2.combine([d], [curve.ORDER - 1])
    forged = [shifted(vote(FOUR, 0, STATEMENT), d), shifted(vote(FOUR, 1, STATEMENT), minus)]
    total = bls.aggregate([v.signature for v in forged])
    assert total == bls.aggregate([signature(FOUR, i, STATEMENT) for i in (0, 1)])
    state, effects = run(begin(), received(*forged, vote(FOUR, 2, STATEMENT)))
    assert kinds(effects, SubmitSettlement) == []
    assert [(r.member, r.reason) for r in kinds(effects, RefuseVote)] == [
        (0, "bad-signature"),
        (1, "bad-signature"),
    ]
    # Forgeries in their names do not keep these members from voting.
    state, effects = run(state, received(vote(FOUR, 0, STATEMENT), vote(FOUR, 1, STATEMENT)))
    assert len(kinds(effects, SubmitSettlement)) == 1


def test_messages_swapped_within_a_batch():
    """Each signature is under the other's statement."""
    swapped = [
        replace(vote(FOUR, 0, STATEMENT), signature=signature(FOUR, 1, OTHER_STATEMENT)),
        replace(vote(FOUR, 1, OTHER_STATEMENT), signature=signature(FOUR, 0, STATEMENT)),
    ]
    _, effects = run(begin(), [*received(*swapped), Tick(at=NOW + 60)])
    reasons = [r.reason for r in kinds(effects, RefuseVote)]
    assert reasons == ["bad-signature", "bad-signature"]


STRANGERS: dict[str, tuple[str, Callable[[], Vote[Any]]]] = {
    "a member that there is not": (
        "unknown-member",
        lambda: replace(vote(FOUR, 0, STATEMENT), member=4),
    ),
    "another epoch": ("other-place", lambda: vote(FOUR, 0, replace(STATEMENT, epoch=1))),
    "another chain": ("other-place", lambda: vote(FOUR, 0, replace(STATEMENT, chain_id=1))),
    "another contract": (
        "other-place",
        lambda: vote(FOUR, 0, replace(STATEMENT, contract=b"\1" * 20)),
    ),
    "another term": ("other-place", lambda: vote(FOUR, 0, replace(STATEMENT, sequence=1))),
    "yesterday's committee": (
        "other-place",
        lambda: vote(NEXT, 0, replace(STATEMENT, committee=NEXT.id)),
    ),
    "a rotation": ("other-place", lambda: vote(FOUR, 0, ROTATION)),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_votes_on_something_else_are_turned_away(name: str):
    expected, make = STRANGERS[name]
    made = make()
    state, effects = run(begin(), received(made))
    assert effects == [RefuseVote(member=made.member, reason=expected)]
    assert state.pending == ()


def test_a_member_is_accused_once():
    third = statement(HEAD, log(range(2, 9)))
    votes = [vote(FOUR, 3, s) for s in (STATEMENT, OTHER_STATEMENT, third)]
    for order in itertools.permutations(votes):
        _, effects = run(begin(batch=1), received(*order))
        (accusation,) = kinds(effects, Accuse)
        accusation.evidence.verify(FOUR)


def test_equivocation_is_seen_after_the_submission():
    state, _ = run(begin(), received(*(vote(FOUR, i, STATEMENT) for i in (0, 1, 2))))
    assert state.phase is SettlementPhase.DONE
    state, effects = run(state, received(vote(FOUR, 2, OTHER_STATEMENT)))
    (accusation,) = kinds(effects, Accuse)
    assert accusation.evidence == Equivocation.of(
        vote(FOUR, 2, OTHER_STATEMENT), vote(FOUR, 2, STATEMENT)
    )
    _, effects = run(state, received(FORGED, vote(FOUR, 2, OTHER_STATEMENT)))
    assert [r.reason for r in kinds(effects, RefuseVote)] == ["bad-signature", "duplicate"]


def test_two_quorums_share_equivocators():
    """More than a third of the weight: the reason for the two thirds."""
    for first in itertools.combinations(range(4), 3):
        for second in itertools.combinations(range(4), 3):
            shared = set(first) & set(second)
            assert 3 * FOUR.weight(frozenset(shared)) > FOUR.total
            state, _ = run(begin(), received(*(vote(FOUR, i, STATEMENT) for i in first)))
            _, effects = run(state, received(*(vote(FOUR, i, OTHER_STATEMENT) for i in second)))
            accused = {a.evidence.first.member for a in kinds(effects, Accuse)}
            assert accused == shared
        if first == (0, 1, 3):
            break


@pytest.mark.parametrize("grace", [0, 5])
def test_keys_that_cancel_out_delay_and_do_no_more(grace: int):
    x = SecretKey.generate(b"\x77" * 32)
    minus = SecretKey(curve.ORDER - int.from_bytes(x.encode(), "big"))

    def member(held: SecretKey, weight: int) -> Member:
        proof = prove_registration(held, CHAIN, b"\1" * 20)
        key = registered_key(held.public_key, proof, CHAIN, b"\1" * 20)
        return Member(key=key, weight=weight)

    third = SecretKey.generate(b"\x78" * 32)
    of = Committee.of(CHAIN, [member(x, 4), member(minus, 4), member(third, 1)])
    head = Head(committee=of)
    s = statement(head, LOG)

    def by(held: SecretKey) -> Vote[EpochStatement]:
        return Vote(
            statement=s,
            member=of.index(held.public_key),
            signature=held.sign(s.message, domain=s.DOMAIN),
        )

    state, _ = start_epoch(head, LOG, SettlementRules(grace_seconds=grace), now=NOW)
    missing = (of.index(third.public_key),)
    for at in (NOW + 60, NOW + 120):
        state, effects = run(state, [*received(by(x), by(minus)), Tick(at=at)])
        assert kinds(effects, SubmitSettlement) == []
        asked = AskVotes(statement=s, members=missing, deadline=at + 60)
        assert effects[-1] == asked and state.deadline == asked.deadline
    _, effects = run(state, received(by(third)))
    (submit,) = kinds(effects, SubmitSettlement)
    assert verify_epoch(submit.submission, head).epoch == 1


def test_a_rotation_is_collected_the_same_way():
    state, (ask,) = start_rotation(HEAD, NEXT, SettlementRules(), now=NOW)
    assert isinstance(ask, AskVotes)
    assert ask.statement == ROTATION
    _, effects = run(state, received(*(vote(FOUR, i, ROTATION) for i in range(3))))
    (submit,) = kinds(effects, SubmitSettlement)
    assert verify_rotation(submit.submission, HEAD, NEXT) == Head(committee=NEXT, sequence=1)


def test_an_epoch_starts_in_its_turn():
    with pytest.raises(SettlementError, match="other-epoch"):
        start_epoch(HEAD, log([1], epoch=1), SettlementRules(), now=NOW)
    for change in ({"batch": 0}, {"ask_seconds": 0}, {"grace_seconds": -1}):
        with pytest.raises(ValueError, match="positive"):
            SettlementRules(**change)
    least = SettlementRules(batch=1, ask_seconds=1, grace_seconds=0)
    assert (least.batch, least.ask_seconds, least.grace_seconds) == (1, 1, 0)


def test_from_verdicts_to_the_head_and_on():
    """Two epochs and a rotation between them, each member with its own memory."""
    head, incoming = HEAD, NEXT
    signers = {i: Signer(head=head, policy=POLICY) for i in range(4)}
    for epoch in range(2):
        records = [record(i, epoch=epoch) for i in range(5 + epoch)]
        state, (ask,) = start_epoch(head, EpochLog.of(records), SettlementRules(), now=NOW)
        assert isinstance(ask, AskVotes)
        submits: list[SubmitSettlement[Any]] = []
        for i in ask.members:
            key = holder(head.committee, i)
            decided = decision(head, ask.statement)
            signers[i], made = sign_epoch(key, signers[i], ask.statement, records, decided)
            wire = Vote.decode(EpochStatement, made.encode())
            state, effects = step(state, VoteReceived(at=NOW, vote=wire))
            submits += kinds(effects, SubmitSettlement)
        (submit,) = submits
        head = verify_epoch(submit.submission, head)
        if epoch == 0:
            turn = submission(head.committee, [0, 1, 2], head.rotation(incoming))
            head = verify_rotation(turn, head, incoming)
            signers = {i: Signer(head=head, policy=POLICY) for i in range(3)}
    assert (head.epoch, head.sequence, head.committee) == (2, 1, NEXT)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_batch_test_and_one_by_one_agree(data: st.DataObject):
    """The real batch verification, on random arrivals, against each signature alone."""
    pool = [*ARRIVALS.values(), vote(FOUR, 0, OTHER_STATEMENT), vote(FOUR, 1, OTHER_STATEMENT)]
    chosen = data.draw(st.lists(st.sampled_from(pool), max_size=8))
    batch = data.draw(st.integers(1, 8))
    state, effects = run(begin(batch=batch), [*received(*chosen), Tick(at=NOW + 60)])
    valid = {v.member for v in chosen if v.statement == STATEMENT and v is not FORGED}
    assert set(state.signatures) == valid
    assert bool(kinds(effects, SubmitSettlement)) == FOUR.has_quorum(frozenset(valid))
