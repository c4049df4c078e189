"""A journal has one owner, and no fewer entries than were acknowledged."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from protocols.journal import JournalBusy, JournalCorrupt, JournalError, JournalForeign, lock
from protocols.journal.lock import FileLock

ID, OTHER = b"\x01" * 16, b"\x02" * 16


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "a.journal"


def test_a_second_owner_is_refused_until_the_first_has_ended(journal: Path):
    first = FileLock(journal)
    for _ in range(2):
        with pytest.raises(JournalBusy, match="another coordinator"):
            FileLock(journal)
    first.close()
    first.close()
    FileLock(journal).close()


def test_refusals_leave_no_file_open(journal: Path):
    """A service tries until the other has ended: it would run out of handles."""
    first = FileLock(journal)
    handle = os.open(os.devnull, os.O_RDONLY)
    os.close(handle)
    for _ in range(3):
        with pytest.raises(JournalBusy):
            FileLock(journal)
    again = os.open(os.devnull, os.O_RDONLY)
    os.close(again)
    assert again == handle
    first.close()


def test_where_there_are_no_such_locks_there_is_still_the_mark(
    journal: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lock, "fcntl", None)
    one, two = FileLock(journal), FileLock(journal)
    one.keep(ID, 5)
    with pytest.raises(JournalCorrupt):
        two.require(ID, 4)
    one.close()
    two.close()


def test_a_file_that_cannot_be_made_is_an_error_of_the_journal(journal: Path):
    journal.with_name("a.journal-lock").mkdir()
    with pytest.raises(JournalError, match="check its folder"):
        FileLock(journal)


def test_only_its_owner_may_write_it(journal: Path):
    held = FileLock(journal)
    mode = journal.with_name("a.journal-lock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    held.close()


def test_a_mark_has_the_bytes_of_the_specification(journal: Path):
    """specs/journal.md: the id, and the number of entries in eight bytes, big-endian."""
    held = FileLock(journal)
    for count in (2**62, 2**40 + 258, 7):
        held.keep(ID, count)
        data = journal.with_name("a.journal-lock").read_bytes()
        assert data == ID + count.to_bytes(8, "big")
        held.require(ID, count)
        with pytest.raises(JournalCorrupt, match=f"had {count}"):
            held.require(ID, count - 1)
    held.close()


@pytest.mark.parametrize(
    ("id", "count", "error"),
    [
        (ID, 256, None),
        (ID, 300, None),
        (ID, 255, JournalCorrupt),
        (ID, 0, JournalCorrupt),
        (OTHER, 256, JournalForeign),
    ],
)
def test_what_was_acknowledged_must_be_there(
    journal: Path, id: bytes, count: int, error: type[JournalError] | None
):
    first = FileLock(journal)
    first.keep(ID, 256)
    first.close()
    again = FileLock(journal)
    for _ in range(2):
        if error is None:
            again.require(id, count)
        else:
            with pytest.raises(error, match="journal-lock"):
                again.require(id, count)
    again.close()


@pytest.mark.parametrize("left", [b"", OTHER[:1], OTHER, OTHER + bytes(7), bytes(24)])
def test_a_mark_that_a_loss_of_power_cut_says_nothing(journal: Path, left: bytes):
    journal.with_name("a.journal-lock").write_bytes(left)
    held = FileLock(journal)
    held.require(ID, 0)
    held.close()


def test_a_mark_that_cannot_be_written_is_an_error_of_the_journal(
    journal: Path, monkeypatch: pytest.MonkeyPatch
):
    def opened(name: str, flags: int) -> int:
        return os.open(name, (flags & ~os.O_RDWR) | os.O_CREAT | os.O_RDONLY, 0o600)

    monkeypatch.setattr(lock, "_opened", opened)
    held = FileLock(journal)
    use: Callable[[], None] = lambda: held.keep(ID, 1)  # noqa: E731
    with pytest.raises(JournalError, match="cannot be written"):
        use()
    held.close()
