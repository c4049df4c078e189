"""A model compiled for texts: which jobs it can have, and the program and inputs of each text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np

from verifiable.challenge import Challenge
from verifiable.errors import require_type
from verifiable.family import Family
from verifiable.generation.findings import TextReport
from verifiable.generation.job import GenerationJob, TextFault, fault_of, fresh_seed, token_ids
from verifiable.generation.sampler import Sampler
from verifiable.generation.transcript import Transcript, require_causal
from verifiable.key import VerifierKey
from verifiable.program import Program
from verifiable.report import Verdict


@dataclass(frozen=True, eq=False, kw_only=True)
class CompiledTexts:
    """A model compiled for several lengths of texts.

    Attributes:
      transcript: the program.
      family: it, compiled for several lengths.
      lengths: the most tokens of prompt and completion, for each member.
      stop: token ids that end a completion.
      self_test: whether `setup` tests the compiled check, and that the model is causal.
      cuts: whether it was compiled with cuts, for audits.
    """

    transcript: Transcript
    family: Family
    lengths: tuple[tuple[int, int], ...]
    stop: frozenset[int]
    self_test: bool
    cuts: bool

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
          seed: for the noise; fresh entropy if not given.

        Raises:
          TypeError: as `GenerationJob`.
          ValueError: as `GenerationJob`; the prompt has a token that is not of the vocabulary; the
            sampler is another program's; or prompt and limit fit no compiled length.
        """
        sampler = self.transcript.sampler if sampler is None else sampler
        require_type("sampler", sampler, Sampler)
        if isinstance(prompt, str):
            raise TypeError("prompt must be token ids, got str: tokenize it")
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
          ValueError: also if the model is not causal, or with cuts, if its logits depend on how
            many positions are asked for (`require_causal`), unless it was compiled without
            self-test.
        """
        if self.self_test:
            require_causal(self.transcript, params, min(map(sum, self.lengths)), some=self.cuts)
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
        return None if fault is None else refused_text(tokens, fault)

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
        return self._rows_of_inputs(job, tokens, range(len(tokens)))

    def _rows_of_inputs(
        self,
        job: GenerationJob,
        tokens: tuple[int, ...],
        places: Sequence[int],
        rows: int | None = None,
    ) -> tuple[Any, ...]:
        """Inputs with noise for some positions, in so many rows; by default one for each token."""
        shape = self._shape(len(job.prompt), len(tokens))
        padded = [np.zeros(n, np.int32) for n in shape]
        for array, given in zip(padded, (job.prompt, tokens), strict=True):
            array[: len(given)] = given
        rows = shape[1] if rows is None else rows
        sampling = job.sampler.inputs(job.seed, rows, self.transcript.vocabulary, places=places)
        lengths = np.asarray([len(job.prompt), len(tokens)], np.int32)
        return (*padded, lengths, sampling)


def refused_text(tokens: tuple[int, ...], fault: TextFault) -> TextReport:
    """The verdict on what is no answer to a job."""
    return TextReport(
        verdict=Verdict.REJECT, reason=fault.reason, message=fault.message, tokens=tokens
    )
