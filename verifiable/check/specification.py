"""What both sides know of a compiled function: its claims, outputs, layout and tolerances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp

from verifiable.check import describe, flips
from verifiable.check.analysis import cancellation, element_bounds, subnormal
from verifiable.check.analysis.partition import Analysis
from verifiable.check.outputs import Output, OutputStatistic, compare, deviate
from verifiable.check.schedule import Strategy
from verifiable.check.trees import conform, is_deleted
from verifiable.claims.claim import Claim
from verifiable.claims.products import freivalds
from verifiable.claims.statistic import Deviation
from verifiable.errors import require_bytes32, require_type
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Env, Function
from verifiable.jaxpr.effects import is_float
from verifiable.key import VerifierKey
from verifiable.policy import Policy
from verifiable.report import Bound, Corridor, Coverage
from verifiable.trace import Layout, Trace


@dataclass(frozen=True, slots=True)
class Target:
    """A claim or output of a program that is tested.

    Attributes:
      output: whether it is an output; else a claim.
      index: of the claim or output.
    """

    output: bool
    index: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Specification:
    """A compiled function, as far as both sides know it.

    Attributes:
      policy: tolerances and limits of the check.
      params: shapes and dtypes of the parameters.
      inputs: shapes and dtypes of the inputs.
      y: shapes and dtypes of what the function returns.
      id: 32 bytes that name the function, its closed-over constants and its claims.
      function: the function, flattened.
      analysis: of the function.
      row_block: rows of a leaf, in programs that are compiled for audits of rows; else None.
      self_test: whether the first `setup` compares the compiled check with its evaluation op by op.
      tested: the strategies for which that was done; shared by the variants of a program.
    """

    policy: Policy
    params: Any = field(repr=False)
    inputs: tuple[Any, ...] = field(repr=False)
    y: Any = field(repr=False)
    id: bytes
    function: Function = field(repr=False)
    analysis: Analysis = field(repr=False)
    row_block: int | None = None
    self_test: bool = field(default=True, repr=False)
    tested: set[Strategy] = field(default_factory=set, repr=False)

    def __reduce__(self):
        """Refuse to be pickled: a function has no bytes."""
        raise TypeError(
            "a program cannot be copied or pickled: compile the function again where it is needed, "
            "which makes one of the same id"
        )

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims, in the order of the trace."""
        return tuple(self.analysis.by_equation.values())

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """The leaves of what the function returns."""
        leaves = jax.tree_util.tree_leaves_with_path(self.y)
        block = self.function.block
        facts = [self.analysis.fact(a) for a in block.outputs]
        glue = element_bounds.origins(block, self.analysis)
        return tuple(
            Output(
                name="output" + jax.tree_util.keystr(path),
                eps_types=fact.rounding_dtypes | ({x.dtype.name} if is_float(x.dtype) else set()),
                narrow_sums=fact.narrow_sums,
                replays_inexactly=is_float(x.dtype) and not fact.exact,
                discontinuities=fact.discontinuities,
                flushable=fact.flushable,
                loops=fact.loops,
                cancellation=cancellation.plan(block, self.analysis, atom),
                glue=origin,
            )
            for (path, x), atom, fact, origin in zip(
                leaves, block.outputs, facts, glue, strict=True
            )
        )

    @cached_property
    def layout(self) -> Layout:
        """Which rows of which claim or output each leaf of a trace's Merkle tree holds.

        Raises:
          TypeError: a dtype without canonical bytes.
          ValueError: not a single element in claims and outputs.
        """
        claims = tuple(jax.ShapeDtypeStruct(c.shape, c.dtype) for c in self.claims)
        return Layout.of(self.y, Trace(values=claims))

    @property
    def coverage(self) -> Coverage:
        """What share of the arithmetic is tested by claims, and what is discontinuous."""
        a = self.analysis
        return Coverage(checked=a.checked, replayed=a.replayed, discontinuities=a.discontinuities)

    @cached_property
    def bound(self) -> Bound | None:
        """What a pass proves of the floating-point claims; None if there are none."""
        rows = sum(c.tests for c in self.claims if c.eps_types)
        return freivalds.bound(self.policy.phi, rows, self.policy.draws) if rows else None

    @cached_property
    def eps_types(self) -> dict[str, frozenset[str]]:
        """Types whose rounding separates honest devices, by name of the claim or output."""
        return {x.name: x.eps_types for x in (*self.claims, *self.outputs)}

    @cached_property
    def tolerances(self) -> dict[str, float]:
        """The policy's eps by name of the claim or output; zero for what must be equal."""
        claims = {c.name: self.policy.eps_of(c, c.name) for c in self.claims}
        return claims | {o.name: self.policy.output_eps_of(o, o.name) for o in self.outputs}

    def scaled_terms(self, output: Output, env: Env) -> Array | None:
        """theta times the terms of an output: what its rows are held to near zero (`cancellation`).

        Args:
          output: of the program.
          env: values by variable, all that the output is replayed from among them.

        Returns:
          An array of the shape of the output; None if it has no terms.
        """
        if output.cancellation is None:
            return None
        return self.policy.terms_share(output) * output.cancellation.terms(env)

    def own_bounds(self, output: Output, env: Env) -> Callable[[], Array] | None:
        """What computes how far each element of an output may be off by itself (`element_bounds`).

        Args:
          output: of the program.
          env: values by variable, all that the output is replayed from among them.
        """
        if output.glue is None:
            return None
        leaves, eps = interpret.read_all(env, output.glue.leaves), self.tolerances[output.name]
        return partial(output.glue.bound, leaves, eps)

    def output_statistic(
        self, index: int, theirs: Array, mine: Array, env: Env, tile_bytes: int
    ) -> OutputStatistic:
        """How an output compares with the replayed one, `mine`; see `outputs.compare`."""
        output = self.outputs[index]
        terms, bounds = self.scaled_terms(output, env), self.own_bounds(output, env)
        eps = self.tolerances[output.name]
        return compare(theirs, mine, eps, tile_bytes, terms, bounds)

    def output_deviation(self, index: int, theirs: Array, env: Env) -> Deviation:
        """How far an output is from the replayed one; see `outputs.deviate`."""
        output = self.outputs[index]
        mine = jnp.asarray(interpret.read(env, self.function.block.outputs[index]))
        terms, bounds = self.scaled_terms(output, env), self.own_bounds(output, env)
        return deviate(theirs, mine, self.tolerances[output.name], terms, bounds)

    @cached_property
    def kept(self) -> dict[str, int]:
        """Bytes of each value that the key keeps, because replayed equations need it."""
        return describe.kept(self.function, self.params, self.analysis)

    @cached_property
    def accused(self) -> dict[Target, Any]:
        """What judges of a claim or output need, by claim or output.

        Filled by `judging.accused`.
        """
        return {}

    @cached_property
    def calibrating(self) -> list[Any]:
        """What calibrations have compiled. Filled by `check.calibration`."""
        return []

    @cached_property
    def steerable(self) -> list[Any]:
        """The choices that a device may steer. Filled by `freedom.steering`."""
        return []

    @cached_property
    def steered(self) -> dict[tuple[Any, int], Callable[..., Any]]:
        """What corridor and attack have compiled, by the identity of the answer function.

        Filled by `freedom.corridor`.
        """
        return {}

    @cached_property
    def flip_limits(self) -> dict[int, int]:
        """How many decisions may differ from the verifier's own, by index of the claim."""
        return {c.index: flips.limit(c, self.policy) for c in self.claims if c.decisions}

    @cached_property
    def most_flips(self) -> int:
        """How many decisions of all claims together may differ from the verifier's own."""
        return flips.total([c for c in self.claims if c.decisions], self.policy)

    def judged(self, inputs: tuple[Any, ...]) -> tuple[Sequence[Claim], Sequence[Output]]:
        """Claims and outputs; comparisons of subnormal inputs are discontinuities of this job."""
        leaves = jax.tree.leaves(inputs)
        variables = self.function.block.inputs[-len(leaves) :] if leaves else ()
        names = subnormal.ambiguous(self.analysis.flushable, variables, leaves)
        if not names:
            return self.claims, self.outputs
        return (
            [
                replace(c, discontinuities=c.discontinuities | c.flushable & names)
                for c in self.claims
            ],
            [
                replace(o, discontinuities=o.discontinuities | o.flushable & names)
                for o in self.outputs
            ],
        )

    def require_normal(self, params: Any) -> None:
        """Raise ValueError if a parameter or constant that is compared holds subnormal numbers."""
        leaves = [*self.function.constants, *jax.tree.leaves(params)]
        variables = self.function.block.inputs[: len(leaves)]
        names = subnormal.ambiguous(self.analysis.flushable, variables, leaves)
        if names:
            raise ValueError(
                f"{min(names)} compares parameters below the smallest normal number, which some "
                "devices flush to zero and some do not: set them to zero before setup"
            )

    def require_policy(self) -> None:
        """Raise ValueError unless the policy has tolerances for all that the program needs."""
        calibration = self.policy.calibration
        if calibration is not None and self.id not in calibration.programs:
            theirs = ", ".join(x.hex()[:16] for x in calibration.programs)
            raise ValueError(
                f"the policy was calibrated for another program: for {theirs}, and this is "
                f"{self.id.hex()[:16]}; calibrate this one (or list the ids of all programs "
                "that it is to hold for in policy.calibration.programs)"
            )
        foreign = sorted(self.policy.calibrated.keys() - self.tolerances.keys())
        if foreign:
            raise ValueError(
                f"the policy was calibrated for another program, with {foreign[0]!r}, a name that "
                "this one does not have"
            )

    def _require_key(self, key: VerifierKey, parameters: bytes | None) -> None:
        """Raise ValueError unless a key was made for this program, policy and job, and is whole."""
        job = {} if parameters is None else {"parameters": parameters}
        key.header.require(program=self.id, policy=self.policy.id, **job)
        gone = [name for name, array in key.arrays.items() if is_deleted(array)]
        if gone:
            raise ValueError(f"array {gone[0]!r} of the key was deleted: make or load it again")

    @staticmethod
    def _require_types(key: Any, parameters: Any, corridor: Any) -> None:
        """Raise an error that names the argument for what a caller gives beside a run."""
        require_type("key", key, VerifierKey)
        if parameters is not None:
            require_bytes32("parameters", parameters)
        if corridor is not None:
            require_type("corridor", corridor, Corridor)

    def conform_params(self, params: Any) -> Any:
        """The parameters as arrays of the expected shapes and dtypes; raises as `trees.conform`."""
        return conform("params", self.params, params)

    def conform_inputs(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The inputs as arrays of the expected shapes and dtypes; raises as `trees.conform`."""
        return conform("inputs", self.inputs, inputs)

    def bind(self, params: Any, inputs: tuple[Any, ...]) -> Env:
        """Values of the function's inputs: constants, parameters, inputs."""
        arguments = self.conform_params(params), self.conform_inputs(inputs)
        leaves = [*self.function.constants, *jax.tree.leaves(arguments)]
        return dict(zip(self.function.block.inputs, leaves, strict=True))

    def unflatten(self, outputs: Sequence[Any]) -> Any:
        """The leaves of an output as the pytree that the function returns."""
        return jax.tree.unflatten(jax.tree.structure(self.y), outputs)
