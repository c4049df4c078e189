"""Runs as messages: digests of inputs, and revealed answers, as the program prescribes them.

    value  = b(y)                    job.answer = bytes
           = H(b(y))                 job.answer = digest; only under exact agreement
    b(y)   = canonical bytes of the arrays of y, in the order of the program's layout
    input  = H(parameter root of the tuple of inputs)

The program fixes the tree, shapes and dtypes of y, so b is injective on its answers. y is among the
leaves of the trace, so `audit` can compare the value that a worker revealed with the y that it
committed to. Needs JAX. Rules: specs/messages.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jax import tree_util

from protocols.messages import AnswerForm, Job, Reveal
from verifiable.encoding import tagged_hash, tensor_bytes
from verifiable.program import Program, parameter_root
from verifiable.submission import Submission


def input_digest(*inputs: Any) -> bytes:
    """32-byte digest of the inputs of a job, for `Job.input`.

    Args:
      *inputs: pytrees of arrays, as at compile time.

    Raises:
      TypeError: a leaf is not an array.
    """
    return tagged_hash("job input", parameter_root(inputs))


def require_named(job: Job, program: Program, inputs: Sequence[Any]) -> None:
    """Require that a coordinator's own program and inputs are those that the job names.

    Raises:
      ValueError: the program or the inputs are others.
    """
    own = {
        "program": (program.id, "this is another program"),
        "input": (input_digest(*inputs), "these are other inputs"),
    }
    for name, (value, other) in own.items():
        named: bytes = getattr(job, name)
        if named != value:
            raise ValueError(f"the job names {name} {named.hex()}, but {other}: {value.hex()}")


def answer_of(form: AnswerForm, y: Any) -> bytes:
    """What a reveal holds of an answer: `Reveal.value`.

    Args:
      form: `Job.answer`.
      y: the answer, a pytree of arrays, as the program returns it.

    Raises:
      TypeError: a leaf is not an array, or has no canonical bytes.
    """
    data = b"".join(map(tensor_bytes, tree_util.tree_leaves(y)))
    return answer_value(form, data)


def answer_value(form: AnswerForm, data: bytes) -> bytes:
    """What a reveal holds of an answer with these canonical bytes."""
    return data if form is AnswerForm.BYTES else tagged_hash("answer bytes", data)


def reveal_of(submission: Submission, *, worker: bytes, job: Job) -> Reveal:
    """The reveal of a run, with a new salt. Send its `commit` first, and keep it until asked.

    Args:
      submission: the worker's own run, from `Program.prove`.
      worker: identity of the worker.
      job: the job.

    Raises:
      ValueError: the answer is too large for a reveal: the job should ask for its digest.
    """
    return Reveal.fresh(
        worker=worker,
        job=job,
        value=answer_of(job.answer, submission.y),
        trace_root=submission.commitment.root,
        trace_size=submission.commitment.size,
    )
