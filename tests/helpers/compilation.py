"""Compiles what tests run without most of XLA's optimisations, which take most of a test's time.

The programs are the same HLO, so verdicts, reasons and names are those of users; the last bits of
floats may be others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# The emitters of fused operations take more than half of the time; XLA's earlier ones emit the same
# operations. Code is cut into up to 32 parts for threads, which costs a third of what is left.
_QUICK = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}

# Whether all tests compile as users do (`--optimised`).
everything = False


@contextmanager
def without_optimisations() -> Iterator[None]:
    """Compile a part of an optimised test without optimisations: what is not about bits."""
    optimise(on=False)
    try:
        yield
    finally:
        optimise(on=True)


def optimise(*, on: bool) -> None:
    """Let XLA optimise what is compiled from now on, as for users, or not."""
    on = on or everything
    import jax  # noqa: PLC0415 - many tests need no JAX
    from jax._src import compiler  # noqa: PLC0415

    jax.config.update("jax_disable_most_optimizations", not on)
    current = compiler.get_compile_options
    for_users = getattr(current, "__wrapped__", current)
    compiler.get_compile_options = for_users if on else _quick(for_users)


@functools.cache
def _quick(for_users: Callable[..., Any]) -> Callable[..., Any]:
    """JAX's function that makes XLA's options, with those of `_QUICK` that this XLA knows.

    JAX has no setting for them, and some versions of XLA no earlier emitters.
    """
    known = [(option, value) for option, value in _QUICK.items() if _knows(option, value)]

    @functools.wraps(for_users)
    def options(*arguments: Any, **more: Any) -> Any:
        made = for_users(*arguments, **more)
        made.env_option_overrides = [*made.env_option_overrides, *known]
        return made

    return options


def _knows(option: str, value: bool | int) -> bool:
    """Whether the installed XLA has an option."""
    import jax  # noqa: PLC0415

    try:
        jax.jit(lambda: 0, compiler_options={option: value}).lower().compile()
    except Exception as error:
        if "No such compile option" not in str(error):
            raise
        return False
    return True
