"""The decision: how a job ended, and which ballots agreed.

An accepted answer comes with the workers that gave it and, if a vote decided, with the bound on
the probability that such a vote accepts a wrong answer. A vote blames no worker; an audit that
convicts does.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Final, cast

from protocols.messages.message import HEADS, Message, is_count, is_digest, is_uint, or_null
from verifiable.encoding import tagged_hash
from verifiable.voting import VoteOutcome

MAX_BALLOTS: Final = 1024
"""The most workers that a decision names on either side."""


def _is_probability(value: Any) -> bool:
    return type(value) is float and 0.0 <= value <= 1.0


def _is_ascending(value: Any) -> bool:
    return (
        type(value) is tuple
        and len(value) <= MAX_BALLOTS
        and all(map(is_digest, value))
        and all(a < b for a, b in pairwise(value))
    )


class Reason(enum.Enum):
    """Why a job ended as it did. The values are stable."""

    AGREED = "agreed"
    AUDITED = "audited"
    EXHAUSTED = "ballots-exhausted"
    NO_WORKERS = "no-workers-left"
    EXPIRED = "expired"
    NO_BEACON = "beacon-missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Message):
    """How a job ended. It is final.

    Attributes:
      coordinator: identity of the coordinator that the job names, which signs it.
      job: digest of the job.
      epoch: epoch of the job.
      outcome: whether an answer was accepted.
      reason: why, by a stable code; AGREED or AUDITED iff accepted.
      answer: `answer_digest` of the accepted answer, as it was submitted; None iff indeterminate.
      group: workers whose ballots agree with it, strictly ascending.
      dissenters: workers of all other ballots, strictly ascending. Dissent is no offence.
      requested: ballots requested, at least 1.
      beacon: round of the beacon that broke ties; None if the job ended before one was drawn.
      error: bound on the probability that a vote accepts a wrong answer; None unless AGREED.
    """

    KIND: ClassVar[str] = "decision"
    TAG: ClassVar[str] = "message decision"
    MAX_SIZE: ClassVar[int] = HEADS + 2 * 34 * MAX_BALLOTS
    LISTED: ClassVar[int] = 2 * MAX_BALLOTS
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]] = {
        "coordinator": is_digest,
        "job": is_digest,
        "epoch": is_uint,
        "outcome": lambda value: isinstance(value, VoteOutcome),
        "reason": lambda value: isinstance(value, Reason),
        "answer": or_null(is_digest),
        "group": _is_ascending,
        "dissenters": _is_ascending,
        "requested": is_count,
        "beacon": or_null(is_uint),
        "error": or_null(_is_probability),
    }

    coordinator: bytes
    job: bytes
    epoch: int
    outcome: VoteOutcome
    reason: Reason
    answer: bytes | None
    group: tuple[bytes, ...]
    dissenters: tuple[bytes, ...]
    requested: int
    beacon: int | None
    error: float | None

    def __post_init__(self) -> None:
        """Check every field, and the fields against one another.

        Raises:
          ValueError: a field has a wrong type, size or range, or contradicts another field.
        """
        Message.__post_init__(self)
        accepted = self.outcome is VoteOutcome.ACCEPT
        if accepted != (self.reason in {Reason.AGREED, Reason.AUDITED}):
            raise ValueError(
                f"outcome {self.outcome.value} contradicts reason {self.reason.value}: "
                "a job is accepted iff it agreed or was audited"
            )
        if accepted != (self.answer is not None) or accepted != bool(self.group):
            raise ValueError("a decision has an answer and a group iff its outcome is accept")
        if (self.reason is Reason.AGREED) != (self.error is not None):
            raise ValueError("a decision has an error bound iff its reason is agreed")
        if not set(self.group).isdisjoint(self.dissenters):
            raise ValueError("a worker is both in the group and among the dissenters")

    def _values(self) -> list[Any]:
        values = Message._values(self)
        return [v.value if isinstance(v, enum.Enum) else v for v in values]

    @classmethod
    def _field(cls, name: str, wire: Any) -> Any:
        match name:
            case "outcome":
                return VoteOutcome(wire)
            case "reason":
                return Reason(wire)
            case "group" | "dissenters":
                # Require a list: `tuple("")` and `tuple({})` would otherwise decode as an empty
                # group.
                if type(wire) is not list:
                    raise TypeError(
                        f"{name} of a decision must be an array, got {type(wire).__name__}"
                    )
                return tuple(cast("list[Any]", wire))
            case _:
                return wire


def answer_digest(value: bytes) -> bytes:
    """32-byte tagged hash of an answer, by which a decision names it."""
    return tagged_hash("answer", value)
