"""Keeps what XLA compiled for tests without a change, so that the forks of mutants load it.

A fork can use no program of its parent: XLA's client has threads, which no fork takes along.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from assurance.mutation import table

writing = False
"""Whether to add programs that the folder does not have: not those of changed modules."""


def keep(folder: Path) -> None:
    """Have the tests of this process keep their programs in a folder, once pytest has found them.

    Args:
      folder: of the machine's processor, and of the versions of JAX.
    """
    from tests.helpers import kept  # noqa: PLC0415 - found by pytest, which has read conftest.py

    write = kept.Kept.write

    def written(self: kept.Kept, digest: bytes, program: Any) -> None:
        if writing:
            write(self, digest, program)

    folder.mkdir(parents=True, exist_ok=True)
    kept.folder = lambda config: folder
    kept.Kept.write = written


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
