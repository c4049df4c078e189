"""The check as it is against the library at an earlier commit, called in turn.

`git archive` takes `verifiable` of that commit out of the history of this repository; models,
inputs, Python and JAX are the same for both. Each library runs in a process of its own, which
compiles the program, makes an honest run and a key, and takes the strategy that `Program.tune`
prefers. Then both are asked in turn, and one waits while the other works. `speedup` is the earlier
time of `Program.check` over the present one, `setup_ratio` the present time of `setup`, compiled
before, over the earlier one.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import jax

from benchmarks.harness import HERE, Row, medians_in_turn
from benchmarks.subjects import Model, gpt, minilm, smollm2

CLAIM = (
    "A check takes less time than at commit e04d272, which had no decisions, lookups or blocks of "
    "columns, and tested in float64 only."
)

COMMIT = "e04d272"
ROOT = HERE.parent
SETUPS = 3  # how often a key is made

SUBJECTS: dict[str, Callable[[], Model]] = {
    "768": functools.partial(gpt, 768, 256, 4),
    "2048, few tokens": functools.partial(gpt, 2048, 128, 4),
    "2048": functools.partial(gpt, 2048, 512, 2),
    "SmolLM2": smollm2,
    "MiniLM": minilm,
    "small": functools.partial(gpt, 256, 128, 1),
}
# How many times faster at least; None for no bars.
CASES = {"768": 1.3, "2048, few tokens": 1.2, "2048": 1.05, "SmolLM2": 1.05, "MiniLM": None}


def rows(quick: bool) -> Iterator[Row]:
    """Measure all cases, or a small one."""
    with tempfile.TemporaryDirectory() as folder:
        unpack(COMMIT, Path(folder))
        for name, least in ({"small": None} if quick else CASES).items():
            with Contestant(name, Path(folder)) as then, Contestant(name, ROOT) as now:
                yield from _compared(then, now, least, 5 if quick else 30)


def unpack(commit: str, folder: Path) -> None:
    """Write the library of a commit into a folder.

    Raises:
      RuntimeError: the repository or its history is not there.
    """
    # The arguments are constants of this module.
    done = subprocess.run(  # noqa: S603
        ["git", "-C", str(ROOT), "archive", commit, "verifiable"],  # noqa: S607
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode().strip()
        raise RuntimeError(f"commit {commit} is not in this clone (git fetch --unshallow): {said}")
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


class Contestant:
    """A library in a process of its own that measures itself when it is asked."""

    def __init__(self, name: str, folder: Path):
        """Start a process that compiles a subject with the library in a folder."""
        # The arguments are this interpreter, this module and a name of its own.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "benchmarks.check_vs_earlier", name],
            cwd=folder,  # the first place from which Python imports
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about: dict[str, Any] = {}

    def __enter__(self) -> Contestant:
        """Wait until it can be asked."""
        self.about = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def ask(self, what: str) -> float:
        """Do `check` or `setup` once; the seconds that it took there."""
        assert self._process.stdin is not None
        print(what, file=self._process.stdin, flush=True)
        return self._read()["seconds"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a process ended with {self._process.wait()}; see above")
        return json.loads(line)


def _compared(
    then: Contestant, now: Contestant, least: float | None, repeats: int
) -> Iterator[Row]:
    case, both = now.about["name"], {"then": then, "now": now}
    checks, setups = (
        medians_in_turn({n: functools.partial(x.ask, what) for n, x in both.items()}, times)
        for what, times in (("check", repeats), ("setup", min(SETUPS, repeats)))
    )
    yield Row(case, "seconds_check_then", checks["then"], "s")
    yield Row(case, "seconds_check", checks["now"], "s")
    bar = None if least is None else f">= {least}"
    yield Row(case, "speedup", checks["then"] / checks["now"], "1", bar)
    yield Row(case, "seconds_setup_then", setups["then"], "s")
    yield Row(case, "seconds_setup", setups["now"], "s")
    bar = None if least is None else "<= 1"
    yield Row(case, "setup_ratio", setups["now"] / setups["then"], "1", bar)
    yield Row(case, "key_ratio", now.about["key_bytes"] / then.about["key_bytes"], "1")


def _serve(name: str) -> None:
    """Answer the questions of `Contestant.ask`, with the library that Python finds first.

    Uses only what both libraries have.
    """
    from verifiable import challenge, program  # noqa: PLC0415  Not needed by the other process.

    model = SUBJECTS[name]()
    compiled = program.compile(model.fn, model.params, *model.inputs)
    y, trace = jax.block_until_ready(jax.jit(compiled.execute)(model.params, *model.inputs))
    key = compiled.setup(model.params, challenge.secret())
    compiled, _ = compiled.tune(key, *model.inputs, y=y, trace=trace)

    def check() -> None:
        report = compiled.check(key, *model.inputs, y=y, trace=trace)
        assert report.verdict.value == "accept", report

    def setup() -> None:
        jax.block_until_ready(compiled.setup(model.params, challenge.secret()).arrays)

    print(json.dumps({"name": model.name, "key_bytes": key.nbytes}), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        {"check": check, "setup": setup}[line.strip()]()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
