"""One job in replicated execution, driven by hand, and the rules of both protocols, for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from protocols.audited import PartialRules
from protocols.messages import Job, Reveal, Signed
from protocols.replicated import (
    Audited,
    Conclude,
    Drawn,
    Effect,
    Event,
    Phase,
    Received,
    Refuse,
    Rules,
    Schedule,
    State,
    Tick,
    start,
    step,
)
from verifiable.challenge import Beacon
from verifiable.encoding import tensor_bytes, tensor_from_bytes
from verifiable.report import Verdict
from verifiable.voting.agreement import Exact, Tolerance
from verifiable.voting.quorum import FirstToMatch, FixedSize, QuorumPolicy
from verifiable.voting.trust import Adaptive

NOW = 1_000_000
SEED = bytes(range(32))
CHAIN = Schedule(chain="drand", genesis=1000, period=3)
TRUTH, LIE = b"T" * 32, b"L" * 32
JOB = Job(
    coordinator=b"\xc0" * 32,
    epoch=7,
    nonce=b"\x0a" * 32,
    expiry=NOW + 100_000,
    program=b"\x01" * 32,
    parameters=b"\x02" * 32,
    input=b"\x03" * 32,
)
ELSEWHERE = dataclasses.replace(JOB, nonce=bytes(32))
LATER = dataclasses.replace(JOB, epoch=8)
WORKERS = [bytes([i]) * 32 for i in range(1, 10)]


def rules(policy: QuorumPolicy, **change: Any) -> Rules:
    """Rules for up to three workers, with changes."""
    given: dict[str, Any] = {
        "policy": policy,
        "agreement": Exact(),
        "decode": bytes,
        "beacon": CHAIN,
        "dispatches": 3,
        "commit_seconds": 60,
        "reveal_seconds": 10,
        "beacon_seconds": 30,
        "audit_seconds": 120,
        "window_seconds": 600,
    }
    return Rules(**(given | change))


PARTIAL = PartialRules(
    beacon=CHAIN,
    rate=1.0,
    layers=1,
    rows=8,
    receipt_seconds=60,
    log_seconds=600,
    beacon_seconds=30,
    trace_seconds=90,
    opening_seconds=120,
    judging_seconds=300,
)
"""Rules for one job at one worker, audited in part: always, in one layer."""


def answer(worker: bytes, value: bytes = TRUTH, job: Job = JOB) -> Reveal:
    """The reveal of a worker, with its own salt."""
    return Reveal(
        worker=worker,
        job=job.digest,
        epoch=job.epoch,
        salt=bytes(reversed(worker[:31])) + job.nonce[:1],
        value=value,
        trace_root=worker,
        trace_size=4,
    )


def signed(message: Any) -> Signed[Any]:
    """A message that counts as authenticated: the signature is not verified here."""
    return Signed(message=message, signature=bytes(64))


def beacon(state: State, value: bytes = b"v" * 32) -> Beacon:
    assert state.round is not None
    return Beacon(chain="drand", round=state.round, value=value)


@dataclass
class Run:
    """One job, driven by hand."""

    state: State
    effects: list[Effect] = field(default_factory=list)

    @classmethod
    def of(
        cls, rules: Rules, *, workers: Sequence[bytes] = WORKERS[:3], job: Job = JOB, **more: Any
    ) -> Run:
        weights = [1] * len(workers)
        state, effects = start(
            job, rules, now=NOW, workers=workers, weights=weights, seed=SEED, **more
        )
        return cls(state, list(effects))

    def do(self, event: Event) -> list[Effect]:
        self.state, effects = step(self.state, event)
        self.effects += effects
        return list(effects)

    def send(self, message: Any, *, at: int = NOW) -> list[Effect]:
        return self.do(Received(at=at, message=signed(message)))

    def wait(self) -> list[Effect]:
        return self.do(Tick(at=self.state.deadline))

    def draw(self, value: bytes = b"v" * 32) -> list[Effect]:
        return self.do(Drawn(at=self.state.now, beacon=beacon(self.state, value)))

    def audit(self, worker: bytes, verdict: Verdict, *, convicted: bool = False) -> list[Effect]:
        ended = Audited(at=self.state.now, worker=worker, verdict=verdict, convicted=convicted)
        return self.do(ended)

    def seated(self) -> list[bytes]:
        return [seat.worker for seat in self.state.seats]

    def round(self, values: dict[bytes, bytes]) -> None:
        """Only these workers commit and reveal, and the beacon comes."""
        for worker, value in values.items():
            self.send(answer(worker, value).commit)
        while self.state.phase is Phase.COMMIT:
            self.wait()
        for worker, value in values.items():
            self.send(answer(worker, value))
        if self.state.phase is Phase.REVEAL:
            self.wait()
        self.draw()

    def all(self, kind: type[Any]) -> list[Any]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    @property
    def end(self) -> Conclude:
        (end,) = self.all(Conclude)
        assert self.state.phase is Phase.ENDED
        assert self.state.decision == end.decision
        return end


def refused(effects: Iterable[Effect]) -> list[str]:
    """Reasons of the refusals among these effects."""
    return [effect.reason for effect in effects if isinstance(effect, Refuse)]


ADAPTIVE = Adaptive(bad=0.1, newcomers=FirstToMatch(bad=0.1, matches=2))


def committed() -> Run:
    """Three seats, of which the first two have committed."""
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    for worker in WORKERS[:2]:
        run.send(answer(worker).commit)
    return run


TOLERANCE = Tolerance(shape=(1,), dtype="float64", relative=1e-3)


def metric(size: int) -> Rules:
    """Rules for a fixed number of answers that are numbers, compared with a tolerance."""

    def decode(data: bytes) -> Any:
        return tensor_from_bytes(data, (1,), "float64")

    return rules(FixedSize(bad=0.1, size=size), agreement=TOLERANCE, decode=decode, dispatches=size)


def number(x: float) -> bytes:
    """The encoding of an answer under `metric`."""
    return bytes(tensor_bytes(np.array([x])))
