"""A trace and its answer as bytes, on the wire or on disk: one trace, one encoding.

    encoding = MAGIC || canonical bytes of each tensor, in the order of the layout

Shapes, dtypes and the structure of the answer are the program's and not part of the encoding. So
the layout fixes its length, which is compared before anything is read. Every encoding of the right
length with this header decodes, except where a boolean is neither 0 nor 1.
"""

from __future__ import annotations

from typing import Any, Final

from jax import tree_util

from verifiable.encoding import tensor_bytes, tensor_from_bytes
from verifiable.errors import MalformedEncoding, received_bytes, require_exact_type
from verifiable.trace.layout import Layout, Trace, tensors_of

MAGIC: Final = b"verifiable trace 1".ljust(32, b"\0")
"""The first 32 bytes of an encoding: format and version."""


def encode(y: Any, trace: Trace) -> bytes:
    """Encode an answer and its trace. Time and memory are linear in their size.

    Args:
      y: the answer, a pytree of numpy or JAX arrays.
      trace: the values of the claims, numpy or JAX arrays.

    Raises:
      TypeError: a leaf that is not a tensor, or a dtype without canonical bytes.
      ValueError: no element in the whole trace, or a boolean that is neither 0 nor 1.
    """
    Layout.of(y, trace)  # Refuse what no layout could decode.
    return b"".join([MAGIC, *map(tensor_bytes, tensors_of(y, trace))])


def encoded_size(layout: Layout) -> int:
    """Bytes in an encoding of this layout: the most that a receiver has to read."""
    return len(MAGIC) + layout.nbytes


def decode(data: bytes | bytearray | memoryview, layout: Layout) -> tuple[Any, Trace]:
    """Decode an answer and its trace, received from a device.

    Args:
      data: the bytes received.
      layout: of the verifier's own program.

    Returns:
      `y` and the trace, as read-only numpy arrays over `data`, without a copy of bytes on a
      little-endian machine.

    Raises:
      MalformedEncoding: another length or header than the layout has, or a boolean that is neither
        0 nor 1.
      TypeError: `data` or `layout` is of another type.
    """
    # Mutable buffers could change between the check of the commitment and the check of the claims.
    data = received_bytes(data)
    require_exact_type("layout", layout, Layout)
    if len(data) != encoded_size(layout):
        raise MalformedEncoding(
            f"the trace has {len(data)} bytes, the program needs {encoded_size(layout)}"
        )
    if data[: len(MAGIC)] != MAGIC:
        raise MalformedEncoding(f"the trace does not start with the header {MAGIC!r}")
    arrays: list[Any] = []
    view, start = memoryview(data), len(MAGIC)
    for tensor in layout.tensors:
        stop = start + tensor.nbytes
        arrays.append(tensor_from_bytes(view[start:stop], tensor.shape, tensor.dtype))
        start = stop
    values, outputs = arrays[: layout.claim_count], arrays[layout.claim_count :]
    return tree_util.tree_unflatten(layout.structure, outputs), Trace(values=tuple(values))
