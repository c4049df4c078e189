"""Receipts of workers (specs/audited.md; messages.md), and COSE receipts (receipts.md)."""

from __future__ import annotations

import hashlib
from typing import Any

import ed25519
from family import Family
from spec import SHA, cbor, head, mth, path, tagged_hash

REASON = "malformed-encoding"


def word(value: int | bytes) -> bytes:
    return value.to_bytes(32, "big") if isinstance(value, int) else value.rjust(32, b"\0")


def name_of(key: bytes) -> bytes:
    return tagged_hash("worker identity", b"ed25519", key)


def make() -> list[Family]:
    return [_receipts(), _cose()]


def _receipts() -> Family:
    family = Family("receipts", "audited.md, Receipts; messages.md, Identities and signatures")
    _identities(family)
    seeds = [bytes([i]) * 32 for i in (1, 2)]
    keys = [ed25519.public_key(seed) for seed in seeds]
    worker, other = map(name_of, keys)
    fields: list[Any] = [worker, bytes([7]) * 32, 7, bytes([6]) * 32, bytes([5]) * 32, 9]

    def message(*fields: Any, kind: str = "trace-receipt", version: Any = 1) -> bytes:
        return cbor([kind, version, *fields])

    def signed(body: bytes, seed: bytes = seeds[0], tag: str = "message trace-receipt") -> bytes:
        return body + b"\x58\x40" + ed25519.sign(seed, tagged_hash(tag, body))

    body = message(*fields)
    right = signed(body)
    shown = {"worker": worker, "job": fields[1], "epoch": "7", "receipt": fields[3]}
    shown |= {
        "trace_root": fields[4],
        "trace_size": "9",
        "digest": tagged_hash("message trace-receipt", body),
    }
    given: dict[str, Any] = {"keys": keys}
    family.accept("a receipt", "receive", shown, **given, data=right)
    family.accept(
        "a receipt of a seated worker", "receive", shown, **given, seats=[worker], data=right
    )
    large = message(worker, fields[1], 2**64 - 1, *fields[3:5], 2**64 - 1)
    output = shown | {"epoch": str(2**64 - 1), "trace_size": str(2**64 - 1)}
    output |= {"digest": tagged_hash("message trace-receipt", large)}
    family.accept("the largest numbers", "receive", output, **given, data=signed(large))
    bad = "invalid-signature"
    flipped = bytearray(right)
    flipped[60] ^= 1
    for reason, what, data in (
        (REASON, "nothing", b""),
        (REASON, "no signature", body),
        (REASON, "a byte missing", right[:-1]),
        (REASON, "a byte too many", right + b"\0"),
        (REASON, "a signature of 63 bytes", body + b"\x58\x3f" + right[-63:]),
        (REASON, "the signature as text", body + b"\x78\x40" + right[-64:]),
        (REASON, "another kind", signed(message(*fields, kind="commit"))),
        (REASON, "another version", signed(message(*fields, version=2))),
        (REASON, "a version that is a float", signed(message(*fields, version=1.0))),
        (REASON, "a field missing", signed(message(*fields[:-1]))),
        (REASON, "a field too many", signed(message(*fields, 0))),
        (
            REASON,
            "an epoch of 2^64 as a negative number",
            signed(message(*fields[:2], -1, *fields[3:])),
        ),
        (REASON, "a size of zero", signed(message(*fields[:5], 0))),
        (REASON, "a size that is true", signed(message(*fields[:5], True))),
        (REASON, "a size that is a float", signed(message(*fields[:5], 9.0))),
        (REASON, "a size that is null", signed(message(*fields[:5], None))),
        (REASON, "a job of 31 bytes", signed(message(worker, bytes(31), *fields[2:]))),
        (REASON, "a root that is text", signed(message(*fields[:4], "0" * 32, 9))),
        (REASON, "a worker of 31 bytes", signed(message(worker[:31], *fields[1:]))),
        (REASON, "a size in a longer head", signed(body[:-1] + b"\x18\x09")),
        (REASON, "more than 256 bytes", signed(message(*fields[:5], 9) + bytes(100))),
        (REASON, "a byte between message and signature", signed(body + b"\0")),
        (
            "unknown-worker",
            "a worker that is not registered",
            signed(message(bytes(32), *fields[1:])),
        ),
        (bad, "a worker that another signed for", signed(message(other, *fields[1:]))),
        (bad, "a bit of the message", bytes(flipped)),
        (bad, "a bit of the signature", right[:-1] + bytes([right[-1] ^ 1])),
        (bad, "the digest of another kind", signed(body, tag="message commit")),
        (bad, "the message itself signed", body + b"\x58\x40" + ed25519.sign(seeds[0], body)),
        (bad, "a signature with s + L", body + b"\x58\x40" + ed25519.malleable(right[-64:])),
        (bad, "a signature of zeros", body + b"\x58\x40" + bytes(64)),
    ):
        family.refuse(reason, what, "receive", **given, data=data)
    digest = tagged_hash("message trace-receipt", body)
    mixed = ed25519.sign(seeds[0], digest, torsion=ed25519.ORDER_8)
    what = "a signature that is valid only with the cofactor"
    family.refuse(bad, what, "receive", **given, data=body + b"\x58\x40" + mixed)
    family.refuse("not-seated", "no seat", "receive", **given, seats=[other], data=right)
    family.refuse("not-seated", "no seats at all", "receive", **given, seats=[], data=right)
    unknown = {"keys": keys[1:], "seats": [worker]}
    family.refuse("unknown-worker", "a seat, but no key", "receive", **unknown, data=right)
    return family


