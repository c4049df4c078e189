"""The event that every step function takes: time passed.

A step function reads no clock. Each event carries the time at which the coordinator saw it, in
seconds since 1970-01-01 UTC, and a `Tick` carries nothing else. The caller sends one at the
deadline of a state, so that phases end although no message comes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passed.

    Attributes:
      at: the time, in seconds since 1970-01-01 UTC.
    """

    at: int
