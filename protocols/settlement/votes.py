"""Votes of committee members: how one is made, what it proves, and how two of them convict.

A member signs only what it has itself computed. `sign_epoch` takes the verdicts, not their root: it
builds the statement from them and from the member's own view of the chain, and signs it only where
that is, field for field, what was proposed. So nobody signs for data that nobody can fetch.

A member signs one statement for each place (contract, committee, term, and for verdicts the epoch).
Its `Signer` remembers which: store it before the vote leaves. Whoever signs two statements for one
place is convicted by the two signatures alone; `Equivocation` holds them, and anybody who knows the
committee verifies it. Of two quorums for one place, more than a third of the weight, all those who
are in both, equivocated. Rules: specs/settlement.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Self, TypeVar

from protocols.settlement.committee import MAX_MEMBERS, Committee
from protocols.settlement.statements import EpochStatement, Rotation, SettlementError, Statement
from protocols.settlement.submission import Head, require_next, require_term
from protocols.settlement.verdicts import EpochLog, VerdictRecord
from verifiable import bls, encoding
from verifiable.bls import SecretKey, Signature
from verifiable.bls.keys import expect
from verifiable.errors import MalformedEncoding

VERSION: Final = 1
_MAX_SIZE: Final = 1024  # more than two statements and two signatures take

S = TypeVar("S", EpochStatement, Rotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote(Generic[S]):
    """A statement, and a member's signature on it. That it is well-formed verifies nothing.

    Attributes:
      statement: what was signed.
      member: who signed, by position in the committee.
      signature: over `statement.message` under `statement.DOMAIN`.
    """

    statement: S
    member: int
    signature: Signature

    def __post_init__(self) -> None:
        """Refuse other types (TypeError), and a number that no member has (ValueError)."""
        if not isinstance(self.statement, Statement):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{type(self.statement).__name__} is no statement")
        expect(self.signature, Signature)
        if not 0 <= expect(self.member, int) < MAX_MEMBERS:
            raise ValueError(f"members have numbers from 0 to {MAX_MEMBERS - 1}")

    def encode(self) -> bytes:
        """The one encoding of this vote."""
        kind = f"{self.statement.KIND} vote"
        parts = [self.statement.message, self.signature.encoded]
        return encoding.encode([kind, VERSION, self.member, *parts])

    @classmethod
    def decode(cls, kind: type[S], data: bytes) -> Vote[S]:
        """Read a vote on a statement of a kind.

        Raises:
          MalformedEncoding: not the encoding of one (InvalidPoint if it is the signature).
        """
        fields = _decode(f"{kind.KIND} vote", data)
        match fields:
            case [int(member), bytes(statement), bytes(signature)]:
                return _vote(kind, member, statement, signature)
            case _:
                raise MalformedEncoding(f"not a vote on a statement of the kind {kind.KIND}")

    def verify(self, committee: Committee) -> None:
        """Verify that a member of this committee signed this.

        Raises:
          SettlementError: other-committee, unknown-member.
          BadSignature: it did not.
        """
        key = _member(self.statement, self.member, committee)
        message, domain = self.statement.message, self.statement.DOMAIN
        bls.verify(key, message, self.signature, domain=domain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivocation(Generic[S]):
    """Evidence that a member signed two statements for one place; `of` makes it.

    Attributes:
      first: one vote.
      second: the other; its statement's words come later in bytewise order.

    Raises:
      SettlementError: no-conflict: other kinds, members or places, one statement, or out of order.
    """

    first: Vote[S]
    second: Vote[S]

    def __post_init__(self) -> None:
        """Refuse two votes that do not contradict one another."""
        a, b = self.first.statement, self.second.statement
        if (
            type(a) is not type(b)
            or self.first.member != self.second.member
            or a.place != b.place
            or not a.message < b.message
        ):
            raise SettlementError("no-conflict")

    @classmethod
    def of(cls, a: Vote[S], b: Vote[S]) -> Self:
        """Put two votes in order. Raises as the class does."""
        if a.statement.message > b.statement.message:
            a, b = b, a
        return cls(first=a, second=b)

    def verify(self, committee: Committee) -> None:
        """Verify both signatures. Whoever does so needs nothing but the committee.

        Raises:
          SettlementError: other-committee, unknown-member.
          BadSignature: the member did not sign one of them.
        """
        self.first.verify(committee)
        self.second.verify(committee)

    def encode(self) -> bytes:
        """The one encoding of this evidence."""
        a, b = self.first, self.second
        sides = [x for v in (a, b) for x in (v.statement.message, v.signature.encoded)]
        return encoding.encode([f"{a.statement.KIND} equivocation", VERSION, a.member, *sides])

    @classmethod
    def decode(cls, kind: type[S], data: bytes) -> Equivocation[S]:
        """Read evidence about statements of a kind.

        Raises:
          MalformedEncoding: not the encoding of any (InvalidPoint if it is a signature).
          SettlementError: no-conflict.
        """
        fields = _decode(f"{kind.KIND} equivocation", data)
        match fields:
            case [int(member), bytes(a), bytes(sign_a), bytes(b), bytes(sign_b)]:
                return Equivocation(
                    first=_vote(kind, member, a, sign_a), second=_vote(kind, member, b, sign_b)
                )
            case _:
                raise MalformedEncoding(f"not two votes on statements of the kind {kind.KIND}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A member's own view and memory. Store it before a vote that it was returned with leaves.

    Attributes:
      head: the chain as the member itself sees it; it never goes back.
      policy: id of the policy under which it takes verdicts.
      epoch_signed: the last statement of an epoch that it signed.
      rotation_signed: the last rotation that it signed.
    """

    head: Head
    policy: bytes
    epoch_signed: EpochStatement | None = None
    rotation_signed: Rotation | None = None

    def follow(self, head: Head) -> Signer:
        """The signer once the chain has moved on.

        Raises:
          ValueError: another contract, or an earlier head, at which the memory would be blind.
        """
        if head.deployment != self.head.deployment:
            raise ValueError("a signer follows one contract")
        if head.epoch < self.head.epoch or head.sequence < self.head.sequence:
            raise ValueError("a signer never goes back: it would sign again what it has forgotten")
        return replace(self, head=head)

    def encode(self) -> bytes:
        """The memory as bytes: where the chain was, and what was signed last."""
        signed = [s and s.message for s in (self.epoch_signed, self.rotation_signed)]
        words = self.head.deployment.words
        return encoding.encode(
            ["signer", VERSION, words, self.head.epoch, self.head.sequence, self.policy, *signed]
        )

    @classmethod
    def decode(cls, data: bytes, head: Head) -> Signer:
        """Go on from stored memory, at the chain as it is now.

        Raises:
          MalformedEncoding: not what `encode` writes.
          ValueError: the head is of another contract, or before the one that was stored.
        """
        match _decode("signer", data):
            case [bytes(words), int(epoch), int(sequence), bytes(policy), signed, rotation]:
                if words != head.deployment.words:
                    raise ValueError("a signer follows one contract")
                stored = cls(
                    head=replace(head, epoch=epoch, sequence=sequence),
                    policy=policy,
                    epoch_signed=None if signed is None else EpochStatement.decode(signed),
                    rotation_signed=None if rotation is None else Rotation.decode(rotation),
                )
                return stored.follow(head)
            case _:
                raise MalformedEncoding("not the memory of a signer")


