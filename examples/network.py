"""Three workers, one of which lies: signed messages, a vote, an audit, a conviction, a record.

    python examples/network.py

Coordinator and workers exchange bytes, here by calling each other; a transport and a clock of your
own take the place of the calls. Every event is recorded before its effects are carried out, so a
coordinator that is killed resumes where it was.
"""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import verifiable as vf
from protocols import messages, replicated
from protocols.identities import Identity
from protocols.journal import REPLICATED, DurableCommitmentLog, Journal, Recorded
from protocols.messages import Assignment, Commit, Job, Reveal, TraceRequest
from protocols.replicated import (
    AskReveal,
    Audit,
    AwaitBeacon,
    Blame,
    Conclude,
    Dispatch,
    Record,
    Tick,
)
from protocols.replicated.audit import Auditor, audited
from protocols.replicated.runs import input_digest, reveal_of
from verifiable.challenge import Beacon
from verifiable.encoding import tensor_from_bytes
from verifiable.errors import VerificationError
from verifiable.voting import FixedSize, Tolerance

Params = dict[str, jax.Array]
BEACON = replicated.Schedule(chain="example", genesis=0, period=3)


def model(params: Params, x: jax.Array) -> jax.Array:
    """Two layers of a perceptron."""
    return jax.nn.gelu(x @ params["up"]) @ params["down"]


def weights(seed: int) -> Params:
    """Random parameters."""
    rng = np.random.default_rng(seed)
    up, down = rng.standard_normal((256, 1024)) / 16, rng.standard_normal((1024, 256)) / 32
    return {"up": jnp.asarray(up, jnp.float32), "down": jnp.asarray(down, jnp.float32)}


@dataclass
class Party:
    """Who signs: a key, and the identity that others know."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @functools.cached_property
    def identity(self) -> Identity:
        """What is registered."""
        return Identity(public_key=self.key.public_key().public_bytes_raw())

    def signed(self, message: Any) -> bytes:
        """A message, signed, as it is sent."""
        return messages.sign(message, self.key.sign).encode()


@dataclass(kw_only=True)
class Worker(Party):
    """Runs jobs of one coordinator, whom it knows beforehand; a liar has other weights."""

    program: vf.Program
    params: Params
    coordinator: Identity

    def run(self, order: bytes, job: Job, x: jax.Array) -> bytes:
        """Run a job that was assigned, and commit to answer and trace."""
        self._obey(Assignment, order, job)
        run = self.program.prove(self.params, x)
        self.job, self.submission = job, replace(run, parameters=job.parameters)
        self.reveal = reveal_of(self.submission, worker=self.identity.id, job=job)
        return self.signed(self.reveal.commit)

    def disclose(self, order: bytes) -> bytes:
        """Show the answer, once the coordinator says that commitments are closed."""
        return messages.disclose(
            self.reveal, order, job=self.job, coordinator=self.coordinator, signer=self.key.sign
        ).encode()

    def upload(self, order: bytes) -> tuple[bytes, bytes]:
        """Hand in the trace: a signed message, and the payload that it announces."""
        request, payload = self._obey(TraceRequest, order, self.job), self.submission.encode()
        return self.signed(messages.Upload.of(payload, request)), payload

    def _obey(self, kind: Any, order: bytes, job: Job) -> Any:
        me, coordinator = self.identity.id, self.coordinator
        return messages.obey(kind, order, job=job, worker=me, coordinator=coordinator).message


@dataclass(kw_only=True)
class Coordinator(Party):
    """Sends one job to workers, and carries out what the protocol asks for."""

    program: vf.Program
    params: Params
    x: jax.Array
    journal: Journal
    workers: Mapping[bytes, Worker]
    convicted: list[bytes] = field(default_factory=list)

    def play(self) -> replicated.State:
        """Run the job to its end."""
        self.job = Job(
            coordinator=self.identity.id,
            epoch=1,
            nonce=os.urandom(32),
            expiry=int(time.time()) + 3600,
            program=self.program.id,
            parameters=vf.parameter_root(self.params),
            input=input_digest(self.x),
        )
        names = list(self.workers)
        given = rules(self.program)
        first = replicated.start(
            self.job,
            given,
            now=int(time.time()),
            workers=names,
            weights=[1] * len(names),
            seed=os.urandom(32),
        )
        self.log = DurableCommitmentLog(self.journal, "1")
        name = self.job.digest.hex()
        self.run, begun = Recorded.begin(self.journal, REPLICATED, name, first, given)
        tasks = deque(begun.result())
        while tasks or self.run.state.decision is None:
            if not tasks:  # a worker keeps silent, or sends what is refused
                tasks += self.run.feed(Tick(at=self.run.state.deadline)).result()
                continue
            task = tasks.popleft()
            try:
                event = self.carry_out(task.effect)
            except VerificationError as refused:
                print(f"refused: {refused}")
                event = None
            if event is not None:
                tasks += self.run.feed(event).result()  # on disk from here on
            self.run.done(task).result()
        return self.run.state

    def carry_out(self, effect: replicated.Effect) -> replicated.Event | None:
        """Do what the protocol asks for; returns what comes of it."""
        match effect:
            case Dispatch(worker=name):
                sent = self.workers[name].run(self.order(effect), self.job, self.x)
                return self.received(Commit, sent)
            case AskReveal(worker=name):
                return self.received(Reveal, self.workers[name].disclose(self.order(effect)))
            case AwaitBeacon(chain=chain, round=number):
                drawn = Beacon(chain=chain, round=number, value=os.urandom(32))  # such as drand's
                return replicated.Drawn(at=BEACON.appears(number), beacon=drawn)
            case Audit():
                return self.audit(effect)
            case Record(commit=commit):
                self.log.append(commit.message.digest).result()
            case Blame(reveal=reveal):
                self.convicted.append(reveal.message.worker)  # its stake may be slashed
            case Conclude(decision=decision):
                self.signed(decision)  # to everybody
            case _:
                print(effect)  # refusals, and workers that missed a deadline: no blame
        return None

    def order(self, task: Dispatch | AskReveal | Audit) -> bytes:
        """What a worker is asked for, signed."""
        return self.signed(replicated.order(self.job, task))

    @property
    def identities(self) -> dict[bytes, Identity]:
        """The workers that are registered."""
        return {name: worker.identity for name, worker in self.workers.items()}

    def received(self, kind: Any, data: bytes) -> replicated.Received:
        """A worker's message, authenticated; raises VerificationError for any other bytes."""
        seats = replicated.seated(self.run.state)
        signed = messages.receive(kind, data, self.identities, seats=seats)
        return replicated.Received(at=self.run.state.now, message=signed)

    @functools.cached_property
    def auditor(self) -> Auditor:
        """Made once commitments are closed: nobody may know of its key before."""
        closed_at = self.run.state.round or 0
        self.log.close(chain=BEACON.chain, closed_at=closed_at)
        return Auditor(
            job=self.job,
            program=self.program,
            key=self.program.setup(self.params, vf.challenge.secret()),
            inputs=(self.x,),
            identities=self.identities,
        )

    def audit(self, task: Audit) -> replicated.Audited:
        """Check the trace of a ballot; if it is wrong, ask a judge whether evidence shows it."""
        worker = self.workers[task.commit.message.worker]
        message, payload = worker.upload(self.order(task))
        found, guilty = self.auditor.audit(task, message, payload), False
        report, run = found.report, found.submission
        if (
            report is not None
            and run is not None
            and report.verdict is vf.Verdict.REJECT
            and report.claim is not None
        ):
            evidence = vf.evidence_of(self.program, report, run)
            guilty = judge(evidence.encode(), self.program, self.params, self.x)
        return audited(task, found, at=self.run.state.now, convicted=guilty)


