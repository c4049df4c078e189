"""The worker's half: receipt of an answer, and of its trace if the job is audited. Needs JAX.

    y = plain(params, *inputs)                     any runtime; no trace
    receipt_of(y, worker=me, job=job)              sent with y
    kept = trace_of(program, params, inputs, y)    only when audited
    trace_receipt_of(kept, receipt)
    open_trace(kept, program, request)             what the coordinator asked for

The trace commits to the answer *as receipted*: the y of a run that makes a trace may differ in its
last bits, which the test of outputs allows. An answer of integers or booleans has no such slack:
make it by `jax.jit(program.execute)` without its trace, so that both runs decide alike.
"""

from __future__ import annotations

from typing import Any

from protocols.audited.judging import plan_of
from protocols.audited.orders import OpeningRequest
from protocols.audited.receipt import AnswerReceipt, TraceReceipt
from protocols.messages import Job, answer_digest
from protocols.replicated.runs import answer_of
from verifiable.program import Program
from verifiable.trace import Committed


def receipt_of(y: Any, *, worker: bytes, job: Job) -> AnswerReceipt:
    """The receipt of an answer; a coordinator compares it with the one that came beside y.

    Args:
      y: the answer, a pytree of arrays.
      worker: identity of the worker.
      job: the job.

    Raises:
      TypeError: a leaf is not an array, or has no canonical bytes.
    """
    answer = answer_digest(answer_of(job.answer, y))
    return AnswerReceipt(worker=worker, job=job.digest, epoch=job.epoch, answer=answer)


def trace_of(program: Program, params: Any, inputs: tuple[Any, ...], y: Any) -> Committed:
    """Run a job again with its trace, and commit to the trace with the answer that was given.

    Args:
      program: of the job.
      params: as at compile time.
      inputs: likewise.
      y: the answer that was receipted.

    Raises:
      ValueError: another tree, shape or dtype than at compile time.
    """
    return program.commit(y, program.prove(params, *inputs).trace)


def trace_receipt_of(kept: Committed, receipt: AnswerReceipt) -> TraceReceipt:
    """The receipt of a trace, for the answer that was receipted."""
    return TraceReceipt(
        worker=receipt.worker,
        job=receipt.job,
        epoch=receipt.epoch,
        receipt=receipt.digest,
        trace_root=kept.commitment.root,
        trace_size=kept.commitment.size,
    )


def open_trace(kept: Committed, program: Program, request: OpeningRequest) -> bytes:
    """The opening that a request asks for, in bytes.

    Raises:
      ValueError: the program has fewer layers or rows than asked for.
    """
    return kept.open(plan_of(program, request)).encode()
