"""Judging an opening: the plan of a seed, and the verdict on what the worker opened. Needs JAX."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from protocols.audited.orders import OpeningRequest
from protocols.audited.receipt import AnswerReceipt
from protocols.audited.state import AskOpening
from protocols.messages import Job, answer_digest
from protocols.replicated.audit import AuditFinding
from protocols.replicated.mismatch import answer_leaves
from protocols.replicated.runs import answer_value, require_named
from verifiable.key import VerifierKey
from verifiable.program import Program
from verifiable.report import Verdict
from verifiable.trace import AuditPlan, Commitment


def plan_of(program: Program, asked: AskOpening | OpeningRequest) -> AuditPlan:
    """What a worker opens; both sides make the same plan.

    Raises:
      ValueError: the program has fewer layers or rows than asked for.
    """
    layers = len(program.layers) if asked.layers is None else asked.layers
    return program.audit_plan(asked.seed, layers=layers, rows=asked.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Judges the openings of one job.

    Attributes:
      job: the job.
      program: what it runs.
      key: a secret of the coordinator; `judge` requires that it is of the job's parameters.
      inputs: of the job.

    Raises:
      ValueError: program or inputs are not those that the job names.
    """

    job: Job
    program: Program
    key: VerifierKey = field(repr=False)
    inputs: tuple[Any, ...] = field(repr=False)

    def __post_init__(self) -> None:
        """Compare program and inputs with the job."""
        require_named(self.job, self.program, self.inputs)

    def judge(self, ask: AskOpening, opening: bytes) -> AuditFinding:
        """What is found of an opening; one that cannot be read is rejected.

        The leaves of the answer are opened in every audit. They are compared with the receipt of
        the answer first: an honest trace of another answer says nothing about the one receipted.

        Args:
          ask: from `step`.
          opening: bytes of an `AuditOpening`, which the worker signed as its answer.

        Returns:
          Verdict, reason and report; the reason is `answer-mismatch` if the trace has another
          answer than the worker gave.

        Raises:
          ValueError: the key is of another program, policy, version or other parameters.
        """
        plan, trace = plan_of(self.program, ask), ask.trace.message
        report = self.program.audit(
            self.key,
            *self.inputs,
            plan=plan,
            commitment=Commitment(root=trace.trace_root, size=trace.trace_size),
            opening=opening,
            parameters=self.job.parameters,
        )
        verdict, reason = report.verdict, report.reason
        # What does not open under the root is not the worker's trace, and has no answer.
        mine = not reason.startswith("opening-")
        if mine and not self._gave(ask.receipt.message, plan.framed(opening), plan):
            verdict, reason = Verdict.REJECT, "answer-mismatch"
        return AuditFinding(verdict=verdict, reason=reason, report=report)

    def _gave(self, receipt: AnswerReceipt, opened: bytes, plan: AuditPlan) -> bool:
        """Whether the answer in an opened trace is the one of a receipt."""
        found = dict(zip(plan.leaves, plan.data(opened), strict=True))
        data = b"".join(found[leaf] for leaf in answer_leaves(self.program.layout))
        return answer_digest(answer_value(self.job.answer, data)) == receipt.answer
