"""Statements, committees, submissions: formats against oracles, and named cheats."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.settlement.committee import (
    MAX_MEMBERS,
    REGISTRATION_DOMAIN,
    Committee,
    Member,
    prove_registration,
    registered_key,
    registration_binding,
)
from protocols.settlement.statements import (
    REASONS,
    Deployment,
    EpochStatement,
    Rotation,
    SettlementError,
    Statement,
)
from protocols.settlement.submission import (
    NO_ROOT,
    Head,
    SettlementSubmission,
    verify_epoch,
    verify_rotation,
)
from tests.helpers.committees import (
    CHAIN,
    ELSEWHERE,
    committee,
    holder,
    key,
    log,
    registrant,
    secret,
    signature,
    statement,
    submission,
)
from verifiable import bls, encoding
from verifiable.bls import (
    BadPossession,
    BadSignature,
    InfiniteAggregate,
    InvalidPoint,
    Possession,
    ProvenKey,
    PublicKey,
    SecretKey,
    Signature,
    curve,
    framed,
)
from verifiable.errors import MalformedEncoding, VerificationError

FOUR = committee((1, 1, 1, 1))
NEXT = committee((1, 1, 1), first=10)
NINE = committee((1,) * 9, first=20)
HEAD = Head(committee=FOUR)
LOG = log(range(5))
STATEMENT = statement(HEAD, LOG)
HONEST = submission(FOUR, [0, 1, 2], STATEMENT)
SETTLED = verify_epoch(HONEST, HEAD)
ROTATION = HEAD.rotation(NEXT)

digests = st.binary(min_size=32, max_size=32)
uint64s = st.integers(0, 2**64 - 1)
addresses = st.binary(min_size=20, max_size=20)
epochs = st.builds(
    EpochStatement,
    chain_id=st.integers(1, 2**256 - 1),
    contract=addresses,
    epoch=uint64s,
    root=digests,
    size=st.integers(1, 2**64 - 1),
    policy=digests,
    committee=digests,
    sequence=uint64s,
    previous_root=digests,
)
rotations = st.builds(
    Rotation,
    chain_id=st.integers(1, 2**256 - 1),
    contract=addresses,
    committee=digests,
    sequence=uint64s,
    incoming=digests,
)
statements: st.SearchStrategy[Any] = epochs | rotations


def reason(error: VerificationError) -> str:
    """The code of what was raised, or its type where the type says it all."""
    return error.reason if isinstance(error, SettlementError) else type(error).__name__


# ------------------------------------------------------------------------------------- statements


def words(s: Any) -> bytes:
    """`abi.encode`, written out by hand from the table of specs/settlement.md."""

    def uint(value: int) -> bytes:
        return bytes.fromhex(f"{value:064x}")

    here = uint(s.chain_id) + uint(int.from_bytes(s.contract, "big"))
    if isinstance(s, Rotation):
        return here + s.committee + uint(s.sequence) + s.incoming
    verdicts = uint(s.epoch) + s.root + uint(s.size) + s.policy
    return here + verdicts + s.committee + uint(s.sequence) + s.previous_root


@given(statements)
def test_statements_are_words(s: Statement):
    assert s.message == words(s)
    assert type(s).decode(s.message) == s
    assert len(s.message) == {"epoch": 288, "rotation": 160}[s.KIND]


@given(statements, st.data())
def test_every_bit_of_a_statement_counts(s: Statement, data: st.DataObject):
    flipped = bytearray(s.message)
    bit = data.draw(st.integers(0, 8 * len(flipped) - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(MalformedEncoding):
        assert type(s).decode(bytes(flipped)) != s


@given(st.binary(max_size=400) | st.binary(min_size=288, max_size=288))
def test_statement_decoders_raise_nothing_else(data: bytes):
    for kind in (EpochStatement, Rotation):
        try:
            assert kind.decode(data).message == data
        except MalformedEncoding:
            continue


BAD_FIELDS: dict[str, dict[str, Any]] = {
    "no chain": {"chain_id": 0},
    "chain of 257 bits": {"chain_id": 2**256},
    "short address": {"contract": b"\1" * 19},
    "epoch of 65 bits": {"epoch": 2**64},
    "negative epoch": {"epoch": -1},
    "no verdicts": {"size": 0},
    "size as a float": {"size": 5.0},
    "size as a boolean": {"size": True},
    "long root": {"root": b"\1" * 33},
    "root as text": {"root": "1" * 32},
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_malformed_statement_cannot_be_built(name: str):
    with pytest.raises(ValueError, match="wrong type, size or range"):
        replace(STATEMENT, **BAD_FIELDS[name])


@pytest.mark.parametrize("width", ["contract", "epoch", "sequence", "size"])
def test_a_word_wider_than_its_field_is_refused(width: str):
    """A contract would revert or truncate: here it is an error."""
    at = 32 * list(EpochStatement.LAYOUT).index(width)
    data = STATEMENT.message[:at] + b"\1" + STATEMENT.message[at + 1 :]
    with pytest.raises(MalformedEncoding, match=width):
        EpochStatement.decode(data)


def test_domains_and_layouts_separate_the_kinds():
    assert EpochStatement.DOMAIN != Rotation.DOMAIN != REGISTRATION_DOMAIN
    assert len(EpochStatement.LAYOUT) != len(Rotation.LAYOUT)
    with pytest.raises(MalformedEncoding):
        Rotation.decode(STATEMENT.message)
    with pytest.raises(MalformedEncoding):
        EpochStatement.decode(ROTATION.message)


def test_a_deployment_is_checked():
    for chain_id, contract in ((0, b"\1" * 20), (1, b"\1" * 21), (2**256, b"\1" * 20)):
        with pytest.raises(ValueError, match=r"chain id|address"):
            Deployment(chain_id=chain_id, contract=contract)
    assert STATEMENT.deployment == CHAIN


# -------------------------------------------------------------------------------------- committee


def test_the_id_of_a_committee_is_a_hash_of_words():
    """From the text: count, then for each member 128 bytes of key and its weight."""
    weighted = committee((3, 1, 2**64 - 1))
    data = (3).to_bytes(32, "big")
    for member in weighted.members:
        x, y = member.key.key.affine()[:48], member.key.key.affine()[48:]
        data += bytes(16) + x + bytes(16) + y + member.weight.to_bytes(32, "big")
    assert weighted.id == hashlib.sha256(data).digest()
    assert len({FOUR.id, weighted.id, committee((3, 1, 1)).id, NEXT.id}) == 4


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 17), st.data())
def test_bitmaps_name_members(n: int, data: st.DataObject):
    of = committee((1,) * n, first=100)
    chosen = data.draw(st.sets(st.integers(0, n - 1)))
    bitmap = of.bitmap(chosen)
    assert of.signers(bitmap) == tuple(sorted(chosen))
    assert len(bitmap) == -(-n // 8)
    assert [bool(bitmap[i // 8] >> i % 8 & 1) for i in range(n)] == [i in chosen for i in range(n)]
    with pytest.raises(SettlementError) as longer:
        of.signers(bitmap + b"\0")
    assert longer.value.reason == "bitmap-length"
    with pytest.raises(ValueError, match="no member"):
        of.bitmap([n])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 2**64 - 1), min_size=1, max_size=9), st.data())
def test_a_quorum_is_more_than_two_thirds(weights: list[int], data: st.DataObject):
    of = committee(tuple(weights), first=100)
    chosen = data.draw(st.lists(st.integers(0, len(weights) - 1)))
    share = Fraction(sum(weights[i] for i in set(chosen)), sum(weights))
    assert of.has_quorum(chosen) == (share > Fraction(2, 3))


def test_exactly_two_thirds_are_no_quorum():
    three = committee((1, 1, 1))
    assert not three.has_quorum([0, 1])
    assert three.has_quorum([0, 1, 2])
    assert not three.has_quorum([0, 0, 0, 1])


def members(*numbers: int, deployment: Deployment = CHAIN) -> list[Member]:
    return [Member(key=key(i, deployment), weight=1) for i in numbers]


def bound(binding: bytes) -> ProvenKey:
    """A key that is really held, registered with whatever binding its holder likes."""
    return ProvenKey(
        key=secret(0).public_key,
        possession=secret(0).prove_possession(binding, domain=REGISTRATION_DOMAIN),
        binding=binding,
        domain=REGISTRATION_DOMAIN,
    )


BAD_COMMITTEES: dict[str, tuple[str, Callable[[], Committee]]] = {
    "nobody": ("no-members", lambda: Committee.of(CHAIN, [])),
    "a key twice, to double its weight": (
        "duplicate-key",
        lambda: Committee.of(CHAIN, members(0, 1, 0)),
    ),
    "a replayed proof under another weight": (
        "duplicate-key",
        lambda: Committee.of(CHAIN, [Member(key=key(0), weight=5), *members(0, 1)]),
    ),
    "out of order": (
        "unordered-members",
        lambda: Committee(deployment=CHAIN, members=FOUR.members[::-1]),
    ),
    "registered on another chain": (
        "unregistered-key",
        lambda: Committee.of(CHAIN, members(0, 1, deployment=ELSEWHERE)),
    ),
    "a proof of the draft, which binds nothing": (
        "unregistered-key",
        lambda: Committee.of(
            CHAIN,
            [
                Member(
                    key=ProvenKey(
                        key=secret(0).public_key, possession=secret(0).prove_possession()
                    ),
                    weight=1,
                )
            ],
        ),
    ),
    "a registration that binds more than its registrant": (
        "unregistered-key",
        lambda: Committee.of(
            CHAIN, [Member(key=bound(registration_binding(CHAIN, registrant(0)) + b"\0"), weight=1)]
        ),
    ),
    "a registration without a registrant": (
        "unregistered-key",
        lambda: Committee.of(CHAIN, [Member(key=bound(CHAIN.words), weight=1)]),
    ),
    "the right binding in the draft's form": (
        "unregistered-key",
        lambda: Committee.of(
            CHAIN,
            [
                Member(
                    key=ProvenKey(
                        key=secret(0).public_key,
                        possession=secret(0).prove_possession(
                            registration_binding(CHAIN, registrant(0))
                        ),
                        binding=registration_binding(CHAIN, registrant(0)),
                    ),
                    weight=1,
                )
            ],
        ),
    ),
}


@pytest.mark.parametrize("name", BAD_COMMITTEES)
def test_a_committee_that_is_none_cannot_be_built(name: str):
    expected, build = BAD_COMMITTEES[name]
    with pytest.raises(SettlementError) as raised:
        build()
    assert raised.value.reason == expected


def test_a_committee_has_at_most_256_members():
    crowd = [FOUR.members[0]] * (MAX_MEMBERS + 1)
    with pytest.raises(SettlementError) as raised:
        Committee(deployment=CHAIN, members=tuple(crowd))
    assert raised.value.reason == "too-many-members"


@pytest.mark.parametrize("weight", [0, -1, 2**64, 1.0, True])
def test_weights_are_positive_integers(weight: Any):
    with pytest.raises(ValueError, match="weight"):
        Member(key=key(0), weight=weight)


def test_a_bare_key_is_no_member():
    with pytest.raises(TypeError, match="ProvenKey"):
        Member(key=secret(0).public_key, weight=1)  # pyright: ignore[reportArgumentType]


def negated(public: PublicKey) -> PublicKey:
    group = curve.active().g1
    return PublicKey.from_point(group.combine([public.point], [curve.ORDER - 1]))


def rogue() -> ProvenKey:
    """x·g minus the others' keys: whoever holds x would sign alone in all names."""
    group = curve.active().g1
    others = [negated(key(i).key).point for i in (1, 2, 3)]
    own = PublicKey.from_point(group.sum([secret(0).public_key.point, *others]))
    proof = prove_registration(secret(0), CHAIN, registrant(0))
    return registered_key(own, proof, CHAIN, registrant(0))


