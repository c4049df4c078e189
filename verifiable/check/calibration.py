"""Calibration: tolerances measured on honest runs.

The statistic is the one that `check` computes, and includes the verifier's own rounding and glue.
For a contraction it is sqrt(||rho_i||^2 / t) / s_i, an estimate of ||delta_i * w|| / s_i
(`freivalds`); for a rounding, the distance to the nearest value that rounds to it, over
|value| + rms (`rounding`); for an output, the relative distance of a row. The tolerance of a claim
follows from the worst row of each run:

    eps = max(factor * worst over all runs, floor * unit roundoff).

The floor allows for other devices where the executors never differed: FLOOR for an output,
`Form.floor` for a claim.

Only trusted executors may take part: an untrusted one could widen the tolerance.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verifiable import challenge
from verifiable.policy import Calibration, Measured, Policy
from verifiable.report import ClaimResult, Report

FACTOR = 4.0
FLOOR = 4.0
_RENEWED = 16  # runs on one key

Executor = Callable[..., tuple[Any, Any]]


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
      ValueError: no samples, an input or a result that is not finite, or a run that differs by
        more than rounding can explain, since a tolerance that covers it would cover cheats.
    """
    if not samples:
        raise ValueError("calibration needs at least one sample")
    for n, inputs in enumerate(samples):
        _require_finite(f"sample {n}", inputs)

    def op_by_op(*args: Any) -> Any:
        with jax.disable_jit():
            return program.execute(*args)

    every: list[Executor] = [jax.jit(program.execute), op_by_op, *executors]
    found: list[tuple[ClaimResult, ...]] = []
    key = None
    for n, inputs in enumerate(samples):
        if key is None or n % _RENEWED == 0:
            key = program.setup(params, challenge.secret())
        for e, executor in enumerate(every):
            y, trace = executor(params, *inputs)
            _require_finite(f"what executor {e} returned for sample {n}", (y, trace))
            report = program.check(key, *inputs, y=y, trace=trace)
            found.append(_results(report, n, e))
    limit = program.bound.limit if program.bound else 0.0
    tolerances = program.tolerances
    measured = [
        _measure(program, results, tolerances[results[0].name], limit, factor)
        for results in zip(*found, strict=True)
        if tolerances[results[0].name] > 0
    ]
    if not measured:
        return program.policy
    return replace(
        program.policy,
        calibration=Calibration(
            samples=len(samples), executors=len(every), factor=factor, measured=tuple(measured)
        ),
    )


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


def _measure(
    program: Any, results: Sequence[ClaimResult], eps: float, limit: float, factor: float
) -> Measured:
    name = results[0].name
    claim = {c.name: c for c in program.claims}.get(name)
    unit = eps * (1.0 if claim is None else claim.form.unit(limit, program.policy.draws))
    seen = [r.worst * unit for r in results]
    floor = FLOOR if claim is None else claim.form.floor
    wanted = max(factor * max(seen), floor * _roundoff(program.eps_types[name]))
    if not wanted < 1:
        raise ValueError(f"{name} differs by {max(seen):.2g} of its scale: that is not rounding")
    return Measured(name=name, median=statistics.median(seen), worst=max(seen), eps=wanted)


def _roundoff(types: Iterable[str]) -> float:
    """Largest unit roundoff of some types."""
    return max(float(jnp.finfo(t).eps) / 2 for t in types)
