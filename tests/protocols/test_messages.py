"""Wire messages: one encoding each, hostile bytes, and signatures that hold for one thing only."""

from __future__ import annotations

import dataclasses
import enum
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cbor2
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocols.identities import Identity
from protocols.messages import (
    MAX_BALLOTS,
    MAX_VALUE,
    VERSION,
    Commit,
    Decision,
    InvalidSignature,
    Job,
    Message,
    Reason,
    Reveal,
    Signed,
    UnknownWorker,
    answer_digest,
    receive,
    sign,
)
from verifiable import encoding
from verifiable.encoding import encode, tagged_hash
from verifiable.errors import MalformedEncoding, VerificationError
from verifiable.voting import VoteOutcome

ALICE, MALLORY = (Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2))
ALICE_ID, MALLORY_ID = (
    Identity(public_key=key.public_key().public_bytes_raw()) for key in (ALICE, MALLORY)
)
REGISTRY = {identity.id: identity for identity in (ALICE_ID, MALLORY_ID)}
KINDS: tuple[type[Message], ...] = (Job, Commit, Reveal, Decision)

digests = st.binary(min_size=32, max_size=32)
uints = st.integers(0, 2**64 - 1)
workers = st.lists(digests, unique=True, max_size=6)

JOB = Job(
    epoch=7,
    nonce=bytes(range(32)),
    expiry=1_800_000_000,
    program=b"\x01" * 32,
    parameters=b"\x02" * 32,
    input=b"\x03" * 32,
)
REVEAL = Reveal(
    worker=ALICE_ID.id,
    job=JOB.digest,
    epoch=JOB.epoch,
    salt=b"\x04" * 32,
    value=b"answer",
    trace_root=b"\x05" * 32,
    trace_size=9,
)
COMMIT = REVEAL.commit
DECISION = Decision(
    job=JOB.digest,
    epoch=JOB.epoch,
    outcome=VoteOutcome.ACCEPT,
    reason=Reason.AGREED,
    answer=answer_digest(b"answer"),
    group=(b"\x01" * 32, b"\x02" * 32),
    dissenters=(b"\x03" * 32,),
    requested=3,
    beacon=12,
    error=0.028,
)


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    everyone = draw(workers)
    cut = draw(st.integers(0, len(everyone)))
    group = tuple(sorted(everyone[:cut]))
    reason = draw(st.sampled_from(list(Reason)))
    accepted = reason in {Reason.AGREED, Reason.AUDITED}
    if accepted and not group:
        group = (draw(digests),)
    return Decision(
        job=draw(digests),
        epoch=draw(uints),
        outcome=VoteOutcome.ACCEPT if accepted else VoteOutcome.INDETERMINATE,
        reason=reason,
        answer=draw(digests) if accepted else None,
        group=group if accepted else (),
        dissenters=tuple(sorted(set(everyone[cut:]) - set(group))),
        requested=draw(st.integers(1, 2**64 - 1)),
        beacon=draw(st.none() | uints),
        error=draw(st.floats(0.0, 1.0)) if reason is Reason.AGREED else None,
    )


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Job,
        epoch=uints,
        nonce=digests,
        expiry=uints,
        program=digests,
        parameters=digests,
        input=digests,
    ),
    st.builds(Commit, worker=digests, job=digests, epoch=uints, commitment=digests),
    st.builds(
        Reveal,
        worker=digests,
        job=digests,
        epoch=uints,
        salt=digests,
        value=st.binary(max_size=300),
        trace_root=digests,
        trace_size=st.integers(1, 2**64 - 1),
    ),
    decisions(),
)


def fields(message: Message) -> list[Any]:
    """The fields in the order of the CDDL, which is the order in which they are declared."""
    values = [getattr(message, field.name) for field in dataclasses.fields(message)]  # pyright: ignore[reportArgumentType]
    return [value.value if isinstance(value, enum.Enum) else value for value in values]


# Encodings.


@settings(deadline=None)
@given(messages)
def test_a_message_is_read_back(message: Message):
    assert type(message).decode(message.encode()) == message


@settings(deadline=None)
@given(messages)
def test_an_encoding_is_a_deterministic_array_of_kind_version_and_fields(message: Message):
    expected = cbor2.dumps([message.KIND, 1, *fields(message)], canonical=True)
    assert message.encode() == expected
    assert len(expected) <= message.MAX_SIZE


