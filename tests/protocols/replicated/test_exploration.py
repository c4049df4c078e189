"""Every interleaving, duplication and loss of messages, to the end.

The network holds every message that was ever sent, and delivers any of them at any time, any number
of times or never.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from graphlib import TopologicalSorter
from typing import Any

import pytest

from protocols.messages import Decision, Reason, Reveal, Signed
from protocols.replicated import (
    AskReveal,
    Audit,
    Audited,
    AwaitBeacon,
    Blame,
    Conclude,
    Dispatch,
    Drawn,
    Effect,
    Event,
    Phase,
    Place,
    Received,
    Refuse,
    State,
    Tick,
    start,
    step,
)
from tests.helpers.jobs import (
    ELSEWHERE,
    JOB,
    LIE,
    NOW,
    SEED,
    TRUTH,
    WORKERS,
    answer,
    rules,
    signed,
)
from verifiable.challenge import Beacon
from verifiable.report import Verdict
from verifiable.voting.quorum import FirstToMatch, FixedSize, QuorumPolicy

HONEST, LYING, SILENT, COPYING = "honest", "lying", "silent", "copying"
# Rejected, and not convicted: a lie within what no judge convicts, and an honest worker whose
# coordinator picks vectors until its run fails.
UNSHOWN, FRAMED = "unshown", "framed"
TRUE, FALSE = frozenset({HONEST, FRAMED}), frozenset({LYING, UNSHOWN})
World = tuple[State, frozenset[Any]]


def key(world: World) -> tuple[Any, ...]:
    state, network = world
    return (
        *(state.phase, state.now, state.deadline, state.seats, len(state.reserve)),
        *(state.requested, state.round, state.beacon, state.decision, network),
    )


def at(now: int, sent: Any) -> Event:
    """A message or an event that the network holds, delivered now."""
    if isinstance(sent, Signed):
        return Received(at=now, message=sent)
    return dataclasses.replace(sent, at=now)


class Model:
    """Workers that answer the coordinator, each by its behaviour.

    If all seats are filled in one round, copycats see every message, reveals too. No protocol can
    stop a worker of a later round from copying an answer that it is shown: with several rounds,
    only the coordinator sees reveals, as the specification requires.
    """

    def __init__(self, behaviours: Sequence[str], policy: QuorumPolicy):
        self.workers = WORKERS[: len(behaviours)]
        self.behaviour = dict(zip(self.workers, behaviours, strict=True))
        self.rules = rules(policy)
        self.leaks = policy.first() == len(behaviours)
        self.liars = sum(kind in FALSE for kind in behaviours)
        self.reasons: set[Reason] = set()
        self.values: set[bytes | None] = set()
        self.blamed: set[bytes] = set()

    def initial(self) -> World:
        state, effects = start(
            JOB,
            self.rules,
            now=NOW,
            workers=self.workers,
            weights=[1] * len(self.workers),
            seed=SEED,
        )
        # Messages of an earlier job are in the network, to be replayed.
        old = {signed(answer(w, job=ELSEWHERE)) for w in self.workers}
        old |= {signed(answer(w, job=ELSEWHERE).commit) for w in self.workers}
        return state, self.react(frozenset(old), effects)

    def react(self, network: frozenset[Any], effects: Iterable[Effect]) -> frozenset[Any]:
        sent = set(network)
        for effect in effects:
            match effect:
                case Dispatch(worker=worker) | AskReveal(worker=worker):
                    kind = self.behaviour[worker]
                    if kind in TRUE | FALSE:
                        reveal = answer(worker, TRUTH if kind in TRUE else LIE)
                        opens = isinstance(effect, AskReveal)
                        sent.add(signed(reveal if opens else reveal.commit))
                case AwaitBeacon(chain=chain, round=number):
                    drawn = Beacon(chain=chain, round=number, value=b"v" * 32)
                    sent.add(Drawn(at=0, beacon=drawn))
                case Audit(reveal=reveal):
                    worker = reveal.message.worker
                    kind = self.behaviour[worker]
                    verdict = Verdict.ACCEPT if kind == HONEST else Verdict.REJECT
                    convicted = kind == LYING
                    sent.add(Audited(at=0, worker=worker, verdict=verdict, convicted=convicted))
                case _:
                    pass
        return frozenset(sent | set(self.copies(sent)))

    def copies(self, sent: set[Any]) -> Iterator[Any]:
        """All messages that a copycat can make of the messages that it has seen."""
        for worker, kind in self.behaviour.items():
            if kind != COPYING:
                continue
            for message in [item.message for item in sent if isinstance(item, Signed)]:
                if message.worker == worker or message.job != JOB.digest:
                    continue
                if isinstance(message, Reveal) and not self.leaks:
                    continue
                taken = dataclasses.replace(message, worker=worker)
                yield signed(taken)
                if isinstance(taken, Reveal):
                    yield signed(taken.commit)

    def check(self, before: State, after: State, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Blame(reveal=reveal):
                    assert self.behaviour[reveal.message.worker] == LYING
                    self.blamed.add(reveal.message.worker)
                case Audit(reveal=reveal):
                    assert self.behaviour[reveal.message.worker] in TRUE | FALSE
                case Conclude(decision=decision, value=value):
                    self.conclude(decision, value)
                case _:
                    pass
        ends = sum(isinstance(effect, Conclude) for effect in effects)
        assert ends == (before.phase is not Phase.ENDED and after.phase is Phase.ENDED)
        if before.phase is Phase.ENDED:
            assert all(isinstance(effect, Refuse) for effect in effects)
            assert after.decision == before.decision
        workers = [seat.worker for seat in after.seats]
        assert len(set(workers)) == len(workers)
        for seat in after.seats:
            if self.behaviour[seat.worker] == HONEST:
                assert seat.place is not Place.VOID
            if seat.reveal is not None:
                assert self.behaviour[seat.worker] in TRUE | FALSE
        if after.phase is not Phase.ENDED:
            assert after.deadline > after.now

    def conclude(self, decision: Decision, value: bytes | None) -> None:
        self.reasons.add(decision.reason)
        self.values.add(value)
        assert Decision.decode(decision.encode()) == decision
        if value is None:
            return
        # A lone liar never wins, whatever is lost, and no worker wins by silence or by copying. (A
        # policy that requests one ballot accepts it.)
        majority = self.rules.policy.first() // 2 + 1
        assert value == TRUTH or (value == LIE and self.liars >= majority)
        speaks = TRUE if value == TRUTH else FALSE
        assert decision.group and all(self.behaviour[w] in speaks for w in decision.group)

    def explore(self) -> int:
        """Visit every reachable world; returns their number."""
        first = self.initial()
        names: dict[tuple[Any, ...], int] = {key(first): 0}
        graph: dict[int, set[int]] = {}
        todo = [(0, first)]
        while todo:
            name, (state, network) = todo.pop()
            successors = graph.setdefault(name, set())
            events = [at(state.now, sent) for sent in network]
            events.append(Tick(at=max(state.deadline, state.now)))
            for event in events:
                after, effects = step(state, event)
                self.check(state, after, effects)
                if isinstance(event, Received):
                    # A second delivery changes nothing.
                    assert step(after, event)[0] == after
                world = (after, self.react(network, effects))
                number = names.setdefault(key(world), len(names))
                if number == name:
                    continue
                if number not in graph and number not in successors:
                    todo.append((number, world))
                successors.add(number)
            # A tick leads on from every world, so no world waits for a message forever.
            assert state.phase is Phase.ENDED or successors
        # Worlds form no cycle: with the line above, every path ends.
        tuple(TopologicalSorter(graph).static_order())
        return len(graph)


KINDS = (HONEST, LYING, SILENT, COPYING)
SCENARIOS = [
    *((FixedSize(bad=0.1, size=1), who) for who in itertools.product(KINDS, repeat=1)),
    *((FixedSize(bad=0.1, size=2), who) for who in itertools.product(KINDS, repeat=2)),
    *(
        (FixedSize(bad=0.1, size=3), who)
        for who in itertools.combinations_with_replacement(KINDS, 3)
    ),
    *((FirstToMatch(bad=0.1, matches=2), who) for who in itertools.product(KINDS, repeat=3)),
]


@pytest.mark.parametrize(
    ("policy", "behaviours"),
    SCENARIOS,
    ids=lambda x: "-".join(x) if isinstance(x, tuple) else type(x).__name__,
)
def test_every_interleaving_duplication_and_loss(policy: QuorumPolicy, behaviours: tuple[str, ...]):
    model = Model(behaviours, policy)
    assert model.explore() >= 2
    # Every outcome that is possible in this scenario is reached.
    truths, lies = behaviours.count(HONEST), behaviours.count(LYING)
    majority = policy.first() // 2 + 1
    assert None in model.values
    assert (TRUTH in model.values) == (truths >= majority or (truths >= 1 and lies >= 1))
    assert (LIE in model.values) == (lies >= majority)
    assert (Reason.AUDITED in model.reasons) == (truths >= 1 and lies >= 1)
    assert bool(model.blamed) == (truths >= 1 and lies >= 1)


REJECTED = [
    who
    for size in (2, 3)
    for who in itertools.combinations_with_replacement((HONEST, LYING, UNSHOWN, FRAMED), size)
    if {UNSHOWN, FRAMED} & {*who}
] + [(UNSHOWN, SILENT, HONEST), (FRAMED, SILENT, LYING), (UNSHOWN, COPYING, HONEST)]


@pytest.mark.parametrize("behaviours", REJECTED, ids="-".join)
def test_a_rejection_without_conviction_never_blames(behaviours: tuple[str, ...]):
    """In no state: `Model.check` allows blame of `LYING` workers only."""
    model = Model(behaviours, FixedSize(bad=0.1, size=len(behaviours)))
    assert model.explore() >= 2
    # Everything else is as if the rejected had been convicted.
    truths, lies = (sum(kind in said for kind in behaviours) for said in (TRUE, FALSE))
    audited, majority = HONEST in behaviours and lies >= 1, len(behaviours) // 2 + 1
    assert bool(model.blamed) == (LYING in behaviours and truths >= 1)
    assert (Reason.AUDITED in model.reasons) == audited
    assert (TRUTH in model.values) == (audited or truths >= majority)
    assert (LIE in model.values) == (lies >= majority)
