"""What a coordinator says to a worker whose job is audited; sign with the key that the job names.

    AskTrace     AuditNotice      the job is audited: commit to a trace of the answer
    AskOpening   OpeningRequest   open what the plan of this seed asks for

A worker answers the first with a signed `TraceReceipt`, the second with a signed `Upload` of its
opening. It takes no order of anybody but its coordinator (`messages.obey`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, overload

from protocols.audited.state import AskOpening, AskTrace
from protocols.messages import Job, Order, is_digest, or_null
from protocols.messages.message import is_count


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditNotice(Order):
    """Your job is audited: commit to a trace of your answer before the deadline."""

    KIND: ClassVar[str] = "audit-notice"
    TAG: ClassVar[str] = "message audit-notice"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningRequest(Order):
    """Open the leaves of this plan of the trace that you committed to, before the deadline.

    Attributes:
      seed: of the plan, 32 bytes: `draw.unit_seed`.
      layers: how many layers are audited; None for all.
      rows: how many rows of each; None for all.
    """

    KIND: ClassVar[str] = "opening-request"
    TAG: ClassVar[str] = "message opening-request"
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]] = {
        **Order.CHECKS,
        "seed": is_digest,
        "layers": or_null(is_count),
        "rows": or_null(is_count),
    }

    seed: bytes
    layers: int | None
    rows: int | None


@overload
def order(job: Job, effect: AskTrace) -> AuditNotice: ...


@overload
def order(job: Job, effect: AskOpening) -> OpeningRequest: ...


def order(job: Job, effect: AskTrace | AskOpening) -> AuditNotice | OpeningRequest:
    """The message that carries out an effect.

    Args:
      job: the job.
      effect: from `step`, of that job.
    """
    to: dict[str, Any] = {
        "coordinator": job.coordinator,
        "worker": effect.receipt.message.worker,
        "job": job.digest,
        "epoch": job.epoch,
        "deadline": effect.deadline,
    }
    if isinstance(effect, AskTrace):
        return AuditNotice(**to)
    return OpeningRequest(**to, seed=effect.seed, layers=effect.layers, rows=effect.rows)
