"""What stands between a fleet and the coordinator under test: three methods, and two if needed.

A worker commits, and hands in its run once commitments are closed. The fleet says what arrives and
when; the adapter passes it on in the coordinator's own form, and shows what has left it: payments,
punishments, signed statements, requests. An adapter lives through a crash of its coordinator, as
the outside world does.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocols import messages
from protocols.identities import Identity
from protocols.messages import Commit, Job, Reveal
from verifiable.challenge import Beacon
from verifiable.encoding import tagged_hash
from verifiable.program import Program
from verifiable.submission import Submission
from verifiable.trace import Commitment


@dataclass(frozen=True, eq=False, kw_only=True)
class FleetJob:
    """A job that the coordinator gives out.

    Attributes:
      message: the job as the library's protocols name it: program, parameters, input, nonce.
      program: the compiled program.
      params: the parameters that it asks for; another job may ask for others.
      inputs: of the job.
      workers: identities of those that it is sent to, 32 bytes each.
      identities: the registered workers, seated or not, by identity.
      commit_by: time after which no commitment counts, in seconds since 1970-01-01 UTC.
      hand_in_by: time after which no run counts.
      ends: time by which everything is decided.
      seed: 32 bytes, for whatever the coordinator draws.
    """

    message: Job
    program: Program
    params: Any = field(repr=False)
    inputs: tuple[Any, ...] = field(repr=False)
    workers: tuple[bytes, ...]
    identities: Mapping[bytes, Identity] = field(repr=False)
    commit_by: int
    hand_in_by: int
    ends: int
    seed: bytes

    @functools.cached_property
    def id(self) -> bytes:
        """Digest of the job's message, 32 bytes."""
        return self.message.digest

    @property
    def parameters(self) -> bytes:
        """`parameter_root` of the parameters, 32 bytes."""
        return self.message.parameters

    def beacon(self, chain: str, number: int) -> Beacon:
        """A round of a beacon: its value follows from the seed."""
        value = tagged_hash("beacon of a fleet", self.seed, chain.encode(), number.to_bytes(8))
        return Beacon(chain=chain, round=number, value=value)


@dataclass(frozen=True, eq=False, kw_only=True)
class CommitSent:
    """A worker's commitment arrived.

    Attributes:
      sender: identity of the worker that sent it: the transport has authenticated it.
      job: id of the job that it was sent for.
      commit: binds the run to worker and job, and hides it. What it names may differ from `sender`
        and `job`.
      submission: the run behind it, for adapters that make a commitment of another form. No
        coordinator may see it yet.
      key: signs `commit`.
    """

    sender: bytes
    job: bytes
    commit: Commit
    submission: Submission = field(repr=False)
    key: Ed25519PrivateKey = field(repr=False)

    @property
    def commitment(self) -> Commitment:
        """Root and size over answer and trace. It names no worker, so anyone can repeat it."""
        return self.submission.commitment

    @property
    def signed(self) -> bytes:
        """The signed message, for `messages.receive`."""
        return messages.sign(self.commit, self.key.sign).encode()


@dataclass(frozen=True, eq=False, kw_only=True)
class RunSent:
    """A worker's answer and its run arrived.

    Attributes:
      sender: identity of the worker that sent it.
      job: id of the job that it was sent for.
      reveal: what opens the commitment: answer, root of the trace, salt. What it names may differ.
      answer: the answer that the worker wants to be paid for, as `reveal` has it in bytes. A liar's
        is not the y of its submission.
      submission: answer and trace. Nothing in it is trusted.
      key: signs `reveal`.
    """

    sender: bytes
    job: bytes
    reveal: Reveal
    answer: Any = field(repr=False)
    submission: Submission = field(repr=False)
    key: Ed25519PrivateKey = field(repr=False)

    @property
    def signed(self) -> bytes:
        """The signed message, for `messages.receive`."""
        return messages.sign(self.reveal, self.key.sign).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Everything that has left the coordinator so far; nothing is ever taken back.

    Attributes:
      paid: payments, as (job, worker), one for each time.
      punished: stakes taken, workers blamed or struck off, as (job, worker).
      signed: statements that were signed and published, as (what it decides, the statement).
      asked: the runs that were asked for, as (job, worker): workers hand in nothing before. None
        if the coordinator does not ask: they do as soon as `commit_by` is over.
    """

    paid: Sequence[tuple[bytes, bytes]] = ()
    punished: Sequence[tuple[bytes, bytes]] = ()
    signed: Sequence[tuple[bytes, bytes]] = ()
    asked: frozenset[tuple[bytes, bytes]] | None = None


class CoordinatorAdapter(abc.ABC):
    """The coordinator under test. Times are in seconds since 1970-01-01 UTC, and never go back.

    A `VerificationError` raised by `receive` counts as a refusal. Any other exception fails the
    test: nothing that a device sends may raise one.
    """

    @abc.abstractmethod
    def start(self, job: FleetJob, now: int) -> None:
        """Give out a job."""

    @abc.abstractmethod
    def receive(self, message: CommitSent | RunSent, now: int) -> None:
        """Take what a worker sent."""

    @abc.abstractmethod
    def ledger(self) -> Ledger:
        """Everything that has left the coordinator so far."""

    def tick(self, now: int) -> None:  # noqa: B027 - a coordinator may need no clock
        """Tell the time: at least just after each of a job's times."""

    def restart(self, now: int) -> None:  # noqa: B027 - a coordinator may keep nothing
        """Kill the coordinator and start it anew, from what it keeps on disk."""
