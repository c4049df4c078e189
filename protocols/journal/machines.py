"""Protocols as a journal sees them, one line each.

A `Machine` is a step function with the codecs of its values, which follow from their types. Its
version, the types of its values and its rules are recorded with every stream, so no stream is
folded by another function than the one that made it.
"""

from __future__ import annotations

import enum
import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final, Generic, TypeVar

from protocols import audited, replicated
from protocols.audited import PartialEffect, PartialEvent, PartialRules, PartialState, RefuseEvent
from protocols.journal.codec import Codec
from protocols.replicated import Effect, Event, Phase, Refuse, Rules, State
from verifiable import encoding
from verifiable.encoding import tagged_hash

S = TypeVar("S")
E = TypeVar("E")
F = TypeVar("F")

RESERVED: Final = frozenset({"commitments", "keys", "signed", "snapshot"})
"""First parts of the names of other streams."""

_PLAIN: Final = (type(None), bool, int, float, bytes, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine(Generic[S, E, F]):
    """A protocol as a journal sees it: its step function, and the codecs of its values.

    Attributes:
      name: first part of the names of its streams.
      version: of its step function. Raise it with every change of what `step` does: a stream is
        folded by the version that began it, or not at all.
      step: from a state and an event to the next state and its effects.
      codec: of everything that is recorded.
      ended: whether a state is final.
      given: type of what each process is given anew, such as rules; None for nothing.
      silent: types of effects that are handed out at most once, and need no confirmation.
    """

    name: str
    version: int
    step: Callable[[S, E], tuple[S, tuple[F, ...]]]
    codec: Mapping[str, Codec]
    ended: Callable[[S], bool]
    given: type | None
    silent: tuple[type, ...]

    @classmethod
    def of(
        cls,
        name: str,
        version: int,
        step: Callable[[S, E], tuple[S, tuple[F, ...]]],
        *,
        event: Any,
        state: Any,
        effect: Any,
        ended: Callable[[S], bool],
        given: type | None = None,
        silent: tuple[type, ...] = (),
    ) -> Machine[S, E, F]:
        """The machine of a protocol, with the codecs that follow from its types.

        Args:
          name, version, step, ended, given, silent: as the attributes.
          event: a dataclass or a union of some.
          state: a dataclass with a field `now`.
          effect: a dataclass or a union of some.

        Raises:
          TypeError: a field has a type that has no bytes and is not given.
          ValueError: another name than a word of lower-case letters, or one that journals use.
        """
        if not (name.isascii() and name.isalpha() and name.islower()) or name in RESERVED:
            raise ValueError(f"{name!r} cannot name a protocol: take another word of lower case")
        without = () if given is None else (given,)
        kinds = {"state": state, "event": event, "effect": effect}
        codec = {key: Codec.of(kind, given=without) for key, kind in kinds.items()}
        return cls(
            name=name,
            version=version,
            step=step,
            codec=codec,
            ended=ended,
            given=given,
            silent=silent,
        )

    @property
    def fingerprint(self) -> bytes:
        """32-byte hash of the schemas of states, events and effects."""
        return tagged_hash("journal machine", *(codec.fingerprint for codec in self.codec.values()))


def describe(value: Any) -> bytes:
    """32-byte hash of rules: of their types, numbers and texts, and the names of functions.

    Two rules with one description may still differ in what a function does: rename a function when
    you change what it decides.
    """
    return tagged_hash("journal rules", encoding.encode(_description(value)))


def _description(value: Any) -> Any:
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, enum.Enum):
        return [name, value.name]
    if kind in _PLAIN:
        return [name, repr(value)]
    if isinstance(value, tuple | list):
        return [name, *map(_description, value)]
    if isinstance(value, Mapping | frozenset | set):
        items = value.items() if isinstance(value, Mapping) else value
        return [name, *sorted(map(_description, items), key=encoding.encode)]
    if isinstance(value, functools.partial):
        return [name, *map(_description, (value.func, value.args, value.keywords))]
    if isinstance(value, types.MethodType):
        return [name, value.__func__.__qualname__, _description(value.__self__)]
    if is_dataclass(value) and not isinstance(value, type):
        parts = [[f.name, _description(getattr(value, f.name))] for f in fields(value) if f.compare]
        return [name, *parts]
    if hasattr(value, "__qualname__"):
        return [name, f"{value.__module__}.{value.__qualname__}"]
    return [name, _description(getattr(value, "__dict__", {}))]


REPLICATED: Final[Machine[State, Event, Effect]] = Machine.of(
    "replicated",
    1,
    replicated.step,
    event=Event,
    state=State,
    effect=Effect,
    ended=lambda state: state.phase is Phase.ENDED,
    given=Rules,
    silent=(Refuse,),
)
"""One job of replicated execution: specs/replicated.md."""

AUDITED: Final[Machine[PartialState, PartialEvent, PartialEffect]] = Machine.of(
    "audited",
    2,
    audited.step,
    event=PartialEvent,
    state=PartialState,
    effect=PartialEffect,
    ended=lambda state: state.stage is audited.Stage.ENDED,
    given=PartialRules,
    silent=(RefuseEvent,),
)
"""One job at one worker, audited in part: specs/audited.md."""
