"""Every interleaving, duplication, loss and lateness of messages, for up to three workers.

Each worker's job is a machine of its own, but logs and rounds of the beacon are shared, and a log
that holds another answer to the job makes the audit whole. The network holds everything that was
ever sent, messages of other workers, jobs and epochs too, and delivers any of it to any machine,
any number of times or never. Machines share nothing else, so each is explored to the end beside
every behaviour of the others: what the logs hold, and who gave which answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from typing import Any

import pytest

from protocols.audited import (
    AnswerReceipt,
    AskOpening,
    AskTrace,
    AwaitRound,
    DisputeFinding,
    EnterLog,
    EnterTraceLog,
    JobResult,
    JudgeOpening,
    LogClosed,
    OpeningCame,
    OpeningJudged,
    Outcome,
    PartialEffect,
    PartialState,
    ReceiptCame,
    RefuseEvent,
    RoundSeen,
    Stage,
    TraceCame,
    TraceLogClosed,
    TraceReceipt,
    audited,
    job_seed,
    start,
    step,
)
from protocols.events import Tick
from tests.helpers.jobs import CHAIN, ELSEWHERE, JOB, LATER, NOW, PARTIAL, WORKERS, signed
from verifiable.challenge import Beacon, ClosedLog, CommitmentLog
from verifiable.report import Verdict

HONEST, LYING, VANISHING, ABSENT, GARBLED = "honest", "lying", "vanishing", "absent", "garbled"
KINDS = (HONEST, LYING, VANISHING, ABSENT, GARBLED)
TRUTH, LIE = b"\x70" * 32, b"\x71" * 32
SHOWN = {HONEST: Verdict.ACCEPT, LYING: Verdict.REJECT, GARBLED: Verdict.REJECT}
AUDITED: dict[str, set[Outcome]] = {
    HONEST: {Outcome.PASSED},
    LYING: {Outcome.REJECTED},
    GARBLED: {Outcome.REJECTED},
    VANISHING: set(),
}
OPENING, OTHER_OPENING = b"\x0e" * 32, b"\x0f" * 32
RULES = replace(PARTIAL, rate=0.5)


def answer(worker: bytes, kind: str, job: Any = JOB) -> AnswerReceipt:
    said = TRUTH if kind == HONEST else LIE
    return AnswerReceipt(worker=worker, job=job.digest, epoch=job.epoch, answer=said)


def trace(receipt: AnswerReceipt, root: bytes = b"\x09" * 32) -> TraceReceipt:
    return TraceReceipt(
        worker=receipt.worker,
        job=receipt.job,
        epoch=receipt.epoch,
        receipt=receipt.digest,
        trace_root=root,
        trace_size=4,
    )


def closed(entries: list[Any], closed_at: int) -> ClosedLog:
    log = CommitmentLog()
    for entry in entries:
        log.append(entry.digest)
    return log.close(chain="drand", closed_at=closed_at)


@dataclass
class World:
    """What all machines of an epoch share, and what one of them is sent.

    Attributes:
      kinds: behaviour of each worker, of which all but the absent have entered the log.
      value: of both rounds of the beacon.
      disputes: whether the coordinator compares answers.
    """

    kinds: tuple[str, ...]
    value: bytes
    disputes: bool
    outcomes: dict[bytes, set[Outcome]] = field(default_factory=dict)
    drawn: dict[bytes, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.workers = WORKERS[: len(self.kinds)]
        given = zip(self.workers, self.kinds, strict=True)
        self.answers = {w: answer(w, k) for w, k in given if k != ABSENT}
        first = CHAIN.after(NOW) + 5
        self.log = closed([*self.answers.values(), answer(b"\x77" * 32, HONEST)], first)
        self.traces = closed([trace(a) for a in self.answers.values()] or [JOB], first + 20)
        self.rounds = [
            Beacon(chain="drand", round=log.closed_at + 1, value=self.value)
            for log in (self.log, self.traces)
        ]

    def rival(self, own: AnswerReceipt) -> AnswerReceipt | None:
        """Another worker's receipt that disagrees with one, where the coordinator compares."""
        others = [a for w, a in self.answers.items() if w != own.worker] if self.disputes else []
        return next((a for a in others if a.answer != own.answer), None)

    def receipts(self, worker: bytes, kind: str) -> list[AnswerReceipt]:
        """What a worker sends of its answer; a garbled one sends two, of which either may count."""
        if kind == ABSENT:
            return []
        own = self.answers[worker]
        return [own, replace(own, answer=b"\x72" * 32)] if kind == GARBLED else [own]

    def noise(self, worker: bytes) -> Iterator[Any]:
        """What others send into the machine of a worker, all of it to be refused."""
        own = answer(worker, HONEST)
        other = next(
            (a for w, a in self.answers.items() if w != worker), answer(b"\x66" * 32, LYING)
        )
        yield from (
            ReceiptCame(at=0, receipt=signed(a))
            for a in (other, replace(own, job=ELSEWHERE.digest), replace(own, epoch=LATER.epoch))
        )
        yield from (
            TraceCame(at=0, receipt=signed(t))
            for t in (
                trace(other),
                trace(replace(own, job=ELSEWHERE.digest)),
                trace(replace(own, answer=b"\x72" * 32)),
            )
        )
        yield OpeningJudged(at=0, content=bytes(32), verdict=Verdict.ACCEPT, reason="of another")

    def sends(self, kind: str, effect: PartialEffect) -> Iterator[Any]:
        """What comes of an effect."""
        match effect:
            case EnterLog(receipt=receipt):
                rival = self.rival(receipt.message)
                yield LogClosed(at=0, log=self.log, rival=rival and signed(rival))
            case AwaitRound(round=number):
                yield from (RoundSeen(at=0, beacon=b) for b in self.rounds if b.round == number)
            case AskTrace(receipt=receipt):
                if kind != VANISHING:
                    yield TraceCame(at=0, receipt=signed(trace(receipt.message)))
                    yield TraceCame(at=0, receipt=signed(trace(receipt.message, bytes(32))))
            case EnterTraceLog(receipt=receipt):
                yield TraceLogClosed(at=0, log=self.traces)
                yield TraceLogClosed(at=0, log=self.log)
            case AskOpening():
                yield OpeningCame(at=0, content=OPENING)
                if kind == GARBLED:
                    yield OpeningCame(at=0, content=OTHER_OPENING)
            case JudgeOpening(content=content):
                yield OpeningJudged(at=0, content=content, verdict=SHOWN[kind], reason="why")
                yield OpeningJudged(
                    at=0, content=content, verdict=Verdict.INDETERMINATE, reason="vague"
                )
            case _:
                pass


