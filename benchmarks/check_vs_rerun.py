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

The ablation measures the same check without one of its parts, in rounds of its own, so that it
cannot slow the other measures by what it leaves in the caches: `tiles=rows` has tiles of rows but
none of columns (heads of attention), `tiles=none` has no tiles, `parts=1` is one program instead of
two, and `as it is` lacks nothing.

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from blake3 import blake3

from benchmarks.harness import Row, interleaved_medians
from protocols.demo import models
from verifiable import challenge, policy, program
from verifiable.check.compiled import CheckArguments
from verifiable.check.schedule import Strategy
from verifiable.key import VerifierKey
from verifiable.report import Report, Verdict
from verifiable.submission import Submission

CLAIM = (
    "Checking an inference with 16 draws takes a small part of the time of running it again, "
    "and the smaller the wider the model (on CPUs; GPUs are untested)."
)

MOST = 0.25  # of temporaries, as a fraction of the arguments
COMMITMENT = 1.15  # times hashing alone
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model and its inputs.

    Attributes:
      name: of the case.
      fn: `fn(params, *inputs)`.
      params: its parameters.
      inputs: its inputs.
      least: the bar of the ratio; None for no bars.
      ablation: whether to measure the check without its parts too.
    """

    name: str
    fn: Callable[..., Any]
    params: Any
    inputs: tuple[Any, ...]
    least: float | None = None
    ablation: bool = False


def rows(quick: bool) -> Iterator[Row]:
    """Measure the GPT-shaped cases, then the trained models."""
    repeats = 5 if quick else 30
    ratios: dict[str, float] = {}
    for width, tokens, layers, least, ablation in QUICK if quick else CASES:
        model = gpt(width, tokens, layers)
        model = replace(model, least=least, ablation=ablation)
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


def gpt(width: int, tokens: int, layers: int) -> Model:
    """One size of the GPT-shaped model."""
    params, forward = models.gpt(width=width, layers=layers)
    x = np.random.default_rng(1).standard_normal((tokens, width)).astype(np.float32)
    name = f"width={width} tokens={tokens} layers={layers}"
    return Model(name=name, fn=forward, params=params, inputs=(jnp.asarray(x),))


def smollm2() -> Model:
    """The trained language model."""
    model = models.smollm2()
    ids = jnp.asarray(np.resize(model.tokenize(TEXT), 128))
    name = f"{model.name} tokens=128"
    return Model(
        name=name, fn=model.logits, params=model.params, inputs=(ids,), least=4, ablation=True
    )


def minilm() -> Model:
    """The trained encoder."""
    model = models.minilm()
    ids, mask = (jnp.asarray(a[:, :128]) for a in model.tokenize([TEXT]))
    name = f"{model.name} tokens={ids.shape[1]}"
    return Model(name=name, fn=model.encode, params=model.params, inputs=(ids, mask))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An honest run and the key that it is checked with."""

    key: VerifierKey
    inputs: tuple[Any, ...]
    submission: Submission

    def check(self, compiled: program.Program) -> Any:
        """`Program.check`."""
        s = self.submission
        return _accepted(compiled.check(self.key, *self.inputs, y=s.y, trace=s.trace))

    def verify(self, compiled: program.Program) -> Any:
        """`Program.verify`: the same after the hash of the trace."""
        s = self.submission
        return _accepted(compiled.verify(self.key, *self.inputs, s, commitment=s.commitment))

    def hash(self) -> list[bytes]:
        """BLAKE3 of what `verify` hashes, on all cores."""
        arrays = jax.tree.leaves((self.submission.y, self.submission.trace.values))
        return [
            blake3(np.ravel(a).view(np.uint8).data, max_threads=blake3.AUTO).digest()
            for a in arrays
        ]

    def temporaries(self, compiled: program.Program) -> tuple[float, int]:
        """Temporaries of a compiled check: as a fraction of its arguments, and in bytes."""
        arguments = CheckArguments.of(
            self.key, self.inputs, self.submission.y, self.submission.trace
        )
        # The functions that `check` calls, at the same time and on the same arguments.
        parts: Any = compiled.compiled_check.parts
        with jax.enable_x64(True):
            memory = [part.lower(arguments).compile().memory_analysis() for part in parts]
        nbytes = sum(m.temp_size_in_bytes for m in memory)
        return nbytes / sum(x.nbytes for x in jax.tree.leaves(arguments)), nbytes


