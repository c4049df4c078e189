"""Arrays of a family's key that are blocks of others: stored once, and cut out for their members.

A model that reads the first n rows of a table of positions keeps another value for each length n,
and the rows of the short one are those of the long one. Whatever it was computed by (a slice, a
gather of counted indices, a table of sines), an array of a member that equals, bit for bit, a block
of a larger array of the key is an `Excerpt`: the header says of which one, and where it begins.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import jax
import numpy as np
from jaxtyping import Shaped

from verifiable.key import Excerpt, KeyHeader, Stored

Bytes = Shaped[np.ndarray, "..."]  # elements as bytes, along a last dimension more

LEAST = 512
"""Bytes of the smallest excerpt: its line in the header takes about a hundred."""
_PLACES = 64  # where the first element of a block occurs that are looked at


def found_in(arrays: Mapping[str, Stored], names: Collection[str]) -> tuple[Excerpt, ...]:
    """Which of some arrays of a key are blocks of others of their kind, such as kept values.

    Args:
      arrays: of the key.
      names: arrays that may be excerpts: those that some members do not have.
    """
    sized = {n: a for n, a in arrays.items() if a.nbytes >= LEAST and isinstance(a.dtype, np.dtype)}
    whole = {n: a for n, a in sized.items() if n not in names}
    found: list[Excerpt] = []
    for name in sorted(sized.keys() - whole.keys(), key=lambda n: (-sized[n].nbytes, n)):
        alike = ((n, a) for n, a in whole.items() if _kind(n) == _kind(name))
        starts = ((of, _start(sized[name], array)) for of, array in alike)
        places = (Excerpt(name=name, whole=of, start=at) for of, at in starts if at is not None)
        excerpt = next(places, None)
        if excerpt is None:
            whole[name] = sized[name]
        else:
            found.append(excerpt)
    return tuple(found)


def restored(
    header: KeyHeader,
    arrays: Mapping[str, Stored],
    wanted: Mapping[str, jax.ShapeDtypeStruct],
) -> dict[str, Stored]:
    """The arrays of a member, excerpts cut out; without those that the key lacks.

    Nothing is compiled: blocks are cut by numpy, or under `jit` as part of what is compiled.

    Args:
      header: of the key of the family.
      arrays: of that key.
      wanted: shapes and dtypes of the member's arrays by name.
    """
    held = {name: arrays[name] for name in wanted if name in arrays}
    for e in header.excerpts:
        if e.name in wanted and e.whole in arrays:
            shape = wanted[e.name].shape
            block = tuple(slice(i, i + n) for i, n in zip(e.start, shape, strict=False))
            held[e.name] = _concrete(arrays[e.whole])[block]
    return held


def _kind(name: str) -> str:
    return name.partition("/")[0]


def _start(part: Stored, whole: Stored) -> tuple[int, ...] | None:
    """Where a block of an array begins that has the bits of another array; None if none has."""
    alike = part.dtype == whole.dtype and len(part.shape) == len(whole.shape) > 0
    if not alike or any(n > m for n, m in zip(part.shape, whole.shape, strict=True)):
        return None
    a, b = _bytes(part), _bytes(whole)
    region = b[tuple(slice(m - n + 1) for n, m in zip(part.shape, whole.shape, strict=True))]
    first = a[(0,) * len(part.shape)]
    for place in np.argwhere(np.all(region == first, axis=-1))[:_PLACES]:
        start = tuple(int(i) for i in place)
        block = b[tuple(slice(i, i + n) for i, n in zip(start, part.shape, strict=True))]
        if np.array_equal(a, block):
            return start
    return None


def _concrete(x: Stored) -> Stored:
    """The array of numpy, whose blocks are cut without compilation; a tracer as it is."""
    try:
        return np.asarray(x)
    except jax.errors.TracerArrayConversionError:
        return x


def _bytes(x: Stored) -> Bytes:
    array = np.ascontiguousarray(x)
    count = math.prod(array.shape)
    return array.reshape(count, 1).view(np.uint8).reshape(*array.shape, -1)
