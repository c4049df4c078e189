"""A coordinator that is right, and the same with one bug each, for tests of `protocols.testing`.

It takes commitments until they are due, then asks for the runs, verifies each under a key of the
job's parameters, pays, and signs at the end what it has decided. `Disk` survives a crash.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any

from protocols.messages import Commit
from protocols.replicated.runs import answer_of
from protocols.testing import CommitSent, CoordinatorAdapter, FleetJob, Ledger, RunSent
from verifiable import challenge
from verifiable.encoding import tagged_hash
from verifiable.key import VerifierKey
from verifiable.report import Verdict
from verifiable.trace import Commitment

Place = tuple[bytes, bytes]


@dataclass
class Disk:
    """What a coordinator keeps."""

    jobs: dict[bytes, FleetJob] = field(default_factory=dict)
    commits: dict[Place, Commit] = field(default_factory=dict)
    closed: set[bytes] = field(default_factory=set)
    judged: dict[Place, Verdict] = field(default_factory=dict)
    signed: dict[bytes, bytes] = field(default_factory=dict)


@functools.cache
def _key(program: Any, root: bytes, params: Any) -> VerifierKey:
    return program.setup(params.tree, challenge.secret(bytes(32)))


class _Params:
    """Parameters, as a key of a cache."""

    def __init__(self, tree: Any):
        self.tree = tree

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


_verdicts: dict[Any, tuple[Verdict, Any]] = {}


class Right(CoordinatorAdapter):
    """The coordinator without a bug, and its own adapter."""

    law = ""

    def __init__(self):
        self.disk = Disk()
        self.paid: list[Place] = []
        self.punished: list[Place] = []
        self.signed: list[tuple[bytes, bytes]] = []
        self.asked: set[Place] = set()

    def ledger(self) -> Ledger:
        return Ledger(
            paid=list(self.paid),
            punished=list(self.punished),
            signed=list(self.signed),
            asked=frozenset(self.asked),
        )

    def restart(self, now: int) -> None:
        """Nothing is kept in memory."""

    def start(self, job: FleetJob, now: int) -> None:
        self.disk.jobs[job.id] = job

    def receive(self, message: CommitSent | RunSent, now: int) -> None:
        self.tick(now)
        job = self.disk.jobs.get(message.job)
        if job is None or not self.seated(job, message.sender):
            return
        if isinstance(message, CommitSent):
            self.commit(job, message, now)
        else:
            self.run(job, message, now)

    def tick(self, now: int) -> None:
        for job in self.disk.jobs.values():
            if now > job.commit_by and job.id not in self.disk.closed:
                self.disk.closed.add(job.id)
                self.asked |= {place for place in self.disk.commits if place[0] == job.id}
            if now > job.ends:
                self.sign(job, now)

    def seated(self, job: FleetJob, sender: bytes) -> bool:
        return sender in job.workers

    def commit(self, job: FleetJob, message: CommitSent, now: int) -> None:
        named = (message.commit.worker, message.commit.job) == (message.sender, job.id)
        if named and job.id not in self.disk.closed:
            self.disk.commits.setdefault((job.id, message.sender), message.commit)

    def run(self, job: FleetJob, message: RunSent, now: int) -> None:
        place = (job.id, message.sender)
        commit = self.disk.commits.get(place)
        if commit is None or self.early(job) or self.late(job, now) or self.again(place):
            return
        if self.bound(job, message) and message.reveal.commitment == commit.commitment:
            self.decide(place, self.verdict(job, message))

    def early(self, job: FleetJob) -> bool:
        return job.id not in self.disk.closed

    def late(self, job: FleetJob, now: int) -> bool:
        return now > job.hand_in_by

    def again(self, place: Place) -> bool:
        return place in self.disk.judged

    def bound(self, job: FleetJob, message: RunSent) -> bool:
        return (message.reveal.worker, message.reveal.job) == (message.sender, job.id)

    def verdict(self, job: FleetJob, message: RunSent) -> Verdict:
        if not self.same_answer(job, message):
            return Verdict.REJECT
        return self.verified(job, message)

    def same_answer(self, job: FleetJob, message: RunSent) -> bool:
        try:
            return answer_of(job.message.answer, message.submission.y) == message.reveal.value
        except TypeError:
            return False

    def verified(self, job: FleetJob, message: RunSent) -> Verdict:
        sent = message.submission
        commitment = self.commitment(message)
        about = (id(sent), job.message.input, self.root(job), commitment.root, commitment.size)
        if about not in _verdicts:  # the same run in many scenarios
            report = job.program.verify(
                _key(job.program, self.root(job), _Params(self.params(job))),
                *job.inputs,
                sent,
                commitment=commitment,
                parameters=self.root(job),
            )
            _verdicts[about] = report.verdict, sent
        return _verdicts[about][0]

    def commitment(self, message: RunSent) -> Commitment:
        return Commitment(root=message.reveal.trace_root, size=message.reveal.trace_size)

    def params(self, job: FleetJob) -> Any:
        return job.params

    def root(self, job: FleetJob) -> bytes:
        return job.parameters

    def decide(self, place: Place, verdict: Verdict) -> None:
        self.disk.judged[place] = verdict
        if verdict is Verdict.ACCEPT:
            self.paid.append(place)
        if verdict is Verdict.REJECT:
            self.punished.append(place)

    def sign(self, job: FleetJob, now: int) -> None:
        if job.id not in self.disk.signed:
            judged, good = self.disk.judged.items(), (job.id, Verdict.ACCEPT)
            paid = sorted(worker for (about, worker), v in judged if (about, v) == good)
            self.disk.signed[job.id] = tagged_hash("decision", now.to_bytes(8), *paid)
            self.signed.append((job.id, self.disk.signed[job.id]))


class ForgetsTheValue(Right):
    """Does not compare the value that it pays for with the answer in the trace."""

    law = "cheat-paid"

    def same_answer(self, job: FleetJob, message: RunSent) -> bool:
        return True


class JudgesBeforeTheLogClosed(Right):
    """Judges what comes before commitments are closed."""

    law = "verdict-before-close"

    def early(self, job: FleetJob) -> bool:
        return False


class AsksBeforeTheLogClosed(Right):
    """Asks for the run of whoever has committed, and takes it, while others may commit."""

    law = "cheat-paid verdict-before-close"

    def early(self, job: FleetJob) -> bool:
        return False

    def commit(self, job: FleetJob, message: CommitSent, now: int) -> None:
        super().commit(job, message, now)
        self.asked |= {place for place in self.disk.commits if place[0] == job.id}


class SignsTwiceAfterACrash(Right):
    """Keeps what it has signed in memory only."""

    law = "signed-twice"

    def restart(self, now: int) -> None:
        self.disk.signed.clear()


class CountsACopy(Right):
    """Does not look whose commitment a run opens."""

    law = "cheat-paid"

    def bound(self, job: FleetJob, message: RunSent) -> bool:
        return message.reveal.job == job.id


class BelievesTheNameInside(Right):
    """Takes a message for that of the worker that it names, whoever sent or signed it."""

    law = "honest-punished honest-unpaid"

    def receive(self, message: CommitSent | RunSent, now: int) -> None:
        named = message.commit if isinstance(message, CommitSent) else message.reveal
        super().receive(replace(message, sender=named.worker), now)


class PaysAnIndeterminate(Right):
    """Pays what is not rejected."""

    law = "cheat-paid"

    def decide(self, place: Place, verdict: Verdict) -> None:
        super().decide(place, verdict)
        if verdict is Verdict.INDETERMINATE:
            self.paid.append(place)


class TreatsMissingAsPass(Right):
    """Pays whoever has committed and was not found out."""

    law = "cheat-paid"

    def sign(self, job: FleetJob, now: int) -> None:
        for place in self.disk.commits:
            if place[0] == job.id and place not in self.disk.judged:
                self.decide(place, Verdict.ACCEPT)
        super().sign(job, now)


class AcceptsALateRun(Right):
    """Does not look at the time."""

    law = "cheat-paid"

    def late(self, job: FleetJob, now: int) -> bool:
        return False


class UsesAStaleKey(Right):
    """Verifies all jobs under the key of the first."""

    law = "honest-punished"

    def _first(self) -> FleetJob:
        return next(iter(self.disk.jobs.values()))

    def params(self, job: FleetJob) -> Any:
        return self._first().params

    def root(self, job: FleetJob) -> bytes:
        return self._first().parameters


class DoesNotBindTheJob(Right):
    """Takes the run of another job of the same worker."""

    law = "cheat-paid"

    def bound(self, job: FleetJob, message: RunSent) -> bool:
        return message.reveal.worker == message.sender


class PaysTwiceOnADuplicate(Right):
    """Takes a run as often as it comes."""

    law = "paid-twice"

    def again(self, place: Place) -> bool:
        return False


class PaysTheUnseated(Right):
    """Takes the run of whoever sends one."""

    law = "cheat-paid"

    def seated(self, job: FleetJob, sender: bytes) -> bool:
        return True


class PunishesTheLate(Right):
    """Takes the stake of whoever has committed and handed nothing in in time."""

    law = "honest-punished"

    def sign(self, job: FleetJob, now: int) -> None:
        if job.id not in self.disk.signed:
            missing = [p for p in self.disk.commits if p[0] == job.id and p not in self.disk.judged]
            self.punished += missing
        super().sign(job, now)


class PunishesAnIndeterminate(Right):
    """Takes the stake of whoever is not accepted."""

    law = "honest-punished"

    def decide(self, place: Place, verdict: Verdict) -> None:
        super().decide(place, verdict)
        if verdict is Verdict.INDETERMINATE:
            self.punished.append(place)


class BelievesTheCommitmentHandedIn(Right):
    """Compares the run with the commitment that came with it, and not with the one before."""

    law = "cheat-paid"

    def commitment(self, message: RunSent) -> Commitment:
        return message.submission.commitment


class PaysForTheAnswer(Right):
    """Pays whoever opens its commitment, and looks at no trace."""

    law = "cheat-paid"

    def verified(self, job: FleetJob, message: RunSent) -> Verdict:
        return Verdict.ACCEPT


class PaysNobody(Right):
    """Accepts nothing."""

    law = "honest-unpaid"

    def decide(self, place: Place, verdict: Verdict) -> None:
        self.disk.judged[place] = verdict


BUGS = (
    ForgetsTheValue,
    JudgesBeforeTheLogClosed,
    AsksBeforeTheLogClosed,
    SignsTwiceAfterACrash,
    CountsACopy,
    BelievesTheNameInside,
    PaysAnIndeterminate,
    TreatsMissingAsPass,
    AcceptsALateRun,
    UsesAStaleKey,
    DoesNotBindTheJob,
    PaysTwiceOnADuplicate,
    PaysTheUnseated,
    PunishesTheLate,
    PunishesAnIndeterminate,
    BelievesTheCommitmentHandedIn,
    PaysForTheAnswer,
    PaysNobody,
)
