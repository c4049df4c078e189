"""How the demo's scene of receipts ends, without playing it."""

from __future__ import annotations

from protocols.demo.scenes import receipts
from verifiable.report import Detection


def receipts_summary(**change: str) -> receipts.ReceiptsSummary:
    """Receipts as they should end, with the outcomes of some workers changed."""
    outcomes = tuple(
        receipts.ReceiptOutcome(
            part=part,
            audited=part.new,
            outcome=change.get(
                part.name, ("passed" if part.honest else "rejected") if part.new else "unaudited"
            ),
            reason="commitment-mismatch",
            sent=123_456 if part.new else 3_456,
        )
        for part in receipts.CAST
    )
    detection = Detection(layers=24, audited=1, rows=128, audited_rows=1)
    return receipts.ReceiptsSummary(outcomes=outcomes, whole=87_654_321, detection=detection)
