"""Accusations: evidence with the job that it is about, in one file for a judge.

    file   magic, the length of the head, the head, the evidence
    head   CBOR [loader, precision, [text, ...]]: what names the job
    judge  loads the model that the head names, compiles it for the texts, and decides (`judging`)

The head says where to look, and proves nothing: the judge compares program and parameters that the
evidence names with its own. Every length is compared with a limit before anything is parsed. A
guilty judgement is about the worker that signed the commitment for this job
(`protocols.messages.Commit`): the file itself binds the commitment to nobody, and to no job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from protocols import judging
from protocols.demo import models
from protocols.demo.devices import DemoJob
from protocols.demo.models import Encoder, in_precision
from protocols.demo.models.precision import PRECISIONS
from protocols.demo.scenes.scene import MOST_TEXTS, Counter, Progress, prepare
from protocols.judging import MOST_BYTES, Judged, JudgedJob
from verifiable import encoding
from verifiable.check.judging import evidence
from verifiable.check.judging.evidence import Evidence, evidence_of, verify_evidence
from verifiable.errors import MalformedEncoding, received_bytes
from verifiable.report import Report
from verifiable.submission import Submission

KIND: Final = b"verifiable accusation "
MAGIC: Final = (KIND + b"1").ljust(32, b"\0")
"""The first 32 bytes of a file: format and version."""

MOST_HEAD: Final = 2**18
"""The most bytes of a head."""

LOADERS: Final = ("minilm", "small_transformer")
"""Functions of `models` that a head may name; they are called without arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accusation:
    """Evidence, and what names the job that it is about. Nothing in a received one is trusted.

    Attributes:
      loader: the function of `models` that loads the model: one of `LOADERS`.
      precision: of the model: one of `precision.PRECISIONS`.
      texts: the input of the job.
      evidence: an encoded `Evidence`; a program is needed to decode it.

    Raises:
      MalformedEncoding: a field has a wrong type or size, or an unknown value.
    """

    loader: str
    precision: str
    texts: tuple[str, ...]
    evidence: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Check every field."""
        for name, known in (("loader", LOADERS), ("precision", PRECISIONS)):
            value: Any = getattr(self, name)
            if type(value) is not str or value not in known:
                raise MalformedEncoding(
                    f"the {name} of an accusation is one of {', '.join(known)}, got {value!r:.40}"
                )
        texts: Any = self.texts
        if type(texts) is not tuple or not 1 <= len(texts) <= MOST_TEXTS:
            raise MalformedEncoding(f"an accusation has 1 to {MOST_TEXTS} texts")
        if any(type(text) is not str for text in texts) or type(self.evidence) is not bytes:
            raise MalformedEncoding("an accusation has texts, and evidence as bytes")

    @classmethod
    def of(cls, job: DemoJob, evidence: Evidence) -> Self:
        """Evidence about a run of the demo's job, with what names that job."""
        model = job.model
        return cls(
            loader=model.loader,
            precision=model.precision,
            texts=job.texts,
            evidence=evidence.encode(),
        )

    def encode(self) -> bytes:
        """The bytes of the file.

        Raises:
          ValueError: the texts or the evidence are larger than a reader accepts.
        """
        head = encoding.encode([self.loader, self.precision, self.texts])
        data = b"".join([MAGIC, len(head).to_bytes(4, "big"), head, self.evidence])
        if len(head) > MOST_HEAD or len(data) > MOST_BYTES:
            raise ValueError(
                f"an accusation has at most {MOST_HEAD} bytes of head and {MOST_BYTES} in all, got "
                f"{len(head)} and {len(data)}"
            )
        return data

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read a file that an accuser sent.

        Raises:
          MalformedEncoding: not the encoding of an accusation, or one of another version.
        """
        data = received_bytes(data, most=MOST_BYTES)
        if len(data) > MOST_BYTES:
            raise MalformedEncoding(f"an accusation has at most {MOST_BYTES} bytes")
        magic, start = data[:32], len(MAGIC) + 4
        if magic != MAGIC:
            raise MalformedEncoding(
                f"the file has version {_version(magic)}, expected version 1"
                if magic.startswith(KIND) and len(magic) == len(MAGIC)
                else f"the file is not an accusation: it does not start with {MAGIC!r}"
            )
        size = int.from_bytes(data[32:start], "big")
        if len(data) < start or size > MOST_HEAD or size > len(data) - start:
            raise MalformedEncoding(
                f"the file is truncated, or its head larger than {MOST_HEAD} bytes: the head has "
                f"{size} bytes, of {max(0, len(data) - start)} that follow"
            )
        head = encoding.decode(data[start : start + size], max_size=MOST_HEAD)
        if type(head) is not list or len(head) != 3 or type(head[2]) is not list:
            raise MalformedEncoding("the head of an accusation is [loader, precision, [text, ...]]")
        loader, precision, texts = head
        evidence = data[start + size :]
        return cls(loader=loader, precision=precision, texts=tuple(texts), evidence=evidence)

    def load(self) -> Encoder:
        """The model that the head names.

        Raises:
          ImportError: its weights are not installed; the message says how to get them.
        """
        return in_precision(getattr(models, self.loader)(), self.precision)


def judge(accusation: Accusation, job: DemoJob) -> Judged:
    """Judge an accusation by the judge's own job, for the model and texts of the accusation.

    Raises:
      ValueError: the evidence is about another program or other parameters.
      VerificationError: it is malformed, or opens what was not committed to.
    """
    own = JudgedJob(
        name=job.model.name, program=job.program, params=job.model.params, inputs=job.inputs
    )
    return judging.judge(accusation.evidence, own)


def judge_file(
    path: Path, name: str | None, advance: Callable[[Progress], None]
) -> tuple[dict[str, Any], Judged]:
    """Judge a file: encoded evidence about a named job, or an accusation, which names its own.

    Args:
      path: of the file.
      name: `MODULE:FUNCTION` of the job; None for an accusation.
      advance: shows progress.

    Returns:
      What says which job it is, and what the judge found.

    Raises:
      OSError: the file cannot be read.
      ImportError: there is no such module, or the weights are not installed.
      ValueError: no job or two are named, there is no such function, or the evidence is about
        another program or other parameters.
      VerificationError: it is malformed, or opens what was not committed to.
    """
    data = judging.read(path)
    alone = data.startswith(evidence.MAGIC)
    if alone and name is None:
        raise ValueError(
            f"{path} holds evidence alone: say with --job MODULE:FUNCTION which job it is about"
        )
    if name is not None and not alone:
        raise ValueError(
            f"{path} holds no encoded evidence; if the demo wrote it, it names its own job: leave "
            "--job out"
        )
    counter = Counter(total=2 if alone else 3)
    if name is not None:
        advance(counter.start("load the job"))
        own = JudgedJob.load(name)
        advance(counter.start("judge"))
        return {"job": name}, judging.judge(data, own)
    accusation = Accusation.decode(data)
    advance(counter.start("load the model"))
    model = accusation.load()
    advance(counter.start("compile the program"))
    job = prepare(model, accusation.texts)
    advance(counter.start("judge"))
    return {"model": model.name, "texts": len(job.texts)}, judge(accusation, job)


def convicts(job: DemoJob, report: Report, submission: Submission) -> bool:
    """Whether a rejection can be shown to others.

    Args:
      job: the job.
      report: on the submission.
      submission: as it was checked.
    """
    try:
        evidence = evidence_of(job.program, report, submission)
    except ValueError:
        return False  # no claim or output is rejected: there is nothing to judge
    return verify_evidence(evidence, job.program, job.model.params, *job.inputs).guilty


def _version(magic: bytes) -> str:
    return ascii(magic[len(KIND) :].rstrip(b"\0").decode("latin-1"))
