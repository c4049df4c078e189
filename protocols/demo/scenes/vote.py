"""Second scene: one job by vote, with a copycat and two colluders.

Seven workers with Ed25519 keys get the same job, and exchange signed bytes with the coordinator.
First all commit to answer and trace, then all reveal. A copycat repeats the commitment and reveal
of another worker under its own name, and cannot open it. Two colluders send the same wrong answer.
Ballots disagree, so `protocols.replicated` asks for an audit of every trace, and the coordinator
checks the traces on a challenge that anyone can derive from the closed log of commitments and a
later round of a beacon. A worker is blamed if the evidence of its rejection convicts it.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from protocols.demo.accusation import convicts
from protocols.demo.cheats.computations import int4, with_kernels
from protocols.demo.devices import DemoJob, Device, Run, jitted, op_by_op
from protocols.demo.roles import BEACON, POLICY, Coordinator, Voter, Worker, register, start
from protocols.demo.scenes.scene import Counter, Progress
from protocols.messages import AnswerForm, Commit, Decision, Reveal
from protocols.replicated import (
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
from protocols.replicated.audit import AuditFinding, Auditor, judge_ballot
from protocols.replicated.orders import trace_request
from verifiable import challenge
from verifiable.challenge import Beacon, ClosedLog
from verifiable.encoding import tagged_hash
from verifiable.key import VerifierKey
from verifiable.report import Verdict
from verifiable.submission import Submission
from verifiable.voting.quorum import FixedSize


def _voter(name: str, role: str, did: str, run: Run) -> Voter:
    return Voter(device=Device(name, role == "honest", run), role=role, did=did)


CAST = (
    _voter("Ada", "honest", "compiled run", jitted),
    _voter("Ben", "honest", "compiled run", jitted),
    _voter("Cleo", "honest", "compiled run", jitted),
    _voter("Dov", "honest", "op-by-op run", op_by_op),
    _voter("Eve", "colluder", "int4 weights", with_kernels(int4)),
    _voter("Fay", "colluder", "Eve's answer", with_kernels(int4)),
    _voter("Gus", "copycat", "replayed a ballot", jitted),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOutcome:
    """What the audit of a ballot found.

    Attributes:
      verdict: on trace and answer.
      reason: stable code.
      claim: name of the first claim that failed, or None.
      convicted: whether others can be shown that the worker is wrong; only where it is rejected.
    """

    verdict: Verdict
    reason: str
    claim: str | None
    convicted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOutcome:
    """How the vote ended for one worker.

    Attributes:
      voter: the part that it played.
      worker: its registered identity, 32 bytes.
      outcome: `agreed` with the accepted answer; `dissented`; `rejected` by its audit; `blamed`,
        by an audit that convicts; or `no ballot`.
      reason: stable code: of its audit if there was one, else of the first refused message if it
        has no ballot, else `ok`.
      claim: name of the first claim that failed, or None.
    """

    voter: Voter
    worker: bytes
    outcome: str
    reason: str
    claim: str | None

    @property
    def right(self) -> bool:
        """Whether an honest worker agreed, or a cheat was rejected, blamed, or has no ballot."""
        void = {"rejected", "blamed", "no ballot"}
        return self.outcome in ({"agreed"} if self.voter.device.honest else void)


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteSummary:
    """How the vote ended.

    Attributes:
      outcomes: one for every worker, in the order of the cast.
      decision: the final one.
      honest_answer: whether an honest worker has sent the accepted answer.
      policy: decides how many ballots are requested and how many must agree.
      audits: how many traces were audited.
      received: bytes of signed messages from workers.
    """

    outcomes: tuple[WorkerOutcome, ...]
    decision: Decision
    honest_answer: bool
    policy: FixedSize
    audits: int
    received: int

    @property
    def right(self) -> bool:
        """Whether a right answer was accepted, and every worker's outcome is right."""
        outcomes = self.outcomes
        return self.honest_answer and bool(outcomes) and all(o.right for o in outcomes)


VoteSceneEvent: TypeAlias = "Progress | WorkerOutcome | VoteSummary"


def play(
    job: DemoJob, *, voters: Sequence[Voter] = CAST, seed: bytes | None = None
) -> Iterator[VoteSceneEvent]:
    """Play the scene: yield progress, then the outcome of every worker, then the summary.

    Args:
      job: from `scene.prepare`.
      voters: seven workers, at least one not a copycat.
      seed: 32 bytes that fix keys, seats and beacon, for tests; by default they are fresh.
    """
    seed = os.urandom(32) if seed is None else seed
    counter = Counter(total=2 * len(voters) + 2)
    workers = {worker.identity.id: worker for worker in (register(seed, v) for v in voters)}
    coordinator = start(job, seed, workers)

    # A copycat waits until there is something to copy.
    seats = [workers[effect.worker] for effect in coordinator.take(Dispatch)]
    seats.sort(key=lambda worker: worker.voter.copies)
    yield from _commits(job, coordinator, seats, counter)
    closed = coordinator.log.close(
        chain=BEACON.chain, closed_at=BEACON.after(coordinator.state.now) - 1
    )

    yield counter.start("vote: reveal")
    beacon = _reveals(coordinator, seats, seed)
    yield counter.start("vote: make a key for the audit")
    key = _key(job, closed, beacon)
    found = yield from _audits(job, key, coordinator, workers, counter)

    (end,) = coordinator.take(Conclude)
    effects = [*coordinator.done, *coordinator.todo]
    outcomes = tuple(
        _outcome(worker, effects, end.decision, found.get(name)) for name, worker in workers.items()
    )
    yield from outcomes
    honest = [w.reveal.value for w in seats if w.voter.device.honest and w.reveal is not None]
    yield VoteSummary(
        outcomes=outcomes,
        decision=end.decision,
        honest_answer=end.value is not None and end.value in honest,
        policy=POLICY,
        audits=len(found),
        received=coordinator.received,
    )


