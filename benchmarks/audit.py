"""Audits of some layers of a trace, beside the whole trace, the full check and the re-run.

*Cost.* `opened` is the encoded opening, leaves and multiproof, the largest over the seeds that are
tried; `of_trace` the same over the whole trace and answer. `seconds_audit` is the whole host call
`Program.audit` on the bytes that a device sent: its own plan, the proof, the compiled audit, the
verdict. The re-run, the check and `Program.verify`, which also hashes the trace, are called in turn
with it; `of_run` and `of_check` are ratios of these times. `seconds_open` is the device's part.
What is compiled was compiled before, for every layer.

*Detection.* `choosing` is the probability that an audit meets one wrong unit, `bytes_per_nat` the
opening over -ln(1 - choosing): what it costs to make a cheat's chance to get away smaller by 1/e.
A device forges claims in some layers and goes on with them, so that everything else is as it has to
be; `rejected` is the share of its audits, each with a seed of its own, that reject it. The interval
of Clopper and Pearson at 99 % must hold the probability that `Report.detection` states.
"""

from __future__ import annotations

import functools
import gc
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Row, clopper_pearson, interleaved_medians
from benchmarks.progress import steps
from benchmarks.subjects import Model, smollm2
from benchmarks.timed import Run, accepted
from protocols.demo import models
from protocols.demo.models import networks
from protocols.demo.scenes.scene import TEXTS
from verifiable import program
from verifiable import trace as traces
from verifiable.check import execute
from verifiable.claims.claim import Claim
from verifiable.claims.product import Product
from verifiable.encoding import tagged_hash
from verifiable.jaxpr import interpret
from verifiable.jaxpr.effects import CUT
from verifiable.report import Detection, Report, Verdict
from verifiable.trace import AuditPlan, Committed, Trace

CLAIM = (
    "An audit of one layer of SmolLM2 opens at most 3.8 MB and costs at most a fortieth of the "
    "re-run, and it meets cheats as often as it says."
)

SEEDS = 4  # tried when bytes and times are measured
LEVEL = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How much an audit looks at, and what that may cost.

    Attributes:
      layers: how many are audited.
      opened: the bar of the opening's bytes, if there is one.
      of_run: the bar of the audit's time over the re-run's.
      of_trace: the bar of the opening over the whole trace.
      of_check: the bar of the audit's time over the full check's.
    """

    layers: int
    opened: str | None = None
    of_run: str | None = None
    of_trace: str | None = None
    of_check: str | None = None

    def plan(self, compiled: program.Program, *of: bytes) -> AuditPlan:
        """The plan of a seed that depends on `of`."""
        seed = tagged_hash("benchmark of audits", *of)
        return compiled.audit_plan(seed, layers=self.layers)

    def __str__(self) -> str:
        """How much is audited."""
        return f"{self.layers} of its layers"


def rows(quick: bool) -> Iterator[Row]:
    """Measure an encoder whose layers are scopes, and a decoder whose layers are a scan."""
    plain = [Draw(layers=1), Draw(layers=2)]
    if quick:
        yield from _measure(small_decoder(), plain, quick, cuts=True)
        return
    yield from _measure(encoder(), plain, quick, cuts=False)
    gc.collect()
    bars = Draw(layers=1, opened="<= 3.8e6", of_run="<= 0.025")
    yield from _measure(smollm2(), [bars, Draw(layers=2)], quick, cuts=True)


def encoder() -> Model:
    """The trained encoder, 6 layers at width 384, on the demo's sentences."""
    model = models.minilm()
    inputs = tuple(jnp.asarray(x) for x in model.tokenize(list(TEXTS)))
    name = f"{model.name} sentences={len(TEXTS)}"
    return Model(name=name, fn=model.encode, params=model.params, inputs=inputs)


