"""Numbers and tables as a report writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape


def finite(x: float) -> float | None:
    """The number, or None where it is infinite or NaN, for which JSON has no word."""
    return float(x) if math.isfinite(x) else None


def shortlist(names: Sequence[str], shown: int, separator: str = ", ") -> str:
    """The first names, `shown` of them at most, and how many more there are."""
    more = f" and {len(names) - shown} more" if names[shown:] else ""
    return separator.join(names[:shown]) + more


def coloured(verdict: str, head: str) -> str:
    """A line about a verdict in HTML, bold and in the verdict's colour; escaped."""
    colour = {"accept": "#1a7f37", "reject": "#cf222e"}.get(verdict, "#9a6700")
    return f'<b style="color:{colour}">{escape(head)}</b>'


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows as text in aligned columns; the first row is the header."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = ([c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in rows)
    lines = ["  ".join(row).rstrip() for row in padded]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)
