"""Find the first equation whose compiled value differs from its value op by op.

The glue before a claim is a graph of equations, from claims, inputs and known values to what the
claim is tested against. It is evaluated op by op, once as it is and several times with other
rounding (`jaxpr.perturb`). Compiled alone, up to one equation, it may differ from the plain values
by a few times what the perturbed ones do. The search goes from the claim backwards, along values
that differ by more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verifiable.check import schedule
from verifiable.check.schedule import Strategy
from verifiable.check.specification import Specification
from verifiable.claims.claim import Claim
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Block, Env, Equation, Var
from verifiable.jaxpr.effects import is_float, rounding_dtype
from verifiable.jaxpr.graph import uses
from verifiable.jaxpr.perturb import Noise

MOST_STEPS = 50_000  # equations evaluated one by one in a run
_UNITS = 8.0  # roundoffs by which results may differ
_MARGIN = 4.0  # times the spread of perturbed replays

Calls = list[tuple[Env, list[Array]]]  # variables that an equation read, and its results
Records = dict[Equation, Calls]
Difference = tuple[str, Any, Any]  # name of the equation, compiled value, value op by op


class Inconclusive(Exception):
    """A run that proves nothing."""


@dataclass(slots=True, eq=False)
class Watch:
    """Evaluates equations without bodies one by one, and records some: an `interpret.Apply`.

    Attributes:
      noise: moves inexact results; None to change nothing.
      recorded: calls of the equations to record, in order.
      steps: equations that may still be evaluated.
    """

    noise: Noise | None = None
    recorded: Records = field(default_factory=dict)
    steps: int = field(default_factory=lambda: MOST_STEPS)

    def __call__(self, equation: Equation, values: Sequence[Array]) -> list[Array]:
        """The results of an equation, moved by the noise.

        Raises:
          Inconclusive: there were too many equations.
        """
        self.steps -= 1
        if self.steps < 0:
            raise Inconclusive
        apply = interpret.apply if self.noise is None else self.noise
        outputs = apply(equation, values)
        if equation in self.recorded:
            pairs = zip(equation.inputs, values, strict=True)
            read = {a: x for a, x in pairs if isinstance(a, Var)}
            self.recorded[equation].append((read, outputs))
        return outputs


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """The glue of one block that leads to some atoms.

    Attributes:
      equations: in order.
      targets: the atoms.
    """

    equations: list[Equation]
    targets: tuple[Atom, ...]


def levels(program: Specification, claim: Claim | None, output: int) -> list[Level]:
    """The glue before a claim or an output: of its own block, then of the blocks around it.

    The bodies of replayed scans and branches are levels of their own, before the block that holds
    them.

    Args:
      program: the compiled function.
      claim: the claim; None for an output.
      output: index of the output.
    """
    block, analysis = program.function.block, program.analysis

    def replayed(equation: Equation) -> bool:
        if equation in analysis.by_equation or equation.kind == "while":
            return False
        if any(analysis.claims_in(body) for body in equation.bodies):
            return False
        return not analysis.known(equation) or bool(analysis.rebuilt.intersection(equation.outputs))

    def around(block: Block, targets: Iterable[Atom]) -> Iterator[Level]:
        targets = tuple(targets)
        equations = [e for e in _before(block, targets) if replayed(e)]
        for equation in equations:
            for body in equation.bodies:
                yield from around(body, body.outputs)
        yield Level([e for e in equations if not e.bodies], targets)

    if claim is None:
        return list(around(block, block.outputs[output : output + 1]))
    return [
        level
        for inner, equation in reversed(_path(block, claim.equation))
        for level in around(inner, claim.reads if equation is claim.equation else uses(equation))
    ]


def _path(block: Block, wanted: Equation) -> list[tuple[Block, Equation]]:
    """Blocks from the outermost to that of an equation, each with the equation that leads there."""
    for equation in block.equations:
        if equation is wanted:
            return [(block, equation)]
        for body in equation.bodies:
            if path := _path(body, wanted):
                return [(block, equation), *path]
    return []


def _before(block: Block, targets: Iterable[Atom]) -> list[Equation]:
    """The equations of a block that lead to some atoms."""
    needed = {a for a in targets if isinstance(a, Var)}
    found: list[Equation] = []
    for equation in reversed(block.equations):
        if needed.intersection(equation.outputs):
            found.append(equation)
            needed.update(a for a in uses(equation) if isinstance(a, Var))
    return found[::-1]


def first_difference(
    levels: Sequence[Level], records: Sequence[Records], trip: int, strategy: Strategy
) -> Difference | None:
    """The first equation whose compiled value differs; None if none does when compiled alone.

    Args:
      levels: from `levels`.
      records: of the plain evaluation, then of the perturbed ones.
      trip: iteration of the scans around the claim.
      strategy: how to compile.
    """
    for level in levels:
        search = _Comparison(level, records, trip, strategy)
        for target in level.targets:
            producer = search.producers.get(target)
            if producer is not None and (found := search.difference(producer)) is not None:
                return search.earliest(producer, found)
    return None


class _Comparison:
    """Compares values of one block, compiled and op by op, in one iteration."""

    def __init__(
        self, level: Level, records: Sequence[Records], trip: int, strategy: Strategy
    ) -> None:
        plain = records[0]
        called = [e for e in level.equations if plain.get(e)]
        self.producers: dict[Atom, Equation] = {v: e for e in called for v in e.outputs}
        self.calls = {e: [_call(r[e], trip) for r in records if r.get(e)] for e in called}
        self.strategy = strategy

    def earliest(self, equation: Equation, found: Difference) -> Difference:
        """Follow differing values backwards from an equation whose value differs."""
        for atom in uses(equation):
            before = self.producers.get(atom)
            if before is not None and (other := self.difference(before)) is not None:
                return self.earliest(before, other)
        return found

    def difference(self, equation: Equation) -> Difference | None:
        """The element of an equation's results that differs most; None if rounding explains all."""
        cone = self.cone(equation)
        made = {v for e in cone for v in e.outputs}
        leaves = {a: x for e in cone for a, x in self.calls[e][0][0].items() if a not in made}
        variables, values = list(leaves), list(leaves.values())

        def evaluate(values: list[Array]) -> list[Array]:
            env: Env = dict(zip(variables, values, strict=True))
            for e in cone:
                interpret.replay(e, env)
            return interpret.read_all(env, equation.outputs)

        with jax.enable_x64(True):
            compiled = schedule.compile(evaluate, self.strategy)(values)
        plain, *perturbed = (outputs for _, outputs in self.calls[equation])
        for i, (a, b) in enumerate(zip(compiled, plain, strict=True)):
            pair = worst_difference(a, b, [p[i] for p in perturbed])
            if pair is not None:
                return equation.name, *pair
        return None

    def cone(self, equation: Equation) -> list[Equation]:
        """The replayed equations that lead to an equation, and itself, in order."""
        found: set[Equation] = set()
        pending = [equation]
        while pending:
            e = pending.pop()
            if e not in found:
                found.add(e)
                pending += [self.producers[a] for a in uses(e) if a in self.producers]
        return [e for e in self.calls if e in found]


