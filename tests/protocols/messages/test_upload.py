"""Uploads: what carries a trace is its worker's, or it is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from protocols.messages import (
    InvalidSignature,
    NotSeated,
    NotUploaded,
    Upload,
    announced,
    require_payload,
    sign,
)
from tests.helpers.wire import ALICE, MALLORY, MALLORY_ID, REGISTRY, TRACE_REQUEST, UPLOAD
from verifiable.errors import MalformedEncoding, VerificationError

TRACE = b"trace"


def taken(message: bytes, payload: bytes) -> None:
    """What a coordinator does with an upload."""
    require_payload(payload, announced(message, TRACE_REQUEST, REGISTRY, most=100))


def test_the_workers_own_upload_is_taken():
    taken(sign(UPLOAD, ALICE.sign).encode(), TRACE)


def of(payload: bytes, signer: Any = ALICE, **change: Any) -> Callable[[], bytes]:
    message = dataclasses.replace(Upload.of(payload, TRACE_REQUEST), **change)
    return lambda: sign(message, signer.sign).encode()


LATER = dataclasses.replace(TRACE_REQUEST, deadline=TRACE_REQUEST.deadline + 1)


@dataclass(frozen=True)
class Cheat:
    name: str
    message: Callable[[], bytes]
    payload: bytes
    expect: type[VerificationError]
    match: str = "."

    def __str__(self) -> str:
        return self.name


CHEATS = [
    Cheat("garbage under another's name", of(b"junk!", MALLORY), b"junk!", InvalidSignature),
    Cheat(
        "garbage under one's own name, for another's ballot",
        of(b"junk!", MALLORY, worker=MALLORY_ID.id),
        b"junk!",
        NotSeated,
    ),
    Cheat("garbage in place of what was signed", of(TRACE), b"junk!", NotUploaded, "content"),
    Cheat("a byte less than was signed", of(TRACE), TRACE[:-1], NotUploaded, "size"),
    Cheat(
        "what was signed for another request",
        of(TRACE, request=LATER.digest),
        TRACE,
        NotUploaded,
        "request",
    ),
    Cheat("what was signed for another job", of(TRACE, job=bytes(32)), TRACE, NotUploaded, "job"),
    Cheat("what was signed for another epoch", of(TRACE, epoch=8), TRACE, NotUploaded, "epoch"),
    Cheat(
        "more than a trace takes", of(bytes(101)), bytes(101), NotUploaded, "expected 100, got 101"
    ),
    Cheat("no signature", UPLOAD.encode, TRACE, MalformedEncoding),
]


@pytest.mark.parametrize("cheat", CHEATS, ids=str)
def test_anything_else_is_refused_without_a_verdict(cheat: Cheat):
    with pytest.raises(cheat.expect, match=cheat.match):
        taken(cheat.message(), cheat.payload)
    # The worker's own is taken afterwards.
    taken(sign(UPLOAD, ALICE.sign).encode(), TRACE)
