"""How a member signs: `Signer` is its view and memory, and each function one step of a decision.

    prepare_epoch, prepare_rotation   agree with a proposal, in an attempt
    lock                              lock what more than two thirds prepared
    sign_epoch, sign_rotation         sign what more than two thirds locked, for the contract
    report                            end the attempts before this one, with the lock to keep

A member signs only statements that it has computed itself. `prepare_epoch` takes the verdicts, not
their root: it builds the statement from them and from the member's own view of the chain, and signs
only if it equals the proposal field for field. So no member signs for data that is unavailable.

Each function returns the memory and the vote: store the memory before sending the vote, as
`journal.DurableMember` does. The rules are in `ballots`, what justifies an attempt in `attempts`;
both in specs/settlement.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from protocols.settlement.attempts import Justification, locked_by
from protocols.settlement.ballots import NO_LOCK, MemberBallot
from protocols.settlement.committee import Committee
from protocols.settlement.statements import (
    EpochStatement,
    Lock,
    LockReport,
    Prepare,
    Rotation,
    SettlementError,
)
from protocols.settlement.submission import (
    Head,
    SettlementSubmission,
    require_next,
    require_term,
    verify_certificate,
)
from protocols.settlement.verdicts import EpochLog, VerdictRecord
from protocols.settlement.votes import Vote, decode_version
from verifiable import encoding
from verifiable.bls import PublicKey, Signature
from verifiable.errors import MalformedEncoding

MEMORY_VERSION: Final = 2

S = TypeVar("S", EpochStatement, Rotation, Prepare, Lock, LockReport)


class MemberKey(Protocol):
    """What signs for a member: `bls.SecretKey`, or hardware that holds one."""

    @property
    def public_key(self) -> PublicKey:
        """The member's registered key."""
        ...

    def sign(self, message: bytes, *, domain: bytes) -> Signature:
        """The signature of a message in a domain."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A member's own view and memory. Store it before sending the vote that came with it.

    Attributes:
      head: the chain as the member itself sees it; it never goes back.
      policy: id of the policy whose verdicts it signs.
      epoch_signed: the last statement of an epoch that it signed.
      rotation_signed: the last rotation that it signed.
      ballot: what it signed to decide on the next epoch or rotation.
      lock_proof: the prepares behind its lock there, which a report of it needs; or None.
    """

    head: Head
    policy: bytes
    epoch_signed: EpochStatement | None = None
    rotation_signed: Rotation | None = None
    ballot: MemberBallot = field(default_factory=MemberBallot)
    lock_proof: SettlementSubmission[Prepare] | None = None

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
        if (head.epoch, head.sequence) == (self.head.epoch, self.head.sequence):
            return replace(self, head=head)
        return replace(self, head=head, ballot=MemberBallot(), lock_proof=None)

    def encode(self) -> bytes:
        """The memory as bytes: the position of the chain, and the last statements signed."""
        signed = [s and s.message for s in (self.epoch_signed, self.rotation_signed)]
        words = self.head.deployment.words
        place = [self.head.epoch, self.head.sequence]
        ballot = [self.ballot.attempt, self.ballot.prepared, self.ballot.signed]
        lock = None if self.lock_proof is None else self.lock_proof.encode()
        return encoding.encode(
            ["signer", MEMORY_VERSION, words, *place, self.policy, *signed, *ballot, lock]
        )

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview, head: Head) -> Signer:
        """The signer of a stored memory, at the present head of the chain.

        Raises:
          MalformedEncoding: not the encoding of a signer.
          ValueError: the head is of another contract, or earlier than the stored one.
        """
        match decode_version("signer", data, MEMORY_VERSION):
            case [
                bytes(words),
                int(epoch),
                int(sequence),
                bytes(policy),
                signed,
                rotation,
                int(attempt),
                prepared,
                decided,
                proof,
            ] if all(
                x is None or type(x) is bytes for x in (signed, rotation, prepared, decided, proof)
            ):
                if words != head.deployment.words:
                    raise ValueError("a signer follows one contract, and this head is of another")
                lock = None if proof is None else SettlementSubmission.decode(Prepare, proof)
                stored = cls(
                    head=replace(head, epoch=epoch, sequence=sequence),
                    policy=policy,
                    epoch_signed=None if signed is None else EpochStatement.decode(signed),
                    rotation_signed=None if rotation is None else Rotation.decode(rotation),
                    ballot=MemberBallot(
                        attempt=attempt,
                        prepared=prepared,
                        locked=NO_LOCK if lock is None else locked_by(lock),
                        signed=decided,
                    ),
                    lock_proof=lock,
                )
                return stored.follow(head)
            case _:
                raise MalformedEncoding("expected the memory of a signer")


def prepare_epoch(
    secret: MemberKey,
    signer: Signer,
    proposal: EpochStatement,
    verdicts: Iterable[VerdictRecord],
    *,
    attempt: int = 0,
    justification: Justification | None = None,
) -> tuple[Signer, Vote[Prepare]]:
    """Prepare the statement of the next epoch, if it is the statement of the member's own verdicts.

    Args:
      secret: the member's secret key.
      signer: its view and memory.
      proposal: the statement that it is asked to agree with.
      verdicts: all verdicts of the epoch that it holds and agrees with, in any order.
      attempt: the attempt of the proposal.
      justification: of the attempt; None for attempt 0.

    Raises:
      SettlementError: as `verify_epoch` or `EpochLog`; other-root, other-size or other-policy;
        as `Justification.verify`; other-attempt, other-choice, already-signed, unknown-member.
      BadSignature, BadBatch: the justification is forged.
    """
    own = _own_epoch(signer, proposal, verdicts)
    return _prepare(secret, signer, own.digest, attempt, justification)


