"""What `verifiable demo` shows of receipts and audits of a part. Needs `rich`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from protocols.demo.cells import kilobytes, marked, megabytes

if TYPE_CHECKING:
    from protocols.demo.scenes.receipts import ReceiptsSummary


def as_dict(summary: ReceiptsSummary) -> dict[str, Any]:
    """Return the scene's part of the JSON object."""
    return {
        "receipts": {
            "workers": [
                {
                    "name": outcome.part.name,
                    "honest": outcome.part.honest,
                    "audited": outcome.audited,
                    "outcome": outcome.outcome,
                    "reason": outcome.reason,
                    "bytes": outcome.sent,
                }
                for outcome in summary.outcomes
            ],
            "bytes": summary.sent,
            "bytes_whole": summary.whole * len(summary.outcomes),
            "detection": None if summary.detection is None else summary.detection.to_dict(),
        }
    }


def render(summary: ReceiptsSummary) -> Iterator[RenderableType]:
    """Draw the scene: the table of workers, what an audit meets, and bytes with and without."""
    table = Table(box=box.SIMPLE_HEAD, title="Receipts, and audits of a part", pad_edge=False)
    for column in ("worker", "what it did", "audited", "outcome", "reason", "sent"):
        table.add_column(
            column,
            overflow="fold",
            no_wrap=column in ("outcome", "sent"),
            justify="right" if column == "sent" else "left",
        )
    for outcome in summary.outcomes:
        table.add_row(
            outcome.part.name,
            outcome.part.did,
            "in part" if outcome.audited else "no",
            marked(outcome.outcome, right=outcome.right),
            outcome.reason,
            kilobytes(outcome.sent),
        )
    yield Text()
    yield table
    if summary.detection is not None:
        yield Text(f"{summary.detection}", style="dim")
    count, whole = len(summary.outcomes), summary.whole * len(summary.outcomes)
    audits = sum(outcome.audited for outcome in summary.outcomes)
    yield Text(
        f"\n{count} workers sent {megabytes(summary.sent)} in all, {audits} of them audited in "
        f"part; with whole traces they had sent {megabytes(whole)}.",
        style="bold green" if summary.right else "bold red",
    )
