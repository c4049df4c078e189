"""An answer as bytes: a receipt that binds it, and a file that anyone with the model can judge.

    saved = save(card, job, text, submission)           device, with the receipt of the turn before
    saved.receipt.encode()                              sent first: less than 250 bytes
    saved.encode()                                      job, text, receipt and run

    saved = SavedText.decode(data)                      verifier
    report = judge_saved(model, key, card, saved)        with a key made after it had the file

In a conversation each receipt names the one before, and each prompt begins with the prompt and the
answer of the turn before. So a turn's run is over its own answer alone, and the last receipt binds
all of them.

A file is

    MAGIC || number of bytes of the head, as four big-endian bytes || head || run

with the head in canonical CBOR (`encoding`), and `Submission.encode` as the run, whose length the
program fixes. Who judges a file takes its job at its word: which prompt, limit and sampler were
asked for, and that the seed was drawn once. A coordinator passes the job that it gave.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

from verifiable.encoding import decode, encode, tagged_hash
from verifiable.errors import MalformedEncoding, received_bytes, require_bytes32, require_type
from verifiable.generation.card import ModelCard
from verifiable.generation.findings import TEXT_REASONS, TextReport
from verifiable.generation.generation import Generation
from verifiable.generation.job import GenerationJob
from verifiable.generation.plain import job_fields, job_of, token_bytes, tokens_of
from verifiable.key import VerifierKey
from verifiable.report import Verdict
from verifiable.submission import Submission
from verifiable.trace import Commitment

MAX_RECEIPT: Final = 256
"""The most bytes of a receipt."""

MAX_HEAD: Final = 1 << 24
"""The most bytes of a file's head."""

NOTHING: Final = bytes(32)
"""What the receipt of a first turn names as the one before it."""

MAGIC: Final = b"verifiable text 1".ljust(32, b"\0")
"""The first 32 bytes of a file: format and version."""

