"""Audits of some layers of a trace, and rows of them, beside the whole trace, check and re-run.

*Cost.* `opened` is the encoded opening, leaves and multiproof, the largest over the seeds that are
tried; `of_trace` the same over the whole trace and answer. `seconds_audit` is the whole host call
`Program.audit` on the bytes that a device sent: the proof, the compiled audit, the verdict. Its
plan was made when these leaves were asked for, in `seconds_plan`, of another seed each time. The
re-run, the check and `Program.verify`, which also hashes the trace, are called in turn with it.
`seconds_open` is the device's part. `cpu_` are seconds of all cores: compute, hashing and proofs.
`of_run`, `of_check` and `of_verify` are ratios of these; `of_run_wall` is one of times.
What is compiled was compiled before, for every layer. `hashing` is the time of a commitment in the
leaves of audits over that in leaves of 64 KiB.

*Detection.* `choosing` is the probability that an audit meets one wrong unit, `bytes_per_nat` the
opening over -ln(1 - choosing): what it costs to make a cheat's chance to get away smaller by 1/e.
A device forges claims in some layers (`layer_cheats`); `rejected` is the share of its audits, each
with a seed of its own, that reject it. The interval of Clopper and Pearson at 99 % must hold the
probability that `Report.detection` states.

Models whose layers are written out run here as scans over stacked parameters: these show rows.
"""

from __future__ import annotations

import functools
import gc
import itertools
import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import parallel
from benchmarks.harness import Row, clopper_pearson, interleaved_medians
from benchmarks.layer_cheats import CHEATS, STEERING, Forging, LayerCheat
from benchmarks.progress import steps
from benchmarks.subjects import Model, smollm2
from benchmarks.timed import Run, accepted
from protocols.demo import models
from protocols.demo.models import networks
from protocols.demo.scenes.scene import TEXTS
from verifiable import program
from verifiable import trace as traces
from verifiable.encoding import tagged_hash, tensor_from_bytes
from verifiable.report import Report, Verdict
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
      rows: how many of each; None for all.
      opened: the bar of the opening's bytes, if there is one.
      of_run: the bar of the audit's time over the re-run's.
      of_trace: the bar of the opening over the whole trace.
      of_check: the bar of the audit's time over the full check's.
    """

    layers: int
    rows: int | None = None
    opened: str | None = None
    of_run: str | None = None
    of_trace: str | None = None
    of_check: str | None = None

    def plan(self, compiled: program.Program, *of: bytes) -> AuditPlan:
        """The plan of a seed that depends on `of`."""
        seed = tagged_hash("benchmark of audits", *of)
        return compiled.audit_plan(seed, layers=self.layers, rows=self.rows)

    def __str__(self) -> str:
        """How much is audited."""
        rows = "all rows" if self.rows is None else f"{self.rows} rows"
        return f"{self.layers} of its layers, {rows}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What audits are measured on.

    Attributes:
      model: makes it.
      draws: whose cost is measured.
      detected: those at which cheats are planted.
      trials: audits of each cheat.
      block: rows of a leaf; None for programs without cuts and rows.
      hashing: the bar of the leaves of audits over leaves of 64 KiB.
    """

    model: Callable[[], Model]
    draws: tuple[Draw, ...]
    detected: tuple[Draw, ...] = ()
    trials: int = 0
    block: int | None = None
    hashing: str | None = "<= 1.5"


def rows(quick: bool, only: Collection[str] = (), jobs: int = 1) -> Iterator[Row]:
    """Measure.

    Args:
      quick: a small decoder, few audits.
      only: names of `CASES`; all of them by default.
      jobs: how many cases are measured at once, each on its own share of the cores.

    Raises:
      ValueError: there is no such case.
    """
    if unknown := set(only) - CASES.keys():
        raise ValueError(f"no cases {sorted(unknown)}: there are {', '.join(CASES)}")
    chosen = only or (["small decoder"] if quick else CASES)
    if jobs > 1:
        parts = [functools.partial(_listed, name, quick) for name in chosen]
        yield from itertools.chain.from_iterable(parallel.in_order(parts, jobs))
        return
    for name in chosen:
        yield from _measure(name, quick)
        gc.collect()


