"""The audit of a ballot: the upload is the worker's, the answer is its trace's, the trace is right.

An honest trace says nothing about a revealed value that is not its y, and the vote counts revealed
values. So an audit compares the two itself, whatever else it finds: two colluders that reveal a
false value over honest traces are rejected, and convicted, since the opened leaves of y show the
difference to anybody (`mismatch`). An upload that its worker did not sign answers no audit: it is
refused, and gives no verdict. Needs JAX. Rules: specs/replicated.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocols.identities import Identity
from protocols.messages import AnswerForm, Job, Reveal, Signed, Upload, announced, require_payload
from protocols.replicated.orders import trace_request
from protocols.replicated.runs import answer_of, require_named
from protocols.replicated.state import Audit, Audited
from verifiable import trace as traces
from verifiable.errors import CommitmentMismatch, MalformedEncoding
from verifiable.key import VerifierKey
from verifiable.program import Program
from verifiable.report import Report, Verdict
from verifiable.submission import Submission, encoded_size
from verifiable.trace import Commitment


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFinding:
    """What the audit of a ballot found.

    Attributes:
      verdict: on trace and answer.
      reason: stable code: one of `report.REASONS`, `answer-mismatch` if the revealed value is not
        the answer in the committed trace, `malformed-upload` if the worker signed bytes that are
        no submission.
      convicted: whether the ballot alone shows others that the worker is wrong: only where the
        reason is `answer-mismatch`. Evidence of a rejected claim may convict as well.
      report: of the check; None where none was made.
      submission: what the worker handed in; None if it cannot be read.
    """

    verdict: Verdict
    reason: str
    convicted: bool = False
    report: Report | None = None
    submission: Submission | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditor:
    """Audits the ballots of one job.

    Attributes:
      job: the job.
      program: what it runs.
      key: made after the commitments had closed.
      inputs: its inputs.
      identities: the registered workers by `Identity.id`.

    Raises:
      ValueError: program or inputs are not those that the job names.
    """

    job: Job
    program: Program
    key: VerifierKey
    inputs: Sequence[Any]
    identities: Mapping[bytes, Identity]

    def __post_init__(self) -> None:
        """Compare program and inputs with the job."""
        require_named(self.job, self.program, self.inputs)

    def announced(self, task: Audit, message: bytes) -> Signed[Upload]:
        """Authenticate the signed message of an upload, before its payload is read.

        Raises:
          VerificationError: it is not the worker's answer to this audit: refuse it. No verdict
            follows; the worker's own may still come.
        """
        request, most = trace_request(self.job, task), encoded_size(self.program.layout)
        return announced(message, request, self.identities, most=most)

    def audit(self, task: Audit, message: bytes, payload: bytes) -> AuditFinding:
        """Audit a ballot.

        Args:
          task: the audit that `step` asked for.
          message: the bytes of the signed `Upload`.
          payload: the bytes that it announces: `Submission.encode`.

        Raises:
          VerificationError: the worker did not sign this as its answer: refuse it, as above.
        """
        require_payload(payload, self.announced(task, message))
        try:
            found = Submission.decode(payload, self.program.layout)
        except MalformedEncoding:
            return AuditFinding(verdict=Verdict.REJECT, reason="malformed-upload")
        return judge_ballot(
            self.program,
            self.key,
            self.inputs,
            reveal=task.reveal.message,
            found=found,
            form=self.job.answer,
            parameters=self.job.parameters,
        )


def judge_ballot(
    program: Program,
    key: VerifierKey,
    inputs: Sequence[Any],
    *,
    reveal: Reveal,
    found: Submission,
    form: AnswerForm,
    parameters: bytes,
) -> AuditFinding:
    """Judge a submission that its worker is known to have handed in for a ballot.

    Args:
      program: what the job runs.
      key: made after the commitments had closed.
      inputs: of the job.
      reveal: the ballot.
      found: what the worker handed in, decoded with the program's layout.
      form: of the revealed value.
      parameters: the root that the job names.
    """
    commitment = Commitment(root=reveal.trace_root, size=reveal.trace_size)
    if answer_of(form, found.y) != reveal.value:
        # The revealed value is not y. Whether y is what was committed to decides whose it is.
        try:
            traces.verify(commitment, found.y, found.trace, layout=program.layout)
        except CommitmentMismatch:
            reason = "commitment-mismatch"
        else:
            reason = "answer-mismatch"
        return AuditFinding(
            verdict=Verdict.REJECT,
            reason=reason,
            convicted=reason == "answer-mismatch",
            submission=found,
        )
    report = program.verify(key, *inputs, found, commitment=commitment, parameters=parameters)
    return AuditFinding(
        verdict=report.verdict, reason=report.reason, report=report, submission=found
    )


def audited(task: Audit, finding: AuditFinding, *, at: int, convicted: bool = False) -> Audited:
    """The event that ends an audit.

    Args:
      task: the audit.
      finding: what it found.
      at: the time.
      convicted: whether evidence of a rejected claim convicts (`verify_evidence`).
    """
    return Audited(
        at=at,
        worker=task.commit.message.worker,
        verdict=finding.verdict,
        convicted=finding.convicted or convicted,
    )
