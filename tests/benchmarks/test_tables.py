"""The published tables: verdicts first, provenance, bars, and nothing typed by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import harness, tables
from benchmarks.harness import Row

CLAIM = "Two and two make four."
GOOD = Row("two", "sum", 4.0, "1", "== 4")
PLAIN = Row("two", "seconds", 0.5, "s")
BAD = Row("three", "sum", 5.0, "1", "== 4")


def _result(*rows: Row, name: str = "fake") -> dict[str, Any]:
    return harness.tidy(name, CLAIM, rows, f"python -m benchmarks {name}")


def test_the_report_shows_claim_provenance_values_and_bars():
    text = tables.section(_result(GOOD, PLAIN, BAD, Row("four", "seconds", 2.0, "s", "<= 3")))
    assert "### fake" in text
    assert "Verdict: 2 of 3 bars hold; missed: three, sum: 5 (== 4)." in text
    assert CLAIM in text
    assert harness.machine()["cpu"] in text
    assert "`python -m benchmarks fake`" in text
    assert "| two | 4 (= 4: holds) | 500 ms |" in text
    assert "| three | 5 (= 4: **missed**) |" in text
    assert "| four | 2 s (≤ 3 s: holds) |" in text


def test_a_page_shows_totals_of_a_large_result_and_what_missed_its_bar():
    many = [Row(f"case {i}", "share", 0.0, "1", "<= 1") for i in range(tables.MOST)]
    missed = Row("case that misses", "share", 2.0, "1", "<= 1")
    total = Row("all cases", "share", 0.5, "1", "<= 1")
    text = tables.section(_result(*many, missed, total))
    assert "2 of 202 cases" in text
    assert "| case that misses | 2 (≤ 1: **missed**) |" in text
    assert "| all cases |" in text
    assert "case 7" not in text
    assert "case 7" in tables.section(_result(*many))


def test_the_page_begins_with_all_verdicts():
    page = tables.render(f"{tables.BEGIN}{tables.END}", [_result(GOOD), _result(BAD, name="other")])
    overview, first, *_ = page.split("###")
    assert "| fake | 1 of 1 bars hold |" in overview
    assert "| other | 0 of 1 bars hold; missed: three, sum: 5 (== 4) |" in overview
    assert first.startswith(" fake")


def test_the_report_keeps_the_page_around_it_and_is_idempotent():
    page = f"before\n{tables.BEGIN}\nstale\n{tables.END}\nafter\n"
    once = tables.render(page, [_result(GOOD)])
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "stale" not in once
    assert tables.render(once, [_result(GOOD)]) == once


@pytest.mark.parametrize("page", ["", tables.BEGIN, tables.END + tables.BEGIN])
def test_a_page_without_its_markers_is_refused(page: str):
    with pytest.raises(ValueError, match="the page must hold"):
        tables.render(page, [])


def test_quick_and_misnamed_results_are_not_published(tmp_path):
    quick = _result(GOOD) | {"command": "python -m benchmarks fake --quick"}
    (tmp_path / "fake.json").write_text(json.dumps(quick))
    with pytest.raises(ValueError, match="quick run"):
        tables.read_results(tmp_path)
    (tmp_path / "fake.json").write_text(json.dumps(_result(GOOD, name="other")))
    with pytest.raises(ValueError, match="holds the result of 'other'"):
        tables.read_results(tmp_path)


def test_the_published_tables_are_those_of_the_results():
    text = tables.README.read_text()
    assert tables.render(text, tables.read_results()) == text


def test_every_result_belongs_to_a_benchmark_and_was_judged_by_its_bars():
    for result in tables.read_results():
        assert result["name"] in harness.names()
        fields = ("case", "measure", "value", "unit", "bar")
        rows = [Row(**{k: row[k] for k in fields}) for row in result["rows"]]
        assert [row.holds for row in rows] == [row["holds"] for row in result["rows"]]
        assert harness.verdict(rows) == result["verdict"]
