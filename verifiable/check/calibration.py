"""Calibration: tolerances measured on honest runs.

The statistic is the one that `check` computes, and includes the verifier's own rounding and glue.
For a contraction it is sqrt(||rho_i||^2 / t) / s_i, an estimate of ||delta_i * w|| / s_i
(`freivalds`); for a rounding or decision, the distance of the values before it, over |value| + rms
(`slack`); for an output, the relative distance of a row. The tolerance of a claim follows from
the worst row of each run:

    eps = max(factor * worst over all runs, floor * unit roundoff).

The floor allows for other devices where the executors never differed.

A difference before a rounding or decision shows in the trace only where it crosses a tie. So the
program's own executors also return the values before each of them (`_observe`), which are compared
with the replayed ones (`_before`). Of the caller's executors only traces are known: the distance of
the replayed value from what leads to the claim is less than what separates the values.

Only trusted executors may take part: an untrusted one could widen the tolerance.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from verifiable import challenge
from verifiable.check import execute
from verifiable.check.specification import Specification
from verifiable.claims.claim import Claim
from verifiable.errors import require_type
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Env, Equation
from verifiable.policy import Calibration, Measured, Policy
from verifiable.report import ClaimResult, Report
from verifiable.trace import Trace

FACTOR = 4.0
FLOOR = 4.0
_RENEWED = 16  # runs on one key

Executor = Callable[..., tuple[Any, ...]]


def calibrate(
    program: Any,
    params: Any,
    samples: Sequence[tuple[Any, ...]],
    *,
    executors: Sequence[Executor] = (),
    factor: float = FACTOR,
) -> Policy:
    """Measure the tolerance of each claim and output of a program.

    Args:
      program: a `program.Program`; that module imports this one, so the type is not named here.
      params: the trained parameters; with random ones, deviations are smaller.
      samples: a tuple of inputs each, with the shapes given to `compile` and realistic values.
      executors: trusted `(params, *inputs) -> (y, trace)` beside the program's own, which runs
        compiled and op by op.
      factor: by how much a tolerance is to exceed the largest deviation seen.

    Returns:
      The program's policy with the calibration, for `Program.with_policy`.

    Raises:
      TypeError: a sample is neither a tuple nor a list.
      ValueError: no samples, an input or a result that is not finite, or a run that differs by
        more than rounding can explain, since a tolerance that covers it would cover cheats.
    """
    if not samples:
        raise ValueError("calibration needs at least one sample")
    for n, inputs in enumerate(samples):
        require_type(f"samples[{n}]", inputs, (tuple, list))
        _require_finite(f"sample {n}", inputs)

    if not program.calibrating:
        program.calibrating.append(_Compiled.of(program))
    [(program, own, compare)] = program.calibrating
    every = [*own, *executors]
    found: list[dict[str, float]] = []
    flipped: dict[str, float] = {}
    key = None
    for n, inputs in enumerate(samples):
        if key is None or n % _RENEWED == 0:
            key = program.setup(params, challenge.secret())
        for e, executor in enumerate(every):
            y, trace, *values = executor(params, *inputs)
            values = values if e < len(own) else []
            _require_finite(f"what executor {e} returned for sample {n}", (y, trace))
            report = program.check(key, *inputs, y=y, trace=trace)
            seen = _deviations(program, _results(report, n, e))
            for claim, result in zip(program.claims, report.results, strict=False):
                share = result.flips / max(claim.decisions, 1)
                flipped[claim.name] = max(flipped.get(claim.name, 0.0), share)
            with jax.enable_x64(True):
                before = compare(params, inputs, trace.values, *values) if values else {}
            for name, worst in before.items():
                seen[name] = max(seen[name], float(np.max(worst)))
            found.append(seen)
    kept = {c.name for c in program.claims if not c.form.calibrates}
    measured = [
        _measure(name, [seen[name] for seen in found], program.eps_types[name], factor)
        for name, eps in program.tolerances.items()
        if eps > 0 and name not in kept
    ]
    measured = [replace(m, flips=min(factor * flipped.get(m.name, 0.0), 0.5)) for m in measured]
    if not measured:
        return program.policy
    return replace(
        program.policy,
        calibration=Calibration(
            programs=(program.id,),
            samples=len(samples),
            executors=len(every),
            factor=factor,
            measured=tuple(measured),
        ),
    )


class _Compiled(NamedTuple):
    """What every calibration of a program compiles.

    Attributes:
      program: checks without float32 of its own, whose rounding would count as a deviation.
      own: runs it, compiled and op by op; see `_observe`.
      compare: `_before`.
    """

    program: Any
    own: tuple[Executor, Executor]
    compare: Callable[..., dict[str, Array]]

    @classmethod
    def of(cls, program: Any) -> _Compiled:
        program = replace(program, strategy=replace(program.strategy, cheap_first=False))
        observe = functools.partial(_observe, program)

        def op_by_op(*args: Any) -> Any:
            with jax.disable_jit():
                return observe(*args)

        compare = jax.jit(functools.partial(_before, program))
        return cls(program, (jax.jit(observe), op_by_op), compare)


def _require_finite(what: str, tree: Any) -> None:
    for leaf in jax.tree.leaves(tree):
        x = np.asarray(leaf)
        if jnp.issubdtype(x.dtype, jnp.inexact) and not np.all(
            np.isfinite(x.astype(np.complex128))
        ):
            raise ValueError(f"{what} is not finite")


def _results(report: Report, sample: int, executor: int) -> tuple[ClaimResult, ...]:
    if not report.results:
        raise ValueError(
            f"executor {executor} does not run this program: {report.reason}, {report.message}"
        )
    for result in report.results:
        if not np.isfinite(result.worst):
            raise ValueError(
                f"executor {executor} differs on sample {sample} in {result.name} by more than any "
                f"tolerance: {result.reason}"
            )
    return report.results


def _deviations(program: Specification, results: Sequence[ClaimResult]) -> dict[str, float]:
    """The worst deviation of each claim and output of one run, in the units of eps."""
    limit = program.bound.limit if program.bound else 0.0
    forms = {c.name: c.form for c in program.claims}
    units = {name: form.unit(limit, program.policy.draws) for name, form in forms.items()}
    worst = {r.name: 1.0 if r.reason == "decision-ties" else r.worst for r in results}
    return {n: w * program.tolerances[n] * units.get(n, 1.0) for n, w in worst.items()}


def _measure(name: str, seen: Sequence[float], types: Iterable[str], factor: float) -> Measured:
    wanted = max(factor * max(seen), FLOOR * _roundoff(types))
    if not wanted < 1:
        raise ValueError(f"{name} differs by {max(seen):.2g} of its scale: that is not rounding")
    return Measured(name=name, median=statistics.median(seen), worst=max(seen), eps=wanted)


def _roundoff(types: Iterable[str]) -> float:
    """Largest unit roundoff of some types."""
    return max(float(jnp.finfo(t).eps) / 2 for t in types)


def _observed(program: Specification) -> list[Claim]:
    """The claims before which are values that are not committed."""
    return [c for c in program.claims if c.form.observes]


def _observe(program: Specification, params: Any, *inputs: Any) -> tuple[Any, Trace, Any]:
    """`execute`, and the values before each rounding and decision by index of the claim."""

    def emit(claim: Claim, equation: Equation, env: Env, _: Any) -> tuple[list[Array], Any]:
        results, committed = execute.honest(claim, equation, env)
        before = interpret.read_all(env, claim.operands) if claim.form.observes else None
        return results, (committed, before)

    env, block = program.bind(params, inputs), program.function.block
    outputs, found = execute.execute(block, program.analysis, env, emit=emit)
    trace = Trace(values=tuple(found[c.index][0] for c in program.claims))
    values = {i: before for i, (_, before) in found.items() if before is not None}
    return program.unflatten(outputs), trace, values


def _before(
    program: Specification,
    params: Any,
    inputs: tuple[Any, ...],
    claimed: Sequence[Array],
    values: Mapping[int, list[Array]],
) -> dict[str, Array]:
    """Distance of the values before each rounding and decision from replayed ones.

    Args:
      program: the program.
      params: its parameters.
      inputs: of the run.
      claimed: the committed values, from which the replay goes on.
      values: the device's values before each of them, by index of the claim.
    """

    def emit(claim: Claim, equation: Equation, env: Env, given: Any) -> tuple[list[Array], Any]:
        committed, theirs = given
        if equation.bodies:
            limit = program.policy.trip_limit
            claim.prepare(committed, env, program.tolerances[claim.name], limit, interpret.apply)
        results = claim.outputs(committed, env)
        if theirs is None:
            return results, jnp.zeros(())
        return results, claim.form.apart(interpret.read_all(env, claim.operands), theirs)

    given = {c.index: (claimed[c.index], values.get(c.index)) for c in program.claims}
    env, block = program.bind(params, inputs), program.function.block
    _, found = execute.execute(block, program.analysis, env, emit=emit, given=given)
    return {c.name: found[c.index] for c in _observed(program)}
