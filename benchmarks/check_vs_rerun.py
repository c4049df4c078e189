"""The check against the plain jitted forward pass, both warm, called in turn.

`seconds_run` is `jax.jit(fn)(params, x)`: no trace, no commitment. `seconds_check` is the whole
host call `Program.check`: validation of what the device sent, the compiled check, the verdict.
`ratio_with_commitment` is the run over `Program.verify`, which also hashes the trace: what a
coordinator pays. `commitment_cost` is what `verify` takes beyond `check`, called in turn, over
BLAKE3 alone of the same bytes on all cores (`seconds_hash`). The verifier key is made beforehand;
16 draws unless the case says otherwise; the strategy is what `Program.tune` prefers, or another
within a tenth of it whose temporaries stay within their bar. `temporaries` is what XLA allocates
for temporaries of the compiled check, of both its parts together, as a fraction of its arguments
(trace, key and inputs). The exponents are fitted to one layer at 128 tokens, from a width of 512 to
one of 4096: least squares of log seconds over log width.

`ablation` measures the same check without one of its parts, in rounds of its own, so that it cannot
slow the other measures by what it leaves in the caches. `precisions` measures the trained encoder
in narrow types.

Widths of several hundred save least. At 768 and 256 tokens, most of the check is work that it
cannot avoid: attention, which is replayed because its check would cost as much in heads of 64; rho
in double precision, which costs twice as much an operation as the run does; conversion to double
precision and norms; GELU and softmax. The faster a CPU multiplies, the less of a run is anything
but products, and the lower all ratios are. MiniLM at width 384 saves next to nothing: its
contractions are hardly larger than 16 draws of their checks, and half of the rest is attention.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from dataclasses import replace

import jax
import numpy as np

from benchmarks import ablation, precisions
from benchmarks.harness import Row, interleaved_medians
from benchmarks.subjects import Model, gpt, minilm, smollm2
from benchmarks.timed import Run, nbytes
from verifiable import policy, program

CLAIM = (
    "Checking an inference with 16 draws takes a small part of the time of running it again, "
    "and the smaller the wider the model (on CPUs)."
)

MOST = 0.25  # of temporaries, as a fraction of the arguments
COMMITMENT = 1.15  # times hashing alone
KEY = 0.01  # of the bytes of the parameters, from a width of WIDE on
WIDE = 2048
DRAWS = 16
FEWER_DRAWS = (4, 8)
WIDTHS = (512, 1024, 2048, 4096)
# width, tokens, layers, least ratio, whether with ablation
CASES = (
    (768, 256, 4, 6, True),
    (2048, 512, 2, 5, True),
    (2048, 128, 4, 12, True),
    (4096, 128, 1, 20, False),
)
QUICK = ((256, 128, 2, None, True), (768, 128, 1, None, False))


def rows(quick: bool) -> Iterator[Row]:
    """Measure the GPT-shaped cases, then the trained models."""
    repeats = 5 if quick else 30
    ratios: dict[str, float] = {}
    for width, tokens, layers, least, without in QUICK if quick else CASES:
        model = gpt(width, tokens, layers)
        key_bar = None if quick or width < WIDE else f"<= {KEY}"
        model = replace(model, least=least, ablation=without, key_bar=key_bar)
        for row in with_fewer_draws(model, repeats):
            if row.measure == "ratio":
                ratios[row.case] = row.value
            yield row
        del model
        gc.collect()
    if not quick:
        wide, narrow = (
            f"width={width} tokens=128 layers={n}" for width, n in ((4096, 1), (2048, 4))
        )
        growth = ratios[wide] / ratios[narrow]
        yield Row("width=4096 over width=2048", "ratio_growth", growth, "1", "> 1")
    yield from exponents(WIDTHS[:2] if quick else WIDTHS, repeats)
    if not quick:
        yield from measure(smollm2(), repeats)
        gc.collect()
    yield from measure(minilm(), repeats)
    yield from precisions.rows(quick, repeats)


def with_fewer_draws(model: Model, repeats: int) -> Iterator[Row]:
    """A model with 16 draws and with fewer."""
    yield from measure(model, repeats)
    for draws in FEWER_DRAWS:
        other = replace(model, name=f"{model.name} draws={draws}", least=None, ablation=False)
        for row in measure(other, repeats, draws=draws):
            if row.measure in ("seconds_check", "ratio"):
                yield row


def exponents(widths: tuple[int, ...], repeats: int) -> Iterator[Row]:
    """How the times grow with the width: one layer, 128 tokens."""
    seconds: dict[str, list[float]] = {"seconds_run": [], "seconds_check": []}
    for width in widths:
        for row in measure(gpt(width, 128, 1), repeats):
            if row.measure in seconds:
                seconds[row.measure].append(row.value)
        gc.collect()
    case = f"width={widths[0]} to {widths[-1]}, tokens=128 layers=1"
    for name, values in seconds.items():
        exponent = np.polyfit(np.log(widths), np.log(values), 1)[0]
        yield Row(case, name.replace("seconds", "exponent"), float(exponent), "1")


def measure(model: Model, repeats: int, draws: int = DRAWS) -> Iterator[Row]:
    """Measure one model."""
    chosen = replace(policy.DEFAULT, draws=draws)
    compiled = program.compile(model.fn, model.params, *model.inputs, policy=chosen)
    run = Run.of(compiled, model.params, model.inputs)
    compiled = choose(compiled, run)
    rerun = functools.partial(jax.jit(model.fn), model.params, *model.inputs)
    check = functools.partial(run.check, compiled)
    checked = interleaved_medians({"run": rerun, "check": check}, repeats)
    verify = functools.partial(run.verify, compiled)
    calls = {"run": rerun, "check": check, "verify": verify, "hash": run.hash}
    verified = interleaved_medians(calls, repeats)
    beyond = verified["verify"] - verified["check"]
    bars = (None, None) if model.least is None else (f">= {model.least}", f"<= {MOST}")
    share, temporary = run.temporaries(compiled)
    yield Row(model.name, "seconds_run", checked["run"], "s")
    yield Row(model.name, "seconds_check", checked["check"], "s")
    yield Row(model.name, "ratio", checked["run"] / checked["check"], "1", bars[0])
    yield Row(model.name, "ratio_with_commitment", verified["run"] / verified["verify"], "1")
    yield Row(model.name, "seconds_hash", verified["hash"], "s")
    cost_bar = None if model.least is None else f"<= {COMMITMENT}"
    yield Row(model.name, "commitment_cost", beyond / verified["hash"], "1", cost_bar)
    yield Row(model.name, "temporaries", share, "1", bars[1])
    yield Row(model.name, "temporary_bytes", temporary, "bytes")
    yield Row(model.name, "key_bytes", run.key.nbytes, "bytes")
    yield Row(model.name, "trace_bytes", nbytes(run.submission.trace.values), "bytes")
    yield Row(model.name, "params_bytes", nbytes(model.params), "bytes")
    yield Row(model.name, "key_share", run.key.nbytes / nbytes(model.params), "1", model.key_bar)
    if model.ablation:
        yield from ablation.rows(model, compiled, run, repeats)


def choose(compiled: program.Program, run: Run) -> program.Program:
    """The program with a strategy that is fast and needs little memory.

    It is the one that `tune` prefers, or the next whose temporaries are within the bar, unless that
    costs a tenth of the speed.
    """
    s = run.submission
    tuned, seconds = compiled.tune(run.key, *run.inputs, y=s.y, trace=s.trace)
    first = tuned.strategy
    order = sorted(seconds, key=lambda s: (s != first, seconds[s]))
    near = [replace(tuned, strategy=s) for s in order if seconds[s] <= 1.1 * seconds[first]]
    return next((p for p in near if run.temporaries(p)[0] <= MOST), tuned)
