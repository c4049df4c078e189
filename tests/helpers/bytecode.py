"""Keeps bytecode for the tests where Python is told to write none.

Otherwise each of the processes compiles all that it imports: a second for JAX alone.
"""

from __future__ import annotations

import os
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest


def keep(config: pytest.Config) -> None:
    """Keep bytecode of this process, and of those that it starts, in pytest's own cache.

    An environment that has its bytecode is left alone: in another folder Python would not find it.
    """
    cache = getattr(config, "cache", None)
    told = sys.dont_write_bytecode and sys.pycache_prefix is None
    if told and cache is not None and not Path(cache_from_source(pytest.__file__)).exists():
        try:
            folder = str(cache.mkdir("bytecode"))
        except OSError:
            return  # A checkout that is only read has no cache.
        sys.dont_write_bytecode, sys.pycache_prefix = False, folder
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
