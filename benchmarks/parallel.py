"""Parts of a benchmark in processes of their own, each on its own share of the cores.

Ratios within a part stay ratios of one process on the same cores. Seconds of parts that ran side by
side share the memory's bandwidth: measure those with one job.
"""

from __future__ import annotations

import functools
import hashlib
import math
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def in_order(
    parts: Sequence[Callable[[], T]],
    jobs: int = 1,
    minutes: float = math.inf,
    shards: str | None = None,
) -> Iterator[T]:
    """Call each part; yield what they return, in their order.

    Args:
      parts: what to call. With more than one job they and their results travel between processes:
        partial applications of functions of modules, and plain values.
      jobs: how many run at once; with 1 they run here, one when the one before has been taken.
      minutes: after so many no further part is begun, and those that were not are left out.
      shards: folder for what each part returned; those that are there are not called again, so a
        run that was cut short goes on. For one machine and one state of the code.
    """
    end = time.monotonic() + 60 * minutes
    if shards is not None:
        folder = Path(shards)
        folder.mkdir(parents=True, exist_ok=True)
        parts = [functools.partial(_kept, folder, part) for part in parts]
    if jobs == 1:
        for part in parts:
            if time.monotonic() >= end:
                return
            yield part()
        return
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        shares = manager.Queue()
        for share in _shares(jobs):
            shares.put(share)
        with ProcessPoolExecutor(jobs, context, initializer=_pin, initargs=(shares,)) as pool:
            futures = [pool.submit(_unless_late, end, part) for part in parts]
            for future in futures:
                yield from future.result()


def _kept(folder: Path, part: Callable[[], T]) -> T:
    """What a part returned, from its file where there is one."""
    file = folder / hashlib.sha256(pickle.dumps(part)).hexdigest()[:32]
    if file.exists():
        return pickle.loads(file.read_bytes())  # noqa: S301 - this function wrote it
    found = part()
    whole = file.with_suffix(".part")
    whole.write_bytes(pickle.dumps(found))
    whole.rename(file)
    return found


def _unless_late(end: float, part: Callable[[], T]) -> list[T]:
    # The clock is one for all processes of a machine.
    return [part()] if time.monotonic() < end else []


def _shares(jobs: int) -> list[set[int]]:
    """The cores that this process may use, dealt out; with more jobs than cores, some have two."""
    cores = sorted(os.sched_getaffinity(0))
    if jobs >= len(cores):
        return [{cores[n % len(cores)]} for n in range(jobs)]
    return [set(cores[n::jobs]) for n in range(jobs)]


def _pin(shares: multiprocessing.Queue[set[int]]) -> None:
    """Keep to a share of the cores: XLA makes as many threads as it may use."""
    os.sched_setaffinity(0, shares.get())
