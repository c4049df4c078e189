"""A coordinator that is killed with SIGKILL at random points, and what its journal says then.

    python -m benchmarks.killed FOLDER ROUNDS SEED       prints what was counted, as JSON

Each round forks a coordinator that opens the journal (the first of every ten makes it), goes on
where the one before it was, and tells the parent over a pipe what it acknowledges: receipts, events
of jobs, tasks that it carries out, and statements that it signs. Some are told from callbacks, as a
service would, so many are in flight. The parent kills it after a random number of lines and a
random pause, opens the journal itself, and compares it with all that was ever told:

    lost             told and not in the journal
    doubled          twice in the journal, one id for two tasks, or a second verdict on a ballot,
                     receipt, opening or verdict of an audited job
    signed twice     two statements of one slot
    opened beside    the journal could be opened while the coordinator held it

The coordinator draws what it signs and how it judges anew in each process, so that whatever it
forgot would show.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.killed_jobs import MACHINES, ONCE, PROMPT, begin, ended, events, machine_of
from protocols.journal import (
    AlreadySigned,
    Journal,
    JournalBusy,
    JournalMissing,
    KeyRing,
    Recorded,
)
from verifiable import encoding
from verifiable.encoding import tagged_hash

KEY = b"\x09" * 32
COUNTED = ("lost", "doubled", "signed twice", "opened beside")


# ------------------------------------------------------------------------------- the coordinator


def _coordinate(path: Path, tell: Callable[..., None]) -> None:
    """Work until killed."""
    draw = random.Random(os.urandom(16))  # noqa: S311
    try:
        journal = Journal.open(path)
    except JournalMissing:
        journal = Journal.create(path)
    path.read_bytes()  # POSIX takes SQLite's lock from a process that does this
    keys = KeyRing(journal)
    keys.take(KEY, owner="killed", epoch=1)
    signed = keys.record(KEY)
    if journal.head("receipts") is None:
        journal.submit("receipts", [b""], begin=True).result()
    jobs = [
        Recorded.resume(journal, machine, stream.partition("/")[2], rules)
        for name, (machine, rules) in MACHINES.items()
        for stream in journal.streams(f"{name}/")
    ]
    for job in jobs:
        _carry_out(job, job.pending, tell, draw)
    while True:
        for _ in range(draw.randrange(20)):
            receipt = os.urandom(150)
            journal.submit("receipts", [receipt]).add_done_callback(
                lambda done, r=receipt: done.exception() or tell("receipt", r)
            )
        slot, statement = bytes([draw.randrange(40)]) * 32, os.urandom(32)
        with contextlib.suppress(AlreadySigned):
            signed.permit(slot, statement)
            tell("signed", slot, statement)
        if len(jobs) < 3:
            jobs.append(_begin(journal, jobs, tell, draw))
        job = draw.choice(jobs)
        for event in events(job, draw):
            before, tasks = job.recorded, job.feed(event).result()
            if job.recorded > before:  # what was refused is not recorded
                codec = machine_of(job.stream)[0].codec["event"]
                tell("event", job.stream.encode(), codec.encode(event))
            _carry_out(job, tasks, tell, draw)
        if draw.random() < 0.3:
            job.snapshot()
        if ended(job):
            jobs.remove(job)


def _begin(
    journal: Journal, jobs: Sequence[Any], tell: Callable[..., None], draw: random.Random
) -> Any:
    recorded, begun = begin(journal, jobs, draw)
    tasks = begun.result()
    tell("event", recorded.stream.encode(), b"")
    _carry_out(recorded, tasks, tell, draw)
    return recorded


def _carry_out(job: Any, tasks: Any, tell: Callable[..., None], draw: random.Random) -> None:
    for task in tasks:
        if task.id is None:
            continue
        tell("task", task.id, machine_of(job.stream)[0].codec["effect"].encode(task.effect))
        if draw.random() < 0.8 or not isinstance(task.effect, PROMPT):
            job.done(task)


# ----------------------------------------------------------------------------------- the parent


@dataclass
class Told:
    """All that the coordinators of one journal have told."""

    receipts: list[bytes] = field(default_factory=list)
    signed: dict[bytes, set[bytes]] = field(default_factory=dict)
    events: set[tuple[bytes, bytes]] = field(default_factory=set)
    tasks: dict[bytes, set[bytes]] = field(default_factory=dict)

    def take(self, kind: str, *parts: bytes) -> None:
        """Take one line."""
        match kind:
            case "receipt":
                self.receipts.append(parts[0])
            case "signed":
                self.signed.setdefault(parts[0], set()).add(parts[1])
            case "event":
                self.events.add((parts[0], parts[1]))
            case _:
                self.tasks.setdefault(parts[0], set()).add(parts[1])

    def compare(self, journal: Journal, count: Counter[str]) -> None:
        """Count what the journal does not say as it was told."""
        if self.receipts:
            found = Counter(journal.read("receipts")[1])
            count["lost"] += sum(not found[receipt] for receipt in self.receipts)
            count["doubled"] += sum(found[receipt] > 1 for receipt in found)
        streams = {stream for stream, _ in self.events} | {
            stream.encode() for name in MACHINES for stream in journal.streams(f"{name}/")
        }
        for stream in streams:
            self._compare_job(journal, stream, count)
        record = KeyRing(journal).record(KEY) if KEY in KeyRing(journal).active else None
        for slot, statements in self.signed.items():
            count["signed twice"] += len(statements) - 1
            stored = None if record is None else record.signed(slot)
            count["lost"] += stored not in {tagged_hash("journal statement", s) for s in statements}
        count["doubled"] += sum(len(effects) - 1 for effects in self.tasks.values())

    def _compare_job(self, journal: Journal, stream: bytes, count: Counter[str]) -> None:
        bodies = journal.contents(stream.decode())
        count["lost"] += not bodies
        wires = [encoding.decode(b, max_size=1 << 21, max_items=1 << 17) for b in bodies]
        events = Counter(encoding.encode(w[1]) for w in wires if w[0] == "event")
        told = [event for name, event in self.events if name == stream and event]
        count["lost"] += sum(not events[event] for event in told)
        count["doubled"] += sum(n > 1 for n in events.values())
        verdicts = Counter(w[1][2] for w in wires if w[0] == "event" and w[1][0] == "Audited")
        count["doubled"] += sum(n > 1 for n in verdicts.values())
        kinds = Counter(w[1][0] for w in wires if w[0] == "event")
        count["doubled"] += sum(kinds[kind] > 1 for kind in ONCE)
        if stream.startswith(b"audited/"):
            count["events of audited jobs"] += kinds.total()
        name = stream.decode().partition("/")[2]
        if bodies:
            machine, rules = machine_of(stream.decode())
            Recorded.resume(journal, machine, name, rules, verify=True)


def run(folder: Path, rounds: int, seed: int) -> dict[str, int]:
    """Kill a coordinator so many times; returns what was counted, and how much was told."""
    draw = random.Random(seed)  # noqa: S311
    count, told = Counter(dict.fromkeys(COUNTED, 0)), Told()
    path = folder / "0.journal"
    for number in range(rounds):
        if number % 10 == 0:
            path, told = folder / f"{number}.journal", Told()
        lines = _one_round(path, told, count, draw)
        count["told"] += lines
        count["rounds"] += 1
        if path.exists():
            with Journal.open(path) as journal:
                journal.verify()
                told.compare(journal, count)
        elif lines:
            count["lost"] += lines
    return dict(count)


def _one_round(path: Path, told: Told, count: Counter[str], draw: random.Random) -> int:
    """Fork a coordinator, listen to it, and kill it; returns how many lines it told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)

        def tell(kind: str, *parts: bytes) -> None:
            # One write of less than a page: whole, whatever thread or process it comes from.
            os.write(writing, " ".join([kind, *(part.hex() for part in parts)]).encode() + b"\n")

        try:
            _coordinate(path, tell)
        finally:
            os._exit(1)  # it never ends by itself
    os.close(writing)
    wanted, pause = draw.randrange(0, 150), draw.random() * 0.01
    heard, deadline = b"", time.monotonic() + 5
    try:
        while heard.count(b"\n") < wanted and time.monotonic() < deadline:
            if select.select([reading], [], [], 0.1)[0]:
                piece = os.read(reading, 1 << 16)
                if not piece:
                    raise RuntimeError("the coordinator ended by itself")
                heard += piece
        if heard:
            try:
                Journal.open(path).close()
                count["opened beside"] += 1
            except JournalBusy:
                pass
        time.sleep(pause)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as rest:
            heard += rest.read()
    lines = heard.split(b"\n")[:-1]
    for line in lines:
        kind, *parts = line.decode().split(" ")
        told.take(kind, *(bytes.fromhex(part) for part in parts))
    return len(lines)


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