def small_decoder(
    *, width: int = 128, layers: int = 3, tokens: int = 32, vocabulary: int = 96
) -> Model:
    """Llama's decoder with random weights: a scan over its layers."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape) / math.sqrt(shape[-2]), jnp.float32)

    half, wide = width // 2, 3 * width
    sizes = {
        "attention": {"query": (width, width), "key": (width, half), "value": (width, half)}
        | {"output": (width, width)},
        "mlp": {"gate": (width, wide), "up": (width, wide), "down": (wide, width)},
    }
    stacked = {
        block: {name: weights(layers, *shape) for name, shape in of.items()}
        | {"norm": jnp.ones((layers, width))}
        for block, of in sizes.items()
    }
    params = {
        "embedding": weights(vocabulary, width),
        "layers": stacked,
        "norm": jnp.ones(width),
    }
    fn = functools.partial(networks.llama, heads=4, groups=2, base=1e4)
    ids = jnp.asarray(rng.integers(0, vocabulary, tokens), jnp.int32)
    return Model(name=f"decoder width={width}", fn=fn, params=params, inputs=(ids,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A committed run, honest or not, as audits see it."""

    compiled: program.Program
    run: Run
    committed: Committed

    @classmethod
    def of(cls, compiled: program.Program, run: Run, y: Any, trace: Trace) -> Opened:
        """Commit to a run."""
        committed = traces.commit(y, jax.device_get(trace))
        return cls(compiled=compiled, run=run, committed=committed)

    def audit(self, plan: AuditPlan, opening: bytes) -> Report:
        """The report on an opening."""
        return self.compiled.audit(
            self.run.key,
            *self.run.inputs,
            plan=plan,
            commitment=self.committed.commitment,
            opening=opening,
        )


def _measure(model: Model, draws: list[Draw], quick: bool, *, cuts: bool) -> Iterator[Row]:
    compiled = program.compile(model.fn, model.params, *model.inputs, cuts=cuts)
    run = Run.of(compiled, model.params, model.inputs)
    honest = Opened.of(compiled, run, run.submission.y, run.submission.trace)
    yield Row(model.name, "layers", len(compiled.layers), "1")
    yield Row(model.name, "trace_bytes", compiled.layout.nbytes, "bytes")
    for draw in draws:
        yield from _cost(model, honest, draw, 5 if quick else 30)
    forging = Forging(compiled=compiled)
    for cheat in CHEATS:
        wrong = forging.places(cheat)
        if wrong:
            sent = Opened.of(compiled, run, *forging(model.params, model.inputs, wrong))
            for draw in draws:
                yield from _detected(model.name, cheat, sent, draw, 20 if quick else 300)


