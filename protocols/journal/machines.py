"""The protocols that a journal records, one line each."""

from __future__ import annotations

from typing import Final

from protocols import replicated
from protocols.journal.runs import Machine
from protocols.replicated import Effect, Event, Phase, Refuse, Rules, State

REPLICATED: Final[Machine[State, Event, Effect]] = Machine.of(
    "replicated",
    1,
    replicated.step,
    event=Event,
    state=State,
    effect=Effect,
    ended=lambda state: state.phase is Phase.ENDED,
    given=Rules,
    silent=(Refuse, replicated.Absent),
)
"""One job of replicated execution: specs/replicated.md."""
