"""For tests of what is built on this library: honest devices, cheats, hostile bytes.

    devices        honest devices that round in other ways
    workload       one job, as a dishonest device is given it
    cheats         CATALOGUE: every cheat by name, with the verdict and the reasons that it must get
    cheat          Cheat, and what an accepted one may change
    tampering      what the cheats do; parameters, changes, forging: what they are made of
    consequence    whether a cheat changes an answer, and whether the tolerance allows it
    hostile        objects that a device could send in place of arrays
    strategies     all of these, drawn by hypothesis (extra `testing`)

Only `strategies` imports hypothesis. `protocols.testing` plays whole networks of such devices
against a coordinator. docs/testing.md shows how to use both.
"""

from __future__ import annotations
