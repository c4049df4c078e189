"""What a coordinator keeps instead of the weights, and what another length of input adds to it.

*Size.* The bytes of a key over those of the parameters, by what they are for.

*Lengths.* A family of two lengths against the program of the longer one alone: the bytes of its key
and the time of its `setup` until all arrays are there, called in turn, compiled before. Then the
first check of the second length, which compiles, and a check after it.

*Restart.* A new process with JAX's persistent compilation cache reads the key that an earlier one
wrote, and checks the same: `compiled` counts what XLA had to compile all the same.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import verifiable as vf
from benchmarks.harness import Row, interleaved_medians
from protocols.demo import models

CLAIM = (
    "A key takes at most 3 % of the bytes of a model. One serves two lengths of input, at most "
    "1.02 times as large as for one; after a restart with JAX's compilation cache, checks compile "
    "nothing."
)

SECRET = vf.challenge.secret()
PARTS = ("vectors", "kept", "projected", "moves")
LENGTHS = (64, 128)
QUICK = (16, 32)
_CACHE = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def rows(quick: bool) -> Iterator[Row]:
    """Measure trained models, or a small one."""
    for name in ("gpt",) if quick else ("SmolLM2-135M", "MiniLM-L6"):
        fn, params, shapes = _subject(name)
        yield from _measure(name, fn, params, shapes, 3 if quick else 5)
        gc.collect()
        yield from _restart(name)


def _subject(name: str) -> tuple[Any, Any, list[tuple[Any, ...]]]:
    """A function, its parameters, and its inputs at two lengths."""
    rng = np.random.default_rng(1)
    if name == "gpt":
        params, forward = models.gpt(width=128, layers=2)
        return forward, params, [(rng.standard_normal((n, 128)).astype("f4"),) for n in QUICK]
    if name == "MiniLM-L6":
        encoder = models.minilm()
        ids = [rng.integers(1000, 20000, (1, n), np.int32) for n in LENGTHS]
        return encoder.encode, encoder.params, [(i, np.ones_like(i)) for i in ids]
    model = models.smollm2()
    ids = [rng.integers(0, 40000, n, np.int32) for n in LENGTHS]
    return model.logits, model.params, [(i,) for i in ids]


def _measure(
    name: str, fn: Any, params: Any, shapes: list[tuple[Any, ...]], repeats: int
) -> Iterator[Row]:
    family = vf.compile_family(fn, params, *shapes, self_test=False)
    alone = family.members[1]
    setups = {
        "one": lambda: jax.block_until_ready(alone.setup(params, SECRET).arrays),
        "family": lambda: jax.block_until_ready(family.setup(params, SECRET).arrays),
    }
    seconds = interleaved_medians(setups, repeats)
    one, key = alone.setup(params, SECRET), family.setup(params, SECRET)
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    yield Row(name, "key_bytes", one.nbytes, "bytes")
    bar = None if name == "gpt" else "<= 0.03"  # that one is small, and has no table
    yield Row(name, "key_share", one.nbytes / total, "1", bar)
    sizes: Counter[str] = Counter()
    for array, value in one.arrays.items():
        sizes[array.split("/")[0]] += value.nbytes
    for part in PARTS:
        yield Row(name, f"key_share_{part}", sizes[part] / total, "1")
    case = f"{name}, two lengths"
    yield Row(case, "key_ratio", key.nbytes / one.nbytes, "1", "<= 1.02")
    yield Row(case, "setup_ratio", seconds["family"] / seconds["one"], "1", "<= 1.1")
    for member, inputs in zip(family.members, shapes, strict=True):
        sent = member.prove(params, *inputs)
        took = [_seconds(family, key, inputs, sent) for _ in range(2)]
        length = f"{name}, length {inputs[0].shape[-1 if name != 'gpt' else 0]}"
        yield Row(length, "seconds_first_check", took[0], "s")
        yield Row(length, "seconds_check", took[1], "s")


def _seconds(family: vf.Family, key: vf.VerifierKey, inputs: Any, sent: vf.Submission) -> float:
    begin = time.perf_counter()
    family.verify(key, *inputs, sent, commitment=sent.commitment).require()
    return time.perf_counter() - begin


def _restart(name: str) -> Iterator[Row]:
    """Two processes, one after the other, with the same compilation cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | _CACHE | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        for when in ("before", "after"):
            # The arguments are this interpreter and this module.
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-m", "benchmarks.key", name, f"{folder}/key"],
                env=environment,
                check=True,
                capture_output=True,
            )
            found = json.loads(done.stdout.splitlines()[-1])
            case, bar = f"{name}, {when} a restart", "<= 0" if when == "after" else None
            yield Row(case, "compiled", found["compiled"], "1", bar)
            yield Row(case, "seconds_first_check", found["seconds"], "s")


def _first_check(name: str, path: str) -> dict[str, float]:
    """Read the key of a family, or make it, and check both lengths once.

    Returns:
      How many programs XLA compiled, and the time of the checks.
    """
    counted: Counter[str] = Counter()
    jax.monitoring.register_event_listener(lambda event, **_: counted.update([event]))
    fn, params, shapes = _subject(name)
    family = vf.compile_family(fn, params, *shapes, self_test=False)
    if not Path(path).exists():
        family.setup(params, vf.challenge.secret()).save(path)
    key = vf.VerifierKey.load(path)
    sent = [family.prove(params, *inputs) for inputs in shapes]
    took = [_seconds(family, key, x, s) for x, s in zip(shapes, sent, strict=True)]
    return {"compiled": counted["/jax/compilation_cache/cache_misses"], "seconds": sum(took)}


if __name__ == "__main__":
    print(json.dumps(_first_check(*sys.argv[1:])))
