"""Cheats that work on any program, and whether one changes the answer.

A cheat is a function from a job to an answer and a trace:

    int8 weights, int4 weights    matrices rounded, with a scale a column or a group of 16 inputs
    another model                 parameters drawn anew, with the same means and deviations
    skipped layers                the last layer's parameters set to zero
    one unit                      one row of one product is wrong by 16 sigma; the rest follows it
    decoy, then ...               a claim of pure noise comes first: it hides no later cheat

A cheat *changes the answer* if a choice (a class, a token) differs on which all honest devices
agree, or if a float output moves by more than four times what it moves between honest devices. It
is *within the corridor* if `Program.corridor` says that the tolerance allows such a move.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.devices import NAMES, QUICK, Answer, devices
from benchmarks.zoo.layers import layer_norm
from benchmarks.zoo.subject import Inputs, Subject, Weights
from verifiable import program
from verifiable import trace as traces
from verifiable.challenge import secret
from verifiable.check import execute
from verifiable.check.evidence import evidence_of, verify_evidence
from verifiable.claims.claim import Claim
from verifiable.claims.product import Product, room_of
from verifiable.jaxpr import interpret
from verifiable.key import VerifierKey
from verifiable.report import Report, Verdict
from verifiable.submission import Submission
from verifiable.trace import Trace

KAPPA = 16.0
SPREADS = 4.0
GROUP = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A subject that is ready to run and to check.

    Attributes:
      subject: the model.
      program: the model, compiled.
      key: to check with.
      devices: the honest ones by name.
      run: `execute`, jitted: of `(params, *inputs)`.
    """

    subject: Subject
    program: program.Program
    key: VerifierKey
    devices: dict[str, Any]
    run: Callable[..., Answer]

    @classmethod
    def of(cls, subject: Subject) -> Bench:
        """Compile a subject and make a key."""
        compiled = program.compile(
            subject.fn, subject.params, *subject.draw(np.random.default_rng(0))
        )
        return cls(
            subject=subject,
            program=compiled,
            key=compiled.setup(subject.params, secret()),
            devices=devices(compiled),
            run=jax.jit(compiled.execute),
        )

    def check(self, inputs: Inputs, answer: Answer) -> Report:
        """The report on a run."""
        y, trace = answer
        return self.program.check(self.key, *inputs, y=y, trace=trace)

    def convictions(self, inputs: Inputs, answer: Answer, report: Report) -> list[bool]:
        """Whether evidence convicts, for each claim and output that was not accepted."""
        y, trace = answer
        sent = Submission(
            y=y,
            trace=trace,
            commitment=traces.commit(y, trace).commitment,
            program=self.program.id,
            parameters=self.key.header.parameters,
        )
        found: list[bool] = []
        for result in report.results:
            if result.verdict is not Verdict.ACCEPT:
                # Anyone may accuse any row, so accuse what was indeterminate too.
                accusing = replace(report, verdict=Verdict.REJECT, claim=result.name)
                evidence = evidence_of(self.program, accusing, sent)
                judged = verify_evidence(evidence, self.program, self.subject.params, *inputs)
                found.append(judged.guilty)
        return found

    def products(self) -> list[Claim]:
        """Claims of products of floats."""
        found = [c for c in self.program.claims if isinstance(c.form, Product)]
        return [c for c in found if c.eps_types]


# ---------------------------------------------------------------------------- other parameters


def int8(params: Any) -> Any:
    """Round matrices to 8 bits with one scale a column."""
    return _rounded(params, 127, None)


def int4(params: Any) -> Any:
    """Round matrices to 4 bits with one scale for 16 inputs of a column; integers to 4 bits."""
    return _rounded(params, 7, GROUP)


