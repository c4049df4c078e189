"""BLS signatures by py_ecc (specs/bls.md), and points that must be refused."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

from py_ecc.bls.g2_primitives import G1_to_pubkey, G2_to_signature, signature_to_G2
from py_ecc.bls.hash_to_curve import hash_to_G2
from py_ecc.bls.point_compression import compress_G1, compress_G2, modular_squareroot_in_FQ2
from py_ecc.optimized_bls12_381 import (
    FQ,
    FQ2,
    G1,
    Z2,
    add,
    b,
    b2,
    curve_order,
    field_modulus,
    is_inf,
    multiply,
    normalize,
)

DST = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
POP_DST = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
P, R = field_modulus, curve_order


def secret(i: int) -> int:
    return int.from_bytes(hashlib.sha512(b"secret %d" % i).digest(), "big") % R


@functools.cache
def point(secret_key: int) -> Any:
    return multiply(G1, secret_key)


def public_key(secret_key: int) -> bytes:
    return bytes(G1_to_pubkey(point(secret_key)))


def eip2537(secret_key: int) -> bytes:
    x, y = normalize(point(secret_key))
    return int(x).to_bytes(64, "big") + int(y).to_bytes(64, "big")


def framed(message: bytes, domain: bytes) -> bytes:
    return bytes([len(domain)]) + domain + message


@functools.cache
def raw_sign(secret_key: int, message: bytes, dst: bytes) -> bytes:
    return bytes(G2_to_signature(multiply(hash_to_G2(message, dst, hashlib.sha256), secret_key)))


def sign(secret_key: int, message: bytes, domain: bytes) -> bytes:
    return raw_sign(secret_key, framed(message, domain), DST)


def prove(secret_key: int, binding: bytes, domain: bytes = b"") -> bytes:
    if domain:
        return raw_sign(secret_key, framed(eip2537(secret_key) + binding, domain), POP_DST)
    return raw_sign(secret_key, public_key(secret_key) + binding, POP_DST)


def aggregate(signatures: list[bytes]) -> bytes:
    total = Z2
    for signature in signatures:
        total = add(total, signature_to_G2(signature))
    return bytes(G2_to_signature(total))


def outside_g1() -> bytes:
    """A point of the curve of G1 that is not in the subgroup."""
    for x in range(1, 100):
        square = (FQ(x) ** 3 + b) ** ((P + 1) // 4)
        if square * square == FQ(x) ** 3 + b and not is_inf(multiply((FQ(x), square, FQ(1)), R)):
            return compress_G1((FQ(x), square, FQ(1))).to_bytes(48, "big")
    raise AssertionError


def outside_g2() -> bytes:
    for x in range(1, 100):
        fx = FQ2([x, 1])
        y = modular_squareroot_in_FQ2(fx**3 + b2)
        if y is not None and not is_inf(multiply((fx, y, FQ2.one()), R)):
            return b"".join(z.to_bytes(48, "big") for z in compress_G2((fx, y, FQ2.one())))
    raise AssertionError


def off_g1() -> bytes:
    """A coordinate of no point of G1's curve."""
    x = next(x for x in range(1, 100) if pow(x**3 + 4, (P - 1) // 2, P) != 1)
    return (x | 1 << 383).to_bytes(48, "big")


def off_g2() -> bytes:
    x = next(x for x in range(1, 100) if modular_squareroot_in_FQ2(FQ2([x, 1]) ** 3 + b2) is None)
    return (1 | 1 << 383).to_bytes(48, "big") + x.to_bytes(48, "big")
