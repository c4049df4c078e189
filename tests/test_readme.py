"""The README's example runs as it stands, and what it names is there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from protocols.demo.cheats import lineup

README = Path(__file__).parent.parent / "README.md"


def test_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(README), "exec"), {})  # noqa: S102 - our own text
    assert "accept: ok" in capsys.readouterr().out


def test_it_counts_the_cheats_of_the_demo() -> None:
    [count] = re.findall(r"(\d+) named cheats", README.read_text())
    assert int(count) == sum(not device.honest for device in lineup("f32"))


def test_its_modules_exist() -> None:
    rows = re.findall(r"^\| (`[a-z`, ._]+`) \|", README.read_text(), flags=re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([a-z._]+)`", row)]
    assert len(names) > 10
    for name in names:
        package = "" if name.startswith("protocols.") else "verifiable."
        assert importlib.util.find_spec(package + name), name


FOLDERS = "verifiable protocols tests benchmarks assurance examples".split()


def test_files_that_documents_name_exist() -> None:
    root = README.parent
    there = [path.as_posix() for folder in FOLDERS for path in (root / folder).rglob("*.py")]
    pages = [*root.glob("specs/*.md"), *root.glob("docs/*.md"), README, root / "CONTRIBUTING.md"]
    named = [
        (page.name, name)
        for page in pages
        for name in re.findall(r"`([\w./]+\.py)`", page.read_text())
        if not name.startswith("my_")  # what a reader writes
    ]
    assert len(named) > 100
    assert not [x for x in named if not any(path.endswith(f"/{x[1]}") for path in there)]


def test_the_page_of_a_flax_model_is_one_script(capsys: pytest.CaptureFixture[str]) -> None:
    page = README.parent / "docs" / "flax_text.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    exec(compile("\n".join(blocks), str(page), "exec"), {})  # noqa: S102 - our own text
    told = capsys.readouterr().out
    assert told.count("accept: ok") == 2
    assert told.count("reject: ") == 1
    assert "bytes opened" in told
