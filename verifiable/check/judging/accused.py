"""What judges of one claim or output need: the values that it is replayed from, compiled replays.

`judging.evidence` decides; here is what its judgements about the same claim or output share. A
replay takes far longer to compile than to run, so the program keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from verifiable.check.replay import operands, replay
from verifiable.check.replay.needed import Needs, needed
from verifiable.check.specification import Specification, Target
from verifiable.claims.claim import Claim
from verifiable.claims.statistic import Deviation
from verifiable.errors import MalformedEncoding
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Env
from verifiable.jaxpr.perturb import Noise


@dataclass(frozen=True, eq=False)
class Accused:
    """A claim or output that evidence may be about.

    Attributes:
      program: the judge's.
      target: which one.
    """

    program: Specification
    target: Target

    @property
    def claim(self) -> Claim:
        """The accused claim."""
        return self.program.claims[self.target.index]

    @cached_property
    def needs(self) -> Needs:
        """What the accused value is replayed from."""
        block, analysis = self.program.function.block, self.program.analysis
        output, index = self.target.output, self.target.index
        claims, outputs = ([], [block.outputs[index]]) if output else ([index], [])
        return needed(block, analysis, claims, outputs, keyed=False)

    @cached_property
    def tensors(self) -> frozenset[int]:
        """The accused tensor and those that its operands read, by index in the layout."""
        output, index = self.target.output, self.target.index
        return self.needs.reads | {index + output * len(self.program.claims)}

    @cached_property
    def leaves(self) -> list[int]:
        """The leaves that evidence opens, in order."""
        layout = self.program.layout
        return [i for i in range(layout.size) if layout.rows_of(i).tensor in self.tensors]

    def arguments(self, params: Any, inputs: tuple[Any, ...]) -> list[Any]:
        """Values of the function's inputs, as `deviation` takes them; None for what is not needed.

        They are arguments of a compiled replay: as constants, XLA would compute with them at once.
        """
        env = self.program.bind(params, inputs)
        needed = self.needs.variables
        return [env[v] if v in needed else None for v in self.program.function.block.inputs]

    @cached_property
    def test(self) -> Callable[..., Deviation]:
        """The compiled test of a product itself, not of a projection."""
        claim = self.claim
        eps = self.program.policy.eps_of(claim, claim.name)

        def deviate_exactly(read: list[Array], far: Array | None, value: Array) -> Deviation:
            return claim.form.deviate_exactly(claim.equation, read, far, value, eps)

        return jax.jit(deviate_exactly)

    def measure(self, claim: Claim, env: Env, context: replay.Context) -> Deviation:
        """The deviation of the claim itself, not projected: an `operands.Measure`."""
        read = interpret.read_all(env, claim.operands)
        far = None if claim.far is None else interpret.read(env, claim.far)
        with jax.disable_jit(False):
            return self.test(read, far, context.claimed[claim.index])

    @cached_property
    def compiled(self) -> Callable[..., Deviation]:
        """`deviation` with `measure`, compiled as a device compiles it, in the program's types."""

        def compiled(arguments: Any, given: Any) -> Deviation:
            return self.deviation(arguments, given, self.measure, interpret.apply)

        return jax.jit(compiled)

    @cached_property
    def effect(self) -> Callable[..., Deviation]:
        """What the committed numbers of an accused loop change after it, compiled."""

        def effect(arguments: Any, given: Any) -> Deviation:
            return self.deviation(arguments, given, operands.effect, interpret.apply)

        return jax.jit(effect)

    @cached_property
    def perturbed(self) -> Callable[..., Array]:
        """What the operands lead to in a perturbed replay, compiled."""
        losses, exact = dict(self.program.policy.losses), self.program.analysis.exact

        def perturbed(
            arguments: Any,
            given: Any,
            vectors: Any,
            seed: Array,
            independent: Array,
            coherent: Array,
        ) -> Array:
            noise = Noise(
                seed=seed, independent=independent, coherent=coherent, losses=losses, exact=exact
            )
            found = self.deviation(arguments, given, operands.deviation, noise, vectors)
            return found.expected

        return jax.jit(perturbed)

    def deviation(
        self,
        arguments: list[Any],
        given: Mapping[int, Any],
        measure: operands.Measure,
        apply: interpret.Apply,
        vectors: Mapping[str, Array] | None = None,
    ) -> Deviation:
        """The deviation of all rows from what a replay of the operands leads to.

        Args:
          arguments: from `arguments`.
          given: the opened tensors by their index.
          measure: of a claim.
          apply: evaluates an equation.
          vectors: random ones by label, if `measure` projects.
        """
        program, block = self.program, self.program.function.block
        count = len(program.claims)
        env = {v: x for v, x in zip(block.inputs, arguments, strict=True) if x is not None}
        claimed = {i: jnp.asarray(x) for i, x in given.items() if i < count}
        context = replay.context_of(program, vectors or {}, claimed)
        found = operands.measure(block, self.needs, context, env, measure, apply)
        output, index = self.target.output, self.target.index
        if output:
            return program.output_deviation(index, jnp.asarray(given[count + index]), env)
        return operands.flattened(found[index], self.claim)


def accused_of(program: Specification, target: Target) -> Accused:
    """What judges of a claim or output need; made once, and kept by the program.

    Raises:
      MalformedEncoding: there is no such claim or output.
    """
    if not target.index < len(program.outputs if target.output else program.claims):
        raise MalformedEncoding("the evidence is about a claim or output that does not exist")
    found: Accused | None = program.accused.get(target)
    if found is None:
        found = program.accused[target] = Accused(program, target)
    return found