@settings(deadline=None)
@given(messages, messages)
def test_different_messages_have_different_encodings_and_digests(a: Message, b: Message):
    assert (a == b) == (a.encode() == b.encode()) == (a.digest == b.digest)


@settings(deadline=None)
@given(messages)
def test_no_message_is_read_as_another_kind(message: Message):
    for kind in KINDS:
        if kind is not type(message):
            with pytest.raises(MalformedEncoding):
                kind.decode(message.encode())


@settings(deadline=None)
@given(messages)
def test_a_digest_has_a_domain_of_its_own(message: Message):
    hasher = blake3(derive_key_context=f"verifiable v1 message {message.KIND}")
    data = message.encode()
    assert message.digest == hasher.update(len(data).to_bytes(8, "little") + data).digest()


def test_the_largest_messages_are_read_and_nothing_larger_is():
    digest = b"\xff" * 32
    top = 2**64 - 1
    largest: list[Message] = [
        dataclasses.replace(JOB, epoch=top, expiry=top),
        dataclasses.replace(COMMIT, epoch=top),
        dataclasses.replace(REVEAL, epoch=top, value=bytes(MAX_VALUE), trace_size=top),
        Decision(
            job=digest,
            epoch=top,
            outcome=VoteOutcome.ACCEPT,
            reason=Reason.AGREED,
            answer=digest,
            group=tuple(i.to_bytes(32, "big") for i in range(MAX_BALLOTS)),
            dissenters=tuple((i + MAX_BALLOTS).to_bytes(32, "big") for i in range(MAX_BALLOTS)),
            requested=top,
            beacon=top,
            error=0.1,
        ),
    ]
    for message in largest:
        assert type(message).decode(message.encode()) == message
        with pytest.raises(MalformedEncoding, match="more than"):
            type(message).decode(message.encode(), max_size=len(message.encode()) - 1)
    with pytest.raises(ValueError, match="value of a reveal"):
        dataclasses.replace(REVEAL, value=bytes(MAX_VALUE + 1))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
def test_size_is_limited_before_anything_is_parsed(
    kind: type[Message], monkeypatch: pytest.MonkeyPatch
):
    parsed: list[bytes] = []
    monkeypatch.setattr(encoding.cbor2, "loads", lambda data, **_: parsed.append(data))
    for limit in (None, 1 << 40):
        with pytest.raises(MalformedEncoding, match="more than"):
            kind.decode(bytes(kind.MAX_SIZE + 1), max_size=limit)
    assert not parsed


# Row 20, and whatever else is not the one encoding of a message.


def absent(index: int) -> Callable[[list[Any]], Any]:
    return lambda values: values[:index] + values[index + 1 :]


def put(index: int, value: Any) -> Callable[[list[Any]], Any]:
    return lambda values: [*values[:index], value, *values[index + 1 :]]


@dataclass(frozen=True)
class Cheat:
    name: str
    message: Message
    tamper: Callable[[list[Any]], Any]

    def __str__(self) -> str:
        return f"{self.message.KIND}: {self.name}"


