"""Verification as a transform: from a function to the pair (execute, check).

`compile` walks the jaxpr of `fn(params, *inputs)` and finds its claims: the contractions, which do
nearly all the arithmetic. Then

    execute(params, *inputs) -> y, trace     the same function, which also returns every claim;
    setup(params, challenge) -> key          what the check needs of the parameters;
    check(key, *inputs, y, trace) -> report  the same function again, in which every contraction is
                                             replaced by its claimed output and tested.

Each claim is tested against operands that the verifier recomputed from earlier claims and the
job's own input, so errors do not accumulate: honest devices that round differently all pass. What
is not a claim is replayed. `execute` and `statistics` are pure JAX functions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from verifiable import policy
from verifiable._version import __version__
from verifiable.challenge import Challenge
from verifiable.check import calibration, describe, partition, program_id, replay, schedule
from verifiable.check import execute as prover
from verifiable.check.corridor import Answer, attack, reach
from verifiable.check.execute import Emit
from verifiable.check.partition import Analysis, Claim
from verifiable.check.replay import Findings
from verifiable.check.schedule import Packed, Strategy
from verifiable.check.trees import by_name, conform, parameter_root
from verifiable.check.verdict import judge, receive_claims, receive_output
from verifiable.claims import freivalds
from verifiable.jaxpr import flatten
from verifiable.jaxpr.blocks import Array, Block, Env, Function
from verifiable.jaxpr.effects import is_float
from verifiable.key import KeyHeader, VerifierKey, require_arrays
from verifiable.policy import Policy
from verifiable.report import Bound, Corridor, Coverage, Report, Verdict
from verifiable.trace import Trace

__all__ = ["Policy", "Program", "Report", "Verdict", "VerifierKey", "compile", "parameter_root"]


@dataclass(frozen=True, eq=False)
class Program:
    """A function, compiled into execution and check. Made by `compile`.

    Attributes:
      policy: tolerances and limits of the check.
      params: shapes and dtypes of the parameters.
      inputs: shapes and dtypes of the inputs.
      y: shapes and dtypes of what the function returns.
      id: 32 bytes that name the function, its closed-over constants and its claims.
      strategy: how the check is compiled; it changes no verdict.
    """

    policy: Policy
    params: Any = field(repr=False)
    inputs: tuple[Any, ...] = field(repr=False)
    y: Any = field(repr=False)
    id: bytes
    strategy: Strategy
    _function: Function = field(repr=False)
    _analysis: Analysis = field(repr=False)

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims, in the order of the trace."""
        return tuple(self._analysis.by_equation.values())

    @property
    def coverage(self) -> Coverage:
        """What share of the arithmetic is tested by claims, and what is discontinuous."""
        a = self._analysis
        return Coverage(checked=a.checked, replayed=a.replayed, discontinuous=a.discontinuous)

    @cached_property
    def bound(self) -> Bound | None:
        """What a pass proves of the floating-point claims; None if there are none."""
        rows = sum(c.tests for c in self.claims if c.eps_types)
        return freivalds.bound(self.policy.phi, rows, self.policy.draws) if rows else None

    @cached_property
    def rounded_types(self) -> dict[str, frozenset[str]]:
        """Types whose rounding separates honest devices, by name of the claim or output."""
        outputs = zip(self._outputs, self._output_types, strict=True)
        return {c.name: c.eps_types for c in self.claims} | {o[0]: types for o, types in outputs}

    @cached_property
    def tolerances(self) -> dict[str, float]:
        """The policy's eps by name of the claim or output; zero for what must be equal."""
        claims = {c.name: self.policy.eps_of(c, c.name) for c in self.claims}
        outputs = zip(self._outputs, self._output_types, strict=True)
        return claims | {o[0]: self.policy.output_eps_of(t, o[0]) for o, t in outputs}

    def with_policy(self, policy: Policy) -> Program:
        """The same program under another policy, such as one from `calibrate`.

        Raises:
          ValueError: the policy has no tolerance for a dtype that is needed, was calibrated for
            another program, or has another number of draws, which decides what is a claim.
        """
        if policy.draws != self.policy.draws:
            raise ValueError(
                f"the program was compiled for {self.policy.draws} draws, the policy has "
                f"{policy.draws}: pass it to compile"
            )
        other = replace(self, policy=policy)
        other.require_policy()
        return other

    def require_policy(self) -> None:
        """Raise ValueError unless the policy has tolerances for all that the program needs."""
        foreign = sorted(self.policy.calibrated.keys() - self.tolerances.keys())
        if foreign:
            raise ValueError(f"the policy was calibrated for another program, with {foreign[0]!r}")

    def calibrate(
        self,
        params: Any,
        samples: Sequence[tuple[Any, ...]],
        *,
        executors: Sequence[Callable[..., tuple[Any, Any]]] = (),
        factor: float = calibration.FACTOR,
    ) -> Policy:
        """Measure the tolerance of each claim and output. See `calibration.calibrate`."""
        return calibration.calibrate(self, params, samples, executors=executors, factor=factor)

    def corridor(
        self, params: Any, *inputs: Any, answer: Answer, kappa: float | None = None
    ) -> Corridor:
        """How far the tolerance lets a cheat move an answer on these inputs. See `corridor`.

        Args:
          params: the parameters.
          *inputs: the inputs.
          answer: scalar float function of `y`, such as the margin between two logits
            (`corridor.margin`).
          kappa: deviation of a row up to which a cheat may go, in units of sigma; by default what
            passes with probability 1e-9.

        Raises:
          ValueError: the answer is no float scalar, or the program has integer arithmetic after a
            rounding that has no derivative; or as `execute`.
        """
        kappa = self._kappa if kappa is None else kappa
        with jax.enable_x64(True):
            value, found = self._corridor(reach, params, inputs, answer, kappa)
        shares = [(c.name, float(found[c.index])) for c in self.claims if c.index in found]
        return Corridor(
            margin=float(value),
            reach=sum(x for _, x in shares),
            kappa=kappa,
            shares=tuple(sorted(shares, key=lambda item: -item[1])),
            answer=answer,
        )

    def attack(self, params: Any, *inputs: Any, answer: Answer, kappa: float) -> tuple[Any, Trace]:
        """What a cheat returns that shifts every claim by kappa sigma to lower an answer.

        For tests of coordinators: below the bound's kappa it may pass, and then it has moved the
        answer by no more than the corridor's reach. Arguments as of `corridor`.
        """
        with jax.enable_x64(True):
            outputs, found = self._corridor(attack, params, inputs, answer, kappa)
        y = jax.tree.unflatten(jax.tree.structure(self.y), outputs)
        return y, Trace(values=tuple(found[c.index] for c in self.claims))

    @property
    def _kappa(self) -> float:
        return self.bound.kappa() if self.bound else 1.0

    def _corridor(
        self, what: Callable[..., Any], params: Any, inputs: Any, answer: Any, kappa: float
    ) -> Any:
        structure = jax.tree.structure(self.y)

        def value(outputs: list[Array]) -> Array:
            return jnp.asarray(answer(jax.tree.unflatten(structure, outputs)))

        def run(params: Any, inputs: Any) -> Any:
            return what(*self._bind(params, inputs), self.tolerances, kappa, value)

        return jax.jit(run)(params, inputs)

    def execute(self, params: Any, *inputs: Any) -> tuple[Any, Trace]:
        """Run the function and return its claims with its output; pure, to be jitted.

        Args:
          params: the parameters, as at compile time.
          *inputs: the inputs, as at compile time.

        Returns:
          `y` and the trace. Compiled, `y` equals bit for bit what the compiled function returns,
          unless XLA would have merged a claimed convolution with its neighbours, on CPUs, or kept
          excess precision in narrow types.

        Raises:
          ValueError: another tree, shape or dtype than at compile time.
        """
        outputs, found = prover.execute(*self._bind(params, inputs))
        y = jax.tree.unflatten(jax.tree.structure(self.y), outputs)
        return y, Trace(values=tuple(found[c.index] for c in self.claims))

    def walk(self, emit: Emit, params: Any, *inputs: Any) -> dict[int, Any]:
        """Run the function, and return what `emit` makes of each claim; see `prover.execute`."""
        return prover.execute(*self._bind(params, inputs), emit=emit)[1]

    def _bind(self, params: Any, inputs: Any) -> tuple[Block, Analysis, Env]:
        params = conform("params", self.params, params)
        inputs = conform("inputs", self.inputs, inputs)
        leaves = [*self._function.constants, *jax.tree.leaves((params, inputs))]
        env: Env = dict(zip(self._function.block.inputs, leaves, strict=True))
        return self._function.block, self._analysis, env

    def setup(self, params: Any, challenge: Challenge) -> VerifierKey:
        """Make the verifier key: everything that the check needs of the parameters.

        Args:
          params: the parameters that the devices are to use.
          challenge: randomness that no device knows when it commits.

        Raises:
          ValueError: another tree, shape or dtype than at compile time.
        """
        params = conform("params", self.params, params)
        draws = self.policy.draws
        with jax.enable_x64(True):
            vectors = {n: jnp.asarray(freivalds.vectors(challenge, n, draws)) for n in self._sets}
            residual = self._setup(list(self._function.constants), params, vectors)
        header = KeyHeader(
            program=self.id,
            policy=self.policy.id,
            parameters=parameter_root(params),
            challenge=challenge.id,
            version=__version__,
        )
        return VerifierKey(header, by_name({"vectors": vectors, "residual": residual}))

    def check(
        self,
        key: VerifierKey,
        *inputs: Any,
        y: Any,
        trace: Any,
        parameters: bytes | None = None,
        corridor: Corridor | None = None,
    ) -> Report:
        """Decide whether `y` and `trace` are an honest run on `inputs`.

        Args:
          key: from `setup`.
          *inputs: the job's own inputs, as at compile time.
          y: what the device returned; any object.
          trace: the trace that it committed to, or a sequence of arrays; any object.
          parameters: the `parameter_root` that the job names, to hold the key to.
          corridor: for these inputs, to mark an answer that a cheat could have turned.

        Raises:
          ValueError: the key is of another program, policy, version or other parameters, or the
            inputs have another tree, shape or dtype than at compile time.
        """
        job = {} if parameters is None else {"parameters": parameters}
        key.header.require(program=self.id, policy=self.policy.id, **job)
        inputs = conform("inputs", self.inputs, inputs)
        claims, problem = receive_claims(trace, self.claims)
        outputs, other = receive_output(y, self.y)
        problem = problem or other
        if problem is not None:
            reason, where, message = problem
            return Report(
                verdict=Verdict.REJECT,
                reason=reason,
                message=message,
                claim=where,
                coverage=self.coverage,
                bound=self.bound,
            )
        findings, mine = self._measure(key.arrays, inputs, outputs, claims)
        if corridor is not None:
            corridor = replace(corridor, margin=float(corridor.answer(mine)))
        verdict, reason, where, results = judge(findings, self.claims, self._outputs)
        return Report(
            verdict=verdict,
            reason=reason,
            claim=where,
            worst=max((r.worst for r in results), default=0.0),
            results=results,
            coverage=self.coverage,
            bound=self.bound,
            y=mine,
            corridor=corridor,
        )

    def statistics(
        self, key: VerifierKey, *inputs: Any, y: Any, trace: Trace
    ) -> tuple[Findings, Any]:
        """What `check` measures, and the replayed y: a pure JAX function.

        Shapes and dtypes must be those of the program: `check` is what to call on the untrusted.
        """
        return self._statistics(key.arrays, inputs, jax.tree.leaves(y), list(trace.values))

    def _statistics(
        self,
        arrays: dict[str, Array],
        inputs: tuple[Any, ...],
        outputs: Sequence[Array],
        claims: Sequence[Array],
        tested: Iterable[int] | None = None,
    ) -> tuple[Findings, Any]:
        """See `statistics`; of some claims only, where their indices are given."""
        require_arrays(arrays, self._key_arrays)  # traced, and so once for all calls alike
        with jax.enable_x64(True):
            names, structure = list(self._key_arrays), jax.tree.structure(self._key)
            key = jax.tree.unflatten(structure, [arrays[name] for name in names])
            block, leaves = self._function.block, jax.tree.leaves(inputs)
            variables = block.inputs[len(block.inputs) - len(leaves) :]
            env: Env = dict(zip(variables, leaves, strict=True))
            context = replay.Context(
                analysis=self._analysis,
                policy=self.policy,
                limit=self.bound.limit if self.bound else 0.0,
                vectors=key["vectors"],
                claimed=dict(enumerate(claims)),
                tile_bytes=self.strategy.tile_bytes,
                tested=frozenset(range(len(claims)) if tested is None else tested),
            ).inside(self._analysis.frame, key["residual"], env)
            own, findings = replay.check(block, context, env)
            for i, (theirs, mine) in enumerate(zip(outputs, own, strict=True)):
                eps = self.tolerances[self._outputs[i][0]]
                findings.outputs[i] = replay.compare(theirs, mine, eps, self.strategy.tile_bytes)
            return findings, jax.tree.unflatten(jax.tree.structure(self.y), own)

    def tune(
        self, key: VerifierKey, *inputs: Any, y: Any, trace: Any, repeats: int = 10
    ) -> tuple[Program, dict[Strategy, float]]:
        """Measure every strategy on a run, as `check` takes it.

        Returns:
          The same program with the fastest, and the seconds of each.

        Raises:
          ValueError: as `check`.
        """
        others = {s: replace(self, strategy=s) for s in schedule.candidates(self.strategy)}
        calls = {
            s: functools.partial(p.check, key, *inputs, y=y, trace=trace) for s, p in others.items()
        }
        best, seconds = schedule.fastest(calls, repeats)
        return others[best], seconds

    def _measure(self, *args: Any) -> tuple[Findings, Any]:
        """Findings as numpy arrays, and the replayed y: from all parts of the check, at once."""

        def run(part: Callable[..., tuple[Packed, Any]]) -> tuple[Findings, Any]:
            with jax.enable_x64(True):
                packed, mine = part(*args)
            return schedule.unpack(packed), mine

        findings = Findings({}, {}, {}, {})
        found = schedule.at_once([functools.partial(run, part) for part in self._parts])
        for measured, _ in found:
            findings.update(measured)
        return findings, found[-1][1]

    @cached_property
    def _parts(self) -> list[Callable[..., tuple[Packed, Any]]]:
        """The compiled programs that together are the check; the last one compares the output."""
        costs = self._analysis.costs(self._function.block, self.policy.draws)
        parts = schedule.split(costs, self.strategy.parts)
        return [
            schedule.compile(
                functools.partial(self._packed, part, part is parts[-1]), self.strategy
            )
            for part in parts
        ]

    def _packed(self, tested: range, last: bool, *args: Any) -> tuple[Packed, Any]:
        findings, mine = self._statistics(*args, tested=tested)
        if not last:
            findings = findings._replace(stopped={}, outputs={})
        with jax.enable_x64(True):
            return schedule.pack(findings), mine if last else None

    @cached_property
    def _setup(self) -> Callable[..., replay.Residual]:
        return jax.jit(self._residual)

    def _residual(
        self, constants: Sequence[Array], params: Any, vectors: dict[str, Array]
    ) -> replay.Residual:
        with jax.enable_x64(True):
            leaves = [*constants, *jax.tree.leaves(params)]
            env: Env = dict(zip(self._function.block.inputs, leaves, strict=False))
            return replay.setup(self._analysis.frame, self._analysis, env, vectors, self.policy)

    @cached_property
    def _sets(self) -> list[str]:
        """Names of the sets of random vectors."""
        return sorted({c.vectors for c in self.claims if c.vectors is not None})

    @cached_property
    def _outputs(self) -> list[tuple[str, frozenset[str], frozenset[str]]]:
        """Name, discontinuous equations and loops of each output."""
        paths = [p for p, _ in jax.tree_util.tree_leaves_with_path(self.y)]
        facts = [self._analysis.fact(a) for a in self._function.block.outputs]
        return [
            ("output" + jax.tree_util.keystr(path), fact.discontinuities, fact.loops)
            for path, fact in zip(paths, facts, strict=True)
        ]

    @cached_property
    def _output_types(self) -> list[frozenset[str]]:
        """Types whose rounding separates honest devices, by output; none for integers."""
        facts = [self._analysis.fact(a) for a in self._function.block.outputs]
        return [
            fact.rounding_dtypes | ({leaf.dtype.name} if is_float(leaf.dtype) else set())
            for leaf, fact in zip(jax.tree.leaves(self.y), facts, strict=True)
        ]

    @cached_property
    def _key(self) -> dict[str, Any]:
        """Shapes and dtypes of the key of a secret challenge, as a tree."""
        with jax.enable_x64(True):
            vectors = {n: freivalds.vectors_shape(n, self.policy.draws) for n in self._sets}
            residual = jax.eval_shape(
                self._residual, list(self._function.constants), self.params, vectors
            )
        return {"vectors": vectors, "residual": residual}

    @cached_property
    def _key_arrays(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The same by name."""
        return by_name(self._key)

    def __str__(self) -> str:
        """The table of claims, what is discontinuous, and what the key keeps of the parameters."""
        return describe.text(self.id, self._analysis, self.kept)

    @cached_property
    def kept(self) -> dict[str, int]:
        """Bytes of each value that the key keeps, because replayed equations need it."""
        return describe.kept(self._function, self.params, self._analysis)


def compile(
    fn: Callable[..., Any],
    params: Any,
    *inputs: Any,
    policy: Policy = policy.DEFAULT,
    strategy: Strategy | None = None,
) -> Program:
    """Compile `fn(params, *inputs)` into a pair of execution and check.

    Args:
      fn: any function of pytrees that JAX can trace. Arrays that it closes over count as
        parameters.
      params: pytree of arrays or `ShapeDtypeStruct`s: what the coordinator knows beforehand.
      *inputs: pytrees of arrays or `ShapeDtypeStruct`s: what differs from job to job.
      policy: tolerances and limits.
      strategy: how to compile the check, such as `Program.tune` found; a default that suits most
        programs if there is none.

    Raises:
      TypeError: a value is no array, or a primitive has a parameter without a canonical form.
      ValueError: the policy has no tolerance for a dtype that is needed.
    """
    params, inputs = jax.tree.map(flatten.shape_dtype, (params, inputs))
    function, y = flatten.trace(fn, params, *inputs)
    known = len(function.constants) + len(jax.tree.leaves(params))
    found = partition.analyse(function.block, known, policy.draws)
    leaves = jax.tree.leaves(y)
    compiled = Program(
        policy=policy,
        params=params,
        inputs=inputs,
        y=y,
        id=program_id.program_id(function, known, leaves, found),
        strategy=strategy or _default_strategy(found),
        _function=function,
        _analysis=found,
    )
    compiled.require_policy()
    return compiled


def _default_strategy(found: Analysis) -> Strategy:
    claims = found.by_equation.values()
    nbytes = sum(math.prod(c.shape) * c.dtype.itemsize for c in claims)
    return schedule.default(nbytes, scans=any(c.trips for c in claims))
