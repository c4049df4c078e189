"""The cheat that steers through a rounding.

What is rounded before the last product that something is chosen from is moved towards the
runner-up: each element to the end of a share of its slack, or to the neighbour of what it was
rounded from.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks.zoo.subject import Inputs
from verifiable.check import execute
from verifiable.check.freedom import near_ties
from verifiable.claims.claim import Claim
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Env, Equation
from verifiable.jaxpr.perturb import in_float64
from verifiable.program import Program
from verifiable.testing.devices import QUICK, Answer
from verifiable.testing.forging import answer_of, forge
from verifiable.trace import Trace


class SteeredRounding:
    """The cheat that moves the operand of the last product that something is chosen from.

    Attributes:
      choice: from the product.
      head: the product, and the roundings before it.
      rounding: the one that is moved.
    """

    def __init__(self, compiled: Program, choice: near_ties.Choice, rounding: Claim):
        """Make the cheat for one choice and rounding, of the shape of the operand; see `of`."""
        self._compiled, self.choice, self.rounding = compiled, choice, rounding
        self.head = choice.head
        self._towards = jax.jit(self._run_towards, compiler_options=QUICK)
        self._moved = jax.jit(self._run_moved, compiler_options=QUICK)
        self._nearest = jax.jit(self._run_nearest, compiler_options=QUICK)

    @classmethod
    def of(cls, compiled: Program) -> SteeredRounding | None:
        """The cheat of a program; None if nothing is chosen from a product of rounded operands."""
        for choice in reversed(list(near_ties.choices(compiled))):
            for claim, _ in choice.head.roundings:
                if (
                    claim.output.shape == choice.head.claim.near.shape
                    and choice.head.form.near == 0
                    and choice.head.alone
                ):
                    return cls(compiled, choice, claim)
        return None

    def __call__(
        self, params: Any, inputs: Inputs, sent: Trace, share: float, only: int | None = None
    ) -> Answer:
        """Answer and trace.

        Args:
          params: the parameters.
          inputs: of the job.
          sent: an honest trace, which says what is chosen and what comes second.
          share: of the slack of each element.
          only: the row of the product whose operand is moved; all by default.
        """
        way = self._way(params, inputs, sent, only)
        found = self._moved(params, inputs, way, np.float32(share))
        return answer_of(self._compiled, found)

    def neighbours(self, params: Any, inputs: Inputs, sent: Trace) -> Answer:
        """The same of a device that rounds the last operation to either neighbour of its result.

        Arguments as above.
        """
        way = self._way(params, inputs, sent)
        with jax.enable_x64(True):
            return answer_of(self._compiled, self._nearest(params, inputs, way))

    def _way(self, params: Any, inputs: Inputs, sent: Trace, only: int | None = None) -> Array:
        logits = np.asarray(sent.values[self.head.claim.index]).astype(np.float64)
        second, first = np.moveaxis(np.argsort(logits, axis=-1)[..., -2:], -1, 0)
        way = self._towards(params, inputs, first, second)
        if only is not None:
            way = jnp.where(jnp.arange(way.shape[0])[:, None] == only, way, 0)
        return way if self.head.form.contracting[0] != (0,) else way.T

    def turned(self, sent: Trace, other: Trace) -> set[tuple[int, int]]:
        """The iterations and rows of the product from which a run chooses something else.

        Args:
          sent: an honest run.
          other: of the cheat, on the same job.
        """
        chosen = self._compiled.analysis.by_equation.get(self.choice.equation)
        head = self.head.claim
        number, rows = self.choice.number, (math.prod(head.trips), self.head.form.rows)

        def picked(run: Trace) -> Any:
            if chosen is not None:
                return np.asarray(run.values[chosen.index]).reshape(rows[0], rows[1], -1)
            logits = np.asarray(run.values[head.index]).astype(np.float64)
            order = np.argsort(-logits if self.choice.largest else logits, -1, kind="stable")
            return np.sort(order[..., :number].reshape(rows[0], rows[1], -1), -1)

        apart = np.any(picked(sent) != picked(other), axis=-1)
        return {(int(trip), int(row)) for trip, row in np.argwhere(apart)}

    def _run_towards(self, params: Any, inputs: Inputs, first: Array, second: Array) -> Array:
        """What the second column adds to the product, less what the first does: (rows, K)."""
        claim = self.head.claim

        def emit(each: Claim, equation: Equation, env: Env, given: Any) -> Any:
            results, committed = execute.honest(each, equation, env)
            if each.index != claim.index or each.far is None:
                return results, committed
            far = interpret.read(env, each.far).astype(jnp.float32)
            columns = far if self.head.form.contracting[1] == (1,) else far.T
            return results, columns[given[1]] - columns[given[0]]

        found = forge(self._compiled, params, inputs, emit, {claim.index: (first, second)})
        way: Array = found[1][claim.index]
        return way

    def _run_moved(self, params: Any, inputs: Inputs, way: Array, share: Array) -> Any:
        moved = self.rounding
        eps = self._compiled.tolerances[moved.name]

        def emit(claim: Claim, equation: Equation, env: Env, given: Any) -> Any:
            results, committed = execute.honest(claim, equation, env)
            if claim.index != moved.index:
                return results, committed
            form: Any = claim.form
            own = results[0] if claim.replays_itself else interpret.read(env, claim.near)
            value = own.astype(form.wide)
            low, high = form.extremes(value, share * form.slack(value, eps))
            out = jnp.where(given > 0, high, jnp.where(given < 0, low, results[0]))
            out = out.astype(results[0].dtype)
            return [out], out

        return forge(self._compiled, params, inputs, emit, {moved.index: way})

    def _run_nearest(self, params: Any, inputs: Inputs, way: Array) -> Any:
        def emit(claim: Claim, equation: Equation, env: Env, given: Any) -> Any:
            results, committed = execute.honest(claim, equation, env)
            if claim.index != self.rounding.index:
                return results, committed
            own = results[0]
            [exact] = in_float64(equation, interpret.read_all(env, equation.inputs))
            short = (own < exact) & (given > 0) | (own > exact) & (given < 0)
            step = jnp.where(given > 0, jnp.inf, -jnp.inf).astype(own.dtype)
            out = jnp.where(short, lax.nextafter(own, step), own)
            return [out], out

        return forge(self._compiled, params, inputs, emit, {self.rounding.index: way})
