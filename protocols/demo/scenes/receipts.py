"""Fourth scene: receipts in place of traces, and audits of a part of two jobs.

Six workers answer a job each, and send receipts of a few hundred bytes. Four are known, and a
beacon draws one in a thousand of their jobs; two are new, and all their jobs are audited. A worker
that is audited commits to a trace, and opens the rows of one layer that a second draw chooses. One
of the new workers ran another model.

The model runs as a scan whose layers have cuts, so that an audit opens one layer, and not what led
to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax

from protocols import audited, messages
from protocols.audited.device import open_trace, receipt_of, trace_of, trace_receipt_of
from protocols.audited.judging import Judge, plan_of
from protocols.demo.cheats.computations import another_model
from protocols.demo.devices import DemoJob
from protocols.demo.models import networks
from protocols.demo.models.precision import Params
from protocols.demo.roles import BEACON, identity_of
from protocols.demo.scenes.scene import Counter, Progress, in_layers
from protocols.identities import Identity
from protocols.messages import Job
from protocols.replicated.runs import input_digest
from verifiable import challenge
from verifiable.challenge import Beacon, CommitmentLog
from verifiable.encoding import tagged_hash, tensor_bytes
from verifiable.report import Detection
from verifiable.trace import Committed, wire

KNOWN_RATE = 0.001
"""Share of the jobs of known workers that are audited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a worker does.

    Attributes:
      name: of the worker.
      did: in a few words.
      honest: whether that is what it was asked for.
      new: whether all its jobs are audited.
    """

    name: str
    did: str
    honest: bool
    new: bool


CAST = (
    Part(name="Hal", did="ran the job; new", honest=True, new=True),
    Part(name="Ivy", did="ran another model; new", honest=False, new=True),
    *(Part(name=n, did="ran the job", honest=True, new=False) for n in ("Jo", "Kai", "Lea", "Max")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptOutcome:
    """How a job ended for its worker.

    Attributes:
      part: what the worker did.
      audited: whether its job was.
      outcome: value of `audited.Outcome`.
      reason: of the outcome.
      sent: bytes that the worker sent: receipts, its answer, and what it opened.
    """

    part: Part
    audited: bool
    outcome: str
    reason: str
    sent: int

    @property
    def right(self) -> bool:
        """Whether an honest worker is paid, or a cheat is rejected."""
        paid = audited.Outcome(self.outcome).paid
        return paid if self.part.honest else self.outcome == audited.Outcome.REJECTED.value


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptsSummary:
    """How the jobs ended, and what was sent.

    Attributes:
      outcomes: of each worker.
      whole: bytes of the answer with its whole trace, which no worker sent.
      detection: what an audit of a part meets; None if nothing was audited.
    """

    outcomes: tuple[ReceiptOutcome, ...]
    whole: int
    detection: Detection | None

    @property
    def right(self) -> bool:
        """Whether every job ended as it should, and a worker was audited."""
        return all(o.right for o in self.outcomes) and any(o.audited for o in self.outcomes)

    @property
    def sent(self) -> int:
        """Bytes that all workers sent."""
        return sum(outcome.sent for outcome in self.outcomes)


ReceiptsSceneEvent: TypeAlias = "Progress | ReceiptOutcome | ReceiptsSummary"


@dataclass(slots=True)
class Receipted:
    """A worker with its job, and the coordinator's state of it."""

    part: Part
    key: Any
    identity: Identity
    job: Job
    params: Params
    state: audited.PartialState
    y: Any = None
    kept: Committed | None = None
    sent: int = 0

    def answer(self, plain: Any, inputs: Sequence[Any]) -> bytes:
        """The receipt of its answer; both are sent."""
        self.y = jax.device_get(plain(self.params, *inputs))
        self.sent += sum(tensor_bytes(leaf).nbytes for leaf in jax.tree.leaves(self.y))
        return self._signed(receipt_of(self.y, worker=self.identity.id, job=self.job))

    def commit(self, notice: bytes, program: Any, inputs: Any, coordinator: Identity) -> bytes:
        """The receipt of a trace of that answer."""
        self._obeyed(audited.AuditNotice, notice, coordinator)
        self.kept = trace_of(program, self.params, tuple(inputs), self.y)
        receipt = receipt_of(self.y, worker=self.identity.id, job=self.job)
        return self._signed(trace_receipt_of(self.kept, receipt))

    def open(self, request: bytes, program: Any, coordinator: Identity) -> tuple[bytes, bytes]:
        """The signed message of an upload, and the opening."""
        asked = self._obeyed(audited.OpeningRequest, request, coordinator)
        if self.kept is None:
            raise ValueError(f"{self.part.name} has no trace: call commit first")
        payload = open_trace(self.kept, program, asked)
        self.sent += len(payload)
        return self._signed(messages.Upload.of(payload, asked)), payload

    def do(self, event: Any) -> Any:
        """Apply an event to the coordinator's state; the last effect, if any."""
        self.state, effects = audited.step(self.state, event)
        return effects[-1] if effects else None

    def _obeyed(self, kind: Any, data: bytes, coordinator: Identity) -> Any:
        me = self.identity.id
        return messages.obey(kind, data, job=self.job, worker=me, coordinator=coordinator).message

    def _signed(self, message: Any) -> bytes:
        data = messages.sign(message, self.key.sign).encode()
        self.sent += len(data)
        return data


