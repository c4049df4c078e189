"""Kinds of claims, the test of each, and the registry: which primitive becomes which kind."""
