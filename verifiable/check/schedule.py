"""How a check is compiled: what is decided by measurement and never changes a verdict.

A check touches every byte of a trace a few times and does little with it, so memory decides its
speed. What XLA allocates for temporaries comes from the C library at each call; beyond 32 MB,
glibc gives it back to the system each time, and every page of it faults and is zeroed again, which
can take as long as the arithmetic itself. Hence

* tests of claims go over tiles, and so do replayed attention, activations and norms before them
  (`tiling`): no copy of a claim in double precision, no matrix of scores, no keys are ever whole;
* of XLA's schedulers for CPUs, the one that saves memory is used, rather than the one that finds
  parallel work; under a scan it is the slower one;
* vectors are as wide as the core's (XLA stops at 256 bits), which halves the time of an activation
  where there are units of 512 bits;
* what a check measures, some hundred scalars, comes back in three arrays;
* a check is two programs, each of which tests half of the claims, on a thread each: its operations
  are too small to keep two cores busy one after the other, while the halves depend on nothing of
  each other but cheap glue, which both replay. Both run through every scan. The caller's thread is
  one of the two: to wake another takes as long as several operations.

`default` is right for most programs. `fastest` measures all `candidates`.
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
_VECTORS = {"xla_cpu_prefer_vector_width": 512}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One way to compile a check.

    Attributes:
      save_memory: on CPUs, whether XLA orders operations for few temporaries. It is slower where
        claims stand under a scan.
      tile_bytes: about how large the largest value in a tile is; 0 for no tiles.
      parts: programs that each test a part of the claims, at the same time.
    """

    save_memory: bool = True
    tile_bytes: int = 2**20
    parts: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no number of programs, or of bytes."""
        if self.parts < 1 or self.tile_bytes < 0:
            raise ValueError(f"parts are 1 or more, bytes 0 or more, got {self}")

    def options(self) -> dict[str, Any]:
        """Compiler options for the backend at hand."""
        if jax.default_backend() != "cpu":
            return {}
        return _VECTORS | _MEMORY if self.save_memory else dict(_VECTORS)


def default(trace_bytes: int, *, scans: bool) -> Strategy:
    """What suits most programs, without measuring.

    Args:
      trace_bytes: size of all claims of the program.
      scans: whether claims stand under a scan.
    """
    # Small tiles leave a second core idle, and pack the random vectors again and again; a second
    # program takes as long to compile as the first, which small checks do not earn back.
    parts = 2 if trace_bytes >= 2**23 and (os.cpu_count() or 1) > 1 else 1
    tile_bytes = min(2**22, max(2**20, trace_bytes // 8)) // parts
    return Strategy(save_memory=not scans, tile_bytes=tile_bytes, parts=parts)


def candidates(default: Strategy) -> tuple[Strategy, ...]:
    """What to measure; the default comes first."""
    other = replace(default, save_memory=not default.save_memory)
    smaller = replace(default, tile_bytes=default.tile_bytes // 2)
    return default, other, smaller, replace(default, parts=3 - min(default.parts, 2))


def compile(fn: Callable[..., Any], strategy: Strategy) -> Callable[..., Any]:
    """`jax.jit(fn)` with those options of a strategy that XLA knows."""
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
      costs: of the items.
      parts: how many there are at most.
    """
    total, before, cuts = sum(costs), 0.0, [0]
    for i in range(1, len(costs)):
        before += costs[i - 1]
        # The cut that is nearest to the next part's share.
        due = total * len(cuts) / parts
        if len(cuts) < parts and before + costs[i] / 2 >= due:
            cuts.append(i)
    return [range(a, b) for a, b in itertools.pairwise([*cuts, len(costs)])]


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Results of calls that run at the same time: the last on the caller's thread."""
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
    """The strategy whose call takes the least time, and the seconds of each: the best of some.

    Calls alternate, so that a machine that slows down half way slows all of them; the first round,
    which compiles, does not count. What is not faster than the first by a twentieth is noise.

    Raises:
      ValueError: no calls, or no repeats.
    """
    if not calls or repeats < 1:
        raise ValueError("there is nothing to measure")
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
    """A pytree of arrays as one vector for each dtype: an array costs as much as a kernel.

    Attributes:
      vectors: by name of the dtype.
      layout: structure of the tree, and dtype and shape of each leaf.
    """

    vectors: dict[str, Any]
    layout: tuple[Any, tuple[tuple[str, tuple[int, ...]], ...]]


jax.tree_util.register_dataclass(Packed, data_fields=["vectors"], meta_fields=["layout"])


def pack(tree: Any) -> Packed:
    """Pack a pytree of arrays; pure, to be compiled."""
    leaves, structure = jax.tree.flatten(tree)
    groups: dict[str, list[Any]] = {}
    for leaf in leaves:
        groups.setdefault(leaf.dtype.name, []).append(jnp.ravel(leaf))
    vectors = {name: jnp.concatenate(group) for name, group in groups.items()}
    return Packed(vectors, (structure, tuple((x.dtype.name, x.shape) for x in leaves)))


def unpack(packed: Packed) -> Any:
    """The pytree again, of numpy arrays."""
    structure, layout = packed.layout
    vectors = {name: np.asarray(vector) for name, vector in packed.vectors.items()}
    used = dict.fromkeys(vectors, 0)
    leaves: list[np.ndarray[Any, Any]] = []
    for name, shape in layout:
        start = used[name]
        used[name] = stop = start + math.prod(shape)
        leaves.append(vectors[name][start:stop].reshape(shape))
    return jax.tree.unflatten(structure, leaves)
