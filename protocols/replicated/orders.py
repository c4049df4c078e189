"""The coordinator's messages: what it signs and sends to carry out an effect.

    Dispatch    Assignment       to the worker, with the job
    AskReveal   RevealRequest    to the worker
    Audit       TraceRequest     to the worker; it answers with an upload
    Conclude    Decision         to everybody

Sign each with the key of the identity that the job names. Workers take no other.
"""

from __future__ import annotations

from typing import TypeVar

from protocols.messages import Assignment, Decision, Job, Order, RevealRequest, TraceRequest
from protocols.replicated.state import AskReveal, Audit, Conclude, Dispatch

AnyOrder = TypeVar("AnyOrder", bound=Order)


def order(
    job: Job, effect: Dispatch | AskReveal | Audit | Conclude
) -> Assignment | RevealRequest | TraceRequest | Decision:
    """The message that carries out an effect.

    Args:
      job: the job.
      effect: from `start` or `step`, of that job.
    """
    match effect:
        case Dispatch(worker=worker, deadline=deadline):
            return _to(worker, Assignment, job, deadline)
        case AskReveal(worker=worker, deadline=deadline):
            return _to(worker, RevealRequest, job, deadline)
        case Audit():
            return trace_request(job, effect)
        case Conclude(decision=decision):
            return decision


def trace_request(job: Job, task: Audit) -> TraceRequest:
    """The request for the trace of a ballot."""
    return _to(task.commit.message.worker, TraceRequest, job, task.deadline)


def _to(worker: bytes, kind: type[AnyOrder], job: Job, deadline: int) -> AnyOrder:
    return kind(
        coordinator=job.coordinator,
        worker=worker,
        job=job.digest,
        epoch=job.epoch,
        deadline=deadline,
    )
