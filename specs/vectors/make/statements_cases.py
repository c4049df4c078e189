"""Statements, committees and submissions (specs/settlement.md)."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import bls_math as bls
from family import Family
from receipts_cases import word
from spec import cbor

REASON = "malformed-encoding"
DOMAINS = {
    "epoch": b"verifiable epoch statement 1",
    "rotation": b"verifiable committee rotation 1",
    "prepare": b"verifiable settlement prepare 1",
    "lock": b"verifiable settlement lock 1",
    "report": b"verifiable settlement report 1",
}
CHAIN, CONTRACT, REGISTRANT = 31337, b"\xc0" * 20, b"\x11" * 20
ZERO = bytes(32)


def words(*values: int | bytes) -> bytes:
    return b"".join(map(word, values))


def digest(kind: str, data: bytes) -> bytes:
    return hashlib.sha256(bls.framed(data, DOMAINS[kind])).digest()


@functools.cache
def proof(i: int, contract: bytes = CONTRACT, registrant: bytes = REGISTRANT) -> bytes:
    binding = words(CHAIN, contract, registrant)
    return bls.prove(bls.secret(i), binding, b"verifiable registration 1")


def ordered(numbers: list[int]) -> list[int]:
    return sorted(numbers, key=lambda i: bls.eip2537(bls.secret(i)))


def members(numbers: list[int], weights: list[int], **where: bytes) -> list[dict[str, Any]]:
    registrant = where.get("registrant", REGISTRANT)
    return [
        {"key": bls.public_key(bls.secret(i)), "weight": w, "registrant": registrant}
        | {"contract": where.get("contract", CONTRACT), "proof": proof(i, **where)}
        for i, w in zip(numbers, weights, strict=True)
    ]


def committee_id(numbers: list[int], weights: list[int]) -> bytes:
    hasher = hashlib.sha256(word(len(numbers)))
    for i, w in zip(numbers, weights, strict=True):
        hasher.update(bls.eip2537(bls.secret(i)) + word(w))
    return hasher.digest()


NUMBERS, WEIGHTS = ordered([1, 2, 3, 4]), [1, 2, 3, 1]
NEXT = ordered([5, 6])
HERE = {"chain": CHAIN, "contract": CONTRACT}
COMMITTEE = HERE | {"members": members(NUMBERS, WEIGHTS)}
INCOMING = HERE | {"members": members(NEXT, [1, 1])}
ID, NEXT_ID = committee_id(NUMBERS, WEIGHTS), committee_id(NEXT, [1, 1])
ROOT, POLICY, PREVIOUS = b"\xaa" * 32, b"\xbb" * 32, b"\xdd" * 32


def statement_of(kind: str, **change: Any) -> bytes:
    chain, contract = change.pop("chain", CHAIN), change.pop("contract", CONTRACT)
    fields: dict[str, Any] = {
        "epoch": {
            **{"epoch": 8, "root": ROOT, "size": 3, "policy": POLICY, "committee": ID},
            **{"sequence": 2, "previous": PREVIOUS},
        },
        "rotation": {"committee": ID, "sequence": 2, "incoming": NEXT_ID},
        "report": {
            **{"committee": ID, "sequence": 2, "epoch": 8, "attempt": 3, "locked": 2},
            "choice": b"\xcc" * 32,
        },
    }.get(kind, {"committee": ID, "sequence": 2, "epoch": 8, "attempt": 3, "choice": b"\xcc" * 32})
    return words(chain, contract, *(fields | change).values())


def make() -> list[Family]:
    family = Family("statements", "settlement.md")
    _statements(family)
    _committees(family)
    _submissions(family)
    return [family]


def _statements(family: Family) -> None:
    for kind in DOMAINS:
        data = statement_of(kind)
        family.accept(f"{kind}", "statement", digest(kind, data), kind=kind, data=data)
        for what, bad in (
            ("a byte missing", data[:-1]),
            ("a word too many", data + ZERO),
            ("a chain id of zero", statement_of(kind, chain=0)),
            ("a contract of 21 bytes", statement_of(kind, contract=b"\1" * 21)),
            ("a sequence of 2^64", statement_of(kind, sequence=2**64)),
        ):
            family.refuse(REASON, f"{kind}: {what}", "statement", kind=kind, data=bad)
    free = statement_of("report", locked=0, choice=ZERO)
    what = "a report without a lock"
    family.accept(what, "statement", digest("report", free), kind="report", data=free)
    for kind, what, change in (
        ("epoch", "a size of zero", {"size": 0}),
        ("epoch", "a size of 2^64", {"size": 2**64}),
        ("epoch", "an epoch of 2^64", {"epoch": 2**64}),
        ("prepare", "an attempt of 2^64", {"attempt": 2**64}),
        ("report", "a lock of this attempt", {"locked": 4}),
        ("report", "an attempt of 0", {"attempt": 0, "locked": 0, "choice": ZERO}),
        ("report", "a choice without a lock", {"locked": 0}),
        ("report", "a lock without a choice", {"choice": ZERO}),
    ):
        data = statement_of(kind, **change)
        family.refuse(REASON, f"{kind}: {what}", "statement", kind=kind, data=data)


def _committees(family: Family) -> None:
    family.accept("a committee of four", "committee", ID, **COMMITTEE)
    family.accept("a committee of two", "committee", NEXT_ID, **INCOMING)
    four = COMMITTEE["members"]
    elsewhere = members(NUMBERS[:1], [1], contract=b"\xc1" * 20)
    stranger = members(NUMBERS[:1], [1], registrant=b"\x22" * 20)
    negative = bls.R - bls.secret(1)
    binding = words(CHAIN, CONTRACT, REGISTRANT)
    opposite = {
        "key": bls.public_key(negative),
        "weight": 1,
        "registrant": REGISTRANT,
        "contract": CONTRACT,
        "proof": bls.prove(negative, binding, b"verifiable registration 1"),
    }
    own = members([1], [1])[0]
    pair = (
        [own, opposite] if bls.eip2537(bls.secret(1)) < bls.eip2537(negative) else [opposite, own]
    )
    for reason, what, some in (
        ("no-members", "no members", []),
        ("unordered-members", "members out of order", [four[1], four[0], *four[2:]]),
        ("duplicate-key", "a key twice", [four[0], *four]),
        ("unregistered-key", "a key registered at another contract", [*elsewhere, *four[1:]]),
        ("other-registrant", "a key registered by another account", [*stranger, *four[1:]]),
        ("infinite-key", "keys that cancel out", pair),
        ("bad-possession", "a proof of another key", [four[0] | {"proof": four[1]["proof"]}]),
        (
            "bad-possession",
            "a proof for another contract",
            [four[0] | {"proof": elsewhere[0]["proof"]}],
        ),
        ("invalid-point", "a key that is infinity", [four[0] | {"key": b"\xc0" + bytes(47)}]),
    ):
        family.refuse(reason, what, "committee", **HERE, members=some)


@functools.cache
def signature(kind: str, data: bytes, signers: tuple[int, ...]) -> bytes:
    """The sum of the signatures of the members at these places."""
    each = [bls.sign(bls.secret(NUMBERS[i]), data, DOMAINS[kind]) for i in signers]
    return bls.aggregate(each)


def _submissions(family: Family) -> None:
    head = {"committee": COMMITTEE, "sequence": 2, "epoch": 8, "root": PREVIOUS}
    by = (1, 2)  # 5 of 7

    def submission(
        kind: str, data: bytes, signers: Any = by, bitmap: Any = None, **more: Any
    ) -> bytes:
        bits = bytes([sum(1 << i for i in signers)]) if bitmap is None else bitmap
        made = more.get("signature") or signature(kind, data, tuple(signers))
        return cbor(
            [more.get("name", f"{kind} submission"), more.get("version", 1), data, made, bits]
        )

    for kind in ("epoch", "rotation", "prepare", "lock"):
        given = {"kind": kind, "head": head} | (
            {"incoming": INCOMING} if kind == "rotation" else {}
        )
        data = statement_of(kind)
        output = {"epoch": {"epoch": "9", "sequence": "2", "committee": ID, "root": ROOT}}
        output["rotation"] = {"epoch": "8", "sequence": "3", "committee": NEXT_ID, "root": PREVIOUS}
        family.accept(
            f"{kind}", "submission", output.get(kind), **given, data=submission(kind, data)
        )
        changes: list[tuple[str, str, dict[str, Any]]] = [
            ("other-chain", "another chain", {"chain": 1}),
            ("other-contract", "another contract", {"contract": b"\xc1" * 20}),
            ("other-committee", "another committee", {"committee": NEXT_ID}),
            ("other-sequence", "another term", {"sequence": 3}),
        ]
        if kind != "rotation":
            changes += [
                ("epoch-settled", "an epoch that is settled", {"epoch": 7}),
                ("epoch-ahead", "an epoch too early", {"epoch": 9}),
                (
                    "epoch-settled",
                    "an epoch that is settled, and another term",
                    {"epoch": 7, "sequence": 3},
                ),
            ]
        for reason, what, change in changes:
            bad = submission(
                kind, statement_of(kind, **change), signature=signature(kind, data, by)
            )
            family.refuse(reason, f"{kind}: {what}", "submission", **given, data=bad)
        other = {"epoch": "lock", "rotation": "epoch", "prepare": "lock", "lock": "prepare"}[kind]
        if kind in ("prepare", "lock"):
            crossed = submission(kind, data, signature=signature(other, data, by))
            what = f"{kind}: signed as a {other}"
            family.refuse("bad-signature", what, "submission", **given, data=crossed)
    data, given = statement_of("epoch"), {"kind": "epoch", "head": head}
    right = signature("epoch", data, by)
    all_four = submission("epoch", data, (0, 1, 2, 3))
    output = {"epoch": "9", "sequence": "2", "committee": ID, "root": ROOT}
    family.accept("all members", "submission", output, **given, data=all_four)
    for reason, what, bad in (
        (
            "other-previous-root",
            "another previous root",
            submission("epoch", statement_of("epoch", previous=ROOT), signature=right),
        ),
        ("bitmap-length", "a bitmap of two bytes", submission("epoch", data, bitmap=b"\6\0")),
        (
            "bitmap-excess",
            "a bit beyond the last member",
            submission("epoch", data, bitmap=b"\x16"),
        ),
        ("no-quorum", "exactly two thirds, and less", submission("epoch", data, (0, 2))),
        ("no-quorum", "nobody", submission("epoch", data, bitmap=b"\0", signature=right)),
        (
            "bad-signature",
            "a member who did not sign",
            submission("epoch", data, (0, 1, 2), signature=right),
        ),
        (
            "bad-signature",
            "a member not named",
            submission("epoch", data, signature=signature("epoch", data, (0, 1, 2))),
        ),
        (
            "bad-signature",
            "bits from the other end",
            submission("epoch", data, (0, 1, 2, 3), bitmap=b"\x07"),
        ),
        (
            "bad-signature",
            "another root",
            submission("epoch", statement_of("epoch", root=POLICY), signature=right),
        ),
        (
            "invalid-point",
            "a signature that is infinity",
            submission("epoch", data, signature=b"\xc0" + bytes(95)),
        ),
        (REASON, "another kind", submission("epoch", data, name="lock submission")),
        (REASON, "another version", submission("epoch", data, version=2)),
        (REASON, "a version that is true", submission("epoch", data, version=True)),
        (REASON, "no bitmap", submission("epoch", data, bitmap=b"")),
        (REASON, "a bitmap of 33 bytes", submission("epoch", data, bitmap=bytes(33))),
        (REASON, "a statement cut off", submission("epoch", data[:-1], signature=right)),
        (REASON, "a byte too many", submission("epoch", data) + b"\0"),
    ):
        family.refuse(reason, what, "submission", **given, data=bad)
    given = {"kind": "rotation", "head": head}
    data = statement_of("rotation")
    three = HERE | {"members": members(ordered([5, 6, 7]), [1, 1, 1])}
    family.refuse(
        "other-incoming",
        "another committee takes office",
        "submission",
        **given,
        incoming=three,
        data=submission("rotation", data),
    )
    away = {"chain": CHAIN, "contract": b"\xc1" * 20}
    away["members"] = members(NEXT, [1, 1], contract=b"\xc1" * 20)
    family.refuse(
        "unregistered-key",
        "a committee of another contract",
        "submission",
        **given,
        incoming=away,
        data=submission("rotation", data),
    )