def _accepted(report: Report) -> Any:
    assert report.verdict is Verdict.ACCEPT, report
    return report.y


def measure(model: Model, repeats: int, draws: int = DRAWS) -> Iterator[Row]:
    """Measure one model."""
    chosen = replace(policy.DEFAULT, draws=draws)
    compiled = program.compile(model.fn, model.params, *model.inputs, policy=chosen)
    submission = jax.block_until_ready(compiled.prove(model.params, *model.inputs))
    key = compiled.setup(model.params, challenge.secret())
    run = Run(key=key, inputs=model.inputs, submission=submission)
    compiled = choose(compiled, run)
    forward = jax.jit(model.fn)

    def beside_run(**calls: Callable[[], object]) -> dict[str, float]:
        rerun = functools.partial(forward, model.params, *model.inputs)
        return interleaved_medians({"run": rerun, **calls}, repeats)

    checked = beside_run(check=lambda: run.check(compiled))
    verified = beside_run(
        check=lambda: run.check(compiled), verify=lambda: run.verify(compiled), hash=run.hash
    )
    beyond = verified["verify"] - verified["check"]
    bars = (None, None) if model.least is None else (f">= {model.least}", f"<= {MOST}")
    share, nbytes = run.temporaries(compiled)
    yield Row(model.name, "seconds_run", checked["run"], "s")
    yield Row(model.name, "seconds_check", checked["check"], "s")
    yield Row(model.name, "ratio", checked["run"] / checked["check"], "1", bars[0])
    yield Row(model.name, "ratio_with_commitment", verified["run"] / verified["verify"], "1")
    yield Row(model.name, "seconds_hash", verified["hash"], "s")
    cost_bar = None if model.least is None else f"<= {COMMITMENT}"
    yield Row(model.name, "commitment_cost", beyond / verified["hash"], "1", cost_bar)
    yield Row(model.name, "temporaries", share, "1", bars[1])
    yield Row(model.name, "temporary_bytes", nbytes, "bytes")
    yield Row(model.name, "key_bytes", key.nbytes, "bytes")
    yield Row(model.name, "trace_bytes", _bytes(submission.trace.values), "bytes")
    yield Row(model.name, "params_bytes", _bytes(model.params), "bytes")
    if model.ablation:
        variants = ablated(compiled)
        medians = beside_run(**{n: functools.partial(run.check, p) for n, p in variants.items()})
        for name, other in variants.items():
            case = f"{model.name} {name}"
            yield Row(case, "seconds_check", medians[name], "s")
            yield Row(case, "ratio", medians["run"] / medians[name], "1")
            yield Row(case, "temporaries", run.temporaries(other)[0], "1")


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


def ablated(compiled: program.Program) -> dict[str, program.Program]:
    """The same check as it is and without some of its parts, by name."""
    strategy = compiled.strategy
    changes: dict[str, Strategy] = {
        "as it is": strategy,
        "tiles=rows": replace(strategy, column_bytes=0),
        "tiles=none": replace(strategy, tile_bytes=0),
        "parts=1": replace(strategy, parts=1),
    }
    # A change that changes nothing would measure the same program twice.
    different = {s: name for name, s in reversed(changes.items())}
    return {name: replace(compiled, strategy=s) for s, name in reversed(different.items())}


def _bytes(tree: Any) -> int:
    return sum(a.nbytes for a in jax.tree.leaves(tree))


TEXT = " ".join(
    """
    A coordinator hands jobs to devices that nobody trusts: phones, tablets, spare cards. They are
    online now and gone in a minute, all with different chips, runtimes and rounding. It has to
    know that an answer really came from the model that it asked for, without running the model
    again, and with proof that convinces a third party when somebody has cheated.
    """.split()
    * 2
)
