"""Audits of a part, of jobs that one worker each computes: receipt, closed log, draw, opening.

    receipt    TraceReceipt: what a worker sends of its run, before anybody knows what is audited
    state      rules, state, events and effects of one job at one worker
    step       start, step: the pure transitions; who is audited, and with what seed
    judging    Judge: the plan of a seed, and the verdict on an opening; needs JAX

    state, effects = start(job, worker, rules, now=now)
    state, effects = step(state, event)          the caller carries out the effects

A worker that is not audited has sent a few hundred bytes. One that is asked and does not open has
failed its job, and is proven nothing. `protocols.journal.AUDITED` records it: specs/audit.md.
"""

from __future__ import annotations

from protocols.audited.receipt import TraceReceipt
from protocols.audited.state import (
    AskOpening,
    AwaitRound,
    EnterLog,
    JobResult,
    JudgeOpening,
    LogClosed,
    OpeningCame,
    OpeningJudged,
    Outcome,
    PartialEffect,
    PartialEvent,
    PartialRules,
    PartialState,
    ReceiptCame,
    RefuseEvent,
    RoundSeen,
    Stage,
)
from protocols.audited.step import audited, seed_of, start, step

__all__ = [
    "AskOpening",
    "AwaitRound",
    "EnterLog",
    "JobResult",
    "JudgeOpening",
    "LogClosed",
    "OpeningCame",
    "OpeningJudged",
    "Outcome",
    "PartialEffect",
    "PartialEvent",
    "PartialRules",
    "PartialState",
    "ReceiptCame",
    "RefuseEvent",
    "RoundSeen",
    "Stage",
    "TraceReceipt",
    "audited",
    "seed_of",
    "start",
    "step",
]
