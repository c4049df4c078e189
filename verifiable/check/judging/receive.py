"""Compare what a device sent with the program, before any other step reads it.

First, the submission must name the job's program and parameters. Then structure, shapes and dtypes
must equal the program's. Then the commitment, received before the challenge could be known, must
bind what was sent. Each failure has its own reason, and no value is used before these pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from verifiable import trace as traces
from verifiable.check.specification import Specification
from verifiable.claims.claim import Claim
from verifiable.errors import CommitmentMismatch, MalformedEncoding, Misnamed
from verifiable.key import KeyHeader
from verifiable.submission import Submission
from verifiable.trace import Commitment, Trace
from verifiable.trace.validate import array_or_none, leaves_up_to


class Problem(NamedTuple):
    """Why what a device sent cannot be a run of the program.

    Attributes:
      reason: a code of `REASONS`.
      where: name of the claim or output.
      message: what came, and what the program has.
    """

    reason: str
    where: str | None
    message: str


class ReceivedArrays(NamedTuple):
    """Arrays with the structure, shapes and dtypes of the program.

    Attributes:
      outputs: leaves of the answer.
      values: claimed values.
    """

    outputs: tuple[Any, ...]
    values: tuple[Any, ...]


def receive(program: Specification, y: Any, trace: Any) -> ReceivedArrays | Problem:
    """The arrays of an answer and a trace, or why the program cannot have made them.

    Args:
      program: what the device was to run.
      y: the answer; any object.
      trace: a `Trace`, or a sequence of arrays, or any other object.
    """
    try:
        values, problem = _claims(trace, program.claims)
        outputs, other = _output(y, program.y)
    except Exception:  # raised by an object from the device, so its text is not shown
        return Problem("trace-structure", None, "the answer or the trace cannot be read")
    return problem or other or ReceivedArrays(tuple(outputs), tuple(values))


def uncommitted(
    program: Specification, received: ReceivedArrays, commitment: Commitment
) -> Problem | None:
    """Why an answer and a trace are not what was committed to; None if they are."""
    try:
        trace = Trace(values=received.values)
        y = program.unflatten(received.outputs)
        traces.verify(commitment, y, trace, layout=program.layout)
    except (CommitmentMismatch, MalformedEncoding) as error:
        return Problem("commitment-mismatch", None, str(error))
    return None


def misnamed(submission: Submission, key: KeyHeader, job: bytes | None) -> Problem | None:
    """Why a submission names another program or other parameters than the job; None if it does not.

    Args:
      submission: from the device.
      key: header of the coordinator's key, made for the job's program and parameters.
      job: the `parameter_root` that the job names, if the caller has it.

    Raises:
      Misnamed: the names differ and the job's is not known, so that either side may be wrong.
    """
    for name in ("program", "parameters"):
        theirs, mine = getattr(submission, name), getattr(key, name)
        if theirs == mine:
            continue
        both = f"the submission names {name} {theirs.hex()[:16]}, the key {mine.hex()[:16]}"
        if job is None:
            raise Misnamed(
                f"{both}: (a) the key is stale, or (b) the device ran something else; pass "
                "parameters=, the root that the job names, to tell them apart",
                name=name,
                expected=mine,
                found=theirs,
            )
        return Problem(f"other-{name}", None, both)
    return None


def _claims(trace: Any, claims: Sequence[Claim]) -> tuple[list[Any], Problem | None]:
    """The arrays of a trace, or why the program cannot have made them.

    Args:
      trace: a `Trace`, or a sequence of arrays, or anything else.
      claims: of the program.
    """
    received = trace.values if type(trace) is Trace else trace
    if type(received) not in (tuple, list):
        return [], Problem("trace-structure", None, f"got {type(received).__name__}")
    arrays = [array_or_none(x) for x in received[: len(claims)]]
    for claim, array, x in zip(claims, arrays, received, strict=False):
        if array is None:
            return [], Problem(
                "trace-structure", claim.name, f"got {type(x).__name__}, not an array"
            )
    if len(received) != len(claims):
        code = "claim-missing" if len(received) < len(claims) else "claim-extra"
        return [], Problem(code, None, f"the program has {len(claims)} claims, got {len(received)}")
    if any(a.shape != c.shape or a.dtype != c.dtype for a, c in zip(arrays, claims, strict=True)):
        have = [(a.shape, str(a.dtype)) for a in arrays]
        want = [(c.shape, str(c.dtype)) for c in claims]
        i = next(i for i, pair in enumerate(zip(have, want, strict=True)) if pair[0] != pair[1])
        if sorted(have) == sorted(want):
            code = "claim-reordered"
        else:
            code = "claim-shape" if have[i][0] != want[i][0] else "claim-dtype"
        return [], Problem(code, claims[i].name, f"got {have[i]}, the program has {want[i]}")
    return arrays, None


def _output(y: Any, expected: Any) -> tuple[list[Any], Problem | None]:
    """The leaves of an output, or why the program cannot have made them."""
    structure = jax.tree.structure(expected)
    try:
        received = leaves_up_to(structure, y)
    except MalformedEncoding as error:
        return [], Problem("output-structure", None, str(error))
    leaves = jax.tree_util.tree_leaves_with_path(expected)
    arrays: list[Any] = []
    for (path, a), x in zip(leaves, received, strict=True):
        name, b = "output" + jax.tree_util.keystr(path), array_or_none(x)
        if b is None:
            return [], Problem("output-structure", name, _no_array(x))
        if b.shape != a.shape:
            return [], Problem(
                "output-shape", name, f"got {b.shape}, the program returns {a.shape}"
            )
        if b.dtype != a.dtype:
            return [], Problem(
                "output-dtype", name, f"got {b.dtype}, the program returns {a.dtype}"
            )
        arrays.append(b)
    return arrays, None


def _no_array(x: Any) -> str:
    return f"got {type(x).__name__}, not an array"
