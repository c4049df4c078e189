"""A fleet against the library's own protocols: votes, and audits of a part by chance."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import verifiable as vf
from protocols import audited, messages, replicated
from protocols.audited import device
from protocols.audited.judging import Judge
from protocols.messages import Commit, Reveal, Signed
from protocols.replicated import Received, Schedule
from protocols.replicated.audit import audited as audit_ended
from protocols.replicated.audit import judge_ballot
from protocols.testing import (
    CommitSent,
    CoordinatorAdapter,
    Fleet,
    FleetJob,
    LawBroken,
    Ledger,
    Role,
    RunSent,
    Scenario,
    fleet,
)
from protocols.testing import strategies as pst
from protocols.testing.fleet import calm
from protocols.testing.game import COMMIT, HAND_IN
from verifiable import challenge
from verifiable.challenge import CommitmentLog
from verifiable.encoding import tensor_from_bytes
from verifiable.testing import cheats
from verifiable.testing import strategies as vst
from verifiable.voting import FixedSize, Tolerance

RNG = np.random.default_rng(0)
PARAMS = [jnp.asarray(RNG.standard_normal((32, 32)) / 6, jnp.float32) for _ in range(2)]
X = jnp.asarray(RNG.standard_normal((8, 32)), jnp.float32)
BEACON = Schedule(chain="drand", genesis=0, period=3)
SETTINGS = settings(
    max_examples=30,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def model(params: Any, x: Any) -> Any:
    return jax.nn.gelu(x @ params[0]) @ params[1]


@functools.cache
def program() -> vf.Program:
    return vf.compile(model, PARAMS, X, policy=vst.FEW, self_test=False)


KEYS: dict[bytes, vf.VerifierKey] = {}


def key(job: FleetJob) -> vf.VerifierKey:
    if job.parameters not in KEYS:
        KEYS[job.parameters] = program().setup(job.params, challenge.secret(bytes(32)))
    return KEYS[job.parameters]


# ------------------------------------------------------------------------------ replicated


TOLERANCE = Tolerance.usual(shape=(8, 32), dtype="float32")


def agrees(own: Any, answer: Any) -> bool:
    """A vote pays what lies within a tolerance of what lies within one of an honest answer."""
    pair = [TOLERANCE.read(np.asarray(y)) for y in (own, answer)]
    if any(y is None for y in pair):
        return False
    return bool(TOLERANCE.distances(pair)[0, 1] <= 2.01)


@functools.cache
def voters() -> Fleet:
    few = (*cheats.PARAMETERS[:3], *cheats.ANSWERS, *cheats.STRUCTURE[:2])
    return fleet(program(), PARAMS, (X,), cheats=few, agrees=agrees)


class Replicated(CoordinatorAdapter):
    """`protocols.replicated`: a vote, and audits of those who dissent."""

    def __init__(self):
        self.jobs: dict[bytes, FleetJob] = {}
        self.states: dict[bytes, replicated.State] = {}
        self.runs: dict[tuple[bytes, bytes], vf.Submission] = {}
        self.asked: set[tuple[bytes, bytes]] = set()
        self.left: dict[str, list[tuple[bytes, bytes]]] = {
            name: [] for name in ("paid", "punished", "signed")
        }

    def ledger(self) -> Ledger:
        return Ledger(asked=frozenset(self.asked), **self.left)

    def start(self, job: FleetJob, now: int) -> None:
        self.jobs[job.id] = job
        size = len(job.workers)
        rules = replicated.Rules(
            policy=FixedSize(bad=0.1, size=size),
            agreement=TOLERANCE,
            decode=functools.partial(tensor_from_bytes, shape=(8, 32), dtype="float32"),
            beacon=BEACON,
            dispatches=size,
            commit_seconds=COMMIT,
            reveal_seconds=HAND_IN,
            beacon_seconds=60,
            audit_seconds=60,
            window_seconds=60,
        )
        state, effects = replicated.start(
            job.message,
            rules,
            now=now,
            workers=list(job.workers),
            weights=[1] * size,
            seed=job.seed,
        )
        self.states[job.id] = state
        self.carry_out(job, effects)

    def receive(self, message: CommitSent | RunSent, now: int) -> None:
        job = self.jobs[message.job]
        kind: Any = Commit if isinstance(message, CommitSent) else Reveal
        seats = replicated.seated(self.states[job.id])
        signed: Signed[Any] = messages.receive(kind, message.signed, job.identities, seats=seats)
        if isinstance(message, RunSent):
            self.runs.setdefault((job.id, signed.message.worker), message.submission)
        self.feed(job, Received(at=now, message=signed))

    def tick(self, now: int) -> None:
        for job in self.jobs.values():
            while self.states[job.id].decision is None and self.states[job.id].deadline <= now:
                self.feed(job, replicated.Tick(at=now))

    def feed(self, job: FleetJob, event: replicated.Event) -> None:
        self.states[job.id], effects = replicated.step(self.states[job.id], event)
        self.carry_out(job, effects)

    def carry_out(self, job: FleetJob, effects: Any) -> None:
        for effect in effects:
            match effect:
                case replicated.AskReveal(worker=worker):
                    self.asked.add((job.id, worker))
                case replicated.AwaitBeacon(chain=chain, round=number):
                    drawn = job.beacon(chain, number)
                    self.feed(job, replicated.Drawn(at=BEACON.appears(number), beacon=drawn))
                case replicated.Audit():
                    self.audit(job, effect)
                case replicated.Blame(reveal=reveal):
                    self.left["punished"].append((job.id, reveal.message.worker))
                case replicated.Conclude(decision=decision):
                    self.left["signed"].append((job.id, decision.encode()))
                    self.left["paid"] += [(job.id, worker) for worker in decision.group]
                case _:
                    pass

    def audit(self, job: FleetJob, task: replicated.Audit) -> None:
        reveal = task.reveal.message
        found = judge_ballot(
            job.program,
            key(job),
            job.inputs,
            reveal=reveal,
            found=self.runs[job.id, reveal.worker],
            form=job.message.answer,
            parameters=job.parameters,
        )
        self.feed(job, audit_ended(task, found, at=self.states[job.id].now))


# What a vote can see: it pays for an answer, whatever trace is behind it.
VISIBLE = tuple(role for role in Role if role not in (Role.SWITCHING, Role.UNSEATED))


@SETTINGS
@given(st.deferred(lambda: pst.scenarios(voters(), workers=(3, 3), bad=1, roles=VISIBLE)))
def test_laws_hold_of_a_vote_with_one_bad_worker_of_three(scenario: Scenario):
    voters().play(Replicated, scenario)


def test_a_vote_pays_honest_workers_and_no_cheat():
    scenario = calm(Role.HONEST, Role.HONEST, Role.STALE)
    ledger = voters().play(Replicated, scenario)
    assert len(ledger.paid) == 2
    assert ledger.punished == []


# ---------------------------------------------------------------------------------- audited


@functools.cache
def answerers() -> Fleet:
    return fleet(program(), PARAMS, (X,), cheats=cheats.PARAMETERS[:3])


class Audited(CoordinatorAdapter):
    """`protocols.audited`: half of the jobs are audited, in all layers."""

    RATE = 0.5

    def __init__(self):
        self.jobs: dict[bytes, FleetJob] = {}
        self.states: dict[tuple[bytes, bytes], audited.PartialState] = {}
        self.runs: dict[tuple[bytes, bytes], vf.Submission] = {}
        self.asked: set[tuple[bytes, bytes]] = set()
        self.paid: list[tuple[bytes, bytes]] = []

    def ledger(self) -> Ledger:
        return Ledger(paid=self.paid, asked=frozenset(self.asked))

    def start(self, job: FleetJob, now: int) -> None:
        self.jobs[job.id] = job
        rules = audited.PartialRules(
            beacon=BEACON,
            rate=self.RATE,
            layers=len(job.program.layers),
            rows=None,
            receipt_seconds=COMMIT,
            log_seconds=60,
            beacon_seconds=60,
            trace_seconds=HAND_IN,
            opening_seconds=60,
            judging_seconds=60,
        )
        for worker in job.workers:
            self.states[job.id, worker], _ = audited.start(job.message, worker, rules, now=now)

    def receive(self, message: CommitSent | RunSent, now: int) -> None:
        place, sent = (message.job, message.sender), message.submission
        if place not in self.states:
            return
        if isinstance(message, CommitSent):
            self.runs.setdefault(place, sent)
        job, own = self.jobs[message.job], self.runs.get(place, sent)
        receipt = device.receipt_of(own.y, worker=message.sender, job=job.message)
        if isinstance(message, CommitSent):
            self.feed(place, audited.ReceiptCame(at=now, receipt=_signed(receipt)))
        else:
            kept = job.program.commit(own.y, own.trace)
            traced = _signed(device.trace_receipt_of(kept, receipt))
            self.feed(place, audited.TraceCame(at=now, receipt=traced))

    def tick(self, now: int) -> None:
        for place, state in list(self.states.items()):
            if state.stage is audited.Stage.LOG and now > self.jobs[place[0]].commit_by:
                self.feed(place, audited.LogClosed(at=now, log=_log(state.receipt, now)))
            if self.states[place].deadline <= now:
                self.feed(place, audited.TraceLogClosed(at=now, log=_log(None, now)))

    def feed(self, place: tuple[bytes, bytes], event: audited.PartialEvent) -> None:
        self.states[place], effects = audited.step(self.states[place], event)
        job = self.jobs[place[0]]
        for effect in effects:
            now = self.states[place].now
            match effect:
                case audited.AwaitRound(chain=chain, round=number):
                    at = BEACON.appears(number)
                    seen = audited.RoundSeen(at=at, beacon=job.beacon(chain, number))
                    self.feed(place, seen)
                case audited.AskTrace():
                    self.asked.add(place)
                case audited.EnterTraceLog(receipt=receipt):
                    self.feed(place, audited.TraceLogClosed(at=now, log=_log(receipt, now)))
                case audited.AskOpening():
                    own = self.runs[place]
                    kept = job.program.commit(own.y, own.trace)
                    self.opening = device.open_trace(
                        kept, job.program, audited.order(job.message, effect)
                    )
                    content = messages.content_digest(self.opening)
                    self.feed(place, audited.OpeningCame(at=now, content=content))
                case audited.JudgeOpening(ask=ask, content=content):
                    judge = Judge(
                        job=job.message, program=job.program, key=key(job), inputs=job.inputs
                    )
                    found = judge.judge(ask, self.opening)
                    judged = audited.OpeningJudged(
                        at=now, content=content, verdict=found.verdict, reason=found.reason
                    )
                    self.feed(place, judged)
                case audited.JobResult(outcome=outcome):
                    self.paid += [place] if outcome.paid else []
                case _:
                    pass


def _signed(message: Any) -> Signed[Any]:
    """The signatures of this protocol are not what is tested here."""
    return Signed(message=message, signature=bytes(64))


def _log(receipt: Signed[Any] | None, now: int) -> challenge.ClosedLog:
    log = CommitmentLog()
    log.append(bytes(32) if receipt is None else receipt.message.digest)
    return log.close(chain=BEACON.chain, closed_at=BEACON.after(now) - 1)


class AuditsSeldom(Audited):
    """Audits a twentieth of the jobs, and states that it audits half."""

    RATE = 0.05


def test_an_audit_by_chance_pays_cheats_as_often_as_it_states():
    paid = answerers().measure(Audited, most=0.5, plays=60)
    assert 10 < paid < 50


def test_an_audit_that_is_rarer_than_stated_is_found():
    with pytest.raises(LawBroken, match="paid-too-often"):
        answerers().measure(AuditsSeldom, most=0.5, plays=60)


NUMBERS = (Role.STALE, Role.CHEATING, Role.VANISHING, Role.SILENT)


@SETTINGS
@given(st.deferred(lambda: pst.scenarios(answerers(), roles=NUMBERS)))
def test_laws_hold_of_audits_by_chance(scenario: Scenario):
    answerers().play(Audited, scenario, sampled=True)
