"""Cheats in one claim, or in decisions: the device commits to what is wrong and goes on with it.

one unit      one row of one product is wrong by 16 sigma, in a random direction;
near-ties     every decision within the slack of a tie goes the other way: operands are moved by
              almost the slack before each comparison, sign and choice, against what they say;
one choice    the last `argmax` or `top_k` takes another element in one iteration;
other trips   the last loop that ends by a comparison makes a trip less or more, none, or twice as
              many.

"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from verifiable.check import execute
from verifiable.claims.claim import Claim
from verifiable.claims.decisions.choice import ChoiceForm
from verifiable.claims.decisions.decision import COMPARISONS, DecisionForm
from verifiable.claims.decisions.trips import TripsForm
from verifiable.claims.products.product import Product
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Env, Equation, Var
from verifiable.program import Program
from verifiable.testing.devices import QUICK, Answer
from verifiable.trace import Trace

KAPPA = 16.0
NEARLY = 0.95  # of the slack
CHOICES = frozenset({"argmax", "argmin", "top_k"})
TRIPS: dict[str, Callable[[int], int]] = {
    "a trip less": lambda n: max(n - 1, 0),
    "a trip more": lambda n: n + 1,
    "no trip": lambda _: 0,
    "twice the trips": lambda n: 2 * n,
}


class OneUnit:
    """The cheat that is wrong by `KAPPA` sigma in one row of one product, in a random direction."""

    def __init__(self, program: Program, claim: Claim, run: Callable[..., Any]):
        """Take one claim of those that `run`, from `one_unit`, can be wrong in."""
        self._program, self._claim, self._run = program, claim, run

    def __call__(self, params: Any, inputs: tuple[Any, ...], seed: int) -> Answer | None:
        """Answer and trace; the seed chooses iteration, row and direction.

        None if the product is in a branch that was not taken, so that nothing is wrong.
        """
        rng, claim = np.random.default_rng(seed), self._claim
        trip = np.zeros(claim.trips, np.float32)
        trip[tuple(int(rng.integers(n)) for n in claim.trips)] = 1
        row = np.uint32(rng.integers(claim.form.tests))
        slope = rng.standard_normal(claim.output.shape)
        with jax.enable_x64(True):
            (_, right), (outputs, found) = (
                self._run(params, inputs, claim.index, here, row, slope)
                for here in (0 * trip, trip)
            )
        if np.array_equal(right[claim.index], found[claim.index], equal_nan=True):
            return None
        values = tuple(found[c.index] for c in self._program.claims)
        return self._program.unflatten(outputs), Trace(values=values)


def products(program: Program) -> list[Claim]:
    """Claims of products of floats."""
    return [c for c in program.claims if isinstance(c.form, Product) and c.eps_types]


def one_unit(program: Program, skipped: int = 0) -> list[OneUnit]:
    """The cheat in the first, middle and last product of floats, after some that are skipped."""
    found = products(program)[skipped:]
    places = dict.fromkeys((0, len(found) // 2, len(found) - 1)) if found else {}
    chosen = [found[i] for i in places]
    run = _one_row_wrong(program, chosen)
    return [OneUnit(program, claim, run) for claim in chosen]


def _one_row_wrong(program: Program, claims: Sequence[Claim]) -> Callable[..., Any]:
    """A compiled device that is wrong in the claim, iteration, row and direction it is given."""

    def wrong(claim: Claim, env: Any, out: Array, given: Any) -> Array:
        here, row, slope = given
        form: Any = claim.form
        operands = [interpret.read(env, atom) for atom in claim.operands]
        far = None if claim.far is None else interpret.read(env, claim.far)
        room = form.room(operands, far, out, program.tolerances[claim.name])
        chosen = jnp.arange(room.sigma.size).reshape(room.sigma.shape) == row
        shift = form.steepest(room, slope, 1.01 * KAPPA)
        shift = shift * form.unseen(form.maps.over_rows(chosen.astype(jnp.float64))) * here
        return (out.astype(jnp.float64) + shift).astype(out.dtype)

    def emit(claim: Claim, equation: Any, env: Any, given: Any) -> tuple[list[Array], Array]:
        results, committed = execute.honest(claim, equation, env)
        if given is None:
            return results, committed
        out = wrong(claim, env, results[0], given)
        if claim.transpose is not None:
            [env[claim.transpose.outputs[0]]] = interpret.apply(claim.transpose, [out])
        return [out], out

    def run(params: Any, inputs: tuple[Any, ...], given: Any) -> Any:
        return forge(program, params, inputs, emit, given)

    jitted = jax.jit(run, compiler_options=QUICK)

    def run_wrong(
        params: Any, inputs: tuple[Any, ...], index: int, trip: Any, row: Any, slope: Any
    ) -> Any:
        given: dict[int, Any] = {}
        for claim in claims:
            nothing = np.zeros(claim.trips, np.float32)
            here = trip if claim.index == index else nothing
            direction = slope if claim.index == index else np.ones(claim.output.shape)
            each = [np.broadcast_to(x, claim.trips + np.shape(x)) for x in (row, direction)]
            given[claim.index] = (here, *each)
        return jitted(params, inputs, given)

    return run_wrong


class TurnedTies:
    """The cheat that takes every near-tie the other way."""

    def __init__(self, program: Program):
        """Make the cheat for one program."""
        self._program = program
        self._jitted = jax.jit(self._run, compiler_options=QUICK)

    def __call__(self, params: Any, inputs: tuple[Any, ...]) -> Answer:
        """Answer and trace."""
        return answer_of(self._program, self._jitted(params, inputs))

    def _run(self, params: Any, inputs: tuple[Any, ...]) -> Any:
        eps = self._program.tolerances

        def emit(claim: Claim, equation: Equation, env: Env, _: Any) -> Any:
            moved = _against(claim, equation, env, eps.get(claim.name, 0.0))
            return decided(claim, equation, env, moved)

        return forge(self._program, params, inputs, emit, {})


class OneChoice:
    """The cheat that replaces the choice of one claim in one iteration and row."""

    def __init__(self, program: Program, claim: Claim):
        """Make the cheat for one claim, whose equation is in `CHOICES`."""
        self._program, self._claim = program, claim
        self._jitted = jax.jit(self._run, compiler_options=QUICK)

    def __call__(self, params: Any, inputs: tuple[Any, ...], seed: int) -> Answer:
        """Answer and trace; the seed chooses iteration and element."""
        rng, claim = np.random.default_rng(seed), self._claim
        trip = np.zeros(claim.trips, np.float32)
        trip[tuple(int(rng.integers(n)) for n in claim.trips)] = 1
        number = np.uint32(rng.integers(claim.equation.inputs[0].size))
        return answer_of(self._program, self._jitted(params, inputs, trip, number))

    def _run(self, params: Any, inputs: tuple[Any, ...], trip: Array, number: Array) -> Any:
        def emit(claim: Claim, equation: Equation, env: Env, here: Any) -> Any:
            if claim.index != self._claim.index:
                return execute.honest(claim, equation, env)
            [atom] = equation.inputs
            value = interpret.read(env, atom)
            sign = -1 if equation.kind == "argmin" else 1
            best = sign * jnp.finfo(value.dtype).max
            chosen = jnp.arange(value.size).reshape(value.shape) == number
            moved = {atom: jnp.where(chosen & (here > 0), best, value)}
            return decided(claim, equation, env, moved)

        return forge(self._program, params, inputs, emit, {self._claim.index: trip})


def one_choice(program: Program) -> OneChoice | None:
    """The cheat in the last choice of the program; None if no choice is a claim."""
    found = [c for c in program.claims if c.equation.kind in CHOICES]
    return OneChoice(program, found[-1]) if found else None


class OtherTrips:
    """The cheat that makes another number of trips in one loop, and goes on from there."""

    def __init__(self, program: Program, claim: Claim):
        """Make the cheat for one claim of a number of trips."""
        self._program, self._claim = program, claim
        self._jitted = jax.jit(self._run, compiler_options=QUICK)

    def __call__(
        self, params: Any, inputs: tuple[Any, ...], seed: int, change: Callable[[int], int]
    ) -> Answer:
        """Answer and trace; the seed chooses the example and iteration, `change` the number."""
        honest = self._program.prove(params, *inputs).trace
        trips = np.array(honest.values[self._claim.index])
        made = trips.reshape(-1)
        place = int(np.random.default_rng(seed).integers(made.size))
        made[place] = change(int(made[place]))
        with jax.enable_x64(True):
            return answer_of(self._program, self._jitted(params, inputs, trips))

    def _run(self, params: Any, inputs: tuple[Any, ...], trips: Array) -> Any:
        compiled, own = self._program, self._claim
        limit, eps = compiled.policy.trip_limit, compiled.tolerances[own.name]

        def emit(claim: Claim, equation: Equation, env: Env, given: Any) -> Any:
            if claim.index != own.index:
                return execute.honest(claim, equation, env)
            claim.prepare(given, env, eps, limit, interpret.apply)
            return claim.outputs(given, env), given

        return forge(compiled, params, inputs, emit, {own.index: trips})


def other_trips(program: Program) -> OtherTrips | None:
    """The cheat in the last loop whose number of trips is a claim; None if there is none."""
    found = [c for c in program.claims if isinstance(c.form, TripsForm)]
    return OtherTrips(program, found[-1]) if found else None


def decided(claim: Claim, equation: Equation, env: Env, moved: dict[Any, Array]) -> Any:
    """What `execute.honest` returns for a decision made from moved operands.

    Values that are moved by the decision, such as the largest of `top_k`, are the honest ones.
    """
    results, committed = execute.honest(claim, equation, {**env, **moved})
    form: Any = claim.form
    if moved and equation.kind in ("top_k", "sort"):
        values = interpret.read_all(env, equation.inputs)
        sources = [None if i is None else values[i] for i in form.moved_from]
        results = form.outputs(committed, sources)
    return results, committed


def _against(claim: Claim, equation: Equation, env: Env, eps: float) -> dict[Any, Array]:
    """Operands of a decision, moved by almost their slack against what they say."""
    atoms: Sequence[Any] = equation.inputs
    if not isinstance(claim.form, DecisionForm | ChoiceForm):
        return {}
    form: Any = claim.form
    room = form.slacks(interpret.read_all(env, claim.operands), eps)
    inexact = [isinstance(a, Var) and jnp.issubdtype(a.dtype, jnp.floating) for a in atoms]
    if equation.kind in COMPARISONS and len(atoms) == 2 and atoms[0] is not atoms[1]:
        a, b = (interpret.read(env, x) for x in atoms)
        toward = jnp.where(b >= a, 1, -1)
        pairs = zip(atoms, (a, b), room, (toward, -toward), inexact, strict=True)
        return {x: _moved(v, far, way) for x, v, far, way, moves in pairs if moves}
    if not inexact[0]:
        return {}
    value = interpret.read(env, atoms[0])
    if equation.kind == "sign":
        return {atoms[0]: _moved(value, room[0], -jnp.sign(value))}
    if equation.kind == "top_k":
        count = equation.params["k"]
        least = jnp.min(lax.top_k(value, count)[0], -1, keepdims=True)
        return {atoms[0]: _moved(value, room[0], jnp.where(value >= least, -1, 1))}
    if equation.kind in CHOICES:
        axes, sign = equation.params["axes"], -1 if equation.kind == "argmin" else 1
        best = jnp.max(sign * value, axes[0], keepdims=True)
        return {atoms[0]: _moved(value, room[0], jnp.where(sign * value >= best, -sign, sign))}
    return {}


def _moved(value: Array, room: Array, way: Array) -> Array:
    """A value moved by almost its slack, up or down; infinities stay."""
    wide = value.astype(jnp.promote_types(value.dtype, jnp.float32))
    room = NEARLY * (room.reshape(value.shape) if room.size == value.size else room)
    return jnp.where(jnp.isfinite(value), (wide + way * room).astype(value.dtype), value)


def forge(compiled: Program, params: Any, inputs: tuple[Any, ...], emit: Any, given: Any) -> Any:
    """Outputs and committed values of a device that commits to what `emit` returns.

    Args:
      compiled: the program.
      params: the parameters.
      inputs: of the job.
      emit: evaluates the equation of a claim, as `execute.honest` does.
      given: by index of a claim, what its iterations give to `emit`.
    """
    env, block = compiled.bind(params, inputs), compiled.function.block
    return execute.execute(block, compiled.analysis, env, emit=emit, given=given)


def answer_of(compiled: Program, found: Any) -> Answer:
    """Answer and trace, of what `forge` returned."""
    outputs, values = found
    trace = Trace(values=tuple(values[c.index] for c in compiled.claims))
    return compiled.unflatten(outputs), trace
