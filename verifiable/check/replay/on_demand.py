"""Replays of a run, as far as one claim or output needs them, with the values that a key holds.

What a second look, a second test and near-ties ask of one claim is measured on its own: its
operands are replayed from the claims before them (`operands`), as they are, with other rounding, or
in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from verifiable.check.replay import operands, parameter_values, replay
from verifiable.check.replay.key_layout import KeyLayout
from verifiable.check.replay.needed import Needs, needed
from verifiable.check.specification import Specification, Target
from verifiable.claims.claim import Claim
from verifiable.claims.statistic import Deviation
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Env, Equation
from verifiable.jaxpr.perturb import Noise


@runtime_checkable
class Iterations(Protocol):
    """Values of claims of which single iterations can be had for less than the whole."""

    def iterations(self, index: int, trips: Sequence[int]) -> Any:
        """Some iterations of a claim, (len(trips), ...)."""
        ...


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Replays:
    """Replays of the runs of one program.

    Attributes:
      program: the compiled function.
      key: the layout of a key.
    """

    program: Specification
    key: KeyLayout
    _needed: dict[Target, Needs] = field(default_factory=dict)

    def reads(self, target: Target) -> frozenset[int]:
        """Indices of the claims that the operands of a claim, or an output, are replayed from."""
        own = frozenset[int]() if target.output else {target.index}
        return self._needs(target).reads - own

    def measurement(
        self,
        index: int,
        measure: operands.Measure,
        beside: Iterable[int] = (),
        at: Equation | None = None,
    ) -> Callable[[Any], Any]:
        """A function of a run that measures one claim on its own, compiled.

        Args:
          index: of the claim.
          measure: what of it; see `operands.measure`.
          beside: indices of other claims, whose operands `measure` reads too.
          at: a later equation before which it is measured, whose inputs are read too.

        Returns:
          A function of `compiled.CheckArguments`.
        """
        program, later = self.program, at and (at, self.program.claims[index])
        block, every = program.function.block, {index, *beside}
        needs = needed(block, program.analysis, every, later=later, ends=True)

        def chosen(claim: Claim, env: Env, context: replay.Context) -> Any:
            return measure(claim, env, context) if claim.index == index else None

        def measured(given: Any) -> Any:
            found = self._measured(needs, given, chosen)[1]
            return found[index if at is None else operands.LATER]

        run = jax.jit(measured)

        def call(arguments: Any) -> Any:
            with jax.enable_x64(True):
                return run(_read(needs, arguments))

        return call

    def _noise(
        self,
        seed: Array,
        independent: Array,
        coherent: Array,
        alike: Array | None = None,
        product: Array | None = None,
    ) -> tuple[Any, Any]:
        """How a perturbed replay evaluates equations, and known values."""
        losses: dict[str, Any] = dict(self.program.policy.losses)
        if product is not None:
            losses["product"] = product
        noise = Noise(
            seed=seed,
            independent=independent,
            coherent=coherent,
            losses=losses,
            exact=self.program.analysis.exact,
            alike=alike,
        )
        return noise, parameter_values.alter(noise)

    def _deviation(
        self,
        target: Target,
        needs: Needs,
        given: Any,
        apply: interpret.Apply,
        alter: operands.Alter = lambda value, *_: value,
    ) -> Deviation:
        """The deviation of a claim or output, over all trips of the scans around it."""
        program = self.program
        env, found = self._measured(needs, given, operands.deviation, apply, alter)
        output, index = target.output, target.index
        if not output:
            return operands.flattened(found[index], program.claims[index])
        return program.output_deviation(index, given["output"], env)

    def _measured(
        self, needs: Needs, given: Any, measure: operands.Measure, *how: Any
    ) -> tuple[Env, dict[int, Any]]:
        key = parameter_values.with_moves(self.key.as_tree(given["key"]))
        env, context = replay.begin(self.program, key, given["inputs"], given["values"])
        block = self.program.function.block
        return env, operands.measure(block, needs, context, env, measure, *how)

    def _given(self, target: Target, arguments: Any) -> tuple[Needs, Any]:
        """What a claim or output needs of the program, and the values that are at hand."""
        needs = self._needs(target)
        output = jnp.asarray(arguments.outputs[target.index]) if target.output else None
        given = _read(needs, arguments)
        values = {i: jnp.asarray(x) for i, x in given["values"].items()}
        return needs, given | {"values": values, "output": output}

    def _needs(self, target: Target) -> Needs:
        if target not in self._needed:
            output, index = target.output, target.index
            block, analysis = self.program.function.block, self.program.analysis
            claims, outputs = ([], [block.outputs[index]]) if output else ([index], [])
            self._needed[target] = needed(block, analysis, claims, outputs)
        return self._needed[target]


def _read(needs: Needs, arguments: Any) -> dict[str, Any]:
    """The values of a run that a replay starts from."""
    values, last = arguments.values, needs.last
    given: dict[int, Any] = {i: values[i] for i in sorted(needs.reads.difference(last))}
    if isinstance(values, Iterations):
        given |= {i: values.iterations(i, [n])[0] for i, n in last.items()}
    else:
        given |= {i: values[i][n] for i, n in last.items()}
    return {
        "key": arguments.key,
        "inputs": jax.tree.leaves(arguments.inputs),
        "values": given,
    }
