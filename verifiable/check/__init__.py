"""Execution and check of a compiled program."""
