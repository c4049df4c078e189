"""A coordinator and three devices: one honest, one that computes less, one that is silent."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import verifiable as vf
from protocols.audited import (
    AskOpening,
    JobResult,
    JudgeOpening,
    LogClosed,
    OpeningCame,
    OpeningJudged,
    Outcome,
    ReceiptCame,
    RoundSeen,
    TraceReceipt,
    start,
    step,
)
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


def committed(*, lazy: bool) -> trace.Committed:
    """What a device commits to; a lazy one makes up half of the layers."""
    run = jax.device_get(judge().program.prove(P, X))
    values = [np.array(v) for v in run.trace.values]
    if lazy:
        values[0][1:3] = 0
    return judge().program.commit(run.y, trace.Trace(values=tuple(values)))


def epoch(devices: dict[bytes, trace.Committed], value: bytes) -> dict[bytes, Any]:
    """All jobs after the draw: states, and what is asked of each."""
    log, jobs = CommitmentLog(), dict[bytes, Any]()
    for worker, device in devices.items():
        job = judge().job
        state, _ = start(job, worker, RULES, now=NOW)
        receipt = TraceReceipt(
            worker=worker,
            job=job.digest,
            epoch=job.epoch,
            trace_root=device.commitment.root,
            trace_size=device.commitment.size,
        )
        jobs[worker], [enter] = step(state, ReceiptCame(at=NOW, receipt=signed(receipt)))
        log.append(enter.receipt.message.digest)  # pyright: ignore[reportAttributeAccessIssue]
    closed = log.close(chain="drand", closed_at=CHAIN.after(NOW))
    drawn = Beacon(chain="drand", round=closed.closed_at + 1, value=value)
    for worker in devices:
        state, _ = step(jobs[worker], LogClosed(at=NOW + 1, log=closed))
        jobs[worker] = step(state, RoundSeen(at=CHAIN.appears(drawn.round), beacon=drawn))
    return jobs


def test_honest_passes_lazy_is_rejected_as_often_as_it_is_met_and_silent_fails():
    honest, lazy = committed(lazy=False), committed(lazy=True)
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
            else:
                plan = plan_of(judge().program, ask)
                opening = device.open(plan).encode()
                content, at = content_digest(opening), state.now + 9
                state, [task] = step(state, OpeningCame(at=at, content=content))
                assert isinstance(task, JudgeOpening)
                report = judge().judge(task.ask, opening)
                how = {"verdict": report.verdict, "reason": report.reason}
                _, [end] = step(state, OpeningJudged(at=at, content=content, **how))
                met += device is lazy and bool({1, 2} & {*plan.layers})
            ends.append(end)
        caught += ends[1].outcome is Outcome.REJECTED
        assert [e.outcome for e in ends[::2]] == [Outcome.PASSED, Outcome.SILENT]
        assert [e.outcome.paid for e in ends[::2]] == [True, False]
        assert ends[1].outcome in (Outcome.PASSED, Outcome.REJECTED)
        # Each worker has a draw of its own.
        assert len({jobs[w][1][0].seed for w in devices}) == 3
    assert caught == met
    assert 0 < caught < 6


def test_what_cannot_be_read_is_rejected():
    device = committed(lazy=False)
    _, [ask] = epoch({WORKERS[0]: device}, bytes(32))[WORKERS[0]]
    opening = device.open(plan_of(judge().program, ask)).encode()
    assert judge().judge(ask, opening).reason == "ok"
    for data in (b"", opening[:-1], opening + b"\0", bytes(len(opening))):
        assert judge().judge(ask, data).reason == "opening-structure"


def test_a_judge_has_what_the_job_names():
    own = judge()
    with pytest.raises(ValueError, match="another program"):
        replace(own, job=replace(own.job, program=bytes(32)))
    with pytest.raises(ValueError, match="other inputs"):
        replace(own, inputs=(X + 1,))
