"""Evidence that a worker revealed another answer than the one in its trace, for anybody.

A worker signs its reveal: value, and root and size of its trace, together. y is among the leaves of
the trace, and their bytes in order are b(y) (`runs`). So the leaves of y, opened under the signed
root, show the answer that the worker committed to, and

    guilty iff  value != b(y)          job.answer = bytes
                value != H(b(y))       job.answer = digest

A judge needs the job, the worker's identity and the program, but no parameters, key or input, and
runs nothing. Nobody can make such evidence of an honest worker: no other leaves open under the root
of its trace. Rules: specs/replicated.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from protocols.identities import Identity
from protocols.messages import Job, Reveal, Signed, receive
from protocols.replicated.runs import answer_of, answer_value
from verifiable import encoding
from verifiable import trace as traces
from verifiable.errors import (
    MalformedEncoding,
    MalformedProof,
    VerificationError,
    received_bytes,
    require_exact_type,
)
from verifiable.program import Program
from verifiable.submission import Submission
from verifiable.trace import Commitment, Layout, Opening

VERSION: Final = 1
_KIND: Final = "answer mismatch"
_HEADS: Final = 9  # bytes of the head of a string, at most


class NoMismatch(VerificationError):
    """The evidence is about another job, or the revealed value is the answer in the trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerMismatch:
    """A signed reveal, and the answer in the trace that it names; `of` makes it.

    Received from an accuser: nothing in it is trusted.

    Attributes:
      job: the job; the reveal names its digest.
      reveal: the encoding of the worker's signed reveal.
      opening: of all leaves of y, and of no other.
    """

    job: Job
    reveal: bytes
    opening: Opening = field(repr=False)

    @classmethod
    def of(cls, job: Job, reveal: Signed[Reveal], submission: Submission, program: Program) -> Self:
        """The evidence of an audit that found `answer-mismatch`.

        Args:
          job: the job.
          reveal: the ballot.
          submission: what the worker handed in.
          program: what the job runs.

        Raises:
          ValueError: y and trace are not what the reveal commits to, or the value is y: neither
            convicts.
        """
        committed, told = program.commit(submission.y, submission.trace), reveal.message
        if committed.commitment != Commitment(root=told.trace_root, size=told.trace_size):
            raise ValueError("the submission is not what the reveal commits to")
        if answer_of(job.answer, submission.y) == told.value:
            raise ValueError("the revealed value is the answer in the trace")
        indices = answer_leaves(program.layout)
        opening = committed.open(indices) if indices else Opening(leaves=(), proof=())
        return cls(job=job, reveal=reveal.encode(), opening=opening)

    def verify(self, program: Program, identities: Mapping[bytes, Identity]) -> Reveal:
        """Verify that the worker revealed another answer than its trace has.

        Args:
          program: the judge's own, compiled under the policy of the job.
          identities: the registered workers by `Identity.id`.

        Returns:
          The reveal, which names the convicted worker.

        Raises:
          NoMismatch: the job is for another program, the reveal for another job, or the value is
            the answer.
          MalformedEncoding, UnknownWorker, InvalidSignature: as `messages.receive`.
          MalformedProof, RootMismatch: the leaves are not those that the worker committed to.
        """
        if self.job.program != program.id:
            raise NoMismatch(
                f"the job is for program {self.job.program.hex()}, not {program.id.hex()}"
            )
        reveal = receive(Reveal, self.reveal, identities).message
        if (reveal.job, reveal.epoch) != (self.job.digest, self.job.epoch):
            raise NoMismatch(
                f"the reveal is for job {reveal.job.hex()}, not {self.job.digest.hex()}"
            )
        commitment = Commitment(root=reveal.trace_root, size=reveal.trace_size)
        indices = answer_leaves(program.layout)
        if indices:
            traces.verify_opening(commitment, program.layout, self.opening, indices=indices)
        elif self.opening.leaves or self.opening.proof:
            raise MalformedProof("the answer has no element, so there is nothing to open")
        if answer_value(self.job.answer, b"".join(self.opening.leaves)) == reveal.value:
            raise NoMismatch("the revealed value is the answer in the trace")
        return reveal

    def encode(self) -> bytes:
        """The one encoding of this evidence."""
        leaves, proof = list(self.opening.leaves), list(self.opening.proof)
        return encoding.encode([_KIND, VERSION, self.job.encode(), self.reveal, leaves, proof])

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview, layout: Layout) -> Self:
        """Read evidence.

        Args:
          data: of any length; the layout says how much is read.
          layout: of the judge's own program.

        Raises:
          MalformedEncoding: not evidence about a program of this layout.
        """
        data = received_bytes(data)
        require_exact_type("layout", layout, Layout)
        leaves = len(answer_leaves(layout))
        digests = leaves * layout.size.bit_length()
        sizes = sum(tensor.nbytes for tensor in layout.tensors[layout.claim_count :])
        most = Job.MAX_SIZE + Reveal.MAX_SIZE + 128 + sizes + _HEADS * leaves + 34 * digests
        fields: Any = encoding.decode(data, max_size=most, max_items=leaves + digests + 16)
        match fields:
            case [name, version, bytes(job), bytes(reveal), list(opened), list(proof)] if (
                name == _KIND
                and type(version) is int
                and version == VERSION
                and all(type(item) is bytes for item in (*opened, *proof))
            ):
                opening = Opening(leaves=tuple(opened), proof=tuple(proof))
                return cls(job=Job.decode(job), reveal=reveal, opening=opening)
            case _:
                raise MalformedEncoding(f"expected version {VERSION} of the kind {_KIND!r}")


def answer_leaves(layout: Layout) -> range:
    """Indices of the leaves that hold y: they come last in a trace."""
    first = sum(tensor.leaves for tensor in layout.tensors[: layout.claim_count])
    return range(first, layout.size)
