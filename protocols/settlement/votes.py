"""Votes of committee members: how to sign one, and how two of them convict a member.

A member signs only statements that it has computed itself. `sign_epoch` takes the verdicts, not
their root: it builds the statement from them and from the member's own view of the chain, and signs
it only if it equals the proposal field for field. So no member signs for data that is unavailable.

A member signs one statement for each place (contract, committee, term, and for verdicts the epoch).
Its `Signer` remembers them: store it before sending the vote. Two signatures on different
statements for one place convict a member; `Equivocation` holds them, and verifies against the
committee alone. If two quorums sign different statements for one place, the members of both, who
have more than a third of the weight, equivocated. Rules: specs/settlement.md.
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
from verifiable.errors import MalformedEncoding, require_exact_type

VERSION: Final = 1
_MAX_SIZE: Final = 1024  # more than two statements and two signatures take

S = TypeVar("S", EpochStatement, Rotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote(Generic[S]):
    """A statement and a member's signature on it, not verified: `verify` verifies it.

    Attributes:
      statement: the signed statement.
      member: the signer, by position in the committee.
      signature: signature over `statement.message` under `statement.DOMAIN`.
    """

    statement: S
    member: int
    signature: Signature

    def __post_init__(self) -> None:
        """Raises TypeError for other types, ValueError for a number that no member can have."""
        if not isinstance(self.statement, Statement):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"expected a statement, got {type(self.statement).__name__}")
        require_exact_type("signature", self.signature, Signature)
        if not 0 <= require_exact_type("member", self.member, int) < MAX_MEMBERS:
            raise ValueError(
                f"a member must have a number from 0 to {MAX_MEMBERS - 1}, got {self.member}"
            )

    def encode(self) -> bytes:
        """The one encoding of this vote."""
        kind = f"{self.statement.KIND} vote"
        parts = [self.statement.message, self.signature.encoded]
        return encoding.encode([kind, VERSION, self.member, *parts])

    @classmethod
    def decode(cls, kind: type[S], data: bytes) -> Vote[S]:
        """Read a vote on a statement of a kind.

        Raises:
          MalformedEncoding: not the encoding of one (InvalidPoint for a malformed signature).
        """
        fields = _decode(f"{kind.KIND} vote", data)
        match fields:
            case [int(member), bytes(statement), bytes(signature)]:
                return _vote(kind, member, statement, signature)
            case _:
                raise MalformedEncoding(f"expected a vote on a statement of the kind {kind.KIND}")

    def verify(self, committee: Committee) -> None:
        """Verify that the member of this committee signed the statement.

        Raises:
          SettlementError: other-committee, unknown-member.
          BadSignature: the member did not sign it.
        """
        key = _member(self.statement, self.member, committee)
        message, domain = self.statement.message, self.statement.DOMAIN
        bls.verify(key, message, self.signature, domain=domain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivocation(Generic[S]):
    """Evidence that a member signed two statements for one place; `of` makes it.

    Attributes:
      first: the vote whose statement's words come first in bytewise order.
      second: the other vote.

    Raises:
      SettlementError: no-conflict: different kinds, members or places, equal statements, or votes
        out of order.
    """

    first: Vote[S]
    second: Vote[S]

    def __post_init__(self) -> None:
        """Check that the votes contradict each other."""
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
        """The evidence of two votes, in either order. Raises as the class does."""
        if a.statement.message > b.statement.message:
            a, b = b, a
        return cls(first=a, second=b)

    def verify(self, committee: Committee) -> None:
        """Verify both signatures; this needs only the committee.

        Raises:
          SettlementError: other-committee, unknown-member.
          BadSignature: the member did not sign one of the statements.
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
          MalformedEncoding: not the encoding of any (InvalidPoint for a malformed signature).
          SettlementError: no-conflict.
        """
        fields = _decode(f"{kind.KIND} equivocation", data)
        match fields:
            case [int(member), bytes(a), bytes(sign_a), bytes(b), bytes(sign_b)]:
                return Equivocation(
                    first=_vote(kind, member, a, sign_a), second=_vote(kind, member, b, sign_b)
                )
            case _:
                raise MalformedEncoding(f"expected two votes on statements of the kind {kind.KIND}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A member's own view and memory. Store it before sending the vote that came with it.

    Attributes:
      head: the chain as the member itself sees it; it never goes back.
      policy: id of the policy whose verdicts it signs.
      epoch_signed: the last statement of an epoch that it signed.
      rotation_signed: the last rotation that it signed.
    """

    head: Head
    policy: bytes
    epoch_signed: EpochStatement | None = None
    rotation_signed: Rotation | None = None

    def follow(self, head: Head) -> Signer:
        """The signer at a later head of the chain.

        Raises:
          ValueError: another contract, or an earlier head, whose statements it has forgotten.
        """
        if head.deployment != self.head.deployment:
            raise ValueError("a signer follows one contract, and this head is of another")
        if head.epoch < self.head.epoch or head.sequence < self.head.sequence:
            raise ValueError(
                "a signer never goes back: it has forgotten what it signed before "
                f"epoch {self.head.epoch}, sequence {self.head.sequence}"
            )
        return replace(self, head=head)

    def encode(self) -> bytes:
        """The memory as bytes: the position of the chain, and the last statements signed."""
        signed = [s and s.message for s in (self.epoch_signed, self.rotation_signed)]
        words = self.head.deployment.words
        return encoding.encode(
            ["signer", VERSION, words, self.head.epoch, self.head.sequence, self.policy, *signed]
        )

    @classmethod
    def decode(cls, data: bytes, head: Head) -> Signer:
        """The signer of a stored memory, at the present head of the chain.

        Raises:
          MalformedEncoding: not the encoding of a signer.
          ValueError: the head is of another contract, or earlier than the stored one.
        """
        match _decode("signer", data):
            case [bytes(words), int(epoch), int(sequence), bytes(policy), signed, rotation]:
                if words != head.deployment.words:
                    raise ValueError("a signer follows one contract, and this head is of another")
                stored = cls(
                    head=replace(head, epoch=epoch, sequence=sequence),
                    policy=policy,
                    epoch_signed=None if signed is None else EpochStatement.decode(signed),
                    rotation_signed=None if rotation is None else Rotation.decode(rotation),
                )
                return stored.follow(head)
            case _:
                raise MalformedEncoding("expected the memory of a signer")


