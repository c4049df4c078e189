"""Keeps compiled programs in a folder of one run of the tests, for all of its processes.

To read a program takes a tenth of the time that it takes to compile it. Its code is the same, and
so are its bits: a folder serves one machine and one version of XLA, and goes with its run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

_KEY = pytest.StashKey[str]()
_INPUT = "folder_of_programs"


def folder(config: pytest.Config) -> Path:
    """The folder of this run: the process that hands out the tests makes and removes it."""
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    found = worker.get(_INPUT) or config.stash.get(_KEY, None)
    if found is None:
        found = config.stash[_KEY] = tempfile.mkdtemp(prefix="verifiable-tests-")
        config.add_cleanup(lambda: shutil.rmtree(found, ignore_errors=True))
    return Path(found)


def hand_to(node: Any) -> None:
    """Tell a process that runs tests which folder it is; `node` is xdist's."""
    node.workerinput[_INPUT] = str(folder(node.config))


class Kept:
    """Compiled programs by their digests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, digest: bytes, backend: Any, devices: Any, options: Any) -> Any:
        """The program of a digest, or None if there is none.

        Args:
          digest: of its HLO and of the options that it was compiled with.
          backend: JAX's client.
          devices: where the program will run.
          options: JAX's options of the compiler.
        """
        try:
            found = (self.folder / digest.hex()).read_bytes()
        except FileNotFoundError:
            return None
        return backend.deserialize_executable(found, devices, options)

    def write(self, digest: bytes, program: Any) -> None:
        """Keep a program, whole or not at all: another process may read it at any time.

        Where the disk is full, it will be compiled again.
        """
        part = self.folder / f"{digest.hex()}.{os.getpid()}-{threading.get_ident()}"
        serialised = program.serialize()
        with contextlib.suppress(OSError):
            part.write_bytes(serialised)
            part.rename(part.with_suffix(""))
