"""Execution and check of a compiled program.

dataflow, partition     which equations are claims, what is replayed, what the key keeps
tables, known           values of parameters and constants: committed, or moved by other rounding
cuts                    what layers pass on, as claims
specification           what both sides know; `program_id`, `trees`, `describe`, `warn`
setup, key_layout       making a key; the names of its arrays; `excerpts`: blocks stored once
execute                 the device's half
replay, compiled        the coordinator's half; as compiled programs (`schedule`, `tiling`)
receive, outputs        what a device sent, compared with the program and with the replay
verdict, again          from statistics to a report; what failed is looked at again
second_look, spread     a failed test again: the replays, and what they decide (`allowance`)
operands, replays       replays of only what some claims need
aftermath               numbers of trips that change nothing after their loop
partial                 audits of some layers
flips, subnormal        decisions that honest devices may turn round, and how many
evidence, accused       evidence for others, and its judge
near_ties, leeway, glue choices that tolerances could have decided (`from_rows`, `closest`)
steering, lineage       which choices a device may steer; `followed`, `moved`, `turned`: others
corridor, relaxed       how far tolerances let an answer be moved
calibration             tolerances measured on honest runs
cancellation, own_sizes the scale of an output whose terms cancel; elements of other sizes
arithmetic              how many operations are claims, how many are replayed
self_test, locate       the compiled check against its evaluation op by op
settings                of JAX, under which all of this runs
"""
