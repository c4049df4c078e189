"""Judge a run: from its measured statistics to a report.

Every claim and output gets its own verdict:

    not finite, out of range, or over its limit   reject, unless discontinuous glue can explain it
    the verifier's own operands not finite        indeterminate
    a result that devices may choose              indeterminate
    everything passed                             accept

One rejected claim rejects the run; otherwise one indeterminate claim makes it indeterminate.

A failed test of an inexact claim or output only accuses: what failed is looked at again
(`failures`).

A claim that is not finite, whose operands are not, or that a cheap test left undecided
(`Form.cheapened`), is first tested again (`Form.retest`): in float64, and with regard to which rows
overflow on honest devices, or are NaN on all of them. That is not asked of every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from verifiable.check.judging.failures import Place, last_shown, look_again, until
from verifiable.check.judging.receive import Problem
from verifiable.check.judging.spread import Again
from verifiable.check.outputs import Output, OutputStatistic, farthest_element
from verifiable.check.replay.replay import Findings
from verifiable.claims.claim import Claim
from verifiable.claims.statistic import Statistic, conditions, retested
from verifiable.report import REASONS, Bound, ClaimResult, Corridor, Coverage, Report, Verdict

_RETESTED = frozenset({"claim-nonfinite", "nonfinite-operand"})


class WorstTrip(NamedTuple):
    """The first failing trip of a claim or output, or the one with the largest ratio.

    Attributes:
      reason: a code of `REASONS`; `ok` if every trip passed.
      worst: the statistic as a fraction of its limit.
      row: the row that it belongs to.
      trip: counted over all scans around the claim.
      retested: whether it is of a second test, as the first had no answer.
    """

    reason: str
    worst: float
    row: int | None
    trip: int
    retested: bool = False


def refuse(problem: Problem) -> Report:
    """The report that rejects what cannot be a run of the program: nothing of it is checked.

    Args:
      problem: what `receive`, `uncommitted` or `misnamed` found.
    """
    return Report(
        verdict=Verdict.REJECT,
        reason=problem.reason,
        message=problem.message,
        claim=problem.where,
        coverage=Coverage(checked=0, replayed=0),
    )


def judge(
    findings: Findings,
    claims: Sequence[Claim],
    outputs: Sequence[Output],
    *,
    coverage: Coverage,
    bound: Bound | None,
    again: Again,
    flips: Mapping[int, int],
    most: int,
    y: Any = None,
    theirs: Sequence[Any] = (),
    corridor: Corridor | None = None,
) -> Report:
    """The report on a run: the verdict on each claim and output, and on the whole.

    Args:
      findings: what was measured, as numpy arrays.
      claims: of the program.
      outputs: of the program.
      coverage: what the check covers.
      bound: what a pass proves of the floating-point claims.
      again: looks at claims and outputs again.
      flips: how many decisions may differ from the verifier's own, by index of the claim.
      most: how many of all claims together.
      y: the replayed output.
      theirs: leaves of the device's, to say where a rejected one differs; may be left out.
      corridor: what the tolerance leaves to a cheat; the report has it with the margin of y.
    """
    stopped = frozenset(name for name, flag in findings.stopped.items() if np.any(flag))
    measured = [_judge_claim(findings, c, again.retest) for c in claims]
    cut = [_cut(c, findings, m, stopped) for c, m in zip(claims, measured, strict=True)]
    cut += [o.loops & stopped for o in outputs]
    results = [
        _counted(
            _result(c.name, m, c.discontinuities, loops),
            findings.statistics[c.index],
            flips.get(c.index),
        )
        for c, m, loops in zip(claims, measured, cut, strict=False)
    ]
    results += [
        _result(o.name, _judge_output(findings.outputs[i]), o.discontinuities, o.loops & stopped)
        for i, o in enumerate(outputs)
    ]
    # In the order of execution: claims of one scan by iteration first.
    places: list[Place] = [
        (c.group, r.trip, c.index) for c, r in zip(claims, results, strict=False)
    ]
    places += [(len(claims), i) for i in range(len(outputs))]
    look_again(results, places, claims, outputs, until(again, findings), cut, most)
    _unjudged(results, places, [i for i, m in enumerate(measured) if m.retested])
    verdict, reason, where = _overall(results, places, stopped)
    if corridor is not None:
        corridor = replace(corridor, margin=float(corridor.answer(y)))
    return Report(
        verdict=verdict,
        reason=reason,
        message=_differing(reason, where, outputs, theirs, y),
        claim=where,
        worst=max((r.worst for r in results), default=0.0),
        results=tuple(results),
        coverage=coverage,
        bound=bound,
        y=y,
        corridor=corridor,
    )


def _differing(
    reason: str, where: str | None, outputs: Sequence[Output], theirs: Sequence[Any], y: Any
) -> str:
    """Which element of a wrong output is farthest from the replayed one."""
    if reason != "output-mismatch" or not theirs:
        return ""
    pairs = zip(outputs, theirs, jax.tree.leaves(y), strict=True)
    found = next((farthest_element(a, b) for output, a, b in pairs if output.name == where), "")
    return f"{REASONS[reason]}: {found}" if found else ""


def _unjudged(results: list[ClaimResult], places: Sequence[Place], retested: Sequence[int]) -> None:
    """Leave undecided what passed without a number in any row, after a claim that is rejected."""
    rejected = [p for p, r in zip(places, results, strict=True) if r.verdict is Verdict.REJECT]
    if not rejected:
        return
    first = min(rejected)
    for i in retested:
        result = results[i]
        passed = result.verdict is Verdict.ACCEPT and not result.worst
        if passed and places[i] > first:
            verdict, reason = Verdict.INDETERMINATE, "nonfinite-operand"
            results[i] = replace(result, verdict=verdict, reason=reason)


def _cut(
    claim: Claim, findings: Findings, measured: WorstTrip, stopped: frozenset[str]
) -> frozenset[str]:
    """The loops before a claim that were cut short.

    Of a loop in a scan, a number of trips is behind those of the iterations before; what fails
    until one of them is cut short is not.
    """
    loops = claim.loops & stopped
    if claim.name in loops and measured.trip <= last_shown(findings.statistics[claim.index]):
        loops -= {claim.name}
    return loops


def _counted(result: ClaimResult, found: Statistic, most: int | None) -> ClaimResult:
    """A result with the number of ties and flips, which must not be more than `most`."""
    if most is None:
        return result
    ties, count = int(np.sum(found.ties)), int(np.sum(found.flips))
    result = replace(result, ties=ties, flips=count)
    if result.verdict is not Verdict.ACCEPT or count <= most:
        return result
    verdict, reason = Verdict.REJECT, "decision-ties"
    if result.discontinuities:
        verdict, reason = Verdict.INDETERMINATE, "discontinuous-glue"
    return replace(result, verdict=verdict, reason=reason, worst=count / max(most, 0.5))


def _overall(
    results: Sequence[ClaimResult], places: Sequence[Place], stopped: frozenset[str]
) -> tuple[Verdict, str, str | None]:
    """Verdict, reason, and name of the first claim or output that was not accepted."""
    failed = [
        (r.verdict is not Verdict.REJECT, place, i)
        for i, (place, r) in enumerate(zip(places, results, strict=True))
        if r.verdict is not Verdict.ACCEPT
    ]
    if failed:
        *_, i = min(failed)
        return results[i].verdict, results[i].reason, results[i].name
    if stopped:
        return Verdict.INDETERMINATE, "trip-limit", min(stopped)
    return Verdict.ACCEPT, "ok", None


def _result(
    name: str,
    measured: WorstTrip,
    discontinuities: frozenset[str],
    stopped: frozenset[str],
) -> ClaimResult:
    reason = measured.reason
    if reason == "ok":
        verdict = Verdict.ACCEPT
    elif reason in ("nonfinite-operand", "nonfinite-output", "undefined-operand"):
        verdict = Verdict.INDETERMINATE
    elif reason == "claim-range":
        verdict = Verdict.REJECT  # no operand explains what no accumulator can reach
    elif stopped:
        verdict, reason = Verdict.INDETERMINATE, "trip-limit"
    elif discontinuities:
        verdict, reason = Verdict.INDETERMINATE, "discontinuous-glue"
    else:
        verdict = Verdict.REJECT
    return ClaimResult(
        name=name,
        verdict=verdict,
        reason=reason,
        worst=measured.worst,
        row=measured.row,
        trip=measured.trip,
        discontinuities=tuple(sorted(discontinuities)),
    )


def _judge_claim(findings: Findings, claim: Claim, retest: Callable[[int], Statistic]) -> WorstTrip:
    """The worst of a claim, over all trips of the scans around it."""
    found, taken = findings.statistics[claim.index], findings.taken[claim.index].ravel()
    measured = _worst_trip(found, taken, claim.form.mismatch)
    if measured.reason in _RETESTED:
        found = retested(found, retest(claim.index), taken)
        measured = _worst_trip(found, taken, claim.form.mismatch)._replace(retested=True)
    return measured


def _worst_trip(found: Statistic, taken: Any, mismatch: str) -> WorstTrip:
    statistic = Statistic(*(x.ravel() for x in found))
    checks = conditions(statistic, mismatch)
    measured = _first_failure(checks, statistic.worst, statistic.row)
    if measured.reason == mismatch and not taken[measured.trip]:
        return measured._replace(reason="claim-untaken")
    return measured


def _judge_output(statistic: OutputStatistic) -> WorstTrip:
    checks = (
        ("output-nonfinite", np.ravel(statistic.finite)),
        ("output-mismatch", np.ravel(statistic.worst) <= 1.0),
        ("nonfinite-output", np.ravel(statistic.own_finite)),
    )
    return _first_failure(checks, np.ravel(statistic.worst), np.ravel(statistic.row))


def _first_failure(checks: Sequence[tuple[str, Any]], worst: Any, row: Any) -> WorstTrip:
    for reason, passed in checks:
        trips = passed.tolist()
        if False in trips:
            trip = trips.index(False)
            return WorstTrip(reason, float(worst[trip]), int(row[trip]), trip)
    if not len(worst):
        return WorstTrip("ok", 0.0, None, 0)
    trip = int(worst.argmax())
    return WorstTrip("ok", float(worst[trip]), int(row[trip]), trip)
