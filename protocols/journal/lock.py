"""The file `-lock` beside a journal: who has it open, and how many entries it must have.

    lock = FileLock(path)             JournalBusy: another process, or another object, has it
    lock.require(id, count)           what is found is no less than what was acknowledged here
    lock.keep(id, count)              after each transaction

SQLite keeps the newest transactions in the file `-wal`. If that one is lost, or cut, or if an older
copy or another journal stands in the journal's place, SQLite takes what it finds for all there is:
what was acknowledged would be forgotten, and signed a second time. So the number of entries is here
too. It is written after each transaction and never flushed. A killed process leaves the newest one;
a loss of power may leave an earlier one, zeros, or none, which refuses no journal that is whole.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # Windows, where SQLite's own lock is not lost.
    fcntl = None

from protocols.journal.errors import JournalBusy, JournalCorrupt, JournalError, JournalForeign

ADVICE: Final = (
    "another coordinator has the journal open, or a process that it forked: stop it, or give this "
    "one its own journal"
)

_ID: Final = 16
_SIZE: Final = 24
"""Bytes of a mark: the journal's id, and the number of its entries, big-endian."""


class FileLock:
    """A lock, held until it is closed or the process and all that it forked have ended."""

    def __init__(self, journal: Path):
        """Take the lock of the journal in this file.

        Raises:
          JournalBusy: it is taken.
          JournalError: the file beside the journal cannot be written.
        """
        self.path = journal.with_name(f"{journal.name}-lock")
        try:
            self._file = io.FileIO(self.path, "r+", opener=_opened)
        except OSError as error:
            raise JournalError(
                f"{self.path} cannot be opened: check its folder ({error})"
            ) from error
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise JournalBusy(f"{journal}: {ADVICE} ({error})") from error

    def require(self, id: bytes, count: int) -> None:
        """Require what was acknowledged here.

        Raises:
          JournalCorrupt: the journal had more entries.
          JournalForeign: another journal was here.
        """
        self._file.seek(0)
        mark = self._file.read(_SIZE)
        if len(mark) < _SIZE or not any(mark):
            return
        known, least = mark[:_ID], int.from_bytes(mark[_ID:], "big")
        if known != id:
            raise JournalForeign(
                f"journal {id.hex()} is where journal {known.hex()} was: put that one back, or "
                f"remove {self.path} if this one is meant"
            )
        if count < least:
            raise JournalCorrupt(
                f"the journal has {count} entries, and had {least}: (a) its file -wal was lost or "
                "damaged, or (b) it is an older copy. Restore the newest; to go on with this one, "
                f"remove {self.path}, and sign with new keys only"
            )

    def keep(self, id: bytes, count: int) -> None:
        """Keep the number of entries. Raises JournalError if the file cannot be written."""
        try:
            self._file.seek(0)
            self._file.write(id + count.to_bytes(_SIZE - _ID, "big"))
        except OSError as error:
            raise JournalError(f"{self.path} cannot be written: {error}") from error

    def close(self) -> None:
        """Give it back. Does nothing the second time."""
        self._file.close()


def _opened(name: str, flags: int) -> int:
    """Open the file, or make it, for its owner alone."""
    return os.open(name, flags | os.O_CREAT, 0o600)
