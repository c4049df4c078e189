"""What a worker commits to: first to its answer, and to a trace of it once it is audited.

    AnswerReceipt   of every job: 32 bytes of the answer, and no trace
    TraceReceipt    of an audited job: the root of a trace with the answer that was receipted

Signed, either has less than 300 bytes. The job is named by its digest, which binds its nonce,
expiry, program, parameters and input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from protocols.messages import Message, is_digest, is_uint
from protocols.messages.message import HEADS, is_count


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerReceipt(Message):
    """A worker's commitment to the answer of a job; its first one counts.

    Attributes:
      worker: its identity, 32 bytes.
      job: digest of the job.
      epoch: epoch of the job.
      answer: `messages.answer_digest` of the answer, in the form that the job names.
    """

    KIND: ClassVar[str] = "answer-receipt"
    TAG: ClassVar[str] = "message answer-receipt"
    MAX_SIZE: ClassVar[int] = HEADS
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]] = {
        "worker": is_digest,
        "job": is_digest,
        "epoch": is_uint,
        "answer": is_digest,
    }

    worker: bytes
    job: bytes
    epoch: int
    answer: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceReceipt(Message):
    """An audited worker's commitment to a trace of its answer; its first one counts.

    Attributes:
      worker: its identity, 32 bytes.
      job: digest of the job.
      epoch: epoch of the job.
      receipt: digest of the answer's receipt.
      trace_root: root of the trace.
      trace_size: leaves of the trace, at least 1.
    """

    KIND: ClassVar[str] = "trace-receipt"
    TAG: ClassVar[str] = "message trace-receipt"
    MAX_SIZE: ClassVar[int] = HEADS
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]] = {
        "worker": is_digest,
        "job": is_digest,
        "epoch": is_uint,
        "receipt": is_digest,
        "trace_root": is_digest,
        "trace_size": is_count,
    }

    worker: bytes
    job: bytes
    epoch: int
    receipt: bytes
    trace_root: bytes
    trace_size: int
