"""Verify, off-chain, AI inference that untrusted devices ran in JAX.

Submodules are imported on first use, so that what needs no JAX loads without it:

    import verifiable
    program = verifiable.program.compile(fn, params, inputs)
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = frozenset(
    {
        "agreement",
        "bls",
        "challenge",
        "corridor",
        "encoding",
        "errors",
        "freivalds",
        "key",
        "merkle",
        "planning",
        "policy",
        "program",
        "replication",
        "report",
        "reputation",
        "sampling",
        "stakes",
        "strategy",
        "trace",
        "voting",
    }
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
