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

`prove` and `verify` are the entry points for a device and a coordinator: they add the commitment,
without which a device could choose its trace after it knew what would be tested.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax

from verifiable import policy as policies
from verifiable.challenge import Challenge
from verifiable.check import calibration, describe, schedule
from verifiable.check import execute as prover
from verifiable.check.analysis import cuts as cutting
from verifiable.check.analysis import program_id
from verifiable.check.compiled import CheckArguments, CompiledCheck, CompiledSetup
from verifiable.check.freedom import corridor, warn
from verifiable.check.judging.receive import Problem, ReceivedArrays, misnamed, receive, uncommitted
from verifiable.check.judging.verdict import judge, refuse
from verifiable.check.partial.audit import Auditable, require_block
from verifiable.check.replay.replay import Findings
from verifiable.check.settings import on_host, require_threads
from verifiable.check.setup import make_key
from verifiable.check.trees import RootMemory, abstract, parameter_root
from verifiable.errors import require_type
from verifiable.jaxpr import from_jax
from verifiable.jaxpr.effects import CUT
from verifiable.key import VerifierKey
from verifiable.policy import Policy
from verifiable.report import Corridor, Report
from verifiable.submission import Submission
from verifiable.trace import Commitment, Trace

__all__ = ["Program", "compile", "parameter_root"]

_roots = RootMemory()


