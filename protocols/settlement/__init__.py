"""Settlement: verdicts of an epoch, signed by a committee."""

from __future__ import annotations

from protocols.settlement.step import (
    Accuse,
    AskVotes,
    Effect,
    Phase,
    Received,
    Refuse,
    Rules,
    State,
    Submit,
    Tick,
    start_epoch,
    start_rotation,
    step,
)

__all__ = [
    "Accuse",
    "AskVotes",
    "Effect",
    "Phase",
    "Received",
    "Refuse",
    "Rules",
    "State",
    "Submit",
    "Tick",
    "start_epoch",
    "start_rotation",
    "step",
]
