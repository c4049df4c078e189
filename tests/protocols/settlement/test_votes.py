"""Votes: what a member signs, and how two votes convict it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.settlement.ballots import MemberBallot
from protocols.settlement.committee import Committee
from protocols.settlement.signer import (
    Signer,
    prepare_epoch,
    prepare_rotation,
    sign_epoch,
    sign_rotation,
)
from protocols.settlement.statements import (
    EpochStatement,
    Lock,
    Prepare,
    Rotation,
    SettlementError,
)
from protocols.settlement.submission import Head
from protocols.settlement.verdicts import VerdictRecord
from protocols.settlement.votes import Equivocation, Vote
from tests.helpers.committees import (
    ELSEWHERE,
    FOUR,
    HEAD,
    LOG,
    NEXT,
    OTHER_LOG,
    OTHER_STATEMENT,
    POLICY,
    RECORDS,
    ROTATION,
    STATEMENT,
    committee,
    decision,
    holder,
    record,
    secret,
    signature,
    statement,
    vote,
)
from verifiable import encoding
from verifiable.bls import BadSignature
from verifiable.errors import MalformedEncoding, VerificationError
from verifiable.report import Verdict

SIGNER = Signer(head=HEAD, policy=POLICY)
DECISION, TURN = decision(HEAD, STATEMENT), decision(HEAD, ROTATION)


def test_a_member_signs_what_it_holds():
    after, made = sign_epoch(holder(FOUR, 2), SIGNER, STATEMENT, reversed(RECORDS), DECISION)
    made.verify(FOUR)
    assert made == vote(FOUR, 2, STATEMENT)
    ballot = MemberBallot(signed=STATEMENT.digest)
    assert after == replace(SIGNER, epoch_signed=STATEMENT, ballot=ballot)
    again, same = sign_epoch(holder(FOUR, 2), after, STATEMENT, RECORDS, DECISION)
    assert (again, same) == (after, made)


UNSIGNED: dict[str, tuple[str, dict[str, Any], Iterable[VerdictRecord], Signer]] = {
    "a root whose data it does not hold": ("other-size", {}, RECORDS[:-1], SIGNER),
    "no data": ("no-verdicts", {}, [], SIGNER),
    "other verdicts": ("other-root", {}, OTHER_LOG.records, SIGNER),
    "a verdict more": ("other-size", {}, [*RECORDS, record(9)], SIGNER),
    "one verdict turned": (
        "other-root",
        {},
        [*RECORDS[:-1], record(6, verdict=Verdict.REJECT, answer=None)],
        SIGNER,
    ),
    "another root over its data": ("other-root", {"root": b"\1" * 32}, RECORDS, SIGNER),
    "another size of its data": ("other-size", {"size": 8}, RECORDS, SIGNER),
    "another policy": ("other-policy", {"policy": b"\1" * 32}, RECORDS, SIGNER),
    "verdicts under a policy not its own": (
        "other-policy",
        {},
        RECORDS,
        replace(SIGNER, policy=b"\1" * 32),
    ),
    "verdicts under another policy than they say": (
        "other-policy",
        {"policy": b"\1" * 32},
        RECORDS,
        replace(SIGNER, policy=b"\1" * 32),
    ),
    "another chain": ("other-chain", {"chain_id": 1}, RECORDS, SIGNER),
    "another contract": ("other-contract", {"contract": b"\1" * 20}, RECORDS, SIGNER),
    "another committee": ("other-committee", {"committee": NEXT.id}, RECORDS, SIGNER),
    "another term": ("other-sequence", {"sequence": 1}, RECORDS, SIGNER),
    "another past": ("other-previous-root", {"previous_root": b"\1" * 32}, RECORDS, SIGNER),
    "an epoch ahead": ("epoch-ahead", {"epoch": 1}, RECORDS, SIGNER),
    "a settled epoch": (
        "epoch-settled",
        {},
        RECORDS,
        replace(SIGNER, head=replace(HEAD, epoch=1, root=STATEMENT.root)),
    ),
    "verdicts of another epoch": (
        "other-epoch",
        {},
        [record(i, epoch=1) for i in range(7)],
        SIGNER,
    ),
    "a second statement for one epoch": (
        "already-signed",
        {},
        RECORDS,
        replace(SIGNER, epoch_signed=OTHER_STATEMENT),
    ),
}


@pytest.mark.parametrize("name", UNSIGNED)
def test_a_member_signs_nothing_else(name: str):
    expected, change, held, signer = UNSIGNED[name]
    proposal, held = replace(STATEMENT, **change), list(held)
    with pytest.raises(SettlementError) as raised:
        sign_epoch(holder(FOUR, 0), signer, proposal, held, decision(HEAD, proposal))
    assert raised.value.reason == expected
    if signer.epoch_signed is None:
        with pytest.raises(SettlementError) as raised:
            prepare_epoch(holder(FOUR, 0), signer, proposal, held)
        assert raised.value.reason == expected


def test_a_stranger_signs_nothing():
    with pytest.raises(SettlementError, match="unknown-member"):
        sign_epoch(holder(NEXT, 0), SIGNER, STATEMENT, RECORDS, DECISION)


def test_a_member_signs_one_rotation_a_term():
    other = committee((1, 1, 1), first=13)
    after, made = sign_rotation(holder(FOUR, 1), SIGNER, ROTATION, NEXT, TURN)
    made.verify(FOUR)
    assert after.rotation_signed == ROTATION
    with pytest.raises(SettlementError, match="already-signed"):
        sign_rotation(
            holder(FOUR, 1),
            after,
            HEAD.rotation(other),
            other,
            decision(HEAD, HEAD.rotation(other)),
        )
    with pytest.raises(SettlementError, match="other-incoming"):
        sign_rotation(holder(FOUR, 1), SIGNER, ROTATION, other, TURN)
    with pytest.raises(SettlementError, match="other-chain"):
        sign_rotation(holder(FOUR, 1), SIGNER, replace(ROTATION, chain_id=1), NEXT, TURN)
    # The next epoch or the rotation: one of them comes next, never both.
    with pytest.raises(SettlementError, match="already-signed"):
        sign_epoch(holder(FOUR, 1), after, STATEMENT, RECORDS, DECISION)


@pytest.mark.parametrize(
    ("change", "incoming", "expected"),
    [
        ({}, committee((1, 1, 1), first=13), "other-incoming"),
        ({"incoming": b"\1" * 32}, NEXT, "other-incoming"),
        ({"chain_id": 1}, NEXT, "other-chain"),
        ({"sequence": 1}, NEXT, "other-sequence"),
        ({"committee": NEXT.id}, NEXT, "other-committee"),
    ],
)
def test_a_member_prepares_no_rotation_but_its_own(
    change: dict[str, Any], incoming: Committee, expected: str
):
    with pytest.raises(SettlementError) as raised:
        prepare_rotation(holder(FOUR, 1), SIGNER, replace(ROTATION, **change), incoming)
    assert raised.value.reason == expected


def test_after_a_rotation_an_unsettled_epoch_is_signed_again():
    """The new term is a new place: a member of both committees does not equivocate."""
    both, key = committee((2, 1, 1), first=1), secret(1)
    before, first = sign_epoch(key, SIGNER, STATEMENT, RECORDS, DECISION)
    head = Head(committee=both, sequence=1)
    again = statement(head, LOG)
    decided = decision(head, again)
    _, second = sign_epoch(key, before.follow(head), again, RECORDS, decided)
    with pytest.raises(SettlementError, match="no-conflict"):
        Equivocation.of(first, replace(second, member=first.member))


def test_a_signer_never_goes_back():
    ahead = SIGNER.follow(replace(HEAD, epoch=2, sequence=1))
    for head in (replace(HEAD, epoch=1, sequence=1), replace(HEAD, epoch=2, sequence=0)):
        with pytest.raises(ValueError, match="never goes back"):
            ahead.follow(head)
    away = Head(committee=committee((1, 1, 1), 10, ELSEWHERE))
    with pytest.raises(ValueError, match="one contract"):
        SIGNER.follow(away)


def test_a_signer_killed_after_signing_remembers():
    """The memory stored before the vote is sent prevents any other signature for its place."""
    before, _ = sign_epoch(holder(FOUR, 0), SIGNER, STATEMENT, RECORDS, DECISION)
    again = Signer.decode(before.encode(), HEAD)
    assert again == before
    with pytest.raises(SettlementError, match="already-signed"):
        sign_epoch(
            holder(FOUR, 0),
            again,
            OTHER_STATEMENT,
            OTHER_LOG.records,
            decision(HEAD, OTHER_STATEMENT),
        )
    assert Signer.decode(SIGNER.encode(), HEAD) == SIGNER
    ahead = replace(HEAD, epoch=3, sequence=2)
    assert Signer.decode(before.encode(), ahead) == before.follow(ahead)


def test_stored_memory_is_of_one_chain_and_never_ahead():
    stored = SIGNER.follow(replace(HEAD, epoch=3)).encode()
    with pytest.raises(ValueError, match="never goes back"):
        Signer.decode(stored, HEAD)
    with pytest.raises(ValueError, match="one contract"):
        Signer.decode(stored, Head(committee=committee((1, 1, 1), 10, ELSEWHERE), epoch=3))
    fields = encoding.decode(stored, max_size=1024)
    assert fields[:2] == ["signer", 2]  # what an earlier release stored is read
    wrong = {
        0: "vote",
        1: 1,
        2: None,
        3: b"",
        4: "1",
        5: None,
        6: b"\1" * 287,
        7: STATEMENT.message,
        8: None,
        9: 1,
        10: 1,
        11: b"",
    }
    for at, value in wrong.items():
        changed = encoding.encode([*fields[:at], value, *fields[at + 1 :]])
        with pytest.raises((MalformedEncoding, ValueError)):
            Signer.decode(changed, replace(HEAD, epoch=3))
    with pytest.raises(MalformedEncoding):
        Signer.decode(encoding.encode(fields[:-1]), replace(HEAD, epoch=3))


@pytest.mark.parametrize("value", [1, True, "text", [b""]], ids=repr)
@pytest.mark.parametrize("at", [2, 5, 6, 7, 9, 10, 11])
def test_bytes_of_a_stored_memory_are_nothing_else(at: int, value: object):
    fields = encoding.decode(SIGNER.encode(), max_size=1024)
    changed = encoding.encode([*fields[:at], value, *fields[at + 1 :]])
    with pytest.raises(MalformedEncoding):
        Signer.decode(changed, HEAD)


def test_votes_and_evidence_survive_the_wire():
    made = vote(FOUR, 1, STATEMENT)
    assert Vote.decode(EpochStatement, made.encode()) == made
    turn = vote(FOUR, 1, ROTATION)
    assert Vote.decode(Rotation, turn.encode()) == turn
    evidence = Equivocation.of(made, vote(FOUR, 1, OTHER_STATEMENT))
    assert evidence == Equivocation.of(vote(FOUR, 1, OTHER_STATEMENT), made)
    assert Equivocation.decode(EpochStatement, evidence.encode()) == evidence
    evidence.verify(FOUR)
    with pytest.raises(MalformedEncoding):
        Vote.decode(Rotation, made.encode())
    with pytest.raises(MalformedEncoding):
        Equivocation.decode(Rotation, evidence.encode())
    with pytest.raises(MalformedEncoding):
        Vote.decode(EpochStatement, evidence.encode())
    for kind, name in ((Vote, "epoch vote"), (Equivocation, "epoch equivocation")):
        for fields in ([], [1], [None] * 3, [None] * 5, [1, b"", b"", b"", b"", b""]):
            with pytest.raises(MalformedEncoding):
                kind.decode(EpochStatement, encoding.encode([name, 1, *fields]))


def test_a_second_rotation_is_evidence_too():
    other = HEAD.rotation(committee((1, 1, 1), first=13))
    Equivocation.of(vote(FOUR, 3, ROTATION), vote(FOUR, 3, other)).verify(FOUR)


A, B = vote(FOUR, 1, STATEMENT), vote(FOUR, 1, OTHER_STATEMENT)
FRAMES: dict[str, tuple[str, Callable[[], None]]] = {
    "one statement twice": ("no-conflict", lambda: Equivocation.of(A, A).verify(FOUR)),
    "two members": (
        "no-conflict",
        lambda: Equivocation.of(A, vote(FOUR, 2, OTHER_STATEMENT)).verify(FOUR),
    ),
    "two epochs": (
        "no-conflict",
        lambda: Equivocation.of(A, vote(FOUR, 1, replace(OTHER_STATEMENT, epoch=1))).verify(FOUR),
    ),
    "two terms": (
        "no-conflict",
        lambda: Equivocation.of(A, vote(FOUR, 1, replace(OTHER_STATEMENT, sequence=1))).verify(
            FOUR
        ),
    ),
    "two chains": (
        "no-conflict",
        lambda: Equivocation.of(A, vote(FOUR, 1, replace(OTHER_STATEMENT, chain_id=1))).verify(
            FOUR
        ),
    ),
    "a prepare and a lock": (
        "no-conflict",
        lambda: Equivocation.of(
            vote(FOUR, 1, HEAD.attempt(Prepare, 0, STATEMENT.digest)),
            vote(FOUR, 1, HEAD.attempt(Lock, 0, OTHER_STATEMENT.digest)),  # pyright: ignore[reportArgumentType]
        ).verify(FOUR),
    ),
    "out of order": (
        "no-conflict",
        lambda: Equivocation(
            first=max(A, B, key=lambda v: v.statement.message),
            second=min(A, B, key=lambda v: v.statement.message),
        ).verify(FOUR),
    ),
    "another's signature on the second": (
        "BadSignature",
        lambda: Equivocation.of(
            A, replace(B, signature=signature(FOUR, 2, OTHER_STATEMENT))
        ).verify(FOUR),
    ),
    "the first signature again": (
        "BadSignature",
        lambda: Equivocation.of(A, replace(B, signature=A.signature)).verify(FOUR),
    ),
    "members of another committee": (
        "other-committee",
        lambda: Equivocation.of(A, B).verify(NEXT),
    ),
    "a member that does not exist": (
        "unknown-member",
        lambda: Equivocation.of(replace(A, member=4), replace(B, member=4)).verify(FOUR),
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_an_honest_member_is_not_framed(name: str):
    expected, accuse = FRAMES[name]
    with pytest.raises(VerificationError) as raised:
        accuse()
    found = raised.value
    assert (found.reason if isinstance(found, SettlementError) else type(found).__name__) == (
        expected
    )


@pytest.mark.parametrize("side", ["first", "second"])
def test_both_votes_of_the_evidence_are_verified(side: str):
    evidence = Equivocation.of(A, B)
    true = getattr(evidence, side)
    forged = replace(true, signature=signature(FOUR, 2, true.statement))
    with pytest.raises(BadSignature):
        replace(evidence, **{side: forged}).verify(FOUR)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_decoders_of_votes_raise_nothing_else(data: st.DataObject):
    for made in (A, Equivocation.of(A, B)):
        raw = bytearray(made.encode())
        for _ in range(data.draw(st.integers(1, 2))):
            at = data.draw(st.integers(0, len(raw)))
            raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        try:
            read = type(made).decode(EpochStatement, bytes(raw))
            assert read.encode() == bytes(raw)
            read.verify(FOUR)
        except VerificationError:
            continue
        assert read == made


@pytest.mark.parametrize("change", [{"signature": A.signature.encoded}, {"statement": None}])
def test_votes_are_of_statements_and_signatures(change: dict[str, Any]):
    with pytest.raises(TypeError):
        replace(A, **change)


@pytest.mark.parametrize("member", [256, -1, 2**64 - 1, True, None, b"\1", 1.0])
def test_members_have_numbers(member: Any):
    fields = ["epoch vote", 1, member, STATEMENT.message, A.signature.encoded]
    with pytest.raises(MalformedEncoding):
        Vote.decode(EpochStatement, encoding.encode(fields))
    with pytest.raises((ValueError, TypeError)):
        Vote(statement=STATEMENT, member=member, signature=A.signature)
