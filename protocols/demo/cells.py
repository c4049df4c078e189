"""Cells of the demo's tables: verdicts, names, numbers and sizes as text. Needs `rich`."""

from __future__ import annotations

import math

from rich.text import Text


def marked(text: str, *, right: bool) -> Text:
    """Return a verdict, green where it is right and marked where it is wrong."""
    return Text(text, style="green") if right else Text(f"{text} (wrong)", style="bold red")


def scope(claim: str | None) -> str:
    """Return the scope of a claim: its name without the primitive at the end."""
    return "-" if claim is None else claim.rpartition("/")[0] or claim


def ratio_text(worst: float | None) -> str:
    """Return a ratio with three significant digits, in full below a million."""
    if worst is None:
        return "-"
    return f"{worst:,.0f}" if 100 <= worst < 1e6 else f"{worst:.3g}"


def finite(value: float | None) -> float | None:
    """Return a finite number, or None."""
    return value if value is not None and math.isfinite(value) else None


def milliseconds(seconds: float) -> str:
    """Return a duration as text."""
    return f"{seconds * 1e3:,.1f} ms"


def kilobytes(count: int) -> str:
    """Return a size as text, in units of 10^3 bytes."""
    return f"{count / 1e3:,.1f} kB"


def megabytes(count: int) -> str:
    """Return a size as text, in units of 10^6 bytes."""
    return f"{count / 1e6:,.1f} MB"
