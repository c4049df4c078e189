"""A store on SQLite, from the standard library: one file, one coordinator.

The database is in WAL mode with `synchronous=FULL`: a commit returns after the log of writes is on
disk, so what was acknowledged survives the end of the process and a loss of power. `create` builds
the file under another name and links it into place, so a file with the name is complete; `open`
never makes one.

Two locks keep other coordinators out, and the operating system releases both if the process is
killed. SQLite's own lasts as long as the connection; but POSIX takes it from a process that opens
and closes the file in any other way. So there is another on the file `-lock`, which also says how
many entries there must be. Schema: specs/journal.md.
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

from protocols.journal.errors import (
    JournalBusy,
    JournalClosed,
    JournalCorrupt,
    JournalError,
    JournalForeign,
    JournalFull,
    JournalMissing,
)
from protocols.journal.lock import ADVICE, FileLock
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

    def __init__(self, path: Path, database: sqlite3.Connection, lock: FileLock, *, fresh: bool):
        """Take over an open database and a lock; callers use `create` or `open`."""
        self.path, self._lock = path, lock
        self._db, self._turn = database, threading.Lock()
        self.id, self._count = _claim(database, path)
        if not fresh:
            lock.require(self.id, self._count)
        _prepare(database, path)
        lock.keep(self.id, self._count)

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Self:
        """Make a new journal, and open it.

        Raises:
          FileExistsError: there is a file, or a log of writes, of this name.
          JournalError: the file cannot be written.
        """
        path = Path(path).resolve()
        # A log of writes that is left alone would be read as part of the new file.
        for existing in (path, Path(f"{path}-wal")):
            if existing.exists():
                raise FileExistsError(f"{existing} exists: open that journal, or take another name")
        draft = path.with_name(f".{path.name}.{secrets.token_hex()}")
        try:
            with (
                _explained(draft),
                contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as database,
            ):
                database.executescript(
                    f"PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL; BEGIN; {_TABLES}"
                    f"PRAGMA application_id={APPLICATION}; PRAGMA user_version={SCHEMA};"
                )
                database.execute("INSERT INTO about VALUES (?)", (secrets.token_bytes(16),))
                database.execute("COMMIT")
            # Unlike a rename, a link never replaces a file that another process made meanwhile.
            path.hardlink_to(draft)
        except FileExistsError:
            raise
        except OSError as error:
            raise JournalError(f"{path} cannot be made: check its folder ({error})") from error
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(path.parent)
        return cls._open(path, fresh=True)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a journal that was created before.

        Raises:
          JournalMissing: there is no such file, or a folder in its place.
          JournalBusy: another coordinator has it open.
          JournalForeign: another program's database, another version of the schema, or another
            journal than the one that was here.
          JournalCorrupt: no database, a damaged one, or one that has lost entries.
        """
        return cls._open(Path(path).resolve(), fresh=False)

    @classmethod
    def _open(cls, path: Path, *, fresh: bool) -> Self:
        """Open a file, which may hold another journal than its `-lock` says if it is fresh."""
        if not path.is_file():
            raise JournalMissing(
                f"there is no journal at {path}, or a folder: create one, or restore it; going on "
                "without it would forget what was acknowledged and signed"
            )
        with contextlib.ExitStack() as refused:
            lock = FileLock(path)
            refused.callback(lock.close)
            _require_whole(path)
            with _explained(path):
                database = sqlite3.connect(
                    f"{path.as_uri()}?mode=rw",
                    uri=True,
                    isolation_level=None,
                    timeout=0,
                    check_same_thread=False,
                )
                refused.callback(database.close)
                opened = cls(path, database, lock, fresh=fresh)
            refused.pop_all()
        return opened

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

    def read(self, stream: str, first: int) -> Sequence[Entry]:
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
            self._count += len(taken)
            self._lock.keep(self.id, self._count)
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
            self._lock.close()


def _require_whole(path: Path) -> None:
    """Refuse what SQLite would make worse, before it has the file."""
    with path.open("rb") as file:
        head = file.read(20)
    if not head:  # SQLite would remove a log of writes beside it.
        raise JournalCorrupt(f"{path} is empty, and no journal ever was: restore a copy")
    log = path.with_name(f"{path.name}-wal")
    # Bytes 18 and 19 are 1 in a copy that was never opened, and 2 once it has a log of writes.
    if head[18:] == b"\1\1" and log.exists() and log.stat().st_size:
        raise JournalCorrupt(
            f"{log} belongs to another file than {path}, such as the one that this copy replaced: "
            "move it away, for SQLite would mix the two"
        )


def _claim(database: sqlite3.Connection, path: Path) -> tuple[bytes, int]:
    """Check that a file is a journal; returns its id and how many entries it has."""
    database.execute("PRAGMA locking_mode=EXCLUSIVE")
    ((application,),) = database.execute("PRAGMA application_id").fetchall()
    ((schema,),) = database.execute("PRAGMA user_version").fetchall()
    if application != APPLICATION:
        raise JournalForeign(f"{path} is the database of another program, not a journal")
    if schema != SCHEMA:
        raise JournalForeign(
            f"{path} has version {schema} of the schema, and this is version {SCHEMA}: open it "
            "with the release that wrote it"
        )
    ((count,),) = database.execute("SELECT ifnull(max(position), 0) FROM entries").fetchall()
    match database.execute("SELECT id FROM about").fetchall():
        case [(bytes(id),)] if len(id) == 16:
            return id, count
        case _:
            raise JournalCorrupt(f"{path} has no identifier: restore a copy")


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    """Lock a journal, and have each commit wait for the disk."""
    ((mode,),) = database.execute("PRAGMA journal_mode=WAL").fetchall()
    if mode != "wal":
        raise JournalError(f"{path} cannot have a log of writes (WAL), SQLite chose {mode}")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("PRAGMA fullfsync=ON")  # elsewhere than on macOS, a flush is one anyway
    database.execute("BEGIN EXCLUSIVE")
    database.execute("COMMIT")


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


_ADVICE: Final[Mapping[int, tuple[type[JournalError], str]]] = {
    sqlite3.SQLITE_FULL: (
        JournalFull,
        "the disk is full; nothing of this batch counts as recorded: make room and open it again",
    ),
    sqlite3.SQLITE_BUSY: (JournalBusy, ADVICE),
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


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file durable."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
