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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from verifiable.check import schedule, settings
from verifiable.check.partial.iterations import (
    Carry,
    Parts,
    entering_of,
    tested_iterations,
    tested_of,
)
from verifiable.check.partial.layers import Layers
from verifiable.check.partial.opened_rows import OpenedTensors
from verifiable.check.partial.row_test import Indices
from verifiable.check.partial.rows import reduced
from verifiable.check.partial.scans import LayerScan
from verifiable.check.replay import parameter_values, replay
from verifiable.check.replay.key_layout import KeyLayout
from verifiable.check.replay.needed import Needs
from verifiable.check.replay.replay import Context, Findings
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
      tested: of the claims in the bodies of layers, the audited iterations only, by index; in the
        audited rows only, if all tests read no others (`iterations.tested_of`).
      entering: for each scan of layers, the carries that enter these iterations, likewise, but the
        first; and those that leave the last one; none if they are not committed as they are.
      chosen: for each scan of layers, the audited iterations, int32 (s,).
      rows: for each scan of layers, the rows in which each of them is tested, int32 (s, r); None if
        all are. Of a layer that is a group, its own, int32 (r,).
      entry: for each scan of layers, the rows of what leads into it, int32 (r,); None for all.
    """

    key: dict[str, Array]
    inputs: tuple[Any, ...]
    outputs: tuple[Array, ...]
    read: dict[int, Array]
    tested: dict[int, Parts]
    entering: tuple[tuple[Carry, ...], ...]
    chosen: tuple[Array, ...]
    rows: tuple[Array | None, ...]
    entry: tuple[Array | None, ...]


jax.tree_util.register_dataclass(
    AuditArguments,
    data_fields=[
        "key",
        "inputs",
        "outputs",
        "read",
        "tested",
        "entering",
        "chosen",
        "rows",
        "entry",
    ],
    meta_fields=[],
)


class AuditDraw(NamedTuple):
    """What an audit looks at.

    Attributes:
      layers: numbers of the layers, ascending.
      rows: of each; empty if all are tested in all.
      entering: the rows of what leads into a scan of layers (`before_layers`).
    """

    layers: Sequence[int]
    rows: Sequence[Indices] = ()
    entering: Mapping[LayerScan, Indices] = MappingProxyType({})


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
    _groups: dict[tuple[int, bool], Callable[..., Any]] = field(default_factory=dict, repr=False)

    @cached_property
    def read(self) -> frozenset[int]:
        """The claims that are given whole: read by the outputs, or by later iterations."""
        found = self.layers.base.reads - self.layers.in_scans
        passed = (s.passes.reads for s in self.layers.scans if s.direct is None)
        return found.union(*passed)

    def arguments(
        self,
        drawn: AuditDraw,
        key: Mapping[str, Array],
        inputs: tuple[Any, ...],
        outputs: Sequence[Array],
        values: OpenedTensors,
    ) -> AuditArguments:
        """The arguments of an audit of some layers.

        Args:
          drawn: the layers and rows.
          key: arrays of the key by name.
          inputs: the job's inputs.
          outputs: leaves of the answer.
          values: of all claims, zero where they were not opened.
        """
        tested: dict[int, Parts] = {}
        scans = self.layers.scans
        trips, rows = [s.chosen(drawn.layers) for s in scans], [_rows(s, drawn) for s in scans]
        audited = list(zip(scans, trips, rows, strict=True))
        for each in audited:
            tested |= tested_of(*each, values)
        return AuditArguments(
            key=dict(key),
            inputs=inputs,
            outputs=tuple(outputs),
            read={i: values[i] for i in sorted(self.read)},
            tested=tested,
            entering=tuple(entering_of(*each, values) for each in audited),
            chosen=tuple(np.asarray(own, np.int32) for own in trips),
            rows=tuple(rows),
            entry=tuple(
                np.asarray(drawn.entering[scan], np.int32) if scan in drawn.entering else None
                for scan in self.layers.scans
            ),
        )

    def measure(
        self, drawn: AuditDraw, arguments: AuditArguments, values: Sequence[Any]
    ) -> tuple[Findings, list[Array]]:
        """Measure the audited layers, what is part of every audit, and the outputs.

        Args:
          drawn: the layers and rows.
          arguments: from `arguments`.
          values: as there.

        Returns:
          The findings as numpy arrays, of iterations of layers those that are audited; and the
          leaves of the replayed output.
        """
        findings, own = self._run(self._base, arguments)
        for group in self._of_groups(drawn, arguments, values):
            findings.update(group(again=False))
        return findings, own

    def retests(
        self, drawn: AuditDraw, arguments: AuditArguments, values: Sequence[Any]
    ) -> Mapping[int, Statistic]:
        """Test the claims again that are tested in the rows of an audit (`Form.retest`).

        Args:
          drawn: the layers and rows.
          arguments: from `arguments`.
          values: as there.

        Returns:
          By index of the claim, numpy arrays, (s,); of other claims, tests as before.
        """
        findings = self._run(self._again, arguments)[0]
        for group in self._of_groups(drawn, arguments, values):
            findings.update(group(again=True))
        return findings.statistics

    def _of_groups(
        self, drawn: AuditDraw, arguments: AuditArguments, values: Sequence[Any]
    ) -> Iterator[Callable[..., Findings]]:
        """What measures each audited layer that is a group."""
        for n, layer in enumerate(drawn.layers if self.layers.groups else ()):
            own = drawn.rows[n] if drawn.rows else ()
            plan = self.layers.plan_of(layer, own)
            if plan is None:
                read, rows = self.layers.of_group(layer).reads, None
            else:
                read = plan.pulled.needs.reads | plan.pulled.claims.keys()
                rows = np.asarray(own, np.int32)
            given = replace(
                arguments, read={i: values[i] for i in sorted(read)}, outputs=(), rows=(rows,)
            )

            def measured(*, again: bool, layer: int = layer, given: Any = given) -> Findings:
                return self._run(self._group(layer, again), given)[0]

            yield measured

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
            layers = self.layers
            env, context = self._begin(arguments, layers.always | layers.in_scans)
            entering = Findings({}, {}, {}, {})
            for scan, rows in zip(layers.scans, arguments.entry, strict=True):
                if rows is not None:
                    plan = layers.entries[scan].plan
                    entering.update(plan.check(context, dict(env), rows, again=again))
            tested = context.tested.difference(entering.statistics)
            context = replace(context, tested=tested)
            needs = layers.whole if layers.scans else layers.base
            own, findings = self._check(needs, env, context, arguments, again=again)
            findings.update(entering)
            if again:
                return schedule.pack(findings._replace(outputs={})), ()
            for i, mine in enumerate(own):
                findings.outputs[i] = layers.program.output_statistic(
                    i, arguments.outputs[i], mine, env, self.strategy.tile_bytes
                )
            return schedule.pack(findings), own

    def _group(self, layer: int, again: bool) -> Callable[..., tuple[Packed, Any]]:
        """The tests of a layer that is a group of claims."""
        if (layer, again) not in self._groups:
            needs = self.layers.of_group(layer)

            def group(arguments: AuditArguments) -> tuple[Packed, Any]:
                with settings.neutral(), jax.enable_x64(True):
                    env, context = self._begin(arguments, self.layers.groups[layer])
                    [rows] = arguments.rows
                    if rows is not None and self.layers.group_rows is not None:
                        plan = self.layers.group_rows.plans[layer]
                        return schedule.pack(plan.check(context, env, rows, again=again)), ()
                    block = reduced(self.layers.program.function.block, needs)
                    _, findings = replay.check(block, context, env, wanted=())
                    return schedule.pack(findings), ()

            self._groups[layer, again] = schedule.compile(group, self.strategy)
        return self._groups[layer, again]

    def _begin(self, arguments: AuditArguments, tested: frozenset[int]) -> tuple[Env, Context]:
        require_arrays(arguments.key, self.key.arrays)
        program = self.layers.program
        key = self.key.as_tree(arguments.key)
        if any(c.form.is_table for c in program.claims):
            key = parameter_values.with_moves(key)
        inputs = jax.tree.leaves(arguments.inputs)
        claimed = _filled(self.layers, arguments.read)
        return replay.begin(program, key, inputs, claimed, tested=tested, strategy=self.strategy)

    def _check(
        self,
        needs: Needs,
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
                drawn = arguments.entering[at], arguments.chosen[at], arguments.rows[at]
                layer_scan, given = self.layers.scans[at], arguments.tested
                findings.update(
                    tested_iterations(layer_scan, context, env, *drawn, given, again=again)
                )
                continue
            read = {a: None for e in left for a in uses(e)}
            wanted = [a for a in (*read, *block.outputs) if a in _defined(now)]
            _, found = replay.check(Block((), now, ()), context, env, wanted)
            findings.update(found)
        return interpret.read_all(env, block.outputs), findings


def _rows(scan: LayerScan, drawn: AuditDraw) -> Array | None:
    """The rows of the audited iterations of a scan, int32 (s, r); None if all are tested."""
    own = scan.rows_of(drawn.layers, drawn.rows)
    return np.asarray([own[i] for i in sorted(own)], np.int32) if own else None


def _defined(equations: Sequence[Any]) -> set[Any]:
    return {v for e in equations for v in e.outputs}


def _filled(layers: Layers, given: Mapping[int, Array]) -> dict[int, Array]:
    """Values of all claims: zeros, which nothing that is looked at depends on, for those absent."""
    absent = (c for c in layers.program.claims if c.index not in given)
    return {c.index: jnp.zeros(c.shape, c.dtype) for c in absent} | dict(given)
