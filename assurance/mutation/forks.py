"""Runs tasks in forks, several at a time, each on a core of its own where there are as many.

Each fork has a parent that does nothing but wait for it: it ends what the fork leaves behind, and
says in a pipe that the fork has ended.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assurance.mutation import programs, warm
from assurance.mutation.probes import NAME, Probes, Reached
from assurance.mutation.warm import ChangedModules, Collected, ForkTask, NeedsImportError, Runner

ADDRESSES = 24 * 2**30  # bytes that a fork may map: some changes ask for all memory


@dataclass
class Ended:
    """How a fork ended.

    Attributes:
      status: "passed", "failed", "timeout", "crashed", or "import" if the change asks for one.
      test: the test that failed or did not end.
      tests: what is written of every test that ended.
      imported: what is written of the import of the tests.
      failed: all tests that failed.
      output: the end of what it printed.
      cpu: seconds of all cores together.
    """

    status: str
    test: str = ""
    tests: list[dict[str, Any]] = field(default_factory=list)
    imported: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    output: str = ""
    cpu: float = 0.0


class Forks:
    """Forks of this process, and of processes that have collected tests."""

    def __init__(self, jobs: int, cache: Path, marked: Probes):
        """So many at a time; what they compiled is kept in the folder `cache`."""
        self.cores = sorted(os.sched_getaffinity(0))
        self.free = list(range(jobs))
        self.pinned = jobs > 1
        self.probes = marked
        self.folder = Path(tempfile.mkdtemp(prefix="mutation-"))
        self.ended, self.tell = os.pipe()
        self.running: dict[int, tuple[Any, int]] = {}
        self.number = 0
        self.origins: dict[Any, int] = {}
        programs.keep(cache)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what waits for forks is not waited for

    def close(self) -> None:
        """End all processes, and remove their files."""
        for pipe in self.origins.values():
            os.close(pipe)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        time.sleep(0.1)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, key: Any, task: ForkTask, *, marks: bool = False) -> None:
        """Begin a task whose modules are imported anew.

        Args:
          key: what `next` gives back.
          task: what to run.
          marks: whether all modules that judge are to mark what is reached.
        """
        place, cores = self._begin(key)

        def work() -> None:
            programs.writing = task.tree is None
            reached = None
            changed = {} if task.tree is None else {task.module: task.tree()}
            names: dict[str, Any] = {}
            if marks:
                reached = Reached(self.probes.size)
                changed = {module: self.probes.tree(module) for module in self.probes.sources}
                names[NAME] = reached.memory
            sys.meta_path.insert(0, ChangedModules(changed, names))
            first = [file for file in task.files if file not in task.late]
            warm.collect_and_run(first, Runner(task, place, reached), place)

        self._fork(self.number, place, cores, work)

    def run_collected(self, key: Any, origin: Any, message: Any) -> None:
        """Begin a task in a fork of an origin, which gets the message."""
        place, cores = self._begin(key)
        (place / "message").write_text(json.dumps([sorted(cores), message]))
        os.write(self.origins[origin], f"{self.number}\n".encode())

    def start(
        self,
        origin: Any,
        task: ForkTask,
        modules: Sequence[str],
        make: Callable[[Any], ForkTask],
    ) -> None:
        """Start a process that collects the files of a task and serves as the origin of forks.

        Args:
          origin: its name.
          task: the files.
          modules: what its forks may change.
          make: a fork's task from the message that it gets.
        """
        read, self.origins[origin] = os.pipe()
        place = self.folder / f"origin{len(self.origins)}"
        place.mkdir()
        if os.fork():
            os.close(read)
            return
        try:
            for pipe in self.origins.values():
                os.close(pipe)
            _redirect(place)
            first = [file for file in task.files if file not in task.late]

            def serve(plugin: Collected, session: Any) -> None:
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
                with os.fdopen(read) as lines:
                    for line in lines:
                        place = self.folder / f"fork{int(line)}"
                        cores, message = json.loads((place / "message").read_text())

                        def work(message: Any = message, place: Path = place) -> None:
                            made = make(message)
                            programs.writing = made.tree is None
                            plugin.change_and_run(session, made, place)

                        self._fork(int(line), place, set(cores), work)
                os._exit(0)

            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            warm.collect_and_run(first, Collected(task, modules, serve), place)
            os.write(self.tell, f"-{place}\n".encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def next(self) -> tuple[Any, Ended]:
        """Wait for one task's end."""
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(self.ended, 1)
        if line.startswith(b"-"):
            raise RuntimeError((Path(line[1:-1].decode()) / "output").read_text()[-4000:])
        number = int(line)
        key, slot = self.running.pop(number)
        self.free.append(slot)
        return key, _read(self.folder / f"fork{number}")

    def _begin(self, key: Any) -> tuple[Path, set[int]]:
        self.number += 1
        slot = self.free.pop()
        self.running[self.number] = key, slot
        place = self.folder / f"fork{self.number}"
        place.mkdir()
        cores = {self.cores[slot % len(self.cores)]} if self.pinned else set(self.cores)
        return place, cores

    def _fork(self, number: int, place: Path, cores: set[int], work: Callable[[], None]) -> None:
        """Run `work` in a fork of a fork, which waits for it."""
        if (threads := warm.threads()) > 1:
            raise RuntimeError(f"a fork would lack {threads - 1} of this process's threads")
        if os.fork():
            return
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        child = os.fork()
        if not child:
            _work(place, cores, work)
        _, status, usage = os.wait4(child, 0)
        try:
            os.killpg(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        finally:
            (place / "status").write_text(json.dumps([status, usage.ru_utime + usage.ru_stime]))
            os.write(self.tell, f"{number}\n".encode())
            os._exit(0)


def _redirect(place: Path) -> None:
    output = os.open(place / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _work(place: Path, cores: set[int], work: Callable[[], None]) -> None:
    """In the fork: do the work and exit."""
    status = 3
    try:
        os.setsid()
        os.sched_setaffinity(0, cores)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        _redirect(place)
        work()
        status = 0
    except NeedsImportError:
        status = warm.NEEDS_IMPORT
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _read(place: Path) -> Ended:
    """How a fork ended, by what it wrote and by its exit status; its files are removed."""
    found, begun, done = Ended("passed"), "", False
    if (place / "told").exists():
        for line in (place / "told").read_text().splitlines():
            what = json.loads(line)
            begun = what.get("begun", begun)
            done = done or "done" in what
            if "failed" in what:
                found.failed.append(what["failed"])
                found.output = what["output"]
            elif "ended" in what:
                found.tests.append(what)
            elif "imported" in what:
                found.imported = what
    status, found.cpu = json.loads((place / "status").read_text())
    if not found.output and (place / "output").exists():
        found.output = (place / "output").read_text(errors="replace")[-3000:]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == warm.NEEDS_IMPORT:
        found.status = "import"
    elif found.failed:
        found.status, found.test = "failed", found.failed[0]
    elif os.WIFSIGNALED(status):
        timeout = os.WTERMSIG(status) == signal.SIGALRM
        found.status, found.test = ("timeout" if timeout else "crashed"), begun
    elif not done:
        found.status = "crashed"  # an import that fails, or an exit in the middle of a test
        found.test = begun
    shutil.rmtree(place, ignore_errors=True)
    return found
