"""Parts of a benchmark in processes of their own, each on its own share of the cores.

Ratios within a part stay ratios of one process on the same cores. Seconds of parts that ran side by
side share the memory's bandwidth: measure those with one job.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_order(parts: Sequence[Callable[[], T]], jobs: int = 1) -> Iterator[T]:
    """Call each part; yield what they return, in their order.

    Args:
      parts: what to call. With more than one job they and their results travel between processes:
        partial applications of functions of modules, and plain values.
      jobs: how many run at once; with 1 they run here, one when the one before has been taken.
    """
    if jobs == 1:
        for part in parts:
            yield part()
        return
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        shares = manager.Queue()
        for share in _shares(jobs):
            shares.put(share)
        with ProcessPoolExecutor(jobs, context, initializer=_pin, initargs=(shares,)) as pool:
            yield from pool.map(_call, parts)


def _call(part: Callable[[], T]) -> T:
    return part()


def _shares(jobs: int) -> list[set[int]]:
    """The cores that this process may use, dealt out; with more jobs than cores, some have two."""
    cores = sorted(os.sched_getaffinity(0))
    if jobs >= len(cores):
        return [{cores[n % len(cores)]} for n in range(jobs)]
    return [set(cores[n::jobs]) for n in range(jobs)]


def _pin(shares: multiprocessing.Queue[set[int]]) -> None:
    """Keep to a share of the cores: XLA makes as many threads as it may use."""
    os.sched_setaffinity(0, shares.get())
