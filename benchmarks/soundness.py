"""How often a wrong row passes, against what is proven, and how often an honest run fails: never.

*Deviations.* One row of a claimed product is moved by delta with ||delta * w|| = kappa sigma, in a
random direction; sigma is computed here, in float64, from its definition. Every trial draws a new
secret, makes a new key and asks `Program.check`. The theorem (Freivalds's test with Gaussian
vectors) says that the row passes with probability at most P(chi2_t <= L / kappa^2). The interval
is Clopper and Pearson's at 99.9 %: its lower end above the bound would refute the bound, and for
kappa <= 1 an upper end below 1 - phi would refute completeness.

*Float32 first* (`noise`): what its rounding adds, and whether it decides as float64 does.

*What slips through.* Calibrated on trained weights (`largest_eps` of products, `largest_slack` of
roundings, in units of |v| + rms), a row is caught with probability 1 - 1e-9 from
||delta * w|| = kappa sigma on. `worst_row` is kappa sigma / ||C * w||, the largest over all rows of
all products on other inputs: the deviation as a fraction of the row's own norm. `worst_row_plain`
is the same in the plain norm for a deviation in a random direction, kappa sigma / (||C|| rms(w)).

*The gradient attack* shifts every claim along the gradient of an element of the answer. Just under
the tolerance (kappa = 1) it passes: `effect` is how far it moved the answer, as a fraction of the
corridor's reach at that kappa. A tenth beyond the corridor it must never pass.

*Honest runs.* A claim check is one claim of one run: one text through the trained encoder gives as
many as the program has claims, each of which tests every row of its product. Texts are windows of
the standard library's documentation, and every eighth input is a sequence of random tokens. Keys
are renewed every 16 runs. Jitted and op-by-op execution round differently; neither is what the
verifier computes. All on CPUs; `gpu` has GPUs.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import noise, parallel, slips
from benchmarks.harness import RESULTS, Row, clopper_pearson
from benchmarks.progress import steps
from protocols.demo import models
from verifiable import challenge, program
from verifiable.claims.products import freivalds
from verifiable.claims.products.product import Product
from verifiable.report import Verdict

CLAIM = (
    "A row that deviates by kappa sigma passes no more often than its proven bound, what slips "
    "through is small, and no honest claim check is rejected, at any precision (on CPUs)."
)

PRECISIONS = ("f32", "bf16", "f16", "w8a8")
CALIBRATED = ("f32", "bf16", "f16", "smollm2")  # the encoder in three types, and the decoder
KAPPAS = (0.5, 1, 2, 4, 8, 16)
LEVEL = 0.999
TOKENS = 128
RENEWED = 16


def rows(quick: bool, jobs: int = 1, shards: str | None = None) -> Iterator[Row]:
    """Measure deviations, float32, integers, what slips through, the attack, honest runs.

    Args:
      quick: few trials.
      jobs: how many of these are measured at once.
      shards: folder for what each showed, from which a run that was cut short goes on.
    """
    trials = 300 if quick else 2_000
    parts: list[tuple[Callable[..., Iterator[Row]], Any]] = [
        (deviations, trials),
        *((part, quick) for part in noise.PARTS),
        (integers, trials),
        *((functools.partial(slip_rows, name), quick) for name in CALIBRATED),
        (attacks, 5 if quick else 100),
        *((functools.partial(honest, name), 1_000 if quick else 100_000) for name in PRECISIONS),
    ]
    found: list[Row] = []
    listed = [functools.partial(_listed, *part) for part in parts]
    for some in parallel.in_order(listed, jobs, shards=shards):
        yield from some
        found += some
    if not quick:
        plot(found, RESULTS / "soundness.svg")


def _listed(part: Callable[[Any], Iterator[Row]], scale: Any) -> list[Row]:
    return list(part(scale))


def deviations(trials: int) -> Iterator[Row]:
    """Acceptance of one row that deviates by kappa sigma."""
    rng = np.random.default_rng(3)
    a = rng.standard_normal((128, 256)).astype(np.float32)
    b = rng.standard_normal((256, 192)).astype(np.float32)
    compiled = program.compile(lambda b, a: a @ b, b, a)
    bound = compiled.bound
    assert bound is not None
    _, trace = jax.device_get(jax.jit(compiled.execute)(b, a))
    eps = compiled.policy.eps_of(compiled.claims[0])
    moved = [deviate(a, b, trace.values[0], kappa, eps=eps, rng=rng) for kappa in KAPPAS]
    accepted = [0] * len(KAPPAS)
    for _ in steps(trials, "rows that deviate"):
        key = compiled.setup(b, challenge.secret())
        for i, (claim, _) in enumerate(moved):
            report = compiled.check(key, a, y=claim, trace=(claim,))
            accepted[i] += report.verdict is Verdict.ACCEPT
    for kappa, (_, actual), count in zip(KAPPAS, moved, accepted, strict=True):
        low, high = clopper_pearson(count, trials, LEVEL)
        proven, case = bound.acceptance(actual), f"kappa={kappa}"
        yield Row(case, "trials", trials, "1")
        yield Row(case, "acceptance", count / trials, "1")
        yield Row(case, "interval_low", low, "1", f"<= {proven:.4g}")
        complete = f">= {1 - bound.phi!r}" if actual <= 1 else None
        yield Row(case, "interval_high", high, "1", complete)
        yield Row(case, "bound", proven, "1")


def plot(found: list[Row], path: Path) -> None:
    """Draw acceptance against kappa, beside its bound; nothing where matplotlib is absent."""
    try:
        from matplotlib import rc_context  # noqa: PLC0415 - an optional dependency
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        return
    values = {(row.case, row.measure): row.value for row in found}
    cases = [f"kappa={kappa}" for kappa in KAPPAS]
    measured, low, high = (
        np.array([values[case, name] for case in cases])
        for name in ("acceptance", "interval_low", "interval_high")
    )
    rows, draws = 128, 16
    bound = freivalds.bound(1e-9, rows, draws)
    grid = np.geomspace(KAPPAS[0], KAPPAS[-1], 200)
    # The same figures give the same file: no date in it, and names that do not depend on chance.
    with rc_context({"svg.hashsalt": "soundness", "font.size": 8}):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axis = figure.subplots()
        axis.plot(grid, [bound.acceptance(k) for k in grid], label="bound of the theorem")
        shown = measured > 0
        error = np.array([measured - low, high - measured])[:, shown]
        axis.errorbar(
            np.array(KAPPAS)[shown], measured[shown], error, fmt="o", label=f"measured, {LEVEL:.1%}"
        )
        axis.plot(np.array(KAPPAS)[~shown], high[~shown], "v", label="none accepted: upper end")
        axis.set(
            xscale="log",
            yscale="log",
            ylim=(1e-12, 2),
            xlabel="deviation of a row, in units of sigma",
            ylabel="accepted",
            title=f"{draws} draws, {rows} rows, phi = 1e-9",
        )
        axis.legend()
        axis.grid(alpha=0.3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def deviate(
    a: np.ndarray[Any, Any],
    b: np.ndarray[Any, Any],
    claim: np.ndarray[Any, Any],
    kappa: float,
    *,
    eps: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray[Any, Any], float]:
    """Move a random row of `claim` to within a hundredth of kappa; return it and its true kappa."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(b, axis=0)
    w = 1 / np.maximum(norms, 2.0**-12 * norms.max())
    i = int(rng.integers(len(a)))
    exact = a[i] @ b
    direction = rng.standard_normal(len(w)) / w
    direction /= np.linalg.norm(direction * w)

    def kappa_of(row: np.ndarray[Any, Any]) -> float:
        own = (a[i] ** 2) @ ((b * w) ** 2).sum(1)
        sigma = eps * math.sqrt(own + ((row.astype(np.float64) * w) ** 2).sum())
        return float(np.linalg.norm((row - exact) * w) / sigma)

    size, moved = 1.0, claim.copy()
    for _ in range(20):
        # The deviation enlarges its own scale, and is rounded to the type of the claim.
        moved[i] = exact + size * direction
        size *= kappa / kappa_of(moved[i])
    actual = kappa_of(moved[i])
    assert abs(actual / kappa - 1) < 0.01, (actual, kappa)
    return moved, actual


