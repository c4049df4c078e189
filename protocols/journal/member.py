"""A committee member whose memory survives its process: nothing is signed that is not on disk.

    member = DurableMember(keys, secret, head, policy)
    vote = member.vote(lambda key, signer: prepare_epoch(key, signer, proposal, verdicts))

The functions of `settlement.signer` return the memory to store and the vote to send. `vote` calls
one with a key that signs nothing, stores memory and statement in one entry, and then signs. So a
process that is killed at any point has either not signed, or knows what it signed. The rules of the
ballot (`settlement.ballots`) and the slot, which is the statement's place, refuse a second
statement for one place independently of each other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from protocols.journal.errors import JournalCorrupt
from protocols.journal.keys import KeyRing
from protocols.settlement.signer import MemberKey, Signer
from protocols.settlement.statements import (
    EpochStatement,
    Lock,
    LockReport,
    Prepare,
    Rotation,
    Statement,
)
from protocols.settlement.submission import Head
from protocols.settlement.votes import Vote
from verifiable.bls import PublicKey, SecretKey, Signature
from verifiable.encoding import tagged_hash
from verifiable.errors import MalformedEncoding

S = TypeVar("S", EpochStatement, Rotation, Prepare, Lock, LockReport)


class _Unsigned:
    """A member's key that signs nothing: its signature is one of nothing, by nobody's key."""

    def __init__(self, public_key: PublicKey):
        self.public_key = public_key

    def sign(self, message: bytes, *, domain: bytes) -> Signature:
        """A well-formed signature that verifies for no member."""
        del message, domain
        return _placeholder()


@functools.cache
def _placeholder() -> Signature:
    return SecretKey.generate().sign(b"", domain=b"verifiable nothing")


class DurableMember:
    """A member of settlement committees. Any thread may call it.

    Attributes:
      signer: its view and memory, as stored with its last vote, at the present head.
    """

    def __init__(self, keys: KeyRing, secret: SecretKey, head: Head, policy: bytes):
        """Read what the member's key has signed.

        Args:
          keys: of the member's journal; the secret's public key must have been taken.
          secret: the member's key.
          head: the chain as the member sees it now.
          policy: id of the policy whose verdicts it signs.

        Raises:
          JournalCorrupt: the stored memory cannot be read.
          KeyRefused: the key is retired or unknown.
          ValueError: the head is of another contract, or earlier than the stored one, or the
            member signed under another policy at this head.
        """
        self._secret, self._record = secret, keys.record(secret.public_key.encoded)
        self._memory: bytes | None = None
        with self._record.turn:
            self.signer = Signer(head=head, policy=policy)
            self._remember()
        if self.signer.policy != policy:
            raise ValueError("the stored memory is of another policy: take a new key for this one")

    def _remember(self) -> None:
        """Take over what another object for the same key has stored meanwhile."""
        memory = self._record.memory
        if memory is not None and memory != self._memory:
            try:
                self.signer = Signer.decode(memory, self.signer.head)
            except MalformedEncoding as error:
                raise JournalCorrupt(
                    f"the memory stored with the last vote cannot be read: {error}; restore a "
                    "copy, or go on with the release that wrote it"
                ) from error
            self._memory = memory

    def follow(self, head: Head) -> None:
        """Go on to a later head of the chain. Raises as `Signer.follow`."""
        with self._record.turn:
            self.signer = self.signer.follow(head)

    def vote(self, step: Callable[[MemberKey, Signer], tuple[Any, ...]]) -> Vote[Any]:
        """Take one step, store what it signs, and sign it.

        Args:
          step: calls a function of `settlement.signer` with this key and signer, and returns what
            that returns. A report comes with the prepares behind its lock: `signer.lock_proof`.

        Returns:
          The vote, to be sent.

        Raises:
          AlreadySigned: another statement of its place was signed. Nothing is.
          KeyRefused: the key is retired. Nothing is signed.
          SettlementError and others: as the function. Nothing is signed.
        """
        with self._record.turn:
            self._remember()
            signer, vote, *_ = step(_Unsigned(self._secret.public_key), self.signer)
            statement: Statement = vote.statement
            memory = signer.encode()
            self._record.permit(slot_of(statement), statement.message, memory=memory)
            self.signer, self._memory = signer, memory
            signature = self._secret.sign(statement.message, domain=statement.DOMAIN)
            return replace(vote, signature=signature)


def slot_of(statement: Statement) -> bytes:
    """32-byte name of the place that a statement settles: its kind, and its fields but content."""
    place = [
        value if isinstance(value, bytes) else value.to_bytes(32, "big")
        for value in statement.place
        if isinstance(value, bytes | int)
    ]
    return tagged_hash("settlement slot", statement.DOMAIN, *place)