def _call(calls: Calls, trip: int) -> tuple[Env, list[Array]]:
    return calls[min(trip, len(calls) - 1)]


def worst_difference(
    compiled: Array, plain: Array, perturbed: Sequence[Array]
) -> tuple[Any, Any] | None:
    """The two values that differ most beyond rounding; None if there are none."""
    a, b, *others = (np.asarray(x) for x in (compiled, plain, *perturbed))
    if not is_float(b.dtype):
        wrong = np.logical_and.reduce([a != b, *(o == b for o in others)])
        excess = wrong.astype(np.float64)
    else:
        unit = _UNITS * float(jnp.finfo(rounding_dtype(b.dtype)).eps)
        wide = np.complex128 if np.iscomplexobj(b) else np.float64
        a, b, *others = (x.astype(wide) for x in (a, b, *others))
        with np.errstate(all="ignore"):
            spread = np.max([np.zeros(b.shape), *(np.abs(o - b) for o in others)], axis=0)
            excess = np.abs(a - b) / (_MARGIN * spread + unit * np.abs(b) + 1e-300)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        excess = np.where(same, 0.0, np.where(np.isnan(excess), np.inf, excess))
        excess = np.where(np.isfinite(spread), excess, 0.0)
        wrong = excess > 1.0
    if not np.any(wrong):
        return None
    worst = np.argmax(excess)
    return a.flat[worst].item(), b.flat[worst].item()
