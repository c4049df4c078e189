"""Verdicts on cheats (`cheats`, `verifiable.testing`), program by program.

A cheat counts if it changes the answer. A unit that is wrong by 16 sigma always counts, since the
theorem says that it is caught. Any other cheat that is accepted is `within_corridor` if the stated
tolerance allows to move this answer as far. On ill-conditioned inputs, the noise of honest devices
may hide a cheat; a larger one must not be accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import cheats
from benchmarks.cheats import Bench
from benchmarks.harness import Row
from benchmarks.steered_rounding import SteeredRounding
from benchmarks.zoo.subject import Inputs
from verifiable.report import Report, Verdict
from verifiable.testing import forging, parameters
from verifiable.testing.consequence import Spread, within_corridor
from verifiable.testing.devices import Answer

PARAMETERS: dict[str, Callable[[Any], Any]] = {
    "int8 weights": parameters.int8,
    "int4 weights": parameters.int4,
    "another model": parameters.another_model,
    "skipped layers": parameters.skipped_layers,
}

# Names of the cheat that steers through a rounding, and the share of the slack that it moves by;
# None if it chooses between the neighbours of what is rounded.
STEERED = {
    "steering a rounding": forging.NEARLY,
    "steering within a row": 0.2,
    "steering to a neighbour": None,
}


@dataclass(slots=True)
class Cheated:
    """Verdicts on runs of one cheat on one model."""

    runs: int = 0
    changed: int = 0
    accepted: int = 0
    corridor: int = 0
    rejected: int = 0
    convicted: int = 0
    indeterminate: int = 0

    def merge(self, other: Cheated) -> None:
        """Add the runs of another one."""
        self.runs += other.runs
        self.changed += other.changed
        self.accepted += other.accepted
        self.corridor += other.corridor
        self.rejected += other.rejected
        self.convicted += other.convicted
        self.indeterminate += other.indeterminate

    def rows(self, case: str, *, most: str | None) -> Iterator[Row]:
        """The counts, with the bar of the share of indeterminate runs.

        The first rejected run is accused, to be convicted.
        """
        yield Row(case, "runs", self.runs, "1")
        yield Row(case, "changed", self.changed, "1")
        yield Row(case, "accepted", self.accepted, "1", "== 0")
        yield Row(case, "within_corridor", self.corridor, "1")
        yield Row(case, "rejected", self.rejected, "1")
        yield Row(case, "convicted", self.convicted, "1")
        counted = self.accepted + self.corridor + self.rejected + self.indeterminate
        share = self.indeterminate / max(counted, 1)
        yield Row(case, "indeterminate_share", share, "1", most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One job that cheats are tried on.

    Attributes:
      plain: the program, and what honest devices answer.
      tested: the program of the cheat: `plain` itself, or the same `with_decoy`.
      inputs: of the job.
      normal: what honest devices answer.
    """

    plain: Bench
    tested: Bench
    inputs: Inputs
    normal: Spread

    @property
    def hidden(self) -> bool:
        """Whether there is no decoy."""
        return self.tested is self.plain

    def judge(
        self,
        tally: Cheated,
        given: Inputs,
        answer: Answer,
        *,
        always: bool = False,
        turned: Collection[tuple[str, int, int]] | None = None,
    ) -> None:
        """Check one run of a cheat, and count it if it changes the answer.

        Args:
          tally: where to count it.
          given: inputs of the tested program.
          answer: of the cheat.
          always: count it in any case, and no corridor excuses it.
          turned: claims, iterations and rows from which the cheat chooses something else, if it is
            known: as near-ties of the report, they are within the corridor.
        """
        y = answer[0] if self.hidden else answer[0][0]
        changed = self.normal.changed(y)
        tally.runs += 1
        tally.changed += changed
        if not (changed or always):
            return
        report = self.tested.check(given, answer)
        verdict = report.verdict
        if verdict is Verdict.ACCEPT:
            within = not always and self.within(y, report, turned)
            tally.corridor += within
            tally.accepted += not within
        if verdict is Verdict.REJECT and not tally.rejected:
            tally.convicted = int(any(self.tested.convictions(given, answer, report)))
        tally.rejected += verdict is Verdict.REJECT
        tally.indeterminate += verdict is Verdict.INDETERMINATE

    def within(
        self, y: Any, report: Report, turned: Collection[tuple[str, int, int]] | None
    ) -> bool:
        """Whether what an accepted cheat changes is stated; arguments as of `judge`."""
        ties = {(tie.claim, tie.trip, tie.row) for tie in report.near_ties}
        if turned is not None and not ties.issuperset(turned):
            return False
        if turned and not self.normal.numbers(y):
            return True
        return within_corridor(
            self.plain.program, self.plain.subject.params, self.inputs, self.normal, y
        )


