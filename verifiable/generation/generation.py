"""Generated text, verified: one key for all lengths, and a verdict on every token.

    made = compile_generation(transcript(logits, sampler, vocabulary=v), params,
                              lengths=[(32, 64), (128, 256)], stop=[2])      # both sides, once
    key = made.setup(params, challenge.secret())                             # coordinator
    job = made.job(prompt, limit=64)                                         # coordinator
    completion = ...                                         # the device decodes as it likes, then
    submission = made.prove(params, job, completion)         # runs one pass over its own text
    report = made.verify(key, job, completion, submission, commitment=received)
    report.require().tokens                                  # raises unless accepted

What the padding of the chosen shape holds is set by each side itself, and so is the noise: of a
device only the completion and the submission are read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np

from verifiable import policy as policies
from verifiable.challenge import Challenge
from verifiable.errors import require_type
from verifiable.family import Family, compile_family
from verifiable.generation.findings import TextReport, TokenState
from verifiable.generation.job import GenerationJob, TextFault, fault_of, fresh_seed, token_ids
from verifiable.generation.sampler import Sampler
from verifiable.generation.ties import mistaken, picks_tokens, token_heads, token_ties
from verifiable.generation.transcript import Transcript, require_causal, shapes
from verifiable.key import VerifierKey
from verifiable.policy import Policy
from verifiable.program import Program
from verifiable.report import Report, Verdict
from verifiable.submission import Submission
from verifiable.trace import Commitment


@dataclass(frozen=True, eq=False, kw_only=True)
class Generation:
    """A model whose texts are verified. Made by `compile_generation`.

    Attributes:
      transcript: the program.
      family: it, compiled for several lengths.
      lengths: of each member, the most tokens of prompt and completion.
      stop: token ids that end a completion.
      self_test: whether `setup` tests the compiled check, and that the model is causal.
    """

    transcript: Transcript
    family: Family
    lengths: tuple[tuple[int, int], ...]
    stop: frozenset[int]
    self_test: bool

    def job(
        self,
        prompt: Sequence[int],
        *,
        limit: int,
        sampler: Sampler | None = None,
        seed: bytes | None = None,
    ) -> GenerationJob:
        """A text to ask for.

        Args:
          prompt: token ids.
          limit: the most tokens of the completion.
          sampler: with other numbers than at compile time, if wanted.
          seed: of the noise; fresh entropy if not given.

        Raises:
          TypeError: as `GenerationJob`.
          ValueError: as `GenerationJob`; the prompt has a token that is not of the vocabulary; the
            sampler is another program's; or prompt and limit fit no compiled length.
        """
        sampler = self.transcript.sampler if sampler is None else sampler
        require_type("sampler", sampler, Sampler)
        if seed is None:
            seed = fresh_seed(sampler)
        made = GenerationJob(
            prompt=tuple(index(t) for t in prompt), limit=limit, sampler=sampler, seed=seed
        )
        self._require(made)
        return made

    def setup(self, params: Any, challenge: Challenge) -> VerifierKey:
        """Make the key for all lengths; arguments and errors as of `Program.setup`.

        Raises:
          ValueError: also if the model is not causal (`require_causal`), unless it was compiled
            without self-test.
        """
        if self.self_test:
            require_causal(self.transcript, params, *min(self.lengths, key=sum))
        return self.family.setup(params, challenge)

    def inputs(self, job: GenerationJob, completion: Sequence[int]) -> tuple[Any, ...]:
        """The program's inputs for a completion: tokens padded to the least shape that fits, noise.

        Raises:
          ValueError: the completion is none of this job.
        """
        return self._inputs(job, self._tokens(job, completion))

    def room(self, job: GenerationJob, prefix: Sequence[int] = ()) -> tuple[Any, ...]:
        """The program's inputs for decoding: the least shape that holds the job's limit.

        Args:
          job: to be generated.
          prefix: the first tokens of the completion, if they are known.

        Raises:
          ValueError: the job is not of this model, or the prefix is longer than its limit.
        """
        self._require(job)
        if len(prefix) > job.limit:
            raise ValueError(f"the job's limit is {job.limit}, the prefix has {len(prefix)} tokens")
        return self._inputs(job, (*prefix, *(0,) * (job.limit - len(prefix))))

    def program(self, job: GenerationJob, completion: Sequence[int]) -> Program:
        """The member of the family for a completion; errors as of `inputs`."""
        return self.family.program(*self.inputs(job, completion))

    def refusal(self, job: GenerationJob, completion: Any) -> TextReport | None:
        """The verdict on what is no answer to a job, whatever the model is; None if it may be one.

        For a receiver of bytes: where this is None, `program(job, completion).layout` says how many
        a submission has.

        Args:
          job: the coordinator's own.
          completion: the tokens that a device sent; any object.

        Raises:
          TypeError: `job` is no GenerationJob.
          ValueError: the job is not of this model.
        """
        tokens, fault = self._read(job, completion)
        return None if fault is None else _refused(tokens, fault)

    def prove(
        self, params: Any, job: GenerationJob, completion: Sequence[int], *, differences: int = 0
    ) -> Submission:
        """Run the model over a text that a device generated, and commit to the run.

        Args:
          params: of the model.
          job: that was asked for.
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
            return _refused(tokens, fault)
        inputs = self._inputs(job, tokens)
        report = self.family.verify(
            key, *inputs, submission, commitment=commitment, parameters=parameters
        )
        return self._judged(self.family.program(*inputs), report, job, tokens)

    def _judged(
        self, program: Program, report: Report, job: GenerationJob, tokens: tuple[int, ...]
    ) -> TextReport:
        if report.verdict is not Verdict.ACCEPT:
            states = [TokenState.UNDECIDED] * len(tokens)
            for i in mistaken(report, len(tokens)):
                states[i] = TokenState.WRONG
            where = f"{report.claim}: " if report.claim else ""
            return TextReport(
                verdict=report.verdict,
                reason=report.reason,
                message=f"{where}{report.message or report.reason}",
                tokens=tokens,
                states=tuple(states),
                report=report,
            )
        # What the verifier replayed, which the committed choices lead to.
        own = np.asarray(report.y)[: len(tokens)].tolist()
        states = [TokenState.RIGHT] * len(tokens)
        for i in differing(own, tokens):
            states[i] = TokenState.WRONG
        edges: set[int] = set()
        heads = token_heads(program, len(job.prompt))
        slack = sum(r.ties for r in report.results if picks_tokens(r.name))
        for i, tie, whole in token_ties(heads, report, len(tokens)):
            if not whole or own[i] in (tie.chosen, tie.other):
                # A run may put either token first if that takes one sigma: it passes for certain.
                either = tokens[i] in (tie.chosen, tie.other) and tie.kappa <= 1 and whole
                if own[i] == tokens[i] or either:
                    states[i] = TokenState.NEAR_TIE
            else:
                edges.add(i)
        wrong = [i for i, state in enumerate(states) if state is TokenState.WRONG]
        message = ""
        if wrong:
            i = wrong[0]
            message = f"token {i} is {tokens[i]}, the model picks {own[i]}"
        return TextReport(
            verdict=Verdict.REJECT if wrong else Verdict.ACCEPT,
            reason="token-mismatch" if wrong else "ok",
            message=message,
            tokens=tokens,
            states=tuple(states),
            near_candidates=sum(states[i] is TokenState.RIGHT for i in edges),
            listed=any(head.tokens for head in heads.values()),
            decision_ties=slack,
            report=report,
        )

    def _require(self, job: GenerationJob) -> None:
        require_type("job", job, GenerationJob)
        vocabulary, sampler = self.transcript.vocabulary, self.transcript.sampler
        if max(job.prompt) >= vocabulary:
            raise ValueError(
                f"the prompt has token {max(job.prompt)}, the vocabulary has {vocabulary} tokens"
            )
        if job.sampler.structure != sampler.structure:
            raise ValueError(
                f"the model was compiled for {sampler}, the job asks for {job.sampler}: compile "
                "it for what is given there, and for its top_k"
            )
        self._shape(len(job.prompt), job.limit)

    def _shape(self, prompt: int, completion: int) -> tuple[int, int]:
        """The least compiled shape that holds a text."""
        found = [x for x in self.lengths if x[0] >= prompt and x[1] >= completion]
        if not found:
            raise ValueError(
                f"the model was compiled for lengths {list(self.lengths)}: none holds a prompt of "
                f"{prompt} tokens with {completion} more; compile it for one that does"
            )
        return min(found, key=lambda x: (x[0] + x[1], x))

    def _read(
        self, job: GenerationJob, completion: Any
    ) -> tuple[tuple[int, ...], TextFault | None]:
        """The completion of a job, which must be of this model, and what is wrong with it."""
        self._require(job)
        found = token_ids(completion, job.limit)
        if isinstance(found, TextFault):
            return (), found
        return found, fault_of(found, job, self.stop, self.transcript.vocabulary)

    def _tokens(self, job: GenerationJob, completion: Any) -> tuple[int, ...]:
        """The completion that a caller gave."""
        tokens, fault = self._read(job, completion)
        if fault is not None:
            raise ValueError(f"{fault.reason}: {fault.message}")
        return tokens

    def _inputs(self, job: GenerationJob, tokens: tuple[int, ...]) -> tuple[Any, ...]:
        shape = self._shape(len(job.prompt), len(tokens))
        padded = [np.zeros(n, np.int32) for n in shape]
        for array, given in zip(padded, (job.prompt, tokens), strict=True):
            array[: len(given)] = given
        sampling = job.sampler.inputs(
            job.seed, shape[1], self.transcript.vocabulary, used=len(tokens)
        )
        lengths = np.asarray([len(job.prompt), len(tokens)], np.int32)
        return (*padded, lengths, sampling)


def compile_generation(
    transcript: Transcript,
    params: Any,
    *,
    lengths: Sequence[tuple[int, int]],
    stop: Collection[int] = (),
    policy: Policy = policies.DEFAULT,
    self_test: bool = True,
    cuts: bool = False,
) -> Generation:
    """Compile a model for texts of several lengths, with one key for all.

    Args:
      transcript: from `transcript`.
      params: pytree of arrays or `ShapeDtypeStruct`s.
      lengths: the most tokens of prompt and completion, for each shape to be compiled.
      stop: token ids that end a completion.
      policy: as of `compile`.
      self_test: as of `compile`.
      cuts: as of `compile`.

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
    )
    return Generation(
        transcript=transcript, family=family, lengths=pairs, stop=ends, self_test=self_test
    )


def _refused(tokens: tuple[int, ...], fault: TextFault) -> TextReport:
    return TextReport(
        verdict=Verdict.REJECT, reason=fault.reason, message=fault.message, tokens=tokens
    )


def differing(own: Any, tokens: Sequence[int]) -> list[int]:
    """Positions at which a program's answer is not the completion."""
    return np.flatnonzero(np.asarray(own)[: len(tokens)] != np.asarray(tokens)).tolist()