@dataclass(frozen=True, eq=False, kw_only=True)
class Program(Auditable):
    """A function, compiled into execution and check. Made by `compile`.

    Attributes:
      strategy: how the check is compiled; it changes no verdict.

    The other attributes are of `check.specification.Specification`.
    """

    strategy: schedule.Strategy

    def __str__(self) -> str:
        """The table of claims, what is discontinuous, and what the key keeps of the parameters."""
        return describe.text(self.id, self.analysis, self.outputs, self.kept)

    def with_policy(self, policy: Policy) -> Program:
        """The same program under another policy, such as one from `calibrate`.

        Raises:
          TypeError: `policy` is not a `Policy`.
          ValueError: the policy has no tolerance for a dtype that is needed, was calibrated for
            another program, or has another number of draws, which decides what is a claim.
        """
        require_type("policy", policy, Policy)
        if policy.draws != self.policy.draws:
            raise ValueError(
                f"the program was compiled for {self.policy.draws} draws, the policy has "
                f"{policy.draws}: pass it to compile"
            )
        other = replace(self, policy=policy)
        other.require_policy()
        return warn.warned(other)

    @on_host
    def prove(self, params: Any, *inputs: Any) -> Submission:
        """Run the function on a device, and commit to its answer and trace.

        Args:
          params: the parameters, as at compile time. JAX arrays are hashed once, numpy arrays at
            every run.
          *inputs: the inputs, as at compile time.

        Returns:
          The answer, the trace, their commitment, and what program and parameters were run.

        Raises:
          TypeError: a leaf is not an array, or a dtype has no canonical bytes.
          ValueError: another tree, shape or dtype than at compile time.
        """
        y, trace = self._executed(self.conform_params(params), *self.conform_inputs(inputs))
        return Submission(
            y=y,
            trace=trace,
            commitment=self.commit(y, trace).commitment,
            program=self.id,
            parameters=_roots.root(params),
        )

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
          TypeError: a leaf is not an array.
          ValueError: another tree, shape or dtype than at compile time.
        """
        env = self.bind(params, inputs)
        outputs, found = prover.execute(self.function.block, self.analysis, env)
        trace = Trace(values=tuple(found[c.index] for c in self.claims))
        return self.unflatten(outputs), trace

    @cached_property
    def _executed(self) -> Callable[..., tuple[Any, Trace]]:
        return jax.jit(self.execute)

    def setup(self, params: Any, challenge: Challenge) -> VerifierKey:
        """Make the verifier key: everything that the check needs of the parameters.

        The first call also tests the compiled check (`check.self_test`), which takes most of its
        time; the logger `verifiable` tells the steps at level INFO.

        Args:
          params: the parameters that the devices are to use.
          challenge: randomness that no device knows when it commits.

        Raises:
          Miscompiled: the compiler errs in the check, as the first call found (`check.self_test`).
          TypeError: a leaf is not an array, or `challenge` is not a `Challenge`.
          ValueError: another tree, shape or dtype, or a parameter that is compared is subnormal.
        """
        return make_key([self], params, challenge, name=self.id)

    @on_host
    def verify(
        self,
        key: VerifierKey,
        *arguments: Any,
        commitment: Commitment,
        parameters: bytes | None = None,
        corridor: Corridor | None = None,
    ) -> Report:
        """Decide whether a submission is an honest run: its commitment first, then every claim.

        Args:
          key: from `setup`.
          *arguments: the job's own inputs, as at compile time, then the `Submission`.
          commitment: what was received before anything derived from the key was revealed, and
            before a public challenge was known.
          parameters: the `parameter_root` that the job names. A submission that names another is
            then rejected; without it, a difference raises ValueError, as either side may be wrong.
          corridor: for these inputs, to mark an answer that a cheat could have turned.

        Raises:
          TypeError: key, commitment or submission is of another type.
          ValueError: the key is of another program, policy or version, or of other parameters than
            the job's; the inputs have another tree, shape or dtype than at compile time.
        """
        self._require_types(key, parameters, corridor)
        require_type("commitment", commitment, Commitment)
        if not arguments:
            raise TypeError("the submission is missing: verify(key, *inputs, submission, ...)")
        *inputs, submission = arguments
        require_type("the last argument, the submission,", submission, Submission)
        self._require_key(key, parameters)
        problem = misnamed(submission, key.header, parameters)
        received = problem or receive(self, submission.y, submission.trace)
        if isinstance(received, Problem):
            return refuse(received)
        problem = uncommitted(self, received, commitment)
        if problem is not None:
            return refuse(problem)
        return self._judge(key, tuple(inputs), received, corridor)

    @on_host
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

        The layer below `verify`, without the commitment: the caller has to make sure that both
        were committed to before anything that depends on the key was revealed.

        Args:
          key: from `setup`.
          *inputs: the job's own inputs, as at compile time.
          y: what the device returned; any object.
          trace: the trace that it committed to, or a sequence of arrays; any object.
          parameters: the `parameter_root` that the job names; the key must be of these parameters.
          corridor: see `verify`.

        Raises:
          TypeError: the key is of another type.
          ValueError: the key is of another program, policy, version or other parameters, or the
            inputs have another tree, shape or dtype than at compile time.
        """
        self._require_types(key, parameters, corridor)
        self._require_key(key, parameters)
        received = receive(self, y, trace)
        if isinstance(received, Problem):
            self.conform_inputs(inputs)
            return refuse(received)
        return self._judge(key, inputs, received, corridor)

    def statistics(
        self, key: VerifierKey, *inputs: Any, y: Any, trace: Trace
    ) -> tuple[Findings, Any]:
        """What `check` measures, and the replayed y: a pure JAX function.

        Shapes and dtypes must be the program's: for what an untrusted device sent, call `check`.
        """
        arguments = CheckArguments.of(key, inputs, y, trace)
        findings, own = self.compiled_check.statistics(arguments)
        return findings, self.unflatten(own)

    @cached_property
    def compiled_check(self) -> CompiledCheck:
        """The compiled measurements of `check`."""
        key = self.compiled_setup.layout
        return CompiledCheck(program=self, key=key, strategy=self.strategy)

    @cached_property
    def compiled_setup(self) -> CompiledSetup:
        """The compiled evaluation of `setup`, and the layout of its keys."""
        return CompiledSetup(program=self)

    def _judge(
        self,
        key: VerifierKey,
        inputs: tuple[Any, ...],
        received: ReceivedArrays,
        corridor: Corridor | None,
    ) -> Report:
        """The report on a run with the program's shapes and dtypes."""
        arguments = CheckArguments(
            key=key.arrays, inputs=self.conform_inputs(inputs), **received._asdict()
        )
        findings, own = self.compiled_check.measure(arguments)
        mine, again = self.unflatten(own), self.compiled_check.second_look
        report = judge(
            findings,
            *self.judged(arguments.inputs),
            coverage=self.coverage,
            bound=self.bound,
            again=again.on(arguments),
            flips=self.flip_limits,
            most=self.most_flips,
            y=mine,
            theirs=arguments.outputs,
            corridor=corridor,
        )
        return self.compiled_check.near_ties.noted(report, arguments)

    def tune(
        self, key: VerifierKey, *inputs: Any, y: Any, trace: Any, repeats: int = 10
    ) -> tuple[Program, dict[schedule.Strategy, float]]:
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

    def calibrate(
        self,
        params: Any,
        samples: Sequence[tuple[Any, ...]],
        *,
        executors: Sequence[Callable[..., tuple[Any, Any]]] = (),
        factor: float = calibration.FACTOR,
    ) -> Policy:
        """Measure the tolerance of each claim and output: `check.calibration.calibrate`."""
        return calibration.calibrate(self, params, samples, executors=executors, factor=factor)

    def corridor(
        self, params: Any, *inputs: Any, answer: corridor.Answer, kappa: float | None = None
    ) -> Corridor:
        """How far the tolerance lets a cheat move an answer on these inputs (`freedom.corridor`).

        Args:
          params: the parameters.
          *inputs: the inputs.
          answer: scalar float function of `y`, such as the margin between two logits
            (`freedom.corridor.margin`).
          kappa: deviation of a row up to which a cheat may go, in units of sigma; by default what
            passes with probability 1e-9.

        Raises:
          ValueError: the answer is not a float scalar or has no derivative (integer arithmetic
            after a rounding; a `while` that follows from a claim); or as `execute`.
        """
        return corridor.corridor(self, params, inputs, answer, kappa)

    def attack(
        self, params: Any, *inputs: Any, answer: corridor.Answer, kappa: float
    ) -> tuple[Any, Trace]:
        """Answer and trace of a cheat that shifts every claim by kappa sigma to lower an answer.

        For tests of coordinators: below the bound's kappa it may pass, and then it has moved the
        answer by no more than the corridor's reach. Arguments and errors as of `corridor`.
        """
        return corridor.attack(self, params, inputs, answer, kappa)