def sign_epoch(
    secret: SecretKey, signer: Signer, proposal: EpochStatement, verdicts: Iterable[VerdictRecord]
) -> tuple[Signer, Vote[EpochStatement]]:
    """Sign the statement of the next epoch, if it is the one that the verdicts held lead to.

    Args:
      secret: the member's key.
      signer: its view and memory.
      proposal: what it is asked to sign.
      verdicts: all of the epoch that it holds and takes for right, in any order.

    Returns:
      The memory to store, and the vote to send after that.

    Raises:
      SettlementError: what differs, as `verify_epoch`, or other-root, other-size, other-policy,
        already-signed, unknown-member, or as `EpochLog`.
    """
    require_next(proposal, signer.head)
    log = EpochLog.of(verdicts)
    for reason, expected, found in (
        ("other-epoch", signer.head.epoch, log.epoch),
        ("other-policy", signer.policy, log.policy),
        ("other-policy", signer.policy, proposal.policy),
        ("other-size", log.tree.size, proposal.size),
        ("other-root", log.tree.root, proposal.root),
    ):
        if expected != found:
            raise SettlementError(reason, expected=expected, found=found)
    own = signer.head.statement(root=log.tree.root, size=log.tree.size, policy=signer.policy)
    vote = _sign(secret, signer.head.committee, own, signer.epoch_signed)
    return replace(signer, epoch_signed=own), vote


def sign_rotation(
    secret: SecretKey, signer: Signer, proposal: Rotation, incoming: Committee
) -> tuple[Signer, Vote[Rotation]]:
    """Sign a rotation, if it hands over to a committee whose members the signer knows.

    Args:
      secret: the member's key.
      signer: its view and memory.
      proposal: what it is asked to sign.
      incoming: the committee that it holds and agrees to, proofs of possession included.

    Returns:
      The memory to store, and the vote to send after that.

    Raises:
      SettlementError: what differs, as `verify_rotation`, or already-signed, unknown-member.
    """
    require_term(proposal, signer.head, incoming)
    own = signer.head.rotation(incoming)
    vote = _sign(secret, signer.head.committee, own, signer.rotation_signed)
    return replace(signer, rotation_signed=own), vote


def _sign(secret: SecretKey, committee: Committee, own: S, before: S | None) -> Vote[S]:
    if before is not None and before.place == own.place and before != own:
        raise SettlementError("already-signed", expected=before.message, found=own.message)
    signature = secret.sign(own.message, domain=own.DOMAIN)
    return Vote(statement=own, member=committee.index(secret.public_key), signature=signature)


def _member(statement: Statement, member: int, committee: Committee) -> bls.PublicKey:
    """The key of a member of the committee that a statement names."""
    if statement.committee != committee.id:
        raise SettlementError("other-committee", expected=committee.id, found=statement.committee)
    if member >= len(committee.members):
        raise SettlementError("unknown-member", expected=len(committee.members), found=member)
    return committee.members[member].key.key


def _decode(kind: str, data: bytes) -> list[Any]:
    fields: Any = encoding.decode(data, max_size=_MAX_SIZE)
    match fields:
        case [str(name), int(version), *rest] if (
            name == kind and version == VERSION and type(version) is int
        ):
            return rest
        case _:
            raise MalformedEncoding(f"not an {kind} of version {VERSION}")


def _vote(kind: type[S], member: int, statement: bytes, signature: bytes) -> Vote[S]:
    if type(member) is not int or not 0 <= member < MAX_MEMBERS:
        raise MalformedEncoding(f"members have numbers from 0 to {MAX_MEMBERS - 1}")
    return Vote(statement=kind.decode(statement), member=member, signature=Signature(signature))
