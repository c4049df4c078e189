"""Honest runs on a GPU, judged on a CPU, and the other way round; and the check on a GPU.

*Honest.* Programs of `benchmarks.zoo`, compiled under `jax.default_matmul_precision("highest")`,
run on one platform and are checked on the other. `GPU, then CPU` is a device with a GPU and a
coordinator without; `CPU, then GPU` a coordinator with one. The measures are those of `verdicts`.

*Default precision.* The same programs as JAX compiles them by default, where a GPU multiplies
float32 numbers after rounding them to TF32 (10 bits).

*Time.* As `check_vs_rerun`, run and check both on the GPU.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import jax

from benchmarks import check_vs_rerun, parallel
from benchmarks.cheats import Bench
from benchmarks.devices import Answer, Device
from benchmarks.harness import Row
from benchmarks.subjects import gpt, minilm, smollm2
from benchmarks.verdicts import Tally, honest
from benchmarks.zoo import ZOO

CLAIM = (
    "A coordinator on a CPU rejects no honest run of a GPU, nor a coordinator on a GPU an honest "
    "run of a CPU, whatever the model; and on a GPU too, checking takes a small part of the time "
    "of running."
)

RUNS = 8  # compiled, of each program and way
MOVING = {"GPU, then CPU": ("gpu", "cpu"), "CPU, then GPU": ("cpu", "gpu")}
SIZES = ((768, 256, 4), (2048, 512, 2), (2048, 128, 4), (4096, 128, 1), (4096, 2048, 4))


def missing() -> str | None:
    """Why nothing can be measured here, if so."""
    try:
        jax.devices("gpu")
    except RuntimeError:
        return "JAX sees no GPU"
    return None


def rows(quick: bool, only: Collection[str] = (), jobs: int = 1) -> Iterator[Row]:
    """Measure programs in both ways, then times.

    Args:
      quick: two programs, one size.
      only: names of programs, or "time"; all of them by default.
      jobs: how many programs are measured at once.
    """
    if (why := missing()) is not None:
        raise RuntimeError(why)
    names = [name for name in ZOO if not only or name in only][: 2 if quick else None]
    totals = {case: Tally() for precision in (True, False) for case in _cases(precision)}
    listed: list[Row] = []
    parts = [functools.partial(_program, name, 1 if quick else RUNS) for name in names]
    for name, found in parallel.in_order(parts, jobs):
        for case, tally in found.items():
            bar = "<= 0.01" if case in MOVING else None
            yield from tally.rows(f"{name}, {case}", most=bar)
            listed += tally.listed(f"{name}, {case}")
            totals[case].merge(tally)
    if names:
        yield Row("honest", "models", len(names), "1")
        for case, tally in totals.items():
            yield from tally.rows(
                f"all programs, {case}", most="<= 0.01" if case in MOVING else None
            )
        yield from listed
    if not only or "time" in only:
        yield from _times(quick)


def _cases(highest: bool) -> dict[str, tuple[str, str]]:
    return (
        MOVING if highest else {f"{case}, default precision": way for case, way in MOVING.items()}
    )


def _program(name: str, runs: int) -> tuple[str, dict[str, Tally]]:
    """Verdicts on one program, by way and precision."""
    found: dict[str, Tally] = {}
    for highest in (True, False):
        for case, (runner, judge) in _cases(highest).items():
            precision = jax.default_matmul_precision("highest") if highest else nullcontext()
            with jax.default_device(jax.devices(judge)[0]), precision:
                bench = Bench.of(ZOO[name]())
                there = _on(jax.devices(runner)[0], jax.jit(bench.program.execute))
                total = found.setdefault(case, Tally())
                for tally in honest(bench, {f"jit on {runner}": there}, runs).values():
                    total.merge(tally)
            jax.clear_caches()
    return name, found


def _on(place: jax.Device, run: Callable[..., Answer]) -> Device:
    """An honest device that computes in a place, and sends its answer as bytes."""

    def device(params: Any, inputs: Any, number: int) -> Answer:
        del number
        return jax.device_get(run(*jax.device_put((params, *inputs), place)))

    return device


def _times(quick: bool) -> Iterator[Row]:
    with jax.default_matmul_precision("highest"):
        makers: list[Callable[[], Any]] = [
            functools.partial(gpt, *size) for size in SIZES[: 1 if quick else None]
        ]
        makers += [] if quick else [smollm2, minilm]
        for make in makers:
            model = replace(make(), least=None, ablation=False)
            yield from check_vs_rerun.measure(model, 5 if quick else 30)
            del model
            gc.collect()
