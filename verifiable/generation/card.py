"""What a model is, for whoever pays for its text.

A `ModelCard` binds everything that decides which text comes out: the program, the parameters, the
tokenizer, the template of conversations, the stop tokens; and what the parameters were made from,
the digest of a published file. Its id is the model's name. Program and parameters are verified by
every verdict; the tokenizer and the file are checked by whoever reads the card and has them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, Self

from verifiable.encoding import decode, encode, tagged_hash
from verifiable.errors import MalformedEncoding, received_bytes, require_bytes32
from verifiable.generation.job import GenerationJob
from verifiable.generation.plain import job_fields, sampler_fields, sampler_of
from verifiable.generation.sampler import Sampler

MAX_CARD: Final = 1 << 16
"""The most bytes of a card."""

_KIND: Final = "verifiable model card 1"
_DIGESTS = ("family", "parameters", "tokenizer", "published")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """The identity of a model that generates text.

    Attributes:
      name: for people.
      family: id of the program family (`Generation.family`).
      parameters: root of the parameters (`parameter_root`).
      stop: token ids that end a text, in order.
      tokenizer: 32-byte digest of the tokenizer, as whoever publishes the card defines it.
      template: source of the template that turns a conversation into a prompt.
      sampler: defaults; a job may ask for other numbers.
      published: SHA-256 of the published file that the parameters were made from.

    Raises:
      TypeError: a field is of another type.
      ValueError: a digest has not 32 bytes, stop tokens are not in order, or the card is too long.
    """

    name: str
    family: bytes
    parameters: bytes
    stop: tuple[int, ...]
    tokenizer: bytes
    template: str
    sampler: Sampler
    published: bytes

    def __post_init__(self) -> None:
        """Require the fields' types and forms."""
        for name in ("name", "template"):
            if type(getattr(self, name)) is not str:
                raise TypeError(f"{name} must be a str, got {type(getattr(self, name)).__name__}")
        for name in _DIGESTS:
            require_bytes32(name, getattr(self, name))
        if type(self.sampler) is not Sampler:
            raise TypeError(f"sampler must be a Sampler, got {type(self.sampler).__name__}")
        if type(self.stop) is not tuple or any(type(t) is not int for t in self.stop):
            raise TypeError("stop must be a tuple of ints, the token ids")
        if list(self.stop) != sorted(set(self.stop)) or min(self.stop, default=0) < 0:
            raise ValueError(f"stop tokens must be in order, without repetition, got {self.stop}")
        if len(self.encode()) > MAX_CARD:
            raise ValueError(f"a card has at most {MAX_CARD} bytes, this one {len(self.encode())}")

    @property
    def id(self) -> bytes:
        """32 bytes that name the model."""
        return tagged_hash("model card", self.encode())

    def encode(self) -> bytes:
        """The canonical bytes of the card."""
        given: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return encode([_KIND, given | {"sampler": sampler_fields(self.sampler)}])

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read a card.

        Args:
          data: bytes that anybody sent.

        Raises:
          MalformedEncoding: they are not the one encoding of a card.
          TypeError: `data` is of another type.
        """
        match decode(data, max_size=MAX_CARD, max_items=MAX_CARD):
            case [str(kind), dict(given)] if kind == _KIND:
                pass
            case _:
                raise MalformedEncoding("expected a model card")
        names = {f.name for f in fields(cls)}
        if names.symmetric_difference(given):
            raise MalformedEncoding(f"a model card has {', '.join(sorted(names))}")
        try:
            made: dict[str, Any] = dict(given)
            made["sampler"], made["stop"] = sampler_of(given["sampler"]), tuple(given["stop"])
            card = cls(**made)
        except (TypeError, ValueError) as error:
            raise MalformedEncoding(f"the model card is malformed: {error}") from error
        if card.encode() != received_bytes(data):
            raise MalformedEncoding("the model card is not in canonical form")
        return card

    def job_digest(self, job: GenerationJob) -> bytes:
        """32 bytes that name a job for this model."""
        return tagged_hash("generation job", self.id, encode(job_fields(job)))
