"""What an audit measures: the tests of the audited layers, and the outputs.

Where layers are iterations of a scan, an audit is one compiled program for every plan of a size:

    the scan, reduced to what its carries need, and the carry before each iteration;
    a scan over the audited iterations only, each from its carry, in which its claims are tested;
    the rest of the program, in which all claims and outputs are tested.

Which iterations are audited is an argument, and so are the rows in which they are tested, where an
audit draws rows (`rows`). Claims that are only tested, and not read by later iterations, are given
for these iterations alone. Where layers are groups of claims, each layer is a program of its own,
compiled when it is first audited.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.check import known, operands, replay, schedule, settings
from verifiable.check.key_layout import KeyLayout
from verifiable.check.outputs import compare
from verifiable.check.partial.layers import Layers
from verifiable.check.partial.rows import Indices, reduced
from verifiable.check.partial.scans import LayerScan
from verifiable.check.replay import Context, Findings
from verifiable.check.schedule import Packed, Strategy
from verifiable.claims.statistic import Statistic
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Block, Env
from verifiable.jaxpr.graph import uses
from verifiable.key import require_arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditArguments:
    """What an audit runs on; a pytree.

    Attributes:
      key: arrays of the key by name.
      inputs: the job's inputs.
      outputs: leaves of the answer.
      read: opened claims by index, zero where they were not opened.
      tested: of the claims in the bodies of layers, the audited iterations only, by index.
      chosen: for each scan of layers, the audited iterations, int32 (s,).
      rows: for each scan of layers, the rows in which each of them is tested, int32 (s, r); None if
        all are.
    """

    key: dict[str, Array]
    inputs: tuple[Any, ...]
    outputs: tuple[Array, ...]
    read: dict[int, Array]
    tested: dict[int, Array]
    chosen: tuple[Array, ...]
    rows: tuple[Array | None, ...]


jax.tree_util.register_dataclass(
    AuditArguments,
    data_fields=["key", "inputs", "outputs", "read", "tested", "chosen", "rows"],
    meta_fields=[],
)


class AuditDraw(NamedTuple):
    """What an audit looks at.

    Attributes:
      layers: numbers of the layers, ascending.
      rows: of each; empty if all are tested in all.
      row_count: how many were asked for; None for all.
    """

    layers: Sequence[int]
    rows: Sequence[Indices] = ()
    row_count: int | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class CompiledAudit:
    """The measurements of audits of one program.

    Attributes:
      layers: of the program.
      key: the layout of a key.
      strategy: how the audit is compiled; it changes no verdict.
    """

    layers: Layers
    key: KeyLayout = field(repr=False)
    strategy: Strategy
    _groups: dict[int, Callable[..., Any]] = field(default_factory=dict, repr=False)

    @cached_property
    def read(self) -> frozenset[int]:
        """The claims that are given whole: read by the outputs, or by later iterations."""
        inside = frozenset[int]().union(*(s.claims for s in self.layers.scans))
        found = self.layers.base.reads - inside
        return found.union(*(s.passes.reads for s in self.layers.scans))

    def arguments(
        self,
        drawn: AuditDraw,
        key: Mapping[str, Array],
        inputs: tuple[Any, ...],
        outputs: Sequence[Array],
        values: Sequence[np.ndarray[Any, Any]],
    ) -> AuditArguments:
        """The arguments of an audit of some layers.

        Args:
          drawn: the layers and rows.
          key: arrays of the key by name.
          inputs: the job's inputs.
          outputs: leaves of the answer.
          values: of all claims, zero where they were not opened.
        """
        tested: dict[int, Array] = {}
        trips = [np.asarray(s.chosen(drawn.layers), np.int32) for s in self.layers.scans]
        for scan, own in zip(self.layers.scans, trips, strict=True):
            tested |= {i: values[i][own] for i in sorted(scan.claims)}
        return AuditArguments(
            key=dict(key),
            inputs=inputs,
            outputs=tuple(outputs),
            read={i: values[i] for i in sorted(self.read)},
            tested=tested,
            chosen=tuple(trips),
            rows=tuple(_rows(scan, drawn) for scan in self.layers.scans),
        )

    def measure(
        self, chosen: Sequence[int], arguments: AuditArguments, values: Sequence[Any]
    ) -> tuple[Findings, list[Array]]:
        """Measure the audited layers, what is part of every audit, and the outputs.

        Args:
          chosen: numbers of the layers, ascending.
          arguments: from `arguments`.
          values: as there.

        Returns:
          The findings as numpy arrays, of iterations of layers those that are audited; and the
          leaves of the replayed output.
        """
        findings, own = self._run(self._base, arguments)
        for layer in chosen if self.layers.groups else ():
            read = {i: values[i] for i in sorted(self.layers.of_group(layer).reads)}
            group = replace(arguments, read=read, outputs=())
            more, _ = self._run(self._group(layer), group)
            findings.update(more)
        return findings, own

    def retests(self, arguments: AuditArguments) -> Mapping[int, Statistic]:
        """Test the claims again that are tested in the rows of an audit (`Form.retest`).

        Args:
          arguments: from `arguments`.

        Returns:
          By index of the claim, numpy arrays, (s,); of other claims, tests as before.
        """
        return self._run(self._again, arguments)[0].statistics

    @staticmethod
    def _run(
        part: Callable[..., tuple[Packed, Any]], arguments: AuditArguments
    ) -> tuple[Findings, Any]:
        with settings.neutral(compiled=True), jax.enable_x64(True):
            packed, own = part(arguments)
        return schedule.unpack(packed), own

    @cached_property
    def _base(self) -> Callable[..., tuple[Packed, Any]]:
        return schedule.compile(functools.partial(self._measured, again=False), self.strategy)

    @cached_property
    def _again(self) -> Callable[..., tuple[Packed, Any]]:
        return schedule.compile(functools.partial(self._measured, again=True), self.strategy)

    def _measured(self, arguments: AuditArguments, *, again: bool) -> tuple[Packed, Any]:
        """All tests but those of groups, and the outputs; or the tests in some rows again."""
        with settings.neutral(), jax.enable_x64(True):
            program, layers = self.layers.program, self.layers
            inside = frozenset[int]().union(*(s.claims for s in layers.scans))
            env, context = self._begin(arguments, layers.always | inside)
            needs = layers.whole if layers.scans else layers.base
            own, findings = self._check(needs, env, context, arguments, again=again)
            if again:
                return schedule.pack(findings._replace(outputs={})), ()
            for i, output in enumerate(program.outputs):
                theirs, eps = arguments.outputs[i], program.tolerances[output.name]
                terms = program.scaled_terms(output, env)
                size = self.strategy.tile_bytes
                findings.outputs[i] = compare(theirs, own[i], eps, size, terms)
            return schedule.pack(findings), own

    def _group(self, layer: int) -> Callable[..., tuple[Packed, Any]]:
        """The tests of a layer that is a group of claims."""
        if layer not in self._groups:
            needs = self.layers.of_group(layer)

            def group(arguments: AuditArguments) -> tuple[Packed, Any]:
                with settings.neutral(), jax.enable_x64(True):
                    env, context = self._begin(arguments, self.layers.groups[layer])
                    block = reduced(self.layers.program.function.block, needs)
                    _, findings = replay.check(block, context, env, wanted=())
                    return schedule.pack(findings), ()

            self._groups[layer] = schedule.compile(group, self.strategy)
        return self._groups[layer]

    def _begin(self, arguments: AuditArguments, tested: frozenset[int]) -> tuple[Env, Context]:
        require_arrays(arguments.key, self.key.arrays)
        program = self.layers.program
        key = self.key.as_tree(arguments.key)
        if any(c.form.of_known for c in program.claims):
            key = {**key, "residual": known.merged(key["residual"], key["moves"])}
        inputs = jax.tree.leaves(arguments.inputs)
        claimed = _filled(self.layers, arguments.read)
        return replay.begin(program, key, inputs, claimed, tested=tested, strategy=self.strategy)

    def _check(
        self,
        needs: operands.Needs,
        env: Env,
        context: Context,
        arguments: AuditArguments,
        *,
        again: bool,
    ) -> tuple[list[Array], Findings]:
        """Evaluate the outermost block, scans of layers apart."""
        block = reduced(self.layers.program.function.block, needs)
        scans = {s.equation: i for i, s in enumerate(self.layers.scans)}
        findings, left = Findings({}, {}, {}, {}), list(block.equations)
        for at, several in itertools.groupby(block.equations, lambda e: scans.get(e, -1)):
            now = list(several)
            left = left[len(now) :]
            if at >= 0:
                drawn = arguments.chosen[at], arguments.rows[at]
                layer_scan, given = self.layers.scans[at], arguments.tested
                findings.update(_layers(layer_scan, context, env, *drawn, given, again=again))
                continue
            read = {a: None for e in left for a in uses(e)}
            wanted = [a for a in (*read, *block.outputs) if a in _defined(now)]
            _, found = replay.check(Block((), now, ()), context, env, wanted)
            findings.update(found)
        return interpret.read_all(env, block.outputs), findings


def _rows(scan: LayerScan, drawn: AuditDraw) -> Array | None:
    """The rows of the audited iterations of a scan, int32 (s, r); None if all are tested."""
    if scan.rows is None or drawn.row_count is None or drawn.row_count >= scan.rows.length:
        return None
    own = scan.rows_of(drawn.layers, drawn.rows)
    return np.asarray([own[i] for i in sorted(own)], np.int32).reshape(-1, drawn.row_count)


def _defined(equations: Sequence[Any]) -> set[Any]:
    return {v for e in equations for v in e.outputs}


def _filled(layers: Layers, given: Mapping[int, Array]) -> dict[int, Array]:
    """Values of all claims: zeros, which nothing that is looked at depends on, for those absent."""
    absent = (c for c in layers.program.claims if c.index not in given)
    return {c.index: jnp.zeros(c.shape, c.dtype) for c in absent} | dict(given)


def _layers(
    scan: LayerScan,
    context: Context,
    env: Env,
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
      chosen: int32 (s,), iterations.
      rows: int32 (s, r), the rows of each; None for all.
      tested: claims of these iterations by index, (s, ...).
      again: whether the tests in some rows are those of a second try.

    Returns:
      The findings, stacked over the chosen iterations.
    """
    equation, body, analysis = scan.equation, scan.body, context.analysis
    count = len(scan.carried)
    frame, residual = context.children[equation]
    claims = {i: context.claimed[i] for i in scan.passes.reads}
    shapes = {c.index: (c.shape[1:], c.dtype) for c in analysis.claims_in(body)}
    passed = list(itertools.compress(body.outputs, scan.carried + scan.stacked))
    carries = list(itertools.compress(body.inputs[:count], scan.carried))
    slices = list(itertools.compress(body.inputs[count:], scan.scanned))
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
    scanned = interpret.read_all(
        env, list(itertools.compress(equation.inputs[count:], scan.scanned))
    )

    def one(_: Any, given: Any) -> tuple[Any, Findings]:
        trip, some, claimed = given

        def at(x: Array) -> Array:
            return lax.dynamic_index_in_dim(x, trip, keepdims=False)

        inner = dict(env)
        interpret.write(inner, carries, [at(x) for x in before])
        interpret.write(inner, slices, [at(x) for x in scanned])
        here = replace(context, claimed=claimed)
        here = here.inside(frame, jax.tree.map(at, residual), inner)
        if some is not None and scan.rows is not None:
            return (), scan.rows.check(here, inner, some, again=again)
        return (), replay.check(body, here, inner, wanted=())[1]

    own = {i: tested[i] for i in scan.claims}
    _, findings = lax.scan(one, (), (chosen, rows, own))
    both = [findings.stopped, stopped]
    names = {name for flags in both for name in flags}
    any_of = functools.partial(_any, both)
    return findings._replace(stopped={name: any_of(name) for name in names})


def _any(flags: Sequence[Mapping[str, Array]], name: str) -> Array:
    found = [jnp.any(f[name]) for f in flags if name in f]
    return functools.reduce(jnp.logical_or, found)


def spread(found: Statistic, chosen: Sequence[int], trips: tuple[int, ...]) -> Statistic:
    """The statistic of all iterations, given that of some: the others have passed.

    Args:
      found: numpy arrays, (s, ...).
      chosen: the s iterations.
      trips: lengths of the scans around the claim.
    """
    fields: list[Any] = []
    for value, other in zip(found, passed(trips), strict=True):
        full = np.array(other)
        full[list(chosen)] = np.broadcast_to(value, (len(chosen), *trips[1:]))
        fields.append(full)
    return Statistic(*fields)


def passed(trips: tuple[int, ...]) -> Statistic:
    """The statistic of a claim that is not looked at: below any that is."""
    true, zero = np.ones(trips, bool), np.zeros(trips, np.int32)
    return Statistic(
        worst=np.full(trips, -1.0),
        row=zero,
        passed=true,
        finite_claim=true,
        in_range=true,
        finite_operands=true,
        ties=zero,
        flips=zero,
        defined=true,
        stopped=~true,
    )
