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
from tests.helpers.journals import FailingStore, MemoryStore
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


def test_two_objects_never_write_one_log():
    with Journal(MemoryStore()) as journal:
        one, two = (DurableCommitmentLog(journal, "7") for _ in range(2))
        one.append(DIGESTS[0]).result()
        with pytest.raises(JournalBusy):
            two.append(DIGESTS[1])


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ([], "no commitment"),
        (["commitment", 1, b"short"], "cannot be read: a digest must be 32 bytes, got 5"),
        (["commitment", 2, DIGESTS[1]], "no commitment"),
        (["commitment", 1, DIGESTS[0]], "no commitment"),
        (["closed", 1, "drand"], "no commitment"),
    ],
)
def test_other_entries_are_refused(entry: Any, why: str):
    with Journal(MemoryStore()) as journal:
        DurableCommitmentLog(journal, "7").append(DIGESTS[0])
        journal.submit("commitments/7", [encoding.encode(entry)])
        with pytest.raises(JournalCorrupt, match=why):
            DurableCommitmentLog(journal, "7")
