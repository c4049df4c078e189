"""Files that are no journal, or not whole, or not to be written: each has its own error."""

from __future__ import annotations

import functools
import os
import shutil
import sqlite3
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from protocols.journal import (
    AlreadySigned,
    Journal,
    JournalBusy,
    JournalClosed,
    JournalCorrupt,
    JournalError,
    JournalForeign,
    JournalFull,
    JournalMissing,
    KeyRing,
    SqliteStore,
    sqlite,
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
    "two identifiers": (
        lambda path: _change(path, "INSERT INTO about SELECT * FROM about"),
        JournalCorrupt,
    ),
    "a short identifier": (
        lambda path: _change(path, "UPDATE about SET id = x'00'"),
        JournalCorrupt,
    ),
    "a text in place of a number": (
        lambda path: _change(path, "UPDATE heads SET length = 'ten'"),
        JournalCorrupt,
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_no_other_file_is_taken_for_a_journal(case: str, path: Path):
    """Nor does an empty journal take its place."""
    change, error = OTHERS[case]
    change(path)
    before = path.read_bytes() if path.is_file() else None
    # Once more: what was refused is neither locked nor changed.
    for _ in range(2):
        with pytest.raises(error) as caught, Journal.open(path) as journal:
            journal.verify()
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


def test_a_new_file_has_the_numbers_of_the_specification(path: Path):
    """specs/journal.md: application id 0x76666A6C, version 1, 16 random bytes."""
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA application_id").fetchone() == (0x76666A6C,)
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
    ((id,),) = database.execute("SELECT id FROM about").fetchall()
    database.close()
    assert len(id) == 16
    with Journal.open(path) as journal, Journal.create(path.with_name("new")) as other:
        assert journal.id == id != other.id


def test_a_file_system_without_a_log_of_writes_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With another, a commit may be undone by a loss of power."""

    class WithoutLog(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:  # type: ignore[override]
            return super().execute(sql.replace("=WAL", "=DELETE"), *values)

    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=WithoutLog))
    with pytest.raises(JournalError, match="cannot have a log of writes"):
        SqliteStore.open(path)


def test_a_file_that_is_refused_stays_free_for_its_own_program(path: Path):
    _change(path, "PRAGMA application_id = 1")
    with pytest.raises(JournalForeign) as caught:
        SqliteStore.open(path)
    _change(path, "CREATE TABLE its (own TEXT)")
    assert caught.value.__traceback__ is not None  # which holds what the call had


def test_making_and_refusing_leaves_nothing(path: Path):
    """No draft, and no file open."""
    folder = path.parent / "folder"
    folder.mkdir()
    handle = os.open(os.devnull, os.O_RDONLY)
    os.close(handle)
    SqliteStore.create(folder / "a").close()
    with pytest.raises(JournalError, match="cannot be opened: check its folder"):
        SqliteStore.create(folder / "missing" / "a")
    with pytest.raises(JournalMissing):
        SqliteStore.open(folder / "missing")
    again = os.open(os.devnull, os.O_RDONLY)
    os.close(again)
    assert again == handle
    assert sorted(each.name for each in folder.iterdir()) == ["a", "a-lock"]


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (FileExistsError, FileExistsError, "faster"),
        (PermissionError, JournalError, "new cannot be made: check its folder"),
        (SystemExit, SystemExit, "faster"),
    ],
)
def test_a_journal_that_is_being_made_is_whole_or_missing(
    error: type[BaseException],
    expected: type[BaseException],
    said: str,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Another process was faster, the disk has no links, or the process ends."""

    def refused(*_: object) -> None:
        raise error("faster")

    names = sorted(path.parent.iterdir())
    monkeypatch.setattr(Path, "hardlink_to", refused)
    with pytest.raises(expected, match=said):
        SqliteStore.create(path.with_name("new"))
    assert sorted(path.parent.iterdir()) == names
    with pytest.raises(JournalMissing):
        SqliteStore.open(path.with_name("new"))


def test_a_folder_cannot_be_flushed_everywhere(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Windows has no handles of folders."""
    real = os.open

    def opened(name: Any, *values: Any) -> int:
        if Path(name).is_dir():
            raise PermissionError(name)
        return real(name, *values)

    with monkeypatch.context() as windows:
        windows.setattr(os, "open", opened)
        with pytest.raises(PermissionError):
            SqliteStore.create(path.with_name("b"))
        windows.setattr(sqlite, "os", types.SimpleNamespace(name="nt", PathLike=os.PathLike))
        SqliteStore.create(path.with_name("c")).close()
    SqliteStore.open(path.with_name("c")).close()


def test_a_closed_store_says_so_and_closes_nothing_else(path: Path):
    store = SqliteStore.open(path)
    store.close()
    handles = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
    store.close()
    for handle in handles:
        os.close(handle)
    for use in (store.heads, store.names, lambda: store.read("a", 0), lambda: store.append([])):
        with pytest.raises(JournalClosed, match="open it again"):
            use()


def test_pages_outside_of_all_chains_are_verified(path: Path):
    database = sqlite3.connect(path)
    query = "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_entries_1'"
    ((page,),) = database.execute(query).fetchall()
    ((size,),) = database.execute("PRAGMA page_size").fetchall()
    database.close()
    data = path.read_bytes()
    at = data.rindex(b"b", 0, page * size)  # the name of a stream, in the index of all entries
    assert at > (page - 1) * size
    store = SqliteStore.open(path)
    store.verify()
    store.close()
    _overwrite(path, at, b"c")
    store = SqliteStore.open(path)
    with pytest.raises(JournalCorrupt, match="is damaged: "):
        store.verify()
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
    with pytest.raises(FileExistsError, match="exists"):
        Journal.create(path.with_name("b.journal"))
    assert names == ["a.journal-lock", "a.journal-wal", "b.journal"]


def _content(path: Path) -> object:
    """All that a journal says; JournalError as soon as it finds damage."""
    with Journal.open(path) as journal:
        journal.verify()
        return journal.id, journal.streams(), journal.read("a"), journal.read("b")


def _refused(path: Path, changes: Iterable[bytes]) -> int:
    """How many changes of a file are refused in words; what is opened has lost nothing."""
    data, whole = path.read_bytes(), _content(path)
    found = 0
    for number, change in enumerate(changes):
        path.write_bytes(change)
        try:
            assert _content(path) == whole, number
        except JournalError:
            found += 1
        path.write_bytes(data)
    return found


def test_no_damage_is_read_as_content(path: Path):
    """A flipped bit is found by SQLite or by a chain, or nothing depends on it."""
    data = path.read_bytes()
    flipped = (
        data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(100, len(data), 1499)
    )
    assert _refused(path, flipped) > 10


def test_a_file_that_was_cut_or_overwritten_is_never_read_as_less(path: Path):
    """At the end of any page, within any, and in any: refused in words, or nothing is lost."""
    data = path.read_bytes()
    changes = (
        change
        for at in range(0, len(data), 2900)
        for change in (data[:at], data[: at + 7], data[:at] + bytes(512) + data[at + 512 :])
    )
    assert _refused(path, changes) > 20


SLOT = bytes(32)


@pytest.fixture
def killed(path: Path) -> Path:
    """A journal whose process was killed: its newest transactions are in the log of writes."""
    folder = path.parent / "killed"
    folder.mkdir()
    store = SqliteStore.open(path)
    store.copy(folder / "older")
    with Journal(store) as journal:
        keys = KeyRing(journal)
        keys.take(b"key", owner="a")
        for number in range(3):
            keys.record(b"key").permit(bytes([number]) * 32, b"first")
        for each in path.parent.glob("a.journal*"):
            shutil.copy(each, folder)
    assert (folder / "a.journal-wal").stat().st_size > 10_000
    return folder / "a.journal"


def _sign_otherwise(path: Path) -> None:
    """Sign other statements, as whoever has forgotten the first ones would."""
    with Journal.open(path) as journal:
        keys = KeyRing(journal)
        keys.take(b"key", owner="a")
        for number in range(3):
            with pytest.raises(AlreadySigned):
                keys.record(b"key").permit(bytes([number]) * 32, b"second")


def _log(path: Path) -> Path:
    return path.with_name("a.journal-wal")


def _other(path: Path) -> None:
    Journal.create(path.with_name("other")).close()
    shutil.copy(path.with_name("other"), path)


LOST: dict[str, tuple[Callable[[Path], object], type[JournalError], str]] = {
    "the log of writes is gone": (lambda path: _log(path).unlink(), JournalCorrupt, "had 24"),
    "it is empty": (lambda path: _log(path).write_bytes(b""), JournalCorrupt, "had 24"),
    "one byte of it is missing": (
        lambda path: _log(path).write_bytes(_log(path).read_bytes()[:-1]),
        JournalCorrupt,
        "has 23 entries, and had 24",
    ),
    "a bit of it is flipped": (
        lambda path: _overwrite(_log(path), 5000, bytes([_log(path).read_bytes()[5000] ^ 1])),
        JournalCorrupt,
        "had 24",
    ),
    "an older copy": (
        lambda path: (_log(path).unlink(), shutil.copy(path.with_name("older"), path)),
        JournalCorrupt,
        "has 20 entries, and had 24",
    ),
    "an older copy beside the log of writes": (
        lambda path: shutil.copy(path.with_name("older"), path),
        JournalCorrupt,
        "belongs to another file",
    ),
    "another journal": (
        lambda path: (_log(path).unlink(), _other(path)),
        JournalForeign,
        "put that one back",
    ),
    "another journal and the log of writes": (_other, JournalForeign, "put that one back"),
    "an empty file beside the log of writes": (
        lambda path: path.write_bytes(b""),
        JournalCorrupt,
        "is empty",
    ),
}


@pytest.mark.parametrize("case", LOST)
def test_nothing_acknowledged_is_forgotten_after_a_kill(case: str, killed: Path):
    """SQLite takes what it finds for all there is; a key would sign a second time."""
    kept = {each: each.read_bytes() for each in killed.parent.glob("a.journal*")}
    change, error, said = LOST[case]
    change(killed)
    for _ in range(2):
        with pytest.raises(error, match=said):
            _sign_otherwise(killed)
    assert _log(killed).exists() == (" beside " in case)
    for each, data in kept.items():
        each.write_bytes(data)
    _sign_otherwise(killed)


def test_a_log_of_writes_that_was_cut_anywhere_is_refused(killed: Path):
    kept = {each: each.read_bytes() for each in killed.parent.glob("a.journal*")}
    size = _log(killed).stat().st_size
    for at in range(0, size, 2029):
        for each, data in kept.items():
            each.write_bytes(data[: at if each == _log(killed) else None])
        with pytest.raises(JournalCorrupt, match="had 24"):
            Journal.open(killed)


def test_an_older_copy_is_taken_if_its_owner_says_so(killed: Path):
    """By removing the file `-lock`: what was signed since is forgotten."""
    change, _, _ = LOST["an older copy"]
    change(killed)
    killed.with_name("a.journal-lock").unlink()
    with Journal.open(killed) as journal:
        assert journal.streams() == ["a"]
        journal.submit("a", [b"more"]).result()
    assert int.from_bytes(killed.with_name("a.journal-lock").read_bytes()[16:], "big") == 21


def test_a_new_journal_may_take_the_name_of_one_that_was_removed(path: Path):
    path.unlink()
    with Journal.create(path) as journal:
        journal.submit("a", [b"0"], begin=True).result()
    with Journal.open(path) as journal:
        assert journal.read("a")[1] == [b"0"]


def test_a_link_is_no_second_name(path: Path):
    """Another name would have another lock, and another log of writes."""
    link = path.with_name("link")
    link.symlink_to(path)
    with Journal.open(link):
        path.read_bytes()  # POSIX takes SQLite's lock
        with pytest.raises(JournalBusy, match="another coordinator"):
            Journal.open(path)
    with Journal.open(path), pytest.raises(JournalBusy):
        Journal.open(link)
    assert not path.with_name("link-lock").exists()


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
