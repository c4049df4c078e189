"""Members of a committee that break a rule of ballots, to show what the rule is for."""

from __future__ import annotations

from collections.abc import Iterable

from protocols.settlement.ballots import NO_LOCK, Locked, MemberBallot


class ForgetsLocks(MemberBallot):
    """Prepares any choice in a later attempt: the highest lock prescribes none."""

    __slots__ = ()

    def prepare(self, attempt: int, choice: bytes, locks: Iterable[Locked]) -> MemberBallot:
        return MemberBallot.prepare(self, attempt, choice, [NO_LOCK])
