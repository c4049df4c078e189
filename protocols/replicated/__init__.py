"""Replicated execution of one job: several workers, a vote, and an audit on disagreement.

    start, step       the two functions: from an event to the next state and its effects
    seated            the workers whose messages are decoded
    order             the message that the coordinator signs for an effect (`orders`)
    Rules, Schedule   what the coordinator decides by
    State, Seat       what it knows of one job and of each worker
    events            Tick, Received, Drawn, Audited, WindowClosed
    effects           Dispatch, Record, AskReveal, AwaitBeacon, Audit, AwaitWindow, Refuse, Absent,
                      Blame, Conclude

`state` defines the values, `step` handles events, `phases` moves a job from one phase to the next,
and `ballots` decides on the ballots that stand. `runs` makes messages of runs, `audit` audits a
ballot, and `mismatch` shows a false answer to others: they need JAX, and are imported by their own
names. Rules: specs/replicated.md.
"""

from __future__ import annotations

from protocols.events import Tick
from protocols.replicated.orders import order
from protocols.replicated.state import (
    Absent,
    AskReveal,
    Audit,
    Audited,
    AwaitBeacon,
    AwaitWindow,
    Blame,
    Conclude,
    Dispatch,
    Drawn,
    Effect,
    Event,
    Phase,
    Place,
    Received,
    Record,
    Refuse,
    Rules,
    Schedule,
    Seat,
    State,
    Transition,
    WindowClosed,
    seated,
)
from protocols.replicated.step import start, step

__all__ = [
    "Absent",
    "AskReveal",
    "Audit",
    "Audited",
    "AwaitBeacon",
    "AwaitWindow",
    "Blame",
    "Conclude",
    "Dispatch",
    "Drawn",
    "Effect",
    "Event",
    "Phase",
    "Place",
    "Received",
    "Record",
    "Refuse",
    "Rules",
    "Schedule",
    "Seat",
    "State",
    "Tick",
    "Transition",
    "WindowClosed",
    "order",
    "seated",
    "start",
    "step",
]
