"""Stores of journals for tests: one in memory, and one that fails where it is told to."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from protocols.journal import Entry, JournalBusy, JournalFull, StreamHead


@dataclass
class MemoryStore:
    """A store without a disk; it outlives the journals that use it, as a file does."""

    id: bytes = b"\x1d" * 16
    entries: dict[str, list[Entry]] = field(default_factory=dict)

    def heads(self) -> Mapping[str, StreamHead]:
        newest = [entries[-1] for entries in self.entries.values()]
        return {
            e.stream: StreamHead(length=e.number + 1, link=e.link) for e in newest if not e.last
        }

    def names(self) -> Sequence[str]:
        return list(self.entries)

    def read(self, stream: str, first: int) -> Sequence[Entry]:
        return self.entries.get(stream, [])[first:]

    def append(self, entries: Sequence[Entry]) -> frozenset[str]:
        refused = frozenset(e.stream for e in entries if e.number == 0 and e.stream in self.entries)
        changed = {e.stream: list(self.entries.get(e.stream, [])) for e in entries}
        for entry in entries:
            if entry.stream not in refused:
                if len(changed[entry.stream]) != entry.number:
                    raise JournalBusy("another coordinator is at work")
                changed[entry.stream].append(entry)
        self.entries |= changed
        return refused

    def close(self) -> None:
        pass


@dataclass
class FailingStore(MemoryStore):
    """Fails once: at one of the next appends, before or after its entries are stored.

    Attributes:
      fail_in: how many appends until then; None for never.
      stored: whether the entries of that append are stored all the same.
    """

    fail_in: int | None = None
    stored: bool = False

    def append(self, entries: Sequence[Entry]) -> frozenset[str]:
        if self.fail_in == 0:
            self.fail_in = None
            if self.stored:
                super().append(entries)
            raise JournalFull("the disk is full")
        self.fail_in = None if self.fail_in is None else self.fail_in - 1
        return super().append(entries)


@dataclass
class GatedStore(FailingStore):
    """Waits in each append until it may go on.

    Attributes:
      entered: set as soon as an append has begun.
      go: to be set.
      sizes: how many entries each append had.
      closed: whether it was closed; it stores nothing then.
    """

    entered: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    sizes: list[int] = field(default_factory=list)
    closed: bool = False

    def append(self, entries: Sequence[Entry]) -> frozenset[str]:
        self.entered.set()
        self.go.wait(20)
        if self.closed:
            raise ValueError("the store is closed")
        self.sizes.append(len(entries))
        return super().append(entries)

    def close(self) -> None:
        self.closed = True
