"""Whom the check rejects: no honest device, and every cheat that changes an answer.

*Honest.* Models and programs of `benchmarks.zoo`, none of which is in the test-suite, on the
devices of `verifiable.testing.devices`: compiled, op by op, and simulated ones whose every inexact
operation is off by up to one unit in the last place, independently or coherently. `rejected`
counts runs; `indeterminate_share` is the share of runs that were neither accepted nor rejected;
`worst_ratio` is the largest statistic as a fraction of its limit, over all claims and runs, at most
1e9 here. What was not accepted is listed by device and reason. `decision_share` is the share of the
trace that decisions are; `discontinuities` counts what stays indeterminate. `zoo.hazards` are
programs on which honest devices differ by more than rounding: none may be rejected.

*Ill-conditioned.* Glue that turns a last bit into any difference (`zoo.ill_conditioned`), in
batches of some 1,000 rows, 100,000 in all for each family.

*Cheats* (`trials`) are tried on every program. `all programs` sums up one cheat over programs.

*Second look.* The check of a run with one wrong claim, and the check of the honest run, called in
turn: `cost` is the first time over the second. `first_call` is the time of the first rejection,
compilation included, over the warm check of the honest run.

*Conviction.* Where a run is not accepted, each claim and output that failed is `accused`, whatever
the verdict was: evidence about it is made and judged. `convicted` counts the guilty ones.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import parallel
from benchmarks.cheats import Bench
from benchmarks.harness import Row, interleaved_medians
from benchmarks.trials import Cheated, cheated
from benchmarks.zoo import ZOO, flax_classes
from benchmarks.zoo.hazards import HAZARDS
from benchmarks.zoo.ill_conditioned import FAMILIES, Family
from benchmarks.zoo.subject import Inputs, Subject
from verifiable.challenge import secret
from verifiable.errors import Miscompiled
from verifiable.report import Verdict
from verifiable.testing import forging
from verifiable.testing.devices import NAMES, Answer, Device, devices, lanes, narrow_sums
from verifiable.trace import Trace

CLAIM = (
    "No honest run is rejected, whatever the model and however the device rounds; few are "
    "indeterminate; and no cheat that changes the answer beyond the stated corridor is accepted "
    "(on CPUs)."
)

# Bars that only some programs are held to.
DECISIONS = {
    **dict.fromkeys(
        """
        bert masked-words token-classes reranker retrieval late-interaction gpt2 llama gemma bloom
        t5 albert perceiver reward generation vit swin conformer w8a8 mixed-bfloat16
        """.split(),
        "<= 0.05",
    ),
    "leaky-relu-cnn": "<= 0.1",
}
COVERED = dict.fromkeys(
    ("moe-ragged", "moe-gathered", "float8", "zero-points", "sharded"), ">= 0.9"
)
NONE_LEFT = dict.fromkeys(
    "leaky-relu-cnn mamba moe-ragged moe-gathered temperature top-k top-p softcap".split(), "== 0"
)

QUICK = ("gru", "gcn")
QUICK_FAMILIES = ("layer norm of a constant row", "scalar heads, one a row")
RUNS = 8  # of each device on each model; "ulp coherent" has eight ways
JOBS = 2  # that each cheat is tried on, of each program
BATCH, ROWS = 1_000, 100_000
RENEWED = 16
ACCUSED = 3  # of each device and program, at least, where so many failed
LARGEST = 1e9


@dataclass(slots=True)
class Tally:
    """Verdicts on a number of runs."""

    runs: int = 0
    rejected: int = 0
    indeterminate: int = 0
    accused: int = 0
    convicted: int = 0
    worst: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, bench: Bench, inputs: Inputs, answer: Answer, device: str) -> None:
        """Check one run and count it."""
        report = bench.check(inputs, answer)
        if report.verdict is not Verdict.ACCEPT and self.accused < ACCUSED:
            guilty = list(bench.convictions(inputs, answer, report))
            self.accused += len(guilty)
            self.convicted += sum(guilty)
        self.runs += 1
        self.rejected += report.verdict is Verdict.REJECT
        self.indeterminate += report.verdict is Verdict.INDETERMINATE
        worst = report.worst if math.isfinite(report.worst) else LARGEST
        self.worst = max(self.worst, min(worst, LARGEST))
        if report.verdict is not Verdict.ACCEPT:
            self.reasons[f"{device}: {report.reason} ({report.verdict.value})"] += 1

    def merge(self, other: Tally) -> None:
        """Add the runs of another one."""
        self.runs += other.runs
        self.rejected += other.rejected
        self.indeterminate += other.indeterminate
        self.accused += other.accused
        self.convicted += other.convicted
        self.worst = max(self.worst, other.worst)
        self.reasons += other.reasons

    def rows(self, case: str, *, most: str | None) -> Iterator[Row]:
        """The counts, with the bar of the share of indeterminate runs; then each reason."""
        yield Row(case, "runs", self.runs, "1")
        yield Row(case, "rejected", self.rejected, "1", "== 0")
        yield Row(case, "accused", self.accused, "1")
        yield Row(case, "convicted", self.convicted, "1", "== 0")
        share = self.indeterminate / max(self.runs, 1)
        yield Row(case, "indeterminate_share", share, "1", most)
        yield Row(case, "worst_ratio", self.worst, "1")

    def listed(self, case: str) -> Iterator[Row]:
        """What was not accepted, by device and reason."""
        for reason, count in sorted(self.reasons.items()):
            yield Row(f"{case}, {reason}", "not_accepted", count, "1")


@dataclass(slots=True)
class ProgramVerdicts:
    """What one program of the zoo showed.

    Attributes:
      name: of the program.
      about: what is verified of it.
      tallies: honest runs, by device.
      costs: of a rejection.
      cheats: by name.
    """

    name: str
    about: list[Row]
    tallies: dict[str, Tally]
    costs: list[Row]
    cheats: dict[str, Cheated]

    def rows(self) -> Iterator[Row]:
        """Of the program alone."""
        yield from self.about
        yield from self.total.rows(self.name, most="<= 0.01")
        for cheat, found in self.cheats.items():
            yield from found.rows(f"{self.name}, {cheat}", most="<= 0.02")

    @property
    def total(self) -> Tally:
        """Honest runs on all devices."""
        total = Tally()
        for tally in self.tallies.values():
            total.merge(tally)
        return total


def rows(
    quick: bool, only: Collection[str] = (), jobs: int = 1, shards: str | None = None
) -> Iterator[Row]:
    """Measure programs, honest and cheated on, and the cost of rejections; then hard cases.

    Args:
      quick: two programs and two families.
      only: names of programs, hazards and families; all of them by default.
      jobs: how many are measured at once.
      shards: folder for what each showed, from which a run that was cut short goes on.
    """
    chosen = functools.partial(_chosen, only or None)
    names = chosen(_makers(), QUICK if quick else None)
    totals = {device: Tally() for device in NAMES}
    by_cheat: dict[str, Cheated] = {}
    costs: list[Row] = []
    listed: list[Row] = []
    parts = [functools.partial(measured, name, quick) for name in names]
    for found in parallel.in_order(parts, jobs, shards=shards):
        yield from found.rows()
        for device, tally in found.tallies.items():
            totals[device].merge(tally)
        listed += found.total.listed(found.name)
        costs += found.costs
        for cheat, tried in found.cheats.items():
            by_cheat.setdefault(cheat, Cheated()).merge(tried)
    if names:
        yield Row("honest", "models", len(names), "1", None if quick or only else ">= 60")
        for device, tally in totals.items():
            yield from tally.rows(f"all models, {device}", most="<= 0.01")
        yield from listed
        for cheat, tried in by_cheat.items():
            yield from tried.rows(f"all programs, {cheat}", most="<= 0.02")
        yield from costs
        if not only:
            yield from summary(costs)
    hard = [functools.partial(_hazard, name) for name in chosen(HAZARDS, () if quick else None)]
    hard += [
        functools.partial(_family, name, quick)
        for name in chosen(FAMILIES, QUICK_FAMILIES if quick else None)
    ]
    for some in parallel.in_order(hard, jobs, shards=shards):
        yield from some


def measured(name: str, quick: bool) -> ProgramVerdicts:
    """One program, honest and cheated on."""
    bench = Bench.of(_makers()[name]())
    tallies = honest(bench, bench.devices, 1 if quick else RUNS)
    costs = second_look(name, bench, 3 if quick else 5) if bench.program.claims else ()
    tried = not quick or name == QUICK[-1]
    found = ProgramVerdicts(
        name=name,
        about=list(about(name, bench)),
        tallies=tallies,
        costs=list(costs),
        cheats=cheated(bench, 1 if quick else JOBS) if tried else {},
    )
    jax.clear_caches()
    return found


def _hazard(name: str) -> list[Row]:
    found = list(hazardous(name, HAZARDS[name](), RUNS))
    jax.clear_caches()
    return found


def _family(name: str, quick: bool) -> list[Row]:
    family = FAMILIES[name]
    found = list(ill_conditioned(name, family, 4_000 if quick else ROWS))
    if not quick:
        for cheat, tried in cheated(Bench.of(family.make(BATCH)), 4, hidden=True).items():
            found += tried.rows(f"{name}, {cheat}", most=None)
    jax.clear_caches()
    return found


def _makers() -> dict[str, Callable[[], Subject]]:
    return {**ZOO, **flax_classes.installed()}


def _chosen(
    only: Collection[str] | None, every: Collection[str], default: Collection[str] | None
) -> list[str]:
    """The names that were asked for; else the default, or all of them if that is None."""
    names = default if only is None else only
    return [name for name in every if names is None or name in names]


# -------------------------------------------------------------------------------------- honest


def about(name: str, bench: Bench) -> Iterator[Row]:
    """What is verified of a program, and what its trace is made of."""
    claims = bench.program.claims
    sizes = [(c, math.prod(c.shape) * c.dtype.itemsize) for c in claims]
    decided = sum(size for c, size in sizes if c.form.mismatch == "decision-mismatch")
    share = decided / max(sum(size for _, size in sizes), 1)
    left = len(bench.program.analysis.discontinuities)
    yield Row(name, "claims", len(claims), "1", ">= 1")
    yield Row(name, "coverage", bench.program.coverage.share, "1", COVERED.get(name))
    yield Row(name, "decision_share", share, "1", DECISIONS.get(name))
    yield Row(name, "discontinuities", left, "1", NONE_LEFT.get(name))


def honest(
    bench: Bench, chosen: Mapping[str, Device], runs: int, *, spread: bool = False
) -> dict[str, Tally]:
    """Verdicts on honest runs, by device.

    Args:
      bench: the program.
      chosen: devices by name.
      runs: of each device; or of all of them together, in turn, with `spread`.
      spread: see `runs`.
    """
    tallies = {name: Tally() for name in chosen}
    rng, params, order = np.random.default_rng(1), bench.subject.params, list(chosen)
    for run in range(runs):
        if run and run % RENEWED == 0:
            bench = replace(bench, key=bench.program.setup(params, secret()))
        inputs = bench.subject.draw(rng)
        for name in [order[run % len(order)]] if spread else order:
            answer = chosen[name](params, inputs, run // len(order) if spread else run)
            tallies[name].add(bench, inputs, answer, name)
    return tallies


def hazardous(name: str, subject: Subject, runs: int) -> Iterator[Row]:
    """Verdicts on honest runs of a program on which devices differ by more than rounding."""
    try:
        bench, total = Bench.of(subject), Tally()
    except Miscompiled:  # raised before any device is judged
        yield Row(name, "miscompiled", 1, "1")
        return
    chosen = {**bench.devices, "narrow sums": narrow_sums(bench.program)}
    for tally in honest(bench, chosen, runs).values():
        total.merge(tally)
    yield from total.rows(name, most=None)
    yield from total.listed(name)


def ill_conditioned(name: str, family: Family, least: int) -> Iterator[Row]:
    """Verdicts on honest runs of ill-conditioned glue, `least` rows of a claim in all."""
    bench = Bench.of(family.make(BATCH))
    chosen = dict(bench.devices)
    for count in family.lanes:
        chosen[f"sums in {count} lanes"] = lanes(bench.program, count)
    if family.simplified is not None:
        other = Bench.of(replace(bench.subject, fn=family.simplified))
        chosen["simplified"] = devices(other.program)["jit"]
    each = max(claim.tests for claim in bench.program.claims)
    total = Tally()
    for tally in honest(bench, chosen, math.ceil(least / each), spread=True).values():
        total.merge(tally)
    yield Row(name, "rows", total.runs * each, "1")
    yield from total.rows(name, most=None)
    yield from total.listed(name)


# --------------------------------------------------------------------------------- second look


def second_look(name: str, bench: Bench, repeats: int) -> Iterator[Row]:
    """The time of a rejection over the time of an accepted check."""
    inputs = bench.subject.draw(np.random.default_rng(2))
    y, trace = jax.block_until_ready(bench.run(bench.subject.params, *inputs))
    wrong = (y, Trace(values=tuple(_wrong(bench, trace))))
    bench.check(inputs, (y, trace))
    start = time.perf_counter()
    report = bench.check(inputs, wrong)
    first = time.perf_counter() - start
    medians = interleaved_medians(
        {
            "accepted": lambda: bench.check(inputs, (y, trace)).y,
            "rejected": lambda: bench.check(inputs, wrong).y,
        },
        repeats,
    )
    case = f"{name}, one wrong claim"
    yield Row(case, "rejected", int(report.verdict is Verdict.REJECT), "1")
    yield Row(case, "seconds_accepted", medians["accepted"], "s")
    yield Row(case, "seconds_rejected", medians["rejected"], "s")
    yield Row(case, "cost", medians["rejected"] / medians["accepted"], "1")
    yield Row(case, "first_call", first / medians["accepted"], "1")


def _wrong(bench: Bench, trace: Trace) -> list[Any]:
    """The claims of a run, one in the middle wrong in one element: by its row's norm, or by 1."""
    claims = forging.products(bench.program) or list(bench.program.claims)
    index, values = claims[len(claims) // 2].index, list(trace.values)
    wrong = np.array(values[index])
    row = wrong.reshape(-1, wrong.shape[-1])[0]
    if jnp.issubdtype(wrong.dtype, jnp.floating):
        row[0] += np.asarray(max(np.linalg.norm(row.astype(np.float64)), 1.0), wrong.dtype)
    else:
        row[0] = row[0] + 1 if row[0] < 1 else row[0] - 1
    values[index] = wrong
    return values


def summary(costs: Iterable[Row]) -> Iterator[Row]:
    """Median and worst over the models."""
    by_measure: dict[str, list[float]] = {"cost": [], "first_call": []}
    for row in costs:
        if row.measure in by_measure:
            by_measure[row.measure].append(row.value)
    case = "second look"
    yield Row(case, "cost_median", statistics.median(by_measure["cost"]), "1", "<= 12")
    yield Row(case, "cost_worst", max(by_measure["cost"]), "1")
    yield Row(case, "cost_first_call", max(by_measure["first_call"]), "1")