CHEATS = [
    *(
        Cheat(name, message, tamper)
        for message in (JOB, COMMIT, REVEAL, DECISION)
        for name, tamper in (
            ("another version", put(1, 2)),
            ("version zero", put(1, 0)),
            ("version as a float", put(1, 1.0)),
            ("version as true", put(1, True)),
            ("another kind", put(0, "vote")),
            ("kind as bytes", put(0, message.KIND.encode())),
            ("kind as an array", put(0, [message.KIND])),
            ("a field more", lambda values: [*values, 0]),
            ("last field absent", absent(-1)),
            ("nothing but the kind", lambda values: values[:1]),
            ("empty array", lambda _: []),
            ("a map", lambda values: {"kind": values[0]}),
            ("null", lambda _: None),
        )
    ),
    *(
        Cheat(f"{field} null instead of there", message, put(2 + i, None))
        for message in (JOB, COMMIT, REVEAL)
        for i, field in enumerate(message.CHECKS)
    ),
    *(
        Cheat(f"{field} absent", message, absent(2 + i))
        for message in (JOB, COMMIT, REVEAL, DECISION)
        for i, field in enumerate(message.CHECKS)
    ),
    Cheat("two fields run together", COMMIT, lambda v: [*v[:2], v[2] + v[3], *v[4:]]),
    Cheat(
        "a border between fields moved", COMMIT, lambda v: [*v[:2], v[2][:31], v[2][31:], *v[4:]]
    ),
    Cheat("algorithm named", COMMIT, lambda v: [*v, "none"]),
    Cheat("epoch below zero", COMMIT, put(4, -1)),
    Cheat("epoch as a float", COMMIT, put(4, 7.0)),
    Cheat("epoch as true", COMMIT, put(4, True)),
    Cheat("epoch as text", COMMIT, put(4, "7")),
    Cheat("worker as text", COMMIT, put(2, "a" * 32)),
    Cheat("worker of 31 bytes", COMMIT, put(2, bytes(31))),
    Cheat("worker of 33 bytes", COMMIT, put(2, bytes(33))),
    Cheat("value as text", REVEAL, put(6, "answer")),
    Cheat("value too long", REVEAL, put(6, bytes(MAX_VALUE + 1))),
    Cheat("empty trace", REVEAL, put(8, 0)),
    Cheat("trace below zero", REVEAL, put(8, -1)),
    Cheat("rejected, which no vote does", DECISION, put(4, "reject")),
    Cheat("unknown reason", DECISION, put(5, "because")),
    Cheat("outcome as an array", DECISION, put(4, ["accept"])),
    Cheat("accepted and no answer", DECISION, put(6, None)),
    Cheat("accepted by nobody", DECISION, put(7, [])),
    Cheat("indeterminate with an answer", DECISION, put(4, "indeterminate")),
    Cheat("accepted although expired", DECISION, put(5, "expired")),
    Cheat("a vote without its bound", DECISION, put(11, None)),
    Cheat("an audit with a vote's bound", DECISION, put(5, "audited")),
    Cheat("a bound above 1", DECISION, put(11, 1.5)),
    Cheat("a bound below 0", DECISION, put(11, -0.5)),
    Cheat("a bound as an integer", DECISION, put(11, 0)),
    Cheat("voter counted twice", DECISION, put(7, [b"\x01" * 32] * 2)),
    Cheat("group out of order", DECISION, put(7, [b"\x02" * 32, b"\x01" * 32])),
    Cheat("voter on both sides", DECISION, put(8, [b"\x01" * 32])),
    Cheat("dissenters as an empty map", DECISION, put(8, {})),
    Cheat("dissenters as empty bytes", DECISION, put(8, b"")),
    Cheat("dissenters as empty text", DECISION, put(8, "")),
    Cheat("group as a map of workers", DECISION, put(7, {"a": 1})),
    Cheat("too many dissenters", DECISION, put(8, [i.to_bytes(32, "big") for i in range(1025)])),
    Cheat("nothing requested", DECISION, put(9, 0)),
]


@pytest.mark.parametrize("cheat", CHEATS, ids=str)
def test_cheat(cheat: Cheat):
    values = encoding.decode(cheat.message.encode(), max_size=1 << 22)
    data = encode(cheat.tamper(values))
    for kind in KINDS:
        with pytest.raises(MalformedEncoding):
            kind.decode(data)


NOT_CANONICAL = {
    "long version": lambda b: b.replace(b"fcommit\x01", b"fcommit\x18\x01"),
    "long array head": lambda b: b"\x98" + bytes([b[0] & 31]) + b[1:],
    "indefinite array": lambda b: b"\x9f" + b[1:] + b"\xff",
    "indefinite kind": lambda b: b.replace(b"fcommit", b"\x7ffcommit\xff"),
    "tag before it": lambda b: b"\xd9\xd9\xf7" + b,
    "bytes after it": lambda b: b + b"\0",
    "the same again after it": lambda b: b + b,
    "truncated": lambda b: b[:-1],
    "length of 2^63": lambda b: b"\x9b" + b"\x80" + bytes(7) + b[1:],
    "deep nesting": lambda b: b"\x81" * 200 + b"\0",
    "nothing": lambda _: b"",
}


@pytest.mark.parametrize("name", NOT_CANONICAL)
def test_only_the_canonical_encoding_is_read(name: str):
    data = NOT_CANONICAL[name](COMMIT.encode())
    assert data != COMMIT.encode()
    with pytest.raises(MalformedEncoding):
        Commit.decode(data)


# Fuzzing: only one family of errors comes out, and whatever is read has one encoding.

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.binary(max_size=40)
    | digests
    | st.text(max_size=20)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
)