@dataclass(slots=True)
class Epoch:
    """The coordinator of one epoch: its logs and draws.

    Attributes:
      job: the demo's, in layers.
      seed: fixes keys, nonces and beacons.
      now: the time.
      workers: by identity.
    """

    job: DemoJob
    seed: bytes
    now: int
    key: Any = field(init=False)
    me: Identity = field(init=False)
    workers: dict[bytes, Receipted] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Give every worker its job."""
        self.key, self.me = identity_of("demo coordinator", self.seed)
        for part in CAST:
            key, identity = identity_of("demo worker", self.seed, part.name.encode())
            job = Job(
                coordinator=self.me.id,
                epoch=1,
                nonce=tagged_hash("demo nonce", self.seed, part.name.encode()),
                expiry=self.now + 3600,
                program=self.job.program.id,
                parameters=self.job.root,
                input=input_digest(*self.job.inputs),
            )
            rules = _rules(1.0 if part.new else KNOWN_RATE)
            state, _ = audited.start(job, identity.id, rules, now=self.now)
            params = self.job.model.params if part.honest else _forged(self.job)
            self.workers[identity.id] = Receipted(part, key, identity, job, params, state)

    @property
    def identities(self) -> Mapping[bytes, Identity]:
        """The registered workers."""
        return {name: worker.identity for name, worker in self.workers.items()}

    def draw(self, receipts: Mapping[bytes, Any], closed: Any) -> dict[bytes, Any]:
        """Close a log, and draw with the round of the beacon after it: what follows for each."""
        log = CommitmentLog()
        for receipt in receipts.values():
            log.append(receipt.message.digest)
        head = log.close(chain=BEACON.chain, closed_at=BEACON.after(self.now))
        for name in receipts:
            self.workers[name].do(closed(at=self.now, log=head))
        number = head.closed_at + 1
        value = tagged_hash("demo beacon", self.seed, number.to_bytes(8, "little"))
        self.now = BEACON.appears(number)
        seen = audited.RoundSeen(
            at=self.now, beacon=Beacon(chain=head.chain, round=number, value=value)
        )
        return {name: self.workers[name].do(seen) for name in receipts}

    def order(self, worker: Receipted, ask: Any) -> bytes:
        """What a worker is asked for, signed."""
        return messages.sign(audited.order(worker.job, ask), self.key.sign).encode()


def play(job: DemoJob, *, seed: bytes | None = None) -> Iterator[ReceiptsSceneEvent]:
    """Play the scene: yield progress, then each worker's outcome, then the summary.

    Args:
      job: from `scene.prepare`.
      seed: 32 bytes that fix keys, nonces, beacon and secret, for tests; by default fresh ones.
    """
    counter = Counter(total=3 + len(CAST))
    yield counter.start("receipts: compile the model with cuts, and make a key")
    seed = os.urandom(32) if seed is None else seed
    job = in_layers(job)
    key = job.program.setup(job.model.params, challenge.secret(seed=seed))
    epoch = Epoch(job=job, seed=seed, now=int(time.time()))
    plain, known = jax.jit(job.model.encode), epoch.identities
    answers: dict[bytes, Any] = {}
    for name, worker in epoch.workers.items():
        yield counter.start(f"receipts: {worker.part.name} answers")
        data = worker.answer(plain, job.inputs)
        answers[name] = messages.receive(audited.AnswerReceipt, data, known, seats={name})
        # The answer came beside its receipt.
        if answers[name].message != receipt_of(worker.y, worker=name, job=worker.job):
            raise ValueError(f"the receipt of {worker.part.name} is about another answer")
        worker.do(audited.ReceiptCame(at=epoch.now, receipt=answers[name]))
    yield counter.start("receipts: the first draw, and traces of audited jobs")
    traces: dict[bytes, Any] = {}
    for name, ask in epoch.draw(answers, audited.LogClosed).items():
        if isinstance(ask, audited.AskTrace):
            worker = epoch.workers[name]
            notice = epoch.order(worker, ask)
            data = worker.commit(notice, job.program, job.inputs, epoch.me)
            traces[name] = messages.receive(audited.TraceReceipt, data, known, seats={name})
            worker.do(audited.TraceCame(at=epoch.now, receipt=traces[name]))
    yield counter.start("receipts: the second draw, openings and their audits")
    detection: Detection | None = None
    for name, ask in epoch.draw(traces, audited.TraceLogClosed).items() if traces else ():
        worker = epoch.workers[name]
        note, payload = worker.open(epoch.order(worker, ask), job.program, epoch.me)
        most = plan_of(job.program, ask).most_nbytes
        request = audited.order(worker.job, ask)
        messages.require_payload(payload, messages.announced(note, request, known, most=most))
        judge = Judge(job=worker.job, program=job.program, key=key, inputs=tuple(job.inputs))
        found, content = judge.judge(ask, payload), messages.content_digest(payload)
        worker.do(audited.OpeningCame(at=epoch.now, content=content))
        worker.do(
            audited.OpeningJudged(
                at=epoch.now, content=content, verdict=found.verdict, reason=found.reason
            )
        )
        if found.report is not None:
            detection = detection or found.report.detection
    outcomes = tuple(_outcome(worker, name in traces) for name, worker in epoch.workers.items())
    yield from outcomes
    whole = wire.encoded_size(job.program.layout)
    yield ReceiptsSummary(outcomes=outcomes, whole=whole, detection=detection)


def _outcome(worker: Receipted, audit: bool) -> ReceiptOutcome:
    result = worker.state.result
    if result is None:
        raise ValueError(f"the job of {worker.part.name} has not ended")
    return ReceiptOutcome(
        part=worker.part,
        audited=audit,
        outcome=result.outcome.value,
        reason=result.reason,
        sent=worker.sent,
    )


def _rules(rate: float) -> audited.PartialRules:
    return audited.PartialRules(
        beacon=BEACON,
        rate=rate,
        layers=1,
        rows=1,
        receipt_seconds=600,
        log_seconds=600,
        beacon_seconds=60,
        trace_seconds=600,
        opening_seconds=600,
        judging_seconds=600,
    )


def _forged(job: DemoJob) -> Params:
    """The parameters of another model of the same shapes."""
    return networks.stacked(another_model(job.model), job.model.layers)
