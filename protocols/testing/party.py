"""The workers of a game: who signs, and what each has sent."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocols.identities import Identity
from protocols.messages import Reveal
from protocols.testing.adapter import FleetJob
from protocols.testing.scenario import WorkerPlan
from verifiable.encoding import tagged_hash
from verifiable.submission import Submission


@dataclass(frozen=True, eq=False)
class Party:
    """Who signs as a worker."""

    key: Ed25519PrivateKey
    identity: Identity

    @classmethod
    @functools.cache
    def of(cls, number: int) -> Party:
        """The worker of a number: the same in every scenario."""
        seed = tagged_hash("worker of a fleet", number.to_bytes(8))
        key = Ed25519PrivateKey.from_private_bytes(seed)
        return cls(key, Identity(public_key=key.public_key().public_bytes_raw()))


@dataclass(eq=False)
class FleetPart:
    """One worker in one job.

    Attributes:
      plan: what it does.
      party: who it is.
      job: the job.
      place: number of the job.
      sent: its run; None if it has none.
      answer: what it wants to be paid for.
      reveal: what opens its commitment.
      honest: whether it did nothing wrong here.
      handed: whether it has handed its run in.
      committed: when its commitment arrived in time, first.
      arrived: whether its run arrived in time after it was asked for.
      goes_by: identity that its messages name, 32 bytes: its own, unless it forges another's.
    """

    plan: WorkerPlan
    party: Party
    job: FleetJob
    place: int
    sent: Submission | None = None
    answer: Any = None
    reveal: Reveal | None = None
    honest: bool = False
    handed: bool = False
    committed: int | None = None
    arrived: bool = False
    goes_by: bytes = b""

    def __post_init__(self) -> None:
        """Go by its own name."""
        self.goes_by = self.goes_by or self.name

    @property
    def name(self) -> bytes:
        """Identity of the worker."""
        return self.party.identity.id

    def __str__(self) -> str:
        """Who it is, for messages."""
        cheat = f" ({self.plan.cheat})" if self.plan.cheat else ""
        return f"the {self.plan.role.value} worker{cheat} of job {self.place}"
