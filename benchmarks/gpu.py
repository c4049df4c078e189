"""Honest runs on a GPU judged on a CPU, and the other way round; and the time of a check on a GPU.

*Honest.* Programs of `benchmarks.zoo` run on one platform and are checked on the other. `GPU, then
CPU` is a device with a GPU and a coordinator without; `CPU, then GPU` a coordinator with one. The
measures are those of `verdicts`. Products run at the highest precision on both, as `compile` sees
to; by default a GPU would round float32 operands to TF32.

*Time.* As `check_vs_rerun`, run and check both on the GPU, under the highest precision.
"""

from __future__ import annotations

import functools
import gc
import math
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import jax

from benchmarks import check_vs_rerun, parallel
from benchmarks.cheats import Bench
from benchmarks.harness import Row
from benchmarks.subjects import gpt, smollm2
from benchmarks.verdicts import Tally, honest
from benchmarks.zoo import ZOO
from verifiable.errors import Miscompiled
from verifiable.testing.devices import Answer, Device

# Several processes share the memory of the GPU, of which each would take three quarters at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

CLAIM = (
    "A coordinator on a CPU rejects no honest run of a GPU, nor a coordinator on a GPU an honest "
    "run of a CPU, whatever the model."
)

RUNS = 4  # compiled, of each program and way
MOVING = {"GPU, then CPU": ("gpu", "cpu"), "CPU, then GPU": ("cpu", "gpu")}
SIZES = ((768, 256, 4), (2048, 128, 4), (4096, 2048, 4))


def missing() -> str | None:
    """Why nothing can be measured here, if so."""
    try:
        jax.devices("gpu")
    except RuntimeError:
        return "JAX sees no GPU"
    return None


def rows(
    quick: bool, only: Collection[str] = (), jobs: int = 1, minutes: float = math.inf
) -> Iterator[Row]:
    """Measure programs in both ways, then times.

    Args:
      quick: two programs, one size.
      only: names of programs, "honest" for all of them, or "time"; everything by default.
      jobs: how many programs are measured at once.
      minutes: after so many no further program is begun.
    """
    if (why := missing()) is not None:
        raise RuntimeError(why)
    everything = not only or "honest" in only
    names = [name for name in ZOO if everything or name in only][: 2 if quick else None]
    totals, listed, models = {case: Tally() for case in MOVING}, list[Row](), 0
    parts = [functools.partial(_program, name, 1 if quick else RUNS) for name in names]
    for name, found in parallel.in_order(parts, jobs, minutes):
        models += 1
        for case in MOVING.keys() - found.keys():
            yield Row(f"{name}, {case}", "miscompiled", 1, "1")
        for case, tally in found.items():
            yield from tally.rows(f"{name}, {case}", most="<= 0.01")
            listed += tally.listed(f"{name}, {case}")
            totals[case].merge(tally)
    if names:
        yield Row("honest", "models", models, "1")
        for case, tally in totals.items():
            yield from tally.rows(f"all programs, {case}", most="<= 0.01")
        yield from listed
    if not only or "time" in only:
        yield from _times(quick)


def _program(name: str, runs: int) -> tuple[str, dict[str, Tally]]:
    """Verdicts on one program, by way; without those whose check the coordinator cannot compile."""
    found: dict[str, Tally] = {}
    for case, (runner, judge) in MOVING.items():
        with suppress(Miscompiled), jax.default_device(jax.devices(judge)[0]):
            bench = Bench.of(ZOO[name]())
            there = _on(jax.devices(runner)[0], jax.jit(bench.program.execute))
            [found[case]] = honest(bench, {f"jit on {runner}": there}, runs).values()
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
        makers += [] if quick else [smollm2]
        for make in makers:
            model = replace(make(), least=None, ablation=False)
            yield from check_vs_rerun.measure(model, 5 if quick else 30)
            del model
            gc.collect()
