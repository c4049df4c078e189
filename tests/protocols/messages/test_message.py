"""Messages: one encoding each, and hostile bytes."""

from __future__ import annotations

import dataclasses
import enum
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cbor2
import pytest
from blake3 import blake3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocols.messages import (
    MAX_BALLOTS,
    MAX_VALUE,
    VERSION,
    Commit,
    Decision,
    Message,
    Reason,
    Reveal,
)
from tests.helpers.wire import (
    ALICE,
    ALICE_ID,
    ASSIGNMENT,
    BOSS_ID,
    COMMIT,
    DECISION,
    JOB,
    KINDS,
    REQUEST,
    REVEAL,
    TRACE_REQUEST,
    UPLOAD,
    messages,
    nearly_messages,
)
from verifiable import encoding
from verifiable.encoding import encode
from verifiable.errors import MalformedEncoding
from verifiable.voting import VoteOutcome


def fields(message: Message) -> list[Any]:
    """The fields in the order of the CDDL, which is the order in which they are declared."""
    values = [getattr(message, field.name) for field in dataclasses.fields(message)]  # pyright: ignore[reportArgumentType]
    return [value.value if isinstance(value, enum.Enum) else value for value in values]


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
        dataclasses.replace(UPLOAD, epoch=top, size=top),
        dataclasses.replace(TRACE_REQUEST, epoch=top, deadline=top),
        Decision(
            coordinator=digest,
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
        for message in (JOB, COMMIT, REVEAL, UPLOAD, REQUEST, DECISION)
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
        for message in (JOB, COMMIT, REVEAL, UPLOAD, ASSIGNMENT, REQUEST, TRACE_REQUEST)
        for i, field in enumerate(message.CHECKS)
    ),
    *(
        Cheat(f"{field} absent", message, absent(2 + i))
        for message in (JOB, COMMIT, REVEAL, UPLOAD, REQUEST, DECISION)
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
    Cheat("an unknown form of answer", JOB, put(9, "hash")),
    Cheat("a form of answer in bytes", JOB, put(9, b"bytes")),
    Cheat("empty upload", UPLOAD, put(6, 0)),
    Cheat("deadline below zero", REQUEST, put(6, -1)),
    Cheat("rejected, which no vote does", DECISION, put(5, "reject")),
    Cheat("unknown reason", DECISION, put(6, "because")),
    Cheat("outcome as an array", DECISION, put(5, ["accept"])),
    Cheat("accepted and no answer", DECISION, put(7, None)),
    Cheat("accepted without a group", DECISION, put(8, [])),
    Cheat("indeterminate with an answer", DECISION, put(5, "indeterminate")),
    Cheat("accepted although expired", DECISION, put(6, "expired")),
    Cheat("a vote without its bound", DECISION, put(12, None)),
    Cheat("an audit with a vote's bound", DECISION, put(6, "audited")),
    Cheat("a bound above 1", DECISION, put(12, 1.5)),
    Cheat("a bound below 0", DECISION, put(12, -0.5)),
    Cheat("a bound as an integer", DECISION, put(12, 0)),
    Cheat("voter counted twice", DECISION, put(8, [b"\x01" * 32] * 2)),
    Cheat("group out of order", DECISION, put(8, [b"\x02" * 32, b"\x01" * 32])),
    Cheat("voter on both sides", DECISION, put(9, [b"\x01" * 32])),
    Cheat("dissenters as an empty map", DECISION, put(9, {})),
    Cheat("dissenters as empty bytes", DECISION, put(9, b"")),
    Cheat("dissenters as empty text", DECISION, put(9, "")),
    Cheat("group as a map of workers", DECISION, put(8, {"a": 1})),
    Cheat("too many dissenters", DECISION, put(9, [i.to_bytes(32, "big") for i in range(1025)])),
    Cheat("nothing requested", DECISION, put(10, 0)),
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


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
def test_hostile_bytes_take_little_memory(kind: type[Message]):
    limit = min(kind.MAX_SIZE, 1 << 14)
    start = JOB.encode()[:1]
    for message in (JOB, COMMIT, REVEAL, UPLOAD, ASSIGNMENT, REQUEST, TRACE_REQUEST, DECISION):
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


COSTLY = {  # of 2^20 bytes, in place of a value
    "an array of empty maps": b"\x9a\x00\x10\x00\x00" + b"\xa0" * (1 << 20),
    "an array of empty texts": b"\x9a\x00\x10\x00\x00" + b"\x60" * (1 << 20),
    "a map of nulls": b"\xba\x00\x08\x00\x00" + b"\x60\xf6" * (1 << 19),
    "arrays in arrays": b"\x81" * (1 << 20) + b"\x00",
    "a length beyond the end": b"\x5b" + b"\xff" * 8 + bytes(1 << 20),
    "a tag": b"\xc2\x5a\x00\x0f\xff\xff" + bytes((1 << 20) - 1),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_value_of_many_items_is_refused_before_it_is_decoded(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    before, value, after = REVEAL.encode().partition(encode(REVEAL.value))
    assert Reveal.decode(before + value + after) == REVEAL
    decoded: list[bytes] = []
    monkeypatch.setattr(encoding.cbor2, "loads", lambda data, **_: decoded.append(data))
    with pytest.raises(MalformedEncoding):
        Reveal.decode(before + COSTLY[name] + after)
    assert not decoded


@pytest.mark.parametrize("field", ["worker", "job", "epoch", "salt", "trace_root", "trace_size"])
def test_short_fields_are_checked_before_a_long_one_is_decoded(
    field: str, monkeypatch: pytest.MonkeyPatch
):
    """The cheat is the largest legal value beside a field that is none."""
    large = dataclasses.replace(REVEAL, value=bytes(MAX_VALUE))
    values = encoding.decode(large.encode(), max_size=1 << 22)
    place = 2 + list(Reveal.CHECKS).index(field)
    data = encode([*values[:place], "no", *values[place + 1 :]])
    decoded: list[int] = []
    loads = encoding.cbor2.loads

    def counted(data: bytes, **options: Any) -> Any:
        decoded.append(len(data))
        return loads(data, **options)

    monkeypatch.setattr(encoding.cbor2, "loads", counted)
    with pytest.raises(MalformedEncoding, match=f"{field} of a reveal"):
        Reveal.decode(data)
    assert max(decoded) < 1024
    assert Reveal.decode(large.encode()) == large
    assert max(decoded) > MAX_VALUE


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
    "coordinator": "e173c80692715e06e185ea00ce12a294191830b92fbd1be8e08abd4249078d1f",
    "job": "b59a664c70c852f72ef517f69f449e2a07af108f29c3c6d45333de0941e63edf",
    "commitment": "091f60ada81a0976622e1625e8b1aa30f43f94b1b01e769f7ada3b11057653ad",
    "commit": "963b4ee4549d6005cb0b8809e841c7bbe3e10ab93405f274b223ead60b881989",
    "reveal": "27c400d2813ce29123afd9cedc6e2151ea9b5e38c190610d66f34ae184425962",
    "assignment": "3eab97f9cc67a1a209ad16774419ce408e45eb3164238057a2c1540ee6239e8a",
    "reveal-request": "3efed721077be9d96b3a2ed25547b85b716a0acd917e9e35227c516b5425dac2",
    "trace-request": "eafae261e15feb56d4b4b072ee6d6787dc87354a4f8ed02e3f97fc0c2c19b8df",
    "upload": "0e5af3ca908c004661f3f922eed9e02be09c3cde1cfe00b4328cfcb7fec49481",
    "decision": "a06d92e4f4bf137adf17ef3482a4b24d30dc2bb9f1ec69997ed1a22111bfde5c",
    "signature": "f077114c51df72c20893b6acc6d0b699d583f7eac102d9c1aaa00ec303a7bb98"
    "02790a5624802e1b2b90e12437ced5c537bcbd5c0e0cdb057e229f533d0bac02",
}


def test_vectors_of_the_specification():
    assert VERSION == 1
    found = {
        "identity": ALICE_ID.id,
        "coordinator": BOSS_ID.id,
        "commitment": REVEAL.commitment,
        "signature": ALICE.sign(COMMIT.digest),
    }
    for message in (JOB, ASSIGNMENT, COMMIT, REQUEST, REVEAL, TRACE_REQUEST, UPLOAD, DECISION):
        found[message.KIND] = message.digest
    assert {name: value.hex() for name, value in found.items()} == VECTORS
