"""Scans of layers in an audit: what enters the audited iterations, and their tests.

With cuts (`LayerScan.direct`), what enters an iteration was committed. Else the scan is evaluated
first, reduced to what its carries need.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from verifiable.check import replay
from verifiable.check.partial.received import OpenedTensors
from verifiable.check.partial.rows import reduced
from verifiable.check.partial.scans import LayerScan
from verifiable.check.replay import Context, Findings
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Env

Entering = Callable[[Array, Sequence[Array]], list[Array]]  # from an iteration, what enters it


def entering_of(
    scan: LayerScan, trips: Sequence[int], values: OpenedTensors
) -> tuple[tuple[Array, Array], ...]:
    """The carries that enter some iterations, and those that leave the last, as committed."""
    last = scan.before([scan.length if scan.first_trip == 0 else -1])
    before = scan.before(trips)
    return tuple(
        (values.iterations(i, before), values.iterations(i, last)[0]) for i in scan.direct or ()
    )


def tested_iterations(
    scan: LayerScan,
    context: Context,
    env: Env,
    entering: Sequence[tuple[Array, Array]],
    chosen: Array,
    rows: Array | None,
    tested: Mapping[int, Array],
    *,
    again: bool,
) -> Findings:
    """Evaluate a scan, and test its claims in the chosen iterations and rows only.

    Args:
      scan: the scan.
      context: in the block around it.
      env: values by variable; this function writes to it.
      entering: see `AuditArguments`.
      chosen: int32 (s,), iterations.
      rows: int32 (s, r), the rows of each; None for all.
      tested: claims of these iterations by index, (s, ...).
      again: whether the tests in some rows are those of a second try.

    Returns:
      The findings, stacked over the chosen iterations.
    """
    equation, body = scan.equation, scan.body
    count = len(scan.carried)
    frame, residual = context.children[equation]
    carries = list(itertools.compress(body.inputs[:count], scan.carried))
    slices = list(itertools.compress(body.inputs[count:], scan.scanned))
    before, stopped = (_committed if entering else _passed)(scan, context, env, entering)
    scanned = interpret.read_all(
        env, list(itertools.compress(equation.inputs[count:], scan.scanned))
    )

    def one(_: Any, given: Any) -> tuple[Any, Findings]:
        trip, some, claimed, entered = given

        def at(x: Array) -> Array:
            return lax.dynamic_index_in_dim(x, trip, keepdims=False)

        inner = dict(env)
        interpret.write(inner, carries, before(trip, entered))
        interpret.write(inner, slices, [at(x) for x in scanned])
        here = replace(context, claimed=claimed)
        here = here.inside(frame, jax.tree.map(at, residual), inner)
        if some is not None and scan.rows is not None:
            return (), scan.rows.check(here, inner, some, again=again)
        return (), replay.check(body, here, inner, wanted=())[1]

    own = {i: tested[i] for i in scan.claims}
    _, findings = lax.scan(one, (), (chosen, rows, own, [x for x, _ in entering]))
    both = [findings.stopped, stopped]
    names = {name for flags in both for name in flags}
    any_of = functools.partial(_any, both)
    return findings._replace(stopped={name: any_of(name) for name in names})


def _committed(
    scan: LayerScan, context: Context, env: Env, entering: Sequence[tuple[Array, Array]]
) -> tuple[Entering, dict[str, Array]]:
    """What enters an iteration, from the cuts; the first iteration is entered by what is given."""
    del context
    equation, count = scan.equation, len(scan.carried)
    first = interpret.read_all(env, [*itertools.compress(equation.inputs[:count], scan.carried)])
    outputs = list(itertools.compress(equation.outputs[:count], scan.carried))
    interpret.write(env, outputs, [last for _, last in entering])

    def before(trip: Array, entered: Sequence[Array]) -> list[Array]:
        pairs = zip(first, entered, strict=True)
        return [jnp.where(trip == scan.first_trip, own, x).astype(x.dtype) for own, x in pairs]

    return before, {}


def _passed(
    scan: LayerScan, context: Context, env: Env, entering: Sequence[tuple[Array, Array]]
) -> tuple[Entering, dict[str, Array]]:
    """What enters an iteration, from all before; and which loops ran too long on the way."""
    del entering
    equation, body, count = scan.equation, scan.body, len(scan.carried)
    frame, residual = context.children[equation]
    claims = {i: context.claimed[i] for i in scan.passes.reads}
    shapes = {c.index: (c.shape[1:], c.dtype) for c in context.analysis.claims_in(body)}
    passed = list(itertools.compress(body.outputs, scan.carried + scan.stacked))
    carries = list(itertools.compress(body.inputs[:count], scan.carried))
    passing = reduced(body, scan.passes)

    def step(inner: Env, given: Any) -> tuple[list[Array], Any]:
        residual, claimed = given
        before = interpret.read_all(inner, carries)
        # What is passed on does not depend on the others.
        absent = {i: jnp.zeros(*shape) for i, shape in shapes.items() if i not in claimed}
        here = replace(context, claimed=absent | claimed, tested=frozenset())
        outputs, findings = replay.check(
            passing, here.inside(frame, residual, inner), inner, passed
        )
        return outputs, (before, findings.stopped)

    outputs, (before, stopped) = interpret.scan(
        equation,
        env,
        step,
        extra=(residual, claims),
        carried=scan.carried,
        scanned=scan.scanned,
    )
    flags = scan.carried + scan.stacked
    interpret.write(env, list(itertools.compress(equation.outputs, flags)), outputs)

    def entered(trip: Array, _: Sequence[Array]) -> list[Array]:
        return [lax.dynamic_index_in_dim(x, trip, keepdims=False) for x in before]

    return entered, stopped


def _any(flags: Sequence[Mapping[str, Array]], name: str) -> Array:
    found = [jnp.any(f[name]) for f in flags if name in f]
    return functools.reduce(jnp.logical_or, found)
