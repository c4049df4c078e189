"""Values of vote collection: rules, state, events and effects of one statement.

All are frozen. An event carries the time at which the coordinator saw it, in seconds since
1970-01-01 UTC. An effect is a task for the caller: this package sends nothing and reads no clock.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from protocols.events import Tick
from protocols.settlement.committee import Committee
from protocols.settlement.statements import EpochStatement, Lock, LockReport, Prepare, Rotation
from protocols.settlement.submission import SettlementSubmission
from protocols.settlement.votes import Equivocation, Vote
from verifiable.bls import Signature

S = TypeVar("S", EpochStatement, Rotation, Prepare, Lock, LockReport)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementRules:
    """How votes are collected.

    Attributes:
      batch: most pending votes before they are verified, at least 1.
      ask_seconds: how long to wait before missing members are asked again, at least 1.
      grace_seconds: how long to wait for the other votes once there is a quorum; 0 for no wait.
    """

    batch: int = 32
    ask_seconds: int = 60
    grace_seconds: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for rules that would never verify or ask anything."""
        if self.batch < 1 or self.ask_seconds < 1 or self.grace_seconds < 0:
            raise ValueError(
                "batch and ask_seconds must be positive, and grace_seconds not negative: got "
                f"{self.batch}, {self.ask_seconds} and {self.grace_seconds}"
            )


class SettlementPhase(enum.Enum):
    """Phase of the collection."""

    ASK = "ask"
    GRACE = "grace"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementState(Generic[S]):
    """Everything known of the votes on one statement.

    Attributes:
      rules: how votes are collected.
      committee: the committee that votes.
      statement: the statement that it votes on.
      now: time of the latest event; it never goes back.
      deadline: send a `Tick` then; None once there is nothing to wait for.
      phase: phase of the collection.
      signatures: valid signatures on the statement, by member.
      strays: the first valid vote of each member on another statement for this place.
      pending: votes not yet verified, in order of arrival.
      accused: members already accused.
    """

    rules: SettlementRules
    committee: Committee
    statement: S
    now: int
    deadline: int | None
    phase: SettlementPhase = SettlementPhase.ASK
    signatures: Mapping[int, Signature] = field(default_factory=dict[int, Signature])
    strays: Mapping[int, Vote[S]] = field(default_factory=dict[int, Vote[S]])
    pending: tuple[Vote[S], ...] = ()
    accused: frozenset[int] = frozenset()

    @property
    def everyone_voted(self) -> bool:
        """Whether every member has a valid signature on the statement."""
        return len(self.signatures) == len(self.committee.members)


# The events: `Tick`, which all protocols share, and a vote.


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteReceived(Generic[S]):
    """A vote arrived. Only its form has been checked (`Vote.decode`)."""

    at: int
    vote: Vote[S]


# Effects: tasks for the caller.


@dataclass(frozen=True, slots=True, kw_only=True)
class AskVotes(Generic[S]):
    """Send the statement to members, with the verdicts or the committee that it stands for."""

    statement: S
    members: tuple[int, ...]
    deadline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseVote:
    """A vote was refused. This blames no member: votes can be sent in any member's name.

    Attributes:
      member: the member that the vote names.
      reason: unknown-member, other-place, other-statement, duplicate, or bad-signature.
    """

    member: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuse(Generic[S]):
    """A member signed two statements for one place. Comes once for each member."""

    evidence: Equivocation[S]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitSettlement(Generic[S]):
    """Send the submission to the contract, and again if the chain loses it. Comes once."""

    submission: SettlementSubmission[S]


SettlementEffect: TypeAlias = AskVotes[Any] | RefuseVote | Accuse[Any] | SubmitSettlement[Any]

SettlementEvent: TypeAlias = Tick | VoteReceived[S]
SettlementTransition: TypeAlias = tuple[SettlementState[S], tuple[SettlementEffect, ...]]
"""A new state, and the tasks that it brings, in this order."""
