"""A program on the bench, and the cheats that the benchmarks add to `verifiable.testing`.

A cheat is a function from a job to an answer and a trace:

    int8 weights, int4 weights    matrices rounded, with a scale a column or a group of 16 inputs
    another model                 parameters drawn anew, with the same means and deviations
    skipped layers                the last layer's parameters set to zero
    one unit, near-ties, ...      one claim is forged, and the rest follows it (`forging`)
    decoy, then ...               a claim of pure noise comes first: it hides no later cheat
    steering the last claim       two columns of a row are shifted until the other one is chosen

`verifiable.testing.consequence` says whether one changes the answer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.zoo.layers import layer_norm
from benchmarks.zoo.subject import Inputs, Subject, Weights
from verifiable import program
from verifiable import trace as traces
from verifiable.challenge import secret
from verifiable.check.compiled import CheckArguments
from verifiable.check.judging.evidence import evidence_of, verify_evidence
from verifiable.key import VerifierKey
from verifiable.report import Report, Verdict
from verifiable.submission import Submission
from verifiable.testing.consequence import Spread
from verifiable.testing.devices import NAMES, Answer, devices
from verifiable.trace import Trace


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


def spread(bench: Bench, inputs: Inputs, runs: int) -> Spread:
    """What the honest devices answer, each simulated one `runs` times."""
    params = bench.subject.params
    each = [(name, 0) for name in NAMES[:2]]
    each += [(name, i) for name in NAMES[2:] for i in range(runs)]
    return Spread.of([bench.devices[name](params, inputs, i)[0] for name, i in each])
