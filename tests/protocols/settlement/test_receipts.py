"""COSE receipts: readable by RFC 9942, and refused after any change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cbor2
import pytest
from cryptography.exceptions import InvalidSignature as BadEd25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.identities import Identity
from protocols.messages import InvalidSignature
from protocols.settlement.committee import Committee, Member, prove_registration, registered_key
from protocols.settlement.receipts import MAX_SIZE, Receipt, issue_receipt
from protocols.settlement.statements import Deployment, EpochStatement, SettlementError
from protocols.settlement.submission import Head, SettlementSubmission, verify_epoch
from protocols.settlement.verdicts import EpochLog, VerdictRecord
from tests.helpers.committees import committee, log, record, statement
from tests.helpers.paths import ROOT
from verifiable.bls import SecretKey
from verifiable.errors import MalformedEncoding, MalformedProof, RootMismatch, VerificationError
from verifiable.report import Verdict

ALICE, MALLORY = (Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2))
ALICE_ID, MALLORY_ID = (
    Identity(public_key=key.public_key().public_bytes_raw()) for key in (ALICE, MALLORY)
)
HEAD = Head(committee=committee((1, 1, 1, 1)))
LOG = log(range(7))
STATEMENT = statement(HEAD, LOG)


def made(index: int, of: EpochLog = LOG) -> Receipt:
    return issue_receipt(of, index, statement(HEAD, of), ALICE_ID, ALICE.sign)


RECEIPT = made(2)
RECORD = LOG.records[2]


# ----------------------------------------------------------------- a reader of RFC 9942, by itself


def reader(data: bytes, entry: bytes, key: Ed25519PublicKey) -> None:
    """RFC 9942, 5.2.1, and RFC 9162, 2.1.3.2, word for word, with a general CBOR library."""
    tag = cbor2.loads(data)
    assert tag.tag == 18
    protected, unprotected, payload, signature = tag.value
    header = cbor2.loads(protected)
    assert header[1] == -8  # EdDSA
    assert header[395] == 1  # RFC9162_SHA256
    assert payload is None  # detached
    (proof,) = unprotected[396][-1]
    size, index, path = cbor2.loads(proof)
    assert index < size
    fn, sn, r = index, size - 1, hashlib.sha256(b"\0" + entry).digest()
    for p in path:
        assert sn != 0
        if fn & 1 or fn == sn:
            r = hashlib.sha256(b"\1" + p + r).digest()
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = hashlib.sha256(b"\1" + r + p).digest()
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    key.verify(signature, cbor2.dumps(["Signature1", protected, b"", r]))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.data())
def test_a_reader_of_the_rfc_accepts_every_receipt(size: int, data: st.DataObject):
    of = log(range(size))
    receipt = made(data.draw(st.integers(0, size - 1)), of)
    entry = of.records[receipt.index]
    receipt.verify(entry, ALICE_ID)
    reader(receipt.encode(), entry.encode(), ALICE.public_key())
    assert Receipt.decode(receipt.encode()) == receipt
    with pytest.raises(BadEd25519):
        reader(receipt.encode(), record(99).encode(), ALICE.public_key())


def test_the_bytes_of_a_receipt():
    """By hand: tag, array of 4, header of 4 entries, proofs, null, 64 bytes."""
    receipt = made(0, log([0]))
    head = b"\xa4\x01\x27\x04\x58\x20" + ALICE_ID.id + b"\x19\x01\x8b\x01"
    head += b"\x6fepoch statement\x59\x01\x20" + receipt.statement.message
    data = b"\xd2\x84\x59" + len(head).to_bytes(2, "big") + head
    data += b"\xa1\x19\x01\x8c\xa1\x20\x81\x44\x83\x01\x00\x80\xf6\x58\x40" + receipt.signature
    assert receipt.encode() == data
    assert Receipt.decode(data) == receipt


def test_the_longest_receipt_fits():
    huge = replace(STATEMENT, size=2**64 - 1)
    receipt = replace(RECEIPT, statement=huge, index=2**64 - 2, path=(bytes(32),) * 64)
    assert Receipt.decode(receipt.encode()) == receipt
    assert len(receipt.encode()) <= MAX_SIZE


# -------------------------------------------------------------------------------------- cheats


@dataclass(frozen=True)
class Cheat:
    """A receipt that does not hold, for which record and issuer, and what is raised."""

    name: str
    expect: type[VerificationError]
    receipt: Callable[[], Receipt]
    record: VerdictRecord = RECORD
    issuer: Identity = ALICE_ID


def resigned(**change: Any) -> Receipt:
    """Signed by Mallory in Alice's name."""
    return replace(
        issue_receipt(LOG, 2, STATEMENT, MALLORY_ID, MALLORY.sign),
        **{"issuer": ALICE_ID.id} | change,
    )