def times(state: PartialState, sent: Any) -> Any:
    """A message as it is delivered: now, or when a round that it needs is there."""
    due = 0
    if isinstance(sent, RoundSeen):
        due = CHAIN.appears(sent.beacon.round)
    return replace(sent, at=max(state.now, due))


def explore(world: World, worker: bytes, kind: str) -> int:
    """Visit every state that the machine of one worker can be in, and what the network holds."""
    state, effects = start(JOB, worker, RULES, now=NOW)
    sent = set(world.noise(worker))
    sent |= {ReceiptCame(at=0, receipt=signed(r)) for r in world.receipts(worker, kind)}
    assert effects == ()
    ends = world.outcomes.setdefault(worker, set())
    names: dict[Any, int] = {(state, frozenset(sent)): 0}
    graph: dict[int, set[int]] = {}
    todo = [(0, state, frozenset(sent))]
    while todo:
        name, state, network = todo.pop()
        successors = graph.setdefault(name, set())
        for event in (*network, Tick(at=state.deadline)):
            given = event if isinstance(event, Tick) else times(state, event)
            after, effects = step(state, given)
            check(world, kind, state, after, effects, ends)
            # A second delivery is refused, and changes nothing.
            again, more = step(after, given)
            assert again == after and all(isinstance(e, RefuseEvent) for e in more)
            came = {x for e in effects for x in world.sends(kind, e)}
            key = (after, network | came)
            number = names.setdefault(key, len(names))
            if number != name:
                if number not in graph and number not in successors:
                    todo.append((number, *key))
                successors.add(number)
        assert state.stage is Stage.ENDED or successors
    tuple(TopologicalSorter(graph).static_order())  # no cycles: every path ends
    return len(graph)


