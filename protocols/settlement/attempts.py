"""What justifies an attempt: reports by more than two thirds, and the prepares of their last lock.

A `Justification` for attempt a holds one report of each of its members, and the prepares of more
than two thirds for the choice of the highest lock that the reports name. So a lock that nobody had
is no reason for anything: a coordinator leaves out a report whose prepares it did not get. Rules:
`ballots` and specs/settlement.md.

`BrokenReport` convicts a member that hid a lock from its report, or locked in an attempt that its
report had ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

from protocols.settlement.ballots import Locked
from protocols.settlement.committee import MAX_MEMBERS, Committee
from protocols.settlement.statements import Lock, LockReport, Prepare, SettlementError
from protocols.settlement.submission import (
    Head,
    SettlementSubmission,
    require_open,
    verify_certificate,
)
from protocols.settlement.votes import Vote, decode_version, vote_of
from verifiable import bls, encoding
from verifiable.errors import MalformedEncoding

VERSION: Final = 1
_KIND: Final = "attempt justification"
_BROKEN: Final = "broken report"
_MAX_SIZE: Final = 2**18  # more than the reports of 256 members take


def locked_by(prepared: SettlementSubmission[Prepare]) -> Locked:
    """The lock that these prepares allow."""
    return prepared.statement.attempt + 1, prepared.statement.choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Justification:
    """Why a member may take part in an attempt, not verified: `verify` verifies it.

    Attributes:
      reports: at most one of each member.
      prepared: prepares behind the highest lock that a report names; None if none names any.
    """

    reports: tuple[Vote[LockReport], ...]
    prepared: SettlementSubmission[Prepare] | None

    def verify(self, proposal: Prepare, head: Head) -> tuple[Locked, ...]:
        """Verify that these reports justify the attempt of a proposal, and return their locks.

        Raises:
          SettlementError: as `require_open`; other-attempt: a report of another attempt;
            unknown-member, duplicate, no-quorum: by members; other-choice: the prepares are not
            those of the highest lock, or two reports name it with different choices; or as
            `verify_certificate`.
          BadBatch, BadSignature, InfiniteAggregate: a signature does not verify.
        """
        require_open(proposal, head)
        committee = head.committee
        for report in self.reports:
            require_open(report.statement, head)
            if report.statement.attempt != proposal.attempt:
                raise SettlementError(
                    "other-attempt", expected=proposal.attempt, found=report.statement.attempt
                )
            if report.member >= len(committee.members):
                raise SettlementError(
                    "unknown-member", expected=len(committee.members), found=report.member
                )
        members = frozenset(report.member for report in self.reports)
        if len(members) < len(self.reports):
            raise SettlementError("duplicate")
        if not committee.has_quorum(members):
            raise SettlementError(
                "no-quorum",
                expected=f"more than 2/3 of {committee.total}",
                found=committee.weight(members),
            )
        locks = tuple((r.statement.locked, r.statement.choice) for r in self.reports)
        self._require_highest(locks, head)
        batch = [
            bls.SignedMessage(committee.members[r.member].key.key, r.statement.message, r.signature)
            for r in self.reports
        ]
        bls.verify_batch(batch, domain=LockReport.DOMAIN)
        return locks

    def _require_highest(self, locks: tuple[Locked, ...], head: Head) -> None:
        highest = max(locked for locked, _ in locks)
        named = {lock for lock in locks if lock[0] == highest}
        if not highest:
            if self.prepared is not None:
                raise SettlementError("other-choice", expected="no prepares", found="prepares")
            return
        if self.prepared is None or named != {locked_by(self.prepared)}:
            raise SettlementError("other-choice", expected="the prepares of the highest lock")
        verify_certificate(self.prepared, head)

    def encode(self) -> bytes:
        """The one encoding of this justification."""
        reports = [report.encode() for report in self.reports]
        prepared = None if self.prepared is None else self.prepared.encode()
        return encoding.encode([_KIND, VERSION, reports, prepared])

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read a justification.

        Raises:
          MalformedEncoding: not the encoding of one.
        """
        fields: Any = encoding.decode(data, max_size=_MAX_SIZE)
        match fields:
            case [name, version, list(reports), None | bytes() as prepared] if (
                name == _KIND
                and type(version) is int
                and version == VERSION
                and len(reports) <= MAX_MEMBERS
                and all(type(report) is bytes for report in reports)
            ):
                return cls(
                    reports=tuple(Vote.decode(LockReport, report) for report in reports),
                    prepared=None
                    if prepared is None
                    else SettlementSubmission.decode(Prepare, prepared),
                )
            case _:
                raise MalformedEncoding(f"expected version {VERSION} of the kind {_KIND!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenReport:
    """Evidence that a member reported an earlier lock than one that it signed, or signed one later.

    Attributes:
      report: its report.
      lock: its lock in an attempt that the report ended, and that the report does not name.

    Raises:
      SettlementError: no-conflict: another member or place, or a lock that the report allows.
    """

    report: Vote[LockReport]
    lock: Vote[Lock]

    def __post_init__(self) -> None:
        """Check that the report and the lock contradict each other."""
        told, done = self.report.statement, self.lock.statement
        same = self.report.member == self.lock.member and told.place[:-1] == done.place[:-1]
        hidden = done.attempt < told.attempt and (
            done.attempt + 1 > told.locked
            or (done.attempt + 1 == told.locked and done.choice != told.choice)
        )
        if not same or not hidden:
            raise SettlementError("no-conflict")

    def verify(self, committee: Committee) -> None:
        """Verify both signatures; this needs only the committee.

        Raises:
          SettlementError: other-committee, unknown-member.
          BadSignature: the member did not sign one of the statements.
        """
        self.report.verify(committee)
        self.lock.verify(committee)

    def encode(self) -> bytes:
        """The one encoding of this evidence."""
        sides = [
            x for v in (self.report, self.lock) for x in (v.statement.message, v.signature.encoded)
        ]
        return encoding.encode([_BROKEN, VERSION, self.report.member, *sides])

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read evidence.

        Raises:
          MalformedEncoding: not the encoding of any (InvalidPoint for a malformed signature).
          SettlementError: no-conflict.
        """
        match decode_version(_BROKEN, data):
            case [int(member), bytes(told), bytes(sign_told), bytes(done), bytes(sign_done)]:
                return cls(
                    report=vote_of(LockReport, member, told, sign_told),
                    lock=vote_of(Lock, member, done, sign_done),
                )
            case _:
                raise MalformedEncoding("expected a report and a lock of one member")
