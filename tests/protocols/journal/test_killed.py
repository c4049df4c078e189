"""A coordinator of both protocols killed with SIGKILL; `benchmarks journal` does it 200 times."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.killed import COUNTED, KEY, Told
from protocols.journal import Journal, KeyRing
from tests.helpers.journals import MemoryStore
from tests.helpers.paths import ROOT


def test_a_killed_coordinator_goes_on(tmp_path: Path):
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "benchmarks.killed", str(tmp_path), "5", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    count = json.loads(done.stdout)
    assert {name: count[name] for name in COUNTED} == dict.fromkeys(COUNTED, 0)
    assert count["told"] > 20
    assert count["events of audited jobs"] > 0
    assert count["rounds"] == 5


FORKED = """
import os, signal, sys
from protocols.journal import Journal

journal = Journal.create(sys.argv[1])
journal.submit("a", [b"0"], begin=True).result()
child = os.fork()
if child == 0:
    sys.exit(0)  # which closes whatever it can, in a process that shares the file
os.waitpid(child, 0)
journal.submit("a", [b"1"]).result()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_fork_that_ends_takes_nothing_from_its_parent(tmp_path: Path):
    """Were it to close the database, it would remove the log of writes under its parent."""
    path = tmp_path / "a.journal"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", FORKED, str(path)], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    with Journal.open(path) as journal:
        assert journal.read("a")[1] == [b"0", b"1"]


TOLD: dict[str, tuple[str, Callable[[Told], None]]] = {
    "a receipt": ("lost", lambda told: told.take("receipt", b"never written")),
    "a receipt that is there twice": ("doubled", lambda told: told.take("receipt", b"twice")),
    "another statement": ("lost", lambda told: told.take("signed", b"\x01" * 32, b"other")),
    "a slot": ("lost", lambda told: told.take("signed", b"\x02" * 32, b"first")),
    "two statements": (
        "signed twice",
        lambda told: [told.take("signed", b"\x01" * 32, s) for s in (b"first", b"second")] and None,
    ),
    "two effects": (
        "doubled",
        lambda told: [told.take("task", b"id", effect) for effect in (b"1", b"2")] and None,
    ),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_is_counted_would_be_seen(case: str):
    name, take = TOLD[case]
    told, count = Told(), Counter[str]()
    with Journal(MemoryStore()) as journal:
        receipts = [b"twice"] * (1 + (name == "doubled"))
        journal.submit("receipts", [b"", *receipts], begin=True)
        keys = KeyRing(journal)
        keys.take(KEY, owner="killed", epoch=1)
        keys.record(KEY).permit(b"\x01" * 32, b"first")
        take(told)
        told.compare(journal, count)
    assert +count == Counter({name: 1})
