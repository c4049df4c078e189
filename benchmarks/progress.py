"""How far a long measurement is, told between its rows.

A benchmark counts what it repeats with `steps`; the harness listens, and shows what it hears on a
terminal, or writes a line now and then elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

_listeners: list[Callable[[str], None]] = []


@contextmanager
def told_to(listener: Callable[[str], None]) -> Generator[None]:
    """While it is entered, a listener gets one line at each step, `what: done of total, time left`.

    Of several, the innermost one.
    """
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.pop()


def steps(total: int, what: str) -> Iterator[int]:
    """Count from 0 to `total` - 1 and tell how far it is.

    Args:
      total: number of steps, which should take about as long each.
      what: what is done, such as "honest runs in f32".
    """
    start = time.perf_counter()
    for n in range(total):
        yield n
        if _listeners:
            left = (time.perf_counter() - start) / (n + 1) * (total - n - 1)
            _listeners[-1](f"{what}: {n + 1:,} of {total:,}, about {left:.0f} s left")
