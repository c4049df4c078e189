"""Signed messages: workers sign the digests of what they send, coordinators of what they order.

    signed message = message ‖ CBOR byte string of 64        a CBOR sequence (RFC 8742)

`receive` verifies the signature before it decodes the message. Until then it only compares and
hashes bytes, so nothing is decoded for a sender that is not registered or has no seat.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from protocols.identities import Identity
from protocols.messages.message import VERSION, Message, prefix
from verifiable.encoding import tagged_hash
from verifiable.errors import MalformedEncoding, VerificationError, received_bytes

_SIGNATURE_SIZE: Final = 64
_SIGNATURE_HEAD: Final = b"\x58\x40"  # of a CBOR byte string of 64
_DIGEST_HEAD: Final = b"\x58\x20"  # of a CBOR byte string of 32

M = TypeVar("M", bound=Message)


class UnknownWorker(VerificationError):
    """A message names a sender that is not registered.

    Attributes:
      worker: the identity that the message names.
    """

    def __init__(self, worker: bytes):
        """Keep the identity."""
        self.worker = worker
        super().__init__(f"sender {worker.hex()} is not registered")


class NotSeated(VerificationError):
    """A message of a registered worker that has no seat in the job in hand.

    Attributes:
      worker: the identity that the message names.
    """

    def __init__(self, worker: bytes):
        """Keep the identity."""
        self.worker = worker
        super().__init__(f"worker {worker.hex()} has no seat in this job")


class InvalidSignature(VerificationError):
    """A signature that the named worker's key does not verify over this message.

    Attributes:
      worker: the identity that the message names.
      kind: kind of the message.
    """

    def __init__(self, *, worker: bytes, kind: str):
        """Keep what was claimed."""
        self.worker, self.kind = worker, kind
        super().__init__(
            f"the key of {worker.hex()} does not verify this {kind}: (a) another key "
            "signed it, (b) the message was changed, or (c) another kind of message was signed"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(Generic[M]):
    """A message with its sender's signature. Only `sign`, `receive` and the journal make one.

    Attributes:
      message: the signed message.
      signature: 64 bytes.
    """

    message: M
    signature: bytes

    def encode(self) -> bytes:
        """The one encoding: the message, then the signature (a CBOR sequence, RFC 8742)."""
        return self.message.encode() + _SIGNATURE_HEAD + self.signature


def sign(message: M, signer: Callable[[bytes], bytes]) -> Signed[M]:
    """Sign a message.

    Args:
      message: the message to send.
      signer: takes a 32-byte digest and returns a signature, such as `Ed25519PrivateKey.sign` or a
        call to the hardware that holds the key.
    """
    return Signed(message=message, signature=signer(message.digest))


def receive(
    kind: type[M],
    data: bytes | bytearray | memoryview,
    identities: Mapping[bytes, Identity],
    *,
    seats: Container[bytes] | None = None,
    max_size: int | None = None,
) -> Signed[M]:
    """Authenticate the bytes of a sender, then read them.

    Args:
      kind: the message that is expected. Its first field names its sender.
      data: the bytes received.
      identities: the registered senders by `Identity.id`: workers, or one coordinator.
      seats: the workers that the job in hand was sent to, such as `replicated.seated`; any
        registered worker if None.
      max_size: the most bytes in the message, where the job in hand allows less than the kind.

    Raises:
      MalformedEncoding: not a signed message of this kind.
      UnknownWorker: the worker that the message names is not registered.
      NotSeated: it is not among `seats`.
      InvalidSignature: the named worker did not sign this message.
      TypeError: `data` is of another type, or `kind` is the base of several kinds.
    """
    start = prefix(kind) + _DIGEST_HEAD
    limit = kind.MAX_SIZE if max_size is None else min(max_size, kind.MAX_SIZE)
    tail = len(_SIGNATURE_HEAD) + _SIGNATURE_SIZE
    data = received_bytes(data, most=limit + tail)
    if len(data) > limit + tail:
        raise MalformedEncoding(f"signed message has more than the {limit + tail} bytes allowed")
    body, head, signature = data[:-tail], data[-tail:-_SIGNATURE_SIZE], data[-_SIGNATURE_SIZE:]
    if head != _SIGNATURE_HEAD or not body.startswith(start):
        raise MalformedEncoding(f"expected a signed {kind.KIND} of version {VERSION}")
    worker = body[len(start) : len(start) + 32]
    identity = identities.get(worker)
    if identity is None:
        raise UnknownWorker(worker)
    if seats is not None and worker not in seats:
        raise NotSeated(worker)
    if not identity.verifies(signature, tagged_hash(kind.TAG, body)):
        raise InvalidSignature(worker=worker, kind=kind.KIND)
    return Signed(message=kind.decode(body, max_size=limit), signature=signature)
