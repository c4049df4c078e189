"""Benchmarks: one claim a module, measured side by side with its baseline in one run."""
