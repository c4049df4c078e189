"""A coordinator that is killed anywhere goes on where it was."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from protocols.journal import (
    REPLICATED,
    AlreadyRecorded,
    Journal,
    JournalBusy,
    JournalClosed,
    JournalCorrupt,
    JournalForeign,
    JournalFull,
    Machine,
    NotRecorded,
    Recorded,
    runs,
)
from protocols.journal.machines import describe
from protocols.replicated import (
    Audited,
    Conclude,
    Drawn,
    Event,
    Phase,
    Received,
    Refuse,
    Tick,
    start,
    step,
)
from tests.helpers.jobs import (
    ADAPTIVE,
    JOB,
    LIE,
    NOW,
    SEED,
    TOLERANCE,
    TRUTH,
    WORKERS,
    answer,
    beacon,
    metric,
    rules,
    signed,
)
from tests.helpers.journals import FailingStore, MemoryStore
from verifiable import encoding
from verifiable.challenge import Beacon
from verifiable.encoding import tagged_hash
from verifiable.report import Verdict
from verifiable.voting.quorum import FixedSize

RULES = rules(FixedSize(bad=0.1, size=3))
NAME = JOB.digest.hex()
STREAM = f"replicated/{NAME}"

EVENTS: list[Callable[[Any], Event]] = [
    *(
        (lambda state, m=message: Received(at=state.now, message=signed(m)))
        for worker, value in itertools.product(WORKERS[:3], (TRUTH, LIE))
        for message in (answer(worker, value).commit, answer(worker, value))
    ),
    lambda state: Tick(at=state.deadline),
    lambda state: Tick(at=state.now + 1),
    lambda state: Drawn(
        at=state.now, beacon=Beacon(chain="drand", round=state.round or 1, value=b"v" * 32)
    ),
    *(
        (lambda state, w=worker, v=verdict: Audited(at=state.now, worker=w, verdict=v))
        for worker, verdict in itertools.product(WORKERS[:3], Verdict)
    ),
]


def first() -> Any:
    return start(JOB, RULES, now=NOW, workers=WORKERS[:3], weights=[1, 1, 1], seed=SEED)


def begin(store: Any, name: str = NAME) -> tuple[Journal, Recorded[Any, Any, Any]]:
    journal = Journal(store)
    recorded, begun = Recorded.begin(journal, REPLICATED, name, first(), RULES)
    begun.result()
    return journal, recorded


def decided(store: Any) -> tuple[Journal, Recorded[Any, Any, Any]]:
    """A job that has ended, whose tasks nobody has confirmed."""
    journal, recorded = begin(store)
    for worker in WORKERS[:3]:
        recorded.feed(Received(at=NOW, message=signed(answer(worker).commit)))
    for worker in WORKERS[:3]:
        recorded.feed(Received(at=NOW, message=signed(answer(worker))))
    recorded.feed(Drawn(at=NOW, beacon=beacon(recorded.state))).result()
    assert recorded.state.phase is Phase.ENDED
    return journal, recorded


def test_effects_that_need_no_confirmation_are_handed_out_in_their_places():
    state, effects = first()
    refused = Refuse(worker=WORKERS[0], reason="duplicate")
    mixed = (refused, *effects, refused)
    with Journal(MemoryStore()) as journal:
        recorded, begun = Recorded.begin(journal, REPLICATED, NAME, (state, mixed), RULES)
        tasks = begun.result()
        assert tuple(task.effect for task in tasks) == mixed
        assert [task.id is None for task in tasks] == [e is refused for e in mixed]
        assert tuple(task.effect for task in recorded.pending) == effects


class Crashes(RuleBasedStateMachine):
    """Events, confirmations and snapshots, with a crash before or after any write."""

    @initialize()
    def begin(self) -> None:
        self.store = FailingStore()
        self.journal, self.recorded = begin(self.store)
        self.ids = {task.id: task.effect for task in self.recorded.pending}
        self.tried, self.confirmed = set[bytes](), set[bytes]()
        self.fold()

    def fold(self) -> None:
        """The model: what the events that are recorded give."""
        self.state, effects = first()
        wanted = dict.fromkeys(effects)
        for body in self.journal.read(STREAM)[1]:
            kind, *rest = encoding.decode(body, max_size=len(body), max_items=10_000)
            if kind == "event":
                self.state, effects = step(self.state, REPLICATED.codec["event"].value(rest[0]))
                wanted |= dict.fromkeys(e for e in effects if type(e) not in REPLICATED.silent)
        self.wanted = wanted

    @rule(pick=st.integers(0, len(EVENTS) - 1))
    def feed(self, pick: int) -> None:
        self.tell(lambda: self.recorded.feed(EVENTS[pick](self.recorded.state)))

    @rule(picks=st.lists(st.integers(0, len(EVENTS) - 1), min_size=2, max_size=4))
    def feed_without_waiting(self, picks: list[int]) -> None:
        def several() -> Any:
            for pick in picks[:-1]:
                self.recorded.feed(EVENTS[pick](self.recorded.state))
            return self.recorded.feed(EVENTS[picks[-1]](self.recorded.state))

        self.tell(several)

    @precondition(lambda self: self.recorded.pending)
    @rule(pick=st.integers(0, 9))
    def confirm(self, pick: int) -> None:
        pending = self.recorded.pending
        task = pending[pick % len(pending)]
        self.tried.add(task.id)
        if self.tell(lambda: self.recorded.done(task)):
            self.confirmed.add(task.id)

    @rule()
    def snapshot(self) -> None:
        self.tell(self.recorded.snapshot)

    @rule(after=st.integers(0, 2), stored=st.booleans())
    def crash_soon(self, after: int, stored: bool) -> None:
        self.store.fail_in, self.store.stored = after, stored

    @rule(verify=st.booleans())
    def restart(self, verify: bool = False) -> None:
        self.store.fail_in = None
        self.journal.close()
        self.journal = Journal(self.store)
        self.recorded = Recorded.resume(self.journal, REPLICATED, NAME, RULES, verify=verify)

    def tell(self, act: Callable[[], Any]) -> bool:
        """Do something; what it acknowledges must survive, whatever happens then."""
        try:
            tasks = act().result()
        except (JournalFull, JournalClosed):
            self.restart()
            return False
        else:
            if isinstance(tasks, tuple):
                acknowledged = self.recorded.state
                for task in tasks:
                    # A task of one id is one effect, in every process.
                    assert (
                        task.id is None or self.ids.setdefault(task.id, task.effect) == task.effect
                    )
                self.restart(verify=True)
                assert self.recorded.state == acknowledged
            return True
        finally:
            self.fold()

    @invariant()
    def equals_the_model(self) -> None:
        assert self.recorded.state == self.state
        pending = {task.id: task.effect for task in self.recorded.pending}
        assert set(pending.values()) <= set(self.wanted)
        assert self.confirmed.isdisjoint(pending)
        for id, effect in pending.items():
            assert self.ids.setdefault(id, effect) == effect
        left = {id for id, effect in self.ids.items() if effect in self.wanted}
        assert left - self.tried <= set(pending)

    def teardown(self) -> None:
        self.journal.close()


def test_a_crash_anywhere_loses_and_doubles_nothing():
    run_state_machine_as_test(
        Crashes, settings=settings(max_examples=20, stateful_step_count=15, deadline=None)
    )


def test_effects_wait_until_their_event_is_durable():
    store = FailingStore()
    journal, recorded = begin(store)
    store.fail_in = 0
    taken = recorded.feed(Received(at=NOW, message=signed(answer(WORKERS[0]).commit)))
    # The second copy is refused as a duplicate: a worker would take that as a receipt of the first.
    again = recorded.feed(Received(at=NOW, message=signed(answer(WORKERS[0]).commit)))
    for future in (taken, again):
        with pytest.raises(JournalFull):
            future.result()
    journal.close()


def test_two_objects_never_record_one_job():
    journal, recorded = begin(MemoryStore())
    other = Recorded.resume(journal, REPLICATED, NAME, RULES)
    recorded.feed(Tick(at=recorded.state.deadline)).result()
    before = other.state
    with pytest.raises(JournalBusy):
        other.feed(Received(at=NOW, message=signed(answer(WORKERS[0]).commit)))
    assert other.state == before
    assert other.pending
    journal.close()


def test_what_is_no_event_changes_nothing():
    journal, recorded = begin(MemoryStore())
    with pytest.raises(TypeError):
        recorded.feed(RULES)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="other rules"):
        Recorded.begin(journal, REPLICATED, "x", first(), rules(ADAPTIVE))
    assert recorded.state == first()[0]
    journal.close()


def test_a_state_that_is_too_large_has_no_snapshot():
    """Workers choose the size of their answers: that must not raise."""
    store = MemoryStore()
    journal, recorded = begin(store)
    values = {w: bytes([i]) * 1_000_000 for i, w in enumerate(WORKERS[:3])}
    for worker, value in values.items():
        recorded.feed(Received(at=NOW, message=signed(answer(worker, value).commit)))
    for worker, value in values.items():
        recorded.feed(Received(at=NOW, message=signed(answer(worker, value))))
    recorded.snapshot().result()
    assert f"snapshot/{STREAM}" not in store.entries
    assert Recorded.resume(journal, REPLICATED, NAME, RULES).state == recorded.state
    journal.close()


def test_a_state_of_just_the_largest_size_has_a_snapshot(monkeypatch: pytest.MonkeyPatch):
    store = MemoryStore()
    journal, recorded = begin(store)
    snapshots = f"snapshot/{STREAM}"
    recorded.snapshot().result()
    [first] = store.entries[snapshots]
    for most, count in ((len(first.body) - 1, 1), (len(first.body), 2)):
        monkeypatch.setattr(runs, "MAX_BODY", most)
        recorded.snapshot().result()
        assert len(store.entries[snapshots]) == count
    journal.close()


def test_refused_messages_fill_no_disk():
    store = MemoryStore()
    journal, recorded = begin(store)
    before = recorded.state
    for _ in range(50):
        (task,) = recorded.feed(Received(at=NOW + 1, message=signed(answer(WORKERS[0])))).result()
        assert isinstance(task.effect, Refuse)
        assert task.id is None
    assert len(store.entries[STREAM]) == 1
    assert recorded.state == before
    journal.close()


def test_a_stream_ends_with_its_last_task_and_is_not_begun_again():
    store = MemoryStore()
    journal, recorded = decided(store)
    recorded.snapshot().result()
    assert journal.streams() == [STREAM, f"snapshot/{STREAM}"]
    (conclude,) = [t for t in recorded.pending if isinstance(t.effect, Conclude)]
    for task in recorded.pending:
        recorded.done(task)
        recorded.done(task)
    journal.flush()
    assert journal.streams() == []
    assert recorded.done(conclude).result() is None
    assert recorded.snapshot().result() is None
    assert journal.streams() == []
    journal.close()
    with Journal(store) as journal:
        again, begun = Recorded.begin(journal, REPLICATED, NAME, first(), RULES)
        with pytest.raises(AlreadyRecorded):
            begun.result()
        again = Recorded.resume(journal, REPLICATED, NAME, RULES)
        assert (again.state, again.pending) == (recorded.state, ())
        assert again.feed(Tick(at=NOW + 10**6)).result() == ()


def test_ids_of_tasks_are_those_of_the_specification():
    journal, recorded = begin(MemoryStore())
    commit = Received(at=NOW, message=signed(answer(WORKERS[0]).commit))
    handed_out = recorded.feed(commit).result()
    assert handed_out
    assert set(handed_out) <= set(recorded.pending)
    assert [task.id for task in handed_out] == [
        tagged_hash("journal task", journal.id, encoding.encode([STREAM, 1, index]))
        for index in range(len(handed_out))
    ]
    journal.close()
    journal, recorded = decided(MemoryStore())
    found = {task.id for task in recorded.pending}
    assert found
    assert found <= {
        tagged_hash("journal task", journal.id, encoding.encode([STREAM, number, index]))
        for number in range(16)
        for index in range(16)
    }
    journal.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Empty:
    """A state or event of a protocol that records nothing else."""

    now: int = 0


def _machine(**change: Any) -> Any:
    return replace(REPLICATED, **change)


FOREIGN: dict[str, tuple[Any, Any, str]] = {
    "another version": (_machine(version=2), RULES, "version of the protocol: 1, and this is 2;"),
    "another policy": (REPLICATED, rules(FixedSize(bad=0.2, size=3)), "rules"),
    "another deadline": (REPLICATED, rules(FixedSize(bad=0.1, size=3), audit_seconds=9), "rules"),
    "another decoder": (REPLICATED, metric(3), "rules"),
    "other types": (
        _machine(codec={**REPLICATED.codec, "effect": REPLICATED.codec["event"]}),
        RULES,
        "types",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
@pytest.mark.parametrize("snapshot", [False, True])
def test_a_stream_is_folded_by_what_began_it(case: str, snapshot: bool):
    store = MemoryStore()
    machine, given, named = FOREIGN[case]
    journal, recorded = decided(store)
    if snapshot:
        recorded.snapshot()
    with pytest.raises(JournalForeign, match=named):
        Recorded.resume(journal, machine, NAME, given)
    journal.close()


class Plain:
    """Rules that are no dataclass."""

    def __init__(self, size: int):
        self.size = size

    def decides(self) -> int:
        return self.size


def test_rules_are_described_by_all_that_they_hold():
    made: list[Any] = [
        RULES,
        rules(ADAPTIVE),
        metric(3),
        rules(FixedSize(bad=0.1, size=3), agreement=TOLERANCE),
        *(1, "1", 1.0, True, b"1", None, (1,), [1], {1: 2}, {2: 1}, frozenset({1}), 2**70),
        *(Verdict.ACCEPT, Verdict.REJECT, Plain(1), Plain(2), Plain(1).decides, Plain(2).decides),
        *(functools.partial(rules, 1), functools.partial(rules, 2), rules, metric, Plain),
    ]
    assert len({describe(each) for each in made}) == len(made)
    assert describe(rules(FixedSize(bad=0.1, size=3))) == describe(RULES)
    assert describe({1: 2, 3: 4}) == describe({3: 4, 1: 2})


def test_a_snapshot_saves_the_events_before_it():
    """They are neither read nor verified, unless that is asked for."""
    store = MemoryStore()
    journal, recorded = begin(store)
    recorded.snapshot().result()
    recorded.feed(Received(at=NOW, message=signed(answer(WORKERS[0]).commit))).result()
    journal.close()
    store.entries[STREAM][0] = replace(store.entries[STREAM][0], body=b"damaged")
    with Journal(store) as journal:
        again = Recorded.resume(journal, REPLICATED, NAME, RULES)
        assert (again.state, again.pending) == (recorded.state, recorded.pending)
        with pytest.raises(JournalCorrupt, match="entry 0"):
            Recorded.resume(journal, REPLICATED, NAME, RULES, verify=True)


FORGED: dict[str, tuple[slice | int, Any]] = {
    "of no event": (slice(5, 7), [0, bytes(32)]),
    "of fewer than none": (5, -1),
    "of more events than there are": (5, 99),
    "of a number that is none": (5, "1"),
    "of other events": (6, bytes(32)),
    "no state": (-2, []),
    "no tasks": (-1, None),
    "a task that is none": (-1, [1]),
    "a task without an effect": (-1, [[0, 0]]),
    "a task of another kind": (-1, [[0, 0, ["Unheard"]]]),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_snapshot_that_means_nothing_is_refused(case: str):
    journal, recorded = begin(MemoryStore())
    head = journal.head(STREAM)
    assert head is not None
    picture = recorded._picture(head.link)
    place, value = FORGED[case]
    picture[place] = value
    journal.submit(f"snapshot/{STREAM}", [encoding.encode(picture)], begin=True).result()
    with pytest.raises(JournalCorrupt, match=STREAM):
        Recorded.resume(journal, REPLICATED, NAME, RULES)
    journal.close()


def test_a_beginning_that_does_not_say_by_what_is_refused():
    """Of a stream, and of a snapshot: one field less, and one more."""
    journal, recorded = begin(MemoryStore())
    head = journal.head(STREAM)
    assert head is not None
    begun = encoding.decode(journal.read(STREAM)[1][0], max_size=1 << 20)
    for number, change in enumerate((lambda w: w.pop(4), lambda w: w.insert(5, b""))):
        wire, picture = list(begun), recorded._picture(head.link)
        change(wire)
        change(picture)
        name = f"x{number}"
        stream = f"replicated/{name}"
        journal.submit(stream, [encoding.encode(wire)], begin=True).result()
        with pytest.raises(JournalCorrupt, match=f"entry 0 of {stream}"):
            Recorded.resume(journal, REPLICATED, name, RULES)
        journal.submit(f"snapshot/{stream}", [encoding.encode(picture)], begin=True).result()
        with pytest.raises(JournalCorrupt, match=f"the snapshot of {stream}"):
            Recorded.resume(journal, REPLICATED, name, RULES)
    journal.close()


def test_a_stream_begins_with_its_beginning():
    """And has no other, nor a confirmation of what was not asked for."""
    journal, _ = begin(MemoryStore())
    [begun] = journal.read(STREAM)[1]
    event = encoding.encode(["event", REPLICATED.codec["event"].wire(Tick(at=NOW))])
    for number, bodies in enumerate(([event], [event, begun], [begun, begun], [begun, event])):
        name = f"x{number}"
        journal.submit(f"replicated/{name}", bodies, begin=True).result()
        if number == 3:
            assert Recorded.resume(journal, REPLICATED, name, RULES).recorded == 2
            continue
        with pytest.raises(JournalCorrupt, match=f"entry {number // 2} of replicated/{name}"):
            Recorded.resume(journal, REPLICATED, name, RULES)
    journal.close()


def test_a_snapshot_that_is_not_its_events_is_refused():
    store = MemoryStore()
    journal, recorded = decided(store)
    # A bug, or a hand at the file: the state of a job that nobody has answered.
    other, _ = Recorded.begin(journal, REPLICATED, "other", first(), RULES)
    head = journal.head(STREAM)
    assert head is not None
    picture, forged = recorded._picture(head.link), other._picture(head.link)
    picture[-2] = forged[-2]
    journal.submit(f"snapshot/{STREAM}", [encoding.encode(picture)], begin=True).result()
    with pytest.raises(JournalCorrupt, match="not the fold"):
        Recorded.resume(journal, REPLICATED, NAME, RULES, verify=True)
    picture[-3] = bytes(32)
    journal.submit(f"snapshot/{STREAM}", [encoding.encode(picture)]).result()
    with pytest.raises(JournalCorrupt, match="other events"):
        Recorded.resume(journal, REPLICATED, NAME, RULES)
    picture[0] = "event"
    journal.submit(f"snapshot/{STREAM}", [encoding.encode(picture)]).result()
    with pytest.raises(JournalCorrupt, match="expected a snapshot"):
        Recorded.resume(journal, REPLICATED, NAME, RULES)
    journal.close()


def test_what_cannot_be_written_changes_nothing():
    store = MemoryStore()
    journal, recorded = decided(store)
    state, pending = recorded.state, recorded.pending
    assert pending
    assert recorded.recorded == len(store.entries[STREAM]) > 7
    journal.close()
    for task in pending:
        with pytest.raises(JournalClosed):
            recorded.done(task)
        assert (recorded.state, recorded.pending) == (state, pending)
    assert recorded.recorded == len(store.entries[STREAM])
    journal, recorded = begin(MemoryStore())
    state, pending = recorded.state, recorded.pending
    journal.close()
    with pytest.raises(JournalClosed):
        recorded.feed(Received(at=NOW, message=signed(answer(WORKERS[0]).commit)))
    assert (recorded.state, recorded.pending) == (state, pending)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"\x80",
        b"\x82\x65event\x80",
        b"\x81\x65other",
        b"\x83\x64done\x00\x18\x00",
        b"\x83\x64done\x18\x63\x00",
    ],
)
def test_an_entry_that_means_nothing_is_refused(body: bytes):
    store = MemoryStore()
    journal, _ = begin(store)
    journal.submit(STREAM, [body])
    with pytest.raises(JournalCorrupt, match=STREAM):
        Recorded.resume(journal, REPLICATED, NAME, RULES)
    journal.close()


@pytest.mark.parametrize("name", ["", "keys", "signed", "snapshot", "Upper", "two words", "a/b"])
def test_no_protocol_is_named_as_another_stream(name: str):
    with pytest.raises(ValueError, match="cannot name"):
        Machine.of(name, 1, step, event=Empty, state=Empty, effect=Empty, ended=bool)


@pytest.mark.parametrize("name", ["", "x" * 181])
def test_names_of_jobs_leave_room_for_their_snapshots(name: str):
    with Journal(MemoryStore()) as journal:
        with pytest.raises(ValueError, match="too long"):
            Recorded.begin(journal, REPLICATED, name, first(), RULES)
        recorded, _ = Recorded.begin(journal, REPLICATED, "x" * 180, first(), RULES)
        recorded.snapshot().result()


def test_another_protocol_is_a_line():
    counted = Machine.of(
        "counted",
        1,
        lambda state, event: (replace(state, now=event.now), ()),
        event=Empty,
        state=Empty,
        effect=Empty,
        ended=lambda state: state.now > 9,
    )
    with Journal(MemoryStore()) as journal:
        recorded, _ = Recorded.begin(journal, counted, "x", (Empty(), (Empty(now=5),)))
        assert [task.effect for task in recorded.pending] == [Empty(now=5)]
        assert Recorded.resume(journal, counted, "x").pending == recorded.pending
        with pytest.raises(NotRecorded, match=r"no stream 'counted/y' in this journal: .* begun"):
            Recorded.resume(journal, counted, "y")
