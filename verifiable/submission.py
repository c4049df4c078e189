"""What a device hands in: its answer, the trace that leads to it, and their commitment.

A submission also names the program and the parameters that the device ran, so that a coordinator
whose key was made for others finds out before it blames. Names prove nothing: a device that names
the right parameters and computes with others is rejected by its claims.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from verifiable.errors import MalformedEncoding
from verifiable.trace import Commitment


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Submission:
    """A run, as a device hands it in. Received from a device: nothing in it is trusted.

    Attributes:
      y: the answer, a pytree of arrays; any object if it comes from a device.
      trace: the claimed values; any object if it comes from a device.
      commitment: root and size over both, to be sent before a challenge can be known.
      program: 32-byte id of the program that the device ran.
      parameters: 32-byte root of the parameters that it ran with.

    Raises:
      MalformedEncoding: a commitment of another type, or an id of another form.
    """

    y: Any = field(repr=False)
    trace: Any = field(repr=False)
    commitment: Commitment
    program: bytes
    parameters: bytes

    def __post_init__(self) -> None:
        """Refuse what names no program or parameters."""
        if type(self.commitment) is not Commitment:
            raise MalformedEncoding(f"a commitment is no {type(self.commitment).__name__}")
        for name in ("program", "parameters"):
            value = getattr(self, name)
            if type(value) is not bytes or len(value) != 32:
                raise MalformedEncoding(f"{name} has 32 bytes")
