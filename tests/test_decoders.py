"""One rule for every decoder of both packages: bytes of any kind in, TypeError for other types."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import protocols
import verifiable
from protocols.journal.codec import Codec
from protocols.messages import Assignment
from protocols.settlement import EpochStatement
from verifiable import encoding, errors
from verifiable.errors import VerificationError

RECEIVED = "bytes | bytearray | memoryview"

OTHERS: dict[str, Any] = {
    "max_size": 64,
    "most": 64,
    "max_items": 64,
    "shape": (3,),
    "dtype": "uint8",
    "identities": {},
    "request": SimpleNamespace(worker=bytes(32)),
    "job": SimpleNamespace(coordinator=bytes(32), program=None),
    "coordinator": SimpleNamespace(id=bytes(32)),
}
"""The other arguments of decoders, by name; None for all others."""


def modules() -> Iterator[ModuleType]:
    for package in (verifiable, protocols):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not found.name.endswith(("__main__", ".build", ".evm")):
                yield importlib.import_module(found.name)


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Functions of a module and its classes, inherited ones too, as they are called."""
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__ or name.startswith("_"):
            continue
        if inspect.isfunction(value):
            yield f"{module.__name__}.{name}", value
        elif inspect.isclass(value):
            for method in dir(value):
                called = inspect.getattr_static(value, method)
                ours = isinstance(called, classmethod | staticmethod) and getattr(
                    called, "__module__", ""
                ).startswith(("verifiable", "protocols"))
                if ours and not method.startswith("_"):
                    yield f"{module.__name__}.{name}.{method}", getattr(value, method)


def found() -> dict[str, Callable[..., Any]]:
    """Everything that decodes, or says that it takes received data."""
    decoders: dict[str, Callable[..., Any]] = {
        "Codec.decode": Codec.of(int).decode,
        **{f"bls {g.name}.decode": g.decode for g in groups()},
    }
    for module in modules():
        for name, function in public(module):
            last = name.rsplit(".", 1)[1]
            takes = inspect.signature(function).parameters.get("data")
            if takes is not None and (last.startswith("decode") or last.endswith("from_bytes")):
                assert takes.annotation == RECEIVED, f"{name} must take {RECEIVED}"
            if takes is not None and takes.annotation == RECEIVED:
                decoders[name] = function
    return decoders


def groups() -> tuple[Any, Any]:
    from verifiable.bls import curve  # noqa: PLC0415 - slow to load

    return curve.active().g1, curve.active().g2


DECODERS = found()


def call(name: str, data: Any) -> Any:
    decode = DECODERS[name]
    given: dict[str, Any] = {}
    for p in inspect.signature(decode).parameters.values():
        if p.name != "data" and (p.default is p.empty or p.name in OTHERS):
            given[p.name] = OTHERS.get(p.name)
    if "kind" in given:
        settlement = DECODERS[name].__module__.startswith("protocols.settlement")
        given["kind"] = EpochStatement if settlement else Assignment
        if name.endswith("decode_version"):
            given["kind"] = "vote"
    return decode(data=data, **given)


def outcome(name: str, data: Any) -> Any:
    try:
        return "value", repr(call(name, data))
    except Exception as error:
        return type(error), str(error)


def test_decoders_are_found():
    names = " ".join(DECODERS)
    for part in ("Commitment", "Evidence", "AuditOpening", "VerifierKey", "Vote", "Reveal"):
        assert f".{part}." in names
    assert len(DECODERS) > 40


@pytest.mark.parametrize("name", DECODERS)
def test_bytes_of_any_kind_are_read_alike(name: str):
    for data in (b"", bytes(40), b"\x83\x01\x02\x03"):
        wanted = outcome(name, data)
        assert wanted[0] is not AttributeError
        for same in (bytearray(data), memoryview(data), memoryview(bytearray(data))):
            assert outcome(name, same) == wanted


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(
    "data", [None, 40, "text", [0] * 40, np.zeros(40, np.uint8)], ids=lambda x: type(x).__name__
)
def test_other_types_are_the_callers_mistake(name: str, data: Any):
    with pytest.raises(TypeError, match=r"data must be bytes|base of|one kind") as raised:
        call(name, data)
    assert not isinstance(raised.value, VerificationError)


def test_what_was_received_cannot_change_any_more():
    sent = bytearray(b"\x01\x02\x03")
    array = encoding.tensor_from_bytes(sent, (3,), "uint8")
    view = encoding.tensor_from_bytes(memoryview(sent).toreadonly(), (3,), "uint8")
    sent[0] = 9
    assert array[0] == view[0] == 1
    assert not array.flags.writeable
    assert not view.flags.writeable
    kept = b"\x01\x02\x03"
    assert np.shares_memory(
        encoding.tensor_from_bytes(memoryview(kept), (3,), "uint8"), np.frombuffer(kept, np.uint8)
    )
    with pytest.raises(TypeError, match="contiguous"):
        errors.received_bytes(memoryview(kept)[::2])
