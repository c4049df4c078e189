"""Simulation: the library's voting and audit rules in populations of honest and bad workers.

    population   Population: who answers what; workers are drawn without replacement
    votes        simulate_votes: wrong answers and runs per job under a voting policy
    tolerance    simulate_tolerance: colluders inside a tolerance drag, veto or come first
    trust        simulate_trust: workers that earn trust to spend it, or foresee audits
    stakes       simulate_profit: many cheats on one stake; simulate_vanishing: no-show bonds

`python -m benchmarks voting_error` measures with it. Rules: specs/simulation.md.
"""

from __future__ import annotations

from protocols.simulation.population import Draw, Ints, Kind, Population, drawing
from protocols.simulation.stakes import (
    Profit,
    VanishingProfits,
    simulate_profit,
    simulate_vanishing,
)
from protocols.simulation.tolerance import (
    Attack,
    Drag,
    Floats,
    canonical_ballots,
    simulate_tolerance,
)
from protocols.simulation.trust import (
    EARN_THEN_SPEND,
    Foresight,
    SpendingStrategy,
    best_share,
    simulate_trust,
)
from protocols.simulation.votes import (
    RoundResult,
    Rule,
    Tally,
    VoteStatistics,
    rule_of,
    run_votes,
    simulate_votes,
)

__all__ = [
    "EARN_THEN_SPEND",
    "Attack",
    "Drag",
    "Draw",
    "Floats",
    "Foresight",
    "Ints",
    "Kind",
    "Population",
    "Profit",
    "RoundResult",
    "Rule",
    "SpendingStrategy",
    "Tally",
    "VanishingProfits",
    "VoteStatistics",
    "best_share",
    "canonical_ballots",
    "drawing",
    "rule_of",
    "run_votes",
    "simulate_profit",
    "simulate_tolerance",
    "simulate_trust",
    "simulate_vanishing",
    "simulate_votes",
]
