"""Audits of a part of a committed trace: the plan, and the verdict on its opening.

    plan = program.audit_plan(seed, layers=2)          both sides, once the seed is known
    opening = committed.open(plan)                     device
    report = program.audit(key, *inputs, plan=plan, commitment=received, opening=opening)

The audited layers and the outputs are tested as in a whole check, with the same key, limits and
second looks. What was opened is verified against the commitment before anything reads it, and what
was not opened is not looked at. `Report.detection` says how often this meets a cheat.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from verifiable import trace as traces
from verifiable.check import schedule
from verifiable.check.compiled import CheckArguments
from verifiable.check.judging.receive import Problem
from verifiable.check.judging.verdict import judge, refuse
from verifiable.check.partial import restrict
from verifiable.check.partial.copies import copies_of
from verifiable.check.partial.layers import Layers, work
from verifiable.check.partial.measured import AuditDraw, CompiledAudit
from verifiable.check.partial.opened_rows import OpenedTensors, opened
from verifiable.check.settings import on_host
from verifiable.check.specification import Specification
from verifiable.errors import require_type
from verifiable.key import VerifierKey
from verifiable.report import AuditCoverage, Detection, Report
from verifiable.trace import AuditOpening, AuditPlan, Commitment, Committed, Layout, Trace
from verifiable.trace.audit_plan import drawn
from verifiable.trace.copies import Copy, opened_copies

_PLANS = 256  # that are kept
_RECEIVED = (bytes, bytearray, memoryview)


@dataclass(frozen=True, eq=False, kw_only=True)
class Auditable(Specification):
    """A compiled function whose layers can be audited one by one."""

    @cached_property
    def _layers(self) -> Layers:
        return Layers.of(self)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that an audit may choose.

        They are the iterations of the outermost scans that hold claims; else numbered scopes, such
        as `block_3`, that hold claims; else claims.
        """
        return self._layers.names

    @property
    def always_tested(self) -> frozenset[int]:
        """Indices of the claims of no layer, which every audit tests."""
        return self._layers.always

    @cached_property
    def layout(self) -> Layout:
        """See `Specification.layout`; with `row_block`, leaves begin and end with its blocks."""
        found = Specification.layout.func(self)
        return found if self.row_block is None else found.in_groups(self._groups(found))

    def _groups(self, layout: Layout) -> dict[int, tuple[int, int]]:
        layers, block = self._layers, self.row_block or 1
        found = {k: v for s in layers.scans for k, v in s.groups(layout, block).items()}
        for entry in layers.entries.values():
            found |= entry.groups(layout, block)
        if layers.group_rows is not None:
            found |= layers.group_rows.groups(layout, block, layers.base.reads)
        return found

    def commit(self, y: Any, trace: Trace) -> Committed:
        """Commit to a run in the leaves of this program: `trace.commit`."""
        return traces.commit(y, trace, layout=self.layout)

    @property
    def layer_rows(self) -> int:
        """The most rows that a layer has, T, of which an audit may choose some; 1 without rows.

        They lie along an axis of what a scan carries, or of the job's inputs, such as tokens or
        examples.
        """
        return self._layers.most_rows

    def audit_plan(self, seed: bytes, *, layers: int, rows: int | None = None) -> AuditPlan:
        """Which layers and rows an audit looks at, and what has to be opened for it.

        Both sides make the same plan. For a program whose layers are scopes, they must have
        compiled the same scopes, which are no part of its id; the id of the plan binds them.

        Args:
          seed: 32 bytes that nobody knew when the trace was committed to.
          layers: how many layers are audited.
          rows: how many rows of each; all by default, and where layers show no rows. They are
            drawn for each layer by itself if the program has cuts, else alike for all layers; in
            blocks of neighbours if it was compiled with a `row_block`. Where the answer
            follows from fewer rows, these are among them.

        Raises:
          ValueError: a seed of another length, no layers or rows, more than there are, or a program
            without claims.
        """
        if not self._layers.names:
            raise ValueError("the program has no claims, so no part of it can be audited")
        chosen, most = drawn(seed, len(self._layers.names), layers), self.layer_rows
        if rows is not None and (type(rows) is not int or rows < 1 or 1 < most < rows):
            raise ValueError(f"a layer has {most} rows, so 1 .. {most} can be audited, not {rows}")
        block = self.row_block or 1
        if rows is not None and 1 < most != rows and rows % block:
            raise ValueError(f"rows are drawn in blocks of {block}, which do not divide {rows}")
        some = self._layers.rows(seed, chosen, rows)
        leaves = self._layers.leaves(chosen, some, self._layers.entering(seed, rows))
        plan = AuditPlan(
            program=self.id,
            seed=seed,
            population=len(self._layers.names),
            layers=chosen,
            names=tuple(self._layers.names[i] for i in chosen),
            rows=some,
            row_count=rows if some else None,
            leaves=leaves,
            layout=self.layout,
            copies=opened_copies(self._copies, self.layout, leaves),
        )
        for old in list(self._plans)[: 1 - _PLANS]:
            self._plans.pop(old, None)
        self._plans[seed, layers, plan.row_count] = plan
        return plan

    @cached_property
    def _copies(self) -> tuple[Copy, ...]:
        return copies_of(self)

    @cached_property
    def _plans(self) -> dict[tuple[bytes, int, int | None], AuditPlan]:
        """The last plans, which `audit` makes for itself in any case."""
        return {}

    @on_host
    def audit(
        self,
        key: VerifierKey,
        *inputs: Any,
        plan: AuditPlan,
        commitment: Commitment,
        opening: AuditOpening | bytes | bytearray | memoryview,
        parameters: bytes | None = None,
    ) -> Report:
        """Decide whether the opened part of a committed run, and its answer, are honest.

            committed = program.commit(submission.y, submission.trace)   # device, kept
            plan = program.audit_plan(seed, layers=2)                    # both sides
            opening = committed.open(plan).encode()                      # device, sent
            report = program.audit(key, x, plan=plan, commitment=received, opening=opening)

        Args:
          key: from `setup`.
          *inputs: the job's own inputs, as at compile time.
          plan: the verifier's own, from `audit_plan`.
          commitment: of the device, received before the seed of the plan was known, and before
            anything derived from the key was revealed.
          opening: from the device, as an object or as the bytes that it sent. One that did not
            come is no proof of anything: leave the run undecided.
          parameters: the `parameter_root` that the job names; the key must be of these parameters.

        Returns:
          The report on the audited layers, the claims of no layer, and the outputs. `coverage` and
          `detection` say what was looked at, and how often that meets a cheat.

        Raises:
          TypeError: key, plan, commitment or opening is of another type; None is no opening.
          ValueError: the key is of another program, policy, version or other parameters, the plan
            is not of this program, or the inputs have another tree, shape or dtype.
        """
        require_type("plan", plan, AuditPlan)
        self.require_audit(key, commitment, opening, parameters)
        wanted = plan.seed, len(plan.layers), plan.row_count
        own = self._plans.get(wanted)
        if own is None:
            own = self.audit_plan(plan.seed, layers=wanted[1], rows=plan.row_count)
        if plan.id != own.id or plan.rows != own.rows:
            raise ValueError("the plan is not of this program: make it by its audit_plan")
        job = self.conform_inputs(inputs)
        received = opened(self.layout, own, commitment, opening)
        if isinstance(received, Problem):
            return refuse(received)
        return self.judge_opened(key, job, own, received)

    def require_audit(
        self, key: VerifierKey, commitment: Commitment, opening: Any, parameters: bytes | None
    ) -> None:
        """Require the arguments of `audit` beside plan and inputs; errors as there."""
        self._require_types(key, parameters, None)
        require_type("commitment", commitment, Commitment)
        if type(opening) is not AuditOpening and not isinstance(opening, _RECEIVED):
            raise TypeError(
                "opening must be the bytes that the device sent, or an AuditOpening, got "
                f"{type(opening).__name__}: if none came, nothing is shown, so leave the run "
                "undecided"
            )
        self._require_key(key, parameters)

    def judge_opened(
        self, key: VerifierKey, inputs: tuple[Any, ...], plan: AuditPlan, received: OpenedTensors
    ) -> Report:
        """The report on tensors that were verified to be what was committed to.

        Args:
          key: of this program.
          inputs: the job's own, conformed.
          plan: from `audit_plan`.
          received: what the plan asks for.
        """
        program: Any = self
        outputs = received[len(self.claims) :]
        tested, compiled = self._layers.tested(plan.layers), self._compiled_audit
        entering = self._layers.entering(plan.seed, plan.row_count)
        parts = self._layers.parts(plan.layers, plan.rows, entering)
        draw = AuditDraw(layers=plan.layers, rows=plan.rows, entering=entering)
        arguments = compiled.arguments(draw, key.arrays, inputs, outputs, received)
        findings, own = compiled.measure(draw, arguments, received)

        @functools.cache
        def run() -> CheckArguments:  # whole tensors, which only some looks need
            values = tuple(received[: len(self.claims)])
            return CheckArguments(
                key=key.arrays, inputs=inputs, outputs=tuple(outputs), values=values
            )

        retests = functools.cache(functools.partial(compiled.retests, draw, arguments, received))
        look = restrict.PartialLook.of(
            program.compiled_check.second_look, tested, parts, retests=retests
        )
        report = judge(
            restrict.completed(findings, self.claims, tested, parts),
            *self.judged(inputs),
            coverage=self._covered(plan, work(self, tested, parts)),
            bound=self.bound,
            again=look.at(run),
            flips=look.limits,
            most=look.most,
            y=self.unflatten(own),
        )
        # Near-ties read few tensors: `opened_rows` makes each whole when it is asked for.
        lazily: Any = received
        some = CheckArguments(key=key.arrays, inputs=inputs, outputs=tuple(outputs), values=lazily)
        report = program.compiled_check.near_ties.noted(report, some, whole=False)
        return replace(
            report,
            results=restrict.looked_at(report.results, self.claims, tested),
            near_ties=restrict.ties_of(report.near_ties, self.claims, tested, parts),
            detection=self._detection(plan),
        )

    def _detection(self, plan: AuditPlan) -> Detection:
        rows = self.layer_rows if plan.rows else 1
        return Detection(
            layers=plan.population,
            audited=len(plan.layers),
            rows=rows,
            audited_rows=plan.row_count or rows,
            answer_rows=self._layers.most_answer_rows(plan.row_count) if plan.row_count else 0,
            block=(self.row_block or 1) if plan.rows else 1,
            apart=not self._layers.groups and all(s.cuts for s in self._layers.scans),
        )

    def _covered(self, plan: AuditPlan, checked: int) -> AuditCoverage:
        found = self.analysis
        return AuditCoverage(
            checked=checked,
            replayed=found.replayed,
            discontinuities=found.discontinuities,
            unseen=found.checked - checked,
            layers=plan.names,
            opened=plan.opened,
            of=self.layout.nbytes,
        )

    @cached_property
    def _compiled_audit(self) -> CompiledAudit:
        program: Any = self
        size = self.analysis.trace_bytes // len(self._layers.names)
        strategy = schedule.default(size, scans=self.analysis.scans)
        return CompiledAudit(
            layers=self._layers, key=program.compiled_setup.layout, strategy=strategy
        )


def require_block(rows: int | None) -> None:
    """Require a number of rows for `row_block`, or None.

    Raises:
      ValueError: it is no positive integer.
    """
    if rows is not None and (type(rows) is not int or rows < 1):
        raise ValueError(f"row_block must be a number of rows, at least 1, got {rows!r}")
