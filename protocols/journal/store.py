"""What a journal needs of a database: append entries durably, and read them back.

    entry = (stream, number, last, link, body)
    link  = H(link before it, stream, number, last, body)           a hash chain for each stream

Entries of a stream are numbered from 0, and none is changed or removed. A stream is open until an
entry is its `last`. The store keeps the head of every open stream: its length and newest link. So
an entry that is missing, or that was changed, is found when the stream is read: the chain must end
in the head, or in an entry that is the last. `SqliteStore` is such a store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from verifiable.encoding import tagged_hash

NO_LINK: Final = bytes(32)
"""Link before the first entry of a stream."""

MAX_STREAM: Final = 200
"""The most characters of a stream's name."""

MAX_BODY: Final = 1 << 21
"""The most bytes of an entry: more than the largest event, a reveal of 1 MiB, takes."""

MAX_ITEMS: Final = 1 << 17
"""The most items of an entry: more than a state with 1,024 workers has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a stream, as it is stored.

    Attributes:
      stream: name of the stream: ASCII, at most `MAX_STREAM` characters.
      number: its number in the stream, from 0.
      last: whether no entry follows.
      link: 32-byte hash of the entry and of all before it.
      body: its content, at most `MAX_BODY` bytes.
    """

    stream: str
    number: int
    last: bool
    link: bytes
    body: bytes

    @classmethod
    def after(cls, link: bytes, *, stream: str, number: int, last: bool, body: bytes) -> Entry:
        """The entry that follows the one with this link.

        Raises:
          ValueError: the body is too large.
        """
        if len(body) > MAX_BODY:
            raise ValueError(f"an entry has at most {MAX_BODY} bytes, got {len(body)}")
        new = link_of(link, stream=stream, number=number, last=last, body=body)
        return cls(stream=stream, number=number, last=last, link=new, body=body)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHead:
    """How far an open stream has come.

    Attributes:
      length: number of its entries.
      link: link of the newest one.
    """

    length: int
    link: bytes


def link_of(link: bytes, *, stream: str, number: int, last: bool, body: bytes) -> bytes:
    """32-byte link of an entry that follows the one with the link given."""
    place = number.to_bytes(8, "big") + bytes([last])
    return tagged_hash("journal entry", link, stream.encode(), place, body)


class Store(Protocol):
    """A database for one journal. One thread calls it at a time.

    All methods raise `JournalError` or a subclass, and nothing else, when the database fails.
    """

    @property
    def id(self) -> bytes:
        """16 random bytes, drawn when the journal was created."""
        ...

    def heads(self) -> Mapping[str, StreamHead]:
        """The open streams."""
        ...

    def names(self) -> Iterable[str]:
        """All streams, open or not."""
        ...

    def read(self, stream: str, first: int) -> Sequence[Entry]:
        """Entries of a stream in order, from a number on; empty if there are none."""
        ...

    def append(self, entries: Sequence[Entry]) -> frozenset[str]:
        """Store entries: all or none, and durably before it returns.

        Entries with number 0 begin streams. If a stream was begun before, none of its entries is
        stored, and its name is returned; the others are stored.

        Args:
          entries: those of each stream in order, without a gap after those stored before.

        Raises:
          JournalBusy: an entry with one of the other numbers exists: somebody else writes here.
          JournalFull: the disk is full.
        """
        ...

    def close(self) -> None:
        """Close the database, so that another coordinator may open it."""
        ...
