"""The settings of JAX under which a program is traced, run and checked.

A process, or a device that shares it, may have set flags that make JAX raise where a value is not
finite or crosses between host and device, refuse to mix types, or multiply in fewer digits. None of
them may change a verdict or a key, or raise. Whatever changes a result without being
part of a jaxpr is part of the program's id instead (`jaxpr.from_jax`).

A process that was forked after JAX was used inherits JAX without its threads, and hangs at the next
operation. There, an error is raised instead.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from verifiable.trace.validate import array_types

P = ParamSpec("P")
R = TypeVar("R")

_IMPORTED_IN = os.getpid()
_PROBE = jax.jit(lambda: np.int32(0))
_PATIENCE = 10.0  # seconds for one addition, in a forked process


def require_threads() -> None:
    """Require that JAX works in this process.

    Raises:
      RuntimeError: the process was forked after its parent had used JAX.
    """
    process = os.getpid()
    if process != _IMPORTED_IN and not _answers(process):
        raise RuntimeError(
            f"process {process} was forked after JAX was used in its parent, and JAX does not "
            "answer here: start it by spawn (multiprocessing.get_context('spawn')), compile the "
            "program there, and pass the key as VerifierKey.to_bytes; or fork before JAX is used"
        )


@functools.cache
def _answers(process: int) -> bool:
    answered = threading.Event()

    def add() -> None:
        jax.block_until_ready(jax.jit(lambda x: x + process)(1))
        answered.set()

    threading.Thread(target=add, daemon=True).start()
    return answered.wait(_PATIENCE)


@contextmanager
def neutral(*, compiled: bool = False) -> Generator[None, None, None]:
    """Run under the defaults of JAX, in this thread.

    Types keep the width that the caller has chosen with `jax.enable_x64`.

    Args:
      compiled: whether compiled functions must run compiled.

    Raises:
      RuntimeError: the process was forked after its parent had used JAX.
    """
    require_threads()
    if _is_neutral(compiled):
        yield
        return
    with _defaults():
        if compiled:
            with jax.disable_jit(False):
                yield
        else:
            yield


def on_host(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function that hashes, compares or decides: under the defaults of JAX, never traced.

    Args:
      function: its positional arguments hold arrays, as far as they are pytrees.

    Returns:
      The function, which raises TypeError if JAX traces it or one of these arrays.
    """

    @functools.wraps(function)
    def run(*arguments: P.args, **options: P.kwargs) -> R:
        with neutral():
            probe = _PROBE()  # traced wherever a function is being traced
            arrays = [x for x in (probe, *jax.tree.leaves(arguments)) if isinstance(x, jax.Array)]
            if not {*map(type, arrays)} <= {*array_types()}:
                name = function.__name__
                raise TypeError(
                    f"{name} hashes and decides on the host, so jit, vmap or scan cannot trace it: "
                    "call it outside. Of a program, execute and statistics are pure functions that "
                    "can be traced"
                )
            return function(*arguments, **options)

    return run


def _defaults() -> ExitStack:
    settings: list[Any] = [
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.check_tracer_leaks(False),
        jax.transfer_guard("allow"),
        jax.default_matmul_precision(None),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ]
    with ExitStack() as stack:
        for setting in settings:
            stack.enter_context(setting)
        return stack.pop_all()


# To enter all settings takes as long as to judge ten claims, to read them a hundredth of that.
_FLAGS = attrgetter(
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_check_tracer_leaks",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
)
_GUARDS = attrgetter(
    "jax_transfer_guard_host_to_device",
    "jax_transfer_guard_device_to_device",
    "jax_transfer_guard_device_to_host",
)


@functools.cache
def _neutral_flags() -> tuple[Any, ...]:
    with _defaults():
        return _FLAGS(jax.config)


def _is_neutral(compiled: bool) -> bool:
    """Whether this thread runs under the defaults already."""
    guards = all(guard in (None, "allow") for guard in _GUARDS(jax.config))
    op_by_op = compiled and jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]
    return guards and not op_by_op and _FLAGS(jax.config) == _neutral_flags()