@st.composite
def nearly_messages(draw: st.DrawFn) -> bytes:
    """Messages with fields replaced, or bytes changed."""
    message = draw(messages)
    values = encoding.decode(message.encode(), max_size=1 << 22)
    for _ in range(draw(st.integers(0, 2))):
        values[draw(st.integers(0, len(values) - 1))] = draw(anything)
    data = bytearray(encode(values))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200) | nearly_messages())
@example(b"\x9b" + b"\xff" * 8)
@example(b"")
def test_decoders_raise_nothing_but_malformed_encoding(data: bytes):
    for kind in KINDS:
        try:
            message = kind.decode(data)
        except MalformedEncoding:
            continue
        assert message.encode() == data


@settings(deadline=None, max_examples=100)
@given(
    st.binary(max_size=200)
    | nearly_messages().map(lambda body: joined(body, bytes(64)))
    | anything.map(encode)
    | nearly_messages()
)
def test_receiving_raises_nothing_but_verification_errors(data: bytes):
    kind: Any
    for kind in (Commit, Reveal):
        with pytest.raises(VerificationError):
            receive(kind, data, REGISTRY)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
def test_hostile_bytes_take_little_memory(kind: type[Message]):
    limit = min(kind.MAX_SIZE, 1 << 14)
    start = JOB.encode()[:1]
    for message in (JOB, COMMIT, REVEAL, DECISION):
        if isinstance(message, kind):
            start = message.encode()[: len(kind.KIND) + 3]
    bombs = [
        start + b"\x80" * (limit - len(start)),
        start + b"\x9a\x00\x0f\x00\x00" + b"\x80" * (1 << 20),
        start + b"\x81" * (1 << 20),
        start + b"\xbb" + b"\xff" * 8 + b"\x60" * (1 << 20),
        start + b"\x5b" + b"\xff" * 8,
        b"\x9a\x00\x0f\x00\x00" + b"\x80" * (1 << 20),
    ]
    tracemalloc.start()
    try:
        for data in bombs:
            with pytest.raises(MalformedEncoding):
                kind.decode(data, max_size=limit)
            with pytest.raises(MalformedEncoding):
                kind.decode(data[:limit])
        # About 100 bytes for each byte that the limit admits, and nothing for what lies beyond.
        assert tracemalloc.get_traced_memory()[1] < 120 * limit + (1 << 16)
    finally:
        tracemalloc.stop()


# Commitments.


def test_a_commitment_is_the_hash_of_the_specification():
    hasher = blake3(derive_key_context="verifiable v1 answer commitment")
    parts = (
        REVEAL.worker,
        REVEAL.job,
        (7).to_bytes(8, "little"),
        REVEAL.salt,
        REVEAL.value,
        REVEAL.trace_root,
        (9).to_bytes(8, "little"),
    )
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little") + part)
    assert REVEAL.commitment == COMMIT.commitment == hasher.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"worker": MALLORY_ID.id},
        {"job": b"\x09" * 32},
        {"epoch": 8},
        {"salt": b"\x09" * 32},
        {"value": b"answes"},
        {"value": b"answer\0"},
        {"trace_root": b"\x09" * 32},
        {"trace_size": 10},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_commitment_binds_every_field(change: dict[str, Any]):
    assert dataclasses.replace(REVEAL, **change).commitment != REVEAL.commitment


def test_a_fresh_reveal_hides_its_answer():
    a, b = (
        Reveal.fresh(worker=ALICE_ID.id, job=JOB, value=b"yes", trace_root=bytes(32), trace_size=1)
        for _ in range(2)
    )
    assert (a.job, a.epoch) == (JOB.digest, JOB.epoch)
    assert a.salt != b.salt
    assert a.commitment != b.commitment


def test_two_jobs_differ_by_their_nonce_alone():
    assert dataclasses.replace(JOB, nonce=bytes(32)).digest != JOB.digest


# Signatures.


def test_what_a_worker_signed_is_received():
    for message in (COMMIT, REVEAL):
        signed: Any = sign(message, ALICE.sign)
        assert receive(type(message), signed.encode(), REGISTRY) == signed


def test_a_signed_message_is_followed_by_its_signature():
    signed = sign(COMMIT, ALICE.sign)
    assert signed.signature == ALICE.sign(COMMIT.digest)
    assert signed.encode() == COMMIT.encode() + cbor2.dumps(signed.signature)