def _identities(family: Family) -> None:
    key = ed25519.public_key(bytes([1]) * 32)
    family.accept("an Ed25519 key", "identity", name_of(key), key=key)
    p, y8 = ed25519.P, ed25519.ORDER_8[1]
    beside = next(y for y in range(2, 100) if not _on_curve(y))
    points = {
        "the neutral point": 1,
        "the point of order 2": p - 1,
        "a point of order 4": 0,
        "a point of order 8": y8,
        "another point of order 8": p - y8,
        "a coordinate of p": p,
        "a coordinate of p + 1": p + 1,
        "a coordinate of 2^255 - 1": 2**255 - 1,
        "a coordinate beside the curve": beside,
    }
    for what, y in points.items():
        family.refuse(REASON, what, "identity", key=y.to_bytes(32, "little"))
    signed = (1 | 1 << 255).to_bytes(32, "little")
    family.refuse(REASON, "the neutral point with a sign", "identity", key=signed)
    negated = (y8 | 1 << 255).to_bytes(32, "little")
    family.refuse(REASON, "a point of order 8 with a sign", "identity", key=negated)
    for what, bad in (("no key", b""), ("31 bytes", key[:31]), ("33 bytes", key + b"\0")):
        family.refuse(REASON, what, "identity", key=bad)


def _on_curve(y: int) -> bool:
    try:
        ed25519.recover(y, 0)
    except ValueError:
        return False
    return True


def record(i: int, epoch: int = 4, policy: bytes = bytes([6]) * 32) -> bytes:
    job, worker = bytes([2, i]) * 16, bytes([3]) * 32
    return cbor(
        [
            *("verdict", 1, epoch, job, worker, "reject", "claim-mismatch", bytes([4]) * 32, None),
            *(bytes([5]) * 32, policy, 1000, 10),
        ]
    )


def statement(root: bytes, size: int, **change: Any) -> bytes:
    """The words of the statement of an epoch."""
    fields: dict[str, Any] = {
        **{"chain": 1, "contract": bytes(range(20)), "epoch": 4, "root": root, "size": size},
        **{"policy": bytes([6]) * 32, "committee": hashlib.sha256(b"committee").digest()},
        **{"sequence": 3, "previous": bytes([9]) * 32},
    }
    return b"".join(word(value) for value in (fields | change).values())


class Map:
    """A map of CBOR with its pairs in any order, for readers to refuse."""

    def __init__(self, *pairs: tuple[Any, Any]):
        self.pairs = pairs

    def encode(self) -> bytes:
        items = b"".join(_raw(key) + _raw(value) for key, value in self.pairs)
        return head(5, len(self.pairs)) + items


def _raw(value: Any) -> bytes:
    if isinstance(value, Map):
        return value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(_raw, value))
    return cbor(value)


