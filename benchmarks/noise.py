"""What float32 adds to rho in the cheap form of a product's test (a part of `soundness`).

`noise` is ||rho' - rho|| as a fraction of the limit under the tightest policy that the cheap form
is used for (eps = 3 nu; by default eps is larger), the largest of all rows: Theorem 4 of
specs/freivalds.md asks for 7/16 at most. Sums that cancel are outside of its assumption and have no
bar. Claims deviate by 0.01 to 100 times their limit, in one column or in all: `decided_otherwise`
counts rows that float32 decides and float64 decides differently. On trained models, `worst_ratio`
is the largest statistic of honest claims in float32, `undecided` the claims that need float64; the
same under calibrated policies.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Row
from benchmarks.progress import steps
from protocols.demo import models
from verifiable import challenge, program
from verifiable.check.compiled import CheckArguments
from verifiable.claims.products import float32_test, freivalds
from verifiable.claims.products.dot_general import DotGeneral
from verifiable.report import Verdict

Array = np.ndarray[Any, Any]
DRAWS = 16
CHUNK = 500  # rows


def _spikes(a: Array, b: Array) -> tuple[Array, Array]:
    a[:, 0] *= 1e5
    return a, b


def _cancelling(a: Array, b: Array) -> tuple[Array, Array]:
    half = a.shape[1] // 2
    return np.where(np.arange(2 * half) < half, 1, -1) + 1e-3 * a, 1 + 1e-3 * b


# Name, K, n, in blocks or not, share of the rows, whether the assumption holds, operands.
CASES: tuple[tuple[str, int, int, bool, float, bool, Callable[..., Any]], ...] = (
    ("normal", 256, 256, False, 0.5, True, lambda a, b: (a, b)),
    ("normal", 8192, 512, False, 0.02, True, lambda a, b: (a, b)),
    ("normal", 512, 8192, False, 0.02, True, lambda a, b: (a, b)),
    ("normal in blocks", 576, 49_152, True, 0.005, True, lambda a, b: (a, b)),
    ("spikes", 1024, 256, False, 0.1, True, _spikes),
    ("one side", 1024, 256, False, 0.1, True, lambda a, b: (abs(a) + 10, abs(b))),
    ("A of 1e25", 256, 256, False, 0.05, True, lambda a, b: (1e25 * a, b)),
    ("A of 1e-25", 256, 256, False, 0.05, True, lambda a, b: (1e-25 * a, b)),
    ("sums that cancel", 1024, 256, False, 0.1, False, _cancelling),
)


def _case(number: int, quick: bool) -> Iterator[Row]:
    """Random or hostile operands."""
    name, inner, columns, blocks, share, holds, change = CASES[number]
    case = f"float32, {name}, K={inner} n={columns}"
    count = max(1, round((20_000 if quick else 1_000_000) * share / CHUNK))
    worst, otherwise = _measured(case, inner, columns, blocks, count, change)
    yield Row(case, "rows", count * CHUNK, "1")
    yield Row(case, "noise", worst, "1", "<= 0.4375" if holds else None)
    yield Row(case, "decided_otherwise", otherwise, "1", "== 0")


def _measured(
    case: str, inner: int, columns: int, blocks: bool, count: int, change: Callable[..., Any]
) -> tuple[float, int]:
    """The largest noise over all rows, and the rows decided otherwise."""
    form = DotGeneral(
        near=0,
        shapes=((CHUNK, inner), (inner, columns), (CHUNK, columns)),
        dtypes=(np.dtype(np.float32),) * 3,
        batch=1,
        rows=CHUNK,
        contracted=inner,
        columns=columns,
        contracting=((1,), (0,)),
        batching=((), ()),
    )
    form = form.in_blocks() if blocks else form
    eps = 3 * float32_test.noise(form)
    limit = freivalds.limit(1e-9, count * form.tests, DRAWS)
    run = jax.jit(functools.partial(_compared, form, eps * 1.000001, limit))
    rng = np.random.default_rng(inner + columns)
    _, b = change(np.ones((1, inner)), rng.standard_normal((inner, columns)))
    worst, otherwise = 0.0, 0
    with jax.enable_x64(True):
        for n in steps(count, f"{case}: chunks of {CHUNK} rows"):
            if n % 20 == 0:
                g = freivalds.vectors(challenge.secret(), form.vectors(far_known=True), DRAWS)
            a, _ = change(rng.standard_normal((CHUNK, inner)), np.ones((inner, 1)))
            delta = rng.standard_normal((CHUNK, columns))
            delta[::2] *= rng.random((CHUNK // 2, columns)) < 2 / columns
            size = 10 ** rng.uniform(-2, 2, (CHUNK, 1))
            found = run(a.astype(np.float32), b.astype(np.float32), delta * size, g)
            worst, otherwise = max(worst, float(found[0])), otherwise + int(found[1])
    return worst, otherwise


def _compared(
    form: DotGeneral, eps: float, limit: float, a: Any, b: Any, delta: Any, g: Any
) -> tuple[Any, Any]:
    exact = freivalds.project(form, b, g, eps=eps)
    applied = freivalds.apply(form, a, exact)
    honest = jnp.dot(a, b, precision="highest")
    sigma = freivalds.deviations(form, applied, exact, honest, g, eps)[2]
    sigma = sigma if form.blocks == 1 else jnp.min(sigma, axis=-1)
    step = jnp.sqrt(limit / DRAWS / form.columns) * sigma[:, None] / exact.weights
    claim = (honest.astype(jnp.float64) + step * delta).astype(jnp.float32)
    rho, _, sigma, _ = freivalds.deviations(form, applied, exact, claim, g, eps)
    decided = freivalds.compare(form, applied, exact, claim, g, eps=eps, limit=limit)
    narrow, short = float32_test.narrowed(form, exact), g.astype(jnp.float32)
    applied = freivalds.apply(form, a, narrow)
    other = freivalds.deviations(form, applied, narrow, claim, short, eps)[0]
    cheap = freivalds.compare(form, applied, narrow, claim, short, eps=eps, limit=limit)
    unit = narrow.weights[0, 0].astype(jnp.float64) / exact.weights[0, 0]
    noise = jnp.linalg.norm(other / unit - rho, axis=-1) / (sigma * limit**0.5)
    sure = cheap.finite_operands
    noise = jnp.where(jnp.isfinite(noise) & (sure if form.blocks == 1 else sure[:, None]), noise, 0)
    return jnp.max(noise), jnp.sum(sure & ((cheap.ratio <= 1) != (decided.ratio <= 1)))


def _trained(which: str, quick: bool) -> Iterator[Row]:
    """A trained model under the default policy; the larger one in full runs only."""
    if which == "smollm2" and quick:
        return
    model = getattr(models, which)()
    fn, texts = (
        (model.encode, model.tokenize(["The quick brown fox jumps over the lazy dog."] * 4))
        if hasattr(model, "encode")
        else (model.logits, (np.resize(model.tokenize("The capital of France is"), 128),))
    )
    inputs = tuple(jnp.asarray(x) for x in texts)
    compiled = program.compile(fn, model.params, *inputs)
    bars = "<= 0.5", "== 0"
    yield from honest(f"float32, {model.name}", compiled, model.params, inputs, bars)


def honest(
    case: str,
    compiled: program.Program,
    params: Any,
    inputs: Any,
    bars: tuple[str | None, str | None] = (None, None),
) -> Iterator[Row]:
    """An honest run in float32: the largest statistic, the claims left to float64, the verdict.

    Args:
      case: of the rows.
      compiled: a program under any policy.
      params: its parameters.
      inputs: of the run.
      bars: of the statistic and the claims. Those that a calibrated policy makes too tight for
        float32 are tested in float64 at once; a statistic that leaves a claim undecided may be
        large.
    """
    y, trace = jax.jit(compiled.execute)(params, *inputs)
    key = compiled.setup(params, challenge.secret())
    arguments = CheckArguments.of(key, inputs, y, trace)
    found, _ = compiled.compiled_check.measure(arguments)
    statistics = found.statistics.values()
    undecided = sum(not np.all(s.finite_operands) for s in statistics)
    yield Row(case, "worst_ratio", max(float(np.max(s.worst)) for s in statistics), "1", bars[0])
    yield Row(case, "undecided", undecided, "1", bars[1])
    report = compiled.check(key, *inputs, y=y, trace=trace)
    yield Row(case, "accepted", int(report.verdict is Verdict.ACCEPT), "1", "== 1")


# Called with `quick`, each gives some rows.
PARTS: tuple[Callable[[bool], Iterator[Row]], ...] = (
    *(functools.partial(_case, number) for number in range(len(CASES))),
    *(functools.partial(_trained, name) for name in ("minilm", "smollm2")),
)
