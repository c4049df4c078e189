"""Keeps what XLA compiled, so that forks load it: a fork can use no program of its parent.

XLA's client has threads, which no fork takes along.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from assurance.mutation import table

writing = False
"""Whether to add programs that the folder does not have: not those of changed modules."""


def keep(folder: Path) -> None:
    """Load programs from a folder where it has them, from now on.

    Args:
      folder: of the machine's processor, and of the versions of JAX.
    """
    from jax._src import compiler  # noqa: PLC0415 - before anything is computed

    compile_and_load = compiler.backend_compile_and_load

    @functools.wraps(compile_and_load)
    def cached(
        backend: Any, module: Any, devices: Any, options: Any, host_callbacks: Any, **more: Any
    ) -> Any:
        if host_callbacks or more:
            return compile_and_load(backend, module, devices, options, host_callbacks, **more)
        written = io.BytesIO()
        module.operation.write_bytecode(written)
        text = hashlib.sha256(options.SerializeAsString() + written.getvalue()).hexdigest()
        path = folder / text[:2] / text
        if path.exists():
            return backend.deserialize_executable(path.read_bytes(), devices, options)
        program = compile_and_load(backend, module, devices, options, host_callbacks)
        if writing:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f"{text}.{os.getpid()}")
            part.write_bytes(program.serialize())
            part.rename(path)
        return program

    compiler.backend_compile_and_load = cached


@functools.cache
def machine() -> dict[str, Any]:
    """This machine, as a process of its own finds it: JAX must not begin in the one that forks."""
    text = "import json; from benchmarks.harness import machine; print(json.dumps(machine()))"
    found = subprocess.run(  # noqa: S603 - a fixed text
        [sys.executable, "-c", text], cwd=table.ROOT, capture_output=True, check=True, text=True
    )
    return json.loads(found.stdout)


def folder_in(cache: Path) -> Path:
    """Where programs of this processor and of these versions are kept."""
    text = f"{importlib.metadata.version('jaxlib')} {machine()['cpu']}"
    return cache / f"programs-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
