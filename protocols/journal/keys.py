"""Keys: to whom each belongs, which are retired, and what each has signed.

    keys = KeyRing(journal)
    keys.take(key_id, owner="replicated", epoch=7)     belongs to this protocol and epoch, for ever
    keys.retire(key_id)                                is never used again
    signed = keys.record(key_id)
    signed.permit(slot, statement)                     returns once it may be signed

A key is named by an identifier that reveals nothing, never by its secret: the id of the challenge
for a verifier key (`KeyHeader.challenge`), the public key for a key that signs. A verifier key that
two protocols share lets the decisions of one teach what passes in the other, so a key has one
owner; and an owner has it for one epoch.

A *slot* is what a key may sign one statement for. The statement is on disk before `permit` returns,
so before anything is signed; another one for the same slot is refused, by this process and by all
after it. The same one is permitted again, since a signature that was lost must be made again.

Everything is verified when the journal is opened: the streams of keys are hash chains, and their
statements are looked up in memory.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from protocols.journal.errors import AlreadyRecorded, AlreadySigned, KeyRefused
from protocols.journal.log import Journal, entry_of, reading
from verifiable import encoding
from verifiable.encoding import tagged_hash
from verifiable.errors import MalformedEncoding

_KEYS: Final = "keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedKey:
    """A key in use.

    Attributes:
      id: identifier of the key, 1 to 64 bytes.
      owner: the protocol, or the instance of one, that alone may use it.
      epoch: the epoch that it is for; None for a key without one.
    """

    id: bytes
    owner: str
    epoch: int | None

    def __post_init__(self) -> None:
        """Raises ValueError for an identifier of another size, no owner, or a negative epoch."""
        if type(self.id) is not bytes or not 1 <= len(self.id) <= 64:
            raise ValueError("the identifier of a key has 1 to 64 bytes")
        if type(self.owner) is not str or not self.owner:
            raise ValueError("a key must have an owner")
        if self.epoch is not None and not (type(self.epoch) is int and 0 <= self.epoch < 2**64):
            raise ValueError(f"an epoch is an unsigned 64-bit integer, got {self.epoch!r}")


class KeyRing:
    """The keys of a journal.

    Make one for each journal: where there are two, one that does not know what the other wrote
    writes nothing more, and so signs nothing more (`JournalBusy`).
    """

    def __init__(self, journal: Journal):
        """Read the keys that the journal names."""
        self._journal, self._turn = journal, threading.Lock()
        self._active: dict[bytes, OwnedKey] = {}
        self._retired: set[bytes] = set()
        self._records: dict[bytes, SigningRecord] = {}
        self._known = 0
        for body in journal.contents(_KEYS):
            with reading(f"entry {self._known} of {_KEYS}"):
                self._replay(entry_of(_KEYS, body))
            self._known += 1

    def _replay(self, wire: Any) -> None:
        match wire:
            case ["key", 1, bytes(id), str(owner), None | int() as epoch] if (
                id not in self._active and id not in self._retired
            ):
                self._active[id] = OwnedKey(id=id, owner=owner, epoch=epoch)
            case ["retired", 1, bytes(id)] if id in self._active:
                del self._active[id]
                self._retired.add(id)
            case _:
                raise MalformedEncoding("expected a new key, or the end of one in use")

    @property
    def active(self) -> Mapping[bytes, OwnedKey]:
        """Keys in use, by identifier."""
        with self._turn:
            return dict(self._active)

    @property
    def retired(self) -> frozenset[bytes]:
        """Identifiers of retired keys."""
        with self._turn:
            return frozenset(self._retired)

    def take(self, key: bytes, *, owner: str, epoch: int | None = None) -> OwnedKey:
        """Use a key for an owner and an epoch, durably; again for the same ones does nothing.

        Raises:
          KeyRefused: it is retired, or belongs to another owner or epoch.
        """
        wanted = OwnedKey(id=key, owner=owner, epoch=epoch)
        with self._turn:
            if key in self._retired:
                raise _retired(key)
            held = self._active.get(key)
            if held is not None and held != wanted:
                raise KeyRefused(
                    key,
                    "other-owner",
                    f"belongs to {held.owner!r} and epoch {held.epoch}, not to {owner!r} and "
                    f"epoch {epoch}: make a new key",
                )
            if held is None:
                self._record(["key", 1, key, owner, epoch])
                self._active[key] = wanted
            return wanted

    def retire(self, key: bytes) -> None:
        """Never use a key again, durably; a second time ends its record, if a crash left it open.

        Raises:
          KeyRefused: the key is unknown.
        """
        with self._turn:
            if key not in self._retired:
                self._require(key)
                self._record(["retired", 1, key])
                del self._active[key]
                self._retired.add(key)
                self._records.pop(key, None)
            # Its record ends, or can never begin: whoever still holds it signs nothing more.
            stream, body = _signed(key), encoding.encode(["retired", 1, key])
            begin = self._journal.head(stream) is None
            with contextlib.suppress(AlreadyRecorded):  # it has ended
                self._journal.submit(stream, [body], begin=begin, last=True).result()

    def require(self, key: bytes) -> OwnedKey:
        """The key, if it is in use. Raises KeyRefused if it is retired or unknown."""
        with self._turn:
            return self._require(key)

    def record(self, key: bytes) -> SigningRecord:
        """What a key has signed; one object for each key. Raises as `require`."""
        with self._turn:
            self._require(key)
            if key not in self._records:
                self._records[key] = SigningRecord(self._journal, self, key)
            return self._records[key]

    def _require(self, key: bytes) -> OwnedKey:
        if key in self._retired:
            raise _retired(key)
        if key not in self._active:
            raise KeyRefused(key, "unknown", "was never taken: call `take` first")
        return self._active[key]

    def _record(self, body: list[Any]) -> None:
        begin = not self._known
        self._journal.submit(_KEYS, [encoding.encode(body)], begin=begin, at=self._known).result()
        self._known += 1


class SigningRecord:
    """What one key has signed, and the memory of its holder. `KeyRing.record` makes it.

    Attributes:
      key: identifier of the key.
      turn: held by whoever reads the memory, decides, and asks for permission.
      memory: what the holder stored with its last statement; None before the first.
    """

    def __init__(self, journal: Journal, keys: KeyRing, key: bytes):
        """Read what the key has signed."""
        self.key, self.memory, self.turn = key, None, threading.RLock()
        self._journal, self._keys, self._stream = journal, keys, _signed(key)
        self._slots: dict[bytes, bytes] = {}
        self._known = 0
        for body in journal.contents(self._stream):
            with reading(f"entry {self._known} of {self._stream}"):
                self._replay(entry_of(self._stream, body))
            self._known += 1

    key: bytes
    memory: bytes | None

    def _replay(self, wire: Any) -> None:
        match wire:
            case ["signed", 1, bytes(slot), bytes(statement), None | bytes() as memory] if (
                self._slots.setdefault(slot, _digest(statement)) == _digest(statement)
            ):
                self.memory = self.memory if memory is None else memory
            case _:
                raise MalformedEncoding("expected the one statement of a slot")

    def signed(self, slot: bytes) -> bytes | None:
        """Digest of the statement that the key signed for a slot, or may have; None for none."""
        with self.turn:
            return self._slots.get(slot)

    def permit(self, slot: bytes, statement: bytes, *, memory: bytes | None = None) -> None:
        """Return when a statement may be signed: it is on disk, and the only one of its slot.

        Args:
          slot: 32-byte name of what is decided by the signature.
          statement: the bytes to sign.
          memory: what the holder of the key must know after it has signed; stored with the
            statement, in one entry.

        Raises:
          AlreadySigned: another statement was signed for this slot.
          KeyRefused: the key is retired.
          JournalBusy: another `KeyRing` of this journal wrote.
          TypeError: an argument is not bytes: it would be recorded, and never read again.
        """
        for each in (slot, statement, b"" if memory is None else memory):
            if type(each) is not bytes:
                raise TypeError(f"slot, statement and memory are bytes, got {type(each).__name__}")
        digest = _digest(statement)
        with self.turn:
            self._keys.require(self.key)
            before = self._slots.get(slot)
            if before not in (None, digest):
                raise AlreadySigned(key=self.key, slot=slot, expected=before, found=digest)
            if before is None or memory not in (None, self.memory):
                body = encoding.encode(["signed", 1, slot, statement, memory])
                begin, at = not self._known, self._known
                self._journal.submit(self._stream, [body], begin=begin, at=at).result()
                self._known += 1
                self._slots[slot] = digest
                self.memory = self.memory if memory is None else memory


def _signed(key: bytes) -> str:
    return f"signed/{key.hex()}"


def _digest(statement: bytes) -> bytes:
    return tagged_hash("journal statement", statement)


def _retired(key: bytes) -> KeyRefused:
    return KeyRefused(key, "retired", "is retired, and is never used again: make a new key")