def integers(trials: int) -> Iterator[Row]:
    """Acceptance of an integer product with one element off by one."""
    rng = np.random.default_rng(4)
    a = rng.integers(-127, 128, (128, 256)).astype(np.int8)
    b = rng.integers(-127, 128, (256, 192)).astype(np.int8)

    def fn(b: jax.Array, a: jax.Array) -> jax.Array:
        return jax.lax.dot(a, b, preferred_element_type=jnp.int32)

    compiled = program.compile(fn, b, a)
    claim = np.array(jax.jit(compiled.execute)(b, a)[0])
    claim[5, 7] += 1
    accepted = 0
    for _ in steps(trials, "integers"):
        key = compiled.setup(b, challenge.secret())
        accepted += compiled.check(key, a, y=claim, trace=(claim,)).verdict is Verdict.ACCEPT
    case = "int8, one element off by 1"
    yield Row(case, "trials", trials, "1")
    yield Row(case, "acceptance", accepted / trials, "1", "== 0")
    yield Row(case, "bound", 1 / (2**61 - 1), "1")


def slip_rows(which: str, quick: bool) -> Iterator[Row]:
    """The smallest deviation of a row that is always caught, on a trained and calibrated model."""
    model = models.smollm2() if which == "smollm2" else models.in_precision(models.minilm(), which)
    if isinstance(model, models.Encoder):
        name, fn, params, inputs = model.name, model.encode, model.params, texts(model)
    else:
        name, fn, params, inputs = model.name, model.logits, model.params, prompts(model)
    samples = [next(inputs) for _ in range(2 if quick else 16)]
    compiled = program.compile(fn, params, *samples[0])
    compiled = compiled.with_policy(compiled.calibrate(params, samples))
    worst: dict[int, tuple[float, float]] = {}
    slip = slips.of_rows(compiled)
    for _ in steps(1 if quick else 4, f"{name}: rows that slip through"):
        for contracted, found in slip(params, next(inputs)):
            old = worst.get(contracted, (0.0, 0.0))
            worst[contracted] = (max(old[0], found[0]), max(old[1], found[1]))
    narrow = not (name.endswith("f16"))
    yield Row(name, "samples", len(samples), "1")
    yield Row(name, "kappa", compiled.bound.kappa(), "1")
    products, roundings = measured_of(compiled)
    yield Row(name, "largest_eps", max(m.eps for m in products), "1")
    yield Row(name, "largest_slack", max((m.eps for m in roundings), default=0.0), "1")
    total = max(w for w, _ in worst.values())
    yield Row(name, "worst_row", total, "1", "<= 5e-4" if narrow else None)
    yield Row(name, "worst_row_plain", max(p for _, p in worst.values()), "1")
    for contracted, (weighted, plain) in sorted(worst.items()):
        case = f"{name}, K={contracted}"
        yield Row(case, "worst_row", weighted, "1")
        yield Row(case, "worst_row_plain", plain, "1")
    yield from noise.honest(f"float32, {name}, calibrated", compiled, params, next(inputs))


