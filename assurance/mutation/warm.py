"""Runs tests in forks of a process that has imported what the library needs, but not the library.

A fork imports one module in its changed form, and everything else as it is. JAX has no threads yet
when the process forks, for nothing was computed. Each test may take so many seconds as its own run
without a change allows: a timer of the fork ends it, in whatever code it hangs.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from assurance.mutation import table

IMPORTED = (
    "blake3 cbor2 concurrent.futures cryptography.exceptions "
    "cryptography.hazmat.primitives.asymmetric.ed25519 hypothesis hypothesis.stateful jax "
    "jax.experimental.sparse jax.export jax.extend.core jax.numpy jaxtyping numpy pyblst "
    "py_arkworks_bls12381 py_ecc.bls pytest safetensors.numpy scipy.optimize scipy.special "
    "scipy.stats sqlite3"
).split()
COLLECTING = 120  # seconds to import the library and the tests
ADDRESSES = 24 * 2**30  # bytes that a fork may map: some changes ask for all memory


@dataclass
class Ended:
    """How a fork ended.

    Attributes:
      status: "passed", "failed", "timeout", or "crashed".
      test: the test that failed or did not end.
      seconds: of every test that ended, by its name.
      failed: all tests that failed.
      output: the end of what it printed.
    """

    status: str
    test: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    output: str = ""


@dataclass(frozen=True, slots=True)
class ForkTask:
    """A file of tests, or a single test, to run with one module changed, or with none."""

    tests: str
    module: str = ""
    tree: Callable[[], ast.Module] | None = None
    left_out: Sequence[str] = ()
    limits: dict[str, float] = field(default_factory=dict)
    """Seconds that a test may take, by its name."""
    every: bool = False
    """Whether to go on after a failure."""


class _Changed(importlib.abc.MetaPathFinder):
    """Finds one module, and gives it the code of a changed tree."""

    def __init__(self, module: str, tree: ast.Module):
        self.module, self.code = module, compile(tree, str(table.source(module)), "exec")

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        if name != self.module:
            return None
        loader = _Loader(name, str(table.source(name)))
        loader.code = self.code
        return importlib.util.spec_from_file_location(name, loader.path, loader=loader)


class _Loader(importlib.machinery.SourceFileLoader):
    code: CodeType

    def get_code(self, fullname: str) -> CodeType:
        return self.code


class _Timer:
    """A plugin of pytest: writes down what happens, and ends tests that take too long."""

    def __init__(self, task: ForkTask, told: io.TextIOWrapper):
        self.task, self.told = task, told

    def tell(self, **what: Any) -> None:
        self.told.write(json.dumps(what) + "\n")
        self.told.flush()

    def pytest_sessionstart(self) -> None:
        from hypothesis import Phase, settings  # noqa: PLC0415 - after conftest made its profile

        settings.register_profile(
            "mutation",
            settings.get_profile("verifiable"),
            database=None,
            derandomize=True,
            phases=(Phase.explicit, Phase.generate),
        )
        settings.load_profile("mutation")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid not in self.task.left_out]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.tell(begun=nodeid)
        signal.setitimer(signal.ITIMER_REAL, self.task.limits.get(nodeid, COLLECTING))
        self.began = time.monotonic()

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.tell(failed=report.nodeid, output=str(report.longrepr)[-2000:])

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.tell(ended=nodeid, seconds=time.monotonic() - self.began)
        signal.setitimer(signal.ITIMER_REAL, COLLECTING)


def prepare() -> Path:
    """Import what all forks need; returns a folder for their files, which `clean` removes."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    folder = Path(tempfile.mkdtemp(prefix="mutation-"))
    # Bytecode is kept for the run alone: that of tests too, which pytest rewrites.
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(folder / "bytecode")
    for name in IMPORTED:
        try:
            importlib.import_module(name)
        except ImportError:
            print(f"not installed: {name}", file=sys.stderr)
    if imported := {"verifiable", "protocols"}.intersection(sys.modules):
        raise RuntimeError(f"{imported} must be imported by the forks alone")
    warnings.filterwarnings("ignore", message=".*fork")
    return folder


def clean(folder: Path) -> None:
    """Remove the files of all forks."""
    shutil.rmtree(folder, ignore_errors=True)


def run_all(
    take: Callable[[], ForkTask | None],
    folder: Path,
    jobs: int,
    ended: Callable[[ForkTask, Ended], None],
) -> None:
    """Run tasks in so many forks at a time, each on a core of its own where there are as many.

    `take` gives the next task, or None if there is none now; `ended` may add more. All ended, the
    run is over.
    """
    cores = sorted(os.sched_getaffinity(0))
    free = list(range(jobs))
    running: dict[int, tuple[ForkTask, int, Path]] = {}
    number = 0
    while True:
        while free and (task := take()) is not None:
            slot = free.pop()
            place = folder / f"fork{number}"
            place.mkdir()
            number += 1
            child = os.fork()
            if not child:
                _run(task, place, {cores[slot % len(cores)]} if jobs > 1 else set(cores))
            running[child] = task, slot, place
        if not running:
            return
        child, status = os.waitpid(-1, 0)
        task, slot, place = running.pop(child)
        free.append(slot)
        _end_group(child)
        ended(task, _read(place, status))


def _end_group(child: int) -> None:
    """End what a fork may have left behind."""
    try:
        os.killpg(child, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _run(task: ForkTask, place: Path, cores: set[int]) -> None:
    """In the fork: run the tests and exit."""
    status = 3
    try:
        os.setsid()
        os.sched_setaffinity(0, cores)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, COLLECTING)
        with (place / "output").open("w") as output, (place / "told").open("w") as told:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            if task.tree is not None:
                sys.meta_path.insert(0, _Changed(task.module, task.tree()))
            import pytest  # noqa: PLC0415

            os.chdir(table.ROOT)
            # Plugins of pytest that are imported already could not be rewritten any more.
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            options = [
                "-o",
                "addopts=",
                "--import-mode=importlib",
                "-q",
                "-p",
                "no:cacheprovider",
                "--tb=short",
                "-rN",
            ]
            options += [f"--basetemp={place / 'tmp'}"] + ([] if task.every else ["-x"])
            status = int(pytest.main([*options, task.tests], plugins=[_Timer(task, told)]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _read(place: Path, status: int) -> Ended:
    """How a fork ended, by what it wrote and by its exit status; its files are removed."""
    found, begun = Ended("passed"), ""
    if (place / "told").exists():
        for line in (place / "told").read_text().splitlines():
            what = json.loads(line)
            begun = what.get("begun", begun)
            if "failed" in what:
                found.failed.append(what["failed"])
                found.output = what["output"]
            elif "ended" in what:
                found.seconds[what["ended"]] = what["seconds"]
    if not found.output and (place / "output").exists():
        found.output = (place / "output").read_text(errors="replace")[-2000:]
    if found.failed:
        found.status, found.test = "failed", found.failed[0]
    elif os.WIFSIGNALED(status):
        timeout = os.WTERMSIG(status) == signal.SIGALRM
        found.status, found.test = ("timeout" if timeout else "crashed"), begun
    elif os.WEXITSTATUS(status):
        found.status = "crashed"  # an import that fails, or an exit in the middle of a test
        found.test = begun
    shutil.rmtree(place, ignore_errors=True)
    return found
