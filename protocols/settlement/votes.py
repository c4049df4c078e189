"""Votes of committee members, and how two of them convict a member.

A member signs one statement for each place (`Statement.place`). Two signatures on different
statements for one place convict it; `Equivocation` holds them, and verifies against the committee
alone. If two quorums sign different statements for one place, the members of both, who have more
than a third of the weight, equivocated. How a member signs: `signer`. Rules: specs/settlement.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Generic, Self, TypeVar

from protocols.settlement.committee import MAX_MEMBERS, Committee
from protocols.settlement.statements import (
    EpochStatement,
    Lock,
    LockReport,
    Prepare,
    Rotation,
    SettlementError,
    Statement,
    kind_name,
)
from verifiable import bls, encoding
from verifiable.bls import Signature
from verifiable.errors import MalformedEncoding, require_exact_type

VERSION: Final = 1
_MAX_SIZE: Final = 2048  # more than what a signer stores, or an equivocation, takes

S = TypeVar("S", EpochStatement, Rotation, Prepare, Lock, LockReport)


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
    def decode(cls, kind: type[S], data: bytes | bytearray | memoryview) -> Vote[S]:
        """Read a vote on a statement of a kind.

        Raises:
          MalformedEncoding: not the encoding of one (InvalidPoint for a malformed signature).
        """
        fields = decode_version(f"{kind_name(kind)} vote", data)
        match fields:
            case [int(member), bytes(statement), bytes(signature)]:
                return vote_of(kind, member, statement, signature)
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
        first, second = sorted((a, b), key=lambda vote: vote.statement.message)
        return cls(first=first, second=second)

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
    def decode(cls, kind: type[S], data: bytes | bytearray | memoryview) -> Equivocation[S]:
        """Read evidence about statements of a kind.

        Raises:
          MalformedEncoding: not the encoding of any (InvalidPoint for a malformed signature).
          SettlementError: no-conflict.
        """
        fields = decode_version(f"{kind_name(kind)} equivocation", data)
        match fields:
            case [int(member), bytes(a), bytes(sign_a), bytes(b), bytes(sign_b)]:
                return Equivocation(
                    first=vote_of(kind, member, a, sign_a), second=vote_of(kind, member, b, sign_b)
                )
            case _:
                raise MalformedEncoding(f"expected two votes on statements of the kind {kind.KIND}")


def _member(statement: Statement, member: int, committee: Committee) -> bls.PublicKey:
    """The key of a member of the committee that a statement names."""
    if statement.committee != committee.id:
        raise SettlementError("other-committee", expected=committee.id, found=statement.committee)
    if member >= len(committee.members):
        raise SettlementError("unknown-member", expected=len(committee.members), found=member)
    return committee.members[member].key.key


def decode_version(
    kind: str, data: bytes | bytearray | memoryview, version: int = VERSION
) -> list[Any]:
    """The fields after kind and version. Raises MalformedEncoding for others."""
    fields: Any = encoding.decode(data, max_size=_MAX_SIZE)
    match fields:
        case [str(name), int(found), *rest] if (
            name == kind and found == version and type(found) is int
        ):
            return rest
        case _:
            raise MalformedEncoding(f"expected version {version} of the kind {kind!r}")


def vote_of(kind: type[S], member: int, statement: bytes, signature: bytes) -> Vote[S]:
    """The vote of decoded fields. Raises MalformedEncoding."""
    if type(member) is not int or not 0 <= member < MAX_MEMBERS:
        raise MalformedEncoding(
            f"a member must have a number from 0 to {MAX_MEMBERS - 1}, got {member!r}"
        )
    return Vote(statement=kind.decode(statement), member=member, signature=Signature(signature))
