"""Audits of a text: some layers of its run, and the tokens of some positions.

    plan = model.audit_plan(seed, job, completion, layers=1, rows=8, positions=8)       both sides
    opening = model.open(submission, plan)                                              device
    report = model.audit(key, job, completion, plan=plan, commitment=received, opening=opening)

The device commits to the whole run, as for a whole check. Then a seed that nobody knew draws layers
and rows (`Program.audit_plan`), and m of the completion's l positions. A token is tested where it
is drawn, from the last layer on: a wrong one is met with m / l, whatever the run claims of it. Of
what the layers are tested in, specs/audit.md says how often that meets a cheat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Int32

from verifiable.check.judging.receive import Problem
from verifiable.check.judging.verdict import refuse
from verifiable.check.partial.opened_rows import opened
from verifiable.check.settings import on_host
from verifiable.encoding import encode, tagged_hash
from verifiable.errors import require_type
from verifiable.generation.findings import TextReport, TokenState
from verifiable.generation.job import GenerationJob
from verifiable.generation.judging import differing, text_report
from verifiable.generation.some_positions import SomePositions
from verifiable.generation.texts import CompiledTexts, refused_text
from verifiable.generation.transcript import PAD, shapes
from verifiable.key import VerifierKey
from verifiable.program import compile
from verifiable.report import Report, Verdict
from verifiable.submission import Submission
from verifiable.trace import AuditOpening, AuditPlan, Commitment
from verifiable.trace.audit_plan import drawn

_PLANS = 64  # that are kept
_PARTS = 32  # programs that are kept: a hostile file may name any number of positions


@dataclass(frozen=True, kw_only=True)
class TextAuditPlan:
    """What an audit of a text looks at. Made by `Generation.audit_plan`.

    Attributes:
      positions: of the completion, whose tokens are tested, ascending; in a text with fewer than
        were asked for, some behind it.
      opening: the leaves to open, of the whole run.
      part: layers, rows and leaves, of the program of these positions.
    """

    positions: tuple[int, ...]
    opening: AuditPlan = field(repr=False)
    part: AuditPlan = field(repr=False)

    @property
    def id(self) -> bytes:
        """32 bytes that bind program, seed, layers, rows, positions and leaves."""
        return self.opening.id

    @property
    def nbytes(self) -> int:
        """Bytes of the encoded opening."""
        return self.opening.nbytes


@dataclass(frozen=True, eq=False, kw_only=True)
class AuditedTexts(CompiledTexts):
    """A model whose texts are audited in part.

    Attributes:
      params: shapes and dtypes of its parameters.
    """

    params: Any = field(repr=False)
    _parts: dict[tuple[bytes, int], SomePositions] = field(default_factory=dict, repr=False)
    _plans: dict[tuple[Any, ...], TextAuditPlan] = field(default_factory=dict, repr=False)

    def audit_plan(
        self,
        seed: bytes,
        job: GenerationJob,
        completion: Sequence[int],
        *,
        layers: int,
        rows: int | None = None,
        positions: int,
    ) -> TextAuditPlan:
        """Which layers, rows and positions an audit looks at, and what has to be opened for it.

        Args:
          seed: 32 bytes that nobody knew when the run was committed to.
          job: the job that the completion answers.
          completion: token ids.
          layers: how many layers are audited.
          rows: as of `Program.audit_plan`; all by default.
          positions: how many tokens are tested; all, if there are no more.

        Raises:
          TypeError: `job` is no GenerationJob.
          ValueError: as of `Program.audit_plan`; the completion is none of this job; no positions,
            or more than its compiled length has; or the model cannot be audited in some.
        """
        return self._planned(seed, job, self._tokens(job, completion), layers, rows, positions)

    def _planned(
        self,
        seed: bytes,
        job: GenerationJob,
        tokens: tuple[int, ...],
        layers: int,
        rows: int | None,
        positions: int,
    ) -> TextAuditPlan:
        """`audit_plan` of tokens that were read already."""
        part = self._part(len(job.prompt), len(tokens), positions)
        wanted = part.whole.id, seed, len(tokens), layers, rows, positions
        if wanted not in self._plans:
            for old in list(self._plans)[: 1 - _PLANS]:
                self._plans.pop(old, None)
            self._plans[wanted] = _plan(part, seed, len(tokens), layers, rows, positions)
        return self._plans[wanted]

    def open(self, submission: Submission, plan: TextAuditPlan) -> AuditOpening:
        """Open what an audit looks at of a run that was committed to; for a device.

        Args:
          submission: the device's own.
          plan: from `audit_plan`.

        Raises:
          TypeError: `plan` is no TextAuditPlan.
          ValueError: the plan or the submission is of another program.
        """
        require_type("plan", plan, TextAuditPlan)
        program = next((m for m in self.family.members if m.id == submission.program), None)
        if program is None:
            raise ValueError("the submission is of no program of this model")
        return program.commit(submission.y, submission.trace).open(plan.opening)

    @on_host
    def audit(
        self,
        key: VerifierKey,
        job: GenerationJob,
        completion: Any,
        *,
        plan: TextAuditPlan,
        commitment: Commitment,
        opening: AuditOpening | bytes | bytearray | memoryview,
        parameters: bytes | None = None,
    ) -> TextReport:
        """Decide whether the opened part of a text's run is what the model generates.

        Args:
          key: from `setup`.
          job: the coordinator's own.
          completion: the tokens that a device sent; any object.
          plan: the verifier's own, from `audit_plan`.
          commitment: the device's, received with the completion, before the seed was known.
          opening: as of `Program.audit`.
          parameters: likewise.

        Raises:
          TypeError: as of `Program.audit`, or `job` is no GenerationJob.
          ValueError: as of `Program.audit`, or the job is not of this model.
        """
        tokens, fault = self._read(job, completion)
        if fault is not None:
            return refused_text(tokens, fault)
        require_type("plan", plan, TextAuditPlan)
        found = plan.part
        rows, count = found.row_count, len(plan.positions)
        own = self._planned(found.seed, job, tokens, len(found.layers), rows, count)
        if (own.id, own.part.id) != (plan.id, found.id):
            raise ValueError("the plan is not of this text: make it by audit_plan")
        part = self._part(len(job.prompt), len(tokens), count)
        held = _renamed(self.family.member_key(key, part.whole), part)
        part.program.require_audit(held, commitment, opening, parameters)
        received = opened(part.whole.layout, own.opening, commitment, opening)
        if isinstance(received, Problem):
            return _judged(part, refuse(received), job, tokens, own)
        used = [p for p in own.positions if p < len(tokens)]
        places = np.asarray(own.positions, np.int32)
        inputs = (*self._rows_of_inputs(job, tokens, used, count), places)
        report = part.program.judge_opened(
            held, part.program.conform_inputs(inputs), own.part, part.received(received, places)
        )
        answer = received[part.whole.layout.claim_count]
        return _beside(_judged(part, report, job, tokens, own), np.asarray(answer))

    def _part(self, prompt: int, length: int, positions: int) -> SomePositions:
        """The program of some positions of a text."""
        shape = self._shape(prompt, length)
        if type(positions) is not int or not 1 <= positions <= shape[1]:
            raise ValueError(
                f"the text's program has {shape[1]} positions, so 1 .. {shape[1]} can be audited, "
                f"not {positions}"
            )
        whole = self.family.members[self.lengths.index(shape)]
        if (whole.id, positions) not in self._parts:
            sampler, vocabulary = self.transcript.sampler, self.transcript.vocabulary
            program = compile(
                self.transcript.picked,
                self.params,
                *shapes(sampler, vocabulary, *shape, positions),
                policy=replace(whole.policy, calibration=None),
                self_test=False,
                cuts=self.cuts,
                row_block=whole.row_block,
            )
            measured = whole.policy.calibration
            if measured is not None:  # of the same claims, in more rows
                measured = replace(measured, programs=(*measured.programs, program.id))
                program = program.with_policy(replace(whole.policy, calibration=measured))
            part = SomePositions.of(whole, program)
            for old in list(self._parts)[: 1 - _PARTS or None]:
                self._parts.pop(old, None)
            self._parts[whole.id, positions] = part
        return self._parts[whole.id, positions]


def _plan(
    part: SomePositions, seed: bytes, length: int, layers: int, rows: int | None, positions: int
) -> TextAuditPlan:
    some = part.program.audit_plan(seed, layers=layers, rows=rows)
    some_of = tagged_hash("positions of an audit", seed)
    chosen = drawn(some_of, length, min(positions, length))
    # A text with fewer has others behind it, which the program answers with nothing.
    places = (*chosen, *range(length, length + positions - len(chosen)))
    name = tagged_hash("program of positions", part.whole.id, part.program.id, encode(list(places)))
    opening = AuditPlan(
        program=name,
        seed=seed,
        population=some.population,
        layers=some.layers,
        names=some.names,
        rows=some.rows,
        row_count=some.row_count,
        leaves=part.leaves(some.leaves, np.asarray(places, np.int64)),
        layout=part.whole.layout,
    )
    return TextAuditPlan(positions=places, opening=opening, part=some)


def _renamed(key: VerifierKey, part: SomePositions) -> VerifierKey:
    """The key of the whole program as one of the part, which needs none but its arrays."""
    names = part.program.compiled_setup.layout.names
    header = replace(key.header, program=part.program.id, policy=part.program.policy.id)
    return VerifierKey(header, {name: key.arrays[name] for name in names})


def _judged(
    part: SomePositions,
    report: Report,
    job: GenerationJob,
    tokens: tuple[int, ...],
    plan: TextAuditPlan,
) -> TextReport:
    before, places = len(job.prompt), plan.positions
    return text_report(part.program, report, prompt=before, tokens=tokens, places=places)


def _beside(judged: TextReport, answer: Int32[np.ndarray, " room"]) -> TextReport:
    """The verdict, where the committed answer says otherwise at positions that are not tested.

    A decoder may have picked the other token of a near-tie there, so this alone rejects no text.
    """
    tokens, states = judged.tokens, list(judged.states)
    if judged.verdict is Verdict.REJECT:
        return judged
    if np.any(answer[len(tokens) :] != PAD):
        message = "the run's answer has tokens behind the text"
        return replace(judged, verdict=Verdict.REJECT, reason="token-mismatch", message=message)
    others = [i for i in differing(answer, tokens) if states[i] is TokenState.UNSEEN]
    if judged.verdict is Verdict.INDETERMINATE or not others:
        return judged
    for i in others:
        states[i] = TokenState.UNDECIDED
    i = others[0]
    return replace(
        judged,
        verdict=Verdict.INDETERMINATE,
        reason="token-unseen",
        message=f"token {i} is {tokens[i]}, the run picks {answer[i]}: check the whole run",
        states=tuple(states),
    )
