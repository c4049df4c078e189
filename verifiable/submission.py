"""What a device hands in: its answer, the trace that leads to it, and their commitment.

A submission also names the program and the parameters that the device ran, so that a stale key of
the coordinator is an error and blames no device. Names prove nothing: a device that names
the right parameters and computes with others is rejected by its claims.

On the wire or on disk, a submission is

    MAGIC || program || parameters || root of the commitment || its size || encoding of the trace

with 32 bytes each for the first four, 8 bytes for the size (big-endian), and `trace.encode` last.
The program's layout fixes the length, so that a receiver compares it before it reads anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Self

from verifiable import trace as traces
from verifiable.errors import MalformedEncoding, received_bytes, require_bytes32, require_type
from verifiable.trace import Commitment, Layout

MAGIC: Final = b"verifiable submission 1".ljust(32, b"\0")
"""The first 32 bytes of an encoding: format and version."""

_HEADER = len(MAGIC) + 3 * 32 + 8


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
        """Require a commitment, and ids of 32 bytes."""
        if type(self.commitment) is not Commitment:
            raise MalformedEncoding(
                f"commitment must be a Commitment, got {type(self.commitment).__name__}"
            )
        for name in ("program", "parameters"):
            require_bytes32(name, getattr(self, name), MalformedEncoding)

    def encode(self) -> bytes:
        """The bytes to send or to store.

        Raises:
          TypeError: answer or trace hold something other than arrays.
          ValueError: a boolean that is neither 0 nor 1.
        """
        header = (MAGIC, self.program, self.parameters, self.commitment.encode())
        return b"".join([*header, traces.encode(self.y, self.trace)])

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview, layout: Layout) -> Self:
        """Read the bytes that a device sent.

        Args:
          data: the bytes; `encoded_size` says how many there must be.
          layout: of the verifier's own program, `Program.layout`.

        Raises:
          MalformedEncoding: another length or header, or a boolean that is neither 0 nor 1.
          TypeError: `data` or `layout` is of another type.
        """
        data = received_bytes(data)
        require_type("layout", layout, Layout)
        if len(data) != encoded_size(layout):
            raise MalformedEncoding(
                f"the submission has {len(data)} bytes, the program needs {encoded_size(layout)}"
            )
        if data[:32] != MAGIC:
            raise MalformedEncoding(f"the submission does not start with the header {MAGIC!r}")
        program, parameters = data[32:64], data[64:96]
        commitment = Commitment.decode(data[96:_HEADER])
        y, trace = traces.decode(data[_HEADER:], layout)
        return cls(y=y, trace=trace, commitment=commitment, program=program, parameters=parameters)


def encoded_size(layout: Layout) -> int:
    """Bytes in an encoding for this layout: the most that a receiver has to read."""
    return _HEADER + traces.encoded_size(layout)