def audit(job: DemoJob, key: VerifierKey, reveal: Reveal, opened: Submission) -> AuditOutcome:
    """Audit a ballot: the answer against its trace, the trace against the commitment, every claim.

    Args:
      job: the job.
      key: made after commitments had closed.
      reveal: the ballot.
      opened: the submission that the worker sends when its trace is asked for.
    """
    found = judge_ballot(
        job.program,
        key,
        job.inputs,
        reveal=reveal,
        found=opened,
        form=AnswerForm.BYTES,
        parameters=job.root,
    )
    return _of_finding(job, found)


def _of_finding(job: DemoJob, found: AuditFinding) -> AuditOutcome:
    """What a finding says, and whether its evidence convicts."""
    convicted, report = found.convicted, found.report
    if report is not None and report.verdict is Verdict.REJECT and found.submission is not None:
        convicted = convicts(job, report, found.submission)
    return AuditOutcome(
        verdict=found.verdict,
        reason=found.reason,
        claim=None if report is None else report.claim,
        convicted=convicted,
    )


def _commits(
    job: DemoJob, coordinator: Coordinator, seats: Sequence[Worker], counter: Counter
) -> Iterator[Progress]:
    """Workers run the job and commit."""
    for worker in seats:
        yield counter.start(f"vote: run {worker.voter.device.name}")
        if not worker.voter.copies:
            worker.run(job, coordinator.state.job)
        for data in worker.commits(seats[0]):
            coordinator.receive(Commit, data)


def _reveals(coordinator: Coordinator, seats: Sequence[Worker], seed: bytes) -> Beacon:
    """Workers reveal, and the beacon's round appears."""
    asked: dict[bytes, bytes] = {
        e.worker: coordinator.order(e) for e in coordinator.take(AskReveal)
    }
    for worker in seats:
        request = asked[worker.identity.id]
        for data in worker.reveals(seats[0], request, coordinator.identity):
            coordinator.receive(Reveal, data)
    if not any(isinstance(effect, AwaitBeacon) for effect in coordinator.todo):
        coordinator.do(Tick(at=coordinator.state.deadline))
    (awaited,) = coordinator.take(AwaitBeacon)
    value = tagged_hash("demo beacon", seed, awaited.round.to_bytes(8, "little"))
    beacon = Beacon(chain=awaited.chain, round=awaited.round, value=value)
    coordinator.do(Drawn(at=BEACON.appears(beacon.round), beacon=beacon))
    return beacon


def _key(job: DemoJob, closed: ClosedLog, beacon: Beacon) -> VerifierKey:
    """The key that anyone can make from the parameters, the closed log and the beacon."""
    drawn = challenge.public(
        closed,
        beacon,
        program=job.program.id,
        policy=job.program.policy.id,
        parameters=job.root,
    )
    return job.program.setup(job.model.params, drawn)


def _audits(
    job: DemoJob,
    key: VerifierKey,
    coordinator: Coordinator,
    workers: dict[bytes, Worker],
    counter: Counter,
) -> Generator[Progress, None, dict[bytes, AuditOutcome]]:
    """Audit every ballot that the protocol asks for; returns what was found, by worker."""
    found: dict[bytes, AuditOutcome] = {}
    message = coordinator.state.job
    auditor = Auditor(
        job=message,
        program=job.program,
        key=key,
        inputs=job.inputs,
        identities=coordinator.identities,
    )
    asked: list[Audit] = coordinator.take(Audit)
    for effect in asked:
        name = effect.commit.message.worker
        worker = workers[name]
        yield counter.start(f"vote: audit {worker.voter.device.name}")
        verdict, convicted = Verdict.INDETERMINATE, False
        if worker.submission is not None:
            upload = worker.hand_in(trace_request(message, effect))
            found[name] = _of_finding(job, auditor.audit(effect, *upload))
            verdict, convicted = found[name].verdict, found[name].convicted
        now = coordinator.state.now
        coordinator.do(Audited(at=now, worker=name, verdict=verdict, convicted=convicted))
    return found


def _outcome(
    worker: Worker,
    effects: Sequence[Effect],
    decision: Decision,
    audited: AuditOutcome | None,
) -> WorkerOutcome:
    name = worker.identity.id
    refusals = (e.reason for e in effects if isinstance(e, Refuse) and e.worker == name)
    reason = "ok"
    if any(isinstance(e, Blame) and e.commit.message.worker == name for e in effects):
        what = "blamed"
    elif audited is not None and audited.verdict is Verdict.REJECT:
        what = "rejected"
    elif any(isinstance(e, Absent) and e.worker == name for e in effects):
        what, reason = "no ballot", next(refusals, "absent")
    else:
        what = "agreed" if name in decision.group else "dissented"
    return WorkerOutcome(
        voter=worker.voter,
        worker=name,
        outcome=what,
        reason=reason if audited is None else audited.reason,
        claim=None if audited is None else audited.claim,
    )