def test_what_nobody_signed_is_not_parsed(monkeypatch: pytest.MonkeyPatch):
    parsed: list[bytes] = []
    monkeypatch.setattr(encoding.cbor2, "loads", lambda data, **_: parsed.append(data))
    for forgery in FORGERIES:
        if forgery.expect in {UnknownWorker, InvalidSignature}:
            with pytest.raises(forgery.expect):
                receive(forgery.kind, forgery.data(), REGISTRY)
    assert not parsed


def joined(body: bytes, signature: bytes) -> bytes:
    """A signed message as the specification has it."""
    return body + b"\x58\x40" + signature


def resign(message: Any, key: Ed25519PrivateKey) -> bytes:
    return sign(message, key.sign).encode()


@dataclass(frozen=True)
class Forgery:
    name: str
    data: Callable[[], bytes]
    expect: type[VerificationError]
    kind: type[Any] = Commit

    def __str__(self) -> str:
        return self.name


def replay_as_reveal() -> bytes:
    """A signature for a commit, put under a reveal."""
    return joined(REVEAL.encode(), sign(COMMIT, ALICE.sign).signature)


def other(**change: Any) -> Callable[[], bytes]:
    """Alice's signature, put under a message that differs from what she signed."""
    signature = sign(COMMIT, ALICE.sign).signature
    return lambda: joined(dataclasses.replace(COMMIT, **change).encode(), signature)


def untagged() -> bytes:
    return joined(COMMIT.encode(), ALICE.sign(COMMIT.encode()))


def longer() -> bytes:
    return COMMIT.encode() + b"\x58\x41" + ALICE.sign(COMMIT.digest) + b"\0"


def signed_job() -> bytes:
    return joined(JOB.encode(), ALICE.sign(JOB.digest))


def hostile() -> bytes:
    """What a registered worker may sign although it is no message."""
    body = COMMIT.encode()[:-34] + b"\x9b" + b"\xff" * 8
    return joined(body, ALICE.sign(tagged_hash("message commit", body)))


FORGERIES = [
    Forgery("signed by somebody else", lambda: resign(COMMIT, MALLORY), InvalidSignature),
    Forgery("put under another worker's name", other(worker=MALLORY_ID.id), InvalidSignature),
    Forgery("moved to another job", other(job=bytes(32)), InvalidSignature),
    Forgery("moved to another epoch", other(epoch=8), InvalidSignature),
    Forgery("another commitment", other(commitment=bytes(32)), InvalidSignature),
    Forgery("a commit's signature on a reveal", replay_as_reveal, InvalidSignature, Reveal),
    Forgery("a commit sent as a reveal", lambda: resign(COMMIT, ALICE), MalformedEncoding, Reveal),
    Forgery("a reveal sent as a commit", lambda: resign(REVEAL, ALICE), MalformedEncoding),
    Forgery("a job signed by a worker", signed_job, MalformedEncoding),
    Forgery("signed without its domain", untagged, InvalidSignature),
    Forgery("nobody registered", other(worker=bytes(32)), UnknownWorker),
    Forgery("no signature", lambda: COMMIT.encode() + b"\x40", MalformedEncoding),
    Forgery("null signature", lambda: COMMIT.encode() + b"\xf6", MalformedEncoding),
    Forgery("signature absent", lambda: encode([COMMIT.encode()]), MalformedEncoding),
    Forgery("signature of zeros", lambda: joined(COMMIT.encode(), bytes(64)), InvalidSignature),
    Forgery("signature too long", longer, MalformedEncoding),
    Forgery("unsigned", COMMIT.encode, MalformedEncoding),
    Forgery(
        "algorithm named",
        lambda: encode("none") + resign(COMMIT, ALICE),
        MalformedEncoding,
    ),
    Forgery(
        "array instead of a sequence",
        lambda: encode([COMMIT.encode(), sign(COMMIT, ALICE.sign).signature]),
        MalformedEncoding,
    ),
    Forgery(
        "signature with a longer head",
        lambda: COMMIT.encode() + b"\x59\x00\x40" + sign(COMMIT, ALICE.sign).signature,
        MalformedEncoding,
    ),
    Forgery("signed by the worker, but no message", hostile, MalformedEncoding),
    Forgery("nothing", lambda: b"", MalformedEncoding),
    Forgery("a signature and nothing else", lambda: joined(b"", bytes(64)), MalformedEncoding),
    Forgery(
        "cut off within the worker", lambda: joined(COMMIT.encode()[:20], bytes(64)), UnknownWorker
    ),
    Forgery("bytes after it", lambda: resign(COMMIT, ALICE) + b"\0", MalformedEncoding),
    Forgery("the largest legal reveal, as a commit", lambda: bytes(1 << 20), MalformedEncoding),
]


