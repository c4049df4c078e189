"""The job: program, parameters and input that a worker is asked to run, and until when.

The nonce makes every job unique, so the digest of a job identifies it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from protocols.messages.message import HEADS, Message, is_digest, is_uint


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Message):
    """A request to run a program. Its digest is the job's identity.

    Attributes:
      epoch: the epoch whose commitment log records the answers.
      nonce: 32 random bytes, so that no two jobs are equal.
      expiry: when the coordinator stops taking commitments, in seconds since 1970-01-01 UTC.
      program: 32-byte program id.
      parameters: 32-byte root of the parameters.
      input: 32-byte digest of the input.
    """

    KIND: ClassVar[str] = "job"
    TAG: ClassVar[str] = "message job"
    MAX_SIZE: ClassVar[int] = HEADS
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
