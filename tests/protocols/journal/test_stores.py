"""What a journal needs of any store, on each: in memory, on SQLite, on PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from protocols.journal import (
    AlreadyRecorded,
    Entry,
    Journal,
    JournalBusy,
    JournalClosed,
    JournalCorrupt,
    JournalError,
    JournalFull,
    NotRecorded,
    SqliteStore,
    Store,
    StreamHead,
)
from protocols.journal.store import MAX_BODY, NO_LINK
from tests.helpers import postgres
from tests.helpers.journals import FailingStore, GatedStore, MemoryStore
from verifiable.encoding import tagged_hash


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    if postgres.missing():
        pytest.skip(f"PostgreSQL is not tested: {postgres.missing()}")
    with postgres.Server.started(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens one and the same store again and again."""
    match request.param:
        case "memory":
            store = MemoryStore()
            return lambda: store
        case "sqlite":
            SqliteStore.create(tmp_path / "a.journal").close()
            return lambda: SqliteStore.open(tmp_path / "a.journal")
        case _:
            server: postgres.Server = request.getfixturevalue("server")
            name = server.new_database()
            return lambda: server.open(name)


def test_what_was_acknowledged_is_there_after_a_restart(reopen: Callable[[], Store]):
    with Journal(reopen()) as journal:
        first = journal.submit("a/1", [b"one", b""], begin=True, result="done")
        journal.submit("a/2", [bytes(300)], begin=True)
        journal.submit("a/1", [b"\xff" * 5000])
        journal.submit("b/1", [b"only"], begin=True, last=True)
        assert first.result() == "done"
        identity = journal.id
    with Journal(reopen()) as journal:
        assert journal.id == identity
        assert journal.streams() == ["a/1", "a/2"]
        assert journal.streams("a/1") == ["a/1"]
        assert journal.read("a/1")[1] == [b"one", b"", b"\xff" * 5000]
        assert journal.read("a/1", 2)[1] == [b"\xff" * 5000]
        assert journal.read("b/1")[1] == [b"only"]
        journal.submit("a/1", [b"end"], last=True).result()
        journal.verify()
    with Journal(reopen()) as journal:
        assert journal.streams() == ["a/2"]
        assert journal.read("a/1")[1][-1] == b"end"
        with pytest.raises(NotRecorded, match="no stream") as raised:
            journal.read("a/3")
        assert isinstance(raised.value, ValueError)
        assert raised.value.stream == "a/3"


def test_a_stream_begins_once(reopen: Callable[[], Store]):
    """The others of the same transaction are recorded, and what follows in it is not."""
    with Journal(reopen()) as journal:
        journal.submit("a", [b"1"], begin=True, last=True)
        with pytest.raises(AlreadyRecorded):
            journal.submit("a", [b"2"], begin=True).result()
        journal.submit("b", [b"1"], begin=True).result()
        # One that has ended is known to the store alone, which says so later.
        late = journal.submit("a", [b"2"], begin=True)
        assert isinstance(late.exception(), AlreadyRecorded)
        assert journal.head("a") is None
        with pytest.raises(AlreadyRecorded):
            journal.submit("b", [b"2"], begin=True)
    with Journal(reopen()) as journal:
        again = journal.submit("a", [b"2"], begin=True)
        more = [journal.submit("b", [bytes([i])]) for i in range(3)]
        with pytest.raises(AlreadyRecorded):
            again.result()
        assert [future.result() for future in more] == [None] * 3
        with pytest.raises(AlreadyRecorded):
            journal.submit("a", [b"3"], begin=True).result()
        assert journal.read("a")[1] == [b"1"]
        assert len(journal.read("b")[1]) == 4


def test_a_transaction_that_fails_leaves_nothing(reopen: Callable[[], Store]):
    """Neither its other entries, nor a store that takes no more."""
    store = reopen()
    first = Entry.after(NO_LINK, stream="a", number=0, last=False, body=b"0")
    fine = Entry.after(NO_LINK, stream="b", number=0, last=True, body=b"0")
    store.append([first])
    again = Entry.after(first.link, stream="a", number=1, last=False, body=b"1")
    with pytest.raises(JournalBusy):
        store.append([fine, again, again])
    assert store.append([fine]) == frozenset()
    assert store.append([again]) == frozenset()
    assert list(store.read("a", 0)) == [first, again]
    assert list(store.read("b", 0)) == [fine]
    assert store.heads() == {"a": StreamHead(length=2, link=again.link)}
    assert sorted(store.names()) == ["a", "b"]
    store.close()


