"""Commit and reveal: a worker fixes its answer before it sees any other.

    commitment = H(worker, job, epoch, salt, value, trace root, trace size)

The commit carries the commitment, the reveal everything that it hashes. Two openings of one
commitment are a collision of the hash. Without the 32-byte salt, the commitment says nothing about
answer or trace.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from protocols.messages.job import Job
from protocols.messages.message import HEADS, Message, is_count, is_digest, is_uint
from verifiable.encoding import tagged_hash

MAX_VALUE: Final = 1 << 20
"""The most bytes in a revealed answer. A larger answer is revealed by its digest."""


def _is_value(value: Any) -> bool:
    return type(value) is bytes and len(value) <= MAX_VALUE


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit(Message):
    """A worker's commitment to an answer that it has not shown yet.

    Attributes:
      worker: its identity, 32 bytes.
      job: digest of the job.
      epoch: epoch of the job.
      commitment: `Reveal.commitment` of the reveal that will follow.
    """

    KIND: ClassVar[str] = "commit"
    TAG: ClassVar[str] = "message commit"
    MAX_SIZE: ClassVar[int] = HEADS
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
    """The answer behind a worker's commitment.

    Attributes:
      worker: its identity, 32 bytes.
      job: digest of the job.
      epoch: epoch of the job.
      salt: 32 random bytes, new for each job.
      value: the canonical bytes of y as the program prescribes them, or their digest, as the job
        says (`Job.answer`); at most `MAX_VALUE` bytes.
      trace_root: root of the trace; y is among its leaves, and an audit compares them.
      trace_size: leaves of the trace, at least 1.
    """

    KIND: ClassVar[str] = "reveal"
    TAG: ClassVar[str] = "message reveal"
    MAX_SIZE: ClassVar[int] = MAX_VALUE + HEADS
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]] = {
        "worker": is_digest,
        "job": is_digest,
        "epoch": is_uint,
        "salt": is_digest,
        "value": _is_value,
        "trace_root": is_digest,
        "trace_size": is_count,
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
        """An answer with a new salt. Send its `commit` first, and keep the reveal until asked."""
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
        """The commit that this reveal opens."""
        return Commit(
            worker=self.worker, job=self.job, epoch=self.epoch, commitment=self.commitment
        )
