"""The check against the plain jitted forward pass, both warm, called in turn.

`seconds_run` is `jax.jit(fn)(params, x)`: no trace, no commitment. `seconds_check` is the whole
host call `Program.check`: validation of what the device sent, the compiled check, the verdict. The
verifier key is made beforehand; 16 draws. `temporary_bytes` is what XLA allocates for temporaries
of the compiled check, beside its arguments and results.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Row, interleaved_medians
from protocols import models
from verifiable import challenge, program
from verifiable.report import Verdict

CLAIM = (
    "Checking an inference with 16 draws takes a small part of the time of running it again, "
    "and the smaller the wider the model."
)

# width, tokens, layers, least ratio
CASES = (
    (768, 256, 4, None),
    (2048, 512, 2, None),
    (2048, 128, 4, 8),
    (4096, 128, 1, 15),
)
QUICK = ((256, 128, 2, None), (768, 128, 1, None))


def rows(quick: bool) -> Iterator[Row]:
    """Measure the GPT-shaped cases, then the trained sentence encoder."""
    repeats = 5 if quick else 15
    ratios: dict[tuple[int, int], float] = {}
    for width, tokens, layers, least in QUICK if quick else CASES:
        params, forward = models.gpt(width=width, layers=layers)
        x = np.random.default_rng(1).standard_normal((tokens, width)).astype(np.float32)
        case = f"width={width} tokens={tokens} layers={layers}"
        for row in measure(case, forward, params, (jnp.asarray(x),), repeats=repeats, least=least):
            if row.measure == "ratio":
                ratios[width, tokens] = row.value
            yield row
        del params
        gc.collect()
    if not quick:
        growth = ratios[4096, 128] / ratios[2048, 128]
        yield Row("width=4096 over width=2048", "ratio_growth", growth, "1", "> 1")
    encoder = models.minilm()
    ids, mask = encoder.tokenize([TEXT])
    inputs = tuple(jnp.asarray(a[:, :128]) for a in (ids, mask))
    case = f"{encoder.name} tokens={inputs[0].shape[1]}"
    yield from measure(case, encoder.encode, encoder.params, inputs, repeats=repeats, least=None)


def measure(
    case: str,
    fn: Callable[..., Any],
    params: Any,
    inputs: tuple[Any, ...],
    *,
    repeats: int,
    least: float | None,
) -> Iterator[Row]:
    """Measure one model."""
    compiled = program.compile(fn, params, *inputs)
    run = jax.jit(fn)
    y, trace = jax.block_until_ready(jax.jit(compiled.execute)(params, *inputs))
    key = compiled.setup(params, challenge.secret())

    def check():
        report = compiled.check(key, *inputs, y=y, trace=trace)
        assert report.verdict is Verdict.ACCEPT, report
        return report.y

    seconds = interleaved_medians({"run": lambda: run(params, *inputs), "check": check}, repeats)
    yield Row(case, "seconds_run", seconds["run"], "s")
    yield Row(case, "seconds_check", seconds["check"], "s")
    bar = None if least is None else f">= {least}"
    yield Row(case, "ratio", seconds["run"] / seconds["check"], "1", bar)
    # The very function that `check` calls, with the compiler options that it chose.
    inner: Any = compiled._check  # pyright: ignore[reportPrivateUsage]
    with jax.enable_x64(True):
        lowered = inner.lower(key.arrays, inputs, jax.tree.leaves(y), list(trace.claims))
    memory = lowered.compile().memory_analysis()
    if memory is not None:
        yield Row(case, "temporary_bytes", memory.temp_size_in_bytes, "bytes")
    yield Row(case, "key_bytes", key.nbytes, "bytes")
    yield Row(case, "trace_bytes", sum(c.nbytes for c in trace.claims), "bytes")
    yield Row(case, "params_bytes", sum(a.nbytes for a in jax.tree.leaves(params)), "bytes")


TEXT = " ".join(
    """
    A coordinator hands jobs to devices that nobody trusts: phones, tablets, spare cards. They are
    online now and gone in a minute, all with different chips, runtimes and rounding. It has to
    know that an answer really came from the model that it asked for, without running the model
    again, and with proof that convinces a third party when somebody has cheated.
    """.split()
    * 2
)
