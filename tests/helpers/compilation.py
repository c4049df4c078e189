"""Compiles what tests run without most of XLA's optimisations, which take most of a test's time.

The programs are the same HLO, so verdicts, reasons and names are those of users; the last bits of
floats may be others. JAX's own work for a program is made smaller too, with the same result.
"""

from __future__ import annotations

import functools
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

# Code is cut into up to 32 parts for threads: a third of the time, and no operation changes.
_ONE_PART = {"xla_cpu_parallel_codegen_split_count": 1}
# The emitters of fused operations take more than half of it; XLA's earlier ones emit the same
# operations.
_EARLIER_EMITTERS = {"xla_cpu_use_fusion_emitters": False}

# Operations that name functions of their module, or objects that its owner keeps.
_OF_A_MODULE = {"func.call", "stablehlo.composite", "stablehlo.custom_call"}

# Whether all tests compile as users do (`--optimised`).
everything = False
# Whether anything was compiled since `forget_programs`.
compiled_since = False
# What holds now: `optimise`.
_optimised = _devices_only = False

_contexts = threading.local()

# Single operations are kept for other files: so many bytes of bytecode, a tenth of a megabyte each.
_SMALL, _MOST = 2000, 2000
_programs: dict[tuple[int, bytes, bytes], Any] = {}


def share_contexts() -> None:
    """Lower all programs of a thread in one MLIR context, as versions of JAX after 0.10 can.

    A context takes 3 ms and half a megabyte, as much as lowering a small program. Nothing reads
    where in the source an operation comes from, or keeps compiled programs in files.
    """
    import jax  # noqa: PLC0415 - many tests need no JAX
    from jax._src.interpreters import mlir  # noqa: PLC0415

    make = mlir.make_ir_context

    def shared() -> Any:
        if not hasattr(_contexts, "context"):
            _contexts.context, _contexts.lowered = make(), {}
        return _contexts.context

    mlir.make_ir_context = shared
    jax.config.update("jax_traceback_in_locations_limit", 0)
    jax.config.update("jax_enable_compilation_cache", False)


def share_lowerings() -> None:
    """Lower the same operation once a context, not once a program, where one context is shared.

    Of operations that hold no functions, JAX writes each form into a function outside of the
    module, and copies its body. These serve any module of the same context. Names of scopes and
    files are left out: nothing reads them, and programs that differ in nothing else are the same.
    """
    from jax._src import config, core  # noqa: PLC0415 - many tests need no JAX
    from jax._src.interpreters import mlir  # noqa: PLC0415

    if not hasattr(mlir, "_cached_lowering_miss"):
        return
    lower = mlir._cached_lowering_miss

    def shared(ctx: Any, eqn: Any, cache_key: Any, avals_in: Any, **params: Any) -> Any:
        kept = getattr(_contexts, "lowered", None)
        if kept is None or ctx.context is not _contexts.context or ctx.shape_poly_state.dim_vars:
            return lower(ctx, eqn, cache_key, avals_in, **params)
        key = cache_key, ctx.lowering_parameters, config.trace_context()
        entry = kept.get(key)
        if entry is None:
            entry = lower(ctx, eqn, cache_key, avals_in, **params)
            if entry.inline and not entry.const_args and not any(core.jaxprs_in_params(params)):
                kept[key] = entry if _self_contained(entry.func) else False
        elif entry is False:
            return lower(ctx, eqn, cache_key, avals_in, **params)
        ctx.lowering_cache[cache_key] = entry
        return entry

    mlir._cached_lowering_miss = shared
    mlir.source_info_to_location = lambda *_: mlir.ir.Location.unknown()


def _self_contained(function: Any) -> bool:
    """Whether a lowered function needs nothing else of its module."""
    from jax._src.lib.mlir import ir  # noqa: PLC0415

    contained = True

    def visit(operation: Any) -> Any:
        nonlocal contained
        if operation.name in _OF_A_MODULE:
            contained = False
            return ir.WalkResult.INTERRUPT
        return ir.WalkResult.ADVANCE

    function.operation.walk(visit)
    return contained


def forget_contexts() -> None:
    """Let go of the contexts, which keep the constants of all that was lowered in them."""
    global _contexts  # noqa: PLW0603 - those of all threads at once
    _contexts = threading.local()


def share_programs() -> None:
    """Compile the same HLO with the same options once, until `forget_programs`.

    Tests trace one function again and again: for another policy, key, judge or simulated device.
    """
    from jax._src import compiler  # noqa: PLC0415 - many tests need no JAX

    compile_and_load = compiler.backend_compile_and_load

    @functools.wraps(compile_and_load)
    def shared(
        backend: Any, module: Any, devices: Any, options: Any, host_callbacks: Any, **more: Any
    ) -> Any:
        def compiled() -> Any:
            global compiled_since  # noqa: PLW0603 - of the whole run
            compiled_since = True
            return compile_and_load(backend, module, devices, options, host_callbacks, **more)

        if host_callbacks or more or everything:
            return compiled()
        written = io.BytesIO()
        module.operation.write_bytecode(written)
        text = written.getvalue()
        key = len(text), hashlib.sha256(text).digest(), options.SerializeAsString()
        if key not in _programs:
            _programs[key] = compiled()
        return _programs[key]

    compiler.backend_compile_and_load = shared


def forget_programs() -> None:
    """Let go of what `share_programs` holds, except some single operations."""
    global compiled_since  # noqa: PLW0603 - of the whole run
    compiled_since = False
    kept = {key: program for key, program in _programs.items() if key[0] <= _SMALL}
    _programs.clear()
    if len(kept) <= _MOST:
        _programs.update(kept)


def leave_out_the_verifier() -> None:
    """Make keys and checks as in other tests, in those that say `optimised(verifier=False)`."""
    from tests.helpers.interpreted import programs  # noqa: PLC0415 - many tests need no JAX
    from verifiable.check import settings  # noqa: PLC0415

    neutral = settings.neutral

    @contextmanager
    def unoptimised(*, compiled: bool = False) -> Iterator[None]:
        half = without_optimisations() if _devices_only else nullcontext()
        with half, programs.of_verifiers(), neutral(compiled=compiled):
            yield

    settings.neutral = unoptimised


@contextmanager
def without_optimisations() -> Iterator[None]:
    """Compile a part of an optimised test without optimisations: what is not about bits."""
    before, devices_only = _optimised, _devices_only
    optimise(on=False)
    try:
        yield
    finally:
        optimise(on=before, verifier=not devices_only)


def optimise(*, on: bool, verifier: bool = True) -> None:
    """Let XLA optimise what is compiled from now on, as for users, or not.

    Args:
      on: whether it does.
      verifier: whether that holds for keys and checks too.
    """
    global _optimised, _devices_only
    on = on or everything
    _optimised, _devices_only = on, on and not (verifier or everything)
    import jax  # noqa: PLC0415 - many tests need no JAX
    from jax._src import compiler  # noqa: PLC0415

    jax.config.update("jax_disable_most_optimizations", not on)
    current = compiler.get_compile_options
    for_users = getattr(current, "__wrapped__", current)
    compiler.get_compile_options = for_users if everything else _quick(for_users, optimised=on)


@functools.cache
def _quick(for_users: Callable[..., Any], *, optimised: bool) -> Callable[..., Any]:
    """JAX's function that makes XLA's options, with ours that this XLA knows.

    JAX has no setting for them, and some versions of XLA no earlier emitters.
    """
    wanted = _ONE_PART if optimised else _ONE_PART | _EARLIER_EMITTERS
    known = [(option, value) for option, value in wanted.items() if _knows(option, value)]

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
