"""Runs tests in forks of a process that has imported what tests need, and computed nothing.

JAX has no threads then: a fork has only the thread that forked. Three kinds of forks run tests:

- of the first process, which has not imported the library: one module is imported in a changed
  form, or all of those that judge in a form that marks what is reached (`probes`);
- of a process that has collected the tests of some modules: the changed functions get their new
  code, wherever they are referred to. Files whose import computes with JAX are collected in the
  fork.

Each test may take so many seconds as its own run without a change allows: a timer of the fork ends
it, in whatever code it hangs.
"""

from __future__ import annotations

import ast
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

from assurance.mutation import probes, table

IMPORTED = (
    "blake3 cbor2 concurrent.futures cryptography.exceptions "
    "cryptography.hazmat.primitives.asymmetric.ed25519 hypothesis hypothesis.stateful jax "
    "jax.experimental.sparse jax.export jax.extend.core jax.numpy jaxtyping numpy pyblst "
    "py_arkworks_bls12381 py_ecc.bls pytest safetensors.numpy scipy.optimize scipy.special "
    "scipy.stats sqlite3"
).split()
COLLECTING = 120  # seconds to import the library and the tests
NOTHING = "tests/helpers"  # a folder without tests
NEEDS_IMPORT = 77
"""Exit status of a fork in which the changed functions cannot get their new code."""


class NeedsImportError(Exception):
    """A change of code that only a new import of its module can make."""


@dataclass(frozen=True, slots=True)
class ForkTask:
    """Tests to run with one module changed, or with none.

    Attributes:
      files: files of tests, or single tests, to collect.
      late: those of them that compute with JAX when they are imported.
      tests: names of tests in the order in which they run; empty for all, in their own order.
      limits: seconds that a test may take, by its name.
      module: the changed module, if there is one.
      tree: its syntax tree.
      every: whether to go on after a failure.
    """

    files: Sequence[str]
    late: Sequence[str] = ()
    tests: Sequence[str] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    module: str = ""
    tree: Callable[[], ast.Module] | None = None
    every: bool = False


class ChangedModules(importlib.abc.MetaPathFinder):
    """Finds some modules, and gives them the code of changed trees."""

    def __init__(self, trees: Mapping[str, ast.Module], names: Mapping[str, Any] | None = None):
        """With `names` in each of the modules."""
        self.codes = {name: compile(tree, _path(name), "exec") for name, tree in trees.items()}
        self.names = dict(names or {})

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        """Where a module comes from, if it is one of these."""
        if name not in self.codes:
            return None
        loader = _Loader(name, _path(name))
        loader.code, loader.names = self.codes[name], self.names
        return importlib.util.spec_from_file_location(name, loader.path, loader=loader)


class _Loader(importlib.machinery.SourceFileLoader):
    code: CodeType
    names: dict[str, Any]

    def get_code(self, fullname: str) -> CodeType:
        return self.code

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(self.names)
        super().exec_module(module)


class Functions:
    """All functions of modules that have been imported."""

    def __init__(self, modules: Sequence[str]):
        """Before the garbage collector leaves them out."""
        self.found: dict[str, list[FunctionType]] = {module: [] for module in modules}
        files = {_path(module): module for module in modules}
        for each in gc.get_objects():
            if type(each) is FunctionType and each.__code__.co_filename in files:
                self.found[files[each.__code__.co_filename]].append(each)

    def change(self, module: str, tree: ast.Module) -> None:
        """Give the functions of a module their code of a changed tree.

        Raises:
          NeedsImportError: if one of them cannot take it.
        """
        codes: dict[tuple[str, int], list[CodeType]] = {}
        for code in _codes(compile(tree, _path(module), "exec", dont_inherit=True)):
            codes.setdefault((code.co_qualname, code.co_firstlineno), []).append(code)
        for function in self.found[module]:
            old = function.__code__
            new = codes.get((old.co_qualname, old.co_firstlineno), [])
            if len(new) != 1 or new[0] == old:
                continue
            if new[0].co_freevars != old.co_freevars:
                raise NeedsImportError(old.co_qualname)
            function.__code__ = new[0]


