"""Look again at what failed: which failures stand, and what may hide behind what is not finite.

In the order of execution, each failure that would be rejected is looked at again (`second_look`),
until one is shown wrong; those that rounding before them explains are indeterminate,
`ill-conditioned`, or accepted where a device's own rounding moves a row as far. What is exact needs
no second look.

Where nothing is shown wrong, what is undecided because it is not finite is looked at too: numbers
that no device has there, and decisions by which a cheat makes what is not finite, are rejected. At
last the flips of all claims are held to what they may be together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from verifiable.check.judging.spread import Again, Look
from verifiable.check.outputs import Output
from verifiable.check.replay.replay import Findings
from verifiable.check.specification import Target
from verifiable.claims.claim import Claim
from verifiable.claims.statistic import Statistic
from verifiable.report import ClaimResult, Verdict

Place = tuple[int, ...]  # of claims and outputs in the order of execution

# Failures that no rounding of the replayed operands explains.
_CERTAIN = frozenset({"claim-range", "claim-untaken"})


def last_shown(found: Statistic) -> int:
    """The first iteration in which a loop was cut short; the iterations after it show nothing."""
    flags = np.ravel(found.stopped)
    return int(np.argmax(flags)) if flags.any() else 2**63


def until(again: Again, findings: Findings) -> Again:
    """Looks that leave out the iterations after a loop was cut short."""

    def last(target: Target) -> dict[str, int]:
        found = None if target.output else findings.statistics[target.index]
        return {"last": last_shown(found)} if found is not None and np.any(found.stopped) else {}

    return again._replace(
        look=lambda target, **how: again.look(target, **how, **last(target)),
        unfounded=lambda target: again.unfounded(target, **last(target)),
    )


def look_again(
    results: list[ClaimResult],
    places: Sequence[Place],
    claims: Sequence[Claim],
    outputs: Sequence[Output],
    again: Again,
    cut: Sequence[frozenset[str]],
    most: int,
) -> None:
    """Replace what failed and is not shown wrong; stop at what is."""
    accused = [i for i, r in enumerate(results) if r.verdict is Verdict.REJECT]
    shown, allowed = False, set[int]()  # that the run is wrong; what is accepted after all
    for i in sorted(accused, key=lambda i: places[i]):
        result, target = results[i], _target(i, claims)
        tested = outputs[target.index] if target.output else claims[i]
        if result.reason in _CERTAIN or not tested.replays_inexactly:
            shown = True
        elif shown:
            # Not looked at: the run is wrong already, and this alone shows nothing.
            results[i] = replace(result, verdict=Verdict.INDETERMINATE)
        else:
            found = again.look(target)
            shown = found.wrong
            if shown:
                results[i] = replace(result, row=found.row, trip=found.trip)
            elif found.allowed:
                allowed.add(i)
                results[i] = replace(
                    result, verdict=Verdict.ACCEPT, reason="ok", worst=found.excess
                )
            else:
                results[i] = replace(
                    result, verdict=Verdict.INDETERMINATE, reason="ill-conditioned"
                )
    if shown:
        return
    for i in sorted(range(len(results)), key=lambda i: places[i]):
        tested = (*claims, *outputs)[i]
        undecided = results[i].reason in ("nonfinite-operand", "nonfinite-output")
        if undecided and not (tested.discontinuities or cut[i]):
            found = _sheltered(results, i, claims, tested, again)
            if found is not None:
                place, result = found
                results[place] = result
                return
    _recount(results, [c for c in claims if c.index not in allowed], again, most)


def _sheltered(
    results: Sequence[ClaimResult],
    i: int,
    claims: Sequence[Claim],
    tested: Claim | Output,
    again: Again,
) -> tuple[int, ClaimResult] | None:
    """What a value that is not finite may not shelter, and where: a result that rejects.

    Numbers where no device has any; and, among the decisions and roundings before, one that no
    device commits to, with which a cheat makes what is not finite.
    """
    target = _target(i, claims)
    found = again.unfounded(target)
    if not found.wrong and isinstance(tested, Claim) and tested.form.rows_too:
        found = again.look(target)  # the numbers beside what is not finite
    if found.wrong:
        reason = tested.form.mismatch if isinstance(tested, Claim) else "output-mismatch"
        return i, _rejected(results[i], reason, found)
    before = again.reads(target)
    for claim in claims:
        flipped = results[claim.index].flips or (claim.form.rows_too and claim.index in before)
        if flipped and not claim.discontinuities and claim.replays_inexactly:
            found = again.look(Target(output=False, index=claim.index), strict=True)
            if found.wrong:
                reason = "decision-ties" if claim.decisions else claim.form.mismatch
                return claim.index, _rejected(results[claim.index], reason, found)
    return None


def _target(i: int, claims: Sequence[Claim]) -> Target:
    """What a result is of: results of outputs follow those of claims."""
    output = i >= len(claims)
    return Target(output, i - len(claims) if output else i)


def _rejected(result: ClaimResult, reason: str, found: Look) -> ClaimResult:
    verdict, worst = Verdict.REJECT, max(result.worst, found.excess)
    return replace(
        result, verdict=verdict, reason=reason, worst=worst, row=found.row, trip=found.trip
    )


def _recount(results: list[ClaimResult], claims: Sequence[Claim], again: Again, most: int) -> None:
    """Hold the flips of all claims to what they may be together."""
    counted = [
        c.index
        for c in claims
        if results[c.index].flips
        and results[c.index].verdict is Verdict.ACCEPT
        and not c.discontinuities
    ]
    count = sum(results[i].flips or 0 for i in counted)
    if count <= most:
        return
    found = again.recount(counted, most)
    if found.allowed:
        return
    results[counted[0]] = replace(
        results[counted[0]],
        verdict=Verdict.REJECT if found.wrong else Verdict.INDETERMINATE,
        reason="decision-ties" if found.wrong else "ill-conditioned",
        worst=found.excess,
    )
