"""Uploads: whatever carries a trace, or opens one, under the signature of its worker.

An upload is a payload of any size, and a signed message with its size and digest. The message names
the request that it answers, so that it opens nothing else. Garbage that somebody uploads under
another worker's name is refused without a verdict, and the worker's own upload is taken later.
The payload is not decoded here: the request says what it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from protocols.identities import Identity
from protocols.messages.message import HEADS, Message, is_count, is_digest, is_uint
from protocols.messages.orders import Order
from protocols.messages.signing import Signed, receive
from verifiable.encoding import tagged_hash
from verifiable.errors import VerificationError


class NotUploaded(VerificationError):
    """A payload that the worker did not sign as its answer to this request.

    Attributes:
      field: what differs: worker, job, epoch, request, size or content.
      expected: its value for this request or payload.
      found: its value in the signed message.
    """

    def __init__(self, field: str, *, expected: bytes | int, found: bytes | int):
        """Keep both sides."""
        self.field, self.expected, self.found = field, expected, found
        shown = (x.hex() if isinstance(x, bytes) else x for x in (expected, found))
        super().__init__(
            "the upload is signed for another {}: expected {}, got {}".format(field, *shown)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload(Message):
    """What a worker hands in to a request, by size and digest.

    Attributes:
      worker: its identity, 32 bytes.
      job: digest of the job.
      epoch: epoch of the job.
      request: digest of the request that it answers.
      size: bytes of the payload, at least 1.
      content: `content_digest` of the payload.
    """

    KIND: ClassVar[str] = "upload"
    TAG: ClassVar[str] = "message upload"
    MAX_SIZE: ClassVar[int] = HEADS
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]] = {
        "worker": is_digest,
        "job": is_digest,
        "epoch": is_uint,
        "request": is_digest,
        "size": is_count,
        "content": is_digest,
    }

    worker: bytes
    job: bytes
    epoch: int
    request: bytes
    size: int
    content: bytes

    @classmethod
    def of(cls, payload: bytes | memoryview, request: Order) -> Self:
        """The message to sign and to send with a payload."""
        return cls(
            worker=request.worker,
            job=request.job,
            epoch=request.epoch,
            request=request.digest,
            size=len(payload),
            content=content_digest(payload),
        )


def content_digest(payload: bytes | memoryview) -> bytes:
    """32-byte tagged hash of a payload."""
    return tagged_hash("upload content", payload)


def announced(
    data: bytes | bytearray | memoryview,
    request: Order,
    identities: Mapping[bytes, Identity],
    *,
    most: int,
) -> Signed[Upload]:
    """Authenticate the message of an upload, before its payload is read.

    Args:
      data: the bytes of the signed message.
      request: the request that was sent to the worker.
      identities: the registered workers by `Identity.id`.
      most: the most bytes of a payload, such as `submission.encoded_size(layout)`.

    Raises:
      MalformedEncoding: not a signed upload.
      UnknownWorker: the worker is not registered.
      NotSeated: another worker than the one asked.
      InvalidSignature: the worker did not sign it.
      NotUploaded: signed for another request, or larger than `most`.
    """
    signed = receive(Upload, data, identities, seats={request.worker})
    upload = signed.message
    expected = {"job": request.job, "epoch": request.epoch, "request": request.digest}
    for field, value in expected.items():
        if getattr(upload, field) != value:
            raise NotUploaded(field, expected=value, found=getattr(upload, field))
    if upload.size > most:
        raise NotUploaded("size", expected=most, found=upload.size)
    return signed


def require_payload(payload: bytes | memoryview, upload: Signed[Upload]) -> None:
    """Raise NotUploaded for a payload that is not the one signed: refuse it, without a verdict."""
    message = upload.message
    if len(payload) != message.size:
        raise NotUploaded("size", expected=len(payload), found=message.size)
    content = content_digest(payload)
    if content != message.content:
        raise NotUploaded("content", expected=content, found=message.content)
