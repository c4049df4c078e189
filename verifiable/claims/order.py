"""Whether elements are in order, up to ties: the arithmetic of `choice`."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from verifiable.jaxpr.blocks import Array


class Picked(NamedTuple):
    """How a committed choice fits the replayed rows; arrays (rows, picked) unless said otherwise.

    Attributes:
      value: what comes later minus the largest before it: negative if it is out of order, the
        largest number if the order is certain. In the first column, the least that was not picked
        minus the largest that was.
      slack: of the two together.
      index: the indices, within the row.
      valid: (rows,), whether the indices are distinct and in range.
      absent: (rows,), whether a key is NaN.
    """

    value: Array
    slack: Array
    index: Array
    valid: Array
    absent: Array


class Run(NamedTuple):
    """The largest number of a run so far, its slack, and whether a run began."""

    largest: Array
    slack: Array
    begins: Array


TINY = float(np.finfo(np.float32).tiny)


def later(before: Run, after: Run) -> Run:
    """Two neighbouring parts of rows joined; a run that begins forgets what was before."""
    forget = after.begins | (after.largest >= before.largest)
    return Run(
        jnp.where(forget, after.largest, before.largest),
        jnp.where(forget, after.slack, before.slack),
        before.begins | after.begins,
    )


def distance(a: Array, b: Array) -> Array:
    """a - b, at most the largest number; infinities are far from all but themselves."""
    largest = float(jnp.finfo(a.dtype).max)
    return jnp.where(a == b, 0, jnp.clip(a - b, -largest, largest))
