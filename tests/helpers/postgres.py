"""A journal's store on PostgreSQL, and a server for tests where the machine has one.

The store is as short as the interface is narrow. Its lock is an advisory one, which the server
releases when the connection ends.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from protocols.journal import Entry, JournalBusy, JournalError, JournalFull, StreamHead

_TABLES = """
CREATE TABLE about (id bytea NOT NULL);
CREATE TABLE entries (
  position bigserial PRIMARY KEY, stream text NOT NULL, number bigint NOT NULL,
  last boolean NOT NULL, link bytea NOT NULL, body bytea NOT NULL, UNIQUE (stream, number)
);
CREATE TABLE heads (stream text PRIMARY KEY, length bigint NOT NULL, link bytea NOT NULL);
"""


class PostgresStore:
    """A journal's store in a database of a PostgreSQL server."""

    def __init__(self, connection: Any):
        self._connection = connection
        ((locked,),) = self._all("SELECT pg_try_advisory_lock(hashtext('journal'))")
        if not locked:
            connection.close()
            raise JournalBusy("another coordinator has the journal open: stop it")
        self._all("SET synchronous_commit = on")
        ((self.id,),) = self._all("SELECT id FROM about")

    @staticmethod
    def create(connection: Any) -> None:
        with connection.transaction():
            connection.execute(_TABLES)
            connection.execute("INSERT INTO about VALUES (%s)", (secrets.token_bytes(16),))

    def heads(self) -> Mapping[str, StreamHead]:
        rows = self._all("SELECT stream, length, link FROM heads")
        return {stream: StreamHead(length=length, link=link) for stream, length, link in rows}

    def names(self) -> Sequence[str]:
        return [name for (name,) in self._all("SELECT DISTINCT stream FROM entries")]

    def read(self, stream: str, first: int) -> Sequence[Entry]:
        rows = self._all(
            "SELECT number, last, link, body FROM entries WHERE stream = %s AND number >= %s "
            "ORDER BY number",
            (stream, first),
        )
        return [
            Entry(stream=stream, number=number, last=last, link=link, body=body)
            for number, last, link, body in rows
        ]

    def append(self, entries: Sequence[Entry]) -> frozenset[str]:
        with _explained(), self._connection.transaction(), self._connection.cursor() as cursor:
            begun = [e.stream for e in entries if e.number == 0]
            rows = cursor.execute(
                "SELECT stream FROM entries WHERE number = 0 AND stream = ANY(%s)", (begun,)
            ).fetchall()
            refused = frozenset(stream for (stream,) in rows)
            taken = [e for e in entries if e.stream not in refused]
            cursor.executemany(
                "INSERT INTO entries (stream, number, last, link, body) VALUES (%s,%s,%s,%s,%s)",
                [(e.stream, e.number, e.last, e.link, e.body) for e in taken],
            )
            newest = {e.stream: e for e in taken}.values()
            cursor.executemany(
                "INSERT INTO heads VALUES (%s, %s, %s) ON CONFLICT (stream) "
                "DO UPDATE SET length = excluded.length, link = excluded.link",
                [(e.stream, e.number + 1, e.link) for e in newest if not e.last],
            )
            cursor.executemany(
                "DELETE FROM heads WHERE stream = %s", [(e.stream,) for e in newest if e.last]
            )
        return refused

    def close(self) -> None:
        # The server ends a closed connection's session, and gives back its lock, a moment later.
        if not self._connection.broken:
            self._all("SELECT pg_advisory_unlock(hashtext('journal'))")
        self._connection.close()

    def _all(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with _explained():
            cursor = self._connection.execute(query, values)
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    import psycopg  # noqa: PLC0415  Only where there is a server.

    try:
        yield
    except psycopg.errors.UniqueViolation as error:
        raise JournalBusy(f"another coordinator is at work ({error})") from error
    except psycopg.errors.DiskFull as error:
        raise JournalFull(f"the server's disk is full ({error})") from error
    except psycopg.Error as error:
        raise JournalError(f"PostgreSQL reports an error ({error})") from error


def _program(name: str) -> str | None:
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, places), os.environ["PATH"]]))


def missing() -> str | None:
    """What is missing to test against a server; None if nothing is."""
    if importlib.util.find_spec("psycopg") is None:
        return "the package psycopg is not installed"
    if _program("initdb") is None or _program("postgres") is None:
        return "there is no PostgreSQL server here (Debian's package is postgresql)"
    return None


@dataclass
class Server:
    """A server of its own, on a socket in a folder, reached by no network."""

    folder: Path
    databases: list[str] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path) -> Iterator[Self]:
        """A new server, which ends with the block. PostgreSQL does not run as root."""
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = {"user": "nobody", "group": "nogroup"}
            # The folders above are closed to other users.
            folder = Path("/tmp") / f"journal-{secrets.token_hex(8)}"  # noqa: S108
            folder.mkdir()
            shutil.chown(folder, "nobody", "nogroup")
        data = folder / "data"
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        try:
            subprocess.run(  # noqa: S603
                [_program("initdb"), "-D", data, "-U", "test", "-A", "trust", "-N"],
                check=True,
                **options,
                **user,
            )
            process = subprocess.Popen(  # noqa: S603
                [_program("postgres"), "-D", data, "-k", folder, "-h", "", "-F"],
                **options,
                **user,
            )
            try:
                yield cls(folder)
            finally:
                process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
                process.wait(30)
        finally:
            if user:
                shutil.rmtree(folder)

    def connect(self, database: str) -> Any:
        """A connection, as soon as the server answers."""

        import psycopg  # noqa: PLC0415

        for attempt in range(300):
            try:
                return psycopg.connect(
                    host=str(self.folder), user="test", dbname=database, autocommit=True
                )
            except psycopg.OperationalError:
                if attempt == 299:
                    raise
                time.sleep(0.05)
        raise AssertionError("unreachable")

    def new_database(self) -> str:
        """Name of a new database with an empty journal."""
        name = f"journal{len(self.databases)}"
        self.databases.append(name)
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}")
        with self.connect(name) as connection:
            PostgresStore.create(connection)
        return name

    def open(self, database: str) -> PostgresStore:
        """The store of a database."""
        return PostgresStore(self.connect(database))