_KIND: Final = "verifiable text receipt 1"
PARTS: Final = ("card", "job", "text", "receipt")
"""The parts of a file's head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReceipt:
    """One answer, bound before anybody knows what will be audited.

    Attributes:
      card: id of the `ModelCard`.
      job: `ModelCard.job_digest`.
      text: `text_digest` of the completion.
      previous: `id` of the receipt of the turn before; `NOTHING` for a first turn.
      commitment: to the run over the text.

    Raises:
      MalformedEncoding: a digest that has not 32 bytes, or a commitment of another type.
    """

    card: bytes
    job: bytes
    text: bytes
    previous: bytes
    commitment: Commitment

    def __post_init__(self) -> None:
        """Require digests and a commitment."""
        for name in ("card", "job", "text", "previous"):
            require_bytes32(name, getattr(self, name), MalformedEncoding)
        if type(self.commitment) is not Commitment:
            raise MalformedEncoding("commitment must be a Commitment")

    @property
    def id(self) -> bytes:
        """32 bytes that name the receipt, and with it the whole conversation up to here."""
        return tagged_hash("text receipt", self.encode())

    def encode(self) -> bytes:
        """The canonical bytes of the receipt."""
        digests = (self.card, self.job, self.text, self.previous)
        return encode([_KIND, *digests, self.commitment.encode()])

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read a receipt.

        Args:
          data: bytes from a device.

        Raises:
          MalformedEncoding: they are not the one encoding of a receipt.
          TypeError: `data` is of another type.
        """
        value = decode(data, max_size=MAX_RECEIPT, max_items=8)
        match value:
            case [str(kind), card, job, text, previous, bytes(commitment)] if kind == _KIND:
                return cls(
                    card=card,
                    job=job,
                    text=text,
                    previous=previous,
                    commitment=Commitment.decode(commitment),
                )
            case _:
                raise MalformedEncoding("expected a receipt of a text")


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedText:
    """An answer with everything that a verdict on it needs but the model.

    Attributes:
      card: names the model that is said to have written it.
      job: the job that it answers.
      text: token ids of the completion.
      receipt: what binds them.
      run: `Submission.encode` of the run over the text.
    """

    card: ModelCard
    job: GenerationJob
    text: tuple[int, ...]
    receipt: TextReceipt
    run: bytes = field(repr=False)

    def encode(self) -> bytes:
        """The bytes of the file."""
        return framed(MAGIC, bound_parts(self), self.run)

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read a file. What its run must be, `judge_saved` says.

        Args:
          data: bytes that anybody sent.

        Raises:
          MalformedEncoding: they are not the one encoding of a saved text.
          TypeError: `data` is of another type.
        """
        head, run = unframed(data, MAGIC, PARTS)
        return cls(**bound_of(head), run=run)


class BoundText(Protocol):
    """An answer that a receipt binds."""

    @property
    def card(self) -> ModelCard:
        """The model that is said to have written it."""
        ...

    @property
    def job(self) -> GenerationJob:
        """The job that it answers."""
        ...

    @property
    def text(self) -> tuple[int, ...]:
        """Token ids of the completion."""
        ...

    @property
    def receipt(self) -> TextReceipt:
        """What binds the three."""
        ...


def framed(magic: bytes, head: Mapping[str, Any], rest: bytes) -> bytes:
    """The bytes of a file: a header, the head as canonical CBOR, and what follows it.

    Raises:
      ValueError: the head is too long.
    """
    data = encode(dict(head))
    if len(data) > MAX_HEAD:
        raise ValueError(f"the head of a file has at most {MAX_HEAD} bytes, not {len(data)}")
    return b"".join((magic, len(data).to_bytes(4, "big"), data, rest))


def unframed(
    data: bytes | bytearray | memoryview, magic: bytes, parts: Collection[str]
) -> tuple[dict[str, Any], bytes]:
    """The inverse of `framed`: the head, which has just these parts, and what follows it.

    Raises:
      MalformedEncoding: the bytes are no such file.
      TypeError: `data` is of another type.
    """
    data = received_bytes(data)
    if data[: len(magic)] != magic:
        raise MalformedEncoding(f"the file does not start with the header {magic!r}")
    start = len(magic) + 4
    size = int.from_bytes(data[len(magic) : start], "big")
    if size > MAX_HEAD:
        raise MalformedEncoding(f"the head of a file has at most {MAX_HEAD} bytes, not {size}")
    if len(data) < start + size:
        raise MalformedEncoding("the file ends within its head")
    head = decode(data[start : start + size], max_size=MAX_HEAD, max_items=64)
    if type(head) is not dict or sorted(head) != sorted(parts):
        raise MalformedEncoding(f"the head must have {', '.join(parts)}, and nothing else")
    return head, data[start + size :]


def bound_parts(saved: BoundText) -> dict[str, Any]:
    """What a receipt binds, and the receipt, as parts of a head."""
    return {
        "card": saved.card.encode(),
        "job": job_fields(saved.job),
        "text": token_bytes(saved.text),
        "receipt": saved.receipt.encode(),
    }


def bound_of(head: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `bound_parts`.

    Raises:
      MalformedEncoding: a part is none.
    """
    for name in ("card", "receipt"):
        if type(head[name]) is not bytes:
            raise MalformedEncoding(f"{name} must be bytes")
    return {
        "card": ModelCard.decode(head["card"]),
        "job": job_of(head["job"]),
        "text": tokens_of(head["text"]),
        "receipt": TextReceipt.decode(head["receipt"]),
    }


def save(
    card: ModelCard,
    job: GenerationJob,
    text: Sequence[int],
    submission: Submission,
    *,
    previous: TextReceipt | None = None,
) -> SavedText:
    """An answer, bound by a receipt.

    Args:
      card: names the model.
      job: the job that was asked for.
      text: token ids of the completion.
      submission: the run over it.
      previous: receipt of the turn before, in a conversation.
    """
    receipt = TextReceipt(
        card=card.id,
        job=card.job_digest(job),
        text=text_digest(text),
        previous=NOTHING if previous is None else previous.id,
        commitment=submission.commitment,
    )
    tokens = tuple(int(t) for t in text)
    return SavedText(card=card, job=job, text=tokens, receipt=receipt, run=submission.encode())


