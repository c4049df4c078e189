"""A program's setup and check as compiled programs, with typed arguments.

`CompiledSetup` evaluates what a key holds of the parameters. `CompiledCheck` measures a run: one or
several programs, each of which tests a part of the claims, at the same time (`schedule`). Both
return numbers and decide nothing; `verdict` decides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import jax
import jax.numpy as jnp

from verifiable.challenge import Challenge
from verifiable.check import known, replay, schedule, settings
from verifiable.check.near_ties import NearTies
from verifiable.check.outputs import compare
from verifiable.check.replay import Findings
from verifiable.check.schedule import Packed, Strategy
from verifiable.check.second_look import SecondLook
from verifiable.check.specification import Specification
from verifiable.check.trees import by_name
from verifiable.claims import freivalds
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Env
from verifiable.key import VerifierKey, require_arrays
from verifiable.trace import Trace


@dataclass(frozen=True, eq=False, kw_only=True)
class CompiledSetup:
    """What a key holds of the parameters.

    Attributes:
      program: the compiled function.
    """

    program: Specification

    def arrays(
        self,
        params: Any,
        challenge: Challenge,
        *,
        moves: bool = True,
        apply: interpret.Apply | None = None,
    ) -> dict[str, Array]:
        """The arrays of a key by name: random vectors, projections, and kept parameters.

        Args:
          params: the parameters.
          challenge: for the random vectors.
          moves: whether what only a second look needs is among them (`known`).
          apply: evaluates an equation without bodies, not compiled; None to compile.
        """
        with jax.enable_x64(True):
            vectors = {
                name: jnp.asarray(freivalds.vectors(challenge, name, self.program.policy.draws))
                for name in self._sets
            }
            constants = list(self.program.function.constants)
            residual = (self._residual if apply else self._compiled)(
                constants, params, vectors, *filter(None, [apply])
            )
            found = {"vectors": vectors, "residual": residual}
            if moves and jax.tree.leaves(self.shapes["moves"]):
                found["moves"] = self._compiled_moves(constants, params, vectors, residual)
        return by_name(found)

    @cached_property
    def shapes(self) -> dict[str, Any]:
        """Shapes and dtypes of the key of a secret challenge, as the tree that a check reads."""
        with jax.enable_x64(True):
            vectors = {n: freivalds.vectors_shape(n, self.program.policy.draws) for n in self._sets}
            constants = list(self.program.function.constants)
            residual = jax.eval_shape(self._residual, constants, self.program.params, vectors)
            analysis = self.program.analysis
            moves = known.shapes(analysis.frame, analysis)
        return {"vectors": vectors, "residual": residual, "moves": moves}

    @cached_property
    def _sets(self) -> list[str]:
        """Names of the sets of random vectors."""
        claims = self.program.analysis.by_equation.values()
        return sorted({c.vectors for c in claims if c.vectors is not None})

    @cached_property
    def _compiled(self) -> Callable[..., replay.Residual]:
        return jax.jit(self._residual)

    @cached_property
    def _compiled_moves(self) -> Callable[..., known.Moves]:
        return jax.jit(self._moves)

    def _residual(
        self,
        constants: Sequence[Array],
        params: Any,
        vectors: dict[str, Array],
        apply: interpret.Apply = interpret.apply,
    ) -> replay.Residual:
        program, analysis = self.program, self.program.analysis
        with jax.enable_x64(True):
            env = self._env(constants, params)
            return replay.setup(analysis.frame, analysis, env, vectors, program.policy, apply)

    def _moves(
        self,
        constants: Sequence[Array],
        params: Any,
        vectors: dict[str, Array],
        residual: replay.Residual,
    ) -> known.Moves:
        program, analysis = self.program, self.program.analysis
        with jax.enable_x64(True):
            env = self._env(constants, params)
            return known.moves(analysis.frame, analysis, env, vectors, program.policy, residual)

    def _env(self, constants: Sequence[Array], params: Any) -> Env:
        leaves = [*constants, *jax.tree.leaves(params)]
        return dict(zip(self.program.function.block.inputs, leaves, strict=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckArguments:
    """What a check runs on; a pytree.

    Attributes:
      key: arrays of the key by name.
      inputs: the job's inputs.
      outputs: leaves of what the device returned, with the shapes and dtypes of the program.
      values: the claimed values, with the shapes and dtypes of the program.
    """

    key: dict[str, Array]
    inputs: tuple[Any, ...]
    outputs: tuple[Array, ...]
    values: tuple[Array, ...]

    @classmethod
    def of(cls, key: VerifierKey, inputs: tuple[Any, ...], y: Any, trace: Trace) -> Self:
        """The arguments for a run that has the shapes and dtypes of the program."""
        outputs = tuple(jax.tree.leaves(y))
        return cls(key=key.arrays, inputs=inputs, outputs=outputs, values=tuple(trace.values))


jax.tree_util.register_dataclass(
    CheckArguments, data_fields=["key", "inputs", "outputs", "values"], meta_fields=[]
)


@dataclass(frozen=True, eq=False, kw_only=True)
class CompiledCheck:
    """The measurements of a check.

    Attributes:
      program: the compiled function.
      key: shapes and dtypes of the key, from `CompiledSetup.shapes`.
      strategy: how the check is compiled; it changes no verdict.
    """

    program: Specification
    key: dict[str, Any] = field(repr=False)
    strategy: Strategy

    def statistics(
        self,
        arguments: CheckArguments,
        tested: Iterable[int] | None = None,
        apply: interpret.Apply = interpret.apply,
    ) -> tuple[Findings, list[Array]]:
        """Measure a run; a pure JAX function.

        Args:
          arguments: with the shapes and dtypes of the program.
          tested: indices of the claims to test; all by default.
          apply: evaluates an equation without bodies.

        Returns:
          The findings, and the leaves of the replayed output.

        Raises:
          ValueError: the key has other arrays than the program's.
        """
        require_arrays(arguments.key, self._key_arrays)  # runs once per trace, not once per call
        with settings.neutral(), jax.enable_x64(True):
            names, structure = list(self._key_arrays), jax.tree.structure(self.key)
            key = jax.tree.unflatten(structure, [arguments.key[name] for name in names])
            env, context = replay.begin(
                self.program,
                key,
                jax.tree.leaves(arguments.inputs),
                dict(enumerate(arguments.values)),
                tested=range(len(arguments.values)) if tested is None else tested,
                strategy=self.strategy,
            )
            context = replace(context, apply=apply)
            own, findings = replay.check(self.program.function.block, context, env)
            for i, output in enumerate(self.program.outputs):
                theirs, eps = arguments.outputs[i], self.program.tolerances[output.name]
                terms = self.program.terms(output, env)
                findings.outputs[i] = compare(theirs, own[i], eps, self.strategy.tile_bytes, terms)
            return findings, own

    def measure(self, arguments: CheckArguments) -> tuple[Findings, list[Array]]:
        """`statistics` by the compiled parts, at the same time; findings as numpy arrays."""

        def run(part: Callable[..., tuple[Packed, Any]]) -> tuple[Findings, Any]:
            # A NaN in a claim is a finding, not an error of the verifier. Flags belong to a thread.
            with settings.neutral(compiled=True), jax.enable_x64(True):
                packed, mine = part(arguments)
            return schedule.unpack(packed), mine

        findings = Findings({}, {}, {}, {})
        found = schedule.at_once([functools.partial(run, part) for part in self.parts])
        for measured, _ in found:
            findings.update(measured)
        return findings, found[-1][1]

    @cached_property
    def parts(self) -> list[Callable[..., tuple[Packed, Any]]]:
        """The compiled programs that together are the check; the last one compares the output."""
        costs = self.program.analysis.costs(self.program.function.block, self.program.policy.draws)
        parts = schedule.split(costs, self.strategy.parts)
        return [
            schedule.compile(functools.partial(self._part, part, part is parts[-1]), self.strategy)
            for part in parts
        ]

    @cached_property
    def second_look(self) -> SecondLook:
        """What decides on a claim or output that failed."""
        return SecondLook(program=self.program, key=self.key)

    @cached_property
    def near_ties(self) -> NearTies:
        """What finds the choices that the tolerance could have decided."""
        return NearTies(program=self.program, look=self.second_look)

    def _part(self, tested: range, last: bool, arguments: CheckArguments) -> tuple[Packed, Any]:
        findings, mine = self.statistics(arguments, tested)
        if not last:
            findings = findings._replace(stopped={}, outputs={})
        with jax.enable_x64(True):
            return schedule.pack(findings), mine if last else None

    @cached_property
    def _key_arrays(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the key's arrays by name."""
        return by_name(self.key)
