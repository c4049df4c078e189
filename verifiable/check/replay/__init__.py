"""Replay: a run evaluated again with every claim given.

replay            the whole check as a function: every contraction is replaced by its claim
operands          only what the operands of some claims and outputs need; `needed`: which variables
on_demand         such replays of a run, with the values that a key holds
key_layout        what a key holds, by name: the arrays that replays need
parameter_values  what other rounding does to values that depend on parameters only
"""
