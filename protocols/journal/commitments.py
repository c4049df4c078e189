"""The commitment log of an epoch that survives its process, and stays closed.

    log = DurableCommitmentLog(journal, "epoch 7")
    log.append(commit.message.digest).result()         index, once it is on disk
    log.close(chain="drand", closed_at=1234)           ClosedLog: nothing is added, ever

A challenge binds what was committed before it was known. A log that a restart opened again would
take commitments to answers that were chosen after the challenge, and one that a restart emptied
would have another root than the challenge names.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, Final

from protocols.journal.log import Journal, after, entry_of, reading
from verifiable import encoding
from verifiable.challenge import ClosedLog, CommitmentLog, LogPlace
from verifiable.errors import MalformedEncoding

_VERSION: Final = 1


class DurableCommitmentLog:
    """Collects the digests of an epoch's commitments until it is closed. Any thread may call it.

    Attributes:
      closed: the closed log; None while it is open.
    """

    def __init__(self, journal: Journal, name: str):
        """Read what the log holds.

        Args:
          journal: where.
          name: of the log, unique for ever, such as the number of its epoch.

        Raises:
          JournalCorrupt: the record is damaged.
        """
        self._journal, self._stream = journal, f"commitments/{name}"
        self._log, self.closed = CommitmentLog(), None
        self._known, self._turn = 0, threading.Lock()
        self._durable: Future[Any] = Future()
        self._durable.set_result(None)
        for body in journal.contents(self._stream):
            with reading(f"entry {self._known} of {self._stream}"):
                self._replay(entry_of(self._stream, body))
            self._known += 1

    closed: ClosedLog | None

    def _replay(self, wire: Any) -> None:
        match wire:
            case ["commitment", 1, bytes(digest)] if self._log.append(digest) == self._known:
                pass
            case ["closed", 1, str(chain), int(closed_at)]:
                self.closed = self._log.close(chain=chain, closed_at=closed_at)
            case _:
                raise MalformedEncoding("expected another commitment, or the end of the log")

    def append(self, digest: bytes) -> Future[int]:
        """Add a commitment's 32-byte digest; a digest that is in the log keeps its index.

        Returns:
          A future of its index, done when the digest is durable.

        Raises:
          ValueError: the log is closed and does not hold it, or it is not 32 bytes.
          JournalBusy: another object writes to this log.
        """
        with self._turn:
            index = self._log.append(digest)
            if index < self._known:
                return after(self._durable, index)
            return self._write(["commitment", _VERSION, bytes(digest)], index)

    def close(self, *, chain: str, closed_at: int) -> ClosedLog:
        """Close the log, durably. Only then may a challenge be drawn.

        Args:
          chain: the beacon that the challenge will come from.
          closed_at: its newest round that is known.

        Raises:
          ValueError: the log is empty or closed.
        """
        with self._turn:
            closed = self._log.close(chain=chain, closed_at=closed_at)
            self._write(["closed", _VERSION, chain, closed_at], None, last=True).result()
            self.closed = closed
            return closed

    def places(self, digests: Iterable[bytes]) -> list[LogPlace]:
        """Where the closed log holds these commitments: `CommitmentLog.places`.

        Raises:
          ValueError: the log is open, or does not hold one of them.
        """
        with self._turn:
            if self.closed is None:
                raise ValueError("the log is open: what is added would change every proof")
            return self._log.places(digests)

    def _write(self, body: list[Any], result: Any, *, last: bool = False) -> Future[Any]:
        self._durable = self._journal.submit(
            self._stream,
            [encoding.encode(body)],
            begin=not self._known,
            last=last,
            at=self._known,
            result=result,
        )
        self._known += 1
        return self._durable
