"""The receipt: what a worker sends of its run before anybody knows what will be audited.

It binds answer and trace, since the leaves of the answer are leaves of the trace. Signed, it has
less than 300 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from protocols.messages.message import HEADS, Message, is_count, is_digest, is_uint


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceReceipt(Message):
    """A worker's commitment to the trace and answer of a job; its first one counts.

    Attributes:
      worker: its identity, 32 bytes.
      job: digest of the job, which binds nonce, expiry, program, parameters and input.
      epoch: epoch of the job.
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
        "trace_root": is_digest,
        "trace_size": is_count,
    }

    worker: bytes
    job: bytes
    epoch: int
    trace_root: bytes
    trace_size: int
