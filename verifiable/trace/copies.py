"""Tensors of a layout that have the bytes of another: an opening has these once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from verifiable.trace.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A tensor of a layout that has the bytes of another, unless a device changes them.

    Attributes:
      tensor: its index.
      source: index of the other.
      start: the byte of the other with which it begins.
    """

    tensor: int
    source: int
    start: int


def opened_copies(
    copies: Iterable[Copy], layout: Layout, leaves: Collection[int]
) -> tuple[Copy, ...]:
    """The copies whose leaves are all opened, with those that hold their bytes in the source.

    Args:
      copies: a copy of a copy is left out.
      layout: of the tensors.
      leaves: indices of the leaves that are opened.

    Raises:
      ValueError: a copy does not fit into its source.
    """
    given, opened = tuple(copies), frozenset(leaves)
    made = {copy.tensor for copy in given}
    return tuple(
        copy
        for copy in given
        if copy.source not in made and opened.issuperset(_needed(copy, layout))
    )


def _needed(copy: Copy, layout: Layout) -> Iterable[int]:
    """Indices of the leaves of a copy, and of those of its source that hold its bytes."""
    own, source = layout.tensors[copy.tensor], layout.tensors[copy.source]
    stop = copy.start + own.nbytes
    if not 0 <= copy.start < stop <= source.nbytes:
        raise ValueError(f"a copy of {own} does not fit into {source} from byte {copy.start} on")
    first, last = copy.start // source.row_bytes, (stop - 1) // source.row_bytes
    yield from _between(layout, copy.tensor, 0, own.rows - 1)
    yield from _between(layout, copy.source, first, last)


def _between(layout: Layout, tensor: int, first: int, last: int) -> range:
    return range(layout.leaf(tensor, first), layout.leaf(tensor, last) + 1)
