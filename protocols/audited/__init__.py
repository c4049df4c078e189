"""Audits of a part, of jobs that one worker each computes: two commitments, two draws, an opening.

    receipt    AnswerReceipt, of every job; TraceReceipt, of an audited one
    draw       who is audited, and with what seed; `require_drawn` verifies a coordinator's draw
    state      rules, state, events and effects of one job at one worker
    step       start, step: the pure transitions
    orders     what a coordinator tells a worker that is audited
    dispute    workers gave different answers to one job: who is wrong
    device     the worker's half; needs JAX
    judging    Judge: the plan of a seed, and the verdict on an opening; needs JAX

    state, effects = start(job, worker, rules, now=now)
    state, effects = step(state, event)          the caller carries out the effects

A worker that is not audited has sent a receipt of its answer, in a few hundred bytes, and has made
no trace. One that is audited and does not commit and open has failed its job, and is proven
nothing. `protocols.journal.AUDITED` records it. Rules: specs/audited.md.
"""

from __future__ import annotations

from protocols.audited.dispute import DisputeFinding
from protocols.audited.draw import NotDrawn, audited, job_seed, require_drawn, unit_seed
from protocols.audited.orders import AuditNotice, OpeningRequest, order
from protocols.audited.receipt import AnswerReceipt, TraceReceipt
from protocols.audited.state import (
    AskOpening,
    AskTrace,
    AwaitRound,
    EnterLog,
    EnterTraceLog,
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
    TraceCame,
    TraceLogClosed,
)
from protocols.audited.step import start, step

__all__ = [
    "AnswerReceipt",
    "AskOpening",
    "AskTrace",
    "AuditNotice",
    "AwaitRound",
    "DisputeFinding",
    "EnterLog",
    "EnterTraceLog",
    "JobResult",
    "JudgeOpening",
    "LogClosed",
    "NotDrawn",
    "OpeningCame",
    "OpeningJudged",
    "OpeningRequest",
    "Outcome",
    "PartialEffect",
    "PartialEvent",
    "PartialRules",
    "PartialState",
    "ReceiptCame",
    "RefuseEvent",
    "RoundSeen",
    "Stage",
    "TraceCame",
    "TraceLogClosed",
    "TraceReceipt",
    "audited",
    "job_seed",
    "order",
    "require_drawn",
    "start",
    "step",
    "unit_seed",
]
