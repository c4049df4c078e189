"""From what a device sent, and what was measured of it, to a report.

Whatever a device sends is compared with the program's own shapes and types before anything else
looks at it. Then every claim and output gets a verdict of its own:

    not finite, out of range, or over its limit   reject, unless discontinuous glue can explain it
    the verifier's own operands not finite        indeterminate
    everything passed                             accept

One rejected claim rejects the run; short of that, one indeterminate claim leaves it open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from verifiable.check.partition import Claim
from verifiable.check.replay import Findings, OutputStatistic
from verifiable.claims import freivalds
from verifiable.claims.freivalds import Statistic
from verifiable.report import ClaimResult, Verdict
from verifiable.trace import Trace

_LONGEST = 200  # characters of a message that a device has a say in

Problem = tuple[str, str | None, str]  # reason, claim, message
Outcome = tuple[str, float, int | None, int]  # reason, worst ratio, its row, its trip


def receive_claims(trace: Any, claims: Sequence[Claim]) -> tuple[list[Any], Problem | None]:
    """The arrays of a trace, or why they cannot be those of the program.

    Args:
      trace: a `Trace`, or a sequence of arrays, or anything else.
      claims: of the program.
    """
    received = trace.values if isinstance(trace, Trace) else trace
    if not isinstance(received, tuple | list):
        return [], ("trace-structure", None, f"got {type(received).__name__}")
    arrays = [_array(x) for x in received]
    for claim, array, x in zip(claims, arrays, received, strict=False):
        if array is None:
            return [], ("trace-structure", claim.name, f"got {type(x).__name__}, not an array")
    if len(arrays) != len(claims):
        code = "claim-missing" if len(arrays) < len(claims) else "claim-extra"
        return [], (code, None, f"the program has {len(claims)} claims, got {len(arrays)}")
    if any(a.shape != c.shape or a.dtype != c.dtype for a, c in zip(arrays, claims, strict=True)):
        have = [(a.shape, str(a.dtype)) for a in arrays]
        want = [(c.shape, str(c.dtype)) for c in claims]
        i = next(i for i, pair in enumerate(zip(have, want, strict=True)) if pair[0] != pair[1])
        if sorted(have) == sorted(want):
            code = "claim-reordered"
        else:
            code = "claim-shape" if have[i][0] != want[i][0] else "claim-dtype"
        return [], (code, claims[i].name, f"got {have[i]}, the program has {want[i]}")
    return arrays, None


def receive_output(y: Any, expected: Any) -> tuple[list[Any], Problem | None]:
    """The leaves of an output, or why they cannot be those of the program."""
    structure = jax.tree.structure(expected)
    try:
        # Never looks deeper than the expected tree: a deep nest overflows the stack of JAX.
        received = structure.flatten_up_to(y)
    except Exception as error:
        message = f"{error}"[:_LONGEST] + f"; the program returns {structure}"
        return [], ("output-structure", None, message)
    leaves = jax.tree_util.tree_leaves_with_path(expected)
    arrays: list[Any] = []
    for (path, a), x in zip(leaves, received, strict=True):
        name, b = "output" + jax.tree_util.keystr(path), _array(x)
        if b is None:
            return [], ("output-structure", name, f"got {type(x).__name__}, not an array")
        if b.shape != a.shape:
            return [], ("output-shape", name, f"got {b.shape}, the program returns {a.shape}")
        if b.dtype != a.dtype:
            return [], ("output-dtype", name, f"got {b.dtype}, the program returns {a.dtype}")
        arrays.append(b)
    return arrays, None


def _array(x: Any) -> Any:
    """A plain array as it is, a numpy scalar as its array, and None for anything else."""
    if type(x) in (np.ndarray, np.memmap):
        return np.asarray(x)
    if isinstance(x, jax.Array):
        return None if x.is_deleted() else x
    return np.asarray(x) if isinstance(x, np.generic) else None


def judge(
    findings: Findings,
    claims: Sequence[Claim],
    outputs: Sequence[tuple[str, frozenset[str], frozenset[str]]],
) -> tuple[Verdict, str, str | None, tuple[ClaimResult, ...]]:
    """Verdict on a run.

    Args:
      findings: what was measured, as numpy arrays.
      claims: of the program.
      outputs: of each leaf its name, and the discontinuous equations and loops before it.

    Returns:
      Verdict, reason, name of the first claim or output that was not accepted, and the verdict of
      each claim and output.
    """
    stopped = frozenset(name for name, flag in findings.stopped.items() if np.any(flag))
    results = [
        _result(c.name, _judge_claim(findings, c), c.discontinuities, c.loops & stopped)
        for c in claims
    ]
    results += [
        _result(name, _judge_output(findings.outputs[i]), discontinuities, loops & stopped)
        for i, (name, discontinuities, loops) in enumerate(outputs)
    ]
    # In the order of execution: claims of one scan by iteration first.
    places = [(c.group, r.trip, c.index) for c, r in zip(claims, results, strict=False)]
    places += [(len(claims), 0, i) for i in range(len(outputs))]
    for verdict in (Verdict.REJECT, Verdict.INDETERMINATE):
        failed = [
            (place, r) for place, r in zip(places, results, strict=True) if r.verdict is verdict
        ]
        if failed:
            _, result = min(failed, key=lambda item: item[0])
            return verdict, result.reason, result.name, tuple(results)
    if stopped:
        return Verdict.INDETERMINATE, "trip-limit", min(stopped), tuple(results)
    if all(r.verdict is Verdict.ACCEPT for r in results):
        return Verdict.ACCEPT, "ok", None, tuple(results)
    raise AssertionError("a verdict is one of three")


def _result(
    name: str,
    outcome: Outcome,
    discontinuities: frozenset[str],
    stopped: frozenset[str],
) -> ClaimResult:
    reason, worst, row, trip = outcome
    if reason == "ok":
        verdict = Verdict.ACCEPT
    elif reason in ("nonfinite-operand", "nonfinite-output"):
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
        worst=worst,
        row=row,
        trip=trip,
        discontinuities=tuple(sorted(discontinuities)),
    )


def _judge_claim(findings: Findings, claim: Claim) -> Outcome:
    """Outcome of a claim, over all trips of the scans around it."""
    statistic = Statistic(*(x.reshape(-1) for x in findings.statistics[claim.index]))
    conditions = freivalds.conditions(statistic)
    reason, worst, row, trip = _first_failure(conditions, statistic.worst, statistic.row)
    if reason == "claim-mismatch" and not findings.taken[claim.index].reshape(-1)[trip]:
        reason = "claim-untaken"
    elif reason == "claim-mismatch" and claim.contraction is None:
        reason = "rounding-mismatch"
    return reason, worst, row, trip


def _judge_output(statistic: OutputStatistic) -> Outcome:
    checks = (
        ("output-nonfinite", np.ravel(statistic.finite)),
        ("output-mismatch", np.ravel(statistic.worst) <= 1.0),
        ("nonfinite-output", np.ravel(statistic.own_finite)),
    )
    return _first_failure(checks, np.ravel(statistic.worst), np.ravel(statistic.row))


def _first_failure(checks: Sequence[tuple[str, Any]], worst: Any, row: Any) -> Outcome:
    for reason, passed in checks:
        trips = passed.tolist()
        if False in trips:
            trip = trips.index(False)
            return reason, float(worst[trip]), int(row[trip]), trip
    if not len(worst):
        return "ok", 0.0, None, 0
    trip = int(worst.argmax())
    return "ok", float(worst[trip]), int(row[trip]), trip