def sign_epoch(
    secret: SecretKey, signer: Signer, proposal: EpochStatement, verdicts: Iterable[VerdictRecord]
) -> tuple[Signer, Vote[EpochStatement]]:
    """Sign the statement of the next epoch, if it is the statement of the member's own verdicts.

    Args:
      secret: the member's secret key.
      signer: its view and memory.
      proposal: the statement that it is asked to sign.
      verdicts: all verdicts of the epoch that it holds and agrees with, in any order.

    Returns:
      The memory to store first, and the vote to send then.

    Raises:
      SettlementError: as `verify_epoch` or `EpochLog`, or other-root, other-size, other-policy,
        already-signed, unknown-member.
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
    """Sign a rotation, if it hands over to a committee that the member holds and agrees to.

    Args:
      secret: the member's secret key.
      signer: its view and memory.
      proposal: the rotation that it is asked to sign.
      incoming: the committee that it holds and agrees to, proofs of possession included.

    Returns:
      The memory to store first, and the vote to send then.

    Raises:
      SettlementError: as `verify_rotation`, or already-signed, unknown-member.
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
            raise MalformedEncoding(f"expected version {VERSION} of the kind {kind!r}")


def _vote(kind: type[S], member: int, statement: bytes, signature: bytes) -> Vote[S]:
    if type(member) is not int or not 0 <= member < MAX_MEMBERS:
        raise MalformedEncoding(
            f"a member must have a number from 0 to {MAX_MEMBERS - 1}, got {member!r}"
        )
    return Vote(statement=kind.decode(statement), member=member, signature=Signature(signature))
