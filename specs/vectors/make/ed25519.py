"""Points of Ed25519 (RFC 8032) with integers, and signatures that only lax verifiers accept."""

from __future__ import annotations

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
I = pow(2, (P - 1) // 4, P)
Point = tuple[int, int]


def recover(y: int, sign: int) -> Point:
    """The point with this y, or ValueError."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * I % P
    if (x * x - square) % P:
        raise ValueError("no point of the curve")
    return (P - x if x % 2 != sign else x, y)


B = recover(4 * pow(5, -1, P) % P, 0)
ORDER_8 = recover(0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826, 0)


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + k, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - k, -1, P)
    return x % P, y % P


def multiply(n: int, point: Point) -> Point:
    found: Point = (0, 1)
    while n:
        if n & 1:
            found = add(found, point)
        point, n = add(point, point), n >> 1
    return found


def encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def _secret(seed: bytes) -> tuple[int, bytes]:
    h = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(h[:32], "little") & (1 << 254) - 8 | 1 << 254
    return scalar, h[32:]


def public_key(seed: bytes) -> bytes:
    return encoded(multiply(_secret(seed)[0], B))


def sign(seed: bytes, message: bytes, *, torsion: Point = (0, 1)) -> bytes:
    """A signature; with a point of small order in R, only verifiers with the cofactor accept it."""
    scalar, prefix = _secret(seed)
    nonce = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % L
    r = encoded(add(multiply(nonce, B), torsion))
    key = encoded(multiply(scalar, B))
    k = int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % L
    return r + ((nonce + k * scalar) % L).to_bytes(32, "little")


def malleable(signature: bytes) -> bytes:
    """The same signature with s + L: not canonical, and refused by RFC 8032."""
    s = int.from_bytes(signature[32:], "little") + L
    return signature[:32] + s.to_bytes(32, "little")
