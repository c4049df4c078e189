"""What tests have compiled is given back: JAX keeps every program, some megabytes each."""

from __future__ import annotations

import ctypes
import gc
import sys
from types import ModuleType


def forget_results(module: ModuleType) -> None:
    """Empty the `functools` caches of a module's own functions."""
    for value in vars(module).values():
        if hasattr(value, "cache_clear") and value.__module__ == module.__name__:
            value.cache_clear()


def free_compiled_programs() -> None:
    """Drop the programs that nothing refers to, and return their memory to the system."""
    if "jax" not in sys.modules:
        return
    import jax  # noqa: PLC0415 - many tests need no JAX

    jax.clear_caches()
    gc.collect()
    # XLA compiles on many threads, and glibc keeps what each of them has freed.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
