"""Signatures of workers: valid for one worker, job, epoch and kind, and verified before parsing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.messages import (
    MAX_VALUE,
    Commit,
    InvalidSignature,
    NotSeated,
    Reveal,
    Signed,
    UnknownWorker,
    receive,
    sign,
)
from tests.helpers.wire import (
    ALICE,
    ALICE_ID,
    COMMIT,
    JOB,
    MALLORY,
    MALLORY_ID,
    REGISTRY,
    REVEAL,
    anything,
    joined,
    nearly_messages,
)
from verifiable import encoding
from verifiable.encoding import encode, tagged_hash
from verifiable.errors import MalformedEncoding, VerificationError


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


def test_what_a_worker_signed_is_received():
    for message in (COMMIT, REVEAL):
        signed: Any = sign(message, ALICE.sign)
        assert receive(type(message), signed.encode(), REGISTRY) == signed


def test_a_signed_message_is_followed_by_its_signature():
    signed = sign(COMMIT, ALICE.sign)
    assert signed.signature == ALICE.sign(COMMIT.digest)
    assert signed.encode() == COMMIT.encode() + cbor2.dumps(signed.signature)


def test_unsigned_bytes_are_not_parsed(monkeypatch: pytest.MonkeyPatch):
    parsed: list[bytes] = []
    monkeypatch.setattr(encoding.cbor2, "loads", lambda data, **_: parsed.append(data))
    for forgery in FORGERIES:
        if forgery.expect in {UnknownWorker, InvalidSignature}:
            with pytest.raises(forgery.expect):
                receive(forgery.kind, forgery.data(), REGISTRY)
    assert not parsed


@pytest.mark.parametrize("kind", [Commit, Reveal], ids=lambda kind: kind.KIND)
def test_nothing_is_decoded_for_a_sender_without_a_seat(
    kind: type[Any], monkeypatch: pytest.MonkeyPatch
):
    """A registered worker whose message is valid, in a job that was sent to another."""
    message: Any = REVEAL if kind is Reveal else COMMIT
    data = resign(message, ALICE)
    assert receive(kind, data, REGISTRY, seats={ALICE_ID.id}).message == message
    parsed: list[bytes] = []
    monkeypatch.setattr(encoding.cbor2, "loads", lambda data, **_: parsed.append(data))
    for seats in (set[bytes](), {MALLORY_ID.id}):
        with pytest.raises(NotSeated, match="has no seat in this job") as caught:
            receive(kind, data, REGISTRY, seats=seats)
        assert caught.value.worker == ALICE_ID.id
    with pytest.raises(UnknownWorker):
        receive(kind, data, {}, seats={ALICE_ID.id})
    assert not parsed


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
    """Bytes that a registered worker signed, but that are not a message."""
    body = COMMIT.encode()[:-34] + b"\x9b" + b"\xff" * 8
    return joined(body, ALICE.sign(tagged_hash("message commit", body)))


FORGERIES = [
    Forgery("signed by another worker", lambda: resign(COMMIT, MALLORY), InvalidSignature),
    Forgery("put under another worker's name", other(worker=MALLORY_ID.id), InvalidSignature),
    Forgery("moved to another job", other(job=bytes(32)), InvalidSignature),
    Forgery("moved to another epoch", other(epoch=8), InvalidSignature),
    Forgery("another commitment", other(commitment=bytes(32)), InvalidSignature),
    Forgery("a commit's signature on a reveal", replay_as_reveal, InvalidSignature, Reveal),
    Forgery("a commit sent as a reveal", lambda: resign(COMMIT, ALICE), MalformedEncoding, Reveal),
    Forgery("a reveal sent as a commit", lambda: resign(REVEAL, ALICE), MalformedEncoding),
    Forgery("a job signed by a worker", signed_job, MalformedEncoding),
    Forgery("signed without its domain", untagged, InvalidSignature),
    Forgery("worker not registered", other(worker=bytes(32)), UnknownWorker),
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
