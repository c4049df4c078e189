"""Judging a run: what a device sent, what its tests measured, and what a failure means.

receive      what a device sent, compared with the program, before any other step reads it
verdict      from measured statistics to a report
failures     which failures stand, and what may hide behind what is not finite
second_look  a failed test accuses, a recomputation rejects; `spread`: what other rounding explains
aftermath    numbers of trips that change nothing after their loop
evidence     for others, and its judge; `accused`: what a judgement of one claim needs
"""
