"""Orders: what a coordinator says to one worker about one job.

    Assignment      run this job, and commit before the deadline
    RevealRequest   commitments are closed: reveal before the deadline
    TraceRequest    hand in the trace that you committed to, before the deadline

Each is signed by the coordinator that the job names, and names worker, job and epoch. So a worker
with a seat cannot play coordinator to another one, take its reveal, and commit to the same answer:
`disclose` makes a signed reveal from the coordinator's request and from nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from protocols.identities import Identity
from protocols.messages.commit_reveal import Reveal
from protocols.messages.job import Job
from protocols.messages.message import HEADS, Message, is_digest, is_uint
from protocols.messages.signing import Signed, receive, sign
from verifiable.errors import VerificationError


class NotOrdered(VerificationError):
    """A signed order that does not concern this worker and this job, or is not its coordinator's.

    Attributes:
      field: what differs: coordinator, worker, job or epoch.
      expected: its value for this worker and job.
      found: its value in the order, or for `coordinator`, the identity that the worker serves.
    """

    def __init__(self, field: str, *, expected: bytes | int, found: bytes | int):
        """Keep both sides."""
        self.field, self.expected, self.found = field, expected, found
        shown = (x.hex() if isinstance(x, bytes) else x for x in (expected, found))
        super().__init__("the order names another {}: expected {}, got {}".format(field, *shown))


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Message):
    """Base of orders.

    Attributes:
      coordinator: identity of the coordinator that the job names.
      worker: identity of the worker that the order is for.
      job: digest of the job.
      epoch: epoch of the job.
      deadline: when it must be carried out, in seconds since 1970-01-01 UTC.
    """

    MAX_SIZE: ClassVar[int] = HEADS
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]] = {
        "coordinator": is_digest,
        "worker": is_digest,
        "job": is_digest,
        "epoch": is_uint,
        "deadline": is_uint,
    }

    coordinator: bytes
    worker: bytes
    job: bytes
    epoch: int
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment(Order):
    """Run this job, and commit before the deadline."""

    KIND: ClassVar[str] = "assignment"
    TAG: ClassVar[str] = "message assignment"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealRequest(Order):
    """Commitments are closed: reveal before the deadline."""

    KIND: ClassVar[str] = "reveal-request"
    TAG: ClassVar[str] = "message reveal-request"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRequest(Order):
    """Hand in the trace that you committed to, before the deadline."""

    KIND: ClassVar[str] = "trace-request"
    TAG: ClassVar[str] = "message trace-request"


AnyOrder = TypeVar("AnyOrder", bound=Order)


def obey(
    kind: type[AnyOrder],
    data: bytes | bytearray | memoryview,
    *,
    job: Job,
    worker: bytes,
    coordinator: Identity,
) -> Signed[AnyOrder]:
    """Authenticate an order, for the worker that received it.

    Args:
      kind: the order that is expected.
      data: the bytes received.
      job: the job that it is about.
      worker: the worker's own identity.
      coordinator: whom the worker serves, known to it beforehand and not from the job.

    Raises:
      MalformedEncoding: not a signed order of this kind.
      UnknownWorker: another coordinator than the one served.
      InvalidSignature: the coordinator did not sign it.
      NotOrdered: the job names another coordinator, or the order another worker, job or epoch.
    """
    if job.coordinator != coordinator.id:
        raise NotOrdered("coordinator", expected=job.coordinator, found=coordinator.id)
    signed = receive(kind, data, {coordinator.id: coordinator})
    expected = {"worker": worker, "job": job.digest, "epoch": job.epoch}
    for field, value in expected.items():
        found = getattr(signed.message, field)
        if found != value:
            raise NotOrdered(field, expected=value, found=found)
    return signed


def disclose(
    reveal: Reveal,
    request: bytes | bytearray | memoryview,
    *,
    job: Job,
    coordinator: Identity,
    signer: Callable[[bytes], bytes],
) -> Signed[Reveal]:
    """Sign a reveal, once the coordinator has asked for it. Send it to the coordinator only.

    Args:
      reveal: the worker's own.
      request: the bytes of a `RevealRequest`, from anybody.
      job: the job.
      coordinator: whom the worker serves.
      signer: see `sign`.

    Raises:
      VerificationError: this is no such request; see `obey`. Nothing may be revealed.
    """
    obey(RevealRequest, request, job=job, worker=reveal.worker, coordinator=coordinator)
    return sign(reveal, signer)
