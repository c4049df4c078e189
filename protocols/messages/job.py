"""The job: program, parameters and input that a worker is asked to run, for whom, and until when.

The nonce makes every job unique, so the digest of a job identifies it. It names the coordinator,
so that whoever holds the job knows who may speak about it, and says how its answer is revealed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from protocols.messages.message import HEADS, Message, is_digest, is_uint


class AnswerForm(enum.Enum):
    """What is revealed of an answer. The values are stable."""

    BYTES = "bytes"
    """The canonical bytes of y: those of its arrays, in the order of the program's layout."""

    DIGEST = "digest"
    """Their 32-byte digest: only where workers agree exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Message):
    """A request to run a program. Its digest is the job's identity.

    Attributes:
      coordinator: identity of its coordinator, which signs all that is said about the job.
      epoch: the epoch whose commitment log records the answers.
      nonce: 32 random bytes, so that no two jobs are equal.
      expiry: when the coordinator stops taking commitments, in seconds since 1970-01-01 UTC.
      program: 32-byte program id.
      parameters: 32-byte root of the parameters.
      input: 32-byte digest of the inputs, `replicated.runs.input_digest`.
      answer: what a reveal holds of an answer.
    """

    KIND: ClassVar[str] = "job"
    TAG: ClassVar[str] = "message job"
    MAX_SIZE: ClassVar[int] = HEADS
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]] = {
        "coordinator": is_digest,
        "epoch": is_uint,
        "nonce": is_digest,
        "expiry": is_uint,
        "program": is_digest,
        "parameters": is_digest,
        "input": is_digest,
        "answer": lambda value: isinstance(value, AnswerForm),
    }

    coordinator: bytes
    epoch: int
    nonce: bytes
    expiry: int
    program: bytes
    parameters: bytes
    input: bytes
    answer: AnswerForm = AnswerForm.BYTES

    def _values(self) -> list[Any]:
        return [*Message._values(self)[:-1], self.answer.value]

    @classmethod
    def _field(cls, name: str, wire: Any) -> Any:
        return AnswerForm(wire) if name == "answer" else wire
