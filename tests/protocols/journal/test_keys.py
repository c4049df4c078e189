"""No key signs twice for one slot, none comes back from retirement, none has two owners."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocols.journal import (
    AlreadyRecorded,
    AlreadySigned,
    DurableMember,
    Journal,
    JournalBusy,
    JournalClosed,
    JournalCorrupt,
    JournalFull,
    KeyRefused,
    KeyRing,
    OwnedKey,
    slot_of,
)
from protocols.settlement import (
    SettlementError,
    Signer,
    lock,
    prepare_epoch,
    report,
    sign_epoch,
)
from protocols.settlement.statements import Prepare
from tests.helpers.committees import (
    FOUR,
    HEAD,
    OTHER_LOG,
    OTHER_STATEMENT,
    POLICY,
    RECORDS,
    STATEMENT,
    decision,
    holder,
    prepared,
    record,
    vote,
)
from tests.helpers.journals import FailingStore, MemoryStore
from verifiable import encoding
from verifiable.encoding import tagged_hash

KEY, SLOT = b"\x07" * 32, b"\x01" * 32
SECRET = holder(FOUR, 0)
NAME = SECRET.public_key.encoded
OTHER_RECORDS = [record(i) for i in range(1, 8)]


def prepare(proposal: Any = STATEMENT, records: Any = RECORDS) -> Callable[[Any, Signer], Any]:
    return lambda key, signer: prepare_epoch(key, signer, proposal, records)


def member(journal: Journal, head: Any = HEAD) -> DurableMember:
    keys = KeyRing(journal)
    keys.take(NAME, owner="settlement")
    return DurableMember(keys, SECRET, head, POLICY)


def test_a_key_has_one_owner_and_one_epoch():
    store = MemoryStore()
    for _ in range(2):
        with Journal(store) as journal:
            keys = KeyRing(journal)
            keys.take(KEY, owner="audited", epoch=7)
            # Attack 68: the decisions of one protocol teach what passes in the other.
            for other in ({"owner": "replicated", "epoch": 7}, {"owner": "audited", "epoch": 8}):
                with pytest.raises(KeyRefused) as caught:
                    keys.take(KEY, **other)
                assert caught.value.reason == "other-owner"
            own = OwnedKey(id=KEY, owner="audited", epoch=7)
            assert keys.require(KEY) == own
            assert keys.take(KEY, owner="audited", epoch=7) == own
            assert keys.active == {KEY: own}
    assert len(store.entries["keys"]) == 1


def test_a_retired_key_is_never_used_again():
    store = MemoryStore()
    with Journal(store) as journal:
        keys = KeyRing(journal)
        keys.take(KEY, owner="audited", epoch=7)
        signed = keys.record(KEY)
        keys.retire(KEY)
        keys.retire(KEY)
        assert (keys.active, keys.retired) == ({}, {KEY})
        with pytest.raises(KeyRefused):
            signed.permit(SLOT, b"a")
        record = weakref.ref(signed)
        del signed
        gc.collect()
        assert record() is None  # keys are taken and retired each epoch
        ends = [journal.read(stream)[1][-1] for stream in ("keys", f"signed/{KEY.hex()}")]
        assert ends == [encoding.encode(["retired", 1, KEY])] * 2  # as specs/journal.md says
    with Journal(store) as journal:
        keys = KeyRing(journal)
        assert (keys.active, keys.retired) == ({}, {KEY})
        for use in (
            lambda: keys.take(KEY, owner="audited", epoch=7),
            lambda: keys.record(KEY),
            lambda: keys.require(KEY),
        ):
            with pytest.raises(KeyRefused) as caught:
                use()
            assert caught.value.reason == "retired"
        with pytest.raises(KeyRefused) as caught:
            keys.retire(b"never taken")
        assert caught.value.reason == "unknown"


@pytest.mark.parametrize(
    ("id", "owner", "epoch"),
    [
        (b"", "a", 1),
        (bytes(65), "a", 1),
        (KEY, "", 1),
        (KEY, b"a", 1),
        (KEY, "a", -1),
        (KEY, "a", 1.0),
        ("k", "a", 1),
    ],
)
def test_names_of_keys_are_checked(id: Any, owner: str, epoch: int):
    with Journal(MemoryStore()) as journal, pytest.raises(ValueError, match=r"key|epoch"):
        KeyRing(journal).take(id, owner=owner, epoch=epoch)


def test_names_of_keys_may_have_64_bytes():
    for size in (1, 64):
        for epoch in (0, 2**64 - 1):
            assert OwnedKey(id=bytes(size), owner="a", epoch=epoch).epoch == epoch
    for size in (0, 65):
        with pytest.raises(ValueError, match="1 to 64 bytes"):
            OwnedKey(id=bytes(size), owner="a", epoch=0)
    with pytest.raises(ValueError, match="64-bit"):
        OwnedKey(id=b"k", owner="a", epoch=2**64)


def test_a_slot_has_one_statement():
    store = MemoryStore()
    with Journal(store) as journal:
        keys = KeyRing(journal)
        keys.take(KEY, owner="a")
        signed = keys.record(KEY)
        signed.permit(SLOT, b"first")
        signed.permit(SLOT, b"first")
        with pytest.raises(AlreadySigned, match="will not sign") as caught:
            signed.permit(SLOT, b"second")
        assert signed.signed(SLOT) == caught.value.expected
        assert signed.signed(b"\x02" * 32) is None
        signed.permit(b"\x02" * 32, b"second", memory=b"m")
        assert keys.record(KEY) is signed
    with Journal(store) as journal:
        signed = KeyRing(journal).record(KEY)
        assert signed.memory == b"m"
        with pytest.raises(AlreadySigned):
            signed.permit(SLOT, b"second")
        signed.permit(SLOT, b"first")
    assert len(store.entries[f"signed/{KEY.hex()}"]) == 2


def test_the_newest_memory_is_kept():
    """Of the statement that brought one: it is stored in the same entry, and never lost."""
    store = MemoryStore()
    told = [(1, None, None), (2, b"m", b"m"), (3, None, b"m"), (2, b"n", b"n"), (2, b"n", b"n")]
    with Journal(store) as journal:
        keys = KeyRing(journal)
        keys.take(KEY, owner="a")
        record = keys.record(KEY)
        for slot, memory, newest in told:
            record.permit(bytes([slot]) * 32, b"statement", memory=memory)
            assert record.memory == KeyRing(journal).record(KEY).memory == newest
    assert len(store.entries[f"signed/{KEY.hex()}"]) == len(told) - 1


@pytest.mark.parametrize("wrong", ["slot", "statement", "memory"])
def test_what_could_not_be_read_again_is_not_recorded(wrong: str):
    with Journal(MemoryStore()) as journal:
        keys = KeyRing(journal)
        keys.take(KEY, owner="a")
        given: dict[str, Any] = {"slot": SLOT, "statement": b"first", "memory": b"m"}
        with pytest.raises(TypeError, match="bytes, got str"):
            keys.record(KEY).permit(**(given | {wrong: "text"}))
        assert KeyRing(journal).record(KEY).signed(SLOT) is None


@pytest.mark.parametrize("stored", [False, True])
def test_a_crash_at_any_write_signs_nothing_twice(stored: bool):
    """Before or after each entry; after the restart everything is tried again, and otherwise."""
    slots = [bytes([i]) * 32 for i in range(3)]
    for crash in range(6):
        store, signed = FailingStore(fail_in=crash, stored=stored), set[tuple[bytes, bytes]]()
        retired = 0
        for attempt in (b"first", b"second", b"third"):
            with Journal(store) as journal:
                try:
                    keys = KeyRing(journal)
                    keys.take(KEY, owner="a", epoch=1)
                    for slot in slots:
                        try:
                            keys.record(KEY).permit(slot, attempt)
                        except AlreadySigned:
                            continue
                        assert not retired
                        signed.add((slot, attempt))
                    keys.retire(KEY)
                except JournalFull:
                    continue
                except KeyRefused as refused:
                    assert refused.reason == "retired"
                    keys.retire(KEY)
                retired += 1
                assert journal.streams() == ["keys"]  # the record of the key has ended
        assert retired >= 2
        assert len({slot for slot, _ in signed}) == len(signed)
        assert len(signed) >= 3 - stored


@pytest.mark.parametrize("stored", [False, True])
def test_what_may_have_been_signed_counts_as_signed(stored: bool):
    """The write failed, or its acknowledgement was lost: nothing is signed before it is known."""
    store = FailingStore()
    journal = Journal(store)
    keys = KeyRing(journal)
    keys.take(KEY, owner="a")
    store.fail_in, store.stored = 0, stored
    with pytest.raises(JournalFull):
        keys.record(KEY).permit(SLOT, b"first")
    with pytest.raises(JournalClosed):
        keys.record(KEY).permit(SLOT, b"second")
    journal.close()
    with Journal(store) as journal:
        signed = KeyRing(journal).record(KEY)
        if stored:
            with pytest.raises(AlreadySigned):
                signed.permit(SLOT, b"second")
        else:
            signed.permit(SLOT, b"second")


@pytest.mark.parametrize("stream", ["keys", f"signed/{KEY.hex()}"])
@pytest.mark.parametrize("body", [b"\xff", b"\x80", b"\x83\x67retired\x01\x41\x00"])
def test_entries_of_keys_that_mean_nothing_are_refused(stream: str, body: bytes):
    with Journal(MemoryStore()) as journal:
        keys = KeyRing(journal)
        keys.take(KEY, owner="a")
        journal.submit(stream, [body], begin=stream != "keys")
        with pytest.raises(JournalCorrupt):
            KeyRing(journal).record(KEY)


MEANINGLESS: dict[str, list[list[Any]]] = {
    "a key that was taken": [["key", 1, KEY, "b", None]],
    "a key that was retired": [["retired", 1, KEY], ["key", 1, KEY, "a", None]],
    "a second retirement": [["retired", 1, KEY], ["retired", 1, KEY]],
    "the end of an unknown key": [["retired", 1, b"unknown"]],
    "a key without an owner": [["key", 1, b"other", "", None]],
    "an epoch before the first": [["key", 1, b"other", "a", -1]],
    "a later version": [["key", 2, b"other", "a", None]],
}


@pytest.mark.parametrize("case", MEANINGLESS)
def test_keys_that_cannot_be_are_refused_in_words(case: str):
    with Journal(MemoryStore()) as journal:
        KeyRing(journal).take(KEY, owner="a")
        journal.submit("keys", [encoding.encode(wire) for wire in MEANINGLESS[case]])
        with pytest.raises(JournalCorrupt, match=r"entry [12] of keys cannot be read: .* restore"):
            KeyRing(journal)


def test_two_statements_for_one_slot_are_no_record():
    with Journal(MemoryStore()) as journal:
        keys = KeyRing(journal)
        keys.take(KEY, owner="a")
        keys.record(KEY).permit(SLOT, b"first")
        journal.submit(f"signed/{KEY.hex()}", [encoding.encode(["signed", 1, SLOT, b"x", None])])
        with pytest.raises(JournalCorrupt, match=r"entry 1 of signed/.* the one statement"):
            KeyRing(journal).record(KEY)


def test_a_member_votes_as_it_would_without_a_journal():
    with Journal(MemoryStore()) as journal:
        own = member(journal)
        first = own.vote(prepare())
        assert first == vote(FOUR, 0, HEAD.attempt(Prepare, 0, STATEMENT.digest))
        first.verify(FOUR)
        own.vote(lambda key, signer: lock(key, signer, prepared(HEAD, STATEMENT))).verify(FOUR)
        done = own.vote(
            lambda key, signer: sign_epoch(
                key, signer, STATEMENT, RECORDS, decision(HEAD, STATEMENT)
            )
        )
        assert done == vote(FOUR, 0, STATEMENT)


def test_a_member_that_was_killed_signs_no_second_statement():
    store = MemoryStore()
    with Journal(store) as journal:
        first = member(journal).vote(prepare())
    with Journal(store) as journal:
        own = member(journal)
        with pytest.raises(SettlementError) as caught:
            own.vote(prepare(OTHER_STATEMENT, OTHER_RECORDS))
        assert caught.value.reason == "already-signed"
        assert own.vote(prepare()) == first
        assert OTHER_LOG.tree.root == OTHER_STATEMENT.root


@pytest.mark.parametrize("restarted", [False, True])
def test_the_slot_refuses_what_a_memory_that_was_lost_would_allow(restarted: bool):
    """An operator restores the signer of yesterday, or a bug forgets: the ballot is empty."""
    with Journal(MemoryStore()) as journal:
        own = member(journal)
        own.vote(prepare())
        own = member(journal) if restarted else own
        own.signer = Signer(head=HEAD, policy=POLICY)
        with pytest.raises(AlreadySigned):
            own.vote(prepare(OTHER_STATEMENT, OTHER_RECORDS))
        assert own.signer == Signer(head=HEAD, policy=POLICY)


def test_a_second_ring_that_knows_less_signs_nothing():
    with Journal(MemoryStore()) as journal:
        one, two = KeyRing(journal), KeyRing(journal)
        one.take(KEY, owner="a")
        with pytest.raises(JournalBusy):
            two.take(KEY, owner="b")
        two, three = KeyRing(journal), KeyRing(journal)
        one.record(KEY).permit(SLOT, b"first")
        # A ring reads a record when it is asked for: that of `three` stands as it was before.
        early = three.record(KEY)
        one.record(KEY).permit(b"\x02" * 32, b"second")
        with pytest.raises(JournalBusy):
            early.permit(b"\x02" * 32, b"another")
        with pytest.raises(AlreadySigned):
            two.record(KEY).permit(SLOT, b"another")
        one.retire(KEY)
        for ring in (two, three):
            with pytest.raises(JournalBusy):
                ring.record(KEY).permit(b"\x03" * 32, b"third")


def test_a_key_that_never_signed_signs_nothing_once_retired():
    with Journal(MemoryStore()) as journal:
        KeyRing(journal).take(KEY, owner="a")
        one, two = KeyRing(journal), KeyRing(journal)
        record = two.record(KEY)
        one.retire(KEY)
        with pytest.raises(AlreadyRecorded):
            record.permit(SLOT, b"first")


def test_two_objects_for_one_member_share_its_memory():
    """The second would otherwise lock in an attempt that the first has reported as over."""
    with Journal(MemoryStore()) as journal:
        keys = KeyRing(journal)
        keys.take(NAME, owner="settlement")
        one, two = (DurableMember(keys, SECRET, HEAD, POLICY) for _ in range(2))
        one.vote(lambda key, signer: report(key, signer, 1))
        with pytest.raises(SettlementError) as caught:
            two.vote(lambda key, signer: lock(key, signer, prepared(HEAD, STATEMENT)))
        assert caught.value.reason == "other-attempt"


def test_a_member_that_failed_to_store_does_not_sign(monkeypatch: pytest.MonkeyPatch):
    store = FailingStore()
    journal = Journal(store)
    own = member(journal)
    signed: list[bytes] = []

    class Watched:
        public_key = SECRET.public_key

        def sign(self, message: bytes, *, domain: bytes) -> Any:
            signed.append(message)
            return SECRET.sign(message, domain=domain)

    monkeypatch.setattr(own, "_secret", Watched())
    store.fail_in = 0
    before = own.signer
    with pytest.raises(JournalFull):
        own.vote(prepare())
    assert (signed, own.signer) == ([], before)
    journal.close()


def test_a_report_survives_a_restart():
    """Otherwise the member could lock in an attempt that its report has ended."""
    store = MemoryStore()
    with Journal(store) as journal:
        member(journal).vote(lambda key, signer: report(key, signer, 1))
    with Journal(store) as journal, pytest.raises(SettlementError) as caught:
        member(journal).vote(lambda key, signer: lock(key, signer, prepared(HEAD, STATEMENT)))
    assert caught.value.reason == "other-attempt"


def test_a_memory_that_cannot_be_read_signs_nothing():
    with Journal(MemoryStore()) as journal:
        member(journal)
        KeyRing(journal).record(NAME).permit(SLOT, b"statement", memory=b"of a later release")
        with pytest.raises(JournalCorrupt, match=r"memory .* cannot be read"):
            member(journal)


def test_a_member_never_goes_back():
    later = replace(HEAD, epoch=1, root=STATEMENT.root)
    store = MemoryStore()
    with Journal(store) as journal:
        own = member(journal)
        own.vote(prepare())
        own.follow(later)
        own.vote(lambda key, signer: report(key, signer, 1))
    with Journal(store) as journal:
        with pytest.raises(ValueError, match="never goes back"):
            member(journal)
        assert member(journal, later).signer.ballot.attempt == 1
        with pytest.raises(ValueError, match="another policy"):
            DurableMember(KeyRing(journal), SECRET, later, b"\xab" * 32)


def test_slots_are_places():
    at = HEAD.attempt
    same = {slot_of(at(Prepare, 0, bytes([i]) * 32)) for i in range(3)}
    assert len(same) == 1
    later = replace(HEAD, epoch=1)
    others = [
        STATEMENT,
        HEAD.rotation(FOUR),
        at(Prepare, 1, bytes(32)),
        later.attempt(Prepare, 0, bytes(32)),
        replace(HEAD, sequence=1).attempt(Prepare, 0, bytes(32)),
    ]
    assert len(same | {slot_of(other) for other in others}) == 6


def test_a_slot_is_the_hash_of_the_specification():
    """specs/journal.md: of the domain, and the place with numbers as 32 bytes."""
    place = [
        value if isinstance(value, bytes) else int(value).to_bytes(32, "big")  # type: ignore[call-overload]
        for value in STATEMENT.place
    ]
    assert any(type(value) is int for value in STATEMENT.place)
    assert slot_of(STATEMENT) == tagged_hash("settlement slot", STATEMENT.DOMAIN, *place)
