"""What all kinds of messages share: checked fields, one encoding, and a digest.

    encoding = CBOR [kind, version, field, field, ...]      deterministic (RFC 8949, 4.2.1)
    digest   = H("message " + kind, encoding)

A kind is a frozen dataclass that names itself (`KIND`), its domain (`TAG`), its size limit
(`MAX_SIZE`) and a predicate for each field (`CHECKS`). `decode` accepts only what `encode` writes.
It checks every short field before it decodes a long one, and no more items than the kind has, so
refusing a message costs little, whatever is in it. Rules: specs/messages.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar, Final, Self

from verifiable import encoding
from verifiable.encoding import tagged_hash
from verifiable.errors import MalformedEncoding, is_bytes32, received_bytes

VERSION: Final = 1
"""Version of every message. A message of another version is malformed."""

HEADS: Final = 256
"""More bytes than the heads and the fields of fixed size take in any message."""

_SHORT: Final = 512
"""Fields of at most so many bytes are checked first: more than any field of fixed size takes."""


def is_uint(value: Any) -> bool:
    """Whether a value is an unsigned 64-bit integer."""
    return type(value) is int and 0 <= value < 2**64


def is_count(value: Any) -> bool:
    """Whether a value is a positive 64-bit integer."""
    return is_uint(value) and value > 0


is_digest: Final = is_bytes32
"""Whether a value is 32 bytes."""


def or_null(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """The same check, which also accepts None."""
    return lambda value: value is None or check(value)


class Message:
    """Base of all messages."""

    __slots__ = ()

    KIND: ClassVar[str]
    """First element of the encoding."""
    TAG: ClassVar[str]
    """Domain of the digest."""
    MAX_SIZE: ClassVar[int]
    """The most bytes of an encoding."""
    LISTED: ClassVar[int] = 0
    """The most elements of all its arrays together."""
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]]
    """Each field, in the order of the encoding, with the predicate that it must satisfy."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
          ValueError: a field has a wrong type, size or range.
        """
        for name in self.CHECKS:
            self._require(name, getattr(self, name))

    def encode(self) -> bytes:
        """The one encoding of this message."""
        return encoding.encode([self.KIND, VERSION, *self._values()])

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview, *, max_size: int | None = None) -> Self:
        """Read a message of this kind.

        Args:
          data: bytes from an untrusted sender.
          max_size: a limit in bytes below `MAX_SIZE`, where the job in hand allows less.

        Raises:
          MalformedEncoding: too long, not canonical, of another kind or version, or with a field
            that has a wrong type, size or range.
          TypeError: `data` is of another type, or this class is the base of several kinds.
        """
        start = prefix(cls)
        limit = cls.MAX_SIZE if max_size is None else min(max_size, cls.MAX_SIZE)
        data = received_bytes(data, most=limit)
        if len(data) <= limit and not data.startswith(start):
            raise MalformedEncoding(
                f"expected a {cls.KIND} of version {VERSION} with {len(cls.CHECKS)} fields"
            )
        if len(data) > limit:
            raise MalformedEncoding(f"message has more than the {limit} bytes allowed")
        try:
            return cls(**cls._decode_fields(data))
        except (TypeError, ValueError) as error:
            raise MalformedEncoding(str(error)) from error

    @classmethod
    def _decode_fields(cls, data: bytes) -> dict[str, Any]:
        """Fields of a message. The short ones are decoded and checked before any long one is."""
        # The prefix fixes the kind, the version and the number of fields.
        most = 3 + len(cls.CHECKS) + cls.LISTED
        if len(data) <= _SHORT:  # so is every field: all are decoded at once
            wire = encoding.decode(data, max_size=_SHORT, max_items=most)[2:]
            return {n: cls._field(n, value) for n, value in zip(cls.CHECKS, wire, strict=True)}
        _, _, *starts = encoding.element_offsets(data, max_items=most)
        if starts[-1] != len(data):
            raise MalformedEncoding("bytes follow the end of the message")
        spans = {name: data[i:j] for name, (i, j) in zip(cls.CHECKS, pairwise(starts), strict=True)}
        short = [name for name, span in spans.items() if len(span) <= _SHORT]
        joined = bytes([0x80 | len(short)]) + b"".join(map(spans.__getitem__, short))
        wire = encoding.decode(joined, max_size=len(joined), max_items=most)
        found = {name: cls._field(name, value) for name, value in zip(short, wire, strict=True)}
        if len(found) < len(spans):
            for name in short:
                cls._require(name, found[name])
            for name in spans.keys() - found.keys():
                span = spans[name]
                value = encoding.decode(span, max_size=len(span), max_items=most)
                found[name] = cls._field(name, value)
        return found

    @classmethod
    def _require(cls, name: str, value: Any) -> None:
        if not cls.CHECKS[name](value):
            raise ValueError(
                f"{name} of a {cls.KIND} has a wrong type, size or range: {_shown(value)}"
            )

    @property
    def digest(self) -> bytes:
        """32-byte tagged hash of the encoding."""
        return tagged_hash(self.TAG, self.encode())

    def _values(self) -> list[Any]:
        """Fields as they are encoded."""
        return [getattr(self, name) for name in self.CHECKS]

    @classmethod
    def _field(cls, name: str, wire: Any) -> Any:
        """A field from its decoded value: the inverse of `_values`."""
        del name
        return wire


@cache
def prefix(kind: type[Message]) -> bytes:
    """First bytes of every message of a kind: head of the array, kind and version.

    Raises:
      TypeError: it is not one kind of message, but the base of several.
    """
    if not hasattr(kind, "KIND"):
        raise TypeError(
            f"{kind.__name__} is the base of several kinds of message: name the kind expected, "
            "such as Assignment or Commit"
        )
    head = bytes([0x80 | 2 + len(kind.CHECKS)])
    return head + encoding.encode(kind.KIND) + encoding.encode(VERSION)


def _shown(value: Any) -> str:
    """A value from an untrusted sender, in few characters."""
    if isinstance(value, bytes | str | tuple | list):
        return f"{type(value).__name__} of length {len(value)}"
    return repr(value) if isinstance(value, int | float | None) else type(value).__name__