def judge_saved(
    model: Generation,
    key: VerifierKey,
    card: ModelCard,
    saved: SavedText,
    *,
    job: GenerationJob | None = None,
    previous: BoundText | None = None,
) -> TextReport:
    """Decide whether a saved text is what the model writes.

    Args:
      model: compiled by the verifier.
      key: from `model.setup`, with a secret that was drawn after the receipt was received.
      card: names the model that must have written it.
      saved: from `SavedText.decode`.
      job: the coordinator's own; without it, the file's is taken at its word.
      previous: the turn before, judged already; without it, what was said before is the prompt's,
        and which receipt the answer names as the one before is not checked.

    Raises:
      TypeError: an argument is of another type.
      ValueError: key or card are of another program, or `job` is not of this model.
    """
    require_type("saved", saved, SavedText)
    refused = misbound(model, card, saved, job, previous)
    if refused is not None:
        return refused
    layout = model.program(saved.job, saved.text).layout
    try:
        submission = Submission.decode(saved.run, layout)
    except MalformedEncoding as error:
        return rejected("run-structure", str(error))
    return model.verify(
        key,
        saved.job,
        saved.text,
        submission,
        commitment=saved.receipt.commitment,
        parameters=card.parameters,
    )


def text_digest(tokens: Sequence[int]) -> bytes:
    """32 bytes over the token ids of a completion."""
    return tagged_hash("text", token_bytes(tokens))


def misbound(
    model: Generation,
    card: ModelCard,
    saved: BoundText,
    job: GenerationJob | None,
    previous: BoundText | None,
) -> TextReport | None:
    """The verdict on what no run can answer for; None if there is none. Arguments: `judge_saved`.

    Raises:
      TypeError: an argument is of another type.
      ValueError: the card is of another program, or `job` is not of this model.
    """
    require_type("card", card, ModelCard)
    require_type("job", job, (GenerationJob, type(None)))
    for name in ("card", "job", "text", "receipt") if previous is not None else ():
        if not hasattr(previous, name):
            raise TypeError(f"previous must be a saved text, got {type(previous).__name__}")
    if card.family != model.family.id or card.stop != tuple(sorted(model.stop)):
        raise ValueError(
            "the card is of another program: compile the same lengths, sampler and stop tokens"
        )
    reason = _unbound(card, saved, job, previous)
    if reason is not None:
        return rejected(reason, TEXT_REASONS[reason])
    try:
        return model.refusal(saved.job, saved.text)
    except ValueError as error:
        if job is not None:
            raise
        return rejected("receipt-job", str(error))


def _unbound(
    card: ModelCard, saved: BoundText, job: GenerationJob | None, previous: BoundText | None
) -> str | None:
    """The reason why a receipt is not of this answer; None if it is."""
    receipt = saved.receipt
    if receipt.card != card.id or saved.card != card:
        return "receipt-model"
    asked = saved.job if job is None else job
    if receipt.job != card.job_digest(asked) or saved.job != asked:
        return "receipt-job"
    if receipt.text != text_digest(saved.text):
        return "receipt-text"
    if previous is not None:
        said = (*previous.job.prompt, *previous.text)
        if (
            # A receipt names what was said before only through the job and text that it binds.
            _unbound(previous.card, previous, None, None) is not None
            or receipt.previous != previous.receipt.id
            or saved.job.prompt[: len(said)] != said
        ):
            return "receipt-chain"
    return None


def rejected(reason: str, message: str) -> TextReport:
    """The verdict on a text that its run was not asked about."""
    return TextReport(verdict=Verdict.REJECT, reason=reason, message=message)
