"""Submissions: named cheats with epochs and rotations, and their one encoding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.settlement.attempts import BrokenReport, Justification
from protocols.settlement.committee import (
    Committee,
    Member,
    prove_registration,
    registered_key,
)
from protocols.settlement.receipts import Receipt
from protocols.settlement.statements import (
    EpochStatement,
    Rotation,
    SettlementError,
)
from protocols.settlement.submission import (
    Head,
    SettlementSubmission,
    verify_epoch,
    verify_rotation,
)
from protocols.settlement.verdicts import VerdictRecord
from protocols.settlement.votes import Equivocation, Vote
from tests.helpers.committees import (
    CHAIN,
    ELSEWHERE,
    FOUR,
    HEAD,
    HONEST,
    LOG,
    NEXT,
    REGISTRANT,
    ROTATION,
    STATEMENT,
    committee,
    holder,
    key,
    log,
    secret,
    signature,
    statement,
    submission,
)
from verifiable import bls, encoding
from verifiable.bls import (
    InfiniteAggregate,
    InvalidPoint,
    SecretKey,
    Signature,
    curve,
)
from verifiable.errors import MalformedEncoding, VerificationError

NINE = committee((1,) * 9, first=20)
SETTLED = verify_epoch(HONEST, HEAD)


def reason(error: VerificationError) -> str:
    """The reason of an error, or its type if it has none."""
    return error.reason if isinstance(error, SettlementError) else type(error).__name__


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 3)))
def test_a_quorum_settles_and_nothing_less(signers: set[int]):
    if len(signers) >= 3:
        after = verify_epoch(submission(FOUR, sorted(signers), STATEMENT), HEAD)
        assert after == Head(committee=FOUR, sequence=0, epoch=1, root=STATEMENT.root)
        return
    made = SettlementSubmission(
        statement=STATEMENT, signature=HONEST.signature, bitmap=FOUR.bitmap(signers)
    )
    with pytest.raises(SettlementError) as raised:
        verify_epoch(made, HEAD)
    assert raised.value.reason == "no-quorum"


def test_epochs_follow_one_another():
    second = statement(SETTLED, log([9], epoch=1))
    assert second.previous_root == STATEMENT.root
    after = verify_epoch(submission(FOUR, [1, 2, 3], second), SETTLED)
    assert (after.epoch, after.root) == (2, second.root)


def signed(
    change: dict[str, Any], signers: tuple[int, ...] = (0, 1, 2, 3)
) -> SettlementSubmission[Any]:
    """A submission that the whole committee signed, of a statement with wrong fields."""
    return submission(FOUR, signers, replace(STATEMENT, **change))


def forged(change: dict[str, Any]) -> SettlementSubmission[Any]:
    """The honest signature under another statement."""
    return replace(HONEST, statement=replace(STATEMENT, **change))


def opposite() -> Signature:
    group = curve.active().g2
    return Signature.from_point(group.combine([HONEST.signature.point], [curve.ORDER - 1]))


def as_signature(domain: bytes, message: bytes) -> Signature:
    return bls.aggregate([holder(FOUR, i).sign(message, domain=domain) for i in (0, 1, 2)])


@dataclass(frozen=True)
class Cheat:
    """A submission that must be refused, at which head, and why."""

    name: str
    expect: str
    make: Callable[[], SettlementSubmission[Any]]
    head: Head = HEAD


TWICE = bls.aggregate([signature(FOUR, 0, STATEMENT)] * 2 + [signature(FOUR, 1, STATEMENT)])
ROTATED = Head(committee=NEXT, sequence=1, epoch=0)
BACK_IN_OFFICE = Head(committee=FOUR, sequence=2)
CHEATS = [
    Cheat("another chain", "other-chain", lambda: signed({"chain_id": 1})),
    Cheat("another contract", "other-contract", lambda: signed({"contract": b"\xc1" * 20})),
    Cheat("settled twice", "epoch-settled", lambda: HONEST, SETTLED),
    Cheat("out of order", "epoch-ahead", lambda: signed({"epoch": 1})),
    Cheat("far ahead", "epoch-ahead", lambda: signed({"epoch": 2**64 - 1})),
    Cheat(
        "the same epoch with other verdicts",
        "epoch-settled",
        lambda: signed({"root": b"\1" * 32}),
        SETTLED,
    ),
    Cheat(
        "a fork of the past",
        "other-previous-root",
        lambda: signed({"epoch": 1, "previous_root": b"\1" * 32}),
        SETTLED,
    ),
    Cheat(
        "a past where there is none",
        "other-previous-root",
        lambda: signed({"previous_root": b"\1" * 32}),
    ),
    Cheat("yesterday's committee", "other-committee", lambda: HONEST, ROTATED),
    Cheat(
        "yesterday's committee in today's name",
        "BadSignature",
        lambda: replace(
            HONEST,
            statement=replace(STATEMENT, committee=NEXT.id, sequence=1),
            bitmap=NEXT.bitmap([0, 1, 2]),
        ),
        ROTATED,
    ),
    Cheat(
        "the same committee, of an earlier term", "other-sequence", lambda: HONEST, BACK_IN_OFFICE
    ),
    Cheat("a later term", "other-sequence", lambda: signed({"sequence": 1})),
    Cheat("below quorum", "no-quorum", lambda: signed({}, (0, 1))),
    Cheat("no signer", "no-quorum", lambda: replace(HONEST, bitmap=b"\0")),
    Cheat("bitmap too long", "bitmap-length", lambda: replace(HONEST, bitmap=b"\x07\0")),
    Cheat(
        "bitmap too short",
        "bitmap-length",
        lambda: replace(submission(NINE, list(range(9)), STATEMENT_9), bitmap=b"\xff"),
        Head(committee=NINE),
    ),
    Cheat("bit beyond the committee", "bitmap-excess", lambda: replace(HONEST, bitmap=b"\x17")),
    Cheat("a member who did not sign", "BadSignature", lambda: replace(HONEST, bitmap=b"\x0f")),
    Cheat("other members than signed", "BadSignature", lambda: replace(HONEST, bitmap=b"\x0e")),
    Cheat("a signer counted twice", "BadSignature", lambda: replace(HONEST, signature=TWICE)),
    Cheat(
        "a signer left out of the sum",
        "BadSignature",
        lambda: replace(
            HONEST, signature=bls.aggregate([signature(FOUR, i, STATEMENT) for i in (0, 1)])
        ),
    ),
    Cheat("another root", "BadSignature", lambda: forged({"root": b"\1" * 32})),
    Cheat("another size", "BadSignature", lambda: forged({"size": 6})),
    Cheat("another policy", "BadSignature", lambda: forged({"policy": b"\1" * 32})),
    Cheat(
        "an older version's domain",
        "BadSignature",
        lambda: replace(
            HONEST, signature=as_signature(b"verifiable epoch statement 0", STATEMENT.message)
        ),
    ),
    Cheat(
        "signed as a rotation",
        "BadSignature",
        lambda: replace(HONEST, signature=as_signature(Rotation.DOMAIN, STATEMENT.message)),
    ),
    Cheat("the negated signature", "BadSignature", lambda: replace(HONEST, signature=opposite())),
    Cheat(
        "proofs of possession added up",
        "BadSignature",
        lambda: replace(
            HONEST,
            signature=bls.aggregate(
                [Signature(FOUR.members[i].key.possession.encoded) for i in (0, 1, 2)]
            ),
        ),
    ),
]
STATEMENT_9 = statement(Head(committee=NINE), LOG)


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.name)
def test_cheats_are_refused_by_name(cheat: Cheat):
    made = cheat.make()
    with pytest.raises(VerificationError) as raised:
        verify_epoch(made, cheat.head)
    assert reason(raised.value) == cheat.expect


def test_the_honest_submission_of_the_table_settles():
    """So the rows above are refused only for their cheats."""
    assert verify_epoch(HONEST, HEAD).epoch == 1
    assert (
        verify_epoch(submission(NINE, list(range(9)), STATEMENT_9), Head(committee=NINE)).epoch == 1
    )


def test_keys_that_cancel_out_are_refused():
    """Two holders who chose x and -x: infinity verifies for any message, if it is let in."""
    x = secret(40)
    minus = SecretKey(curve.ORDER - int.from_bytes(x.encode(), "big"))
    proof = prove_registration(minus, CHAIN, REGISTRANT)
    of = Committee.of(
        CHAIN,
        [
            Member(key=key(40), weight=4),
            Member(key=registered_key(minus.public_key, proof, CHAIN, REGISTRANT), weight=4),
            Member(key=key(41), weight=1),
        ],
    )
    bitmap = of.bitmap(i for i, m in enumerate(of.members) if m.weight == 4)
    made = replace(HONEST, statement=statement(Head(committee=of), LOG), bitmap=bitmap)
    with pytest.raises(InfiniteAggregate):
        verify_epoch(made, Head(committee=of))


@pytest.mark.parametrize(
    "data",
    [b"\xc0" + bytes(95), b"\xe0" + bytes(95), bytes(96), b"\xc0" + bytes(47)],
    ids=["infinity", "infinity with a sign", "uncompressed zeros", "infinity of 48 bytes"],
)
def test_infinity_is_no_signature_of_anybody(data: bytes):
    fields = ["epoch submission", 1, STATEMENT.message, data, b"\x07"]
    with pytest.raises(InvalidPoint):
        SettlementSubmission.decode(EpochStatement, encoding.encode(fields))


def test_errors_carry_both_sides():
    with pytest.raises(SettlementError, match="expected 31337, found 1") as raised:
        verify_epoch(signed({"chain_id": 1}), HEAD)
    assert (raised.value.expected, raised.value.found) == (31337, 1)
    with pytest.raises(SettlementError, match=FOUR.id.hex()):
        verify_epoch(signed({"committee": b"\1" * 32}), HEAD)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chain_id", 1),
        ("contract", b"\1" * 20),
        ("epoch", 1),
        ("committee", b"\1" * 32),
        ("sequence", 1),
        ("previous_root", b"\1" * 32),
    ],
)
def test_what_is_expected_is_the_heads(name: str, value: Any):
    with pytest.raises(SettlementError) as raised:
        verify_epoch(forged({name: value}), HEAD)
    assert (raised.value.expected, raised.value.found) == (getattr(STATEMENT, name), value)


def test_what_is_expected_of_a_rotation_is_the_incoming_committee():
    made = submission(FOUR, [0, 1, 2], ROTATION)
    with pytest.raises(SettlementError, match="other-incoming") as raised:
        verify_rotation(made, HEAD, OTHER)
    assert (raised.value.expected, raised.value.found) == (OTHER.id, NEXT.id)
    with pytest.raises(SettlementError, match="unregistered-key") as raised:
        verify_rotation(submission(FOUR, [0, 1, 2], HEAD.rotation(AWAY)), HEAD, AWAY)
    assert (raised.value.expected, raised.value.found) == (CHAIN.words, ELSEWHERE.words)


def test_a_submission_of_another_kind_is_the_callers_mistake():
    made: Any = submission(FOUR, [0, 1, 2], ROTATION)
    with pytest.raises(TypeError, match="EpochStatement"):
        verify_epoch(made, HEAD)
    honest: Any = HONEST
    with pytest.raises(TypeError, match="Rotation"):
        verify_rotation(honest, HEAD, NEXT)
    with pytest.raises(ValueError, match="bitmap"):
        replace(HONEST, bitmap=b"")
    with pytest.raises(ValueError, match="bitmap"):
        replace(HONEST, bitmap=bytes(33))


def test_a_committee_hands_over():
    after = verify_rotation(submission(FOUR, [0, 1, 2], ROTATION), HEAD, NEXT)
    assert after == Head(committee=NEXT, sequence=1)
    theirs = statement(after, LOG)
    assert verify_epoch(submission(NEXT, [0, 1, 2], theirs), after).epoch == 1
    back = submission(NEXT, [0, 1, 2], after.rotation(FOUR))
    assert verify_rotation(back, after, FOUR) == Head(committee=FOUR, sequence=2)


OTHER = committee((1, 1, 1), first=13)
ROTATIONS: list[tuple[str, str, Callable[[], SettlementSubmission[Rotation]], Head, Committee]] = [
    ("replayed", "other-committee", lambda: submission(FOUR, [0, 1, 2], ROTATION), ROTATED, NEXT),
    (
        "replayed in a later term",
        "other-sequence",
        lambda: submission(FOUR, [0, 1, 2], ROTATION),
        BACK_IN_OFFICE,
        NEXT,
    ),
    (
        "to another committee",
        "other-incoming",
        lambda: submission(FOUR, [0, 1, 2], ROTATION),
        HEAD,
        OTHER,
    ),
    (
        "signed by the incoming committee",
        "BadSignature",
        lambda: replace(submission(NEXT, [0, 1, 2], ROTATION), bitmap=b"\x07"),
        HEAD,
        NEXT,
    ),
    ("below quorum", "no-quorum", lambda: submission(FOUR, [0, 1], ROTATION), HEAD, NEXT),
    (
        "on another chain",
        "other-chain",
        lambda: submission(FOUR, [0, 1, 2], replace(ROTATION, chain_id=1)),
        HEAD,
        NEXT,
    ),
    (
        "at another contract",
        "other-contract",
        lambda: submission(FOUR, [0, 1, 2], replace(ROTATION, contract=b"\xc1" * 20)),
        HEAD,
        NEXT,
    ),
    (
        "to keys registered on another chain",
        "unregistered-key",
        lambda: submission(FOUR, [0, 1, 2], HEAD.rotation(AWAY)),
        HEAD,
        committee((1, 1, 1), 10, ELSEWHERE),
    ),
    (
        "an attestation passed off as a rotation",
        "BadSignature",
        lambda: replace(
            submission(FOUR, [0, 1, 2], ROTATION),
            signature=as_signature(EpochStatement.DOMAIN, ROTATION.message),
        ),
        HEAD,
        NEXT,
    ),
    (
        "the bits of an attestation",
        "BadSignature",
        lambda: replace(submission(FOUR, [0, 1, 2], ROTATION), signature=HONEST.signature),
        HEAD,
        NEXT,
    ),
]
AWAY = committee((1, 1, 1), 10, ELSEWHERE)


@pytest.mark.parametrize("row", ROTATIONS, ids=lambda row: row[0])
def test_cheats_with_rotations_are_refused_by_name(row: Any):
    _, expect, make, head, incoming = row
    made = make()
    with pytest.raises(VerificationError) as raised:
        verify_rotation(made, head, incoming)
    assert reason(raised.value) == expect


def test_submissions_survive_the_wire():
    assert SettlementSubmission.decode(EpochStatement, HONEST.encode()) == HONEST
    made = submission(FOUR, [0, 1, 3], ROTATION)
    assert SettlementSubmission.decode(Rotation, made.encode()) == made
    with pytest.raises(MalformedEncoding):
        SettlementSubmission.decode(Rotation, HONEST.encode())
    with pytest.raises(MalformedEncoding):
        SettlementSubmission.decode(EpochStatement, made.encode())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_changed_submissions_are_malformed_or_refused(data: st.DataObject):
    """No change to the bytes of a submission settles another statement."""
    raw = bytearray(HONEST.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        made = SettlementSubmission.decode(EpochStatement, bytes(raw))
        assert made.encode() == bytes(raw)
        verify_epoch(made, HEAD)
    except VerificationError:
        return
    assert made == HONEST


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=600)
    | st.lists(
        st.just("epoch submission") | st.just(1) | st.binary(max_size=40) | st.none(), max_size=6
    ).map(encoding.encode)
)
def test_the_decoder_of_submissions_raises_nothing_else(data: bytes):
    with pytest.raises(MalformedEncoding):
        SettlementSubmission.decode(EpochStatement, data)


NOT_ONE: dict[str, list[Any]] = {
    "another version": ["epoch submission", 2, STATEMENT.message, HONEST.signature.encoded, b"\7"],
    "version as a float": ["epoch submission", 1.0, STATEMENT.message, b"", b"\7"],
    "version as true": [
        "epoch submission",
        True,
        STATEMENT.message,
        HONEST.signature.encoded,
        b"\7",
    ],
    "no bitmap": ["epoch submission", 1, STATEMENT.message, HONEST.signature.encoded, b""],
    "a bitmap of more members than a committee has": [
        "epoch submission",
        1,
        STATEMENT.message,
        HONEST.signature.encoded,
        bytes(32) + b"\1",
    ],
    "null bitmap": ["epoch submission", 1, STATEMENT.message, HONEST.signature.encoded, None],
    "a field missing": ["epoch submission", 1, STATEMENT.message, HONEST.signature.encoded],
    "a field more": [
        "epoch submission",
        1,
        STATEMENT.message,
        HONEST.signature.encoded,
        b"\7",
        None,
    ],
}


@pytest.mark.parametrize("name", NOT_ONE)
def test_only_one_form_of_submission_is_read(name: str):
    with pytest.raises(MalformedEncoding):
        SettlementSubmission.decode(EpochStatement, encoding.encode(NOT_ONE[name]))


def test_a_bitmap_has_a_bit_for_each_of_256_members():
    form = ["epoch submission", 1, STATEMENT.message, HONEST.signature.encoded]
    for bitmap in (b"\1", bytes(31) + b"\x80"):
        data = encoding.encode([*form, bitmap])
        made = SettlementSubmission.decode(EpochStatement, data)
        assert made == dataclasses.replace(HONEST, bitmap=bitmap)
    for bitmap in (b"", bytes(33)):
        with pytest.raises(ValueError, match="1 to 32 bytes"):
            dataclasses.replace(HONEST, bitmap=bitmap)
    for change in ({"bitmap": bytearray(1)}, {"signature": b""}, {"statement": None}):
        with pytest.raises(TypeError):
            dataclasses.replace(HONEST, **change)


def test_heads_and_submissions_are_values():
    assert dataclasses.replace(HONEST) == HONEST
    assert HEAD.deployment == CHAIN


LIMITS: dict[str, tuple[Callable[[bytes], Any], int]] = {
    "submission": (lambda data: SettlementSubmission.decode(EpochStatement, data), 512),
    "justification": (Justification.decode, 262_144),
    "vote": (lambda data: Vote.decode(EpochStatement, data), 2048),
    "equivocation": (lambda data: Equivocation.decode(EpochStatement, data), 2048),
    "broken report": (BrokenReport.decode, 2048),
    "verdict": (VerdictRecord.decode, 512),
    "receipt": (Receipt.decode, 4096),
}
"""Of each kind, the most bytes that specs/settlement.md and specs/receipts.md allow."""


@pytest.mark.parametrize("name", LIMITS)
def test_what_is_longer_than_the_text_allows_is_refused_before_it_is_read(name: str):
    decode, most = LIMITS[name]
    longest = b"\x5a" + (most - 5).to_bytes(4, "big") + bytes(most - 5)  # a string of bytes
    for data, refused_for_length in ((longest, False), (longest + b"\0", True)):
        with pytest.raises(MalformedEncoding) as caught:
            decode(data)
        assert ("bytes allowed" in str(caught.value)) is refused_for_length
