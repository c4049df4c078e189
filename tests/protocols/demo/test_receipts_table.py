"""What the demo shows of receipts: who was audited, and bytes sent with and without."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from protocols.demo import receipts_table
from tests.helpers.receipts import receipts_summary


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"Hal": "rejected"},
        {"Hal": "undecided"},
        {"Ivy": "passed"},
        {"Ivy": "silent"},
        {"Jo": "absent", "Ivy": "undecided"},
    ],
    ids=str,
)
def test_workers_that_ended_wrongly_are_marked(change: dict[str, str]):
    summary = receipts_summary(**change)
    assert summary.right is not bool(change)
    console = Console(width=100, file=io.StringIO(), record=True)
    for part in receipts_table.render(summary):
        console.print(part)
    text = console.export_text()
    assert text.count("(wrong)") == len(change)
    assert max(map(len, text.splitlines())) <= 100
    assert "6 workers sent 0.3 MB in all, 2 of them audited in part" in " ".join(text.split())
    assert "they had sent 525.9 MB" in " ".join(text.split())
    assert "one wrong unit is met" in text


def test_the_json_object_has_bytes_with_and_without():
    found = receipts_table.as_dict(receipts_summary())["receipts"]
    assert found["bytes"] == 2 * 123_456 + 4 * 3_456
    assert found["bytes_whole"] == 6 * 87_654_321
    assert [w["audited"] for w in found["workers"]] == [True, True, *[False] * 4]
    assert found["detection"]["choosing"] == 1 / 24 / 128
