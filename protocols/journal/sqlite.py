"""A store on SQLite, from the standard library: one file, one coordinator.

The database is in WAL mode with `synchronous=FULL`: a commit returns after the log of writes is on
disk, so what was acknowledged survives the end of the process and a loss of power. `create` builds
the file under another name and links it into place, so a file with the name is complete; `open`
never makes one.

Two locks keep other coordinators out, and the operating system releases both if the process is
killed. SQLite's own lasts as long as the connection; but POSIX takes it from a process that opens
and closes the file in any other way. So there is another on the file `-lock`. Schema:
specs/journal.md.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

try:
    import fcntl
except ImportError:  # Windows, where SQLite's lock is not lost.
    fcntl = None

from protocols.journal.errors import (
    JournalBusy,
    JournalClosed,
    JournalCorrupt,
    JournalError,
    JournalForeign,
    JournalFull,
    JournalMissing,
)
from protocols.journal.store import Entry, StreamHead

APPLICATION: Final = 0x76666A6C
"""SQLite's application id of a journal: "vfjl"."""

SCHEMA: Final = 1
"""Version of the schema, SQLite's user version."""

_TABLES: Final = """
CREATE TABLE about (id BLOB NOT NULL);
CREATE TABLE entries (
  position INTEGER PRIMARY KEY,
  stream TEXT NOT NULL,
  number INTEGER NOT NULL,
  last INTEGER NOT NULL,
  link BLOB NOT NULL,
  body BLOB NOT NULL,
  UNIQUE (stream, number)
);
CREATE TABLE heads (stream TEXT PRIMARY KEY, length INTEGER NOT NULL, link BLOB NOT NULL)
  WITHOUT ROWID;
"""

_PRIMARY: Final = 0xFF  # the low byte of an extended error code of SQLite


class SqliteStore:
    """A journal's store in a file. Threads take turns.

    Attributes:
      path: the file.
      id: 16 random bytes, drawn when it was created.
    """

    def __init__(self, path: Path, database: sqlite3.Connection, id: bytes, lock: int | None):
        """Take over an open database and a lock; callers use `create` or `open`."""
        self.path, self.id, self._lock = path, id, lock
        self._db, self._turn = database, threading.Lock()

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Self:
        """Make a new journal, and open it.

        Raises:
          FileExistsError: there is a file, or a log of writes, of this name.
          JournalError: the file cannot be written.
        """
        path = Path(path).absolute()
        # A log of writes that is left alone would be read as part of the new file.
        for existing in (path, Path(f"{path}-wal")):
            if existing.exists():
                raise FileExistsError(f"{existing} exists: open that journal, or take another name")
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with _explained(draft):
                database = sqlite3.connect(draft, isolation_level=None)
                try:
                    database.executescript(
                        f"PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL; BEGIN; {_TABLES}"
                        f"PRAGMA application_id={APPLICATION}; PRAGMA user_version={SCHEMA};"
                    )
                    database.execute("INSERT INTO about VALUES (?)", (secrets.token_bytes(16),))
                    database.execute("COMMIT")
                finally:
                    database.close()
            # Unlike a rename, a link never replaces a file that another process made meanwhile.
            path.hardlink_to(draft)
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(path.parent)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a journal that was created before.

        Raises:
          JournalMissing: there is no such file, or a folder in its place.
          JournalBusy: another coordinator has it open.
          JournalForeign: another program's database, or another version of the schema.
          JournalCorrupt: no database, or a damaged one.
        """
        path = Path(path).absolute()
        if path.exists() and not path.is_file():
            raise JournalMissing(f"{path} is no file: a journal is one file, so name a file in it")
        if not path.is_file():
            raise JournalMissing(
                f"there is no journal at {path}: create one, or restore it; going on without it "
                "would forget what was acknowledged and signed"
            )
        lock = _lock(path)
        try:
            with _explained(path):
                database = sqlite3.connect(
                    f"{path.as_uri()}?mode=rw",
                    uri=True,
                    isolation_level=None,
                    timeout=0,
                    check_same_thread=False,
                )
                try:
                    return cls(path, database, _claim(database, path), lock)
                except BaseException:
                    database.close()
                    raise
        except BaseException:
            _unlock(lock)
            raise

    def heads(self) -> Mapping[str, StreamHead]:
        """The open streams."""
        with self._turn, _explained(self.path):
            rows = self._db.execute("SELECT stream, length, link FROM heads").fetchall()
        return {
            stream: StreamHead(length=length, link=link)
            for stream, length, link in _typed(rows, (str, int, bytes))
        }

    def names(self) -> Sequence[str]:
        """All streams, open or not."""
        with self._turn, _explained(self.path):
            rows = self._db.execute("SELECT DISTINCT stream FROM entries").fetchall()
        return [stream for (stream,) in _typed(rows, (str,))]

    def read(self, stream: str, first: int = 0) -> Sequence[Entry]:
        """Entries of a stream in order, from a number on."""
        with self._turn, _explained(self.path):
            rows = self._db.execute(
                "SELECT number, last, link, body FROM entries WHERE stream = ? AND number >= ? "
                "ORDER BY number",
                (stream, first),
            ).fetchall()
        return [
            Entry(stream=stream, number=number, last=bool(last), link=link, body=body)
            for number, last, link, body in _typed(rows, (int, int, bytes, bytes))
        ]

    def append(self, entries: Sequence[Entry]) -> frozenset[str]:
        """Store entries in one transaction, and the heads of their streams."""
        with self._turn, _explained(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                refused = self._begun([e.stream for e in entries if e.number == 0])
                taken = [e for e in entries if e.stream not in refused]
                self._db.executemany(
                    "INSERT INTO entries (stream, number, last, link, body) VALUES (?, ?, ?, ?, ?)",
                    [(e.stream, e.number, e.last, e.link, e.body) for e in taken],
                )
                newest = {e.stream: e for e in taken}.values()
                self._db.executemany(
                    "INSERT OR REPLACE INTO heads VALUES (?, ?, ?)",
                    [(e.stream, e.number + 1, e.link) for e in newest if not e.last],
                )
                self._db.executemany(
                    "DELETE FROM heads WHERE stream = ?",
                    [(e.stream,) for e in newest if e.last],
                )
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
        return refused

    def _begun(self, streams: Sequence[str]) -> frozenset[str]:
        """Those of the streams that have an entry."""
        query = "SELECT 1 FROM entries WHERE stream = ? AND number = 0"
        return frozenset(s for s in streams if self._db.execute(query, (s,)).fetchone())

    def verify(self) -> None:
        """Have SQLite check all pages of the file.

        Raises:
          JournalCorrupt: with the first fault that it finds.
        """
        with self._turn, _explained(self.path):
            ((found,),) = self._db.execute("PRAGMA integrity_check(1)").fetchall()
        if found != "ok":
            raise JournalCorrupt(f"{self.path} is damaged: {found}; restore a copy")

    def copy(self, path: str | os.PathLike[str]) -> None:
        """Write a copy, which is a journal of its own. Everything else waits meanwhile.

        Whoever goes on with a copy forgets what came after it: let it sign with new keys only.

        Raises:
          FileExistsError: there is a file of this name.
          JournalError: the copy cannot be written.
        """
        path = Path(path).absolute()
        if path.exists():
            raise FileExistsError(f"{path} exists: take another name for the copy")
        with self._turn, _explained(path):
            self._db.execute("VACUUM INTO ?", (str(path),))

    def close(self) -> None:
        """Close the file. The log of writes becomes part of it."""
        with self._turn, _explained(self.path):
            self._db.close()
            _unlock(self._lock)
            self._lock = None


def _claim(database: sqlite3.Connection, path: Path) -> bytes:
    """Lock a journal, check that it is one, and return its id. Changes nothing of other files."""
    database.execute("PRAGMA locking_mode=EXCLUSIVE")
    ((application,),) = database.execute("PRAGMA application_id").fetchall()
    ((schema,),) = database.execute("PRAGMA user_version").fetchall()
    if (application, schema) == (0, 0) and not path.stat().st_size:
        raise JournalCorrupt(f"{path} is empty, and no journal ever was: restore a copy")
    if application != APPLICATION:
        raise JournalForeign(f"{path} is the database of another program, not a journal")
    if schema != SCHEMA:
        raise JournalForeign(
            f"{path} has version {schema} of the schema, and this is version {SCHEMA}: open it "
            "with the release that wrote it"
        )
    ((mode,),) = database.execute("PRAGMA journal_mode=WAL").fetchall()
    if mode != "wal":
        raise JournalError(f"{path} cannot have a log of writes (WAL), SQLite chose {mode}")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("PRAGMA fullfsync=ON")  # elsewhere than on macOS, a flush is one anyway
    database.execute("BEGIN EXCLUSIVE")
    rows = database.execute("SELECT id FROM about").fetchall()
    database.execute("COMMIT")
    match rows:
        case [(bytes(id),)] if len(id) == 16:
            return id
        case _:
            raise JournalCorrupt(f"{path} has no identifier: restore a copy")


@contextlib.contextmanager
def _explained(path: Path) -> Generator[None, None, None]:
    """Raise what SQLite reports as an error that says what to do."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise JournalClosed(f"{path} was closed: open it again ({error})") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY
        kind, advice = _ADVICE.get(code, (JournalError, "SQLite reports an error"))
        raise kind(f"{path}: {advice} ({error})") from error