REGISTRATIONS: dict[str, Callable[[], ProvenKey]] = {
    "rogue key": rogue,
    "another's proof": lambda: registered_key(
        secret(1).public_key, key(0).possession, CHAIN, registrant(0)
    ),
    "registered on another chain": lambda: registered_key(
        secret(0).public_key, key(0, ELSEWHERE).possession, CHAIN, registrant(0)
    ),
    "registered at another contract": lambda: registered_key(
        secret(0).public_key,
        key(0).possession,
        Deployment(chain_id=CHAIN.chain_id, contract=b"\xc1" * 20),
        registrant(0),
    ),
    "replayed by another registrant": lambda: registered_key(
        secret(0).public_key, key(0).possession, CHAIN, registrant(1)
    ),
    "a proof of the draft's form": lambda: registered_key(
        secret(0).public_key,
        secret(0).prove_possession(registration_binding(CHAIN, registrant(0))),
        CHAIN,
        registrant(0),
    ),
    "a signature used as a proof": lambda: registered_key(
        secret(0).public_key,
        Possession(
            secret(0)
            .sign(
                secret(0).public_key.eip2537() + registration_binding(CHAIN, registrant(0)),
                domain=REGISTRATION_DOMAIN,
            )
            .encoded
        ),
        CHAIN,
        registrant(0),
    ),
}


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_a_registration_proves_possession_here_and_now(name: str):
    with pytest.raises(BadPossession):
        REGISTRATIONS[name]()


