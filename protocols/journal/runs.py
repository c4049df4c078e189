"""A protocol's state that survives its process: the fold of its recorded events.

    recorded, begun = Recorded.begin(journal, REPLICATED, name, start(...), rules)
    recorded.feed(event).result()      tasks, once the event is durable
    recorded.done(task)                carried out: it is not handed out again
    Recorded.resume(journal, REPLICATED, name, rules).pending      what is left after a restart

An event that changes the state is recorded before anybody learns of it: `feed` moves the state at
once, and hands out effects and refusals when the entry is durable. So the state after a restart is
the one that the process had when it acknowledged its last event, or a later one. An event that
changes nothing but the clock is not recorded, so devices cannot fill the disk with refused
messages.

An effect becomes a *task*. It is handed out once by each process until it is confirmed with `done`,
always under the same id, a hash of its place in the journal. Nobody can do better: a process may be
killed after it has sent a message and before it has written so. The receiver makes it exactly once:
a worker's answer to the same order is the same; a commitment log takes a digest once; a ledger of
payments must take each id once. Only the first verdict of an audit is recorded, and the state
refuses others.

A snapshot saves time and decides nothing: it holds the link of the last event in it, which commits
to all events before, and the others are folded onto it. `resume` with `verify=True` folds all of
them and compares.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar, cast

from protocols.journal.errors import JournalCorrupt, JournalForeign
from protocols.journal.log import Journal, after, entry_of, reading
from protocols.journal.machines import Machine, describe
from protocols.journal.store import MAX_BODY, MAX_STREAM, NO_LINK
from verifiable import encoding
from verifiable.encoding import tagged_hash
from verifiable.errors import MalformedEncoding

S = TypeVar("S")
E = TypeVar("E")
F = TypeVar("F")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Generic[F]):
    """An effect to be carried out.

    Attributes:
      id: 32 bytes, the same in every process; None if it needs no confirmation.
      effect: the effect.
    """

    id: bytes | None
    effect: F


class Recorded(Generic[S, E, F]):
    """One job, or one epoch, of a protocol, with its record. Any thread may call it.

    Attributes:
      stream: name of its stream.
      state: its state, events included that are not durable yet.
    """

    def __init__(self, journal: Journal, machine: Machine[S, E, F], name: str, given: Any):
        """Callers use `begin` or `resume`."""
        self.stream, self._journal, self._machine = f"{machine.name}/{name}", journal, machine
        if not name or len(self._snapshots) > MAX_STREAM:
            raise ValueError(f"the name of a job or epoch is empty or too long: {name!r}")
        self._given = {} if machine.given is None else {machine.given: given}
        self._pending: dict[tuple[int, int], F] = {}
        self._number = 0
        self._durable: Future[Any] = Future()
        self._durable.set_result(None)
        self._turn = threading.Lock()
        self.state: S

    @classmethod
    def begin(
        cls,
        journal: Journal,
        machine: Machine[S, E, F],
        name: str,
        transition: tuple[S, tuple[F, ...]],
        given: Any = None,
    ) -> tuple[Self, Future[tuple[Task[F], ...]]]:
        """Record the first state.

        Args:
          journal: where.
          machine: the protocol.
          name: of the job or epoch, unique for ever, such as a digest in hexadecimal.
          transition: first state and effects, as `start` returns them.
          given: of the type that the machine names.

        Returns:
          The record, and a future of the first tasks, which raises `AlreadyRecorded` if the name
          was used before.

        Raises:
          AlreadyRecorded: the name is in use.
          ValueError: the state holds other rules than those given, or the name is too long.
        """
        self = cls(journal, machine, name, given)
        self.state, effects = transition
        wire = machine.codec["state"].wire(self.state)
        if machine.codec["state"].value(wire, self._given) != self.state:
            raise ValueError("the first state holds other rules than those given")
        body = [
            *self._header(),
            wire,
            [machine.codec["effect"].wire(effect) for effect in effects],
        ]
        with self._turn:
            return self, self._write(body, self._enter(effects), begin=True)

    @classmethod
    def resume(
        cls,
        journal: Journal,
        machine: Machine[S, E, F],
        name: str,
        given: Any = None,
        *,
        verify: bool = False,
    ) -> Self:
        """Go on where an earlier process was; `pending` has what it did not confirm.

        Args:
          journal: where it was recorded.
          machine: the protocol.
          name: of the job or epoch.
          given: of the type that the machine names.
          verify: whether to fold all events although there is a snapshot, and compare.

        Raises:
          JournalForeign: recorded by another version of the protocol, or with other rules.
          JournalCorrupt: the record is damaged, or a snapshot is not the fold of its events.
          NotRecorded: no job or epoch of this name was begun in this journal.
        """
        self = cls(journal, machine, name, given)
        saved = journal.head(self._snapshots)
        expected = NO_LINK
        if saved is not None:
            _, [newest] = journal.read(self._snapshots, saved.length - 1)
            expected = self._load(newest)
        link, bodies = journal.read(self.stream, self._number)
        if link != expected:
            raise JournalCorrupt(f"the snapshot of {self.stream} is of other events")
        if verify and saved is not None:
            whole = cls(journal, machine, name, given)
            whole._fold(journal.read(self.stream)[1][: self._number])
            if whole._picture(link) != self._picture(link):
                raise JournalCorrupt(f"the snapshot of {self.stream} is not the fold of its events")
        self._fold(bodies)
        return self

    @property
    def recorded(self) -> int:
        """Number of its entries, those included that are not durable yet."""
        return self._number

    @property
    def pending(self) -> tuple[Task[F], ...]:
        """Tasks that are not confirmed, in order. After a restart, carry them out."""
        with self._turn:
            return tuple(self._task(*place, effect) for place, effect in self._pending.items())

    def feed(self, event: E) -> Future[tuple[Task[F], ...]]:
        """Take an event.

        Returns:
          A future of the effects in order, done when the event is durable. Acknowledge the event
          then, and not before. A refusal waits for the events that it rests on.

        Raises:
          JournalClosed: the journal is closed or failed; the event is not taken.
          JournalBusy: another object in this process records the same job.
          TypeError: not an event of the protocol.
        """
        with self._turn:
            body = ["event", self._machine.codec["event"].wire(event)]
            state, effects = self._machine.step(self.state, event)
            tasks = [e for e in effects if not isinstance(e, self._machine.silent)]
            before, later = cast("Any", self.state), cast("Any", state)
            if not tasks and replace(later, now=before.now) == before:
                return after(self._durable, tuple(Task(id=None, effect=e) for e in effects))
            with self._all_or_nothing():
                self.state = state
                return self._write(body, self._enter(effects))

    def done(self, task: Task[F]) -> Future[None]:
        """Confirm that a task was carried out. Confirming it again does nothing.

        The future need not be waited for: a confirmation that is lost only hands the task out
        again, under the same id.
        """
        with self._turn:
            for place, effect in self._pending.items():
                if self._task(*place, effect).id == task.id:
                    with self._all_or_nothing():
                        del self._pending[place]
                        return self._write(["done", *place], None)
            return after(self._durable, None)

    def snapshot(self) -> Future[None]:
        """Record the state, so that `resume` folds only what comes after.

        Does nothing if the stream has ended, or if the state is larger than an entry may be.
        """
        with self._turn:
            head = self._journal.head(self.stream)
            if head is None:
                return after(self._durable, None)
            body = encoding.encode(self._picture(head.link))
            if len(body) > MAX_BODY:
                return after(self._durable, None)
            begin = self._journal.head(self._snapshots) is None
            return self._journal.submit(self._snapshots, [body], begin=begin)

    @property
    def _snapshots(self) -> str:
        return f"snapshot/{self.stream}"

    def _header(self) -> list[Any]:
        machine = self._machine
        given = b"" if machine.given is None else describe(self._given[machine.given])
        return ["begin", machine.name, machine.version, machine.fingerprint, given]

    def _task(self, number: int, index: int, effect: F) -> Task[F]:
        place = encoding.encode([self.stream, number, index])
        return Task(id=tagged_hash("journal task", self._journal.id, place), effect=effect)

    def _enter(self, effects: tuple[F, ...]) -> tuple[Task[F], ...]:
        """Make tasks of the effects of the entry that comes next."""
        tasks: list[Task[F]] = []
        for index, effect in enumerate(effects):
            if isinstance(effect, self._machine.silent):
                tasks.append(Task(id=None, effect=effect))
            else:
                self._pending[self._number, index] = effect
                tasks.append(self._task(self._number, index, effect))
        return tuple(tasks)

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Generator[None, None, None]:
        """Take back what is changed for an entry that cannot be written."""
        state, pending = self.state, dict(self._pending)
        try:
            yield
        except BaseException:
            self.state, self._pending = state, pending
            raise

    def _write(self, body: list[Any], result: Any, *, begin: bool = False) -> Future[Any]:
        """Record an entry; it is the last if the state is final and nothing is pending."""
        last = self._machine.ended(self.state) and not self._pending
        future = self._journal.submit(
            self.stream,
            [encoding.encode(body)],
            begin=begin,
            last=last,
            at=self._number,
            result=result,
        )
        self._number, self._durable = self._number + 1, future
        if last and self._journal.head(self._snapshots) is not None:
            self._journal.submit(self._snapshots, [encoding.encode(["ended"])], last=True)
        return future

    def _picture(self, link: bytes) -> list[Any]:
        """The plain form of a snapshot: of the events up to the one with this link."""
        codec = self._machine.codec
        tasks = [[*place, codec["effect"].wire(e)] for place, e in self._pending.items()]
        state = codec["state"].wire(self.state)
        return ["snapshot", *self._header()[1:], self._number, link, state, tasks]

    def _load(self, body: bytes) -> bytes:
        """Take over a snapshot, and return the link of its last event."""
        codec = self._machine.codec
        wire = entry_of(self._snapshots, body)
        with reading(f"the snapshot of {self.stream}"):
            match wire:
                case ["snapshot", *made_by, int(number), bytes(link), state, list(tasks)] if (
                    number > 0
                ):
                    self._require_same(made_by)
                    self._number = number
                    self.state = codec["state"].value(state, self._given)
                    self._pending = {
                        (int(n), int(i)): codec["effect"].value(effect, self._given)
                        for n, i, effect in tasks
                    }
                    return link
                case _:
                    raise MalformedEncoding("expected a snapshot")

    def _fold(self, bodies: Sequence[bytes]) -> None:
        """Take over entries, from the next on."""
        for body in bodies:
            with reading(f"entry {self._number} of {self.stream}"):
                self._replay(entry_of(self.stream, body))
            self._number += 1

    def _replay(self, wire: Any) -> None:
        """Take over one entry."""
        codec = self._machine.codec
        match wire:
            case ["begin", *made_by, state, list(effects)] if self._number == 0:
                self._require_same(made_by)
                self.state = codec["state"].value(state, self._given)
                self._enter(tuple(codec["effect"].value(e, self._given) for e in effects))
            case ["event", event] if self._number:
                event = codec["event"].value(event, self._given)
                self.state, effects = self._machine.step(self.state, event)
                self._enter(effects)
            case ["done", int(number), int(index)] if (number, index) in self._pending:
                del self._pending[number, index]
            case _:
                raise MalformedEncoding("expected a beginning, an event or a confirmation")

    def _require_same(self, made_by: list[Any]) -> None:
        """Require the protocol, version, types and rules that began the stream."""
        names = ("protocol", "version of the protocol", "types of its values", "rules")
        for name, mine, theirs in zip(names, self._header()[1:], made_by, strict=True):
            if mine != theirs:
                shown = [x.hex() if isinstance(x, bytes) else x for x in (theirs, mine)]
                raise JournalForeign(
                    f"{self.stream} was recorded with another {name}: {shown[0]}, and this is "
                    f"{shown[1]}; finish it with the release and the rules that began it"
                )
