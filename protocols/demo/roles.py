"""Both sides of the demo's vote: workers with keys, and a coordinator that drives the protocol.

They exchange bytes only: workers sign their messages, and the coordinator refuses a message without
the signature of a worker with a seat. The coordinator signs its orders, and workers obey no other.
It keeps the state of one job, passes events to
`replicated.step`, and collects the effects that it returns.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocols import messages, replicated
from protocols.demo.devices import DemoJob, Device
from protocols.identities import Identity
from protocols.messages import Commit, Reveal
from protocols.replicated.runs import input_digest, reveal_of
from protocols.replicated.state import (
    AskReveal,
    Dispatch,
    Effect,
    Event,
    Received,
    Record,
    Rules,
    Schedule,
    State,
)
from verifiable.challenge import CommitmentLog
from verifiable.encoding import tagged_hash, tensor_from_bytes
from verifiable.submission import Submission
from verifiable.voting.agreement import RELATIVE_TOLERANCE, Tolerance
from verifiable.voting.quorum import FixedSize

POLICY = FixedSize(bad=0.1, size=7)
"""Seven workers at once; four must agree."""

BEACON = Schedule(chain="demo", genesis=0, period=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voter:
    """The part that a worker plays.

    Attributes:
      device: its name, whether it is honest, and what it runs. A copycat's device is not run.
      role: `honest`, `colluder` or `copycat`.
      did: what it does, in a few words.
    """

    device: Device
    role: str
    did: str

    @property
    def copies(self) -> bool:
        """Whether it sends the messages of another worker under its own name."""
        return self.role == "copycat"


@dataclass(slots=True)
class Worker:
    """A worker's side of the protocol.

    Attributes:
      voter: the part that it plays.
      key: signs its messages.
      identity: under which it is registered.
      job: what it was asked to run.
      submission: the run, once there is one.
      reveal: the message that opens its commitment, once it has run the job.
    """

    voter: Voter
    key: Ed25519PrivateKey
    identity: Identity
    job: messages.Job | None = None
    submission: Submission | None = None
    reveal: Reveal | None = None

    def commits(self, victim: Worker) -> list[bytes]:
        """Return its messages while commitments are open; a copycat repeats its victim's."""
        if not self.voter.copies:
            return [self._sign(self._own.commit)]
        stolen = replace(victim._own.commit, worker=self.identity.id)
        return [victim._sign(victim._own.commit), self._sign(stolen)]

    def reveals(self, victim: Worker, request: bytes, coordinator: Identity) -> list[bytes]:
        """Return its messages when it is asked to reveal; a copycat repeats its victim's."""
        if not self.voter.copies:
            return [self._disclose(request, coordinator)]
        stolen = replace(victim._own, worker=self.identity.id)
        return [messages.sign(victim._own, victim.key.sign).encode(), self._sign(stolen)]

    def run(self, job: DemoJob, message: messages.Job) -> None:
        """Run the job, and prepare the reveal."""
        self.job = message
        self.submission = sent = self.voter.device.run(job)
        self.reveal = reveal_of(sent, worker=self.identity.id, job=message)

    def hand_in(self, request: messages.TraceRequest) -> tuple[bytes, bytes]:
        """Return the signed message of its upload, and the payload: its trace."""
        if self.submission is None:
            raise ValueError(f"{self.voter.device.name} has not run the job: call run first")
        payload = self.submission.encode()
        upload = messages.Upload.of(payload, request)
        return messages.sign(upload, self.key.sign).encode(), payload

    def _disclose(self, request: bytes, coordinator: Identity) -> bytes:
        if self.job is None:
            raise ValueError(f"{self.voter.device.name} has not run the job: call run first")
        shown = messages.disclose(
            self._own, request, job=self.job, coordinator=coordinator, signer=self.key.sign
        )
        return shown.encode()

    @property
    def _own(self) -> Reveal:
        if self.reveal is None:
            raise ValueError(f"{self.voter.device.name} has not run the job: call run first")
        return self.reveal

    def _sign(self, message: Commit | Reveal) -> bytes:
        return messages.sign(cast("Any", message), self.key.sign).encode()


@dataclass(slots=True)
class Coordinator:
    """The coordinator's side of the protocol.

    Attributes:
      state: of the job.
      key: signs its orders.
      identity: the coordinator that the job names.
      identities: of all workers.
      todo: effects that are pending.
      done: effects that were taken.
      log: commitments of the epoch.
      received: bytes of signed messages so far.
    """

    state: State
    key: Ed25519PrivateKey
    identity: Identity
    identities: dict[bytes, Identity]
    todo: list[Effect]
    done: list[Effect] = field(default_factory=list)
    log: CommitmentLog = field(default_factory=CommitmentLog)
    received: int = 0

    def take(self, kind: type[Any]) -> list[Any]:
        """Return the pending effects of one kind, and move them to `done`."""
        found = [effect for effect in self.todo if isinstance(effect, kind)]
        self.todo = [effect for effect in self.todo if not isinstance(effect, kind)]
        self.done += found
        return found

    def order(self, effect: Dispatch | AskReveal) -> bytes:
        """Return the signed bytes that carry out an effect."""
        message: Any = replicated.order(self.state.job, effect)
        return messages.sign(message, self.key.sign).encode()

    def do(self, event: Event) -> None:
        """Apply an event. A commit enters the epoch's log before any other effect."""
        self.state, effects = replicated.step(self.state, event)
        for effect in effects:
            if isinstance(effect, Record):
                self.log.append(effect.commit.message.digest)
            self.todo.append(effect)

    def receive(self, kind: type[Commit | Reveal], data: bytes) -> None:
        """Authenticate, parse and apply a message. Raises VerificationError if it is refused."""
        self.received += len(data)
        seats = replicated.seated(self.state)
        signed: Any = messages.receive(cast("Any", kind), data, self.identities, seats=seats)
        self.do(Received(at=self.state.now, message=signed))


# For each precision, the type with the coarsest rounding on the way to an answer. One int8 level
# moves an answer about as far as rounding to float16 does.
_COARSEST = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "w8a8": "float16"}


def register(seed: bytes, voter: Voter) -> Worker:
    """Make a worker whose key is derived from a seed."""
    key, identity = identity_of("demo worker", seed, voter.device.name.encode())
    return Worker(voter=voter, key=key, identity=identity)


def identity_of(tag: str, *parts: bytes) -> tuple[Ed25519PrivateKey, Identity]:
    """A key that follows from its parts, and the identity that it signs for."""
    key = Ed25519PrivateKey.from_private_bytes(tagged_hash(tag, *parts))
    return key, Identity(public_key=key.public_key().public_bytes_raw())


def start(job: DemoJob, seed: bytes, workers: dict[bytes, Worker]) -> Coordinator:
    """Start a coordinator, which sends the job to all workers at once.

    Args:
      job: what the devices run.
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
    key, identity = identity_of("demo coordinator", seed)
    message = messages.Job(
        coordinator=identity.id,
        epoch=1,
        nonce=tagged_hash("demo nonce", seed),
        expiry=now + 3600,
        program=job.program.id,
        parameters=job.root,
        input=input_digest(*job.inputs),
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
    return Coordinator(
        state=state, key=key, identity=identity, identities=identities, todo=list(effects)
    )
