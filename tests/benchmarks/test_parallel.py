"""Parts of a benchmark whose results are kept."""

from __future__ import annotations

import functools
from pathlib import Path

from benchmarks import parallel


def counted(log: Path, name: str) -> str:
    with log.open("a") as lines:
        lines.write(name)
    return name.upper()


def test_a_run_that_was_cut_short_goes_on(tmp_path: Path):
    log, shards = tmp_path / "log", str(tmp_path / "shards")
    parts = [functools.partial(counted, log, name) for name in "abc"]
    assert next(parallel.in_order(parts, shards=shards)) == "A"
    assert list(parallel.in_order(parts, shards=shards)) == ["A", "B", "C"]
    assert log.read_text() == "abc"


def test_parts_of_other_arguments_are_called(tmp_path: Path):
    log, shards = tmp_path / "log", str(tmp_path / "shards")
    for name in "ab":
        part = functools.partial(counted, log, name)
        assert list(parallel.in_order([part], shards=shards)) == [name.upper()]
    assert log.read_text() == "ab"


def test_a_part_that_was_not_written_whole_is_called_again(tmp_path: Path):
    log, shards = tmp_path / "log", tmp_path / "shards"
    part = functools.partial(counted, log, "a")
    assert list(parallel.in_order([part], shards=str(shards))) == ["A"]
    [file] = shards.iterdir()
    file.rename(file.with_suffix(".part"))
    assert list(parallel.in_order([part], shards=str(shards))) == ["A"]
    assert log.read_text() == "aa"
