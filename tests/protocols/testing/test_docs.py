"""docs/testing.md: its test passes, and finds what the page says that it finds."""

from __future__ import annotations

import re
import types
from typing import Any

import pytest

from protocols.testing import LawBroken
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "testing.md").read_text()
COORDINATOR, TEST = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)

LAST_IF = "        if answer_of(job.message.answer, run.y) == reveal.value:\n            self.paid"


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """The fleet of the page, made once."""
    return {}


def played(coordinator: str, kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test of the page against a coordinator."""
    module = types.ModuleType("my_coordinator")
    exec(coordinator, module.__dict__)  # noqa: S102 - the page's own text
    if not kept:
        monkeypatch.setitem(__import__("sys").modules, "my_coordinator", module)
        quiet = "max_examples=200, database=None, derandomize=True, phases=[Phase.generate]"
        text = TEST.replace("max_examples=200", quiet)
        text = text.replace("import given, settings", "import Phase, given, settings")
        exec(text, kept)  # noqa: S102
    kept["Coordinator"] = module.Coordinator
    kept["test_the_laws"]()


def test_the_test_is_short():
    assert len([line for line in TEST.splitlines() if line.strip()]) <= 30


def test_it_finds_nothing(kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    played(COORDINATOR, kept, monkeypatch)


@pytest.mark.parametrize(
    ("right", "wrong", "law"),
    [
        ("opened and bound and due", "opened and due", "(copying|replaying) worker"),
        (LAST_IF, "        if True:\n            self.paid", "lying worker"),
        ("< now <= job.hand_in_by", "< now", "handed nothing in in time"),
        (" or (job_id, worker) in self.done", "", "paid-twice"),
    ],
)
def test_it_finds_what_the_page_says(
    right: str, wrong: str, law: str, kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    assert right in COORDINATOR
    with pytest.raises(LawBroken, match=law):
        played(COORDINATOR.replace(right, wrong), kept, monkeypatch)
