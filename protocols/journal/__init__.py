"""A durable record: a coordinator, or a committee member, that is killed goes on where it was.

    errors       what can go wrong, and what to do
    store        what a journal needs of a database: entries in hash chains
    sqlite       SqliteStore: a file, by the standard library
    lock         FileLock: one owner of a file, and how many entries it must have
    log          Journal: streams, group commit; acknowledged means on disk
    codec        Codec: bytes of a protocol's events, states and effects, from their types
    machines     Machine: a protocol with its codecs; REPLICATED, AUDITED
    runs         Recorded: a state is the fold of its events; effects are tasks with an id
    commitments  DurableCommitmentLog: a log of an epoch that stays closed
    keys         KeyRing, SigningRecord: owners and retirement of keys, what a key has signed
    member       DurableMember: a settlement member that signs nothing that it has not stored

    with Journal.open("coordinator.journal") as journal:
        for name in journal.streams("replicated/"):
            job = Recorded.resume(journal, REPLICATED, name.removeprefix("replicated/"), rules)
            carry_out(job.pending)

Rules, schema, and what a crash leaves: specs/journal.md.
"""

from __future__ import annotations

from protocols.journal.codec import Codec
from protocols.journal.commitments import DurableCommitmentLog
from protocols.journal.errors import (
    AlreadyRecorded,
    AlreadySigned,
    JournalBusy,
    JournalClosed,
    JournalCorrupt,
    JournalError,
    JournalForeign,
    JournalFull,
    JournalMissing,
    KeyRefused,
    NotRecorded,
)
from protocols.journal.keys import KeyRing, OwnedKey, SigningRecord
from protocols.journal.log import Journal
from protocols.journal.machines import AUDITED, REPLICATED, Machine
from protocols.journal.member import DurableMember, slot_of
from protocols.journal.runs import Recorded, Task
from protocols.journal.sqlite import SqliteStore
from protocols.journal.store import Entry, Store, StreamHead

__all__ = [
    "AUDITED",
    "REPLICATED",
    "AlreadyRecorded",
    "AlreadySigned",
    "Codec",
    "DurableCommitmentLog",
    "DurableMember",
    "Entry",
    "Journal",
    "JournalBusy",
    "JournalClosed",
    "JournalCorrupt",
    "JournalError",
    "JournalForeign",
    "JournalFull",
    "JournalMissing",
    "KeyRefused",
    "KeyRing",
    "Machine",
    "NotRecorded",
    "OwnedKey",
    "Recorded",
    "SigningRecord",
    "SqliteStore",
    "Store",
    "StreamHead",
    "Task",
    "slot_of",
]
