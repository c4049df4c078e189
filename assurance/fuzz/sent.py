"""What a device sends in cases of `specs/vectors`, as bytes in which anything can be replaced."""

from __future__ import annotations

import json
from typing import Any

from tests.helpers.paths import ROOT

SENT: dict[str, tuple[str, ...]] = {
    "bls/aggregate": ("signature",),
    "bls/possession": ("key", "proof"),
    "bls/public-key": ("data",),
    "bls/signature": ("data",),
    "bls/verify": ("key", "signature"),
    "commitments/decode": ("data",),
    "cose/verify": ("data",),
    "encoding/decode": ("data",),
    "evidence/open": ("data",),
    "multiproofs/multiproof": ("proof", "leaves"),
    "openings/open": ("leaves", "proof"),
    "partial/opening": ("data",),
    "receipts/receive": ("data",),
    "statements/statement": ("data",),
    "statements/submission": ("data",),
    "tensors/read": ("data",),
    "trees/consistency": ("proof",),
    "trees/inclusion": ("leaf", "proof"),
    "trees/subtree-consistency": ("proof", "subtree_root"),
    "trees/subtree-inclusion": ("leaf", "proof"),
}
"""Operations, and the parts of their cases that come from a device."""

MOST_CASES = 40  # of an operation that are started from


def cases(operation: str) -> list[dict[str, Any]]:
    """The inputs of cases of an operation whose parts can be replaced; accepted ones first."""
    family, _, name = operation.partition("/")
    found = json.loads((ROOT / "specs" / "vectors" / f"{family}.json").read_text())
    these = [case for case in found["cases"] if case["operation"] == name]
    # A change of accepted ones goes deepest.
    these.sort(key=lambda case: case["expect"] != "ok")
    given = [found.get("shared", {}) | case["input"] for case in these]
    return [each for each in given if _replaceable(each, SENT[operation])][:MOST_CASES]


def _replaceable(given: dict[str, Any], fields: tuple[str, ...]) -> bool:
    """Whether all parts are texts, or lists of texts."""
    for value in (given[name] for name in fields):
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str):
                return False
    return True


def packed(given: dict[str, Any], fields: tuple[str, ...]) -> bytes:
    """Parts of a case in one string of bytes: each behind its length, lists behind theirs."""
    parts = b""
    for name in fields:
        value = given[name]
        items = value if isinstance(value, list) else [value]
        parts += bytes([len(items) % 256]) if isinstance(value, list) else b""
        for item in map(bytes.fromhex, items):
            parts += len(item).to_bytes(2, "big") + item
    return parts


def unpacked(data: bytes, fields: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `packed`, for any bytes."""
    found: dict[str, Any] = {}
    for name in fields:
        count = 1
        if isinstance(given[name], list):
            count, data = data[0] if data else 0, data[1:]
        items = []
        for _ in range(count):
            size = int.from_bytes(data[:2], "big")
            items.append(data[2 : 2 + size].hex())
            data = data[2 + size :]
        found[name] = items if isinstance(given[name], list) else items[0]
    return found
