"""What narrow precisions cost to check (a part of `check_vs_rerun`).

The trained encoder on the demo's eight sentences in float32, bfloat16, float16 and W8A8: all checks
are called in turn, as compiled by default. `check_ratio` is the check over the one in float32,
`trace_ratio` the bytes of the traces alike.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from benchmarks.harness import Row, interleaved_medians
from benchmarks.timed import Run, nbytes
from protocols.demo import models
from protocols.demo.models.precision import PRECISIONS
from protocols.demo.scenes.scene import TEXTS
from verifiable import program

CHECK = 1.25  # times float32's seconds
TRACE = 1.3  # times float32's bytes
FIRST = "f32"


def rows(quick: bool, repeats: int) -> Iterator[Row]:
    """Measure all precisions, or two of them."""
    names = list(PRECISIONS)[: 2 if quick else None]
    encoder = models.minilm()
    inputs = tuple(jnp.asarray(x) for x in encoder.tokenize(list(TEXTS)))
    checks: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for name in names:
        model = models.in_precision(encoder, name)
        compiled = program.compile(model.encode, model.params, *inputs, self_test=False)
        run = Run.of(compiled, model.params, inputs)
        checks[name] = functools.partial(run.check, compiled)
        sizes[name] = nbytes(run.submission.trace.values)
    medians = interleaved_medians(checks, repeats)
    for name in names:
        case, bars = f"{encoder.name} {name} sentences={len(TEXTS)}", (None, None)
        if name != FIRST:
            bars = f"<= {CHECK}", f"<= {TRACE}"
        yield Row(case, "seconds_check", medians[name], "s")
        yield Row(case, "check_ratio", medians[name] / medians[FIRST], "1", bars[0])
        yield Row(case, "trace_bytes", sizes[name], "bytes")
        yield Row(case, "trace_ratio", sizes[name] / sizes[FIRST], "1", bars[1])