def test_the_registration_proof_is_over_what_a_contract_reads():
    x, y = secret(0).public_key.affine()[:48], secret(0).public_key.affine()[48:]
    words = (31337).to_bytes(32, "big") + bytes(12) + CHAIN.contract + bytes(12) + registrant(0)
    message = b"\x19verifiable registration 1" + bytes(16) + x + bytes(16) + y + words
    point = secret(0).core_sign(message, bls.POSSESSION_DST)
    assert Possession.from_point(point) == key(0).possession


def test_a_proof_of_possession_is_no_signature():
    proof = Signature(key(0).possession.encoded)
    message = key(0).key.eip2537() + key(0).binding
    with pytest.raises(BadSignature):
        bls.verify(key(0).key, message, proof, domain=REGISTRATION_DOMAIN)


def test_domains_of_proofs_are_short():
    with pytest.raises(ValueError, match="127"):
        secret(0).prove_possession(domain=b"d" * 128)
    with pytest.raises(ValueError, match="registrant"):
        registration_binding(CHAIN, b"\1" * 32)


# -------------------------------------------------------------------------------------- submission


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
    """What the whole committee really signed, of a statement that is wrong somewhere."""
    return submission(FOUR, signers, replace(STATEMENT, **change))


def forged(change: dict[str, Any]) -> SettlementSubmission[Any]:
    """Yesterday's signature under another statement."""
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
    Cheat("nobody", "no-quorum", lambda: replace(HONEST, bitmap=b"\0")),
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
    """Otherwise the rows above would show nothing."""
    assert verify_epoch(HONEST, HEAD).epoch == 1
    assert (
        verify_epoch(submission(NINE, list(range(9)), STATEMENT_9), Head(committee=NINE)).epoch == 1
    )