def compile(
    fn: Callable[..., Any],
    params: Any,
    *inputs: Any,
    policy: Policy = policies.DEFAULT,
    strategy: schedule.Strategy | None = None,
    self_test: bool = True,
    cuts: bool = False,
    row_block: int | None = None,
) -> Program:
    """Compile `fn(params, *inputs)` into a pair of execution and check.

    Args:
      fn: any function of pytrees that JAX can trace. Arrays that it closes over count as
        parameters, with the values that they have now.
      params: pytree of arrays or `ShapeDtypeStruct`s: what the coordinator knows beforehand.
      *inputs: pytrees of arrays or `ShapeDtypeStruct`s: what differs from job to job.
      policy: tolerances and limits.
      strategy: how to compile the check, such as `Program.tune` found; by default, what suits most.
      self_test: whether the first `setup` tests the compiled check, on a random run op by op.
      cuts: whether scans commit to their carries too, and functions to values with a
        `checkpoint_name`, so that audits of a part open less (`analysis.cuts`).
      row_block: how many neighbouring rows a leaf of the trace holds, for audits of rows.

    Raises:
      TypeError: `fn` is not callable, a leaf is not an array, or a primitive has no canonical form.
      ValueError: no tolerance for a dtype that is needed, or a `row_block` below 1.

    Warns `IndeterminateWarning` if an output, or over a tenth of the arithmetic, is behind
    discontinuities; `SteerableChoice` and `CoarseTolerance` where tolerances leave much to a cheat;
    `UnlistedChoice` where no report lists what they leave to it; `NoInputs` without any input.
    """
    if not callable(fn):
        raise TypeError(f"fn must be a function, got {type(fn).__name__}: compile(fn, params, ...)")
    require_threads()
    require_type("policy", policy, Policy)
    require_type("strategy", strategy or schedule.Strategy(), schedule.Strategy)
    require_block(row_block)
    params, inputs = abstract("params", params), abstract("inputs", inputs)
    function, y = from_jax.trace(fn, params, *inputs, named=CUT if cuts else None)
    known = len(function.constants) + len(jax.tree.leaves(params))
    found = cutting.analyse(function, known, policy.draws, cuts=cuts)
    compiled = Program(
        policy=policy,
        params=params,
        inputs=inputs,
        y=y,
        id=program_id.program_id(function, known, jax.tree.leaves(y), found, row_block),
        row_block=row_block,
        strategy=strategy or schedule.default(found.trace_bytes, scans=found.scans),
        function=function,
        analysis=found,
        self_test=self_test,
    )
    compiled.require_policy()
    describe.warn(found, compiled.outputs, inputs=bool(jax.tree.leaves(inputs)))
    return warn.warned(compiled)
