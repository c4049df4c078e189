"""Wire messages: frozen values, each with one encoding, and the signatures that bind them.

    Job       coordinator: run this program on this input, until then
    Commit    worker: a salted hash of my answer and of my trace's root
    Reveal    worker: what that hash is of
    Decision  coordinator: what the ballots, or an audit, decided

A message is a deterministic CBOR array of its kind, its version and its fields, none of them
optional, so that what is absent cannot pass for what is null. Its digest, which is also a job's
identity, is a tagged hash of those bytes with a tag of its own for each kind.

What a worker sends is signed over that digest. The message names the worker, the job and the
epoch, so a signature is worth nothing under another name, job, epoch or kind. The registered
identity names the algorithm; no message does.

    commitment = H(worker, job, epoch, salt, value, trace root, trace size)

binds the answer before any other is known (collision resistance) and hides it (a salt of 256 bits).
Whoever copies another's commitment cannot open it under its own name. Format: specs/messages.md.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from protocols.identities import Identity
from verifiable import encoding
from verifiable.encoding import tagged_hash
from verifiable.errors import MalformedEncoding, VerificationError
from verifiable.voting import VoteOutcome

VERSION: Final = 1
"""Version of every message here. A message of any other is malformed."""

MAX_VALUE: Final = 1 << 20
"""The most bytes in a revealed answer; larger answers are revealed by their digest."""

MAX_BALLOTS: Final = 1024
"""The most workers named by a decision, on either side."""

_SIGNATURE_HEAD = b"\x58\x40"  # of a byte string of 64
_SIGNATURE_SIZE = 64
_DIGEST_HEAD = b"\x58\x20"  # of a byte string of 32
_HEADS = 256  # more than the heads and fixed fields of any message take


class UnknownWorker(VerificationError):
    """A message in the name of nobody who is registered.

    Attributes:
      worker: the identity that the message names.
    """

    def __init__(self, worker: bytes):
        """Keep the identity."""
        self.worker = worker
        super().__init__(f"no worker {worker.hex()} is registered")


class InvalidSignature(VerificationError):
    """A signature that is not the named worker's over this message.

    Attributes:
      worker: the identity that the message names.
      kind: kind of the message.
    """

    def __init__(self, *, worker: bytes, kind: str):
        """Keep what was claimed."""
        self.worker, self.kind = worker, kind
        super().__init__(
            f"signature is not worker {worker.hex()}'s over this {kind}: (a) somebody else signed, "
            "(b) the message was changed, or (c) it was signed as another kind of message"
        )


def is_uint(value: Any) -> bool:
    """Whether a value is an integer of 64 bits without sign."""
    return type(value) is int and 0 <= value < 2**64


def _count(value: Any) -> bool:
    return is_uint(value) and value > 0


def is_digest(value: Any) -> bool:
    """Whether a value is 32 bytes."""
    return type(value) is bytes and len(value) == 32


def _value(value: Any) -> bool:
    return type(value) is bytes and len(value) <= MAX_VALUE


def _workers(value: Any) -> bool:
    return (
        type(value) is tuple
        and len(value) <= MAX_BALLOTS
        and all(map(is_digest, value))
        and all(a < b for a, b in pairwise(value))
    )


def _probability(value: Any) -> bool:
    return type(value) is float and 0.0 <= value <= 1.0


def or_null(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """The check that also takes None."""
    return lambda value: value is None or check(value)


class Message:
    """What all messages have: fields that are checked, one encoding, and a digest."""

    __slots__ = ()

    KIND: ClassVar[str]
    """First element of the encoding."""
    TAG: ClassVar[str]
    """Domain of the digest."""
    MAX_SIZE: ClassVar[int]
    """The most bytes of an encoding."""
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]]
    """The fields, in the order of the encoding, and what each must be."""

    def __post_init__(self) -> None:
        """Refuse a field of another type, size or range (ValueError)."""
        for name, check in self.CHECKS.items():
            if not check(getattr(self, name)):
                raise ValueError(f"{name} of a {self.KIND} has another type, size or range")

    def encode(self) -> bytes:
        """The one encoding of this message."""
        return encoding.encode([self.KIND, VERSION, *self._values()])

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview, *, max_size: int | None = None) -> Self:
        """Read a message of this kind.

        Args:
          data: bytes that somebody sent.
          max_size: a limit below `MAX_SIZE`, where the job in hand allows less.

        Raises:
          MalformedEncoding: too long, not canonical, another kind or version, or a field that is
            not what it must be.
        """
        limit = cls.MAX_SIZE if max_size is None else min(max_size, cls.MAX_SIZE)
        data = bytes(memoryview(data).cast("B")[: limit + 1])
        if len(data) <= limit and not data.startswith(_prefix(cls)):
            raise MalformedEncoding(
                f"not a {cls.KIND} of version {VERSION} with {len(cls.CHECKS)} fields"
            )
        # What starts so and decodes has that kind, that version and that many fields.
        _, _, *values = encoding.decode(data, max_size=limit)
        try:
            return cls(**cls._fields(dict(zip(cls.CHECKS, values, strict=True))))
        except (TypeError, ValueError) as error:
            raise MalformedEncoding(str(error)) from error

    @property
    def digest(self) -> bytes:
        """32-byte tagged hash of the encoding."""
        return tagged_hash(self.TAG, self.encode())

    def _values(self) -> list[Any]:
        return [getattr(self, name) for name in self.CHECKS]

    @classmethod
    def _fields(cls, wire: dict[str, Any]) -> dict[str, Any]:
        return wire


@cache
def _prefix(kind: type[Message]) -> bytes:
    """How every message of a kind begins: head of the array, kind and version."""
    head = bytes([0x80 | 2 + len(kind.CHECKS)])
    return head + encoding.encode(kind.KIND) + encoding.encode(VERSION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Message):
    """What a worker is asked to run. Its digest is the job's identity.

    Attributes:
      epoch: the epoch whose commitment log the answers enter.
      nonce: 32 random bytes, so that no two jobs are equal.
      expiry: when commitments stop being taken, in seconds since 1970-01-01 UTC.
      program: 32-byte program id.
      parameters: 32-byte root of the parameters.
      input: 32-byte digest of the input.
    """

    KIND: ClassVar[str] = "job"
    TAG: ClassVar[str] = "message job"
    MAX_SIZE: ClassVar[int] = _HEADS
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]] = {
        "epoch": is_uint,
        "nonce": is_digest,
        "expiry": is_uint,
        "program": is_digest,
        "parameters": is_digest,
        "input": is_digest,
    }

    epoch: int
    nonce: bytes
    expiry: int
    program: bytes
    parameters: bytes
    input: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit(Message):
    """A worker's commitment to an answer that it has not shown yet.

    Attributes:
      worker: its identity.
      job: digest of the job.
      epoch: epoch of the job.
      commitment: `Reveal.commitment` of what it will reveal.
    """

    KIND: ClassVar[str] = "commit"
    TAG: ClassVar[str] = "message commit"
    MAX_SIZE: ClassVar[int] = _HEADS
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]] = {
        "worker": is_digest,
        "job": is_digest,
        "epoch": is_uint,
        "commitment": is_digest,
    }

    worker: bytes
    job: bytes
    epoch: int
    commitment: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reveal(Message):
    """The answer that a worker committed to.

    Attributes:
      worker: its identity.
      job: digest of the job.
      epoch: epoch of the job.
      salt: 32 random bytes, fresh for each job.
      value: the answer in the bytes that the job's program prescribes, at most `MAX_VALUE`.
      trace_root: root of the trace; the answer is among its leaves.
      trace_size: leaves of the trace, at least 1.
    """

    KIND: ClassVar[str] = "reveal"
    TAG: ClassVar[str] = "message reveal"
    MAX_SIZE: ClassVar[int] = MAX_VALUE + _HEADS
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]] = {
        "worker": is_digest,
        "job": is_digest,
        "epoch": is_uint,
        "salt": is_digest,
        "value": _value,
        "trace_root": is_digest,
        "trace_size": _count,
    }

    worker: bytes
    job: bytes
    epoch: int
    salt: bytes
    value: bytes
    trace_root: bytes
    trace_size: int

    @classmethod
    def fresh(
        cls, *, worker: bytes, job: Job, value: bytes, trace_root: bytes, trace_size: int
    ) -> Self:
        """An answer with a new salt: commit to it first, and keep it until it is asked for."""
        return cls(
            worker=worker,
            job=job.digest,
            epoch=job.epoch,
            salt=os.urandom(32),
            value=value,
            trace_root=trace_root,
            trace_size=trace_size,
        )

    @property
    def commitment(self) -> bytes:
        """32-byte hash that binds answer and trace to worker, job and epoch, and hides them."""
        return tagged_hash(
            "answer commitment",
            self.worker,
            self.job,
            self.epoch.to_bytes(8, "little"),
            self.salt,
            self.value,
            self.trace_root,
            self.trace_size.to_bytes(8, "little"),
        )

    @property
    def commit(self) -> Commit:
        """The commit that this opens."""
        return Commit(
            worker=self.worker, job=self.job, epoch=self.epoch, commitment=self.commitment
        )


class Reason(enum.Enum):
    """Why a job ended as it did; the values are stable."""

    AGREED = "agreed"
    AUDITED = "audited"
    EXHAUSTED = "ballots-exhausted"
    NO_WORKERS = "no-workers-left"
    EXPIRED = "expired"
    NO_BEACON = "beacon-missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Message):
    """How a job ended. It is final.

    Attributes:
      job: digest of the job.
      epoch: epoch of the job.
      outcome: whether an answer was accepted.
      reason: why, by a stable code; AGREED or AUDITED iff accepted.
      answer: `answer_digest` of the accepted answer, as it was submitted; None iff indeterminate.
      group: workers whose ballots agree with it, strictly ascending.
      dissenters: workers of all other ballots, strictly ascending. Dissent is no blame.
      requested: ballots requested, at least 1.
      beacon: round of the beacon that broke ties; None where none was drawn.
      error: bound on the probability that a vote accepts a wrong answer; None unless AGREED.
    """

    KIND: ClassVar[str] = "decision"
    TAG: ClassVar[str] = "message decision"
    MAX_SIZE: ClassVar[int] = _HEADS + 2 * 34 * MAX_BALLOTS
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]] = {
        "job": is_digest,
        "epoch": is_uint,
        "outcome": lambda value: isinstance(value, VoteOutcome),
        "reason": lambda value: isinstance(value, Reason),
        "answer": or_null(is_digest),
        "group": _workers,
        "dissenters": _workers,
        "requested": _count,
        "beacon": or_null(is_uint),
        "error": or_null(_probability),
    }

    job: bytes
    epoch: int
    outcome: VoteOutcome
    reason: Reason
    answer: bytes | None
    group: tuple[bytes, ...]
    dissenters: tuple[bytes, ...]
    requested: int
    beacon: int | None
    error: float | None

    def __post_init__(self) -> None:
        """Refuse fields that contradict one another."""
        Message.__post_init__(self)
        accepted = self.outcome is VoteOutcome.ACCEPT
        if accepted != (self.reason in {Reason.AGREED, Reason.AUDITED}):
            raise ValueError(f"{self.outcome.value} for the reason {self.reason.value}")
        if accepted != (self.answer is not None) or accepted != bool(self.group):
            raise ValueError("an answer and its group are there iff it is accepted")
        if (self.reason is Reason.AGREED) != (self.error is not None):
            raise ValueError("an error is there iff a vote decided")
        if not set(self.group).isdisjoint(self.dissenters):
            raise ValueError("a worker is in the group and dissents from it")

    def _values(self) -> list[Any]:
        values = Message._values(self)
        return [v.value if isinstance(v, enum.Enum) else v for v in values]

    @classmethod
    def _fields(cls, wire: dict[str, Any]) -> dict[str, Any]:
        for name in ("group", "dissenters"):
            # Of whatever else is empty, a tuple would be made just as well.
            if type(wire[name]) is not list:
                raise TypeError(f"{name} of a decision is no array")
            wire[name] = tuple(wire[name])
        return wire | {"outcome": VoteOutcome(wire["outcome"]), "reason": Reason(wire["reason"])}


def answer_digest(value: bytes) -> bytes:
    """32-byte tagged hash of an answer, by which a decision names it."""
    return tagged_hash("answer", value)


M = TypeVar("M", Commit, Reveal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(Generic[M]):
    """A worker's message with its signature; made by `sign` and `receive` only.

    Attributes:
      message: what was signed.
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
      message: what to send.
      signer: from the digest to the signature, such as `Ed25519PrivateKey.sign`, or a call to the
        hardware that holds the key.
    """
    return Signed(message=message, signature=signer(message.digest))


def receive(
    kind: type[M],
    data: bytes | bytearray | memoryview,
    identities: Mapping[bytes, Identity],
    *,
    max_size: int | None = None,
) -> Signed[M]:
    """Authenticate what a worker sent, then read it.

    Nothing is parsed that no registered worker has signed: until then, bytes are only compared and
    hashed, so that whoever is not registered makes nobody work.

    Args:
      kind: the message that is expected, `Commit` or `Reveal`.
      data: the bytes received.
      identities: the registered workers by `Identity.id`.
      max_size: the most bytes in the message, where the job in hand allows less than the kind.

    Raises:
      MalformedEncoding: not a signed message of this kind.
      UnknownWorker: nobody of that name is registered.
      InvalidSignature: the named worker did not sign this.
    """
    limit = kind.MAX_SIZE if max_size is None else min(max_size, kind.MAX_SIZE)
    tail = len(_SIGNATURE_HEAD) + _SIGNATURE_SIZE
    data = bytes(memoryview(data).cast("B")[: limit + tail + 1])
    if len(data) > limit + tail:
        raise MalformedEncoding(f"signed message has more than the {limit + tail} bytes allowed")
    body, head, signature = data[:-tail], data[-tail:-_SIGNATURE_SIZE], data[-_SIGNATURE_SIZE:]
    start = _prefix(kind) + _DIGEST_HEAD
    if head != _SIGNATURE_HEAD or not body.startswith(start):
        raise MalformedEncoding(f"not a signed {kind.KIND} of version {VERSION}")
    worker = body[len(start) : len(start) + 32]
    identity = identities.get(worker)
    if identity is None:
        raise UnknownWorker(worker)
    if not identity.verifies(signature, tagged_hash(kind.TAG, body)):
        raise InvalidSignature(worker=worker, kind=kind.KIND)
    return Signed(message=kind.decode(body, max_size=limit), signature=signature)
