"""A commitment log keeps its order, and stays closed, whatever happens to its process."""

from __future__ import annotations

from typing import Any

import pytest

from protocols.journal import (
    DurableCommitmentLog,
    Journal,
    JournalBusy,
    JournalClosed,
    JournalCorrupt,
    JournalFull,
)
from tests.helpers.journals import FailingStore, GatedStore, MemoryStore
from verifiable import encoding
from verifiable.challenge import CommitmentLog

DIGESTS = [bytes([i]) * 32 for i in range(5)]


def test_a_log_survives_and_has_the_root_of_a_plain_one():
    store, plain = MemoryStore(), CommitmentLog()
    for start in range(0, 5, 2):
        with Journal(store) as journal:
            log = DurableCommitmentLog(journal, "7")
            for digest in DIGESTS[: start + 2]:
                assert log.append(digest).result() == plain.append(digest)
    with Journal(store) as journal:
        log = DurableCommitmentLog(journal, "7")
        closed = log.close(chain="drand", closed_at=9)
        assert log.closed == closed
    assert closed == plain.close(chain="drand", closed_at=9)
    with Journal(store) as journal:
        log = DurableCommitmentLog(journal, "7")
        assert log.closed == closed
        assert log.append(DIGESTS[3]).result() == 3
        assert DurableCommitmentLog(journal, "8").closed is None


def test_a_closed_log_is_not_opened_by_a_restart():
    """Otherwise it would take answers that were chosen after the challenge."""
    store = MemoryStore()
    with Journal(store) as journal:
        log = DurableCommitmentLog(journal, "7")
        log.append(DIGESTS[0])
        log.close(chain="drand", closed_at=9)
        with pytest.raises(ValueError, match="closed"):
            log.append(DIGESTS[1])
    with Journal(store) as journal:
        log = DurableCommitmentLog(journal, "7")
        with pytest.raises(ValueError, match="closed"):
            log.append(DIGESTS[1])
        with pytest.raises(ValueError, match="closed"):
            log.close(chain="other", closed_at=10)


def test_a_digest_counts_when_it_is_durable():
    store = FailingStore()
    journal = Journal(store)
    log = DurableCommitmentLog(journal, "7")
    log.append(DIGESTS[0]).result()
    store.fail_in = 0
    first, again = log.append(DIGESTS[1]), log.append(DIGESTS[1])
    for future in (first, again):
        with pytest.raises(JournalFull):
            future.result()
    with pytest.raises(JournalClosed):
        log.close(chain="drand", closed_at=9)
    assert log.closed is None
    journal.close()
    with Journal(store) as journal:
        log = DurableCommitmentLog(journal, "7")
        assert log.append(DIGESTS[2]).result() == 1


def test_a_log_counts_as_closed_when_that_is_durable():
    """A challenge that is drawn earlier may be known while the log still takes commitments."""
    store = FailingStore()
    journal = Journal(store)
    log = DurableCommitmentLog(journal, "7")
    log.append(DIGESTS[0]).result()
    store.fail_in = 0
    with pytest.raises(JournalFull):
        log.close(chain="drand", closed_at=9)
    assert log.closed is None
    journal.close()


def test_members_of_a_log_that_is_closed_have_their_places():
    """Not before that is durable: a log that a crash leaves open may still grow."""
    store, plain = FailingStore(), CommitmentLog()
    journal = Journal(store)
    log = DurableCommitmentLog(journal, "7")
    for digest in DIGESTS:
        log.append(digest)
        plain.append(digest)
    with pytest.raises(ValueError, match="open"):
        log.places(DIGESTS)
    journal.flush()
    store.fail_in = 0
    with pytest.raises(JournalFull):
        log.close(chain="drand", closed_at=9)
    with pytest.raises(ValueError, match="open"):
        log.places(DIGESTS)
    journal.close()
    with Journal(store) as journal:
        log = DurableCommitmentLog(journal, "7")
        closed = log.close(chain="drand", closed_at=9)
        plain.close(chain="drand", closed_at=9)
        assert log.places(DIGESTS[1:3]) == plain.places(DIGESTS[1:3])
        log.places(DIGESTS[1:2])[0].verify(DIGESTS[1], closed)


@pytest.mark.parametrize("stored", [False, True])
def test_a_crash_at_any_write_forgets_nothing_that_was_acknowledged(stored: bool):
    for crash in range(6):
        store, indices, closings = FailingStore(fail_in=crash, stored=stored), {}, set[Any]()
        for attempt in range(2):
            with Journal(store) as journal:
                log = DurableCommitmentLog(journal, "7")
                try:
                    # After a crash the digests come in another order, and the end at another time.
                    for digest in DIGESTS[:: 1 - 2 * attempt]:
                        index = log.append(digest).result()
                        assert indices.setdefault(digest, index) == index
                    closings.add(log.close(chain="drand", closed_at=9 + attempt))
                except (JournalFull, ValueError):
                    closings |= {log.closed} - {None}
        assert sorted(indices.values()) == list(range(5))
        assert len(closings) == 1


def test_a_digest_that_is_being_written_is_acknowledged_with_it():
    store = GatedStore()
    with Journal(store) as journal:
        log = DurableCommitmentLog(journal, "7")
        first, again = log.append(DIGESTS[0]), log.append(DIGESTS[0])
        assert not first.done()
        assert not again.done()
        assert not again.cancel()
        store.go.set()
        assert (first.result(), again.result()) == (0, 0)
    assert store.sizes == [1]


def test_two_objects_never_write_one_log():
    with Journal(MemoryStore()) as journal:
        one, two = (DurableCommitmentLog(journal, "7") for _ in range(2))
        one.append(DIGESTS[0]).result()
        with pytest.raises(JournalBusy):
            two.append(DIGESTS[1])


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ([], "entry 1 of commitments/7 .* another commitment"),
        (["commitment", 1, b"short"], "cannot be read: a digest must be 32 bytes, got 5"),
        (["commitment", 2, DIGESTS[1]], "another commitment"),
        (["commitment", 1, DIGESTS[0]], "another commitment"),
        (["closed", 1, "drand"], "another commitment"),
    ],
)
def test_other_entries_are_refused(entry: Any, why: str):
    with Journal(MemoryStore()) as journal:
        DurableCommitmentLog(journal, "7").append(DIGESTS[0])
        journal.submit("commitments/7", [encoding.encode(entry)])
        with pytest.raises(JournalCorrupt, match=why):
            DurableCommitmentLog(journal, "7")
