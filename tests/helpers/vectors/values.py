"""The values of cases, as JSON has them, and as the library takes them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from verifiable.errors import VerificationError

Given: TypeAlias = dict[str, Any]
Operations: TypeAlias = dict[str, Callable[[Given], Any]]


class Refused(VerificationError):
    """What the library computes is not what a case claims, or has a reason but no error."""

    def __init__(self, reason: str):
        self.reason = reason
        super().__init__(reason)


def require_value(claimed: object, computed: object) -> None:
    if claimed != computed:
        raise Refused("wrong-value")


def octets(text: Any) -> Any:
    """Bytes of hexadecimal text; anything else as it is."""
    return bytes.fromhex(text) if isinstance(text, str) else text


def number(value: Any) -> Any:
    """An integer beyond 2^53; anything else as it is."""
    return int(value["int"]) if isinstance(value, dict) else value


def shown(value: Any) -> Any:
    """A value of the data model of messages in JSON, where 1 and 1.0 differ."""
    match value:
        case None | bool():
            return value
        case int():
            return {"int": str(value)}
        case float():
            return {"float": struct.pack(">d", value).hex()}
        case bytes():
            return {"bytes": value.hex()}
        case str():
            return {"text": value}
        case list():
            return [shown(item) for item in value]
        case _:
            return {"map": [[key, shown(item)] for key, item in value.items()]}
