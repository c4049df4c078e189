"""`python -m benchmarks [NAME | all | report] [--quick] [--only CASE...] [--jobs N] [--json FILE]`

Without a name it lists the claims.

The exit status is 1 if a bar is missed, unless `--quick` asks for a rough run whose bars only
inform. `all` runs each benchmark in a process of its own, so that none inherits another's memory.
"""

from __future__ import annotations

import argparse
import inspect
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import harness, tables

CHOSEN: dict[str, Any] = {
    "only": [],
    "jobs": 1,
    "shards": None,
    "texts": None,
    "minutes": math.inf,
}
"""Options that are arguments of `rows` of some benchmarks, with what they are if not given."""


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", help="a benchmark, 'all', or 'report'")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write tidy JSON here; a directory with 'all'"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="CASE", help="of some: these cases alone"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="parts that are measured at once"
    )
    parser.add_argument("--shards", metavar="DIR", help="where finished parts are kept")
    parser.add_argument("--texts", metavar="DIR", help="of `generation`: parts to be judged here")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, metavar="N", help="begin no part after so many"
    )
    options = parser.parse_args()
    console = Console()
    if options.name is None:
        for name in harness.names():
            console.print(f"[bold]{name:<20}[/]{harness.load(name).CLAIM}", highlight=False)
        return 0
    if options.name == "report":
        tables.report()
        return 0
    if options.name == "all":
        if options.json is not None:
            options.json.mkdir(parents=True, exist_ok=True)
        flags = ["--quick"] * options.quick + (
            ["--json", str(options.json)] if options.json else []
        )
        runs: list[list[str]] = []
        for name in harness.names():
            why = getattr(harness.load(name), "missing", lambda: None)()
            if why is not None:
                console.print(f"{name}: not measured here, {why}", highlight=False)
                continue
            runs.append([sys.executable, "-m", "benchmarks", name, *flags])
        # The arguments are this interpreter, this package and its own module names.
        return max(subprocess.run(command, check=False).returncode for command in runs)  # noqa: S603
    try:
        benchmark = harness.load(options.name)
    except ValueError as error:
        parser.error(str(error))
    chosen: dict[str, Any] = {}
    taken = inspect.signature(benchmark.rows).parameters
    for option, unset in CHOSEN.items():
        value = getattr(options, option)
        if value != unset and option not in taken:
            parser.error(f"{options.name} measures all its cases in turn: it takes no --{option}")
        if value != unset:
            chosen[option] = value
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    kept = harness.run(
        options.name,
        quick=options.quick,
        path=options.json,
        console=console,
        chosen=chosen,
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
