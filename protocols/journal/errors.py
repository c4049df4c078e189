"""What can go wrong with a journal, each as its own exception that says what to do.

    JournalError
    ├── JournalMissing     there is no journal here
    ├── JournalBusy        another coordinator has it open, or wrote to it
    ├── JournalForeign     another journal, schema, protocol version, protocol or rules
    ├── JournalCorrupt     what was read is not what was written
    ├── JournalFull        the disk is full
    ├── JournalClosed      it was closed, or an earlier write failed
    ├── AlreadyRecorded    a stream of this name was begun before
    ├── NotRecorded        no stream of this name was begun, or it has ended; a ValueError too
    ├── AlreadySigned      the key signed another statement for this slot
    └── KeyRefused         the key is retired, unknown, or belongs to another protocol

None of them is a `VerificationError`: no device caused them. None is answered by an empty journal.
"""

from __future__ import annotations

from verifiable.errors import Structured


class JournalError(Structured, RuntimeError):
    """The record cannot be read or written. The message says what to do."""


class JournalMissing(JournalError):
    """There is no journal at this place. Opening never makes one: `create` does."""


class JournalBusy(JournalError):
    """Another coordinator has the journal open, or has written to it."""


class JournalForeign(JournalError):
    """Another journal, one of another schema, or a stream of another protocol, version or rules."""


class JournalCorrupt(JournalError):
    """What was read is not what was written: restore a copy, and do not go on with this one."""


class JournalFull(JournalError):
    """The disk is full. Nothing of the batch counts as recorded."""


class JournalClosed(JournalError):
    """The journal was closed, or an earlier write failed: open it again."""


class AlreadyRecorded(JournalError):
    """A stream of this name was begun before, and may have ended.

    Attributes:
      stream: its name.
    """

    def __init__(self, stream: str):
        """Keep the name."""
        self.stream = stream
        super().__init__(
            f"stream {stream} was begun before: resume it if it is open, and never begin it again"
        )


class NotRecorded(JournalError, ValueError):
    """No stream of this name was begun, or it has ended.

    Attributes:
      stream: its name.
    """

    def __init__(self, stream: str, *, wanted: str = "begin it first"):
        """Keep the name; `wanted` says what to do."""
        self.stream = stream
        super().__init__(
            f"there is no stream {stream!r} in this journal: {wanted} (Journal.streams lists those "
            "that are open)"
        )


class AlreadySigned(JournalError):
    """The key has signed another statement for this slot. Nothing was signed now.

    Attributes:
      key: identifier of the key.
      slot: 32-byte name of the slot.
      expected: digest of the statement that was signed.
      found: digest of the one that was to be signed.
    """

    def __init__(self, *, key: bytes, slot: bytes, expected: bytes, found: bytes):
        """Keep both sides."""
        self.key, self.slot, self.expected, self.found = key, slot, expected, found
        super().__init__(
            f"key {key.hex()} has signed statement {expected.hex()} for slot {slot.hex()}, "
            f"and will not sign {found.hex()}: a second signature would convict its holder"
        )


class KeyRefused(JournalError):
    """The key must not be used.

    Attributes:
      key: its identifier.
      reason: retired, unknown, or other-owner.
    """

    def __init__(self, key: bytes, reason: str, message: str):
        """Keep key and reason."""
        self.key, self.reason = key, reason
        super().__init__(f"key {key.hex()} {message}")
