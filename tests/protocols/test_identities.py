"""Malformed and small-order keys cannot be registered; the group law of RFC 8032 is the oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.identities import Algorithm, Identity
from verifiable.encoding import tagged_hash
from verifiable.errors import MalformedEncoding

# The slow oracle: RFC 8032, 5.1.

P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493
Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    t = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + t, P - 2, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - t, P - 2, P) % P,
    )


def times(n: int, point: Point) -> Point:
    total = (0, 1)
    for bit in bin(n)[2:]:
        total = add(total, total)
        if bit == "1":
            total = add(total, point)
    return total


def encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def decode(data: bytes) -> Point | None:
    """RFC 8032, 5.1.3."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square or (x == 0 and sign):
        return None
    return (x if x & 1 == sign else P - x, y)


def torsion() -> list[Point]:
    """The eight points whose order divides 8, from multiples of points by the group's order."""
    seed = 2
    while True:
        point = decode(seed.to_bytes(32, "little"))
        seed += 1
        if point is not None:
            point = times(ORDER, point)
            if times(4, point) != (0, 1):
                return [times(i, point) for i in range(8)]


TORSION = torsion()


def private_key(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


@settings(deadline=None, max_examples=150)
@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_taken_iff_it_is_a_point_of_large_order(data: bytes):
    point = decode(data)
    sound = point is not None and times(8, point) != (0, 1)
    try:
        identity = Identity(public_key=data)
    except MalformedEncoding:
        assert not sound
    else:
        assert sound
        assert identity.public_key == data


def test_an_identity_is_the_hash_of_algorithm_and_key():
    identity = Identity(public_key=raw(private_key(1)))
    assert identity.id == tagged_hash("worker identity", b"ed25519", identity.public_key)
    assert identity == Identity(public_key=identity.public_key, algorithm=Algorithm.ED25519)
    assert identity.id != Identity(public_key=raw(private_key(2))).id


@dataclass(frozen=True)
class Cheat:
    name: str
    key: Any

    def __str__(self) -> str:
        return self.name


CHEATS = [
    *(Cheat(f"order divides 8, point {i}", encode(point)) for i, point in enumerate(TORSION)),
    Cheat("identity with the sign bit set", (1 | 1 << 255).to_bytes(32, "little")),
    Cheat("order 2 with the sign bit set", (P - 1 | 1 << 255).to_bytes(32, "little")),
    Cheat("identity, not reduced", (P + 1).to_bytes(32, "little")),
    Cheat("order 4, not reduced", P.to_bytes(32, "little")),
    Cheat("a large point, not reduced", (P + 3).to_bytes(32, "little")),
    Cheat("largest", b"\xff" * 32),
    Cheat("not a point of the curve", (2).to_bytes(32, "little")),
    Cheat("31 bytes", raw(private_key(1))[:31]),
    Cheat("33 bytes", raw(private_key(1)) + b"\0"),
    Cheat("no bytes", ""),
    Cheat("bytearray, which could change", bytearray(raw(private_key(1)))),
    Cheat("nothing", None),
]


@pytest.mark.parametrize("cheat", CHEATS, ids=str)
def test_cheat(cheat: Cheat):
    with pytest.raises(MalformedEncoding):
        Identity(public_key=cheat.key)


def test_there_are_eight_points_of_small_order():
    assert len(set(TORSION)) == 8
    assert all(times(8, point) == (0, 1) for point in TORSION)


def test_under_the_identity_key_one_signature_fits_every_message():
    # Why keys of small order are refused: R the identity and s = 0 verify for every message.
    forged = encode((0, 1)) + bytes(32)
    weak = Ed25519PublicKey.from_public_bytes(encode((0, 1)))
    for message in (b"a", b"b"):
        weak.verify(forged, message)
    assert not Identity(public_key=raw(private_key(1))).verifies(forged, b"a")


def test_a_signature_has_one_form():
    key, digest = private_key(1), bytes(32)
    identity = Identity(public_key=raw(key))
    signature = key.sign(digest)
    assert identity.verifies(signature, digest)
    s = int.from_bytes(signature[32:], "little") + ORDER
    assert not identity.verifies(signature[:32] + s.to_bytes(32, "little"), digest)
    for bit in range(512):
        flipped = bytearray(signature)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not identity.verifies(bytes(flipped), digest)


def test_a_signature_of_another_length_does_not_verify():
    key, digest = private_key(1), bytes(32)
    identity = Identity(public_key=raw(key))
    for signature in (b"", key.sign(digest)[:63], key.sign(digest) + b"\0"):
        assert not identity.verifies(signature, digest)
