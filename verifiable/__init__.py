"""Verify, off-chain, AI inference that untrusted devices ran in JAX.

Submodules are imported on first use, so that what needs no JAX loads without it:

    import verifiable
    program = verifiable.program.compile(fn, params, inputs)
"""

from __future__ import annotations

import importlib
from typing import Any

from verifiable._version import __version__ as __version__

_MODULES = frozenset(
    "audits bls challenge encoding errors field freivalds key merkle policy program report trace "
    "voting".split()
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
