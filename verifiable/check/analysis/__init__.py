"""The analysis of a function: what is a claim, what is replayed, what a key keeps, and its id.

dataflow     facts about each variable, and which equations are claims
partition    the split of the check into setup and replay; `arithmetic`: how much of it is replayed
tables       values of parameters and constants that a device commits to
equal_roundings  roundings of one value that are committed once
cuts         what layers pass on, as claims
cancellation, element_bounds  the scale of an output, and of its elements
subnormal    comparisons of numbers that many devices flush to zero
program_id   32 bytes that depend on everything that decides the result
"""
