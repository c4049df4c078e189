"""One claim a benchmark, one measured value a row, one bar a claim is held to.

A benchmark is a module of this package that has

    CLAIM: str                                   # one sentence: what is claimed
    def rows(quick: bool) -> Iterator[Row]       # the measurements, as they are made

The harness decides whether a bar holds (`value OP bar`; a row without a bar decides nothing),
prints the verdict before the rows, and writes tidy JSON: one measured value a row, beside the
machine, the versions and the command that gave it. `benchmarks.tables` makes the tables of
`README.md` from those files.

Times are medians of interleaved, warmed-up calls: all contestants run once a round, so that a
machine that slows down halfway slows all of them alike.
"""

from __future__ import annotations

import datetime
import functools
import importlib
import importlib.metadata
import json
import math
import operator
import os
import pkgutil
import platform
import re
import shlex
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from benchmarks import progress

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SECONDS = 30  # between two lines of progress where there is no terminal
FOLDERS = ("shards", "texts")  # options that results do not repeat: they change nothing measured

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_BAR = re.compile(r"(>=|<=|==|>|<) (-?\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?)")


def parse_bar(bar: str) -> tuple[str, float]:
    """Split a bar such as `">= 10"` into its operator and its number; ValueError otherwise."""
    match = _BAR.fullmatch(bar)
    if match is None:
        raise ValueError(f"a bar is an operator, a space and a number (such as '>= 10'): {bar!r}")
    return match[1], float(match[2])


@dataclass(frozen=True, slots=True)
class Row:
    """One measured value.

    Attributes:
      case: what it was measured on, such as "width=2048 tokens=128 layers=4".
      measure: what was measured, such as "ratio".
      value: the value, finite.
      unit: its unit: "s", "bytes", "B/s", "1" for a pure number, and so on.
      bar: the bound that the value must meet, such as ">= 10", or None.
    """

    case: str
    measure: str
    value: float
    unit: str
    bar: str | None = None

    def __post_init__(self):
        """Require a finite value and a bar that parses; ValueError otherwise."""
        if not math.isfinite(self.value):
            raise ValueError(f"{self.case}, {self.measure}: {self.value} is not a finite number")
        if self.bar is not None:
            parse_bar(self.bar)

    @property
    def holds(self) -> bool | None:
        """Whether the value reaches its bar; None without one."""
        if self.bar is None:
            return None
        symbol, number = parse_bar(self.bar)
        return _OPERATORS[symbol](self.value, number)


class Benchmark(Protocol):
    """The interface of a benchmark module."""

    CLAIM: str

    def rows(self, quick: bool) -> Iterator[Row]:
        """Measure; `quick` asks for few repeats and small sizes."""
        ...


def names() -> list[str]:
    """Return the names of all benchmarks, sorted; the other modules are helpers."""
    own = {
        "harness",
        "tables",
        "ablation",
        "boinc",
        "devices",
        "cheats",
        "forged",
        "killed",
        "killed_jobs",
        "layer_cheats",
        "precisions",
        "progress",
        "steered_rounding",
        "subjects",
        "texts",
        "timed",
        "trials",
        "zoo",
        "measured_texts",
        "noise",
        "slips",
        "parallel",
        "evms",
        "__main__",
    }
    return sorted(m.name for m in pkgutil.iter_modules([str(HERE)]) if m.name not in own)


def load(name: str) -> Benchmark:
    """Import one benchmark; ValueError names the known ones where there is no such module."""
    if name not in names():
        raise ValueError(f"no benchmark {name!r}: there are {', '.join(names())}")
    return cast(Benchmark, importlib.import_module(f"benchmarks.{name}"))


# ---------------------------------------------------------------------------------- measuring


