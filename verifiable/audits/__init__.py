"""Audits and stakes: which results to audit, how many of them, and which stake deters a cheat.

    sampling   draws of receipts and seats; how many audits an error takes; a sequential test
    stakes     the stake that deters a cheat, and the largest that honest workers accept
    planning   the cheapest mix of replication and audits for a given error

Specification: specs/sampling.md.
"""

from __future__ import annotations

from verifiable.audits.planning import (
    Economy,
    Option,
    Plan,
    audited_quorum,
    least,
    plan,
)
from verifiable.audits.sampling import (
    Finding,
    Sprt,
    audits_needed,
    binomial_tail,
    clopper_pearson,
    draw,
    draw_each,
    hypergeometric_tail,
    miss_probability,
    select,
)
from verifiable.audits.stakes import (
    Terms,
    outstanding_cap,
)

__all__ = [
    "Economy",
    "Finding",
    "Option",
    "Plan",
    "Sprt",
    "Terms",
    "audited_quorum",
    "audits_needed",
    "binomial_tail",
    "clopper_pearson",
    "draw",
    "draw_each",
    "hypergeometric_tail",
    "least",
    "miss_probability",
    "outstanding_cap",
    "plan",
    "select",
]
