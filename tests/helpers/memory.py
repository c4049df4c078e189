"""Gives back the memory of compiled programs: JAX keeps every one, some megabytes each."""

from __future__ import annotations

import ctypes
import gc
import sys

from tests.helpers import compilation


def forget_results() -> None:
    """Empty the `functools` caches of test modules and helpers that use JAX."""
    for name, module in list(sys.modules.items()):
        if name.startswith("tests.") and hasattr(module, "jax"):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def free_compiled_programs() -> None:
    """Drop programs that nothing refers to, and return their memory to the system."""
    if "jax" not in sys.modules or not compilation.compiled_since:
        return
    import jax  # noqa: PLC0415 - many tests need no JAX

    jax.clear_caches()
    compilation.forget_contexts()
    compilation.forget_programs()
    gc.collect()
    gc.freeze()  # What is left lives as long as the run: later collections leave it out.
    # XLA compiles on many threads, and glibc keeps what each of them has freed.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
