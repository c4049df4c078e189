"""The journal: streams of entries, each acknowledged only when it is durable.

    future = journal.submit("replicated/ab12", [body])     numbered and linked at once
    future.result()                                        returns when it is on disk

One thread writes. While it waits for the disk, submissions collect, and it writes all of them in
one transaction: many acknowledgements wait for one flush (group commit). They are written in the
order in which they were submitted, so if an entry is durable, all before it are.

If a write fails, nobody knows what is on disk. So the journal takes nothing more: every future
that waits has the error, and the coordinator opens the journal again and goes on from what is
there. What was acknowledged is there; what was not may be there, as after a message whose
acknowledgement was lost.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar, cast

from protocols.journal.errors import (
    AlreadyRecorded,
    JournalBusy,
    JournalClosed,
    JournalCorrupt,
    JournalError,
    NotRecorded,
)
from protocols.journal.sqlite import SqliteStore
from protocols.journal.store import (
    MAX_BODY,
    MAX_ITEMS,
    MAX_STREAM,
    NO_LINK,
    Entry,
    Store,
    StreamHead,
    link_of,
)
from verifiable import encoding
from verifiable.errors import MalformedEncoding

T = TypeVar("T")

MOST: Final = 4096
"""With so many entries a transaction is full, so that the first of many need not wait for all."""


@dataclass(frozen=True, slots=True)
class _Submission:
    """Entries of one stream that become durable together, and who waits for it."""

    stream: str
    entries: Sequence[Entry]
    future: Future[Any]
    result: Any


class Journal:
    """A durable record. Any thread may call it.

    Attributes:
      id: 16 random bytes, drawn when the journal was created.
      commits: how many transactions it has written since it was opened.
    """

    def __init__(self, store: Store):
        """Take over a store; `create` and `open` make one on SQLite."""
        self.id, self.commits = store.id, 0
        self._store, self._lock = store, threading.Lock()
        self._work = threading.Condition(self._lock)
        self._heads = dict(store.heads())
        self._waiting: list[_Submission] = []  # with those that are being written
        self._refused: set[str] = set()
        self._ending: set[str] = set()  # their last entries are not stored yet: `append` knows not
        self._process = os.getpid()
        self._failure: BaseException | None = None
        self._closing = False
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Self:
        """A new journal in a file. Raises as `SqliteStore.create`."""
        return cls(SqliteStore.create(path))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """The journal in a file. Raises as `SqliteStore.open`; it never makes a new one."""
        store = SqliteStore.open(path)
        try:
            return cls(store)
        except BaseException:
            store.close()
            raise

    def streams(self, prefix: str = "") -> list[str]:
        """Names of the open streams that begin so, sorted."""
        with self._lock:
            return sorted(name for name in self._heads if name.startswith(prefix))

    def head(self, stream: str) -> StreamHead | None:
        """How far an open stream has come, with what was submitted; None if it is not open."""
        with self._lock:
            return self._heads.get(stream)

    def submit(
        self,
        stream: str,
        bodies: Sequence[bytes],
        *,
        begin: bool = False,
        last: bool = False,
        at: int | None = None,
        result: T = None,
    ) -> Future[T]:
        """Append entries to a stream.

        Args:
          stream: its name.
          bodies: contents of the entries, at least one; either all become durable or none.
          begin: whether the first of them begins the stream.
          last: whether the last of them ends it.
          at: the number that the first of them must get, so that who knows the stream to be shorter
            or longer than it is writes nothing; None for whatever comes next.
          result: what the future returns.

        Returns:
          A future that is done when the entries are durable. It cannot be cancelled. Its callbacks
          run in the thread that writes, and must be short. It raises `AlreadyRecorded` if the
          stream was begun before, and other errors of the journal.

        Raises:
          AlreadyRecorded: `begin`, and the stream is open.
          JournalBusy: the next entry has another number than `at`.
          JournalClosed: the journal is closed, or an earlier write failed.
          NotRecorded: no such stream is open.
          ValueError: no entry, or a name or body that is too large.
        """
        if not bodies:
            raise ValueError("a submission must have an entry")
        if not (stream.isascii() and 1 <= len(stream) <= MAX_STREAM):
            raise ValueError(f"a stream's name has 1 to {MAX_STREAM} ASCII characters: {stream!r}")
        self._require_own_process()
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            self._require_open()
            head = self._heads.get(stream)
            length, link = (0, NO_LINK) if head is None else (head.length, head.link)
            if at is not None and at != length:
                raise JournalBusy(
                    f"{at} entries of stream {stream} are known to the writer, and it has {length} "
                    "(0 if it has ended): another object of this process wrote; use that one"
                )
            if begin and (head or stream in self._refused or stream in self._ending):
                raise AlreadyRecorded(stream)
            if not begin and head is None:
                raise NotRecorded(stream, wanted="begin it first, or it has ended")
            entries: list[Entry] = []
            for i, body in enumerate(bodies):
                ends = last and i == len(bodies) - 1
                entry = Entry.after(link, stream=stream, number=length + i, last=ends, body=body)
                entries.append(entry)
                link = entry.link
            # If an interrupt comes next, the stream's next entry has this number, and is refused.
            self._waiting.append(_Submission(stream, entries, future, result))
            if last:
                self._heads.pop(stream, None)
                self._ending.add(stream)
            else:
                self._heads[stream] = StreamHead(length=length + len(bodies), link=link)
            self._work.notify_all()
        return cast("Future[T]", future)

    def read(self, stream: str, first: int = 0) -> tuple[bytes, list[bytes]]:
        """Contents of a stream's entries, whose chain is verified up to its end.

        Waits for what was submitted, so no callback of a future may call it.

        Args:
          stream: its name.
          first: number of the first entry to read.

        Returns:
          The link of the entry before that, and the contents. The link needs no other proof: the
          chain leads from it to the head.

        Raises:
          JournalCorrupt: an entry is missing or changed.
          NotRecorded: there is no such stream.
        """
        self.flush()
        with self._lock:
            head = self._heads.get(stream)
        entries, link = self._store.read(stream, max(0, first - 1)), NO_LINK
        if not entries and head is None:
            raise NotRecorded(stream, wanted="it was never begun, or it has fewer entries")
        if first and entries:
            link, entries = entries[0].link, entries[1:]
        return link, _verified(stream, entries, head, first, link)

    def contents(self, stream: str) -> list[bytes]:
        """Contents of all entries of a stream; none if it was never begun. Raises as `read`."""
        try:
            return self.read(stream)[1]
        except NotRecorded:
            return []

    def verify(self) -> None:
        """Verify all streams: slow, for copies and after an accident.

        Raises:
          JournalCorrupt: an entry is missing or changed.
        """
        for stream in sorted({*self._store.names(), *self.streams()}):
            self.read(stream)

    def flush(self) -> None:
        """Wait until everything submitted is durable. Raises JournalClosed if a write failed."""
        self._require_own_process()
        with self._lock:
            self._work.wait_for(lambda: not self._waiting or self._failure is not None)
            self._require_open()

    def close(self) -> None:
        """Write what was submitted, and close the store. Does nothing the second time."""
        self._require_own_process()
        with self._lock:
            self._closing = True
            self._work.notify_all()
        self._writer.join()
        self._store.close()

    def __enter__(self) -> Self:
        """The journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _require_own_process(self) -> None:
        # A fork has no thread that writes, and may have copied a lock that nobody gives back.
        if os.getpid() != self._process:
            raise JournalClosed("a fork of the process that opened the journal must not use it")

    def _require_open(self) -> None:
        if self._failure is not None:
            raise JournalClosed(
                f"an earlier write failed, so nothing more is recorded: {self._failure}; open the "
                "journal again and resume from what it holds"
            ) from self._failure
        if self._closing:
            raise JournalClosed("the journal was closed: open it again")

    def _write(self) -> None:
        """Write what waits, as long as something does."""
        while True:
            with self._lock:
                self._work.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                batch, size = list[_Submission](), 0
                for submission in self._waiting:
                    if size >= MOST:
                        break
                    batch.append(submission)
                    size += len(submission.entries)
            try:
                self._commit(batch)
            except BaseException as error:
                self._fail(error)
                return
            with self._lock:
                del self._waiting[: len(batch)]
                self._work.notify_all()

    def _commit(self, batch: Sequence[_Submission]) -> None:
        """Write one transaction, and acknowledge it."""
        entries = [e for each in batch if each.stream not in self._refused for e in each.entries]
        refused = self._store.append(entries)
        self.commits += 1
        with self._lock:
            self._refused |= refused
            self._ending -= {e.stream for e in entries if e.last}
            for stream in refused:
                self._heads.pop(stream, None)
        for each in batch:
            if each.stream in self._refused:
                each.future.set_exception(AlreadyRecorded(each.stream))
            else:
                each.future.set_result(each.result)

    def _fail(self, error: BaseException) -> None:
        """Take nothing more, and tell everyone who waits."""
        if not isinstance(error, JournalError):
            error = JournalError(f"the journal could not be written: {error!r}")
        with self._lock:
            self._failure = error
            self._work.notify_all()
        for each in self._waiting:
            if not each.future.done():
                each.future.set_exception(error)


