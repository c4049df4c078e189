"""Populations of workers, honest and not."""

from __future__ import annotations

from protocols.simulation.population import (
    Draw,
    Ints,
    Kind,
    Measured,
    Population,
    Rule,
    Tally,
    Verdict,
    drawing,
    hold,
    rule_of,
    vote,
)

__all__ = [
    "Draw",
    "Ints",
    "Kind",
    "Measured",
    "Population",
    "Rule",
    "Tally",
    "Verdict",
    "drawing",
    "hold",
    "rule_of",
    "vote",
]