_BUSY: Final = (
    "another coordinator has the journal open, or a process that it forked: stop it, or give this "
    "one its own journal"
)

_ADVICE: Final[Mapping[int, tuple[type[JournalError], str]]] = {
    sqlite3.SQLITE_FULL: (
        JournalFull,
        "the disk is full; nothing of this batch counts as recorded: make room and open it again",
    ),
    sqlite3.SQLITE_BUSY: (JournalBusy, _BUSY),
    sqlite3.SQLITE_LOCKED: (JournalBusy, "another connection has the journal open: close it"),
    sqlite3.SQLITE_CONSTRAINT: (
        JournalBusy,
        "entries that this coordinator did not write are in the journal: another one is at work",
    ),
    sqlite3.SQLITE_CORRUPT: (JournalCorrupt, "the file is damaged: restore a copy"),
    sqlite3.SQLITE_NOTADB: (JournalCorrupt, "the file is no database: restore a copy"),
    sqlite3.SQLITE_IOERR: (
        JournalError,
        "the disk reports an error; nothing of this batch counts as recorded: open it again",
    ),
    sqlite3.SQLITE_READONLY: (JournalError, "the file cannot be written: change its permissions"),
    sqlite3.SQLITE_CANTOPEN: (JournalError, "the file cannot be opened: check its folder"),
}


def _typed(rows: Sequence[Any], kinds: tuple[type, ...]) -> Sequence[Any]:
    """The rows, whose columns must have these types: SQLite's columns take any."""
    for row in rows:
        if tuple(map(type, row)) != kinds:
            raise JournalCorrupt("a row of the journal has a value of a wrong type: restore a copy")
    return rows


def _lock(path: Path) -> int | None:
    """Lock the file beside a journal, and return its handle; None where there are no such locks."""
    if fcntl is None:
        return None
    try:
        handle = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise JournalError(f"{path}-lock cannot be opened: check its folder ({error})") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise JournalBusy(f"{path}: {_BUSY} ({error})") from error
    return handle


def _unlock(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file durable."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
