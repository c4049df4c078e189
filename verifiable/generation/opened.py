"""An answer with the opening of an audit in place of its run: a small file that shows a part of it.

    opened = OpenedText.of(saved, draw, opening)       the device, once the draw is known
    opened.encode()                                    job, text, receipt, draw and opening

    opened = OpenedText.decode(data)                   verifier
    report = judge_opened(model, key, card, opened, draw=own)

The file is that of a saved text (`saved`) with the draw as a part more, and `AuditOpening.encode`
behind the head. The draw must have been unknown when the receipt was sent. A verifier that drew
passes its own; without it, the file's is taken at its word, and so is that it came later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Self

from verifiable.encoding import encode
from verifiable.errors import MalformedEncoding, require_bytes32, require_type
from verifiable.generation.audited import TextAuditPlan
from verifiable.generation.card import ModelCard
from verifiable.generation.findings import TextReport
from verifiable.generation.generation import Generation
from verifiable.generation.job import GenerationJob
from verifiable.generation.saved import (
    PARTS,
    BoundText,
    SavedText,
    TextReceipt,
    bound_of,
    bound_parts,
    framed,
    misbound,
    rejected,
    unframed,
)
from verifiable.key import VerifierKey
from verifiable.trace import AuditOpening

MAGIC: Final = b"verifiable text audit 1".ljust(32, b"\0")
"""The first 32 bytes of a file: format and version."""

_MOST = 1 << 32  # of a number in a draw


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDraw:
    """What an audit of a text is drawn from: the arguments of `Generation.audit_plan`.

    Attributes:
      seed: 32 bytes that nobody knew when the receipt was sent.
      layers: how many layers are audited.
      rows: how many rows of each; None for all.
      positions: how many tokens are tested.

    Raises:
      MalformedEncoding: a field is of another type, or a number below 1.
    """

    seed: bytes
    layers: int
    rows: int | None
    positions: int

    def __post_init__(self) -> None:
        """Require a seed and numbers."""
        require_bytes32("the seed of an audit", self.seed, MalformedEncoding)
        for name in ("layers", "rows", "positions"):
            value = getattr(self, name)
            if (value is None and name == "rows") or (type(value) is int and 1 <= value < _MOST):
                continue
            raise MalformedEncoding(f"{name} must be a number, at least 1, got {value!r}")

    def plan(
        self, model: Generation, job: GenerationJob, completion: Sequence[int]
    ) -> TextAuditPlan:
        """`Generation.audit_plan` with this draw; errors as there."""
        return model.audit_plan(
            self.seed,
            job,
            completion,
            layers=self.layers,
            rows=self.rows,
            positions=self.positions,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedText:
    """An answer with the opening of an audit.

    Attributes:
      card: names the model that is said to have written it.
      job: the job that it answers.
      text: token ids of the completion.
      receipt: what binds them, and the run.
      draw: what the audit was drawn from.
      opening: `AuditOpening.encode` of what it looks at.
    """

    card: ModelCard
    job: GenerationJob
    text: tuple[int, ...]
    receipt: TextReceipt
    draw: TextDraw
    opening: bytes = field(repr=False)

    @classmethod
    def of(cls, saved: SavedText, draw: TextDraw, opening: AuditOpening) -> Self:
        """A saved text with an opening of its run in place of it."""
        return cls(
            card=saved.card,
            job=saved.job,
            text=saved.text,
            receipt=saved.receipt,
            draw=draw,
            opening=opening.encode(),
        )

    def encode(self) -> bytes:
        """The bytes of the file."""
        return framed(MAGIC, bound_parts(self) | {"draw": asdict(self.draw)}, self.opening)

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read a file. What its opening must be, `judge_opened` says.

        Args:
          data: bytes that anybody sent.

        Raises:
          MalformedEncoding: they are not the one encoding of such a text.
          TypeError: `data` is of another type.
        """
        head, opening = unframed(data, MAGIC, (*PARTS, "draw"))
        given: Any = head["draw"]
        names = {f.name for f in fields(TextDraw)}
        if type(given) is not dict or names.symmetric_difference(given):
            raise MalformedEncoding(f"a draw has {', '.join(sorted(names))}")
        return cls(**bound_of(head), draw=TextDraw(**given), opening=opening)


def judge_opened(
    model: Generation,
    key: VerifierKey,
    card: ModelCard,
    opened: OpenedText,
    *,
    draw: TextDraw | None = None,
    job: GenerationJob | None = None,
    previous: BoundText | None = None,
) -> TextReport:
    """Decide whether the opened part of an answer's run is what the model writes.

    Args:
      model: compiled by the verifier.
      key: from `model.setup`, with a secret that was drawn after the receipt was received.
      card: names the model that must have written it.
      opened: from `OpenedText.decode`.
      draw: the verifier's own; without it, the file's is taken at its word.
      job: as of `judge_saved`.
      previous: likewise.

    Raises:
      TypeError: an argument is of another type.
      ValueError: as of `judge_saved`; or the model cannot have the verifier's own draw.
    """
    require_type("opened", opened, OpenedText)
    require_type("draw", draw, (TextDraw, type(None)))
    refused = misbound(model, card, opened, job, previous)
    if refused is not None:
        return refused
    wanted = opened.draw if draw is None else draw
    if encode(asdict(wanted)) != encode(asdict(opened.draw)):
        return rejected("audit-draw", f"the audit is drawn from {wanted}, not {opened.draw}")
    try:
        plan = wanted.plan(model, opened.job, opened.text)
    except ValueError as error:
        if draw is not None:
            raise
        return rejected("audit-draw", str(error))
    return model.audit(
        key,
        opened.job,
        opened.text,
        plan=plan,
        commitment=opened.receipt.commitment,
        opening=opened.opening,
        parameters=card.parameters,
    )
