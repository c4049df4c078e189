"""Verdicts, and the reports that carry them.

*accept*: everything was checked and passed. *reject*: a commitment, a proof or a test shows a
wrong answer. *indeterminate*: nothing was shown either way; reschedule, never blame.

    reasons     `Verdict`, and `REASONS`: the stable codes that say why
    detection   what an audit of a part leaves to a cheat: `Detection`
    freedom     what a pass leaves to a cheat: `Bound`, `Corridor`, `NearTie`
    report      what became of a contraction, a claim, and a run: `Result`, `ClaimResult`, `Report`
    formatting  numbers and tables as text
"""

from __future__ import annotations

from verifiable.report.detection import Detection
from verifiable.report.formatting import table
from verifiable.report.freedom import Bound, Corridor, NearTie
from verifiable.report.reasons import REASONS, Verdict, require
from verifiable.report.report import AuditCoverage, ClaimResult, Coverage, Report, Result

__all__ = [
    "REASONS",
    "AuditCoverage",
    "Bound",
    "ClaimResult",
    "Corridor",
    "Coverage",
    "Detection",
    "NearTie",
    "Report",
    "Result",
    "Verdict",
    "require",
    "table",
]
