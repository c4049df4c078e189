"""What each test reaches and how long it takes; which tests a mutant is run against.

A mutant can only be noticed by a test that executes its statement, or that gets what an earlier
test of the same file made: a fixture, or a function's kept result. The first come first, the
shortest of them before all others.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from assurance.mutation import table
from assurance.mutation.programs import machine

LATE = 1.0  # seconds that it takes to collect a file of tests in the fork of a mutant


@dataclass
class TestRecord:
    """One test.

    Attributes:
      name: pytest's node id.
      seconds: that it took without a change, its fixtures included.
      reached: numbers of the statements that it reached (`probes`).
    """

    name: str
    seconds: float
    reached: list[int]


@dataclass
class FileRecord:
    """One file of tests, or what the table names of it.

    Attributes:
      name: its path, with `::` and a test's name if it is one test.
      quiet: whether JAX computes nothing when it is imported.
      imported: numbers of the statements that are reached when it is imported.
      tests: in their order.
      failed: what fails without a change; if the file itself does, its name.
      checked: names of groups of files with which it ran in the order of mutants.
    """

    name: str
    quiet: bool = True
    imported: list[int] = field(default_factory=list)
    tests: list[TestRecord] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Keep it for as long as neither the library nor the file changes."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path(folder, self.name).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path, name: str) -> FileRecord | None:
        """What is kept, or None."""
        path = cls._path(folder, name)
        if not path.exists():
            return None
        found = cls(**json.loads(path.read_text()))
        found.tests = [TestRecord(**test) for test in json.loads(path.read_text())["tests"]]
        return found

    @staticmethod
    def _path(folder: Path, name: str) -> Path:
        text = _code() + name.encode() + (table.ROOT / name.partition("::")[0]).read_bytes()
        return folder / f"{hashlib.sha256(text).hexdigest()[:20]}.json"


def in_order(
    records: Sequence[FileRecord], statement: int | None, inside: Iterable[int] = ()
) -> list[TestRecord]:
    """The tests that can notice another statement, those that are likely to notice it soon first.

    All tests, if there is no statement.

    Args:
      records: of all files of the module's tests.
      statement: its number.
      inside: numbers of statements in functions of the module. Tests that reach any of them come
        first if the statement is reached at an import.
    """
    ranked: list[tuple[tuple[bool, int, str, float], TestRecord]] = []
    for record in records:
        before = everything = statement is None or statement in record.imported
        likely = set(inside) if everything else {statement}
        for test in record.tests:
            reaches = not likely.isdisjoint(test.reached)
            before = before or reaches
            if before and test.name not in record.failed:
                seconds = test.seconds + (0 if record.quiet else LATE)
                # Files are changed rarely: what tests of a file share is freed after it.
                rank = max(0, math.ceil(math.log(max(seconds, 1e-3) / 0.02, 4)))
                ranked.append(((not reaches, rank, record.name, seconds), test))
    return [test for _, test in sorted(ranked, key=lambda each: each[0])]


@functools.cache
def _code() -> bytes:
    """A digest of all that tests run but their own file: code, versions, processor."""
    digest = hashlib.sha256()
    for package in ("jax", "jaxlib", "hypothesis", "pytest"):
        digest.update(importlib.metadata.version(package).encode())
    digest.update(f"{platform.python_version()} {machine()['cpu']}".encode())
    for folder in ("verifiable", "protocols", "tests/helpers"):
        for path in sorted((table.ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    for name in ("probes", "record", "table", "warm"):
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    digest.update((table.ROOT / "tests" / "conftest.py").read_bytes())
    return digest.digest()
