"""Audits and stakes: how many results to check again, which ones, and what a cheat must risk.

    audits_needed(10_000, 100, 1e-6)      # 1284 audits find one of 100 bad receipts of 10,000
    draw(seed, 10_000, 1284)              # which receipts: recomputable from the public seed
    outstanding_cap(50.0, gain=2.0, reward=1.0, audit_rate=0.1)   # unsettled results per stake
    plan(bad=0.1, error=1e-3).best.how    # the cheapest mix of votes and audits

    sampling        draws from a public seed: receipts to audit, identities to seat
    probabilities   how often audits miss; binomial and hypergeometric tails; intervals
    sequential      a test of one worker that stops as early as its error rates allow
    stakes          the least stake that deters, the greatest that honest workers accept
    planning        the cheapest mix of replication and audits for an error

An audit recomputes; only a recomputation is evidence. Specification: specs/sampling.md.
"""

from __future__ import annotations

from verifiable.audits.planning import Economy, NoOption, Option, Plan, plan
from verifiable.audits.probabilities import (
    audits_needed,
    binomial_tail,
    clopper_pearson,
    hypergeometric_tail,
    miss_probability,
)
from verifiable.audits.sampling import draw, draw_each, select
from verifiable.audits.sequential import Finding, Sprt
from verifiable.audits.stakes import Terms, outstanding_cap

__all__ = [
    "Economy",
    "Finding",
    "NoOption",
    "Option",
    "Plan",
    "Sprt",
    "Terms",
    "audits_needed",
    "binomial_tail",
    "clopper_pearson",
    "draw",
    "draw_each",
    "hypergeometric_tail",
    "miss_probability",
    "outstanding_cap",
    "plan",
    "select",
]