def misnamed() -> Receipt:
    """Alice's own signature, over a header that names Mallory."""
    honest = issue_receipt(LOG, 2, STATEMENT, MALLORY_ID, MALLORY.sign)
    protected = cbor2.loads(honest.encode()).value[0]
    signed = cbor2.dumps(["Signature1", protected, b"", STATEMENT.root])
    return replace(honest, signature=ALICE.sign(signed))


CHEATS = [
    Cheat("a verdict never signed", RootMismatch, lambda: RECEIPT, record(99)),
    Cheat("a verdict turned", RootMismatch, lambda: RECEIPT, replace(RECORD, checked=0)),
    Cheat("another verdict's receipt", RootMismatch, lambda: made(3)),
    Cheat("at another position", MalformedProof, lambda: replace(RECEIPT, index=6)),
    Cheat("the neighbour's position", RootMismatch, lambda: replace(RECEIPT, index=3)),
    Cheat("a shorter path", MalformedProof, lambda: replace(RECEIPT, path=RECEIPT.path[:-1])),
    Cheat("no path", MalformedProof, lambda: replace(RECEIPT, path=())),
    Cheat(
        "a longer path", MalformedProof, lambda: replace(RECEIPT, path=(*RECEIPT.path, bytes(32)))
    ),
    Cheat(
        "a size that gives the same root",
        InvalidSignature,
        lambda: replace(RECEIPT, statement=replace(STATEMENT, size=8)),
    ),
    Cheat(
        "another chain",
        InvalidSignature,
        lambda: replace(RECEIPT, statement=replace(STATEMENT, chain_id=1)),
    ),
    Cheat(
        "another epoch",
        SettlementError,
        lambda: replace(RECEIPT, statement=replace(STATEMENT, epoch=1)),
    ),
    Cheat(
        "another policy",
        SettlementError,
        lambda: replace(RECEIPT, statement=replace(STATEMENT, policy=bytes(32))),
    ),
    Cheat(
        "another past",
        InvalidSignature,
        lambda: replace(RECEIPT, statement=replace(STATEMENT, previous_root=b"\1" * 32)),
    ),
    Cheat("signed by another key", InvalidSignature, resigned),
    Cheat("issued by another identity", InvalidSignature, lambda: RECEIPT, issuer=MALLORY_ID),
    Cheat("in another issuer's name", InvalidSignature, lambda: resigned(issuer=MALLORY_ID.id)),
    Cheat("signed by the issuer in another issuer's name", InvalidSignature, misnamed),
    Cheat("no signature", InvalidSignature, lambda: replace(RECEIPT, signature=bytes(64))),
    Cheat(
        "a signature of the bare root",
        InvalidSignature,
        lambda: replace(RECEIPT, signature=ALICE.sign(STATEMENT.root)),
    ),
    Cheat(
        "the receipt of another log over the same verdicts",
        InvalidSignature,
        lambda: replace(RECEIPT, signature=made(2, log(range(8))).signature),
    ),
]


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.name)
def test_cheats_are_refused_by_name(cheat: Cheat):
    RECEIPT.verify(RECORD, ALICE_ID)
    receipt = cheat.receipt()
    assert Receipt.decode(receipt.encode()) == receipt
    with pytest.raises(cheat.expect):
        receipt.verify(cheat.record, cheat.issuer)


# ------------------------------------------------------------------------------------- encodings

TAG, PARTS = cbor2.loads(RECEIPT.encode()).tag, cbor2.loads(RECEIPT.encode()).value
HEADER, (PROOF,) = dict(cbor2.loads(PARTS[0])), PARTS[1][396][-1]


def sign1(
    header: Any = HEADER,
    unprotected: Any = PARTS[1],
    payload: Any = None,
    signature: Any = PARTS[3],
    tag: int = 18,
) -> bytes:
    protected = cbor2.dumps(header, canonical=True) if isinstance(header, dict) else header
    return cbor2.dumps(cbor2.CBORTag(tag, [protected, unprotected, payload, signature]))


def proofs(*proof: Any) -> dict[int, Any]:
    return {396: {-1: [cbor2.dumps(p) for p in proof]}}


def without(label: Any) -> dict[Any, Any]:
    return {k: v for k, v in HEADER.items() if k != label}


