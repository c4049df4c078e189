"""`python -m assurance.mutation [--sample N] [--seed S] [--jobs N] [--out FILE] [MODULE ...]`

Tests a sample of all mutants of the modules in `table.TESTS`, or of the named ones. The sample of a
seed begins with every smaller sample of it. What FILE already holds of unchanged modules is not
run again; `--again` runs its survivors once more, after tests were added. FILE is written as the
run goes on.

Before the first mutant, each file of tests is run once to see what each test reaches (`record`),
and once more in the order and in the way of mutants, without a change. Both are kept in the folder
`--cache` for as long as the library and the file do not change.

A mutant is killed when a test fails, crashes, or takes twenty times as long as without the change
and ten seconds more. Equivalent mutants (`equivalent.json`, each with its reason) count as
survivors. The exit status is 1 if fewer than 97 % are killed.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from assurance.mutation import programs, record, table, warm
from assurance.mutation.forks import Ended, Forks
from assurance.mutation.operators import Mutant
from assurance.mutation.probes import Probes
from assurance.mutation.record import FileRecord, TestRecord
from assurance.mutation.results import BAR, Results
from assurance.mutation.warm import ForkTask

OUT = table.ROOT / "assurance" / "results" / "mutation.json"
CACHE = table.ROOT / ".pytest_cache" / "mutation"

KEEPING = 10  # seconds between two writes of the file
Files = tuple[str, ...]


class MutationRun:
    """Runs mutants, each against the tests that can notice it."""

    def __init__(
        self, results: Results, wanted: list[Mutant], jobs: int, minutes: float, cache: Path
    ):
        """Of so many forks at a time; no mutant begins after so many minutes."""
        self.results, self.cache = results, cache
        self.began = self.kept = time.monotonic()
        self.before = results.seconds
        self.until = self.began + 60 * minutes
        self.wanted = {mutant.name: mutant for mutant in wanted}
        self.probes = Probes(results.sources)
        self.records: dict[str, FileRecord] = {}
        self.done: Counter[str] = Counter()
        warm.prepare(cache)
        self.forks = Forks(jobs, programs.folder_in(cache), self.probes)

    def everything(self) -> None:
        """Run the tests without a change, then the mutants."""
        try:
            groups = dict.fromkeys(table.TESTS[each.module] for each in self.wanted.values())
            self.record(dict.fromkeys(file for files in groups for file in files))
            self.check(groups)
            self.run_mutants()
        finally:
            self.forks.close()
        self.keep()

    def keep(self) -> None:
        """Write what is known."""
        self.kept = time.monotonic()
        self.results.seconds = self.before + time.monotonic() - self.began
        self.results.write()

    def record(self, files: Iterable[str]) -> None:
        """See what each test reaches."""
        queue: list[str] = []
        for file in files:
            if (found := FileRecord.read(self.cache, file)) is None:
                queue.append(file)
            else:
                self.records[file] = found
        # Those of claims take longest.
        queue.sort(key=lambda file: ("/claims/" in file, file))
        while queue or self.forks.running:
            while queue and self.forks.free:
                file = queue.pop()
                self.forks.run(file, ForkTask((file,), every=True), marks=True)
            file, ended = self.forks.next()
            found = FileRecord(file, failed=list(dict.fromkeys(ended.failed)))
            _say(file, ended)
            if ended.imported and (ended.status == "passed" or ended.failed):
                found.quiet, found.imported = ended.imported["quiet"], ended.imported["imported"]
                found.tests = [
                    TestRecord(each["ended"], each["seconds"], each["reached"])
                    for each in ended.tests
                ]
                found.write(self.cache)
            else:
                found.failed.append(file)
            self.records[file] = found
        self.results.left_out = [name for found in self.records.values() for name in found.failed]

    def check(self, groups: Iterable[Files]) -> None:
        """Run the tests of modules as for mutants: those that fail are left out."""
        queue = [group for group in groups if not self._checked(group)]
        while queue or self.forks.running:
            while queue and self.forks.free:
                group = queue.pop()
                tests = record.in_order([self.records[file] for file in group], None)
                self._run_collected(group, group, "", tests)
            group, ended = self.forks.next()
            _say(f"{group[0]} and the others in the order of mutants", ended)
            seconds = {each["ended"]: each["seconds"] for each in ended.tests}
            for file in group:
                found = self.records[file]
                for test in found.tests:
                    test.seconds = seconds.get(test.name, test.seconds)
                    if test.name in ended.failed or test.name not in seconds:
                        found.failed.append(test.name)
                found.checked.append(" ".join(group))
                found.write(self.cache)
        self.results.left_out = [name for found in self.records.values() for name in found.failed]

    def run_mutants(self) -> None:
        """Run all mutants, until the time is over."""
        queue = list(reversed(self.wanted.values()))
        while True:
            while queue and self.forks.free and time.monotonic() < self.until:
                self._begin(queue.pop())
            if not self.forks.running:
                return
            mutant, ended = self.forks.next()
            self.results.cpu += ended.cpu
            if ended.status == "import":
                self._begin(mutant, imported=True)
            else:
                self._end(mutant, ended)

    def _begin(self, mutant: Mutant, *, imported: bool = False) -> None:
        """Run a mutant in a fork, by an import or by new code of functions."""
        files = table.TESTS[mutant.module]
        records = [self.records[file] for file in files]
        statement = self.probes.of(mutant.module, mutant.way)
        at_import = {number for found in records for number in found.imported}
        inside = set(self.probes.numbers[mutant.module].values()) - at_import
        tests = record.in_order(records, statement, inside)
        if imported or statement in at_import:
            names = [test.name for test in tests]
            task = self._task(files, mutant.name, names, _limits(tests))
            self.forks.run(mutant, task)
        else:
            self._run_collected(mutant, files, mutant.name, tests)

    def _end(self, mutant: Mutant, ended: Ended) -> None:
        """Write down what became of a mutant."""
        self.results.tested[mutant.name] = [ended.status, ended.test]
        self.done[ended.status] += 1
        if ended.status != "failed":
            place = f"{mutant.module}:{mutant.line}"
            change = f"{mutant.before}  ->  {mutant.after}"
            print(f"{ended.status} {place} {change}  {ended.test} {ended.cpu:.1f} s", flush=True)
        if time.monotonic() > self.kept + KEEPING:
            cpu = self.results.cpu / len(self.results.tested)
            print(
                f"{self.done.total()} of {len(self.wanted)}: {dict(self.done)}, {cpu:.2f} s each",
                flush=True,
            )
            self.keep()

    def _run_collected(
        self, key: Any, group: Files, name: str, tests: Sequence[TestRecord]
    ) -> None:
        """Run tests in a fork of the process that has collected a group's files."""
        if group not in self.forks.origins:
            modules = [module for module, files in table.TESTS.items() if files == group]
            self.forks.start(group, self._task(group), modules, lambda m: self._task(group, *m))
        names = [test.name for test in tests]
        self.forks.run_collected(key, group, [name, names, _limits(tests) if name else {}])

    def _task(
        self,
        files: Files,
        name: str = "",
        tests: Sequence[str] = (),
        limits: Mapping[str, float] | None = None,
    ) -> ForkTask:
        """Tests of a mutant, or of the unchanged modules."""
        known = [file for file in files if file not in self.records[file].failed]
        late = [file for file in known if not self.records[file].quiet]
        if not name:
            return ForkTask(known, late, tests, every=True)
        mutant = self.wanted[name]
        tree = lambda: mutant.tree(self.results.sources[mutant.module])  # noqa: E731
        return ForkTask(known, late, tests, limits or {}, mutant.module, tree)

    def _checked(self, group: Files) -> bool:
        return all(" ".join(group) in self.records[file].checked for file in group)


