"""Gives back the memory of compiled programs: JAX keeps every one, some megabytes each."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path

from tests.helpers import compilation

# Bytes of memory that a process may hold before it gives programs back; a file needs up to half a
# gigabyte more.
ENOUGH = 1_200_000_000


def forget_results() -> None:
    """Empty the `functools` caches of test modules and helpers that use JAX."""
    for name, module in list(sys.modules.items()):
        if name.startswith("tests.") and hasattr(module, "jax"):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def held() -> float:
    """Bytes of this process that are in memory; infinitely many where the system does not say."""
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        return float("inf")
    return int(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def free_compiled_programs(*, beyond: float = 0) -> None:
    """Drop programs that nothing refers to, and return their memory to the system.

    Files share what JAX traced and compiled of the library and of single operations.

    Args:
      beyond: bytes in memory up to which all stays as it is.
    """
    if "jax" not in sys.modules or not compilation.compiled_since or held() <= beyond:
        return
    import jax  # noqa: PLC0415 - many tests need no JAX

    jax.clear_caches()
    compilation.forget_contexts()
    compilation.forget_programs()
    gc.unfreeze()
    gc.collect()
    gc.freeze()  # What is left lives as long as the run: later collections leave it out.
    # XLA compiles on many threads, and glibc keeps what each of them has freed.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
