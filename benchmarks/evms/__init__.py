"""Mutated calls of the contract, and another EVM to make them in."""
