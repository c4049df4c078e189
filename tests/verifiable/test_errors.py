"""Errors travel between processes with their message and their attributes."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
from typing import Any

import pytest

import protocols
import verifiable
from protocols.settlement.statements import REASONS
from verifiable.errors import MalformedEncoding, Structured, is_bytes32, require_bytes32


def _errors():
    """Every exception of both packages."""
    found = set()
    for package in (verifiable, protocols):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if module.name.endswith("__main__"):
                continue
            for kind in vars(importlib.import_module(module.name)).values():
                own = getattr(kind, "__module__", "").startswith((verifiable.__name__, "protocols"))
                if inspect.isclass(kind) and issubclass(kind, Exception) and own:
                    found.add(kind)
    return sorted(found, key=lambda kind: (kind.__module__, kind.__name__))


ERRORS = _errors()
# Of each type that a constructor asks for: a value that a message can be made from.
VALUES = {
    "str": "text",
    "bytes": b"\1" * 32,
    "int": 3,
    "tuple[bytes, int]": (b"\2" * 32, 4),
    "bytes | int": 5,
    "int | None": 6,
    "Any": 1.5,
    "object": (1, 2),
}


@pytest.mark.parametrize(
    ("value", "found", "mistake"),
    [
        (bytes(31), "31 bytes", ValueError),
        (bytes(33), "33 bytes", ValueError),
        (b"", "0 bytes", ValueError),
        (bytearray(32), "bytearray", TypeError),
        ("1" * 32, "str", TypeError),
        ([1] * 32, "list", TypeError),
        (32, "int", TypeError),
        (None, "NoneType", TypeError),
    ],
)
def test_what_is_not_32_bytes_is_refused(value: Any, found: str, mistake: type[Exception]):
    """A caller's mistake by type or length, a device's always by the error that is given."""
    assert is_bytes32(bytes(32)) and not is_bytes32(value)
    assert require_bytes32("seed", bytes(32)) == bytes(32)
    for error, *given in ((mistake,), (MalformedEncoding, MalformedEncoding)):
        with pytest.raises(error, match=f"^seed must be 32 bytes, got {found}$"):
            require_bytes32("seed", value, *given)


def test_there_are_errors_with_attributes():
    assert sum("__init__" in vars(kind) for kind in ERRORS) >= 15


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_is_pickled_and_copied_with_its_attributes(kind):
    if "__init__" in vars(kind):
        assert issubclass(kind, Structured)
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    taken = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if any(p.annotation not in VALUES for p in taken):
        error = kind.__new__(kind, "made of keys and signatures, which are none of its concern")
        error.__dict__.update(reason="text", index=6)
    elif kind.__name__ == "SettlementError":
        error = kind(next(iter(REASONS)), expected=4, found=5)
    elif taken:
        names = {p.name: VALUES[p.annotation] for p in taken if p.kind is p.KEYWORD_ONLY}
        error = kind(*(VALUES[p.annotation] for p in taken if p.name not in names), **names)
    else:
        error = kind("text")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert type(other) is kind
        assert str(other) == str(error)
        assert vars(other) == vars(error)