def test_two_writers_never_share_a_stream(reopen: Callable[[], Store]):
    """Where a lock is lost, as with a connection to a server, numbers still keep them apart."""
    store = reopen()
    first = Entry.after(NO_LINK, stream="a", number=0, last=False, body=b"0")
    second = Entry.after(first.link, stream="a", number=1, last=False, body=b"1")
    other = Entry.after(first.link, stream="a", number=1, last=False, body=b"another")
    store.append([first, second])
    with pytest.raises(JournalBusy):
        store.append([other])
    assert list(store.read("a", 0)) == [first, second]
    assert store.heads()["a"].link == second.link
    store.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_second_coordinator_is_refused(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    if kind == "sqlite":
        SqliteStore.create(tmp_path / "a.journal").close()
        opened: Callable[[], Store] = lambda: SqliteStore.open(tmp_path / "a.journal")  # noqa: E731
    else:
        server: postgres.Server = request.getfixturevalue("server")
        name = server.new_database()
        opened = lambda: server.open(name)  # noqa: E731
    first = opened()
    with pytest.raises(JournalBusy, match="another coordinator"):
        opened()
    first.close()
    opened().close()


def test_many_acknowledgements_wait_for_one_flush():
    """While the store writes, submissions collect: the next transaction takes them all."""
    go, store = threading.Event(), MemoryStore()
    plain = store.append
    store.append = lambda entries: (go.wait(10), plain(entries))[1]
    journal = Journal(store)
    futures = [journal.submit(f"s/{i}", [b"x"], begin=True) for i in range(100)]
    assert not any(future.done() for future in futures)
    assert journal.commits == 0
    go.set()
    for future in futures:
        future.result()
    assert 1 <= journal.commits <= 2
    journal.close()


def _behind(store: GatedStore) -> tuple[Journal, Future[None]]:
    """A journal whose thread waits in the store, with the entry of a stream "first"."""
    journal = Journal(store)
    future = journal.submit("first", [b"0"], begin=True)
    assert store.entered.wait(20)
    return journal, future


def test_a_transaction_is_full_with_4096_entries():
    """Submissions are not divided: the last of them may have more."""
    store = GatedStore()
    journal, _ = _behind(store)
    journal.submit("a", [b"0"], begin=True)
    for _ in range(4096):
        journal.submit("a", [b"1"])
    store.go.set()
    journal.flush()
    assert store.sizes == [1, 4096, 1]
    store.go.clear()
    store.entered.clear()
    journal.submit("a", [b"2"])
    assert store.entered.wait(20)
    for size in (4095, 3, 2):
        journal.submit("a", [b"3"] * size)
    store.go.set()
    journal.close()
    assert store.sizes[3:] == [1, 4098, 2]


def test_a_stream_that_is_being_ended_is_not_begun_again():
    """Both would be in one transaction, and the store would take neither."""
    store = GatedStore()
    journal, _ = _behind(store)
    ended = journal.submit("a", [b"0", b"1"], begin=True, last=True)
    with pytest.raises(AlreadyRecorded):
        journal.submit("a", [b"2"], begin=True)
    with pytest.raises(NotRecorded, match="ended"):
        journal.submit("a", [b"2"])
    store.go.set()
    ended.result()
    journal.close()
    assert [entry.body for entry in store.entries["a"]] == [b"0", b"1"]


def test_everyone_who_waits_is_told_of_a_failure():
    store = GatedStore(fail_in=0)
    journal, first = _behind(store)
    behind = [journal.submit(name, [b"0"], begin=True) for name in "ab"]
    threading.Timer(0.05, store.go.set).start()
    with pytest.raises(JournalClosed, match="disk is full"):
        journal.flush()
    for future in (first, *behind):
        assert isinstance(future.exception(20), JournalFull)
    journal.close()
    assert store.entries == {}


def test_a_callback_that_ends_its_thread_leaves_nobody_waiting():
    """The entries are stored, and it is not known who was told."""
    store = GatedStore()
    journal, _ = _behind(store)

    def leave(_: Future[None]) -> None:
        raise SystemExit

    futures = [journal.submit(name, [b"0"], begin=True) for name in "abc"]
    futures[1].add_done_callback(leave)
    store.go.set()
    assert futures[0].result(20) is None
    assert futures[1].result(20) is None
    assert isinstance(futures[2].exception(20), JournalError)
    with pytest.raises(JournalClosed, match="SystemExit"):
        journal.submit("d", [b"0"], begin=True)
    journal.close()


def test_whatever_a_store_raises_is_an_error_of_the_journal():
    store = MemoryStore()
    store.append = lambda entries: 1 // 0  # type: ignore[method-assign, assignment, return-value]
    with Journal(store) as journal:
        future = journal.submit("a", [b"0"], begin=True)
        with pytest.raises(JournalError, match="ZeroDivisionError"):
            future.result()


def test_closing_writes_what_was_submitted():
    store = GatedStore()
    journal, first = _behind(store)
    second = journal.submit("a", [b"0"], begin=True)
    threading.Timer(0.05, store.go.set).start()
    journal.close()
    assert (first.result(), second.result()) == (None, None)
    assert set(store.entries) == {"first", "a"}
    assert store.closed
    journal.close()
    for use in (lambda: journal.submit("a", [b"1"]), journal.flush):
        with pytest.raises(JournalClosed, match="was closed"):
            use()


def test_a_journal_that_nobody_closes_keeps_no_process_alive():
    with Journal(MemoryStore()):
        mine = [thread for thread in threading.enumerate() if thread.name == "journal"]
        assert mine
        assert all(thread.daemon for thread in mine)


def test_what_is_read_holds_all_that_was_submitted_before():
    class Slow(MemoryStore):
        def append(self, entries: Sequence[Entry]) -> frozenset[str]:
            time.sleep(0.05)
            return super().append(entries)

    with Journal(Slow()) as journal:
        journal.submit("a", [b"1"], begin=True)
        assert journal.contents("a") == [b"1"]
        journal.submit("a", [b"2", b"3"])
        assert journal.read("a", 1)[1] == [b"2", b"3"]
        journal.submit("begun and ended at once", [b"4"], begin=True, last=True)
        assert journal.contents("begun and ended at once") == [b"4"]


@pytest.mark.parametrize("stored", [False, True])
def test_nothing_is_acknowledged_after_a_write_has_failed(stored: bool):
    store = FailingStore(fail_in=1, stored=stored)
    journal = Journal(store)
    journal.submit("a", [b"0"], begin=True).result()
    lost = journal.submit("a", [b"1"])
    with pytest.raises(JournalFull):
        lost.result()
    for attempt in (
        lambda: journal.submit("a", [b"2"]),
        lambda: journal.read("a"),
        journal.flush,
    ):
        with pytest.raises(JournalClosed, match="open the journal again"):
            attempt()
    journal.close()
    with Journal(store) as again:
        assert again.read("a")[1] == [b"0", b"1"][: 1 + stored]
    with pytest.raises(JournalClosed):
        again.submit("a", [b"2"])


def test_a_fork_does_not_use_the_journal(monkeypatch: pytest.MonkeyPatch):
    """It has no thread that writes, and would wait for ever."""
    with Journal(MemoryStore()) as journal:
        journal.submit("a", [b"0"], begin=True).result()
        with monkeypatch.context() as forked:
            forked.setattr("os.getpid", lambda: 1)
            for use in (
                lambda: journal.submit("a", [b"1"]),
                lambda: journal.read("a"),
                journal.flush,
                journal.close,
            ):
                with pytest.raises(JournalClosed, match="fork"):
                    use()
        assert journal.read("a")[1] == [b"0"]


def test_a_future_cannot_be_cancelled():
    """Otherwise the thread that writes would stumble over it."""
    store = GatedStore()
    journal, future = _behind(store)
    assert not future.done()
    assert not future.cancel()
    store.go.set()
    future.result()
    journal.close()


def _changed(entry: Entry, **change: object) -> Entry:
    fields = {n: getattr(entry, n) for n in ("stream", "number", "last", "link", "body")}
    return Entry(**{**fields, **change})  # type: ignore[arg-type]


DAMAGE: dict[str, Callable[[list[Entry]], object]] = {
    "an entry is changed": lambda e: e.__setitem__(1, _changed(e[1], body=b"another")),
    "an entry is missing": lambda e: e.pop(1),
    "the first is missing": lambda e: e.pop(0),
    "two are exchanged": lambda e: e.__setitem__(slice(1, 3), [e[2], e[1]]),
    "one is there twice": lambda e: e.insert(1, e[1]),
    "a link is changed": lambda e: e.__setitem__(2, _changed(e[2], link=bytes(32))),
    "the end is missing": lambda e: e.pop(),
    "an entry is made the last": lambda e: e.__setitem__(1, _changed(e[1], last=True)),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("ended", [False, True])
def test_damage_is_found_when_a_stream_is_read(damage: str, ended: bool):
    store = MemoryStore()
    journal = Journal(store)
    journal.submit("a", [b"0", b"1", b"2", b"3"], begin=True, last=ended).result()
    DAMAGE[damage](store.entries["a"])
    for read in (lambda: journal.read("a"), journal.verify):
        with pytest.raises(JournalCorrupt, match="restore a copy"):
            read()
    journal.close()


def test_a_stream_without_its_entries_is_damaged():
    store = MemoryStore()
    with Journal(store) as journal:
        journal.submit("a", [b"0"], begin=True).result()
        journal.submit("b", [b"0"], begin=True, last=True).result()
        journal.verify()
        del store.entries["a"]
        for use in (journal.verify, lambda: journal.read("a"), lambda: journal.contents("a")):
            with pytest.raises(JournalCorrupt, match="stream a does not end"):
                use()


def test_nothing_is_read_from_beyond_the_end():
    with Journal(MemoryStore()) as journal:
        open_ = journal.submit("a", [b"0", b"1"], begin=True)
        journal.submit("b", [b"0", b"1"], begin=True, last=True).result()
        open_.result()
        head = journal.head("a")
        assert head is not None
        assert head.length == 2
        assert journal.read("a", 2) == (head.link, [])
        with pytest.raises(JournalCorrupt):
            journal.read("a", 4)
        with pytest.raises(NotRecorded, match="fewer entries"):
            journal.read("b", 4)


def test_a_link_is_the_hash_of_the_specification():
    """specs/journal.md: of the link before, the stream, the number and the mark, and the body."""
    entry = Entry.after(bytes(range(32)), stream="a/1", number=258, last=True, body=b"b" * MAX_BODY)
    place = (258).to_bytes(8, "big") + b"\x01"
    assert entry.link == tagged_hash(
        "journal entry", bytes(range(32)), b"a/1", place, b"b" * MAX_BODY
    )
    first = Entry.after(NO_LINK, stream="a", number=0, last=False, body=b"")
    assert first.link == tagged_hash("journal entry", bytes(32), b"a", bytes(9), b"")
    assert MAX_BODY == 2**21
    with pytest.raises(ValueError, match=f"at most {MAX_BODY} bytes, got {MAX_BODY + 1}"):
        Entry.after(NO_LINK, stream="a", number=0, last=False, body=bytes(MAX_BODY + 1))


def test_callers_mistakes_harm_nothing():
    with Journal(MemoryStore()) as journal:
        for name, bodies, begin in (
            ("a", [b"0"], False),
            ("a", [], True),
            ("", [b"0"], True),
            ("ä", [b"0"], True),
            ("a" * 201, [b"0"], True),
            ("a", [bytes(MAX_BODY + 1)], True),
        ):
            with pytest.raises(ValueError, match=r"stream|entry|bytes"):
                journal.submit(name, bodies, begin=begin)
        journal.submit("a", [b"0"], begin=True).result()
        assert journal.read("a")[1] == [b"0"]
