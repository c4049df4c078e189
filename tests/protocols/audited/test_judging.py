"""A coordinator and three devices: one honest, one that computes less, one that is silent."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import verifiable as vf
from protocols.audited import (
    AnswerReceipt,
    AskOpening,
    DisputeFinding,
    JobResult,
    JudgeOpening,
    LogClosed,
    OpeningCame,
    OpeningJudged,
    Outcome,
    ReceiptCame,
    RoundSeen,
    TraceCame,
    TraceLogClosed,
    order,
    start,
    step,
)
from protocols.audited.device import open_trace, receipt_of, trace_of, trace_receipt_of
from protocols.audited.judging import Judge, plan_of
from protocols.events import Tick
from protocols.messages import content_digest
from protocols.replicated.runs import input_digest
from tests.helpers.jobs import CHAIN, JOB, NOW, PARTIAL, WORKERS, signed
from verifiable import challenge, trace
from verifiable.challenge import Beacon, CommitmentLog
from verifiable.policy import Policy

LAYERS, ROWS, WIDTH = 4, 8, 64
RNG = np.random.default_rng(2)
P = jnp.asarray(RNG.standard_normal((LAYERS, WIDTH, WIDTH)) / 8, jnp.float32)
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)
RULES = replace(PARTIAL, rows=2)


def model(p: Any, x: Any) -> Any:
    return lax.scan(lambda c, w: (c + jnp.tanh(c @ w), None), x, p)[0][-1:]


@functools.cache
def judge() -> Judge:
    program = vf.compile(model, P, X, policy=Policy(draws=4), cuts=True, row_block=1)
    job = replace(JOB, program=program.id, parameters=vf.parameter_root(P), input=input_digest(X))
    key = program.setup(P, challenge.secret(bytes(32)))
    return Judge(job=job, program=program, key=key, inputs=(X,))


@dataclass(frozen=True)
class Device:
    """What a device gave as its answer, and the trace that it commits to if it is audited."""

    y: Any
    kept: trace.Committed

    @classmethod
    def honest(cls) -> Device:
        # The plain model's answer: no trace is made until one is asked for.
        y = jax.device_get(plain(P, X))
        return cls(y, trace_of(judge().program, P, (X,), y))

    @classmethod
    def lazy(cls) -> Device:
        """It makes up half of the layers."""
        run = jax.device_get(judge().program.prove(P, X))
        values = [np.array(v) for v in run.trace.values]
        values[0][1:3] = 0
        return cls(run.y, judge().program.commit(run.y, trace.Trace(values=tuple(values))))

    def receipt(self, worker: bytes) -> AnswerReceipt:
        return receipt_of(self.y, worker=worker, job=judge().job)


plain = jax.jit(model)


def epoch(
    devices: dict[bytes, Device], value: bytes, *, disputed: bool = False
) -> dict[bytes, Any]:
    """All jobs after both draws: states, and what is asked of each."""
    jobs: dict[bytes, Any] = {}
    for half in ("answers", "traces"):
        log = CommitmentLog()
        for worker, device in devices.items():
            receipt = device.receipt(worker)
            if half == "answers":
                state, _ = start(judge().job, worker, RULES, now=NOW)
                event: Any = ReceiptCame(at=NOW, receipt=signed(receipt))
            else:
                state, came = jobs[worker][0], trace_receipt_of(device.kept, receipt)
                event = TraceCame(at=state.now, receipt=signed(came))
            jobs[worker], [enter] = step(state, event)
            log.append(enter.receipt.message.digest)  # pyright: ignore[reportAttributeAccessIssue]
        now = max(job.now for job in jobs.values())
        closed = log.close(chain="drand", closed_at=CHAIN.after(now))
        drawn = Beacon(chain="drand", round=closed.closed_at + 1, value=value)
        for worker in devices:
            event = TraceLogClosed(at=now + 1, log=closed)
            if half == "answers":
                others = [d.receipt(w) for w, d in devices.items() if w != worker]
                rival = signed(others[0]) if disputed else None
                event = LogClosed(at=now + 1, log=closed, rival=rival)
            state, _ = step(jobs[worker], event)
            jobs[worker] = step(state, RoundSeen(at=CHAIN.appears(drawn.round), beacon=drawn))
    return jobs


def judged(state: Any, ask: AskOpening, device: Device) -> JobResult:
    """Open what is asked for, and end the job."""
    opening = open_trace(device.kept, judge().program, order(judge().job, ask))
    content, at = content_digest(opening), state.now + 9
    state, [task] = step(state, OpeningCame(at=at, content=content))
    assert isinstance(task, JudgeOpening)
    found = judge().judge(task.ask, opening)
    how = {"verdict": found.verdict, "reason": found.reason}
    _, [end] = step(state, OpeningJudged(at=at, content=content, **how))
    assert isinstance(end, JobResult)
    return end


def test_honest_passes_lazy_is_rejected_as_often_as_it_is_met_and_silent_fails():
    honest, lazy = Device.honest(), Device.lazy()
    devices = dict(zip(WORKERS, [honest, lazy, honest], strict=False))
    caught = met = 0
    for i in range(6):
        jobs = epoch(devices, i.to_bytes(32, "big"))
        ends: list[JobResult] = []
        for worker, device in zip(WORKERS, (honest, lazy, None), strict=False):
            state, [ask] = jobs[worker]
            assert isinstance(ask, AskOpening)
            if device is None:
                _, [end] = step(state, Tick(at=ask.deadline))
                assert isinstance(end, JobResult)
                ends.append(end)
                continue
            layers = plan_of(judge().program, ask).layers
            met += device is lazy and bool({1, 2} & {*layers})
            ends.append(judged(state, ask, device))
        caught += ends[1].outcome is Outcome.REJECTED
        assert [e.outcome for e in ends[::2]] == [Outcome.PASSED, Outcome.SILENT]
        assert [e.outcome.paid for e in ends[::2]] == [True, False]
        assert ends[1].outcome in (Outcome.PASSED, Outcome.REJECTED)
        # Each worker has a draw of its own.
        assert len({jobs[w][1][0].seed for w in devices}) == 3
    assert caught == met
    assert 0 < caught < 6


def test_an_honest_trace_of_another_answer_is_rejected():
    """Whichever answer the trace has: the right one, not the one given, or the one given."""
    honest = Device.honest()
    wrong = honest.y + np.float32(1)
    program, run = judge().program, judge().program.prove(P, X)
    for device, reason in (
        (Device(wrong, honest.kept), "answer-mismatch"),
        (Device(wrong, program.commit(wrong, run.trace)), "output-mismatch"),
    ):
        state, [ask] = epoch({WORKERS[0]: device}, bytes(32))[WORKERS[0]]
        end = judged(state, ask, device)
        assert (end.outcome, end.reason) == (Outcome.REJECTED, reason)


def test_disputed_answers_are_judged_whole_each_on_its_own_trace():
    """A lie in one unit, which an audit of a part would nearly always miss."""
    honest = Device.honest()
    rounded = honest.y * np.float32(1 + 2**-22)
    near = Device(rounded, trace_of(judge().program, P, (X,), rounded))
    run = jax.device_get(judge().program.prove(P, X))
    values = [np.array(v) for v in run.trace.values]
    values[0][2, 3] *= 1.5
    lie = run.y + np.float32(0.5)
    liar = Device(lie, judge().program.commit(lie, trace.Trace(values=tuple(values))))
    other = lie + np.float32(0.5)
    worse = Device(other, judge().program.commit(other, trace.Trace(values=tuple(values))))
    for pair, wrong in (((honest, liar), [1]), ((liar, worse), [0, 1]), ((honest, near), [])):
        devices = dict(zip(WORKERS, pair, strict=False))
        jobs = epoch(devices, bytes(32), disputed=True)
        ends = [judged(jobs[w][0], jobs[w][1][0], d) for w, d in devices.items()]
        found = DisputeFinding.of(ends)
        assert found.wrong == tuple(WORKERS[i] for i in wrong)
        assert not found.open


def test_what_cannot_be_read_is_rejected():
    device = Device.honest()
    _, [ask] = epoch({WORKERS[0]: device}, bytes(32))[WORKERS[0]]
    opening = device.kept.open(plan_of(judge().program, ask)).encode()
    assert judge().judge(ask, opening).reason == "ok"
    for data in (b"", opening[:-1], opening + b"\0", bytes(len(opening))):
        assert judge().judge(ask, data).reason == "opening-structure"
    flipped = bytearray(opening)
    flipped[-1] ^= 1
    assert judge().judge(ask, bytes(flipped)).reason == "opening-mismatch"


def test_a_judge_has_what_the_job_names():
    own = judge()
    with pytest.raises(ValueError, match="another program"):
        replace(own, job=replace(own.job, program=bytes(32)))
    with pytest.raises(ValueError, match="other inputs"):
        replace(own, inputs=(X + 1,))
