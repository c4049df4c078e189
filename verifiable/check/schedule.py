"""How a check is compiled: choices that measurements decide and that never change a verdict.

A check reads every byte of a trace a few times and computes little with it, so memory decides its
speed. XLA allocates temporaries through the C library at each call; beyond 32 MB, glibc returns
them to the system each time, and every page faults and is zeroed again, which can take as long as
the arithmetic itself. Therefore

* claims are tested in tiles, with the attention, activations and norms that are replayed before
  them (`tiling`): no copy of a claim in double precision, no matrix of scores and no keys are ever
  whole;
* on CPUs, XLA orders operations for few temporaries, not for concurrency; under a scan that order
  is slower, and is not used;
* the measurements of a check, some hundred scalars, return in three arrays;
* a check is two programs, each of which tests half of the claims on a thread of its own: its
  operations are too small for two cores to share one, while the halves have only cheap glue in
  common, which both replay. Both run through every scan. The caller's thread runs one of the two:
  waking a thread takes as long as several operations.

Vectors are as wide as XLA makes them by default: as wide as the core's, an activation would take
half the time on cores with 512-bit units, but XLA then miscompiles `arctan` (jax 0.10.2).

`default` is right for most programs. `fastest` measures all `candidates`. The benchmark
`check_vs_rerun` publishes what tiles and parts save.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_MEMORY = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One way to compile a check.

    Attributes:
      save_memory: on CPUs, whether XLA orders operations for few temporaries. It is slower where
        claims are under a scan.
      tile_bytes: approximate size of the largest value in a tile; 0 for no tiles.
      column_bytes: the same for tiles of columns, where it is smaller: a tile of one head needs no
        transposed copies, and one of few heads is too little work for XLA to spread over threads;
        0 for tiles of rows only.
      parts: number of programs that each test a part of the claims, at the same time.
      cheap_first: whether the cheap form of a claim's test comes first (`Form.cheapened`), and the
        test in full only where that leaves the claim undecided.

    Raises:
      ValueError: no programs, or a negative size.
    """

    save_memory: bool = True
    tile_bytes: int = 2**20
    column_bytes: int = 2**20
    parts: int = 1
    cheap_first: bool = True

    def __post_init__(self) -> None:
        """Require at least one program and sizes that are not negative."""
        if self.parts < 1 or self.tile_bytes < 0 or self.column_bytes < 0:
            raise ValueError(f"expected parts >= 1 and bytes >= 0, got {self}")

    def options(self) -> dict[str, Any]:
        """Compiler options for the backend at hand."""
        return dict(_MEMORY) if self.save_memory and jax.default_backend() == "cpu" else {}


def default(trace_bytes: int, *, scans: bool) -> Strategy:
    """The strategy that suits most programs, without measuring.

    Args:
      trace_bytes: size of all claims of the program.
      scans: whether claims are under a scan.
    """
    # Small tiles leave a second core idle and pack the random vectors repeatedly. A second program
    # takes as long to compile as the first, which small checks never save again.
    parts = 2 if trace_bytes >= 2**23 and (os.cpu_count() or 1) > 1 else 1
    tile_bytes = min(2**22, max(2**20, trace_bytes // 16)) // parts
    return Strategy(save_memory=not scans, tile_bytes=tile_bytes, parts=parts)


def candidates(default: Strategy) -> tuple[Strategy, ...]:
    """The strategies to measure, the default first."""
    other = replace(default, save_memory=not default.save_memory)
    smaller = replace(default, tile_bytes=default.tile_bytes // 2)
    larger = replace(default, tile_bytes=default.tile_bytes * 4)  # one layer of 4096 by 128 rows
    return default, other, smaller, larger, replace(default, parts=3 - min(default.parts, 2))


def compile(fn: Callable[..., Any], strategy: Strategy) -> Callable[..., Any]:
    """`jax.jit(fn)` with the options of a strategy that the installed XLA knows."""
    known = {name: value for name, value in strategy.options().items() if _known(name, value)}
    return jax.jit(fn, compiler_options=known or None)


@functools.cache
def _known(name: str, value: Any) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except Exception as error:
        if "No such compile option" not in str(error):
            raise
        return False
    return True


def split(costs: Sequence[float], parts: int) -> list[range]:
    """Cut a sequence into contiguous parts of about equal cost; fewer where it has fewer items.

    Neighbours share glue, which each part replays.

    Args:
      costs: costs of the items.
      parts: largest number of parts.

    Returns:
      The indices of the items of each part.
    """
    total, before, cuts = sum(costs), 0.0, [0]
    for i in range(1, len(costs)):
        before += costs[i - 1]
        # Cut where the cost so far is nearest to the parts' equal shares.
        due = total * len(cuts) / parts
        if len(cuts) < parts and before + costs[i] / 2 >= due:
            cuts.append(i)
    return [range(a, b) for a, b in itertools.pairwise([*cuts, len(costs)])]


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Results of calls that run at the same time, the last on the caller's thread."""
    *others, last = calls
    running = [_threads().submit(call) for call in others]
    result = last()
    return [*(other.result() for other in running), result]


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="verifiable")


def fastest(
    calls: Mapping[Strategy, Callable[[], Any]], repeats: int
) -> tuple[Strategy, dict[Strategy, float]]:
    """The strategy whose call takes the least time, and the least seconds of each.

    Calls alternate, so that a machine that slows down halfway slows all of them; the first round,
    which compiles, does not count. The first strategy is kept unless another is faster by a
    twentieth: less is noise.

    Raises:
      ValueError: no calls, or no repeats.
    """
    if not calls or repeats < 1:
        raise ValueError(f"expected calls and repeats to measure, got {len(calls)} and {repeats}")
    seconds = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(repeats):
        for strategy, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[strategy] = min(seconds[strategy], time.perf_counter() - start)
    first, best = next(iter(seconds)), min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < 0.95 * seconds[first] else first, seconds


@dataclass(frozen=True, slots=True)
class Packed:
    """A pytree of arrays as one vector for each dtype: every returned array costs a kernel's time.

    Attributes:
      vectors: by name of the dtype.
      layout: structure of the tree; dtype and shape of each leaf.
    """

    vectors: dict[str, Any]
    layout: tuple[Any, tuple[tuple[str, tuple[int, ...]], ...]]


jax.tree_util.register_dataclass(Packed, data_fields=["vectors"], meta_fields=["layout"])


def pack(tree: Any) -> Packed:
    """Pack a pytree of arrays; a pure function, to be compiled."""
    leaves, structure = jax.tree.flatten(tree)
    groups: dict[str, list[Any]] = {}
    for leaf in leaves:
        groups.setdefault(leaf.dtype.name, []).append(jnp.ravel(leaf))
    vectors = {name: jnp.concatenate(group) for name, group in groups.items()}
    return Packed(vectors, (structure, tuple((x.dtype.name, x.shape) for x in leaves)))


def unpack(packed: Packed) -> Any:
    """The pytree that was packed, as arrays and scalars of numpy."""
    structure, layout = packed.layout
    vectors = {name: np.asarray(vector) for name, vector in packed.vectors.items()}
    used = dict.fromkeys(vectors, 0)
    leaves: list[Any] = []
    for name, shape in layout:
        start = used[name]
        used[name] = stop = start + math.prod(shape)
        vector = vectors[name]
        leaves.append(vector[start:stop].reshape(shape) if shape else vector[start])
    return jax.tree.unflatten(structure, leaves)