def _cose() -> Family:
    family = Family("cose", "receipts.md")
    seed, records = bytes(range(32)), [record(i) for i in range(5)]
    key = ed25519.public_key(seed)
    leaf = [SHA.leaf(r) for r in records]
    root, index = mth(SHA, leaf), 3
    words = statement(root, 5)
    plain = {"alg": (1, -8), "kid": (4, name_of(key)), "vds": (395, 1)}
    plain["statement"] = ("epoch statement", words)

    def receipt(
        *,
        header: Any = None,
        proofs: Any = None,
        unprotected: Any = None,
        payload: Any = None,
        signature: Any = None,
        signed_root: bytes = root,
        tag: bytes = b"\xd2",
        context: str = "Signature1",
        signer: bytes = seed,
    ) -> bytes:
        protected = _raw(header or Map(*plain.values()))
        proof = [cbor([5, index, path(SHA, index, leaf)])] if proofs is None else proofs
        to_sign = cbor([context, protected, b"", signed_root])
        signature = ed25519.sign(signer, to_sign) if signature is None else signature
        outer = Map((396, Map((-1, proof)))) if unprotected is None else unprotected
        return tag + _raw([protected, outer, payload, signature])

    right = receipt()
    given: dict[str, Any] = {"record": records[index], "issuer": key}
    family.accept("a receipt", "verify", **given, data=right)
    for size in (1, 2, 8):
        some = [record(i) for i in range(size)]
        digests = [SHA.leaf(r) for r in some]
        top, at = mth(SHA, digests), size - 1
        header = Map(*(plain | {"statement": ("epoch statement", statement(top, size))}).values())
        proofs = [cbor([size, at, path(SHA, at, digests)])]
        data = receipt(header=header, proofs=proofs, signed_root=top)
        what = f"the last of {size} verdicts"
        family.accept(what, "verify", record=some[at], issuer=key, data=data)

    def with_header(**change: Any) -> bytes:
        return receipt(header=Map(*(plain | change).values()))

    def with_proof(*proof: Any) -> bytes:
        return receipt(proofs=[cbor(list(proof))])

    steps = path(SHA, index, leaf)
    proof = cbor([5, index, steps])
    unordered = Map(plain["kid"], plain["alg"], plain["vds"], plain["statement"])
    malformed = {
        "nothing": b"",
        "no tag": right[1:],
        "the tag of a signature by many": receipt(tag=b"\xd8\x62"),
        "the tag in a longer head": receipt(tag=b"\xd8\x12"),
        "the tag twice": b"\xd2" + right,
        "a byte missing": right[:-1],
        "a byte too many": right + b"\0",
        "another algorithm, -19": with_header(alg=(1, -19)),
        "another algorithm, -7": with_header(alg=(1, -7)),
        "the algorithm as a float": with_header(alg=(1, -8.0)),
        "another structure of trees": with_header(vds=(395, 2)),
        "an issuer of 31 bytes": with_header(kid=(4, name_of(key)[:31])),
        "an issuer that is text": with_header(kid=(4, "0" * 32)),
        "a critical label": with_header(crit=(2, ["epoch statement"])),
        "an additional label": with_header(more=(5, b"iv")),
        "labels out of order": receipt(header=unordered),
        "no algorithm": receipt(header=Map(*list(plain.values())[1:])),
        "no statement": receipt(header=Map(*list(plain.values())[:3])),
        "a statement of 287 bytes": with_header(statement=("epoch statement", words[:-1])),
        "a statement of 289 bytes": with_header(statement=("epoch statement", words + b"\0")),
        "a label in another case": with_header(statement=("Epoch statement", words)),
        "a chain id of zero": with_header(
            statement=("epoch statement", statement(root, 5, chain=0))
        ),
        "a size of zero": with_header(statement=("epoch statement", statement(root, 0))),
        "a contract of 21 bytes": with_header(
            statement=("epoch statement", statement(root, 5, contract=b"\1" * 21))
        ),
        "an epoch of 2^64": with_header(
            statement=("epoch statement", statement(root, 5, epoch=2**64))
        ),
        "an empty protected header": receipt(header=Map()),
        "a header in the unprotected map": receipt(
            unprotected=Map((4, name_of(key)), (396, Map((-1, [proof]))))
        ),
        "no proofs": receipt(proofs=[]),
        "two proofs": receipt(proofs=[proof, proof]),
        "a proof that is no byte string": receipt(proofs=[[5, index, steps]]),
        "a consistency proof": receipt(unprotected=Map((396, Map((-2, [proof]))))),
        "an inclusion and a consistency proof": receipt(
            unprotected=Map((396, Map((-1, [proof]), (-2, [proof]))))
        ),
        "no unprotected header": receipt(unprotected=Map()),
        "the label of a receipt": receipt(unprotected=Map((394, Map((-1, [proof]))))),
        "the root as payload": receipt(payload=root),
        "an empty payload": receipt(payload=b""),
        "a signature of 63 bytes": receipt(signature=bytes(63)),
        "a signature of 65 bytes": receipt(signature=bytes(65)),
        "another size than the statement's": with_proof(6, index, steps),
        "an index beyond the size": with_proof(5, 5, steps),
        "a negative index": with_proof(5, -1, steps),
        "an index that is true": with_proof(5, True, steps),
        "an index that is a float": with_proof(5, 3.0, steps),
        "no index": with_proof(5, steps),
        "a field too many in the proof": with_proof(5, index, steps, 0),
        "a digest of 31 bytes": with_proof(5, index, [steps[0][:31], *steps[1:]]),
        "a path of 65 digests": with_proof(5, index, [bytes(32)] * 65),
        "a path that is one byte string": with_proof(5, index, b"".join(steps)),
        "a size in a longer head": receipt(proofs=[b"\x83\x18\x05" + proof[2:]]),
        "a path of indefinite length": receipt(proofs=[proof[:3] + b"\x9f" + proof[4:] + b"\xff"]),
        "a byte after the proof": receipt(proofs=[proof + b"\0"]),
        "4,097 bytes": right + bytes(4097 - len(right)),
    }
    for what, data in malformed.items():
        family.refuse(REASON, what, "verify", **given, data=data)
    stranger = ed25519.public_key(b"\7" * 32)
    bad_sig = "invalid-signature"
    for reason, what, data, change in (
        ("other-epoch", "a verdict of another epoch", right, {"record": record(3, epoch=5)}),
        (
            "other-policy",
            "a verdict under another policy",
            right,
            {"record": record(3, policy=bytes(32))},
        ),
        ("root-mismatch", "another verdict", right, {"record": records[2]}),
        ("root-mismatch", "another index of as many digests", with_proof(5, 2, steps), {}),
        ("malformed-proof", "another index", with_proof(5, 4, steps), {}),
        ("malformed-proof", "a digest missing", with_proof(5, index, steps[:-1]), {}),
        ("malformed-proof", "a digest too many", with_proof(5, index, [*steps, steps[0]]), {}),
        ("malformed-proof", "no path", with_proof(5, index, []), {}),
        ("root-mismatch", "digests exchanged", with_proof(5, index, steps[::-1]), {}),
        (
            "root-mismatch",
            "another root in the statement",
            with_header(statement=("epoch statement", statement(bytes(32), 5))),
            {},
        ),
        (bad_sig, "another issuer", right, {"issuer": stranger}),
        (
            bad_sig,
            "a key that signed, but is not named",
            receipt(signer=b"\7" * 32),
            {"issuer": stranger},
        ),
        (bad_sig, "another signer", receipt(signer=b"\7" * 32), {}),
        (bad_sig, "another root signed", receipt(signed_root=bytes(32)), {}),
        (bad_sig, "the context of another structure", receipt(context="Signature"), {}),
        (
            bad_sig,
            "the root signed without a structure",
            receipt(signature=ed25519.sign(seed, root)),
            {},
        ),
        (bad_sig, "a signature of zeros", receipt(signature=bytes(64)), {}),
        (bad_sig, "a signature with s + L", receipt(signature=ed25519.malleable(right[-64:])), {}),
        (REASON, "an issuer's key of small order", right, {"issuer": (1).to_bytes(32, "little")}),
        (
            REASON,
            "a record of another kind",
            right,
            {"record": records[index].replace(b"verdict", b"verdikt")},
        ),
        (REASON, "a record cut off", right, {"record": records[index][:-1]}),
    ):
        family.refuse(reason, what, "verify", **(given | change), data=data)
    other = statement(root, 5, sequence=4)
    moved = right.replace(words, other)
    family.refuse(bad_sig, "another term in the header", "verify", **given, data=moved)
    return family
