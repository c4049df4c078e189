"""What verification costs the device: the function with its claims and their commitment.

`plain` is `jax.jit(fn)`, `execute` is `jax.jit(Program.execute)`, which also returns every claim,
and `execute + commit` hashes output and claims into the Merkle root that the device signs.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Row, interleaved_medians
from protocols.demo import models
from verifiable import program, trace

CLAIM = (
    "Executing a model with its claims and committing to them takes at most 1.15 times as long as "
    "running the plain function."
)

CASES = ((768, 256, 4, None), (2048, 128, 4, 1.15), (2048, 512, 2, 1.15))
QUICK = ((256, 128, 2, None), (768, 128, 1, None))


def rows(quick: bool) -> Iterator[Row]:
    """Measure GPT-shaped models."""
    for width, tokens, layers, most in QUICK if quick else CASES:
        params, forward = models.gpt(width=width, layers=layers)
        x = jnp.asarray(np.random.default_rng(1).standard_normal((tokens, width)), jnp.float32)
        compiled = program.compile(forward, params, x)
        run, execute = jax.jit(forward), jax.jit(compiled.execute)
        thunks = {
            "plain": lambda run=run, params=params, x=x: run(params, x),
            "execute": lambda execute=execute, params=params, x=x: execute(params, x),
            "commit": lambda execute=execute, params=params, x=x: (
                trace.commit(*execute(params, x)).commitment.root
            ),
        }
        seconds = interleaved_medians(thunks, 5 if quick else 15)
        case = f"width={width} tokens={tokens} layers={layers}"
        yield Row(case, "seconds_plain", seconds["plain"], "s")
        yield Row(case, "seconds_execute", seconds["execute"], "s")
        yield Row(case, "seconds_execute_and_commit", seconds["commit"], "s")
        yield Row(case, "execute_ratio", seconds["execute"] / seconds["plain"], "1")
        bar = None if most is None else f"<= {most}"
        yield Row(case, "ratio", seconds["commit"] / seconds["plain"], "1", bar)
        claims = execute(params, x)[1].values
        yield Row(case, "trace_bytes", sum(c.nbytes for c in claims), "bytes")
        del params, thunks, run, execute, claims
        gc.collect()
