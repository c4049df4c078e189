"""Files that are no journal, or not whole, or not to be written: each has its own error."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from protocols.journal import (
    Journal,
    JournalBusy,
    JournalCorrupt,
    JournalError,
    JournalForeign,
    JournalFull,
    JournalMissing,
    KeyRing,
    SqliteStore,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with two streams of ten entries."""
    path = tmp_path / "a.journal"
    with Journal.create(path) as journal:
        journal.submit("a", [bytes([i]) * 1000 for i in range(10)], begin=True)
        journal.submit("b", [bytes([i]) * 1000 for i in range(10)], begin=True, last=True)
    return path


def _change(path: Path, statement: str) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(statement)
    database.close()


def _overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


OTHERS: dict[str, tuple[Callable[[Path], object], type[JournalError]]] = {
    "no file": (lambda path: path.unlink(), JournalMissing),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), JournalMissing),
    "an empty file": (lambda path: path.write_bytes(b""), JournalCorrupt),
    "text": (lambda path: path.write_text("not a database, but long enough" * 99), JournalCorrupt),
    "the head of the file is gone": (lambda path: _overwrite(path, 0, bytes(100)), JournalCorrupt),
    "the file was cut": (
        lambda path: path.write_bytes(path.read_bytes()[:4096]),
        JournalCorrupt,
    ),
    "another program's": (
        lambda path: _change(path, "PRAGMA application_id = 1"),
        JournalForeign,
    ),
    "a later schema": (lambda path: _change(path, "PRAGMA user_version = 2"), JournalForeign),
    "a text in place of bytes": (
        lambda path: _change(path, "UPDATE entries SET body = 'text' WHERE number = 3"),
        JournalCorrupt,
    ),
    "no identifier": (lambda path: _change(path, "DELETE FROM about"), JournalCorrupt),
}


@pytest.mark.parametrize("case", OTHERS)
def test_no_other_file_is_taken_for_a_journal(case: str, path: Path):
    """Nor does an empty journal take its place."""
    change, error = OTHERS[case]
    change(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(error) as caught:
        Journal.open(path).verify()
    assert type(caught.value) is error
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize("opened", [SqliteStore.create, SqliteStore.open])
def test_a_commit_waits_for_the_disk(opened: Callable[[Path], SqliteStore], path: Path):
    """With less than FULL, a loss of power takes what was acknowledged; no kill shows that."""
    if opened == SqliteStore.create:
        path = path.with_name("new")
    store = opened(path)
    settings = {"synchronous": 2, "journal_mode": "wal", "locking_mode": "exclusive"}
    for name, value in {**settings, "fullfsync": 1}.items():
        assert store._db.execute(f"PRAGMA {name}").fetchall() == [(value,)]
    store.close()


def test_the_name_of_a_new_file_is_made_durable(path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[tuple[int, int]] = []

    def recorded(handle: int) -> None:
        found = os.fstat(handle)
        synced.append((found.st_dev, found.st_ino))

    monkeypatch.setattr(os, "fsync", recorded)
    SqliteStore.create(path.with_name("new")).close()
    folder = path.parent.stat()
    assert synced == [(folder.st_dev, folder.st_ino)]


def test_create_replaces_nothing(path: Path):
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="exists"):
        Journal.create(path)
    # Entries that a killed process left in the log of writes belong to the file that is gone.
    path.rename(path.with_name("b.journal"))
    path.with_name("a.journal-wal").write_bytes(b"left alone")
    with pytest.raises(FileExistsError, match="wal"):
        Journal.create(path)
    assert path.with_name("b.journal").read_bytes() == before
    names = sorted(p.name for p in path.parent.iterdir())
    assert names == ["a.journal-lock", "a.journal-wal", "b.journal"]


def _content(path: Path) -> object:
    """All that a journal says; JournalError as soon as it finds damage."""
    with Journal.open(path) as journal:
        journal.verify()
        return journal.id, journal.streams(), journal.read("a"), journal.read("b")


def test_no_damage_is_read_as_content(path: Path):
    """A flipped bit is found by SQLite or by a chain, or nothing depends on it."""
    data, whole = path.read_bytes(), _content(path)
    found = 0
    for at in range(100, len(data), 1499):
        _overwrite(path, at, bytes([data[at] ^ 1]))
        try:
            assert _content(path) == whole, at
        except JournalError:
            found += 1
        path.write_bytes(data)
    assert found > 10


def test_a_full_disk_is_said_and_nothing_is_lost(path: Path):
    store = SqliteStore.open(path)
    ((pages,),) = store._db.execute("PRAGMA page_count").fetchall()
    store._db.execute(f"PRAGMA max_page_count = {pages + 5}")
    journal = Journal(store)
    acknowledged = 10
    with pytest.raises(JournalFull, match="disk is full"):
        for _ in range(100):
            journal.submit("a", [bytes(1000)]).result()
            acknowledged += 1
    journal.close()
    assert acknowledged > 10
    with Journal.open(path) as journal:
        assert len(journal.read("a")[1]) == acknowledged
        journal.submit("a", [b"room again"]).result()


def test_the_lock_survives_another_use_of_the_file(path: Path):
    """POSIX then takes SQLite's own; `test_killed` shows that another process is still refused."""
    fcntl = pytest.importorskip("fcntl")
    with Journal.open(path):
        path.read_bytes()
        with path.with_name("a.journal-lock").open("w") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    Journal.open(path).close()


def test_a_copy_of_a_running_journal_is_whole(path: Path):
    copy = path.with_name("copy")
    store = SqliteStore.open(path)
    with Journal(store) as journal:
        journal.submit("a", [b"more"]).result()
        store.copy(copy)
        with pytest.raises(FileExistsError):
            store.copy(copy)
        with pytest.raises(JournalBusy):
            SqliteStore.open(path)
        journal.submit("a", [b"later"]).result()
        identity = journal.id
    with Journal.open(copy) as journal:
        journal.verify()
        assert journal.id == identity
        assert journal.read("a")[1][10:] == [b"more"]


def test_heads_that_are_lost_begin_nothing_anew(path: Path):
    """A job would be forgotten, and a key would sign again."""
    with Journal.open(path) as journal:
        keys = KeyRing(journal)
        keys.take(b"key", owner="a")
        keys.record(b"key").permit(bytes(32), b"first")
    _change(path, "DELETE FROM heads WHERE stream != 'keys'")
    with Journal.open(path) as journal:
        with pytest.raises(JournalCorrupt):
            journal.verify()
        with pytest.raises(JournalCorrupt):
            KeyRing(journal).record(b"key")
    _change(path, "DELETE FROM heads")
    with Journal.open(path) as journal, pytest.raises(JournalCorrupt):
        KeyRing(journal)


def test_a_copy_of_a_closed_journal_is_whole(path: Path):
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    assert not path.with_name("a.journal-wal").exists()
    with Journal.open(copy) as journal:
        journal.verify()
        assert len(journal.read("a")[1]) == 10


def test_a_file_that_is_no_journal_stays_unlocked(tmp_path: Path):
    path = tmp_path / "a.journal"
    path.write_bytes(b"text" * 100)
    for _ in range(2):
        with pytest.raises(JournalError) as caught:
            SqliteStore.open(path)
        assert not isinstance(caught.value, JournalBusy)