def _cost(model: Model, honest: Opened, draw: Draw, repeats: int) -> Iterator[Row]:
    """Bytes and times of audits of an honest run."""
    compiled, run = honest.compiled, honest.run
    plans = [draw.plan(compiled, bytes([n])) for n in range(SEEDS)]
    openings = [honest.committed.open(plan).encode() for plan in plans]
    # Where layers are scopes, each is compiled when it is first audited.
    reports = [accepted(honest.audit(*each)) for each in zip(plans, openings, strict=True)]
    turns = itertools.cycle(zip(plans, openings, strict=True))
    asked = itertools.cycle(plans)
    medians = interleaved_medians(
        {
            "run": functools.partial(jax.jit(model.fn), model.params, *model.inputs),
            "check": functools.partial(run.check, compiled),
            "verify": functools.partial(run.verify, compiled),
            "audit": lambda: accepted(honest.audit(*next(turns))).y,
            "open": lambda: len(honest.committed.open(next(asked)).encode()),
        },
        repeats,
    )
    case, most = f"{model.name}, {draw}", max(map(len, openings))
    assert reports[0].detection is not None
    choosing = reports[0].detection.choosing
    yield Row(case, "opened", most, "bytes", draw.opened)
    yield Row(case, "of_trace", most / compiled.layout.nbytes, "1", draw.of_trace)
    for name in ("run", "check", "verify", "audit", "open"):
        yield Row(case, f"seconds_{name}", medians[name], "s")
    yield Row(case, "of_run", medians["audit"] / medians["run"], "1", draw.of_run)
    yield Row(case, "of_check", medians["audit"] / medians["check"], "1", draw.of_check)
    yield Row(case, "of_verify", medians["audit"] / medians["verify"], "1")
    yield Row(case, "choosing", choosing, "1")
    if choosing < 1:
        yield Row(case, "bytes_per_nat", most / -math.log(1 - choosing), "bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCheat:
    """What a device forges.

    Attributes:
      name: of the cheat.
      layers: the layers that it is wrong in, of how many there are.
      unit: the place among the products of the layer, in order; None for what it passes on.
      met: the probability that an audit meets it.
    """

    name: str
    layers: Callable[[int], range]
    unit: int | None
    met: Callable[[Detection], float]


VALUE = 2  # after query and key
CHEATS = (
    LayerCheat(
        name="one unit",
        layers=lambda n: range(n // 2, n // 2 + 1),
        unit=-1,
        met=lambda found: found.choosing,
    ),
    LayerCheat(
        name="a token's values in one layer",
        layers=lambda n: range(n // 3, n // 3 + 1),
        unit=VALUE,
        met=lambda found: found.choosing,
    ),
    LayerCheat(
        name="a token's values in all layers",
        layers=range,
        unit=VALUE,
        met=lambda found: found.lazy(1.0),
    ),
    LayerCheat(
        name="one unit in half of the layers",
        layers=lambda n: range(n // 2),
        unit=-1,
        met=lambda found: found.lazy(0.5),
    ),
    LayerCheat(
        name="a cut",
        layers=lambda n: range(n // 2, n // 2 + 1),
        unit=None,
        met=lambda found: found.choosing,
    ),
)

Place = tuple[Claim, int | None]  # a claim, and its iteration if it has several


class Forging:
    """A device that is wrong in one row of some claims, and goes on with what it claims."""

    def __init__(self, *, compiled: program.Program):
        """Compile the device; it is told where to be wrong when it runs."""
        self._compiled = compiled
        self._run = jax.jit(self._executed)

    def places(self, cheat: LayerCheat) -> list[Place]:
        """Where a cheat is wrong; empty if there are no such claims."""
        names = self._compiled.layers
        units = [self._units(n, name, cheat.unit) for n, name in enumerate(names)]
        chosen = [units[n] for n in cheat.layers(len(names))]
        unit = 0 if cheat.unit is None else cheat.unit
        return [found[unit] for found in chosen if found]

    def _units(self, number: int, name: str, unit: int | None) -> list[Place]:
        """The products of a layer, or its cut."""
        kind: list[Claim] = [
            c
            for c in self._compiled.claims
            if (c.primitive == CUT if unit is None else isinstance(c.form, Product))
        ]
        if any(c.trips for c in self._compiled.claims):
            return [(c, number) for c in kind if c.trips]
        return [(c, None) for c in kind if c.name.startswith(f"{name}/")]

    def __call__(self, params: Any, inputs: Any, wrong: list[Place]) -> tuple[Any, Trace]:
        """Answer and trace."""
        given: dict[int, Any] = {
            c.index: np.zeros(c.trips, np.float32)
            for c in self._compiled.claims
            if c.primitive == CUT or isinstance(c.form, Product)
        }
        for claim, trip in wrong:
            given[claim.index][() if trip is None else trip] = 1
        outputs, found = self._run(params, inputs, given)
        values = tuple(found[c.index] for c in self._compiled.claims)
        return self._compiled.unflatten(outputs), Trace(values=values)

    def _executed(self, params: Any, inputs: Any, given: Any) -> Any:
        env, block = self._compiled.bind(params, inputs), self._compiled.function.block
        return execute.execute(block, self._compiled.analysis, env, emit=_moved, given=given)


def _moved(claim: Claim, equation: Any, env: Any, here: Any) -> tuple[list[Any], Any]:
    """The outputs of a claim, of which the first row is off by more than all rounding, or not."""
    outputs, committed = execute.honest(claim, equation, env)
    if here is None:
        return outputs, committed
    out, first = outputs[0], (0,) * (outputs[0].ndim - 1)
    out = out.at[first].add((here * (1 + jnp.max(jnp.abs(out)))).astype(out.dtype))
    if claim.transpose is not None:
        [env[claim.transpose.outputs[0]]] = interpret.apply(claim.transpose, [out])
    return [out, *outputs[1:]], out


def _detected(
    model: str, cheat: LayerCheat, sent: Opened, draw: Draw, trials: int
) -> Iterator[Row]:
    """How often an audit rejects what a device forged."""
    case, rejected = f"{model}, {cheat.name}, {draw}", 0
    stated: set[float] = set()
    for n in steps(trials, case):
        plan = draw.plan(sent.compiled, cheat.name.encode(), n.to_bytes(4, "little"))
        report = sent.audit(plan, sent.committed.open(plan).encode())
        assert report.verdict is not Verdict.INDETERMINATE, report
        assert report.detection is not None
        stated.add(cheat.met(report.detection))
        rejected += report.verdict is Verdict.REJECT
    [met] = stated
    low, high = clopper_pearson(rejected, trials, LEVEL)
    yield Row(case, "stated", met, "1")
    yield Row(case, "rejected", rejected / trials, "1")
    yield Row(case, "interval_low", low, "1", f"<= {met:.6g}")
    yield Row(case, "interval_high", high, "1", f">= {met:.6g}")
