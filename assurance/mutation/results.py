"""The results file: reads it, chooses the sample, counts, and writes it whole."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import platform
from collections import Counter
from pathlib import Path
from typing import Any

from assurance.mutation import table
from assurance.mutation.operators import OPERATORS, Mutant, mutants
from assurance.mutation.programs import machine

BAR = 0.97
EQUIVALENT = Path(__file__).parent / "equivalent.json"
IDENTIFIED = "module scope before after occurrence".split()
PACKAGES = "jax jaxlib numpy pytest hypothesis".split()


class Results:
    """What is known of every mutant, kept in a file."""

    def __init__(self, path: Path, chosen: list[str], command: str):
        """Of the chosen modules; with what the file knows of them, if it exists."""
        self.path, self.command = path, command
        self.sources = {module: table.source(module).read_text() for module in table.TESTS}
        self.all = {module: list(mutants(module, self.sources[module])) for module in chosen}
        self.tested: dict[str, list[str]] = {}
        self.seconds = self.cpu = 0.0
        self.left_out: list[str] = []
        if path.exists():
            kept = json.loads(path.read_text())
            self.seconds, self.cpu = kept["seconds"], kept.get("cpu_seconds", 0.0)
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
            "cpu_seconds": round(self.cpu),
            "cpu_seconds_per_mutant": round(self.cpu / len(self.tested), 2)
            if self.tested
            else None,
            "operators": OPERATORS,
            "mutants": sum(found["mutants"] for found in modules.values()),
            "tested": tested,
            "killed": tested - lived,
            "share": round((tested - lived) / tested, 4) if tested else None,
            "interval_95": interval(tested - lived, tested),
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
        part = self.path.with_name(f"{self.path.name}.part")
        part.write_text(f'{lines},\n "tested": {{\n{names}\n }}\n}}\n')
        part.replace(self.path)
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
            tuple(each[key] for key in IDENTIFIED): each["reason"]
            for each in json.loads(EQUIVALENT.read_text())
        }
        return [
            {
                "name": name,
                "line": m.line,
                "before": m.before,
                "after": m.after,
                "equivalent": reasons.get(tuple(getattr(m, key) for key in IDENTIFIED)),
            }
            for name, m in ((name, known[name]) for name in sorted(self.tested))
            if self.tested[name][0] == "passed"
        ]


def interval(killed: int, tested: int) -> list[float] | None:
    """Clopper and Pearson's interval of 95 % for the share killed, of a random sample."""
    from scipy import stats  # noqa: PLC0415 - whose threads no fork would have

    if not tested:
        return None
    low = stats.beta.ppf(0.025, killed, tested - killed + 1) if killed else 0.0
    high = stats.beta.ppf(0.975, killed + 1, tested - killed) if killed < tested else 1.0
    return [round(float(low), 4), round(float(high), 4)]
