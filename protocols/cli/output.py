"""What every command prints: a result, or an error about its arguments."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

AS_JSON = "Print one JSON object instead of tables."
"""The help of the option `--json`."""

# Control characters but tab and newline, separators of lines, bidirectional controls, surrogates.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Text that somebody sent, with each control character as its escape: it moves no cursor."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


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
    print(f"error: {' '.join(visible(str(error)).splitlines())}", file=sys.stderr)
    return 2
