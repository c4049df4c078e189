"""One job by vote, with a copycat and two colluders: the second scene of `verifiable demo`.

Seven workers with Ed25519 keys are sent the same job, and everything between them and the
coordinator travels as signed bytes. They commit to answer and trace; then, and not before, they
reveal. A copycat repeats another's commitment and reveal under its own name, and cannot open it.
Two colluders send the same wrong answer. Because ballots disagree, `protocols.replicated` asks for
an audit of every trace behind them, and `Program.check` does it, on a challenge that anyone
derives from the closed log of commitments and a later round of a beacon.

`play` prints nothing; it yields what happens as it happens.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from protocols.demo import devices
from protocols.demo.devices import Device, Submission
from protocols.demo.roles import BEACON, POLICY, Voter, Worker, register, start
from protocols.demo.scenes import check
from protocols.demo.scenes.check import Step
from protocols.messages import Commit, Decision, Reveal
from protocols.replicated.state import (
    Absent,
    AskReveal,
    Audit,
    Audited,
    AwaitBeacon,
    Blame,
    Conclude,
    Dispatch,
    Drawn,
    Effect,
    Refuse,
    Tick,
)
from verifiable import challenge, program
from verifiable.challenge import Beacon, ClosedLog
from verifiable.encoding import tagged_hash, tensor_bytes
from verifiable.key import VerifierKey
from verifiable.report import Verdict
from verifiable.voting.quorum import FixedSize


def _voter(name: str, role: str, did: str, run: Any) -> Voter:
    return Voter(device=Device(name, role == "honest", run), role=role, did=did)


_int4 = devices.with_params(functools.partial(devices.kernels, change=devices.int4))
CAST = (
    _voter("Ada", "honest", "compiled run", devices.jitted),
    _voter("Ben", "honest", "compiled run", devices.jitted),
    _voter("Cleo", "honest", "compiled run", devices.jitted),
    _voter("Dov", "honest", "op-by-op run", devices.op_by_op),
    _voter("Eve", "colluder", "int4 weights", _int4),
    _voter("Fay", "colluder", "Eve's answer", _int4),
    _voter("Gus", "copycat", "replayed a ballot", devices.jitted),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one worker.

    Attributes:
      voter: whom it concerns.
      worker: its registered identity.
      outcome: `agreed` with the accepted answer; `dissented`; `blamed`, by an audit that rejects;
        or `no ballot`.
      reason: stable code: of the audit, where there was one; of the first message that was turned
        away, where it has no ballot; `ok` for a ballot nobody had to audit.
      claim: name of the first claim that failed, or None.
    """

    voter: Voter
    worker: bytes
    outcome: str
    reason: str
    claim: str | None

    @property
    def right(self) -> bool:
        """Whether an honest worker agreed, or a cheat was blamed or has no ballot."""
        return self.outcome in ({"agreed"} if self.voter.device.honest else {"blamed", "no ballot"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How the vote ended.

    Attributes:
      outcomes: of every worker, in the order of the cast.
      decision: the final one.
      honest_answer: whether the accepted answer is one that an honest worker sent.
      policy: what the vote was held under.
      audits: how many traces were audited.
      received: bytes of signed messages that workers sent.
    """

    outcomes: tuple[Outcome, ...]
    decision: Decision
    honest_answer: bool
    policy: FixedSize
    audits: int
    received: int

    @property
    def right(self) -> bool:
        """Whether a right answer was accepted, and every worker got what it deserves."""
        return (
            self.honest_answer
            and bool(self.outcomes)
            and all(outcome.right for outcome in self.outcomes)
        )


Event: TypeAlias = "Step | Outcome | Summary"


def play(
    job: devices.Job, *, voters: Sequence[Voter] = CAST, seed: bytes | None = None
) -> Iterator[Event]:
    """Play the scene; yield a `Step` before each piece of work, then outcomes and `Summary`.

    Args:
      job: from `demo.prepare`.
      voters: seven workers, one of whom is no copycat.
      seed: 32 bytes that fix keys, seats and beacon, for tests; by default they are fresh.
    """
    seed = os.urandom(32) if seed is None else seed
    total, done = 2 * len(voters) + 2, 0
    root = program.parameter_root(job.model.params)
    workers = {worker.identity.id: worker for worker in (register(seed, v) for v in voters)}
    coordinator = start(job, root, seed, workers)

    # Workers run and commit. A copycat waits until there is something to copy.
    seats = [workers[effect.worker] for effect in coordinator.take(Dispatch)]
    seats.sort(key=lambda worker: worker.voter.copies)
    for worker in seats:
        yield Step(done=done, total=total, what=f"vote: run {worker.voter.device.name}")
        done += 1
        if not worker.voter.copies:
            worker.run(job, coordinator.state.job)
        for data in worker.commits(seats[0]):
            coordinator.receive(Commit, data)
    closed = coordinator.log.close(
        chain=BEACON.chain, closed_at=BEACON.after(coordinator.state.now) - 1
    )

    # Commitments are closed: reveal.
    yield Step(done=done, total=total, what="vote: reveal")
    coordinator.take(AskReveal)
    for worker in seats:
        for data in worker.reveals(seats[0]):
            coordinator.receive(Reveal, data)
    if not any(isinstance(effect, AwaitBeacon) for effect in coordinator.todo):
        coordinator.do(Tick(at=coordinator.state.deadline))
    (awaited,) = coordinator.take(AwaitBeacon)
    value = tagged_hash("demo beacon", seed, awaited.round.to_bytes(8, "little"))
    beacon = Beacon(chain=awaited.chain, round=awaited.round, value=value)
    due = BEACON.genesis + (beacon.round - 1) * BEACON.period
    coordinator.do(Drawn(at=due, beacon=beacon))

    # Ballots disagree: check the traces behind them.
    done += 1
    yield Step(done=done, total=total, what="vote: make a key for the audit")
    asked: list[Audit] = coordinator.take(Audit)
    found: dict[bytes, check.Outcome] = {}
    key = _key(job, root, closed, beacon)
    for effect in asked:
        worker = workers[effect.commit.message.worker]
        done += 1
        yield Step(done=done, total=total, what=f"vote: audit {worker.voter.device.name}")
        verdict = Verdict.INDETERMINATE
        if worker.submission is not None:
            outcome = audit(job, key, worker.voter.device, effect.reveal.message, worker.submission)
            found[worker.identity.id], verdict = outcome, Verdict(outcome.verdict)
        name = worker.identity.id
        coordinator.do(Audited(at=coordinator.state.now, worker=name, verdict=verdict))
    (end,) = coordinator.take(Conclude)
    coordinator.done += coordinator.todo
    outcomes = tuple(_outcome(w, coordinator.done, end.decision, found) for w in workers.values())
    yield from outcomes
    yield Summary(
        outcomes=outcomes,
        decision=end.decision,
        honest_answer=end.value is not None
        and any(
            worker.voter.device.honest
            and worker.reveal is not None
            and worker.reveal.value == end.value
            for worker in workers.values()
        ),
        policy=POLICY,
        audits=len(found),
        received=coordinator.received,
    )


def audit(
    job: devices.Job,
    key: VerifierKey,
    device: Device,
    reveal: Reveal,
    opened: Submission,
) -> check.Outcome:
    """Audit what stands behind a ballot: the trace committed to, its answer, and the check.

    Args:
      job: the job.
      key: made after commitments had closed.
      device: whom it concerns.
      reveal: the ballot.
      opened: what the worker sends when its trace is asked for.
    """
    committed = (reveal.trace_root, reveal.trace_size)
    if committed != (opened.commitment.root, opened.commitment.size):
        return check.rejected(device, "commitment-mismatch", reveal.trace_root)
    outcome = check.judge(job, key, device, opened)
    # The trace holds the answer, so that what was revealed must be those very bytes.
    if outcome.verdict == "accept" and bytes(tensor_bytes(opened.y)) != reveal.value:
        return check.rejected(device, "answer-mismatch", reveal.trace_root)
    return outcome


def _key(job: devices.Job, root: bytes, closed: ClosedLog, beacon: Beacon) -> VerifierKey:
    """The key that anyone makes who has the parameters, the closed log and the beacon."""
    drawn = challenge.public(
        closed,
        beacon,
        program=job.program.id,
        policy=job.program.policy.id,
        parameters=root,
    )
    return job.program.setup(job.model.params, drawn)


def _outcome(
    worker: Worker,
    effects: Sequence[Effect],
    decision: Decision,
    found: dict[bytes, check.Outcome],
) -> Outcome:
    name, checked = worker.identity.id, found.get(worker.identity.id)
    blamed = {e.commit.message.worker for e in effects if isinstance(e, Blame)}
    absent = {e.worker for e in effects if isinstance(e, Absent)}
    if name in blamed:
        what = "blamed"
    elif name in absent:
        what = "no ballot"
    else:
        what = "agreed" if name in decision.group else "dissented"
    refusals = (e.reason for e in effects if isinstance(e, Refuse) and e.worker == name)
    reason = next(refusals, "absent") if what == "no ballot" else "ok"
    return Outcome(
        voter=worker.voter,
        worker=name,
        outcome=what,
        reason=reason if checked is None else checked.reason,
        claim=None if checked is None else checked.claim,
    )