def judge(evidence: bytes, program: vf.Program, params: Params, x: jax.Array) -> bool:
    """What anybody with the model decides, without a key and without trust in the accuser."""
    received = vf.Evidence.decode(evidence, program)
    return vf.verify_evidence(received, program, params, x).guilty


def rules(program: vf.Program) -> replicated.Rules:
    """Three ballots, of which two must agree within what honest devices differ by."""
    y = program.y
    return replicated.Rules(
        policy=FixedSize(bad=0.1, size=3),
        agreement=Tolerance.usual(shape=y.shape, dtype=y.dtype.name),
        decode=functools.partial(tensor_from_bytes, shape=y.shape, dtype=y.dtype.name),
        beacon=BEACON,
        dispatches=3,
        commit_seconds=60,
        reveal_seconds=60,
        beacon_seconds=60,
        audit_seconds=600,
        window_seconds=3600,
    )


def main(file: Path) -> dict[str, Any]:
    """Play one job with two honest workers and a liar; returns how it ended."""
    params, stale = weights(0), weights(1)
    x = jnp.asarray(np.random.default_rng(2).standard_normal((8, 256)), jnp.float32)
    program, mine = vf.compile(model, params, x), Party()
    runs = {"Ann": params, "Bob": stale, "Cy": params}
    workers = {
        name: Worker(program=program, params=its, coordinator=mine.identity)
        for name, its in runs.items()
    }
    registered = {worker.identity.id: worker for worker in workers.values()}
    with Journal.create(file) as journal:
        coordinator = Coordinator(
            key=mine.key,
            program=program,
            params=params,
            x=x,
            journal=journal,
            workers=registered,
        )
        coordinator.play()
    with Journal.open(file) as journal:  # as another process does, after this one was killed
        name = coordinator.job.digest.hex()
        decision: Any = Recorded.resume(journal, REPLICATED, name, rules(program)).state.decision

    names = {worker.identity.id: name for name, worker in workers.items()}
    ended = {
        "outcome": f"{decision.outcome.value}: {decision.reason.value}",
        "agree": sorted(names[w] for w in decision.group),
        "dissent": [names[w] for w in decision.dissenters],
        "convicted": [names[w] for w in coordinator.convicted],
    }
    print(ended)
    return ended


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder) / "network.journal")
