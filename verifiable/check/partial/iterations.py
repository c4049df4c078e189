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

from verifiable.check.partial.opened_rows import OpenedTensors
from verifiable.check.partial.row_test import Numbers
from verifiable.check.partial.rows import GivenRows, reduced, take
from verifiable.check.partial.scans import LayerScan
from verifiable.check.replay import replay
from verifiable.check.replay.replay import Context, Findings
from verifiable.check.tiling.rules import Cut
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Env, Var

Parts = tuple[Array, ...]  # of some iterations, (s, ...): one whole value, or its rows by each cut
Carry = tuple[Parts, Array]  # before these iterations; and after the last, whole
Cuts = tuple[Cut, ...]
# From an iteration, its rows and what was committed before it, what enters it.
Entering = Callable[[Array, Array | None, Sequence[Parts]], list[Parts]]


def entering_of(
    scan: LayerScan, trips: Sequence[int], rows: Numbers | None, values: OpenedTensors
) -> tuple[Carry, ...]:
    """The carries that enter some iterations, and those that leave the last, as committed.

    Args:
      scan: the scan.
      trips: the iterations.
      rows: in which each of them is tested, int (s, r); None for all.
      values: what was opened.
    """
    last = scan.before([scan.length if scan.first_trip == 0 else -1])
    before, (cuts, _) = scan.before(trips), _cuts(scan, rows)
    pairs = zip(scan.direct, scan.carries, strict=True) if scan.direct else ()
    return tuple(
        (_read(i, before, cuts.get(v), rows, values), values.iterations(i, last)[0])
        for i, v in pairs
    )


def tested_of(
    scan: LayerScan, trips: Sequence[int], rows: Numbers | None, values: OpenedTensors
) -> dict[int, Parts]:
    """The claims of some iterations, by index; arguments as of `entering_of`."""
    _, cuts = _cuts(scan, rows)
    return {i: _read(i, trips, cuts.get(i), rows, values) for i in sorted(scan.claims)}


def _read(
    index: int,
    trips: Sequence[int],
    cuts: Cuts | None,
    rows: Numbers | None,
    values: OpenedTensors,
) -> Parts:
    if cuts is None or rows is None:
        return (values.iterations(index, trips),)
    return tuple(values.in_rows(index, trips, cut, rows) for cut in cuts)


def _cuts(scan: LayerScan, rows: Any) -> tuple[Mapping[Var, Cuts], Mapping[int, Cuts]]:
    """The carries and claims that are given in rows alone, and where these are."""
    plan = None if rows is None else scan.rows
    if plan is None:
        return {}, {}
    return plan.inputs if scan.direct else {}, plan.claims


def tested_iterations(
    scan: LayerScan,
    context: Context,
    env: Env,
    entering: Sequence[Carry],
    chosen: Array,
    rows: Array | None,
    tested: Mapping[int, Parts],
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
      tested: claims of these iterations by index, from `tested_of`.
      again: whether the tests in some rows are those of a second try.

    Returns:
      The findings, stacked over the chosen iterations.
    """
    equation, body = scan.equation, scan.body
    count = len(scan.carried)
    frame, residual = context.children[equation]
    carries, (some_inputs, some_claims) = scan.carries, _cuts(scan, rows)
    slices = list(itertools.compress(body.inputs[count:], scan.scanned))
    before, stopped = (_committed if entering else _passed)(scan, context, env, entering)
    scanned = interpret.read_all(
        env, list(itertools.compress(equation.inputs[count:], scan.scanned))
    )

    def one(_: Any, given: Any) -> tuple[Any, Findings]:
        trip, some, claimed, entered = given

        def at(x: Array) -> Array:
            return lax.dynamic_index_in_dim(x, trip, keepdims=False)

        inner, inputs = dict(env), dict[tuple[Var, Cut], Array]()
        for v, parts in zip(carries, before(trip, some, entered), strict=True):
            if v in some_inputs:
                inputs |= {(v, c): x for c, x in zip(some_inputs[v], parts, strict=True)}
            else:
                [inner[v]] = parts
        interpret.write(inner, slices, [at(x) for x in scanned])
        here = replace(
            context, claimed={i: x for i, (x, *_) in claimed.items() if i not in some_claims}
        )
        here = here.inside(frame, jax.tree.map(at, residual), inner)
        if some is not None and scan.rows is not None:
            claims = {
                (i, c): x
                for i, cuts in some_claims.items()
                for c, x in zip(cuts, claimed[i], strict=True)
            }
            return (), scan.rows.check(here, inner, some, GivenRows(claims, inputs), again=again)
        return (), replay.check(body, here, inner, wanted=())[1]

    own = {i: tested[i] for i in scan.claims}
    _, findings = lax.scan(one, (), (chosen, rows, own, [x for x, _ in entering]))
    both = [findings.stopped, stopped]
    names = {name for flags in both for name in flags}
    any_of = functools.partial(_any, both)
    return findings._replace(stopped={name: any_of(name) for name in names})


def _committed(
    scan: LayerScan, context: Context, env: Env, entering: Sequence[Carry]
) -> tuple[Entering, dict[str, Array]]:
    """What enters an iteration, from the cuts; the first iteration is entered by what is given."""
    del context
    equation, count = scan.equation, len(scan.carried)
    first = interpret.read_all(env, [*itertools.compress(equation.inputs[:count], scan.carried)])
    outputs = list(itertools.compress(equation.outputs[:count], scan.carried))
    interpret.write(env, outputs, [last for _, last in entering])

    def entered(trip: Array, rows: Array | None, given: Sequence[Parts]) -> list[Parts]:
        cuts, _ = _cuts(scan, rows)

        def of(own: Array, v: Var, parts: Parts) -> Parts:
            some = cuts.get(v)
            mine = [own] if some is None else [take(own, cut, rows) for cut in some]
            pairs = zip(mine, parts, strict=True)
            return tuple(jnp.where(trip == scan.first_trip, a, b).astype(b.dtype) for a, b in pairs)

        return [of(*each) for each in zip(first, scan.carries, given, strict=True)]

    return entered, {}


def _passed(
    scan: LayerScan, context: Context, env: Env, entering: Sequence[Carry]
) -> tuple[Entering, dict[str, Array]]:
    """What enters an iteration, from all before; and which loops ran too long on the way."""
    del entering
    equation, body = scan.equation, scan.body
    frame, residual = context.children[equation]
    claims = {i: context.claimed[i] for i in scan.passes.reads}
    shapes = {c.index: (c.shape[1:], c.dtype) for c in context.analysis.claims_in(body)}
    passed = list(itertools.compress(body.outputs, scan.carried + scan.stacked))
    passing = reduced(body, scan.passes)

    def step(inner: Env, given: Any) -> tuple[list[Array], Any]:
        residual, claimed = given
        before = interpret.read_all(inner, scan.carries)
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

    def entered(trip: Array, _: Array | None, __: Sequence[Parts]) -> list[Parts]:
        return [(lax.dynamic_index_in_dim(x, trip, keepdims=False),) for x in before]

    return entered, stopped


def _any(flags: Sequence[Mapping[str, Array]], name: str) -> Array:
    found = [jnp.any(f[name]) for f in flags if name in f]
    return functools.reduce(jnp.logical_or, found)