def measured_of(compiled: program.Program) -> tuple[list[Any], list[Any]]:
    """What calibration measured of the inexact products, and of the roundings."""
    kinds = {c.name: isinstance(c.form, Product) for c in compiled.claims}
    found = compiled.policy.calibration.measured
    return tuple([m for m in found if kinds.get(m.name) is kind] for kind in (True, False))


def attacks(trials: int) -> Iterator[Row]:
    """The gradient attack on the trained encoder, inside and outside of the corridor."""
    encoder = models.minilm()
    inputs = texts(encoder)
    x = next(inputs)
    compiled = program.compile(encoder.encode, encoder.params, *x)
    policy = compiled.calibrate(encoder.params, [x, *(next(inputs) for _ in range(3))])
    compiled = compiled.with_policy(policy)
    honest, _ = jax.jit(compiled.execute)(encoder.params, *x)

    def first(y: Any) -> Any:
        return y[0, 0]

    edge = compiled.corridor(encoder.params, *x, answer=first)
    for kappa, bar in ((1.0, None), (1.1 * edge.kappa, "== 0")):
        y, trace = compiled.attack(encoder.params, *x, answer=first, kappa=kappa)
        accepted = 0
        for _ in steps(trials, f"gradient attack at kappa={kappa:.3g}"):
            key = compiled.setup(encoder.params, challenge.secret())
            accepted += compiled.check(key, *x, y=y, trace=trace).verdict is Verdict.ACCEPT
        case = f"gradient attack, {encoder.name}, kappa={kappa:.3g}"
        moved = abs(float(first(y) - first(honest)))
        yield Row(case, "trials", trials, "1")
        yield Row(case, "accepted", accepted, "1", bar)
        yield Row(case, "moved", moved, "1")
        inside = "<= 1.1" if bar is None else None
        yield Row(case, "effect", moved / (edge.reach * kappa / edge.kappa), "1", inside)


