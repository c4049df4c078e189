"""Cheats that work on any program, and whether one changes the answer.

A cheat is a function from a job to an answer and a trace:

    int8 weights, int4 weights    matrices rounded, with a scale a column or a group of 16 inputs
    another model                 parameters drawn anew, with the same means and deviations
    skipped layers                the last layer's parameters set to zero
    one unit, near-ties, ...      one claim is forged, and the rest follows it (`forged`)
    decoy, then ...               a claim of pure noise comes first: it hides no later cheat
    steering the last claim       two columns of a row are shifted until the other one is chosen

A cheat *changes the answer* if a choice (a class, a token) differs on which all honest devices
agree, or if a float output moves by more than four times what it moves between honest devices. It
is *within the corridor* if `Program.corridor` says that the tolerance allows such a move.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.devices import NAMES, Answer, devices
from benchmarks.zoo.layers import layer_norm
from benchmarks.zoo.subject import Inputs, Subject, Weights
from verifiable import program
from verifiable import trace as traces
from verifiable.challenge import secret
from verifiable.check.compiled import CheckArguments
from verifiable.check.evidence import evidence_of, verify_evidence
from verifiable.claims.claim import Claim
from verifiable.claims.product import Product
from verifiable.key import VerifierKey
from verifiable.report import Report, Verdict
from verifiable.submission import Submission
from verifiable.trace import Trace

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

    def convictions(self, inputs: Inputs, answer: Answer, report: Report) -> Iterator[bool]:
        """Whether evidence convicts, one by one of the claims and outputs not accepted."""
        y, trace = answer
        sent = Submission(
            y=y,
            trace=trace,
            commitment=traces.commit(y, trace).commitment,
            program=self.program.id,
            parameters=self.key.header.parameters,
        )
        for result in report.results:
            if result.verdict is not Verdict.ACCEPT:
                # Anyone may accuse any row, so accuse what was indeterminate too.
                accusing = replace(report, verdict=Verdict.REJECT, claim=result.name)
                evidence = evidence_of(self.program, accusing, sent)
                judged = verify_evidence(evidence, self.program, self.subject.params, *inputs)
                yield judged.guilty

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
    """Set the parameters of the last layer to zero; of all layers, if they are stacked.

    Layers are under the key "layers", or are the members of the first group with numbers as names.
    Where there are none, the parameters are returned as they are.
    """
    if not isinstance(params, dict):
        return params
    if "layers" in params:
        repeated = params["layers"]
        last = repeated[-1] if isinstance(repeated, list) else repeated
        nothing = jax.tree.map(jnp.zeros_like, last)
        kept = [*repeated[:-1], nothing] if isinstance(repeated, list) else nothing
        return {**params, "layers": kept}
    numbers = sorted((name for name in params if name.isdigit()), key=int)
    if numbers:
        return {**params, numbers[-1]: jax.tree.map(jnp.zeros_like, params[numbers[-1]])}
    for name, inner in params.items():
        other = skipped_layers(inner)
        if other is not inner:
            return {**params, name: other}
    return params


PARAMETERS: dict[str, Callable[[Any], Any]] = {
    "int8 weights": int8,
    "int4 weights": int4,
    "another model": another_model,
    "skipped layers": skipped_layers,
}

# ------------------------------------------------------------------------ steering the last claim


def steered(
    compiled: program.Program,
    key: VerifierKey,
    inputs: Inputs,
    sent: Submission,
    most: float = np.inf,
) -> tuple[Any, list[Any], Any]:
    """The cheat that changes choices by shifting the claim before them as little as it takes.

    It knows everything but the random vectors. The answer must be what is chosen, by `argmax`.

    Args:
      compiled: the program, of one choice outside of scans.
      key: which gives the norms of weights; a device computes them from the weights.
      inputs: of the run.
      sent: an honest run.
      most: only rows that need at most this many sigma are changed.

    Returns:
      The answer, the claimed values, and the rows that were changed.
    """
    ties = compiled.compiled_check.near_ties
    [choice] = ties.choices
    arguments = CheckArguments.of(key, inputs, sent.y, sent.trace)
    found = ties.closest(choice, arguments)
    values = [np.array(x) for x in sent.trace.values]
    y, logits = np.array(sent.y), values[choice.claim]
    form: Any = compiled.claims[choice.claim].form.contraction
    rows = np.flatnonzero(found.kappa <= most)
    for i in rows:
        a, b = int(found.chosen[i]), int(found.other[i])
        gap = float(logits[i, a]) - float(logits[i, b])
        rooms = found.rooms[i].astype(np.float64)
        if a // form.width == b // form.width:
            rooms = rooms**2  # the direction in which one block reaches furthest
        down, up = gap * rooms / rooms.sum()
        logits[i, a], lowest = logits[i, a] - down, logits[i, b] + up
        above = np.nextafter(logits[i, a], np.asarray(np.inf, logits.dtype))
        logits[i, b] = max(lowest, above)
        y[i] = b
    return y, values, rows


# --------------------------------------------------------------------------------------- decoy


def with_decoy(subject: Subject) -> Subject:
    """The same model after a branch over a second input: a layer norm of rows.

    Of constant rows, as it draws them, the branch is noise; of others, it is nothing special.
    """

    def fn(p: Any, rows: Array, *inputs: Any) -> Any:
        noise = _decoy(p["decoy"], rows)
        return subject.fn(p["model"], *inputs), noise

    def drawn(rng: np.random.Generator) -> Inputs:
        rows = np.broadcast_to(rng.uniform(100, 1000, (8, 1)), (8, 256))
        return jnp.asarray(rows, jnp.float32), *subject.draw(rng)

    return Subject(fn=fn, params=covered(subject.params), draw=drawn)


def covered(params: Any) -> Any:
    """Parameters of a program `with_decoy`, given those of the model."""
    return {"decoy": Weights(111).matrix(256, 64), "model": params}


def harmless(rng: np.random.Generator) -> Array:
    """Rows whose layer norm is no noise, (8, 256)."""
    return jnp.asarray(rng.standard_normal((8, 256)), jnp.float32)


def planted(inputs: Inputs, cheat: Answer, seed: int) -> Answer:
    """A cheat of a program `with_decoy` whose decoy is the noise of a device that is 1 ulp off."""
    alone = _decoy_alone()
    noise, trace = alone.devices["ulp independent"](alone.subject.params, inputs[:1], seed)
    (y, _), values = cheat[0], list(cheat[1].values)
    values[0] = trace.values[0]
    return (y, noise), Trace(values=tuple(values))


@functools.cache
def _decoy_alone() -> Bench:
    """The branch by itself, so that its devices are compiled once for all programs."""
    params = covered(())["decoy"]
    return Bench.of(Subject(fn=_decoy, params=params, draw=lambda rng: (harmless(rng),)))


def _decoy(kernel: Array, rows: Array) -> Array:
    return layer_norm({"scale": 1.0, "bias": 0.1}, rows, 1e-6) @ kernel


# ------------------------------------------------------------------------------ of consequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What honest devices answer to one job.

    Attributes:
      answers: of each leaf, the answers of all devices, stacked.
      y: the leaves of the answer; each element of the first device on which it is finite.
      moved: of each leaf, the largest norm of a difference between y and a device, over elements
        that are finite on it.
      agreed: of each leaf, where all devices agree.
    """

    answers: list[Any]
    y: list[Any]
    moved: list[float]
    agreed: list[Any]

    @classmethod
    def of(cls, answers: Sequence[Any]) -> Spread:
        """From the answers of honest devices."""
        leaves = zip(*([np.asarray(x) for x in jax.tree.leaves(y)] for y in answers), strict=True)
        stacked = [np.stack(each) for each in leaves]
        y: list[Any] = []
        for each in stacked:
            first = np.argmax(np.isfinite(each), axis=0)[None]
            y.append(np.take_along_axis(each, first, axis=0)[0])
        moved = [
            max(np.linalg.norm(_apart(z, x, each).ravel()) for z in each)
            for x, each in zip(y, stacked, strict=True)
        ]
        agreed = [np.all(each == each[0], axis=0) for each in stacked]
        return cls(answers=stacked, y=y, moved=[float(d) for d in moved], agreed=agreed)

    def apart(self, y: Any) -> list[Any]:
        """How far each leaf of an answer is from the honest one, by element; see `_apart`."""
        parts = zip(jax.tree.leaves(y), self.y, self.answers, strict=True)
        return [_apart(np.asarray(z), x, each) for z, x, each in parts]

    def changed(self, y: Any) -> bool:
        """Whether a cheat changes the answer, as the module's docstring defines it."""
        return self.chosen(y) or self.numbers(y)

    def chosen(self, y: Any) -> bool:
        """Whether a choice differs on which all honest devices agree."""
        leaves = zip(self.y, self.apart(y), self.agreed, strict=True)
        choices = (
            np.any((apart != 0) & agreed)
            for x, apart, agreed in leaves
            if not jnp.issubdtype(x.dtype, jnp.inexact)
        )
        return any(map(bool, choices))

    def numbers(self, y: Any) -> bool:
        """Whether floats move by more than four times what they move between honest devices."""
        leaves = zip(self.y, self.apart(y), self.moved, strict=True)
        return any(
            not np.linalg.norm(apart.ravel()) <= SPREADS * moved
            for x, apart, moved in leaves
            if jnp.issubdtype(x.dtype, jnp.inexact)
        )


def _apart(z: Any, x: Any, answers: Any) -> Any:
    """Differences of z and x, float64 or complex128.

    Where one of them is not finite: zero if some honest device answers the same, else infinite.
    """
    wide = np.complex128 if np.iscomplexobj(x) else np.float64
    z, x, answers = z.astype(wide), x.astype(wide), answers.astype(wide)
    same = np.any((answers == z) | (np.isnan(answers) & np.isnan(z)), axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(z) & np.isfinite(x), z - x, np.where(same, 0, np.inf))


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
    change = [
        apart if jnp.issubdtype(x.dtype, jnp.floating) else None
        for x, apart in zip(honest.y, honest.apart(y), strict=True)
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
