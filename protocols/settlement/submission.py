"""Submissions: a statement, the sum of its signatures, and a bitmap of the signers.

`verify_epoch` and `verify_rotation` decide exactly as the contract does, from the same state: a
`Head`, which names the deployment, the committee in office and the last epoch settled. Each returns
the next head, so a head is only reached through submissions that verified: every epoch is settled
once, in order, by the committee of its time. Rules: specs/settlement.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Self, TypeVar

from protocols.settlement.committee import MAX_MEMBERS, Committee
from protocols.settlement.statements import (
    AttemptStatement,
    Deployment,
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
NO_ROOT: Final = bytes(32)
"""Previous root of the first epoch."""

_MAX_SIZE: Final = 512  # more than a statement, a signature and a bitmap take

S = TypeVar("S", EpochStatement, Rotation, Prepare, Lock, LockReport)
A = TypeVar("A", Prepare, Lock, LockReport)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementSubmission(Generic[S]):
    """A statement and the sum of signatures on it, not verified: `verify_epoch` verifies it.

    Attributes:
      statement: the signed statement.
      signature: sum of the signers' signatures.
      bitmap: the signers, 1 to 32 bytes (`Committee.bitmap`).
    """

    statement: S
    signature: Signature
    bitmap: bytes

    def __post_init__(self) -> None:
        """Raises TypeError for other types, ValueError for a bitmap that no committee has."""
        require_exact_type("signature", self.signature, Signature)
        if not isinstance(self.statement, Statement):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"expected a statement, got {type(self.statement).__name__}")
        if not 1 <= len(require_exact_type("bitmap", self.bitmap, bytes)) <= MAX_MEMBERS // 8:
            raise ValueError(
                f"a bitmap must have 1 to {MAX_MEMBERS // 8} bytes, got {len(self.bitmap)}"
            )

    @classmethod
    def combine(
        cls, statement: S, signatures: Mapping[int, Signature], committee: Committee
    ) -> Self:
        """Add up signatures on a statement. They must have been verified before.

        Args:
          statement: the signed statement.
          signatures: valid signatures on it, by member.
          committee: the committee that signed.

        Raises:
          ValueError: no signatures, or a number that no member has.
          InfiniteAggregate: the signatures cancel out.
        """
        return cls(
            statement=statement,
            signature=bls.aggregate([signatures[i] for i in sorted(signatures)]),
            bitmap=committee.bitmap(signatures),
        )

    def encode(self) -> bytes:
        """The one encoding of this submission off chain."""
        statement = self.statement
        kind = f"{statement.KIND} submission"
        return encoding.encode(
            [kind, VERSION, statement.message, self.signature.encoded, self.bitmap]
        )

    @classmethod
    def decode(cls, kind: type[S], data: bytes | bytearray | memoryview) -> SettlementSubmission[S]:
        """Read a submission of a kind.

        Raises:
          MalformedEncoding: not the encoding of one (InvalidPoint for a malformed signature).
        """
        wanted = f"{kind_name(kind)} submission"
        fields: Any = encoding.decode(data, max_size=_MAX_SIZE)
        match fields:
            case [name, version, bytes(statement), bytes(signature), bytes(bitmap)] if (
                name == wanted
                and type(version) is int
                and version == VERSION
                and 1 <= len(bitmap) <= MAX_MEMBERS // 8
            ):
                return SettlementSubmission(
                    statement=kind.decode(statement),
                    signature=Signature(signature),
                    bitmap=bitmap,
                )
            case _:
                raise MalformedEncoding(
                    f"expected a submission of version {VERSION} of the kind {kind.KIND}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """State of the contract: its deployment, the committee in office, and the last epoch settled.

    Attributes:
      committee: committee in office; its deployment is the contract.
      sequence: its term, from 0.
      epoch: number of the next epoch to settle, from 0.
      root: root of the epoch before it; `NO_ROOT` before the first.
    """

    committee: Committee
    sequence: int = 0
    epoch: int = 0
    root: bytes = NO_ROOT

    @property
    def deployment(self) -> Deployment:
        """Chain and contract."""
        return self.committee.deployment

    def statement(self, *, root: bytes, size: int, policy: bytes) -> EpochStatement:
        """The statement of the next epoch, with these verdicts."""
        return EpochStatement(
            chain_id=self.deployment.chain_id,
            contract=self.deployment.contract,
            epoch=self.epoch,
            root=root,
            size=size,
            policy=policy,
            committee=self.committee.id,
            sequence=self.sequence,
            previous_root=self.root,
        )

    def attempt(self, kind: type[A], attempt: int, choice: bytes, **more: int) -> A:
        """A statement of an attempt to decide on what comes next."""
        return kind(
            chain_id=self.deployment.chain_id,
            contract=self.deployment.contract,
            committee=self.committee.id,
            sequence=self.sequence,
            epoch=self.epoch,
            attempt=attempt,
            choice=choice,
            **more,
        )

    def rotation(self, incoming: Committee) -> Rotation:
        """The statement by which the committee in office hands over to another."""
        return Rotation(
            chain_id=self.deployment.chain_id,
            contract=self.deployment.contract,
            committee=self.committee.id,
            sequence=self.sequence,
            incoming=incoming.id,
        )


def verify_epoch(submission: SettlementSubmission[EpochStatement], head: Head) -> Head:
    """Verify that the committee in office signed the next epoch.

    Returns:
      The next head, with this epoch settled.

    Raises:
      SettlementError: other-chain, other-contract, epoch-settled or epoch-ahead, other-committee,
        other-sequence, other-previous-root, bitmap-length, bitmap-excess, no-quorum; in this order.
      BadSignature, InfiniteAggregate: the signature is not the sum of the named signers'.
      TypeError: a submission of another kind.
    """
    statement = require_exact_type("statement", submission.statement, EpochStatement)
    require_next(statement, head)
    _require_signed(submission, head.committee)
    return replace(head, epoch=head.epoch + 1, root=statement.root)


def verify_rotation(
    submission: SettlementSubmission[Rotation], head: Head, incoming: Committee
) -> Head:
    """Verify that the committee in office signed the rotation to another.

    Args:
      submission: the rotation, signed.
      head: the chain before it.
      incoming: the committee that is to take office.

    Returns:
      The next head, with the incoming committee in office.

    Raises:
      SettlementError: other-chain, other-contract, other-committee, other-sequence, other-incoming,
        unregistered-key, bitmap-length, bitmap-excess, no-quorum; in this order.
      BadSignature, InfiniteAggregate: the signature is not the sum of the named signers'.
      TypeError: a submission of another kind.
    """
    statement = require_exact_type("statement", submission.statement, Rotation)
    require_term(statement, head, incoming)
    _require_signed(submission, head.committee)
    return replace(head, committee=incoming, sequence=head.sequence + 1)


def verify_certificate(
    certificate: SettlementSubmission[Prepare] | SettlementSubmission[Lock], head: Head
) -> None:
    """Verify that the committee in office prepared, or locked, a choice for the next epoch.

    Raises:
      SettlementError: other-chain, other-contract, epoch-settled or epoch-ahead, other-committee,
        other-sequence, bitmap-length, bitmap-excess, no-quorum; in this order.
      BadSignature, InfiniteAggregate: the signature is not the sum of the named signers'.
    """
    require_open(certificate.statement, head)
    _require_signed(certificate, head.committee)


def require_open(statement: EpochStatement | AttemptStatement, head: Head) -> None:
    """Require the place at the head: the next epoch, and the term of the committee in office."""
    _require_here(statement, head)
    if statement.epoch != head.epoch:
        reason = "epoch-settled" if statement.epoch < head.epoch else "epoch-ahead"
        raise SettlementError(reason, expected=head.epoch, found=statement.epoch)
    _require_term(statement, head)


def require_next(statement: EpochStatement, head: Head) -> None:
    """Require a statement of the next epoch. Raises as `verify_epoch`."""
    require_open(statement, head)
    _require_equal("other-previous-root", head.root, statement.previous_root)


def require_term(statement: Rotation, head: Head, incoming: Committee) -> None:
    """Require a rotation to `incoming` by the committee in office. Raises as `verify_rotation`."""
    _require_here(statement, head)
    _require_term(statement, head)
    _require_equal("other-incoming", incoming.id, statement.incoming)
    # The id of a committee does not bind the contract at which its keys were registered.
    _require_equal("unregistered-key", head.deployment.words, incoming.deployment.words)


def _require_here(statement: Statement, head: Head) -> None:
    _require_equal("other-chain", head.deployment.chain_id, statement.chain_id)
    _require_equal("other-contract", head.deployment.contract, statement.contract)


def _require_term(statement: Statement, head: Head) -> None:
    _require_equal("other-committee", head.committee.id, statement.committee)
    _require_equal("other-sequence", head.sequence, statement.sequence)


def _require_signed(submission: SettlementSubmission[Any], committee: Committee) -> None:
    signers: Sequence[int] = committee.signers(submission.bitmap)
    if not committee.has_quorum(signers):
        raise SettlementError(
            "no-quorum",
            expected=f"more than 2/3 of {committee.total}",
            found=committee.weight(signers),
        )
    keys = [committee.members[i].key for i in signers]
    statement = submission.statement
    bls.fast_aggregate_verify(
        keys, statement.message, submission.signature, domain=statement.DOMAIN
    )


def _require_equal(reason: str, expected: object, found: object) -> None:
    if expected != found:
        raise SettlementError(reason, expected=expected, found=found)