def cheated(bench: Bench, jobs: int, *, hidden: bool = False) -> dict[str, Cheated]:
    """Verdicts on every cheat of one program, by name of the cheat.

    Args:
      bench: the program.
      jobs: how many jobs each is tried on.
      hidden: the input is ill-conditioned itself, and no decoy is needed.
    """
    found: dict[str, Cheated] = {}
    subject = bench.subject
    tested = bench if hidden else Bench.of(cheats.with_decoy(subject))
    params = tested.subject.params
    units = forging.one_unit(tested.program, skipped=0 if hidden else 1)
    ties, choice = forging.TurnedTies(tested.program), forging.one_choice(tested.program)
    looped, steered = forging.other_trips(tested.program), SteeredRounding.of(tested.program)
    skips = not hidden and PARAMETERS["skipped layers"](subject.params) is not subject.params
    changes = {n: f for n, f in PARAMETERS.items() if n != "skipped layers" or skips}

    def inner(other: Any) -> Any:
        return other if hidden else cheats.covered(other)

    for job in range(jobs):
        rng = np.random.default_rng(100 + job)
        inputs = subject.draw(rng)
        normal = cheats.spread(bench, inputs, 1 if jobs == 1 else 4)
        trial = Trial(plain=bench, tested=tested, inputs=inputs, normal=normal)
        first = () if hidden else (cheats.harmless(rng),)
        given = (*first, *inputs)

        def tried(cheat: str, answer: Answer, **how: Any) -> None:
            tally = found.setdefault(cheat, Cheated())
            trial.judge(tally, given, answer, **how)  # noqa: B023

        for cheat, change in changes.items():
            tried(cheat, tested.run(inner(change(subject.params)), *given))
        for cheat, replace in subject.cheats.items():
            other, others = replace(subject.params, inputs)
            tried(cheat, tested.run(inner(other), *first, *others))
        for unit in units:
            answer = unit(params, given, job)
            if answer is not None:
                tried("one unit", answer, always=True)
        tried("near-ties", ties(params, given))
        if choice is not None:
            tried("one choice", choice(params, given, job))
        if looped is not None:
            for name, change in forging.TRIPS.items():
                tried(name, looped(params, given, job, change))
        if steered is not None:
            honest = tested.run(params, *given)[1]
            for name, share in STEERED.items():
                on = params, given, honest
                answer = steered.neighbours(*on) if share is None else steered(*on, share)
                turned = steered.turned(honest, answer[1])
                rows = {(steered.head.claim.name, *place) for place in turned}
                tried(name, answer, turned=rows)
        if not hidden:
            given = (tested.subject.draw(rng)[0], *inputs)
            coarse = tested.run(inner(parameters.int8(subject.params)), *given)
            hiding: list[tuple[str, Answer | None]] = [("decoy, then int8 weights", coarse)]
            hiding += [("decoy, then one unit", unit(params, given, job)) for unit in units]
            for cheat, answer in hiding:
                if answer is None:
                    continue
                always = cheat.endswith("one unit")
                tried(cheat, cheats.planted(given, answer, job), always=always)
    return found
