"""Execution and check of a compiled program.

analysis         what a function is: its claims, what is replayed, what a key keeps, its id
specification    what both sides know; `describe`: as text; `flips`: decisions of other devices
execute          the device's half
replay           the coordinator's half, whole or as far as one claim needs it
tiling           tests of claims tile by tile; `schedule`: how a check is compiled
compiled         setup and check as compiled programs; `settings` of JAX under which all runs
setup            making a key; `excerpts`: blocks stored once
outputs, trees   answers compared with the replay; trees of arrays compared with their shapes
judging          from statistics to a verdict; second looks; evidence for others
freedom          what tolerances leave to a device: near-ties, and how far an answer may be moved
partial          audits of some layers
calibration      tolerances measured on honest runs
self_test        the compiled check against its evaluation op by op; `locate`: where they differ
"""
