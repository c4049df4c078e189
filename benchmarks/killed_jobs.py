"""Jobs of a coordinator that is killed: of replicated execution, and of audits of a part.

Workers answer anew whenever they are asked, and verdicts are drawn, so that a coordinator that had
forgotten an event would take another one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from protocols import audited
from protocols.audited import Stage
from protocols.journal import AUDITED, REPLICATED, Journal, Recorded
from protocols.messages import Job, Reveal, Signed
from protocols.replicated import (
    Audit,
    Audited,
    AwaitBeacon,
    Drawn,
    Event,
    Phase,
    Received,
    Rules,
    Schedule,
    Tick,
    start,
)
from verifiable.challenge import Beacon, ClosedLog
from verifiable.report import Verdict
from verifiable.voting.agreement import Exact
from verifiable.voting.quorum import FixedSize

NOW = 1_000_000
WORKERS = [bytes([i]) * 32 for i in range(1, 4)]
BEACON = Schedule(chain="drand", genesis=1000, period=3)
RULES = Rules(
    policy=FixedSize(bad=0.1, size=3),
    agreement=Exact(),
    decode=bytes,
    beacon=BEACON,
    dispatches=3,
    commit_seconds=60,
    reveal_seconds=10,
    beacon_seconds=30,
    audit_seconds=120,
    window_seconds=600,
)
PARTIAL = audited.PartialRules(
    beacon=BEACON,
    rate=0.9,
    layers=1,
    rows=None,
    receipt_seconds=60,
    log_seconds=600,
    beacon_seconds=30,
    trace_seconds=60,
    opening_seconds=60,
    judging_seconds=300,
)
MACHINES: Final[Mapping[str, tuple[Any, Any]]] = {
    "replicated": (REPLICATED, RULES),
    "audited": (AUDITED, PARTIAL),
}
"""By the name of the protocol: its machine, and the rules of its jobs."""

ONCE: Final = frozenset({"ReceiptCame", "TraceCame", "OpeningCame", "OpeningJudged"})
"""Events of an audited job of which only the first counts."""

PROMPT: Final = (Audit, AwaitBeacon, audited.AskOpening, audited.AwaitRound)
"""Effects that a coordinator confirms at once."""


def machine_of(stream: str) -> tuple[Any, Any]:
    """Machine and rules of a job, by its stream."""
    return MACHINES[stream.partition("/")[0]]


def begin(journal: Journal, jobs: Sequence[Any], draw: random.Random) -> tuple[Any, Any]:
    """A job of either protocol, and the future of its first tasks; one at least is audited."""
    nonce, zero = os.urandom(32), bytes(32)
    job = Job(
        coordinator=zero,
        epoch=7,
        nonce=nonce,
        expiry=NOW + 10**6,
        program=zero,
        parameters=zero,
        input=zero,
    )
    some = any(other.stream.startswith("audited/") for other in jobs)
    name = draw.choice(list(MACHINES)) if some else "audited"
    machine, rules = MACHINES[name]
    if name == "audited":
        first = audited.start(job, WORKERS[0], rules, now=NOW)
    else:
        first = start(job, rules, now=NOW, workers=WORKERS, weights=[1, 1, 1], seed=nonce)
    return Recorded.begin(journal, machine, job.digest.hex(), first, rules)


def ended(job: Any) -> bool:
    """Whether a job has ended."""
    return machine_of(job.stream)[0].ended(job.state)


def events(job: Any, draw: random.Random) -> Iterator[Any]:
    """What workers, beacon and judge send next."""
    return (_partial if job.stream.startswith("audited/") else _replicated)(job, draw)


def _replicated(job: Any, draw: random.Random) -> Iterator[Event]:
    """The same of a replicated job: one of the workers answers otherwise."""
    state = job.state
    match state.phase:
        case Phase.COMMIT | Phase.REVEAL:
            for seat in draw.sample(state.seats, len(state.seats)):
                reveal = Reveal(
                    worker=seat.worker,
                    job=state.job_id,
                    epoch=state.job.epoch,
                    salt=state.job.nonce,
                    value=seat.worker if seat.worker == WORKERS[0] else bytes(32),
                    trace_root=seat.worker,
                    trace_size=1,
                )
                message = reveal.commit if state.phase is Phase.COMMIT else reveal
                yield Received(at=NOW, message=Signed(message=message, signature=bytes(64)))
        case Phase.BEACON:
            beacon = Beacon(chain="drand", round=state.round or 0, value=state.job.nonce)
            yield Drawn(at=NOW, beacon=beacon)
        case Phase.AUDIT:
            yield Tick(at=state.now + 1)
            for seat in state.seats:
                # Never the same verdict for certain: what is forgotten is judged otherwise.
                yield Audited(at=NOW, worker=seat.worker, verdict=draw.choice(list(Verdict)))
        case _:
            return


def _partial(job: Any, draw: random.Random) -> Iterator[audited.PartialEvent]:
    """The same of a job that is audited in part; a worker never answers twice alike."""
    state = job.state
    named: dict[str, Any] = {
        "worker": state.worker,
        "job": state.job_id,
        "epoch": state.job.epoch,
    }
    log = ClosedLog(
        root=os.urandom(32), size=1, chain=BEACON.chain, closed_at=BEACON.after(state.now)
    )
    match state.stage:
        case Stage.RECEIPT:
            answer = audited.AnswerReceipt(**named, answer=os.urandom(32))
            yield audited.ReceiptCame(at=state.now, receipt=_signed(answer))
        case Stage.LOG:
            yield audited.LogClosed(at=state.now, log=log)
        case Stage.TRACE:
            receipt = audited.TraceReceipt(
                **named,
                receipt=state.receipt.message.digest,
                trace_root=os.urandom(32),
                trace_size=1,
            )
            yield audited.TraceCame(at=state.now, receipt=_signed(receipt))
        case Stage.TRACE_LOG:
            yield audited.TraceLogClosed(at=state.now, log=log)
        case Stage.DRAW | Stage.UNITS:
            beacon = Beacon(chain=BEACON.chain, round=state.round, value=state.job.nonce)
            yield audited.RoundSeen(at=BEACON.appears(state.round), beacon=beacon)
        case Stage.OPENING:
            yield audited.OpeningCame(at=state.now, content=os.urandom(32))
        case Stage.JUDGING:
            verdict = draw.choice(list(Verdict))
            judged = {"content": state.content, "verdict": verdict, "reason": verdict.value}
            yield audited.OpeningJudged(at=state.now, **judged)
        case _:
            return


def _signed(message: Any) -> Signed[Any]:
    return Signed(message=message, signature=bytes(64))
