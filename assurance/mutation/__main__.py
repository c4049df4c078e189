"""`python -m assurance.mutation [--sample N] [--seed S] [--jobs N] [--out FILE] [MODULE ...]`

Tests a sample of all mutants of the modules in `table.TESTS`, or of the named ones. The sample of a
seed begins with every smaller sample of it. What FILE already holds of unchanged modules is not
run again; `--again` runs its survivors once more, after tests were added. FILE is written as the
run goes on.

A mutant is killed when a test fails, crashes, or takes twenty times as long as without the change
and ten seconds more. Equivalent mutants (`equivalent.json`, each with its reason) count as
survivors. The exit status is 1 if fewer than 97 % are killed.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import platform
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from assurance.mutation import table, warm
from assurance.mutation.operators import OPERATORS, Mutant, mutants
from benchmarks.harness import machine

BAR = 0.97
EQUIVALENT = Path(__file__).parent / "equivalent.json"
OUT = table.ROOT / "assurance" / "results" / "mutation.json"
PACKAGES = "jax jaxlib numpy pytest hypothesis".split()


class Results:
    """What is known of every mutant, kept in a file."""

    def __init__(self, path: Path, chosen: list[str], command: str):
        """Of the chosen modules; with what the file knows of them, if it exists."""
        self.path, self.command = path, command
        self.sources = {module: table.source(module).read_text() for module in table.TESTS}
        self.all = {module: list(mutants(module, self.sources[module])) for module in chosen}
        self.tested: dict[str, list[str]] = {}
        self.seconds = 0.0
        self.left_out: list[str] = []
        if path.exists():
            kept = json.loads(path.read_text())
            self.seconds = kept["seconds"]
            names = {mutant.name for found in self.all.values() for mutant in found}
            for name, verdict in kept["tested"].items():
                source = kept["modules"].get(name.partition(":")[0], {}).get("source")
                if name in names and source == self.digest(name.partition(":")[0]):
                    self.tested[name] = verdict

    def digest(self, module: str) -> str:
        """Of a module's source: a change makes its results stale."""
        return hashlib.sha256(self.sources.get(module, "").encode()).hexdigest()[:16]

    def sample(self, seed: int, size: int) -> list[Mutant]:
        """The first mutants in an order that only the seed and their names decide."""
        everyone = [mutant for found in self.all.values() for mutant in found]
        everyone.sort(key=lambda m: hashlib.sha256(f"{seed} {m.name}".encode()).digest())
        return everyone[:size]

    def write(self) -> dict[str, Any]:
        """Write all that is known; returns it."""
        modules = self._modules()
        survived = self._survived()
        tested = sum(found["tested"] for found in modules.values())
        lived = sum(found["survived"] for found in modules.values())
        found = {
            "name": "mutation",
            "claim": f"At least {BAR:.0%} of the mutants of the modules that judge are killed",
            "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            "command": self.command,
            "machine": machine(),
            "versions": {"python": platform.python_version()}
            | {package: importlib.metadata.version(package) for package in PACKAGES},
            "seconds": round(self.seconds),
            "operators": OPERATORS,
            "mutants": sum(found["mutants"] for found in modules.values()),
            "tested": tested,
            "killed": tested - lived,
            "share": round((tested - lived) / tested, 4) if tested else None,
            "equivalent": sum(each["equivalent"] is not None for each in survived),
            "tests_left_out": sorted(self.left_out),
            "modules": modules,
            "survived": survived,
        }
        lines = json.dumps(found, indent=1, ensure_ascii=False)[:-2]
        names = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(verdict)}"
            for name, verdict in sorted(self.tested.items())
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(f'{lines},\n "tested": {{\n{names}\n }}\n}}\n')
        return found

    def _modules(self) -> dict[str, dict[str, Any]]:
        modules: dict[str, dict[str, Any]] = {}
        for module, found in self.all.items():
            verdicts = [v[0] for name, v in self.tested.items() if name.startswith(module + ":")]
            count = Counter(verdicts)
            modules[module] = {
                "source": self.digest(module),
                "mutants": len(found),
                "tested": len(verdicts),
                **{status: count[status] for status in ("failed", "crashed", "timeout")},
                "survived": count["passed"],
            }
        return modules

    def _survived(self) -> list[dict[str, Any]]:
        known = {m.name: m for found in self.all.values() for m in found}
        reasons = {
            (each["module"], each["scope"], each["before"], each["after"]): each["reason"]
            for each in json.loads(EQUIVALENT.read_text())
        }
        return [
            {
                "name": name,
                "line": m.line,
                "before": m.before,
                "after": m.after,
                "equivalent": reasons.get((m.module, m.scope, m.before, m.after)),
            }
            for name, m in ((name, known[name]) for name in sorted(self.tested))
            if self.tested[name][0] == "passed"
        ]