def prepare_rotation(
    secret: MemberKey,
    signer: Signer,
    proposal: Rotation,
    incoming: Committee,
    *,
    attempt: int = 0,
    justification: Justification | None = None,
) -> tuple[Signer, Vote[Prepare]]:
    """Prepare a rotation to a committee that the member holds and agrees to.

    Arguments and errors as for `prepare_epoch` and `verify_rotation`.
    """
    require_term(proposal, signer.head, incoming)
    own = signer.head.rotation(incoming)
    return _prepare(secret, signer, own.digest, attempt, justification)


def lock(
    secret: MemberKey, signer: Signer, prepared: SettlementSubmission[Prepare]
) -> tuple[Signer, Vote[Lock]]:
    """Lock what more than two thirds prepared.

    Raises:
      SettlementError: as `verify_certificate`, or other-attempt, already-signed, unknown-member.
      BadSignature, InfiniteAggregate: the certificate is forged.
    """
    verify_certificate(prepared, signer.head)
    attempt, choice = prepared.statement.attempt, prepared.statement.choice
    ballot = signer.ballot.lock(attempt, choice)
    own = signer.head.attempt(Lock, attempt, choice)
    vote = _vote(secret, signer, own)
    return replace(signer, ballot=ballot, lock_proof=prepared), vote


def report(
    secret: MemberKey, signer: Signer, attempt: int
) -> tuple[Signer, Vote[LockReport], SettlementSubmission[Prepare] | None]:
    """Leave all attempts before this one.

    Returns:
      The memory to store first, the report to send then, and the prepares behind its lock, to be
      sent with it, or None without a lock.

    Raises:
      SettlementError: other-attempt, unknown-member.
    """
    ballot = signer.ballot.report(attempt)
    locked, choice = ballot.locked
    own = signer.head.attempt(LockReport, attempt, choice, locked=locked)
    return replace(signer, ballot=ballot), _vote(secret, signer, own), signer.lock_proof


def sign_epoch(
    secret: MemberKey,
    signer: Signer,
    proposal: EpochStatement,
    verdicts: Iterable[VerdictRecord],
    decision: SettlementSubmission[Lock],
) -> tuple[Signer, Vote[EpochStatement]]:
    """Sign the statement of the next epoch, once it is decided.

    Args:
      secret: the member's secret key.
      signer: its view and memory.
      proposal: the statement that it is asked to sign.
      verdicts: all verdicts of the epoch that it holds and agrees with, in any order.
      decision: locks of more than two thirds on the statement.

    Raises:
      SettlementError: as `prepare_epoch` or `verify_certificate`; other-choice, already-signed,
        unknown-member.
      BadSignature, InfiniteAggregate: the decision is forged.
    """
    own = _own_epoch(signer, proposal, verdicts)
    signer = _decided(signer, own, signer.epoch_signed, decision)
    return replace(signer, epoch_signed=own), _vote(secret, signer, own)


def sign_rotation(
    secret: MemberKey,
    signer: Signer,
    proposal: Rotation,
    incoming: Committee,
    decision: SettlementSubmission[Lock],
) -> tuple[Signer, Vote[Rotation]]:
    """Sign a rotation, once it is decided. Arguments and errors as for `sign_epoch`."""
    require_term(proposal, signer.head, incoming)
    own = signer.head.rotation(incoming)
    signer = _decided(signer, own, signer.rotation_signed, decision)
    return replace(signer, rotation_signed=own), _vote(secret, signer, own)


def _own_epoch(
    signer: Signer, proposal: EpochStatement, verdicts: Iterable[VerdictRecord]
) -> EpochStatement:
    """The statement of the member's own verdicts, which the proposal must be."""
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
    return signer.head.statement(root=log.tree.root, size=log.tree.size, policy=signer.policy)


def _prepare(
    secret: MemberKey,
    signer: Signer,
    choice: bytes,
    attempt: int,
    justification: Justification | None,
) -> tuple[Signer, Vote[Prepare]]:
    own = signer.head.attempt(Prepare, attempt, choice)
    locks = (NO_LOCK,)
    if attempt:
        if justification is None:
            raise SettlementError("other-attempt", expected="a justification", found=None)
        locks = justification.verify(own, signer.head)
    ballot = signer.ballot.prepare(attempt, choice, locks)
    return replace(signer, ballot=ballot), _vote(secret, signer, own)


def _decided(
    signer: Signer,
    own: EpochStatement | Rotation,
    before: EpochStatement | Rotation | None,
    decision: SettlementSubmission[Lock],
) -> Signer:
    """The signer after the signature of a decided statement."""
    if before is not None and before.place == own.place and before != own:
        raise SettlementError("already-signed", expected=before.message, found=own.message)
    ballot = signer.ballot.sign(own.digest)
    verify_certificate(decision, signer.head)
    if decision.statement.choice != own.digest:
        raise SettlementError("other-choice", expected=own.digest, found=decision.statement.choice)
    return replace(signer, ballot=ballot)


def _vote(secret: MemberKey, signer: Signer, own: S) -> Vote[S]:
    signature = secret.sign(own.message, domain=own.DOMAIN)
    member = signer.head.committee.index(secret.public_key)
    return Vote(statement=own, member=member, signature=signature)