def check(
    world: World,
    kind: str,
    before: PartialState,
    after: PartialState,
    effects: tuple[PartialEffect, ...],
    ends: set[Outcome],
) -> None:
    results = [e for e in effects if isinstance(e, JobResult)]
    assert len(results) == (before.stage is not Stage.ENDED and after.stage is Stage.ENDED)
    if before.stage is Stage.ENDED:
        assert after.result == before.result
        assert all(isinstance(e, RefuseEvent) for e in effects)
    # What counted once counts for ever.
    for name in ("receipt", "log", "trace", "trace_log", "ask", "content"):
        assert getattr(before, name) in (None, getattr(after, name))
    if after.stage is not Stage.ENDED:
        assert after.deadline > after.now
    for result in results:
        outcome = result.outcome
        ends.add(outcome)
        assert not (outcome.paid and outcome.forfeits)
        # Loss alone makes an honest worker silent, which is no proof; it never makes it wrong.
        if outcome is Outcome.REJECTED:
            assert kind in (LYING, GARBLED)
        if outcome is Outcome.PASSED:
            assert kind == HONEST
        if outcome is Outcome.UNAUDITED:
            assert after.rival is None
            seed = job_seed(world.log, world.rounds[0], job=JOB.digest, worker=after.worker)
            assert not audited(seed, RULES.rate)


def expected(world: World, worker: bytes, kind: str) -> set[Outcome]:
    """Every outcome that loss and lateness can bring about for a worker, and no other."""
    found = {Outcome.ABSENT}
    seed = job_seed(world.log, world.rounds[0], job=JOB.digest, worker=worker)
    for receipt in world.receipts(worker, kind):
        found |= {Outcome.UNDECIDED}
        if not audited(seed, RULES.rate) and world.rival(receipt) is None:
            found |= {Outcome.UNAUDITED}
        else:
            found |= {Outcome.SILENT, *AUDITED[kind]}
    return found


SCENARIOS = [
    kinds for size in (1, 2, 3) for kinds in itertools.combinations_with_replacement(KINDS, size)
]


@pytest.mark.parametrize("disputes", [False, True], ids=["apart", "compared"])
def test_every_interleaving_duplication_loss_and_lateness(disputes: bool):
    """Machines that are equal but for the names of their workers are explored once."""
    explored: dict[Any, set[Outcome]] = {}
    for kinds in SCENARIOS:
        world = World(kinds, " ".join(kinds).encode().ljust(32, b"."), disputes)
        for worker, kind in zip(world.workers, kinds, strict=True):
            wanted = expected(world, worker, kind)
            rivals = tuple(world.rival(r) is not None for r in world.receipts(worker, kind))
            same = (kind, rivals, Outcome.UNAUDITED in wanted)
            if same not in explored:
                assert explore(world, worker, kind) >= 2
                explored[same] = world.outcomes[worker]
            world.outcomes[worker] = explored[same]
            assert world.outcomes[worker] == wanted
        if disputes:
            judged(world, kinds)
    found = set[Outcome]().union(*explored.values())
    assert found == set(Outcome)


def judged(world: World, kinds: tuple[str, ...]) -> None:
    """Whatever the outcomes of a dispute, no honest worker is wrong and no liar is right."""
    given = {w: k for w, k in zip(world.workers, kinds, strict=True) if k != ABSENT}
    if len({world.answers[w].answer for w in given}) < 2:
        return
    for outcomes in itertools.product(*(sorted(world.outcomes[w], key=str) for w in given)):
        results = [
            JobResult(worker=w, job=JOB.digest, outcome=o, reason="")
            for w, o in zip(given, outcomes, strict=True)
        ]
        found = DisputeFinding.of(results)
        assert all(given[w] == HONEST for w in found.right)
        assert not any(given[w] == HONEST for w in found.wrong)
        assert sorted((*found.wrong, *found.right, *found.open)) == sorted(given)