class MutationRun:
    """Runs mutants, each against one file of its tests after the other."""

    def __init__(self, results: Results, wanted: list[Mutant], jobs: int, minutes: float):
        """Of so many forks at a time; no mutant begins after so many minutes."""
        self.results, self.jobs = results, jobs
        self.began, self.before = time.monotonic(), results.seconds
        self.until = self.began + 60 * minutes
        self.queue = [(mutant, 0) for mutant in reversed(wanted)]
        self.size = len(wanted)
        self.done: Counter[str] = Counter()
        self.running: dict[int, tuple[Mutant, int, warm.ForkTask]] = {}
        self.seconds: dict[str, dict[str, float]] = {}
        self.failed: list[str] = []

    def everything(self) -> None:
        """Run the tests without a change, then the mutants."""
        folder = warm.prepare()
        try:
            modules = {mutant.module for mutant, _ in self.queue}
            files = dict.fromkeys(file for module in modules for file in table.TESTS[module])
            # Those of claims take longest.
            tasks = [
                warm.ForkTask(file, every=True)
                for file in sorted(files, key=lambda f: ("/claims/" not in f, f))
            ]
            take = lambda: tasks.pop(0) if tasks else None  # noqa: E731
            warm.run_all(take, folder, self.jobs, self.unchanged)
            self.results.left_out = self.failed
            warm.run_all(self.take, folder, self.jobs, self.ended)
        finally:
            warm.clean(folder)
        self.keep()

    def keep(self) -> None:
        """Write what is known."""
        self.results.seconds = self.before + time.monotonic() - self.began
        self.results.write()

    def unchanged(self, task: warm.ForkTask, found: warm.Ended) -> None:
        """Remember how long tests take, and which fail on this machine without a change."""
        took = sum(found.seconds.values())
        print(
            f"{found.status:<8} {len(found.seconds):>4} tests {took:6.1f} s  {task.tests}",
            flush=True,
        )
        self.seconds[task.tests] = found.seconds
        self.failed.extend(found.failed)
        if found.status != "passed":
            print(found.output, flush=True)
        if not found.failed and (found.status != "passed" or not found.seconds):
            self.failed.append(task.tests)

    def take(self) -> warm.ForkTask | None:
        """The next file of tests for a mutant, beginning with those that survived some."""
        if not self.queue or (time.monotonic() > self.until and not self.queue[-1][1]):
            return None
        mutant, at = self.queue.pop()
        file = self.files(mutant)[at]
        task = warm.ForkTask(
            tests=file,
            module=mutant.module,
            tree=lambda: mutant.tree(self.results.sources[mutant.module]),
            left_out=self.failed,
            limits={test: 10 + 20 * s for test, s in self.seconds[file].items()},
        )
        self.running[id(task)] = mutant, at, task
        return task

    def files(self, mutant: Mutant) -> list[str]:
        """The files of tests that run on this machine."""
        return [file for file in table.TESTS[mutant.module] if file not in self.failed]

    def ended(self, task: warm.ForkTask, found: warm.Ended) -> None:
        """Go on to the next file of tests, or write down what became of the mutant."""
        mutant, at, _ = self.running.pop(id(task))
        if found.status == "passed" and at + 1 < len(self.files(mutant)):
            self.queue.append((mutant, at + 1))
            return
        self.results.tested[mutant.name] = [found.status, found.test]
        self.done[found.status] += 1
        if found.status != "failed":
            place = f"{mutant.module}:{mutant.line}"
            change = f"{mutant.before}  ->  {mutant.after}"
            print(f"{found.status} {place} {change}  {found.test}", flush=True)
        if self.done.total() % 20 == 0:
            print(f"{self.done.total()} of {self.size}: {dict(self.done)}", flush=True)
            self.keep()


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
    MutationRun(results, wanted, options.jobs, options.minutes).everything()
    found = results.write()
    print(f"{found['killed']} of {found['tested']} killed, {options.out}")
    return 0 if found["tested"] and found["killed"] >= BAR * found["tested"] else 1


if __name__ == "__main__":
    sys.exit(main())