@pytest.mark.parametrize("forgery", FORGERIES, ids=str)
def test_forgery(forgery: Forgery):
    with pytest.raises(forgery.expect):
        receive(forgery.kind, forgery.data(), REGISTRY)


def test_every_single_bit_is_signed():
    data = sign(COMMIT, ALICE.sign).encode()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(VerificationError):
            receive(Commit, bytes(flipped), REGISTRY)


def test_a_job_may_allow_less_than_the_kind():
    data = sign(REVEAL, ALICE.sign).encode()
    size = len(REVEAL.encode())
    assert receive(Reveal, data, REGISTRY, max_size=size).message == REVEAL
    with pytest.raises(MalformedEncoding, match="more than"):
        receive(Reveal, data, REGISTRY, max_size=size - 1)


def test_errors_carry_what_was_claimed():
    with pytest.raises(InvalidSignature) as caught:
        receive(Commit, resign(COMMIT, MALLORY), REGISTRY)
    assert (caught.value.worker, caught.value.kind) == (ALICE_ID.id, "commit")
    with pytest.raises(UnknownWorker) as unknown:
        receive(Commit, resign(COMMIT, ALICE), {})
    assert unknown.value.worker == ALICE_ID.id


def test_the_largest_signed_reveal_fits():
    reveal = dataclasses.replace(REVEAL, value=bytes(MAX_VALUE), epoch=2**64 - 1)
    data = resign(reveal, ALICE)
    assert receive(Reveal, data, REGISTRY) == Signed(
        message=reveal, signature=ALICE.sign(reveal.digest)
    )


# The caller's own mistakes, and the vectors of the specification.


def test_a_malformed_message_cannot_be_built():
    bad: Any
    for bad in (b"", bytes(31), "a" * 32, None, bytearray(32)):
        with pytest.raises(ValueError, match="job of a commit"):
            dataclasses.replace(COMMIT, job=bad)
    for bad in (-1, 2**64, 1.0, True, None):
        with pytest.raises(ValueError, match="epoch of a commit"):
            dataclasses.replace(COMMIT, epoch=bad)


VECTORS = {  # specs/messages.md
    "identity": "b3a23d5f05ba7308ff30904733c5502aa1b987bd85f0807c0c50c4c1e999d331",
    "job": "763202c4eb3dd294c47f3af1c5c165818af8dbbc40f693c48263ae64de7d016b",
    "commitment": "1331d346add4696b83f447d38b548e4f2902ba33b2eefc1506d047d3c8f59a0c",
    "commit": "bffdb5b8ec1a5a5ecf98ac64fbd937c94e745fd7cc36d56cf92c83ed90f2a7a2",
    "reveal": "47e0c73f540e05b1ff5d8ee9aa42e37313d3d33e95b725681b71e44f6fdda2f1",
    "decision": "4c4f5efe149d0f23f5d672a1f8a7e666ed2c1abd65e5fe7e996e53bbd467ac83",
    "signature": "9bc597919cc3c63734ea2ba8fa8e7f2c9d40d465aba9bc79f70330d157254fc7"
    "2bbbf9f7dd9d0cecf5d8be98e20cec20c743bc072cfcbb137d6598621f32e808",
}


def test_vectors_of_the_specification():
    assert VERSION == 1
    assert ALICE_ID.id.hex() == VECTORS["identity"]
    assert JOB.digest.hex() == VECTORS["job"]
    assert REVEAL.commitment.hex() == VECTORS["commitment"]
    assert COMMIT.digest.hex() == VECTORS["commit"]
    assert REVEAL.digest.hex() == VECTORS["reveal"]
    assert DECISION.digest.hex() == VECTORS["decision"]
    assert ALICE.sign(COMMIT.digest).hex() == VECTORS["signature"]


@pytest.mark.parametrize("module", ["messages", "replicated"])
def test_imports_without_jax(module: str):
    code = f"import sys, protocols.{module}; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own code