def prompts(decoder: Any) -> Iterator[tuple[jax.Array]]:
    """Endless token ids of shape (TOKENS,), int32, of the documentation."""
    rng = np.random.default_rng(6)
    ids = np.asarray(decoder.tokenize(documentation()[:200_000]))
    while True:
        start = int(rng.integers(len(ids) - TOKENS))
        yield (jnp.asarray(ids[start : start + TOKENS], jnp.int32),)


def honest(precision: str, least: int) -> Iterator[Row]:
    """Honest runs of the trained encoder, as many jitted as op by op."""
    encoder = models.in_precision(models.minilm(), precision)
    inputs = texts(encoder)
    first = next(inputs)
    compiled = program.compile(encoder.encode, encoder.params, *first)
    jitted = jax.jit(compiled.execute)

    def op_by_op(*args: Any) -> Any:
        with jax.disable_jit():
            return compiled.execute(*args)

    devices = {"jitted": jitted, "op by op": op_by_op}
    runs = math.ceil(least / len(compiled.claims) / len(devices))
    accepted, rejected = dict.fromkeys(devices, 0), dict.fromkeys(devices, 0)
    worst = dict.fromkeys(devices, 0.0)
    key = None
    for n in steps(runs, f"honest runs in {precision}"):
        if key is None or n % RENEWED == 0:
            key = compiled.setup(encoder.params, challenge.secret())
        x = next(inputs)
        for name, device in devices.items():
            y, trace = device(encoder.params, *x)
            report = compiled.check(key, *x, y=y, trace=trace)
            accepted[name] += sum(c.verdict is Verdict.ACCEPT for c in report.results)
            rejected[name] += sum(c.verdict is Verdict.REJECT for c in report.results)
            # A run that was rejected before its claims were looked at counts as well.
            rejected[name] += report.verdict is Verdict.REJECT and not report.results
            worst[name] = max(worst[name], report.worst)
    for name in devices:
        case, checks = f"{encoder.name}, {name}", runs * len(compiled.claims)
        yield Row(case, "runs", runs, "1")
        yield Row(case, "claim_checks", checks, "1")
        yield Row(case, "rows_tested", runs * sum(c.tests for c in compiled.claims), "1")
        yield Row(case, "rejected", rejected[name], "1", "== 0")
        yield Row(case, "not_accepted", runs * per_run(compiled) - accepted[name], "1", "== 0")
        yield Row(case, "worst_ratio", worst[name], "1", "<= 1")
    total = runs * len(compiled.claims) * len(devices)
    yield Row(f"all honest runs in {precision}", "claim_checks", total, "1", f">= {least}")


def per_run(compiled: program.Program) -> int:
    """Number of verdicts in a report: one a claim, one an output."""
    return len(compiled.claims) + len(jax.tree.leaves(compiled.y))


def texts(encoder: models.Encoder) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Endless inputs `(token_ids, attention_mask)` of shape (1, TOKENS), int32."""
    rng = np.random.default_rng(5)
    words = documentation().split()
    vocabulary = encoder.params["embeddings"]["words"].shape[0]
    for n in range(10**9):
        ids, mask = np.zeros((2, 1, TOKENS), np.int32)
        if n % 8 == 7:
            length = int(rng.integers(1, TOKENS + 1))
            ids[0, :length], mask[0, :length] = rng.integers(0, vocabulary, length), 1
        else:
            start, length = rng.integers(len(words) - TOKENS), rng.integers(3, 90)
            text = " ".join(words[start : start + length])[:250]
            given = [part[:, :TOKENS] for part in encoder.tokenize([text])]
            ids[:, : given[0].shape[1]], mask[:, : given[0].shape[1]] = given
        yield jnp.asarray(ids), jnp.asarray(mask)


def documentation() -> str:
    """English of all kinds that every Python brings along."""
    names = "argparse collections decimal email fractions json logging os pathlib random statistics"
    found: list[str] = []
    for name in names.split():
        for _, thing in inspect.getmembers(importlib.import_module(name)):
            found.append(inspect.getdoc(thing) or "")
            if inspect.isclass(thing):
                found += [inspect.getdoc(member) or "" for _, member in inspect.getmembers(thing)]
    return "\n".join(dict.fromkeys(found))