def _limits(tests: Sequence[TestRecord]) -> dict[str, float]:
    """Seconds that each test may take."""
    return {test.name: 10 + 20 * test.seconds for test in tests}


def _say(name: str, ended: Ended) -> None:
    """Print how tests without a change went."""
    took = sum(each["seconds"] for each in ended.tests)
    print(f"{ended.status:<8} {len(ended.tests):>4} tests {took:6.1f} s  {name}", flush=True)
    if ended.status != "passed":
        print(ended.failed, ended.output, flush=True)


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m assurance.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="dotted names; all if none")
    parser.add_argument("--sample", type=int, default=sys.maxsize, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="forks at a time")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no mutant after so many"
    )
    parser.add_argument("--again", action="store_true", help="run the survivors once more")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="FOLDER")
    options = parser.parse_args()
    if unknown := set(options.modules).difference(table.TESTS):
        parser.error(f"no tests are named for {', '.join(sorted(unknown))}")
    command = f"{parser.prog} {shlex.join(sys.argv[1:])}"
    results = Results(options.out, options.modules or list(table.TESTS), command)
    wanted = [
        mutant
        for mutant in results.sample(options.seed, sys.maxsize if options.again else options.sample)
        if results.tested.get(mutant.name, [""])[0] == ("passed" if options.again else "")
    ]
    print(f"{len(wanted)} mutants of {sum(map(len, results.all.values()))}", flush=True)
    MutationRun(results, wanted, options.jobs, options.minutes, options.cache).everything()
    found = results.write()
    print(f"{found['killed']} of {found['tested']} killed, {options.out}")
    return 0 if found["tested"] and found["killed"] >= BAR * found["tested"] else 1


if __name__ == "__main__":
    sys.exit(main())
