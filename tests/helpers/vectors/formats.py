"""Messages and tagged hashes."""

from __future__ import annotations

from typing import Any

from tests.helpers.vectors.values import Given, Operations, octets, require_value, shown
from verifiable import encoding


def decode(given: Given) -> Any:
    data = octets(given["data"])
    limits = {name: given[name] for name in ("max_items",) if name in given}
    value = encoding.decode(data, max_size=given.get("max_size", 1 << 16), **limits)
    assert encoding.encode(value) == data
    return shown(value)


def tagged_hash(given: Given) -> None:
    digest = encoding.tagged_hash(given["tag"], *map(octets, given["parts"]))
    require_value(given["digest"], digest.hex())


OPERATIONS: Operations = {"encoding/decode": decode, "encoding/tagged-hash": tagged_hash}
