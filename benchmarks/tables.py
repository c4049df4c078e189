"""The tables of `README.md`, made from the checked-in results, so that no figure is typed by hand.

First one table of all verdicts; then for each result its claim, machine, date, command and
versions, and one table for cases that have the same measures. Of a result with more than MOST
cases the page shows totals (`TOTALS`) and what missed its bar; the file holds the others.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import HERE, RESULTS, parse_bar, quantity

README = HERE / "README.md"
MOST = 200
TOTALS = ("all ", "honest", "second look")  # how the names of their cases begin
BEGIN, END = "<!-- results: made by `python -m benchmarks report` -->", "<!-- /results -->"


def overview(results: Sequence[Mapping[str, Any]]) -> str:
    """Render one table of all results: their verdicts and where they come from."""
    lines = ["| benchmark | verdict | date | jax |", "|---|---|---|---|"]
    for result in results:
        name, verdict = result["name"], result["verdict"]
        lines.append(f"| {name} | {verdict} | {result['date']} | {result['versions']['jax']} |")
    return "\n".join([*lines, ""])


def section(result: Mapping[str, Any]) -> str:
    """Render one result as Markdown: claim, verdict, provenance, and tables."""
    host, software = result["machine"], result["versions"]
    memory = f"{host['memory'] / 2**30:.0f} GiB"
    lines = [
        f"### {result['name']}, jax {software['jax']}",
        "",
        result["claim"],
        "",
        f"Verdict: {result['verdict']}.",
        "",
        f"`{result['command']}` on {result['date']}: {host['cpu']}, {host['cores']} cores, "
        f"{memory}, {host['os']}; "
        + ", ".join(f"{package} {version}" for package, version in software.items())
        + ".",
        "",
    ]
    cases: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in result["rows"]:
        cases.setdefault(row["case"], {})[row["measure"]] = row
    if len(cases) > MOST:
        shown = {name: rows for name, rows in cases.items() if _shown(name, rows)}
        lines += [
            f"{len(shown)} of {len(cases)} cases: totals, and those that missed a bar. "
            f"`results/{result['name']}.json` holds all.",
            "",
        ]
        cases = shown
    for measures, group in itertools.groupby(cases.items(), key=lambda item: tuple(item[1])):
        lines += [
            "| case | " + " | ".join(m.replace("_", " ") for m in measures) + " |",
            "|---" + "|--:" * len(measures) + "|",
        ]
        for case, values in group:
            lines.append(f"| {case} | " + " | ".join(map(_cell, values.values())) + " |")
        lines.append("")
    return "\n".join(lines)


def _shown(case: str, rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the page shows a case of a large result."""
    return case.startswith(TOTALS) or any(row["holds"] is False for row in rows.values())


def _cell(row: Mapping[str, Any]) -> str:
    """Write one value, with its bar and whether it holds."""
    text = quantity(row["value"], row["unit"])
    if row["bar"] is None:
        return text
    symbol, number = parse_bar(row["bar"])
    sign = {">=": "≥", "<=": "≤", "==": "="}.get(symbol, symbol)
    kept = "holds" if row["holds"] else "**missed**"
    return f"{text} ({sign} {quantity(number, row['unit'])}: {kept})"


def read_results(directory: Path = RESULTS) -> list[dict[str, Any]]:
    """Read the result files, sorted by name; ValueError for one of a quick run.

    `NAME.json` is the result of a benchmark; `NAME.WHERE.json` another one of it, such as with
    another version of JAX.
    """
    found: list[dict[str, Any]] = []
    for path in sorted(directory.glob("*.json")):
        result = json.loads(path.read_text())
        if result["name"] != path.name.partition(".")[0]:
            raise ValueError(f"{path.name} holds the result of {result['name']!r}")
        if "--quick" in result["command"].split():
            raise ValueError(f"{path.name} comes from a quick run: publish full runs only")
        found.append(result)
    return found


def render(text: str, results: Sequence[Mapping[str, Any]]) -> str:
    """Return the page with everything between its two markers made anew from the results."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end) or text.count(BEGIN) + text.count(END) != 2:
        raise ValueError(f"the page must hold {BEGIN!r}, then {END!r}, once each")
    sections = [overview(results), *map(section, results)] if results else []
    body = "\n".join(sections) or "No results are recorded yet.\n"
    return f"{head}{BEGIN}\n\n{body}\n{END}{tail}"


def report() -> None:
    """Rewrite the tables of `README.md` from the checked-in results."""
    README.write_text(render(README.read_text(), read_results()))