SIZE, INDEX, PATH = cbor2.loads(PROOF)
MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "only the tag": b"\xd2",
    "no tag": RECEIPT.encode()[1:],
    "the tag of COSE_Sign": sign1(tag=98),
    "tagged twice": b"\xd2" + RECEIPT.encode(),
    "bytes after its end": RECEIPT.encode() + b"\0",
    "cut short": RECEIPT.encode()[:-1],
    "attached payload": sign1(payload=STATEMENT.root),
    "empty payload": sign1(payload=b""),
    "another algorithm": sign1(HEADER | {1: -7}),
    "algorithm none": sign1(without(1)),
    "another tree": sign1(HEADER | {395: 2}),
    "no tree": sign1(without(395)),
    "no issuer": sign1(without(4)),
    "no statement": sign1(without("epoch statement")),
    "a critical label": sign1(HEADER | {2: ["epoch statement"]}),
    "a label more": sign1(HEADER | {"x": 1}),
    "a header that is no map": sign1(b"\x80"),
    "an empty header": sign1(b""),
    "a header not wrapped": cbor2.dumps(cbor2.CBORTag(18, [HEADER, *PARTS[1:]]), canonical=True),
    "statement as an array": sign1(HEADER | {"epoch statement": list(STATEMENT.message)}),
    "a short issuer": sign1(HEADER | {4: b"\1" * 31}),
    "no proof": sign1(unprotected={396: {-1: []}}),
    "two proofs": sign1(unprotected={396: {-1: [PROOF, PROOF]}}),
    "no proofs": sign1(unprotected={}),
    "a consistency proof": sign1(unprotected={396: {-2: [PROOF]}}),
    "both kinds of proof": sign1(unprotected={396: {-1: [PROOF], -2: [PROOF]}}),
    "a proof not wrapped": sign1(unprotected={396: {-1: [[SIZE, INDEX, PATH]]}}),
    "another size than the statement's": sign1(unprotected=proofs([SIZE + 1, INDEX, PATH])),
    "index beyond the size": sign1(unprotected=proofs([SIZE, SIZE, PATH])),
    "a negative index": sign1(unprotected=proofs([SIZE, -1, PATH])),
    "index as a float": sign1(unprotected=proofs([SIZE, 2.0, PATH])),
    "index as true": sign1(unprotected=proofs([SIZE, True, PATH])),
    "a path of text": sign1(unprotected=proofs([SIZE, INDEX, ["x" * 32]])),
    "a path in one string": sign1(unprotected=proofs([SIZE, INDEX, b"".join(PATH)])),
    "a path too long": sign1(unprotected=proofs([SIZE, INDEX, [bytes(32)] * 65])),
    "a digest of 31 bytes": sign1(unprotected=proofs([SIZE, INDEX, [b"\1" * 31, *PATH[1:]]])),
    "a short signature": sign1(signature=b"\1" * 63),
    "no signature": sign1(signature=None),
    "an unprotected label more": sign1(unprotected={**PARTS[1], 1: -8}),
    "a long head": b"\xd2\x98\x04" + RECEIPT.encode()[2:],
    "indefinite length": b"\xd2\x9f" + RECEIPT.encode()[2:] + b"\xff",
    "a tag inside": b"\xd2" + cbor2.dumps([*PARTS[:3], cbor2.CBORTag(24, PARTS[3])]),
    "a label twice": RECEIPT.encode().replace(
        b"\xa1\x19\x01\x8c", b"\xa2\x19\x01\x8c\xa0\x19\x01\x8c"
    ),
    "too long": RECEIPT.encode() + bytes(MAX_SIZE),
    "deep nesting": b"\xd2" + b"\x81" * 2000 + b"\0",
    "2^63 elements": b"\xd2\x9b\x80" + bytes(7),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_only_one_form_of_receipt_is_read(name: str):
    with pytest.raises(MalformedEncoding):
        Receipt.decode(MALFORMED[name])


def test_a_long_receipt_is_refused_before_it_is_read():
    with pytest.raises(MalformedEncoding, match="4096 bytes allowed"):
        Receipt.decode(RECEIPT.encode() + bytes(1 << 24))


