"""What every command prints: a result, or an error about its arguments."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

AS_JSON = "Print one JSON object instead of tables."
"""The help of the option `--json`."""


def show(found: dict[str, Any], parts: Iterable[RenderableType], *, as_json: bool) -> None:
    """Print a result: one JSON object, or tables and text."""
    from rich.console import Console  # noqa: PLC0415 - an optional dependency

    if as_json:
        print(json.dumps(found, allow_nan=False))
        return
    stdout = Console()
    console = stdout if stdout.is_terminal else Console(width=100)
    for part in parts:
        console.print(part)


def fail(error: Exception) -> int:
    """Print an error about the arguments in one line, and return the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return 2
