"""A program's setup and check as compiled programs, with typed arguments.

`CompiledSetup` evaluates what a key holds of the parameters. `CompiledCheck` measures a run: one or
several programs, each of which tests a part of the claims, at the same time (`schedule`). Both
return numbers and decide nothing; `verdict` decides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

import jax

from verifiable.challenge import Challenge
from verifiable.check import schedule, settings
from verifiable.check.freedom.near_ties import NearTies
from verifiable.check.judging.second_look import SecondLook
from verifiable.check.replay import parameter_values, replay
from verifiable.check.replay.key_layout import KeyLayout
from verifiable.check.replay.replay import Findings
from verifiable.check.schedule import Packed, Strategy
from verifiable.check.specification import Specification
from verifiable.claims.products import freivalds
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Env
from verifiable.key import VerifierKey, require_arrays
from verifiable.trace import Trace

Vectors = dict[str, Array]  # by label


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
        have: Mapping[str, Array] = MappingProxyType({}),
        moves: bool = True,
        apply: interpret.Apply | None = None,
    ) -> dict[str, Array]:
        """The arrays of a key by name: random vectors, projections, and kept parameters.

        Args:
          params: the parameters.
          challenge: for the random vectors.
          have: arrays of a key of the same parameters, challenge and policy, which are not made
            again.
          moves: whether what only a second look needs is among them (`parameter_values`).
          apply: evaluates an equation without bodies, not compiled; None to compile.
        """
        layout = self.layout
        missing = [name for name in layout.names if name not in have]
        with jax.enable_x64(True):
            found = dict(have)
            for label in self._sets:
                if f"vectors/{label}" in missing:
                    drawn = freivalds.vectors(challenge, label, self.program.policy.draws)
                    found[f"vectors/{label}"] = jax.device_put(drawn)
            vectors = {label: found[f"vectors/{label}"] for label in self._sets}
            constants = list(self.program.function.constants)
            of_moves = [name for name in missing if name.startswith("moves/")]
            wanted = tuple(n for n in missing if n not in found and n not in of_moves)
            given = constants, params, vectors
            if wanted and apply is None:
                found |= self._compiled(wanted, *given)
            elif wanted and apply is not None:
                found |= self._named(wanted, residual=self._setup(*given, apply))
            if moves and of_moves:
                residual = layout.as_tree(found | dict.fromkeys(of_moves))["residual"]
                found |= self._compiled_moves(tuple(of_moves), constants, params, vectors, residual)
        return {name: found[name] for name in layout.names if name in found}

    @cached_property
    def layout(self) -> KeyLayout:
        """Shapes, dtypes and names of the arrays of a key."""
        with jax.enable_x64(True):
            vectors = {n: freivalds.vectors_shape(n, self.program.policy.draws) for n in self._sets}
            constants, analysis = list(self.program.function.constants), self.program.analysis
            residual = jax.eval_shape(self._traced, constants, self.program.params, vectors)
            moves = parameter_values.shapes(analysis.frame, analysis)
        tree = {"vectors": vectors, "residual": residual, "moves": moves}
        return KeyLayout.of(self.program, tree)

    @cached_property
    def _sets(self) -> list[str]:
        """Names of the sets of random vectors."""
        claims = self.program.analysis.by_equation.values()
        return sorted({c.vectors for c in claims if c.vectors is not None})

    @cached_property
    def _traced(self) -> Callable[..., replay.Residual]:
        """`_setup`, which is traced once: for the layout, and inside of what is compiled."""
        return jax.jit(self._setup)

    @cached_property
    def _compiled(self) -> Callable[..., dict[str, Array]]:
        return jax.jit(self._residual, static_argnums=0)

    @cached_property
    def _compiled_moves(self) -> Callable[..., dict[str, Array]]:
        return jax.jit(self._moves, static_argnums=0)

    def _residual(
        self,
        wanted: Sequence[str],
        constants: Sequence[Array],
        params: Any,
        vectors: Vectors,
    ) -> dict[str, Array]:
        return self._named(wanted, residual=self._traced(constants, params, vectors))

    def _setup(
        self,
        constants: Sequence[Array],
        params: Any,
        vectors: Vectors,
        apply: interpret.Apply = interpret.apply,
    ) -> replay.Residual:
        program, analysis = self.program, self.program.analysis
        with jax.enable_x64(True):
            env = self._env(constants, params)
            return replay.setup(analysis.frame, analysis, env, vectors, program.policy, apply)

    def _moves(
        self,
        wanted: Sequence[str],
        constants: Sequence[Array],
        params: Any,
        vectors: Vectors,
        residual: replay.Residual,
    ) -> dict[str, Array]:
        program, analysis = self.program, self.program.analysis
        with jax.enable_x64(True):
            env = self._env(constants, params)
            found = parameter_values.moves(
                analysis.frame, analysis, env, vectors, program.policy, residual
            )
        return self._named(wanted, moves=found)

    def _named(self, wanted: Sequence[str], **branch: Any) -> dict[str, Array]:
        """Some arrays of a branch of the layout's tree, by name."""
        named = self.layout.by_name(self.layout.tree | branch)
        return {name: named[name] for name in wanted}

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
      key: the layout of a key, from `CompiledSetup.layout`.
      strategy: how the check is compiled; it changes no verdict.
    """

    program: Specification
    key: KeyLayout = field(repr=False)
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
        require_arrays(arguments.key, self.key.arrays)  # runs once per trace, not once per call
        with settings.neutral(), jax.enable_x64(True):
            key = self.key.as_tree(arguments.key)
            if any(c.form.is_table for c in self.program.claims):
                key = parameter_values.with_moves(key)
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
            for i, mine in enumerate(own):
                findings.outputs[i] = self.program.output_statistic(
                    i, arguments.outputs[i], mine, env, self.strategy.tile_bytes
                )
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