class Runner:
    """A plugin of pytest that runs the tests of a task, and writes down what happens.

    A test that takes too long ends the process.
    """

    def __init__(self, task: ForkTask, place: Path | None, reached: probes.Reached | None = None):
        """Of a task; its fork may write into the folder `place`."""
        self.task, self.reached, self.failed = task, reached, False
        if place is not None:
            self.begin(task, place)

    def begin(self, task: ForkTask, place: Path) -> None:
        """In the fork: take up a task."""
        self.task = task
        self.place = place
        self.told = io.TextIOWrapper(io.FileIO(place / "told", "w"), write_through=True)
        signal.setitimer(signal.ITIMER_REAL, COLLECTING)

    def tell(self, **what: Any) -> None:
        """Write down something."""
        self.told.write(json.dumps(what) + "\n")

    def pytest_sessionstart(self) -> None:
        """Have property tests try the same examples each time."""
        from hypothesis import Phase, settings  # noqa: PLC0415 - after conftest made its profile

        settings.register_profile(
            "mutation",
            settings.get_profile("verifiable"),
            database=None,
            derandomize=True,
            phases=(Phase.explicit, Phase.generate),
        )
        settings.load_profile("mutation")

    def pytest_runtestloop(self, session: Any) -> bool:
        """Run the tests of the task instead of all that were collected."""
        if session.testsfailed:
            self.tell(failed=self.task.files[0], output="cannot be collected")
            return True
        if self.reached is not None:
            self.tell(imported=self.reached.take(), quiet=threads() == 1)
        self.run(session)
        return True

    def run(self, session: Any) -> None:
        """Run the tests of the task, in its order."""
        factory = session.config._tmp_path_factory
        factory._given_basetemp, factory._basetemp = self.place / "tmp", None
        items = {item.nodeid: item for item in session.items}
        late: dict[str, Any] = {}
        order: list[Any] = [*self.task.tests] or [*items]
        for at, name in enumerate(order):
            if name not in items and self.task.late and not late:
                late = {each.nodeid: each for each in session.perform_collect(self.task.late)}
            own = items if name in items else late
            if name not in own:
                self.tell(failed=name, output="is no test any more")
                self.failed = True
            else:
                following = own.get(order[at + 1]) if at + 1 < len(order) else None
                item = own[name]
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed and not self.task.every:
                break
        self.tell(done=True)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Begin to count the seconds of a test."""
        self.tell(begun=nodeid)
        signal.setitimer(signal.ITIMER_REAL, self.task.limits.get(nodeid, COLLECTING))
        self.began = time.monotonic()

    def pytest_collectreport(self, report: Any) -> None:
        """Write down a file that cannot be imported."""
        if report.failed and hasattr(self, "told"):
            self.failed = True
            self.tell(failed=report.nodeid, output=str(report.longrepr)[-2000:])

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Write down a failure."""
        if report.failed:
            self.failed = True
            self.tell(failed=report.nodeid, output=str(report.longrepr)[-2000:])

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Write down how long a test took."""
        more = {} if self.reached is None else {"reached": self.reached.take()}
        self.tell(ended=nodeid, seconds=time.monotonic() - self.began, **more)
        signal.setitimer(signal.ITIMER_REAL, COLLECTING)


class Collected(Runner):
    """A plugin of pytest whose process is the origin of forks, once it has collected tests."""

    def __init__(self, task: ForkTask, modules: Sequence[str], serve: Callable[..., None]):
        """Of the modules whose functions are changed; `serve` is given this."""
        super().__init__(task, None)
        self.modules, self.serve = modules, serve

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self) -> None:
        """Find all functions, before the garbage collector leaves them out."""
        if hasattr(self, "functions"):
            return
        for module in self.modules:
            importlib.import_module(module)
        for file in self.task.late:
            _import_what_is_needed(file)
        self.functions = Functions(self.modules)

    def pytest_runtestloop(self, session: Any) -> bool:
        """Serve, instead of running tests."""
        if session.testsfailed:
            raise RuntimeError(f"{session.testsfailed} files cannot be collected")
        self.serve(self, session)
        return True

    def change_and_run(self, session: Any, task: ForkTask, place: Path) -> None:
        """In a fork: run a task's tests with its change."""
        self.begin(task, place)
        if task.tree is not None:
            self.functions.change(task.module, task.tree())
        self.run(session)


def threads() -> int:
    """How many threads this process has, XLA's among them."""
    return len(list(Path("/proc/self/task").iterdir()))


def prepare(cache: Path) -> None:
    """Import what all forks need, and keep bytecode in a folder: that of tests too."""
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(cache / "bytecode")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for name in IMPORTED:
        try:
            importlib.import_module(name)
        except ImportError:
            print(f"not installed: {name}", file=sys.stderr)
    if imported := {"verifiable", "protocols"}.intersection(sys.modules):
        raise RuntimeError(f"{imported} must be imported by the forks alone")


def collect_and_run(files: Sequence[str], plugin: Runner, folder: Path) -> None:
    """Run pytest in this process, which may write into a folder."""
    os.chdir(table.ROOT)
    # Plugins of pytest that are imported already could not be rewritten any more.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = "-o addopts= --import-mode=importlib -q -p no:cacheprovider --tb=short -rN".split()
    options.append(f"--basetemp={folder / 'tmp'}")
    pytest.main([*options, *(files or [NOTHING])], plugins=[plugin])


def _import_what_is_needed(file: str) -> None:
    """Import what a file of tests imports, but for helpers: those may compute with JAX."""
    tree = ast.parse((table.ROOT / file.partition("::")[0]).read_text())
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        for name in names:
            if name.partition(".")[0] != "tests":
                importlib.import_module(name)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _path(module: str) -> str:
    return str(table.source(module))
