"""A device that is paid for receipts of answers, and makes a trace only where it is audited.

Its coordinator is `examples/audited_coordinator.py`, which plays an epoch with three of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import verifiable as vf
from protocols import messages
from protocols.audited import AuditNotice, OpeningRequest
from protocols.audited.device import open_trace, receipt_of, trace_of, trace_receipt_of
from protocols.identities import Identity
from protocols.messages import Job, Upload


@dataclass(kw_only=True)
class Device:
    """Runs the plain model; `false` is added to its answer, and a shy one vanishes when audited."""

    program: vf.Program
    params: Any
    plain: Any
    coordinator: Identity
    false: float = 0.0
    shy: bool = False
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def __post_init__(self) -> None:
        """What is registered."""
        self.identity = Identity(public_key=self.key.public_key().public_bytes_raw())

    def run(self, job: Job, x: jax.Array) -> tuple[bytes, Any]:
        """The receipt, and the answer that it is about."""
        self.job, self.x, self.y = job, x, self.plain(self.params, x) + self.false
        self.receipt = receipt_of(self.y, worker=self.identity.id, job=job)
        return messages.sign(self.receipt, self.key.sign).encode(), self.y

    def commit(self, notice: bytes) -> bytes | None:
        """The job is audited: run it again with its trace, and commit to that."""
        self._obeyed(AuditNotice, notice)
        if self.shy:
            return None
        self.kept = trace_of(self.program, self.params, (self.x,), self.y)
        return messages.sign(trace_receipt_of(self.kept, self.receipt), self.key.sign).encode()

    def open(self, order: bytes) -> tuple[bytes, bytes]:
        """What the coordinator asks for, under this device's signature."""
        request = self._obeyed(OpeningRequest, order)
        payload = open_trace(self.kept, self.program, request)
        return messages.sign(Upload.of(payload, request), self.key.sign).encode(), payload

    def _obeyed(self, kind: Any, order: bytes) -> Any:
        me, its = self.identity.id, self.coordinator
        return messages.obey(kind, order, job=self.job, worker=me, coordinator=its).message
