"""Points and signatures (specs/bls.md)."""

from __future__ import annotations

import bls_math as bls
from family import Family

BAD, POINT = "bad-signature", "invalid-point"


def negated(signature: bytes) -> bytes:
    return bytes([signature[0] ^ 0x20]) + signature[1:]


def proven(secret: int) -> dict[str, bytes]:
    """A key with its proof of possession."""
    bare = {"binding": b"", "domain": b""}
    return {"key": bls.public_key(secret), "proof": bls.prove(secret, b"")} | bare


def make() -> list[Family]:
    family = Family("bls", "bls.md")
    _points(family)
    one, two, message = bls.secret(1), bls.secret(2), b"a statement"
    key, right = bls.public_key(one), bls.sign(one, message, b"domain")
    given = {"key": key, "message": message, "domain": b"domain", "signature": right}
    family.accept("a signature", "verify", **given)
    empty = given | {"message": b"", "signature": bls.sign(one, b"", b"domain")}
    family.accept("an empty message", "verify", **empty)
    long = given | {"domain": b"d" * 255, "signature": bls.sign(one, message, b"d" * 255)}
    family.accept("a domain of 255 bytes", "verify", **long)
    for what, change in (
        ("another message", {"message": b"another"}),
        ("another domain", {"domain": b"Domain"}),
        ("another key", {"key": bls.public_key(two)}),
        ("the signature negated", {"signature": negated(right)}),
        ("a byte moved from domain to message", {"domain": b"domai", "message": b"n" + message}),
        ("a message that is not framed", {"signature": bls.raw_sign(one, message, bls.DST)}),
        (
            "a message framed without length",
            {"signature": bls.raw_sign(one, b"domain" + message, bls.DST)},
        ),
        (
            "the tag of proofs",
            {"signature": bls.raw_sign(one, bls.framed(message, b"domain"), bls.POP_DST)},
        ),
        (
            "the tag of the basic scheme",
            {
                "signature": bls.raw_sign(
                    one,
                    bls.framed(message, b"domain"),
                    b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_NUL_",
                )
            },
        ),
        ("a proof of possession", {"signature": bls.prove(one, b"")}),
    ):
        family.refuse(BAD, what, "verify", **(given | change))
    _possession(family)
    _aggregates(family)
    return [family]


def _points(family: Family) -> None:
    key, signature = (
        bls.public_key(bls.secret(1)),
        bls.sign(bls.secret(1), b"a statement", b"domain"),
    )
    family.accept("a public key", "public-key", bls.eip2537(bls.secret(1)), data=key)
    top = 1 << 383
    bad = {
        "no bytes": b"",
        "a byte missing": key[:-1],
        "a byte too many": key + b"\0",
        "the uncompressed encoding": bls.eip2537(bls.secret(1))[16:64]
        + bls.eip2537(bls.secret(1))[80:],
        "infinity": bytes([0xC0]) + bytes(47),
        "infinity with a sign": bytes([0xE0]) + bytes(47),
        "infinity with other bits": bytes([0xC0]) + bytes(46) + b"\1",
        "infinity that is not compressed": bytes([0x40]) + bytes(47),
        "zeros": bytes(48),
        "all bits set": b"\xff" * 48,
        "a coordinate of the modulus": (bls.P | top).to_bytes(48, "big"),
        "a coordinate above the modulus": (bls.P + 4 | top).to_bytes(48, "big"),
        "the flag of compression missing": bytes([key[0] & 0x7F]) + key[1:],
        "the flag of infinity set": bytes([key[0] | 0x40]) + key[1:],
        "no point of the curve": bls.off_g1(),
        "a point outside of the subgroup": bls.outside_g1(),
    }
    for what, data in bad.items():
        family.refuse(POINT, f"a key: {what}", "public-key", data=data)
    second = bytes([signature[48] | 0x80]) + signature[49:]
    bad = {
        "no bytes": b"",
        "a byte missing": signature[:-1],
        "a byte too many": signature + b"\0",
        "a public key": key,
        "infinity": bytes([0xC0]) + bytes(95),
        "infinity with a sign": bytes([0xE0]) + bytes(95),
        "infinity with other bits": bytes([0xC0]) + bytes(94) + b"\1",
        "zeros": bytes(96),
        "all bits set": b"\xff" * 96,
        "a first coordinate of the modulus": (bls.P | top).to_bytes(48, "big") + signature[48:],
        "a second coordinate of the modulus": signature[:48] + bls.P.to_bytes(48, "big"),
        "a flag in the second coordinate": signature[:48] + second,
        "the flag of compression missing": bytes([signature[0] & 0x7F]) + signature[1:],
        "no point of the curve": bls.off_g2(),
        "a point outside of the subgroup": bls.outside_g2(),
    }
    for what, data in bad.items():
        family.refuse(POINT, f"a signature: {what}", "signature", data=data)


def _possession(family: Family) -> None:
    one, reason = bls.secret(1), "bad-possession"
    key, binding = bls.public_key(one), b"chain and contract"
    plain = {"key": key, "binding": b"", "domain": b"", "proof": bls.prove(one, b"")}
    family.accept("a proof without binding", "possession", **plain)
    bound = plain | {"binding": binding, "proof": bls.prove(one, binding)}
    family.accept("a proof with a binding", "possession", **bound)
    chain = bound | {"domain": b"register", "proof": bls.prove(one, binding, b"register")}
    family.accept("a proof for a contract", "possession", **chain)
    for what, change in (
        ("another binding", bound | {"binding": b"another"}),
        ("a binding left out", bound | {"binding": b""}),
        ("another key", bound | {"key": bls.public_key(bls.secret(2))}),
        ("another domain", chain | {"domain": b"Register"}),
        ("a domain left out", chain | {"domain": b""}),
        ("a proof without a domain, for a contract", bound | {"domain": b"register"}),
        ("the proof negated", bound | {"proof": negated(bound["proof"])}),
        ("the tag of signatures", plain | {"proof": bls.raw_sign(one, key, bls.DST)}),
        (
            "a proof over the long key without a domain",
            plain | {"proof": bls.raw_sign(one, bls.eip2537(one), bls.POP_DST)},
        ),
    ):
        family.refuse(reason, what, "possession", **change)


def _aggregates(family: Family) -> None:
    secrets, message, domain = [bls.secret(i) for i in (1, 2, 3)], b"a statement", b"domain"
    signatures = [bls.sign(s, message, domain) for s in secrets]
    keys = [proven(s) for s in secrets]
    given = {"keys": keys, "message": message, "domain": domain}
    given["signature"] = bls.aggregate(signatures)
    family.accept("three signers", "aggregate", **given)
    one = given | {"keys": keys[:1], "signature": signatures[0]}
    family.accept("one signer", "aggregate", **one)
    cancelling = [keys[0], proven(bls.R - secrets[0])]
    for reason, what, change in (
        (BAD, "a signer missing", {"keys": keys[:2]}),
        (BAD, "a signer too many", {"signature": bls.aggregate(signatures[:2])}),
        (
            BAD,
            "a signature counted twice",
            {"signature": bls.aggregate([*signatures, signatures[0]])},
        ),
        (BAD, "another message", {"message": b"another"}),
        ("no-signers", "no signers", {"keys": []}),
        ("duplicate-signer", "a signer twice", {"keys": [*keys, keys[0]]}),
        ("infinite-aggregate", "keys that cancel out", {"keys": cancelling}),
    ):
        family.refuse(reason, what, "aggregate", **(given | change))
