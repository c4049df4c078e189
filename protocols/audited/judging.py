"""Judging an opening: the plan of a seed, and the verdict on what the worker opened. Needs JAX."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from protocols.audited.state import AskOpening
from protocols.messages import Job
from protocols.replicated.runs import require_named
from verifiable.key import VerifierKey
from verifiable.program import Program
from verifiable.report import Report
from verifiable.trace import AuditPlan, Commitment


def plan_of(program: Program, ask: AskOpening) -> AuditPlan:
    """What a worker opens; both sides make the same plan."""
    return program.audit_plan(ask.seed, layers=ask.layers, rows=ask.rows)


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

    def judge(self, ask: AskOpening, opening: bytes) -> Report:
        """The report on an opening; what cannot be read is rejected.

        Args:
          ask: from `step`.
          opening: bytes of an `AuditOpening`, which the worker signed as its answer.

        Raises:
          ValueError: the key is of another program, policy, version or other parameters.
        """
        message = ask.receipt.message
        return self.program.audit(
            self.key,
            *self.inputs,
            plan=plan_of(self.program, ask),
            commitment=Commitment(root=message.trace_root, size=message.trace_size),
            opening=opening,
            parameters=self.job.parameters,
        )
