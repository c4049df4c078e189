"""Generated text, verified: one key for all lengths, and a verdict on every token.

    model = compile_generation(transcript(logits, sampler, vocabulary=v), params,
                              lengths=[(32, 64), (128, 256)], stop=[2])      # both sides, once
    key = model.setup(params, challenge.secret())                             # coordinator
    job = model.job(prompt, limit=64)                                         # coordinator
    completion = ...                                         # the device decodes as it likes, then
    submission = model.prove(params, job, completion)         # runs one pass over its own text
    report = model.verify(key, job, completion, submission, commitment=received)
    report.require().tokens                                  # raises unless accepted

What the padding of the chosen shape holds is set by each side itself, and so is the noise: of a
device only the completion and the submission are read. `audited` tests a part of a run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any

from verifiable import policy as policies
from verifiable.check.trees import abstract
from verifiable.errors import require_type
from verifiable.family import compile_family
from verifiable.generation.audited import AuditedTexts
from verifiable.generation.findings import TextReport
from verifiable.generation.job import GenerationJob
from verifiable.generation.judging import differing, text_report
from verifiable.generation.texts import refused_text
from verifiable.generation.transcript import Transcript, shapes
from verifiable.key import VerifierKey
from verifiable.policy import Policy
from verifiable.submission import Submission
from verifiable.trace import Commitment


@dataclass(frozen=True, eq=False, kw_only=True)
class Generation(AuditedTexts):
    """A model whose texts are verified. Made by `compile_generation`."""

    def with_policy(self, policy: Policy) -> Generation:
        """The same model under another policy, such as a calibrated one that names all lengths.

        A key is made for one policy: make it afterwards.

        Raises:
          TypeError: as `Program.with_policy`.
          ValueError: as `Family.with_policy`.
        """
        return replace(self, family=self.family.with_policy(policy), _parts={}, _plans={})

    def prove(
        self, params: Any, job: GenerationJob, completion: Sequence[int], *, differences: int = 0
    ) -> Submission:
        """Run the model over a text that a device generated, and commit to the run.

        Args:
          params: the model's parameters.
          job: the job that was asked for.
          completion: the tokens that the device generated.
          differences: how many tokens may differ from those of the pass, which rounds differently
            than a decoder. A verifier accepts such a token only if it is a near-tie, and rejects
            the text otherwise.

        Raises:
          ValueError: the completion is none of this job, or the model picks other tokens.
        """
        tokens = self._tokens(job, completion)
        submission = self.family.prove(params, *self._inputs(job, tokens))
        others = differing(submission.y, tokens)
        if len(others) > differences:
            i = others[0]
            raise ValueError(
                f"the model picks other tokens than the completion has at {len(others)} positions, "
                f"first {submission.y[i]} instead of {tokens[i]} at {i}: the decoder computes "
                "something else than the model, or draws with another sampler or seed. Generate "
                "again from there: decode(..., prefix=...)"
            )
        return submission

    def verify(
        self,
        key: VerifierKey,
        job: GenerationJob,
        completion: Any,
        submission: Submission,
        *,
        commitment: Commitment,
        parameters: bytes | None = None,
    ) -> TextReport:
        """Decide whether a completion is what the model generates for a job.

        Args:
          key: from `setup`.
          job: the coordinator's own.
          completion: the tokens that a device sent; any object.
          submission: the run that it handed in.
          commitment: as of `Program.verify`.
          parameters: likewise.

        Raises:
          TypeError: as `Program.verify`, or `job` is no GenerationJob.
          ValueError: as `Program.verify`, or the job is not of this model.
        """
        tokens, fault = self._read(job, completion)
        if fault is not None:
            return refused_text(tokens, fault)
        inputs = self._inputs(job, tokens)
        report = self.family.verify(
            key, *inputs, submission, commitment=commitment, parameters=parameters
        )
        program, before = self.family.program(*inputs), len(job.prompt)
        return text_report(program, report, prompt=before, tokens=tokens, places=range(len(tokens)))


def compile_generation(
    transcript: Transcript,
    params: Any,
    *,
    lengths: Sequence[tuple[int, int]],
    stop: Collection[int] = (),
    policy: Policy = policies.DEFAULT,
    self_test: bool = True,
    cuts: bool = False,
    row_block: int | None = None,
) -> Generation:
    """Compile a model for texts of several lengths, with one key for all.

    Args:
      transcript: from `transcript`.
      params: pytree of arrays or `ShapeDtypeStruct`s.
      lengths: the most tokens of prompt and completion, for each shape to be compiled.
      stop: token ids that end a completion.
      policy: as of `compile`.
      self_test: as of `compile`.
      cuts: as of `compile`; audits open far less with cuts.
      row_block: as of `compile`; audits of some rows and positions open less with it.

    Raises:
      TypeError: as `compile`, or `transcript` is no Transcript.
      ValueError: as `compile_family`; a length is below one, or a stop token is not of the
        vocabulary.
    """
    require_type("transcript", transcript, Transcript)
    ends = frozenset(index(t) for t in stop)
    if any(not 0 <= t < transcript.vocabulary for t in ends):
        raise ValueError(
            f"stop tokens must be of the vocabulary of {transcript.vocabulary}, got {sorted(ends)}"
        )
    pairs = tuple((index(a), index(b)) for a, b in lengths)
    if any(min(pair) < 1 for pair in pairs):
        raise ValueError(f"prompt and completion have at least one token, got lengths {pairs}")
    family = compile_family(
        transcript,
        params,
        *(shapes(transcript.sampler, transcript.vocabulary, *pair) for pair in pairs),
        policy=policy,
        self_test=self_test,
        cuts=cuts,
        row_block=row_block,
    )
    return Generation(
        transcript=transcript,
        family=family,
        lengths=pairs,
        stop=ends,
        self_test=self_test,
        params=abstract("params", params),
        cuts=cuts,
    )
