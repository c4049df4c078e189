"""Wrong answers accepted, and runs per job: all policies, all adversaries, and BOINC's rules.

A bound is missed where the lower end of the 99 % Clopper-Pearson interval of what was measured
exceeds it. Costs are beside the policy's formula, which assumes that bad workers always cheat
together and honest ones agree; other adversaries may cost more or less.

BOINC's rules come from their published description (`benchmarks.boinc`), and meet the same
populations, whose honest workers live equally long. "On or below" compares, for one adversary, a
rule of theirs with ours: 1 where one of ours is wrong no more often (within the intervals) at no
more runs per accepted answer (within half a percent). Beside it stand runs per *right* answer,
because a wrong answer that is accepted saves running the job again. Audits are counted as runs; our
own check costs less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import boinc
from benchmarks.harness import RESULTS, Row
from protocols.simulation import (
    EARN_THEN_SPEND,
    Floats,
    Foresight,
    Ints,
    Population,
    SpendingStrategy,
    VoteStatistics,
    best_share,
    simulate_profit,
    simulate_tolerance,
    simulate_trust,
    simulate_votes,
)
from verifiable.audits.stakes import Terms
from verifiable.voting.quorum import FirstToMatch, FixedSize, QuorumPolicy, Sequential
from verifiable.voting.trust import Adaptive, Credibility

CLAIM = (
    "No adversary gets more wrong answers accepted than a policy states, and trust that is earned "
    "to be spent gets less than 1 % accepted at less than 1.2 runs per job"
)
BAD = 0.1
COLLUDING = "colluders on one answer"
SCATTER = "colluders, honest answers scatter"
POPULATIONS = {
    "independent errors": Population(erring=BAD),
    COLLUDING: Population(colluders=BAD),
    "colluders, half the honest offline": Population(colluders=BAD, offline=0.5),
    "colluders and copycats": Population(colluders=BAD, copycats=0.2),
    "colluders and stallers": Population(colluders=BAD, stallers=0.2),
    SCATTER: Population(colluders=BAD, scatter=0.2),
    "credibility earned, then spent": Population(colluders=BAD, checks=100, bad_checks=100),
}
RECOMMENDED = Adaptive(bad=BAD, newcomers=FirstToMatch(bad=BAD, matches=3))
SPENDING = "earn trust, then spend it"
STRATEGIES = {
    SPENDING: EARN_THEN_SPEND,
    "spend the best share": SpendingStrategy(share=best_share(RECOMMENDED)),
    "spend 2 %": SpendingStrategy(share=0.02),
    "never earn any": SpendingStrategy(share=1.0, earns=False),
    "guess the audits": SpendingStrategy(
        share=best_share(RECOMMENDED), foresight=Foresight.GUESSED
    ),
    "no cheats": SpendingStrategy(share=0.0),
}


@dataclass(frozen=True, slots=True)
class Point:
    """What one rule, with one parameter, made of one adversary."""

    rule: str
    parameter: str
    adversary: str
    measured: VoteStatistics


def rows(quick: bool) -> Iterator[Row]:
    """Measure; `quick` takes a twentieth of the jobs, and draws no plot."""
    jobs, slots = (5_000, 200) if quick else (100_000, 2_000)
    yield from _votes(jobs)
    yield from _tolerance(jobs)
    yield from _trust(slots)
    yield from _stakes(jobs)
    points = [*_our_points(jobs, slots), *_their_points(jobs, slots)]
    yield from _beside(points)
    if not quick:
        plot(points, RESULTS / "voting_error.svg")


def policies(bad: float) -> dict[str, QuorumPolicy]:
    """The policies that decide by votes, for a bad fraction among those who answer."""
    return {
        "fixed 3": FixedSize(bad=bad, size=3),
        "fixed 5": FixedSize(bad=bad, size=5),
        "first to 3": FirstToMatch(bad=bad, matches=3),
        "sequential 1e-3": Sequential(bad=bad, error=1e-3),
        "credibility 1e-3": Credibility(bad=bad, error=1e-3),
    }


def _votes(jobs: int) -> Iterator[Row]:
    for adversary, population in POPULATIONS.items():
        for name, policy in policies(population.bad).items():
            earned = population.bad_checks > 0
            if earned and not isinstance(policy, Credibility):
                continue
            bound = policy.assurance
            limit = bound.error_if_colluding if earned else bound.error
            found = simulate_votes(policy, population, jobs=jobs)
            yield from _against(f"{name}; {adversary}", found, limit, bound.runs)


def _against(case: str, found: VoteStatistics, bound: float, runs: float) -> Iterator[Row]:
    low, high = found.interval()
    yield Row(case, "wrong", found.error, "1")
    # A bar is printed with a few digits: rounded up, so that it is not stricter than the bound.
    yield Row(case, "interval_low", low, "1", f"<= {bound * (1 + 1e-4):.5g}")
    yield Row(case, "interval_high", high, "1")
    yield Row(case, "bound", bound, "1")
    yield Row(case, "runs_per_job", found.runs_per_job, "1")
    yield Row(case, "formula", runs, "1")
    yield Row(case, "undecided", found.undecided / found.jobs, "1")


def first_neighbour(distances: Floats, threshold: int) -> Ints:
    """The first ballot to arrive that enough others agree with."""
    supported = (distances <= 1.0).sum(axis=2) >= threshold
    return np.where(supported.any(axis=1), supported.argmax(axis=1), -1)


def _tolerance(jobs: int) -> Iterator[Row]:
    """Colluders inside the tolerance, one in five of five."""
    bound = FixedSize(bad=0.2, size=5).assurance.error
    for attack in ("drag", "veto", "front"):
        for name, rule in {"medoid": None, "first neighbour": first_neighbour}.items():
            given = {} if rule is None else {"rule": rule}
            found = simulate_tolerance(size=5, bad=0.2, attack=attack, jobs=jobs // 2, **given)
            ours = rule is None
            case = f"{name}; {attack}"
            low, _ = found.statistics.interval()
            yield Row(case, "wrong", found.statistics.error, "1")
            yield Row(case, "interval_low", low, "1", f"<= {bound * (1 + 1e-4):.5g}")
            yield Row(case, "mean_tolerances", found.mean, "1")
            yield Row(case, "worst_over_stated", found.excess, "1", "<= 1.000001" if ours else None)
            yield Row(case, "vetoed", found.vetoed, "1", "== 0" if ours else None)


def _lives(policy: Adaptive, strategy: SpendingStrategy, slots: int) -> VoteStatistics:
    if strategy.earns:
        return simulate_trust(policy, strategy, slots=slots)
    # Every result is a vote of its own, which takes longer to simulate.
    return simulate_trust(policy, strategy, slots=slots, results=1000)


def _trust(slots: int) -> Iterator[Row]:
    for name, strategy in STRATEGIES.items():
        found = _lives(RECOMMENDED, strategy, slots)
        runs = RECOMMENDED.runs_if_spent if strategy.earns else RECOMMENDED.assurance.runs
        yield from _against(
            f"adaptive, recommended; {name}", found, RECOMMENDED.assurance.error, runs
        )
    for share in (0.05, best_share(RECOMMENDED), 0.25, 0.5, 1.0):
        found = _lives(RECOMMENDED, SpendingStrategy(share=share), slots)
        case = f"adaptive, recommended; earn, then spend {share:.2g}"
        yield Row(case, "interval_high", found.interval()[1], "1", "< 0.01")
        yield Row(case, "runs_per_job", found.runs_per_job, "1", "< 1.2")
    leaked = _lives(RECOMMENDED, SpendingStrategy(share=0.9, foresight=Foresight.LEAKED), slots)
    case = "audits known beforehand: what the draw rules out"
    yield Row(case, "wrong", leaked.error, "1")
    yield Row(case, "runs_per_job", leaked.runs_per_job, "1")


def _stakes(jobs: int) -> Iterator[Row]:
    """Many cheats on one stake before the first is settled."""
    terms = Terms(gain=1.0, reward=0.2, cost=0.1, audit_rate=0.1, detection=0.9, outstanding=40)
    stakes = {
        "stake for one": (replace(terms, outstanding=1).least_stake, False),
        "stake for forty": (terms.least_stake, True),
    }
    for name, (stake, deters) in stakes.items():
        for cheats in (1, 10, 40):
            found = simulate_profit(terms, stake=stake, cheats=cheats, workers=jobs // 5)
            case = f"{name} ({stake:.3g}); {cheats} cheats"
            yield Row(case, "profit", found.mean, "gains")
            low = found.mean - 2.576 * found.deviation
            yield Row(case, "interval_low", low, "gains", "<= 0" if deters else None)


# Beside BOINC.


def _our_points(jobs: int, slots: int) -> Iterator[Point]:
    families: dict[str, tuple[tuple[int, ...], Callable[[float, int], QuorumPolicy]]] = {
        "fixed size": ((3, 5, 7, 9), lambda f, k: FixedSize(bad=f, size=k)),
        "first to match": ((2, 3, 4, 5), lambda f, m: FirstToMatch(bad=f, matches=m)),
        "first to match, growing": (
            (2, 3, 4, 5),
            lambda f, m: FirstToMatch(bad=f, matches=m, limit=boinc.MOST_RESULTS),
        ),
        "sequential": ((2, 3, 4, 5), lambda f, d: Sequential(bad=f, error=(f / (1 - f)) ** d)),
        "credibility": ((1, 2, 3), lambda f, digits: Credibility(bad=f, error=10.0**-digits)),
    }
    for adversary in (COLLUDING, SCATTER):
        population = POPULATIONS[adversary]
        for name, (parameters, make) in families.items():
            for parameter in parameters:
                policy = make(population.bad, parameter)
                found = simulate_votes(policy, population, jobs=jobs)
                yield Point(name, str(parameter), adversary, found)
    earned = POPULATIONS["credibility earned, then spent"]
    for digits in (1, 2, 3):
        found = simulate_votes(Credibility(bad=BAD, error=10.0**-digits), earned, jobs=jobs)
        yield Point("credibility", str(digits), SPENDING, found)
    for audits in (1, 2, 4, 8, 16):
        policy = replace(RECOMMENDED, audits=audits)
        for adversary, strategy in _spenders(policy).items():
            yield Point("adaptive", str(audits), adversary, _lives(policy, strategy, slots // 2))


def _spenders(policy: Adaptive) -> dict[str, SpendingStrategy]:
    return {
        SPENDING: EARN_THEN_SPEND,
        "spend the best share": SpendingStrategy(share=best_share(policy)),
        "spend 2 %": STRATEGIES["spend 2 %"],
        "no cheats": STRATEGIES["no cheats"],
    }


def _their_points(jobs: int, slots: int) -> Iterator[Point]:
    for adversary in (COLLUDING, SCATTER):
        for size in (2, 3, 4, 6, 8):
            found = boinc.quorum(size, POPULATIONS[adversary], jobs=jobs)
            yield Point("BOINC quorum", str(size), adversary, found)
    # The best share against BOINC's rule is all: a cheat is caught at the same rate whatever else.
    shares = {SPENDING: 1.0, "spend the best share": 1.0, "spend 2 %": 0.02, "no cheats": 0.0}
    for threshold in (10, 20, 50):
        for adversary, share in shares.items():
            found = boinc.adaptive(BAD, share=share, threshold=threshold, slots=slots)
            yield Point("BOINC adaptive", str(threshold), adversary, found)


def right_runs(found: VoteStatistics) -> float:
    """Runs per job that ended with a right answer."""
    return found.runs / (found.accepted - found.wrong)


def cost(found: VoteStatistics) -> float:
    """Runs per accepted answer."""
    return found.runs / found.accepted


def beats(ours: VoteStatistics, theirs: VoteStatistics) -> bool:
    """Whether ours is wrong no more often, at no more runs, as far as can be told."""
    cheaper = cost(ours) <= cost(theirs) * 1.005
    return cheaper and ours.interval()[0] <= theirs.interval()[1]


def _beside(points: list[Point]) -> Iterator[Row]:
    for theirs in points:
        if not theirs.rule.startswith("BOINC"):
            continue
        rivals = [
            p for p in points if p.adversary == theirs.adversary and not p.rule.startswith("BOINC")
        ]
        # The one that beats theirs with the fewest errors; else the cheapest that errs no more.
        better = [p for p in rivals if beats(p.measured, theirs.measured)]
        enough = [p for p in rivals if p.measured.error <= theirs.measured.interval()[1]]
        if better:
            ours = min(better, key=lambda p: p.measured.error)
        else:
            ours = min(enough or rivals, key=lambda p: cost(p.measured))
        case = f"{theirs.rule} {theirs.parameter}; {theirs.adversary}"
        for name, point in (("theirs", theirs), (f"ours: {ours.rule} {ours.parameter}", ours)):
            label = "theirs" if name == "theirs" else "ours"
            yield Row(case, f"{label}_wrong", point.measured.error, "1")
            yield Row(case, f"{label}_runs", cost(point.measured), "1")
            yield Row(case, f"{label}_runs_per_right", right_runs(point.measured), "1")
        yield Row(case, "on_or_below", float(bool(better)), "1")


def plot(points: list[Point], path: Path) -> None:
    """Draw error against cost, one panel an adversary; nothing where matplotlib is absent."""
    try:
        from matplotlib import rc_context  # noqa: PLC0415 - an optional dependency
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        return
    panels = (COLLUDING, SCATTER, SPENDING, "spend the best share")
    # The same figures give the same file: no date in it, and names that do not depend on chance.
    with rc_context({"svg.hashsalt": "voting_error", "font.size": 8}):
        figure = Figure(figsize=(9, 7), layout="constrained")
        axes = figure.subplots(2, 2)
        for axis, adversary in zip(axes.flat, panels, strict=True):
            here = [p for p in points if p.adversary == adversary]
            for rule in dict.fromkeys(p.rule for p in here):
                line = sorted((p for p in here if p.rule == rule), key=lambda p: cost(p.measured))
                runs = [cost(p.measured) for p in line]
                # What was never wrong stands at the upper end of its interval.
                errors = [p.measured.error or p.measured.interval()[1] for p in line]
                theirs = rule.startswith("BOINC")
                axis.plot(runs, errors, "s--" if theirs else "o-", label=rule, markersize=4)
                for point, x, y in zip(line, runs, errors, strict=True):
                    axis.annotate(point.parameter, (x, y), (3, 3), textcoords="offset points")
            axis.set(
                yscale="log",
                title=adversary,
                xlabel="runs per accepted answer",
                ylabel="wrong accepted",
            )
            if here:
                axis.legend()
            axis.grid(alpha=0.3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
