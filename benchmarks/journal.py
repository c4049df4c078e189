"""The journal: how fast receipts become durable, and what is left after a coordinator is killed.

Receipts of 300 bytes arrive at 2,000 a second, whatever the journal does (an open loop), each on
one of 64 streams, and each is acknowledged when it is on disk. Latency is from arrival to
acknowledgement. `as fast as it can` keeps 256 receipts in flight. A flush of the file system is
measured beside them: it is what one receipt at a time waits for. Jobs of replicated execution go
through `Recorded`: their step function, codecs and tasks. How coordinators are killed and compared:
`benchmarks.killed`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from benchmarks import killed, killed_jobs
from benchmarks.harness import HERE, Row
from protocols.journal import REPLICATED, Journal, Recorded
from protocols.messages import Job, Reveal, Signed
from protocols.replicated import Received, start

CLAIM = (
    "2,000 receipts of 300 bytes a second are acknowledged, each only when it is on disk, and "
    "killing the coordinator at 200 random points loses, doubles and signs nothing twice"
)
RATE, SIZE, STREAMS = 2000, 300, 64


def rows(quick: bool) -> Iterator[Row]:
    """Measure; `quick` takes two seconds of receipts and 5 kills."""
    # In memory, a flush would cost nothing: `/tmp` is so on some machines, the project is not.
    with tempfile.TemporaryDirectory(dir=HERE, prefix=".journal-") as folder:
        yield from _flush(Path(folder), 20 if quick else 200)
        yield from _receipts(Path(folder) / "open", 2 if quick else 20)
        yield from _fast(Path(folder) / "fast", 2000 if quick else 40_000)
        yield from _jobs(Path(folder) / "jobs", 20 if quick else 300)
        yield from _kills(Path(folder), 5 if quick else 200)


def _flush(folder: Path, repeats: int) -> Iterator[Row]:
    seconds: list[float] = []
    with (folder / "flushed").open("wb") as file:
        for _ in range(repeats):
            file.write(bytes(4096))
            file.flush()
            start = time.perf_counter()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - start)
    yield Row("one flush of the file system", "median", statistics.median(seconds), "s")


def _journal(path: Path) -> Journal:
    journal = Journal.create(path)
    for stream in range(STREAMS):
        journal.submit(f"receipts/{stream}", [b""], begin=True)
    journal.flush()
    journal.commits = 0
    return journal


def _receipts(path: Path, seconds: int) -> Iterator[Row]:
    """An open loop: receipts arrive by the clock."""
    case, total = f"{SIZE} bytes, {RATE} a second arrive", RATE * seconds
    waited: list[float] = []
    with _journal(path) as journal:
        begun = time.perf_counter()

        def acknowledge(due: float) -> Any:
            return lambda _: waited.append(time.perf_counter() - due)

        for number in range(total):
            due = begun + number / RATE
            if (ahead := due - time.perf_counter()) > 0:
                time.sleep(ahead)
            receipt = os.urandom(SIZE)
            future = journal.submit(f"receipts/{number % STREAMS}", [receipt])
            future.add_done_callback(acknowledge(due))
        journal.flush()
        elapsed = time.perf_counter() - begun
        commits = journal.commits
    assert len(waited) == total
    ordered = sorted(waited)
    yield Row(case, "acknowledged a second", total / elapsed, "1/s", f">= {0.99 * RATE:.0f}")
    yield Row(case, "receipts a flush", total / commits, "1")
    for name, share in (("median", 0.5), ("99 of 100", 0.99), ("slowest", 1.0)):
        index = min(total - 1, int(share * total))
        yield Row(case, f"latency, {name}", ordered[index], "s")


def _fast(path: Path, total: int) -> Iterator[Row]:
    case = f"{SIZE} bytes, 256 in flight"
    room = threading.Semaphore(256)
    with _journal(path) as journal:
        begun = time.perf_counter()
        for number in range(total):
            room.acquire()
            future = journal.submit(f"receipts/{number % STREAMS}", [os.urandom(SIZE)])
            future.add_done_callback(lambda _: room.release())
        journal.flush()
        elapsed = time.perf_counter() - begun
        commits = journal.commits
    yield Row(case, "acknowledged a second", total / elapsed, "1/s", f">= {RATE}")
    yield Row(case, "receipts a flush", total / commits, "1")
    begun = time.perf_counter()
    with Journal.open(path) as journal:
        found = sum(len(journal.read(f"receipts/{s}")[1]) - 1 for s in range(STREAMS))
    yield Row(case, "read back and verified a second", found / (time.perf_counter() - begun), "1/s")
    yield Row(case, "bytes in the file a receipt", path.stat().st_size / total, "bytes")
    assert found == total


def _jobs(path: Path, jobs: int) -> Iterator[Row]:
    """Commits and reveals of three workers, through the step function."""
    zero = bytes(32)
    messages: list[tuple[Any, list[Any]]] = []
    with Journal.create(path) as journal:
        for number in range(jobs):
            job = Job(
                coordinator=zero,
                epoch=7,
                nonce=number.to_bytes(32, "big"),
                expiry=killed_jobs.NOW + 10**6,
                program=zero,
                parameters=zero,
                input=zero,
            )
            reveals = [
                Reveal(
                    worker=worker,
                    job=job.digest,
                    epoch=7,
                    salt=zero,
                    value=zero,
                    trace_root=worker,
                    trace_size=1,
                )
                for worker in killed_jobs.WORKERS
            ]
            messages.append((job, [*(reveal.commit for reveal in reveals), *reveals]))
        begun, last = time.perf_counter(), Future[Any]()
        for job, sent in messages:
            first = start(
                job,
                killed_jobs.RULES,
                now=killed_jobs.NOW,
                workers=killed_jobs.WORKERS,
                weights=[1, 1, 1],
                seed=job.nonce,
            )
            recorded, _ = Recorded.begin(
                journal, REPLICATED, job.digest.hex(), first, killed_jobs.RULES
            )
            for message in sent:
                event = Received(
                    at=killed_jobs.NOW, message=Signed(message=message, signature=bytes(64))
                )
                last = recorded.feed(event)
        last.result()
        elapsed = time.perf_counter() - begun
    case = f"{jobs} jobs of three workers"
    yield Row(case, "events stepped and recorded a second", 7 * jobs / elapsed, "1/s")
    begun = time.perf_counter()
    with Journal.open(path) as journal:
        for name in journal.streams("replicated/"):
            Recorded.resume(
                journal, REPLICATED, name.removeprefix("replicated/"), killed_jobs.RULES
            )
    yield Row(case, "restart, each job", (time.perf_counter() - begun) / jobs, "s")


def _kills(folder: Path, rounds: int) -> Iterator[Row]:
    case = f"{rounds} kills at random points"
    done = subprocess.run(  # noqa: S603  This interpreter, and a module of this package.
        [sys.executable, "-m", "benchmarks.killed", str(folder), str(rounds), "1"],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    count = json.loads(done.stdout)
    yield Row(case, "acknowledged before", count["told"], "1")
    for name in killed.COUNTED:
        yield Row(case, name, count[name], "1", "== 0")