def scanned_gpt() -> Model:
    """The GPT-shaped model at 2048/128/4, as a scan over its layers."""
    params, _ = models.gpt(width=2048, layers=4)
    x = np.random.default_rng(1).standard_normal((128, 2048)).astype(np.float32)
    fn = functools.partial(networks.decode_scanned, heads=2048 // 64)
    name = "width=2048 tokens=128 layers=4"
    params = networks.stacked(params, 4)
    return Model(name=name, fn=fn, params=params, inputs=(jnp.asarray(x),))


def scanned_encoder() -> Model:
    """The trained encoder on eight sentences, as a scan over its layers: its rows are sentences."""
    model, written = models.minilm(), encoder()
    return replace(
        written,
        name=f"{written.name}, scanned",
        fn=functools.partial(networks.encode_scanned, heads=model.heads),
        params=networks.stacked(model.params, model.layers),
    )


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
        committed = compiled.commit(y, jax.device_get(trace))
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


def _listed(name: str, quick: bool) -> list[Row]:
    return list(_measure(name, quick))


def _measure(name: str, quick: bool) -> Iterator[Row]:
    case = CASES[name]
    model, cuts = case.model(), case.block is not None
    compiled = program.compile(
        model.fn, model.params, *model.inputs, cuts=cuts, row_block=case.block
    )
    run = Run.of(compiled, model.params, model.inputs)
    honest = Opened.of(compiled, run, run.submission.y, run.submission.trace)
    yield Row(model.name, "layers", len(compiled.layers), "1")
    yield Row(model.name, "rows of a layer", compiled.layer_rows, "1")
    yield Row(model.name, "trace_bytes", compiled.layout.nbytes, "bytes")
    yield _hashing(model.name, honest, 5 if quick else 31, case.hashing)
    for draw in case.draws:
        yield from _cost(model, honest, draw, 5 if quick else 30)
    if case.detected:
        yield from _detection(case, model, honest, 20 if quick else case.trials)


def _hashing(name: str, honest: Opened, repeats: int, bar: str | None) -> Row:
    """What leaves of audits cost the device, over leaves of 64 KiB."""
    layout = honest.compiled.layout
    arrays = [
        tensor_from_bytes(data, tensor.shape, tensor.dtype)
        for data, tensor in zip(honest.committed.tensors, layout.tensors, strict=True)
    ]
    count = layout.claim_count
    y, trace = layout.structure.unflatten(arrays[count:]), Trace(values=tuple(arrays[:count]))
    medians = interleaved_medians(
        {
            "audits": lambda: len(honest.compiled.commit(y, trace).tree.root),
            "plain": lambda: len(traces.commit(y, trace).tree.root),
        },
        repeats,
    )
    return Row(name, "hashing", medians["audits"] / medians["plain"], "1", bar)


def _detection(case: Case, model: Model, honest: Opened, trials: int) -> Iterator[Row]:
    forging = Forging(compiled=honest.compiled, honest=honest.run.submission.trace)
    planted = {cheat: forging.added(cheat) for cheat in CHEATS}
    if case.block is not None:
        planted[STEERING] = forging.steering(model.params, model.inputs)
        yield Row(model.name, "a value row steers", bool(planted[STEERING]), "1", ">= 1")
    for cheat, added in planted.items():
        if not added:
            continue
        y, trace = forging(model.params, model.inputs, added)
        sent = Opened.of(honest.compiled, honest.run, y, trace)
        for draw in case.detected:
            yield from _detected(model.name, cheat, sent, draw, trials)


def _cost(model: Model, honest: Opened, draw: Draw, repeats: int) -> Iterator[Row]:
    """Bytes and times of audits of an honest run."""
    compiled, run = honest.compiled, honest.run
    plans = [draw.plan(compiled, bytes([n])) for n in range(SEEDS)]
    openings = [honest.committed.open(plan).encode() for plan in plans]
    # Where layers are scopes, each is compiled when it is first audited.
    reports = [accepted(honest.audit(*each)) for each in zip(plans, openings, strict=True)]
    turns = itertools.cycle(zip(plans, openings, strict=True))
    asked, seeds = itertools.cycle(plans), itertools.count()
    calls: dict[str, Callable[[], object]] = {
        "run": functools.partial(jax.jit(model.fn), model.params, *model.inputs),
        "check": functools.partial(run.check, compiled),
        "verify": functools.partial(run.verify, compiled),
        "audit": lambda: accepted(honest.audit(*next(turns))).y,
        "open": lambda: len(honest.committed.open(next(asked)).encode()),
        "plan": lambda: draw.plan(compiled, b"new", bytes(str(next(seeds)), "ascii")).nbytes,
    }
    medians = interleaved_medians(calls, repeats)
    cpu = interleaved_medians(calls, repeats, time.process_time)
    case, most = f"{model.name}, {draw}", max(map(len, openings))
    assert reports[0].detection is not None
    choosing = reports[0].detection.choosing
    yield Row(case, "opened", most, "bytes", draw.opened)
    yield Row(case, "of_trace", most / compiled.layout.nbytes, "1", draw.of_trace)
    for name in calls:
        yield Row(case, f"seconds_{name}", medians[name], "s")
        yield Row(case, f"cpu_{name}", cpu[name], "s")
    yield Row(case, "of_run", cpu["audit"] / cpu["run"], "1", draw.of_run)
    yield Row(case, "of_run_wall", medians["audit"] / medians["run"], "1")
    yield Row(case, "of_check", cpu["audit"] / cpu["check"], "1", draw.of_check)
    yield Row(case, "of_verify", cpu["audit"] / cpu["verify"], "1")
    yield Row(case, "choosing", choosing, "1")
    if choosing < 1:
        yield Row(case, "bytes_per_nat", most / -math.log(1 - choosing), "bytes")


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


CASES = {
    "SmolLM2": Case(
        model=smollm2,
        block=8,
        draws=(
            Draw(layers=1, opened="<= 3.8e6", of_run="<= 0.025"),
            Draw(layers=1, rows=8, opened="<= 0.85e6", of_run="<= 0.016667"),
            Draw(layers=30, rows=8, opened="<= 12e6", of_run="<= 0.083333"),
        ),
    ),
    "SmolLM2 detection": Case(
        model=smollm2,
        block=8,
        draws=(),
        detected=(Draw(layers=3), Draw(layers=1, rows=64), Draw(layers=30, rows=24)),
        trials=100,
    ),
    "gpt": Case(model=scanned_gpt, block=8, draws=(Draw(layers=1, rows=8, of_run="<= 0.0125"),)),
    "MiniLM": Case(
        model=scanned_encoder,
        block=1,
        draws=(Draw(layers=1, rows=1, of_trace="<= 0.05", of_check="<= 0.25"),),
    ),
    "MiniLM written out": Case(
        model=encoder,
        draws=(Draw(layers=1), Draw(layers=2)),
        detected=(Draw(layers=1), Draw(layers=2)),
        trials=300,
    ),
    "small decoder": Case(
        model=small_decoder,
        block=4,
        hashing=None,  # its leaves have a few hundred bytes
        draws=(Draw(layers=1), Draw(layers=1, rows=8), Draw(layers=3, rows=8)),
        detected=(
            Draw(layers=1),
            Draw(layers=2),
            Draw(layers=1, rows=8),
            Draw(layers=3, rows=8),
        ),
        trials=300,
    ),
}
"""Cases by name, for `--only`."""
