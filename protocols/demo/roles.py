"""Both sides of the demo's vote: workers with keys, and a coordinator that drives the protocol.

Everything between them is bytes: a worker signs what it sends, and the coordinator reads nothing
that no registered worker has signed. The coordinator keeps the state of one job, hands events to
`replicated.step`, and collects what it is told to do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, cast

import jax
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocols import messages, replicated
from protocols.demo import devices
from protocols.demo.devices import Device, Submission
from protocols.identities import Identity
from protocols.messages import Commit, Reveal
from protocols.replicated.state import Effect, Event, Received, Record, Rules, Schedule, State
from verifiable.challenge import CommitmentLog
from verifiable.encoding import tagged_hash, tensor_bytes, tensor_from_bytes
from verifiable.voting.agreement import RELATIVE_TOLERANCE, Tolerance
from verifiable.voting.quorum import FixedSize

POLICY = FixedSize(bad=0.1, size=7)
"""All seven at once, four of whom must agree."""

BEACON = Schedule(chain="demo", genesis=0, period=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voter:
    """A worker of this scene.

    Attributes:
      device: what it is called, whether it is honest, and what it runs. A copycat's is not run.
      role: `honest`, `colluder` or `copycat`.
      did: what it does, in a few words.
    """

    device: Device
    role: str
    did: str

    @property
    def copies(self) -> bool:
        """Whether it sends what another worker has sent, under its own name."""
        return self.role == "copycat"


@dataclass(slots=True)
class Worker:
    """A worker's side: its key, what it ran, and what it has to reveal."""

    voter: Voter
    key: Ed25519PrivateKey
    identity: Identity
    submission: Submission | None = None
    reveal: Reveal | None = None

    def commits(self, victim: Worker) -> list[bytes]:
        """What it sends while commitments are open; a copycat has seen its victim's."""
        if not self.voter.copies:
            return [self._sign(self._own.commit)]
        stolen = replace(victim._own.commit, worker=self.identity.id)
        return [victim._sign(victim._own.commit), self._sign(stolen)]

    def reveals(self, victim: Worker) -> list[bytes]:
        """What it sends when it is asked to reveal; a copycat has seen its victim's."""
        if not self.voter.copies:
            return [self._sign(self._own)]
        stolen = replace(victim._own, worker=self.identity.id)
        return [victim._sign(victim._own), self._sign(stolen)]

    def run(self, job: devices.Job, message: messages.Job) -> None:
        """Run the job, and keep what is to be revealed."""
        self.submission = sent = self.voter.device.run(job)
        self.reveal = Reveal.fresh(
            worker=self.identity.id,
            job=message,
            value=bytes(tensor_bytes(sent.y)),
            trace_root=sent.commitment.root,
            trace_size=sent.commitment.size,
        )

    @property
    def _own(self) -> Reveal:
        if self.reveal is None:
            raise ValueError(f"{self.voter.device.name} has run nothing")
        return self.reveal

    def _sign(self, message: Commit | Reveal) -> bytes:
        return messages.sign(cast("Any", message), self.key.sign).encode()


@dataclass(slots=True)
class Coordinator:
    """The coordinator's side: the state of the job, and everything it was told to do."""

    state: State
    identities: dict[bytes, Identity]
    todo: list[Effect]
    done: list[Effect] = field(default_factory=list)
    log: CommitmentLog = field(default_factory=CommitmentLog)
    received: int = 0

    def take(self, kind: type[Any]) -> list[Any]:
        """The effects of one kind that are yet to be done."""
        found = [effect for effect in self.todo if isinstance(effect, kind)]
        self.todo = [effect for effect in self.todo if not isinstance(effect, kind)]
        self.done += found
        return found

    def do(self, event: Event) -> None:
        """Let something happen; commits enter the epoch's log before anything else is done."""
        self.state, effects = replicated.step(self.state, event)
        for effect in effects:
            if isinstance(effect, Record):
                self.log.append(effect.commit.message.digest)
            self.todo.append(effect)

    def receive(self, kind: type[Commit | Reveal], data: bytes) -> None:
        """Take what came over the wire: authenticated and parsed, or not at all."""
        self.received += len(data)
        signed: Any = messages.receive(cast("Any", kind), data, self.identities)
        self.do(Received(at=self.state.now, message=signed))


# By precision of the model, the type whose rounding separates honest answers most, whatever type
# these have; a level of int8 that flips moves an answer about as far as half precision does.
_COARSEST = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "w8a8": "float16"}


def register(seed: bytes, voter: Voter) -> Worker:
    """A worker whose key follows from a seed."""
    secret = tagged_hash("demo worker", seed, voter.device.name.encode())
    key = Ed25519PrivateKey.from_private_bytes(secret)
    identity = Identity(public_key=key.public_key().public_bytes_raw())
    return Worker(voter=voter, key=key, identity=identity)


def start(job: devices.Job, root: bytes, seed: bytes, workers: dict[bytes, Worker]) -> Coordinator:
    """Send the job to all workers, at once.

    Args:
      job: what the devices run.
      root: of the parameters.
      seed: 32 bytes that fix nonce and seats.
      workers: by identity.
    """
    now, y = int(time.time()), job.program.y
    tolerance = RELATIVE_TOLERANCE[_COARSEST[job.model.precision]]
    rules = Rules(
        policy=POLICY,
        agreement=Tolerance(shape=y.shape, dtype=y.dtype.name, relative=tolerance),
        decode=lambda data: tensor_from_bytes(data, y.shape, y.dtype),
        beacon=BEACON,
        dispatches=len(workers),
        commit_seconds=600,
        reveal_seconds=60,
        beacon_seconds=60,
        audit_seconds=600,
        window_seconds=3600,
    )
    inputs = [bytes(tensor_bytes(x)) for x in jax.tree.leaves(job.inputs)]
    message = messages.Job(
        epoch=1,
        nonce=tagged_hash("demo nonce", seed),
        expiry=now + 3600,
        program=job.program.id,
        parameters=root,
        input=tagged_hash("demo input", *inputs),
    )
    state, effects = replicated.start(
        message,
        rules,
        now=now,
        workers=list(workers),
        weights=[1] * len(workers),
        seed=tagged_hash("demo seats", seed),
    )
    identities = {identity: worker.identity for identity, worker in workers.items()}
    return Coordinator(state=state, identities=identities, todo=list(effects))