def test_the_table_of_forms_is_made_as_receipts_are():
    """So the rows of the table are refused only for their changes."""
    assert Receipt.decode(sign1()) == RECEIPT
    assert Receipt.decode(sign1(unprotected=proofs([SIZE, INDEX, PATH]))) == RECEIPT


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_changed_receipts_are_malformed_or_refused(data: st.DataObject):
    raw = bytearray(RECEIPT.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        receipt = Receipt.decode(raw)
        assert receipt.encode() == raw
        receipt.verify(RECORD, ALICE_ID)
    except VerificationError:
        return
    assert receipt == RECEIPT


@settings(deadline=None, max_examples=200)
@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=300) | st.booleans(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from([1, 4, 395, 396, -1, "epoch statement"]), inner)
        ),
        max_leaves=12,
    ).map(lambda value: cbor2.dumps(cbor2.CBORTag(18, value)))
)
def test_the_decoder_raises_nothing_else(data: bytes):
    with pytest.raises(MalformedEncoding):
        Receipt.decode(data)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_fields_of_other_types_are_malformed(data: st.DataObject):
    """Right in structure, wrong in one place."""
    junk = st.none() | st.booleans() | st.integers(-5, 2**64) | st.binary(max_size=40)
    junk |= st.text(max_size=3) | st.floats() | st.lists(st.integers(0, 300), max_size=3)
    label = data.draw(st.sampled_from(list(HEADER)))
    proof = [SIZE, INDEX, PATH]
    proof[data.draw(st.integers(0, 2))] = data.draw(junk)
    for raw in (
        sign1(HEADER | {label: data.draw(junk)}),
        sign1(unprotected=proofs(proof)),
        sign1(unprotected=data.draw(junk)),
        sign1(signature=data.draw(junk)),
    ):
        try:
            assert Receipt.decode(raw).encode() == raw
        except MalformedEncoding:
            continue


# ----------------------------------------------------------------------------------- whose mistake


def test_an_issuer_signs_its_own_log():
    with pytest.raises(ValueError, match="not of this log"):
        issue_receipt(log(range(8)), 2, STATEMENT, ALICE_ID, ALICE.sign)
    with pytest.raises(ValueError, match="not the issuer"):
        issue_receipt(LOG, 2, STATEMENT, ALICE_ID, MALLORY.sign)
    with pytest.raises(ValueError, match="range"):
        issue_receipt(LOG, 7, STATEMENT, ALICE_ID, ALICE.sign)


BAD_FIELDS: Sequence[dict[str, Any]] = [
    {"statement": STATEMENT.message},
    {"issuer": bytes(31)},
    {"index": 7},
    {"index": -1},
    {"index": True},
    {"path": list(RECEIPT.path)},
    {"path": (bytes(31),)},
    {"path": (bytes(32),) * 65},
    {"signature": bytes(63)},
]


@pytest.mark.parametrize("change", BAD_FIELDS, ids=lambda change: next(iter(change)))
def test_a_malformed_receipt_cannot_be_built(change: dict[str, Any]):
    with pytest.raises(ValueError, match="type, size or range"):
        replace(RECEIPT, **change)


def test_the_statement_of_a_receipt_is_the_chains():
    """A verifier with the chain compares; the receipt alone is its issuer's word."""
    assert Receipt.decode(RECEIPT.encode()).statement == STATEMENT
    assert isinstance(RECEIPT.statement, EpochStatement)


def rows(spec: str) -> dict[str, bytes]:
    text = (ROOT / "specs" / spec).read_text().partition("## Example")[2]
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {name: bytes.fromhex(value) for name, value in cells[1:]}


def test_the_examples_of_the_specifications():
    """From a verdict to its receipt, with every byte in between."""
    here = Deployment(chain_id=1, contract=bytes(range(20)))
    registrant, secret = b"\1" * 20, SecretKey.generate(bytes(range(32)))
    proof = prove_registration(secret, here, registrant)
    key = registered_key(secret.public_key, proof, here, registrant)
    head = Head(committee=Committee.of(here, [Member(key=key, weight=3)]))
    one = VerdictRecord(
        epoch=0,
        job=b"\2" * 32,
        worker=b"\3" * 32,
        verdict=Verdict.REJECT,
        reason="claim-mismatch",
        commitment=b"\4" * 32,
        answer=None,
        program=b"\5" * 32,
        policy=b"\6" * 32,
        checked=1000,
        replayed=10,
    )
    of = EpochLog.of([one])
    settled = statement(head, of)
    signature = secret.sign(settled.message, domain=settled.DOMAIN)
    submission = SettlementSubmission.combine(settled, {0: signature}, head.committee)
    assert verify_epoch(submission, head).root == of.tree.root
    assert rows("settlement.md") == {
        "registration proof": proof.encoded,
        "committee id": head.committee.id,
        "verdict record": one.encode(),
        "root": of.tree.root,
        "statement": settled.message,
        "signature": signature.encoded,
        "bitmap": submission.bitmap,
        "submission": submission.encode(),
    }
    ed25519 = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    issuer = Identity(public_key=ed25519.public_key().public_bytes_raw())
    receipt = issue_receipt(of, 0, settled, issuer, ed25519.sign)
    assert rows("receipts.md") == {"receipt": receipt.encode()}
