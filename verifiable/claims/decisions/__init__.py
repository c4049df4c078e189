"""Decisions as claims: comparisons, choices, pieces of functions, and how often a loop ran."""