def test_keys_that_cancel_out_are_refused():
    """Two holders who chose x and -x: infinity verifies for any message, if it is let in."""
    x = secret(40)
    minus = SecretKey(curve.ORDER - int.from_bytes(x.encode(), "big"))
    proof = prove_registration(minus, CHAIN, registrant(41))
    pair = Committee.of(
        CHAIN,
        [
            Member(key=key(40), weight=1),
            Member(key=registered_key(minus.public_key, proof, CHAIN, registrant(41)), weight=1),
        ],
    )
    made = replace(HONEST, statement=statement(Head(committee=pair), LOG), bitmap=b"\x03")
    with pytest.raises(InfiniteAggregate):
        verify_epoch(made, Head(committee=pair))


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


# --------------------------------------------------------------------------------------- rotation


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


# ---------------------------------------------------------------------------------------- encoding


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
    """Whatever is done to the bytes of a submission, it never settles anything else."""
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


def test_every_reason_is_explained():
    assert all(len(text) > 10 for text in REASONS.values())
    with pytest.raises(KeyError):
        SettlementError("no such reason")


def test_what_is_signed_is_framed():
    by_hand = b"\x1cverifiable epoch statement 1" + STATEMENT.message
    assert framed(STATEMENT.message, STATEMENT.DOMAIN) == by_hand
    assert framed(ROTATION.message, ROTATION.DOMAIN)[:32] == b"\x1fverifiable committee rotation 1"
    assert NO_ROOT == bytes(32) == STATEMENT.previous_root


def test_heads_and_submissions_are_values():
    assert dataclasses.replace(HONEST) == HONEST
    assert HEAD.deployment == CHAIN