def _verified(
    stream: str, entries: Sequence[Entry], head: StreamHead | None, first: int, link: bytes
) -> list[bytes]:
    """Contents of entries whose chain leads from a link to the end of their stream."""
    number, ended = first, False
    for entry in entries:
        own = link_of(link, stream=stream, number=number, last=entry.last, body=entry.body)
        if (entry.number, entry.link) != (number, own) or ended:
            raise JournalCorrupt(
                f"entry {number} of stream {stream} is missing, or is not the one that was "
                "written: restore a copy"
            )
        number, link, ended = number + 1, entry.link, entry.last
    if ended != (head is None) or (head is not None and (number, link) != (head.length, head.link)):
        raise JournalCorrupt(
            f"stream {stream} does not end as it was written, {number} entries were found: "
            "restore a copy"
        )
    return [entry.body for entry in entries]


def after(durable: Future[Any], result: T) -> Future[T]:
    """A future with this result, done when the other is, or with its error."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def finish(done: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    durable.add_done_callback(finish)
    return future


@contextlib.contextmanager
def reading(what: str) -> Generator[None, None, None]:
    """Raise JournalCorrupt, which names what is read, if it means nothing."""
    try:
        yield
    except (MalformedEncoding, ValueError, TypeError) as error:
        raise JournalCorrupt(f"{what} cannot be read: {error}; restore a copy") from error


def entry_of(stream: str, body: bytes) -> Any:
    """The plain form of an entry's body.

    Raises:
      JournalCorrupt: it is not in the one encoding of any.
    """
    with reading(f"an entry of {stream}"):
        return encoding.decode(body, max_size=MAX_BODY, max_items=MAX_ITEMS)