def interleaved_medians(
    thunks: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the median seconds of each call, results ready, warm, as `medians_in_turn`.

    Args:
      thunks: what is called, by name.
      repeats: rounds.
      clock: seconds of what; `time.process_time` counts those of all cores.
    """
    import jax  # noqa: PLC0415  The listing and the report work without a backend.

    def timed(thunk: Callable[[], object]) -> float:
        start = clock()
        jax.block_until_ready(thunk())
        return clock() - start

    return medians_in_turn({n: functools.partial(timed, x) for n, x in thunks.items()}, repeats)


def medians_in_turn(measures: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Return the median of each measure, one round at a time.

    Every one is taken once beforehand (compilation and first touches stay out); then each of
    `repeats` rounds takes all of them, in an order that rotates from round to round.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, not {repeats}")
    for measure in measures.values():
        measure()
    order = list(measures)
    found: dict[str, list[float]] = {name: [] for name in order}
    for round_ in range(repeats):
        shift = round_ % len(order)
        for name in order[shift:] + order[:shift]:
            found[name].append(measures[name]())
    return {name: statistics.median(values) for name, values in found.items()}


def clopper_pearson(k: int, n: int, level: float) -> tuple[float, float]:
    """Return the exact two-sided confidence interval of a proportion, `k` successes of `n`.

    Clopper and Pearson (1934): the true proportion lies inside with probability at least `level`.
    """
    from scipy.stats import binomtest  # noqa: PLC0415  Slow to import, needed by one benchmark.

    interval = binomtest(k, n).proportion_ci(confidence_level=level, method="exact")
    return float(interval.low), float(interval.high)


def machine() -> dict[str, Any]:
    """Describe this machine: CPU model, cores, memory in bytes, operating system."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        model = named[1].strip() if named else model
    return {
        "cpu": model + _accelerators(),
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": f"{platform.system()} {platform.machine()}",
    }


def _accelerators() -> str:
    """The names of the GPUs that JAX computes on, behind a comma; empty without any."""
    import jax  # noqa: PLC0415  The listing and the report work without a backend.

    try:
        names = sorted({device.device_kind for device in jax.devices("gpu")})
    except RuntimeError:
        return ""
    return ", " + ", ".join(names)


def versions() -> dict[str, str]:
    """Return the versions that a figure depends on."""
    packages = ("verifiable", "jax", "jaxlib", "numpy", "blake3")
    return {"python": platform.python_version()} | {
        package: importlib.metadata.version(package) for package in packages
    }


# ------------------------------------------------------------------------------------ running


def verdict(measured: Sequence[Row]) -> str:
    """Return one line: how many bars hold, and each one that is missed."""
    if not measured:
        return "nothing was measured"
    judged = [row for row in measured if row.bar is not None]
    missed = [row for row in judged if not row.holds]
    text = f"{len(judged) - len(missed)} of {len(judged)} bars hold"
    named = [f"{r.case}, {r.measure}: {quantity(r.value, r.unit)} ({r.bar})" for r in missed]
    return "; missed: ".join([text, "; ".join(named)] if named else [text])


def tidy(name: str, claim: str, measured: Iterable[Row], command: str) -> dict[str, Any]:
    """Return the result of a benchmark as plain JSON values, the verdict first.

    Raises ValueError where one measure of one case was measured twice: a table shows one value.
    """
    listed = list(measured)
    for row, count in Counter((row.case, row.measure) for row in listed).items():
        if count > 1:
            raise ValueError(f"{name} measured {row} {count} times")
    return {
        "name": name,
        "verdict": verdict(listed),
        "claim": claim,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": command,
        "machine": machine(),
        "versions": versions(),
        "rows": [asdict(row) | {"holds": row.holds} for row in listed],
    }


def run(
    name: str,
    *,
    quick: bool,
    path: Path | None,
    console: Console,
    chosen: Mapping[str, Any] | None = None,
) -> bool:
    """Run one benchmark, print its verdict and its rows, write its JSON; return whether bars hold.

    Args:
      name: of the benchmark.
      quick: small sizes and few repeats; the bars are printed but decide nothing.
      path: a file, or a directory in which the file is named after the benchmark; or None.
      chosen: further arguments of the benchmark's `rows`: `only`, names of cases that are measured
        alone; `jobs`, how many parts are measured at once; `minutes`, after which no further part
        is begun; folders that a benchmark names.
      console: where to print. A terminal shows each row while the next is measured, and how far
        that is; elsewhere a line is printed every SECONDS.

    Returns:
      Whether every bar holds. A benchmark without rows measured nothing and fails.
    """
    benchmark, start = load(name), time.perf_counter()
    console.print(f"[bold]{name}[/]  {benchmark.CLAIM}", highlight=False, soft_wrap=True)
    measured: list[Row] = []
    try:
        with console.status(name) as status:
            tell = _teller(name, console, status)
            with progress.told_to(tell):
                for row in benchmark.rows(quick, **(chosen or {})):
                    measured.append(row)
                    tell(_line(row))
    finally:
        # What was measured before an error is printed too.
        kept = bool(measured) and not any(row.holds is False for row in measured)
        style = "bold" if kept else "bold red"
        seconds = f"{time.perf_counter() - start:.0f} s"
        console.print(f"{verdict(measured)}, {seconds}", style=style, highlight=False, markup=False)
        _print(measured, console)
    if path is not None:
        path = path / f"{name}.json" if path.is_dir() else path
        command = f"python -m benchmarks {name}" + (" --quick" if quick else "")
        for option, value in (chosen or {}).items():
            given = shlex.join(value) if isinstance(value, list) else value
            command += f" --{option} {'DIR' if option in FOLDERS else given}"
        result = tidy(name, benchmark.CLAIM, measured, command)
        path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    return kept or (quick and bool(measured))


def _teller(name: str, console: Console, status: Status) -> Callable[[str], None]:
    """Shows how far a benchmark is: at each call on a terminal, else every SECONDS."""
    start = last = time.perf_counter()

    def tell(text: str) -> None:
        nonlocal last
        now = time.perf_counter()
        line = f"{name}, {now - start:.0f} s: {text}"
        if console.is_terminal:
            status.update(escape(line))
        elif now - last >= SECONDS:
            console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)
            last = now

    return tell


_COLUMNS = "{:<35} {:<27} {:>12}  {:<16}{}".format


def _line(row: Row) -> str:
    marks = {True: "yes", False: "NO", None: ""}
    value = quantity(row.value, row.unit)
    return _COLUMNS(row.case, row.measure, value, row.bar or "", marks[row.holds])


def _print(measured: Sequence[Row], console: Console) -> None:
    header = _COLUMNS("case", "measure", "value", "bar", "holds")
    console.print(header, style="dim", soft_wrap=True)
    for row in measured:
        style = "red" if row.holds is False else ""
        console.print(_line(row), style=style, highlight=False, markup=False, soft_wrap=True)
    console.print()


def quantity(value: float, unit: str) -> str:
    """Write a value with its unit: SI prefixes for seconds and bytes, separators for counts."""
    if unit in {"s", "bytes", "B/s"} and value != 0:
        symbol = {"bytes": "B"}.get(unit, unit)
        power = min(max(math.floor(math.log10(abs(value)) / 3), -3 if unit == "s" else 0), 4)
        power = min(power, 0) if unit == "s" else power
        prefix = {-3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}[power]
        return f"{value / 1000**power:.3g} {prefix}{symbol}"
    if float(value).is_integer() and abs(value) < 1e15:
        text = f"{int(value):,}"
    else:
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    # The unit 1 is that of pure numbers; 1/s reads best as a suffix.
    return text + unit[1:] if unit.startswith("1") else f"{text} {unit}"
