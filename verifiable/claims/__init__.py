"""Kinds of claims, the test of each, and the registry of primitives."""
