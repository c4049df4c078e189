"""What a member may sign for one place, so that the place has one decision and none is frozen.

A place is a term of a committee and the next epoch. Its choices are statements: of the epoch, or of
a rotation. A coordinator proposes a choice in numbered attempts, from 0, and each has three steps:

    prepare   a member agrees with the choice: one for each attempt
    lock      more than two thirds prepared it: the member locks the choice in this attempt
    sign      more than two thirds locked it: the choice is decided, and the member signs it

To start attempt a, members *report* their last lock, and take part in none before a from then on.
More than two thirds of reports, with the prepares behind the highest lock, justify the attempt: its
choice must be the one of the highest lock, and any choice if there is none. No deadline does.

So if v is decided in attempt a, every later justification contains a correct member that locked v
in a or has a later lock, and by induction all prepared choices after a are v. Members with at
most a third of the weight may be faulty. Proof: specs/settlement.md.

This module holds the rules alone: no signatures, no statements. Locks are (attempt + 1, choice), or
(0, 32 zeros) without one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from protocols.settlement.statements import SettlementError

Locked: TypeAlias = tuple[int, bytes]
"""Attempt + 1 and choice of a lock; (0, 32 zeros) for none."""

NO_LOCK: Final[Locked] = (0, bytes(32))
MAX_STEP: Final = 1024
"""By how much a request may raise an attempt, so that nobody can use up the numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberBallot:
    """What a member has signed for one place. Store it before sending the vote.

    Attributes:
      attempt: the attempt that it takes part in; it never goes back.
      prepared: the choice that it prepared in this attempt, 32 bytes, or None.
      locked: its last lock.
      signed: the decided choice that it signed, or None.
    """

    attempt: int = 0
    prepared: bytes | None = None
    locked: Locked = NO_LOCK
    signed: bytes | None = None

    def prepare(self, attempt: int, choice: bytes, locks: Iterable[Locked]) -> MemberBallot:
        """The ballot after a prepare.

        Args:
          attempt: the attempt of the proposal.
          choice: digest of the statement that the member agrees with.
          locks: those of the reports that justify the attempt; not read for attempt 0.

        Raises:
          SettlementError: other-attempt, other-choice, already-signed.
        """
        self._require_open(attempt)
        required = required_choice(locks) if attempt else None
        if required not in (None, choice):
            raise SettlementError("other-choice", expected=required, found=choice)
        moved = self._at(attempt)
        if moved.prepared not in (None, choice):
            raise SettlementError("already-signed", expected=moved.prepared, found=choice)
        return replace(moved, prepared=choice)

    def lock(self, attempt: int, choice: bytes) -> MemberBallot:
        """The ballot after a lock on what more than two thirds prepared in this attempt.

        Raises:
          SettlementError: other-attempt, already-signed.
        """
        self._require_open(attempt)
        if self.locked[0] == attempt + 1 and self.locked[1] != choice:
            raise SettlementError("already-signed", expected=self.locked[1], found=choice)
        return replace(self._at(attempt), locked=(attempt + 1, choice))

    def report(self, attempt: int) -> MemberBallot:
        """The ballot after a report of the lock, which ends all attempts before this one.

        Raises:
          SettlementError: other-attempt: an attempt that is over, more than `MAX_STEP` ahead, or in
            which the member has a lock.
        """
        latest = self.attempt + MAX_STEP
        if not max(self.attempt, self.locked[0], 1) <= attempt <= latest:
            raise SettlementError("other-attempt", expected=self.attempt + 1, found=attempt)
        return self._at(attempt)

    def sign(self, choice: bytes) -> MemberBallot:
        """The ballot after the signature of a decided choice.

        Raises:
          SettlementError: already-signed.
        """
        if self.signed not in (None, choice):
            raise SettlementError("already-signed", expected=self.signed, found=choice)
        return replace(self, signed=choice)

    def _require_open(self, attempt: int) -> None:
        if attempt < self.attempt:
            raise SettlementError("other-attempt", expected=self.attempt, found=attempt)

    def _at(self, attempt: int) -> MemberBallot:
        return self if attempt == self.attempt else replace(self, attempt=attempt, prepared=None)


def required_choice(locks: Iterable[Locked]) -> bytes | None:
    """The choice that these locks prescribe, or None if they leave it free."""
    attempt, choice = max(locks)
    return choice if attempt else None