def _rounded(params: Any, largest: int, group: int | None) -> Any:
    def leaf(x: Array) -> Array:
        w = np.asarray(x)
        if w.ndim < 2 or not jnp.issubdtype(w.dtype, jnp.floating):
            narrow = w.dtype == np.int8 and largest < 127
            return jnp.asarray((w // 16) * 16) if narrow else x
        wide = w.astype(np.float32)
        size = group if group and w.shape[-2] % group == 0 else w.shape[-2]
        grouped = wide.reshape(*w.shape[:-2], -1, size, w.shape[-1])
        scale = np.abs(grouped).max(-2, keepdims=True) / largest
        levels = np.rint(grouped / np.where(scale == 0, 1, scale))
        return jnp.asarray((levels * scale).reshape(w.shape), x.dtype)

    return jax.tree.map(leaf, params)


def another_model(params: Any) -> Any:
    """Draw all parameters anew; integers and single rows change places."""
    rng = np.random.default_rng(7)

    def leaf(x: Array) -> Array:
        w = np.asarray(x)
        if not jnp.issubdtype(w.dtype, jnp.floating) or w.ndim < 2:
            return jnp.asarray(rng.permutation(w.ravel()).reshape(w.shape), x.dtype)
        wide = w.astype(np.float32)
        return jnp.asarray(wide.mean() + wide.std() * rng.standard_normal(w.shape), x.dtype)

    return jax.tree.map(leaf, params)


def skipped_layers(params: Any) -> Any:
    """Set the parameters of the last layer to zero; of all layers, if they are stacked."""
    repeated = params["layers"]
    last = repeated[-1] if isinstance(repeated, list) else repeated
    nothing = jax.tree.map(jnp.zeros_like, last)
    kept = [*repeated[:-1], nothing] if isinstance(repeated, list) else nothing
    return {**params, "layers": kept}


PARAMETERS: dict[str, Callable[[Any], Any]] = {
    "int8 weights": int8,
    "int4 weights": int4,
    "another model": another_model,
    "skipped layers": skipped_layers,
}

# ------------------------------------------------------------------------------------ one unit


class OneUnit:
    """The cheat that is wrong by `KAPPA` sigma in one row of one product, in a random direction."""

    def __init__(self, bench: Bench, claim: Claim):
        """Compile the cheat for one claim."""
        self._bench, self._claim = bench, claim
        self._jitted = jax.jit(self._run, compiler_options=QUICK)

    def __call__(self, params: Any, inputs: Inputs, seed: int) -> Answer:
        """Answer and trace; the seed chooses iteration, row and direction."""
        rng, claim = np.random.default_rng(seed), self._claim
        trip = np.zeros(claim.trips, np.float32)
        trip[tuple(int(rng.integers(n)) for n in claim.trips)] = 1
        row = np.uint32(rng.integers(claim.form.tests))
        slope = rng.standard_normal(claim.output.shape)
        with jax.enable_x64(True):
            outputs, found = self._jitted(params, inputs, trip, row, slope)
        values = tuple(found[c.index] for c in self._bench.program.claims)
        return self._bench.program.unflatten(outputs), Trace(values=values)

    def _run(self, params: Any, inputs: Inputs, trip: Array, row: Array, slope: Array) -> Any:
        compiled = self._bench.program
        eps = compiled.tolerances[self._claim.name]

        def emit(claim: Claim, equation: Any, env: Any, here: Any) -> tuple[Array, Array]:
            out, _ = execute.honest(claim, equation, env)
            if claim.index != self._claim.index:
                return out, out
            form: Any = claim.form
            near, far = (interpret.read(env, atom) for atom in (claim.near, claim.far))
            room = room_of(form.maps, near, far, out, eps)
            chosen = jnp.arange(room.sigma.size).reshape(room.sigma.shape) == row
            shift = form.steepest(room, slope, 1.01 * KAPPA)
            shift = shift * form.maps.over_rows(chosen.astype(jnp.float64)) * here
            out = (out.astype(jnp.float64) + shift).astype(out.dtype)
            if claim.transpose is not None:
                [env[claim.transpose.outputs[0]]] = interpret.apply(claim.transpose, [out])
            return out, out

        env, given = compiled.bind(params, inputs), {self._claim.index: trip}
        block = compiled.function.block
        return execute.execute(block, compiled.analysis, env, emit=emit, given=given)


def one_unit(bench: Bench) -> list[OneUnit]:
    """The cheat in the first, middle and last product of floats."""
    products = bench.products()
    places = dict.fromkeys((0, len(products) // 2, len(products) - 1)) if products else {}
    return [OneUnit(bench, products[i]) for i in places]


# --------------------------------------------------------------------------------------- decoy


def with_decoy(subject: Subject) -> Subject:
    """The same model after a branch over a second input: a layer norm of constant rows."""
    w, draw = Weights(111), subject.draw

    def fn(p: Any, rows: Array, *inputs: Any) -> Any:
        noise = layer_norm({"scale": 1.0, "bias": 0.1}, rows, 1e-6) @ p["decoy"]
        return subject.fn(p["model"], *inputs), noise

    def drawn(rng: np.random.Generator) -> Inputs:
        rows = np.broadcast_to(rng.uniform(100, 1000, (8, 1)), (8, 256))
        return jnp.asarray(rows, jnp.float32), *draw(rng)

    params = {"decoy": w.matrix(256, 64), "model": subject.params}
    return Subject(fn=fn, params=params, draw=drawn)


def planted(bench: Bench, inputs: Inputs, cheat: Answer, seed: int) -> Answer:
    """A cheat of a program `with_decoy` whose decoy is the noise of a device that is 1 ulp off."""
    (_, noise), trace = bench.devices["ulp independent"](bench.subject.params, inputs, seed)
    (y, _), values = cheat[0], list(cheat[1].values)
    values[0] = trace.values[0]
    return (y, noise), Trace(values=tuple(values))


# ------------------------------------------------------------------------------ of consequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What honest devices answer to one job.

    Attributes:
      y: the leaves of the answer of the first device.
      moved: of each float leaf, the largest norm of a difference between devices.
      agreed: of each other leaf, where all devices agree.
    """

    y: list[Any]
    moved: list[float]
    agreed: list[Any]

    @classmethod
    def of(cls, answers: Sequence[Any]) -> Spread:
        """From the answers of honest devices."""
        leaves = [[np.asarray(x) for x in jax.tree.leaves(y)] for y in answers]
        first, others = leaves[0], leaves[1:]
        moved = [max((_norm(o[i], x) for o in others), default=0.0) for i, x in enumerate(first)]
        agreed = [np.logical_and.reduce([o[i] == x for o in others]) for i, x in enumerate(first)]
        return cls(y=first, moved=moved, agreed=agreed)

    def changed(self, y: Any) -> bool:
        """Whether a cheat changes the answer, as the module's docstring defines it."""
        for x, z, moved, agreed in zip(
            self.y, jax.tree.leaves(y), self.moved, self.agreed, strict=True
        ):
            if jnp.issubdtype(x.dtype, jnp.inexact):
                if not _norm(np.asarray(z), x) <= SPREADS * moved:
                    return True
            elif np.any((np.asarray(z) != x) & agreed):
                return True
        return False


def _norm(a: Any, b: Any) -> float:
    if not jnp.issubdtype(b.dtype, jnp.inexact):
        return 0.0
    wide = np.complex128 if np.iscomplexobj(b) else np.float64
    return float(np.linalg.norm((a.astype(wide) - b.astype(wide)).ravel()))


def spread(bench: Bench, inputs: Inputs, runs: int) -> Spread:
    """What the honest devices answer, each simulated one `runs` times."""
    params = bench.subject.params
    each = [(name, 0) for name in NAMES[:2]]
    each += [(name, i) for name in NAMES[2:] for i in range(runs)]
    return Spread.of([bench.devices[name](params, inputs, i)[0] for name, i in each])


def within_corridor(bench: Bench, inputs: Inputs, honest: Spread, y: Any) -> bool:
    """Whether the tolerance allows to move the answer as far as a cheat has moved it.

    The scalar answer of the corridor is the part of y along the cheat's own change.
    """
    pairs = list(zip(jax.tree.leaves(y), honest.y, strict=True))
    real = [jnp.issubdtype(x.dtype, jnp.floating) for _, x in pairs]
    change = [
        np.asarray(z, np.float64) - x.astype(np.float64) if floats else None
        for (z, x), floats in zip(pairs, real, strict=True)
    ]
    size = float(np.sqrt(sum(np.sum(d * d) for d in change if d is not None)))
    if not (np.isfinite(size) and size > 0):
        return False

    def along(y: Any) -> Array:
        leaves = jax.tree.leaves(y)
        parts = [
            jnp.sum(leaf.astype(jnp.float64) * (d / size))
            for leaf, d in zip(leaves, change, strict=True)
            if d is not None
        ]
        return functools.reduce(jnp.add, parts)

    try:
        corridor = bench.program.corridor(bench.subject.params, *inputs, answer=along)
    except ValueError:  # integer arithmetic without a derivative
        return False
    return size <= corridor.reach
