"""Whether a cheat has consequences: what honest devices answer, and what the tolerance allows.

A cheat *changes the answer* if a choice (a class, a token) differs on which all honest devices
agree, or if a float output moves by more than four times what it moves between honest devices. It
is *within the corridor* if `Program.corridor` says that the tolerance allows such a move.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from verifiable.program import Program

SPREADS = 4.0
"""How many times the spread of honest devices an answer must move to count as changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What honest devices answer to one job.

    Attributes:
      answers: of each leaf, the answers of all devices, stacked.
      y: the leaves of the answer; each element of the first device on which it is finite.
      moved: of each leaf, the largest norm of a difference between y and a device, over elements
        that are finite on it.
      agreed: of each leaf, where all devices agree.
    """

    answers: list[Any]
    y: list[Any]
    moved: list[float]
    agreed: list[Any]

    @classmethod
    def of(cls, answers: Sequence[Any]) -> Spread:
        """From the answers of honest devices."""
        leaves = zip(*([np.asarray(x) for x in jax.tree.leaves(y)] for y in answers), strict=True)
        stacked = [np.stack(each) for each in leaves]
        y: list[Any] = []
        for each in stacked:
            first = np.argmax(np.isfinite(each), axis=0)[None]
            y.append(np.take_along_axis(each, first, axis=0)[0])
        moved = [
            max(np.linalg.norm(_apart(z, x, each).ravel()) for z in each)
            for x, each in zip(y, stacked, strict=True)
        ]
        agreed = [np.all(each == each[0], axis=0) for each in stacked]
        return cls(answers=stacked, y=y, moved=[float(d) for d in moved], agreed=agreed)

    def apart(self, y: Any) -> list[Any]:
        """How far each leaf of an answer is from the honest one, by element; see `_apart`."""
        parts = zip(jax.tree.leaves(y), self.y, self.answers, strict=True)
        return [_apart(np.asarray(z), x, each) for z, x, each in parts]

    def changed(self, y: Any) -> bool:
        """Whether a cheat changes the answer, as the module's docstring defines it."""
        return self.chosen(y) or self.numbers(y)

    def chosen(self, y: Any) -> bool:
        """Whether a choice differs on which all honest devices agree."""
        leaves = zip(self.y, self.apart(y), self.agreed, strict=True)
        choices = (
            np.any((apart != 0) & agreed)
            for x, apart, agreed in leaves
            if not jnp.issubdtype(x.dtype, jnp.inexact)
        )
        return any(map(bool, choices))

    def numbers(self, y: Any) -> bool:
        """Whether floats move by more than four times what they move between honest devices."""
        leaves = zip(self.y, self.apart(y), self.moved, strict=True)
        return any(
            not np.linalg.norm(apart.ravel()) <= SPREADS * moved
            for x, apart, moved in leaves
            if jnp.issubdtype(x.dtype, jnp.inexact)
        )


def _apart(z: Any, x: Any, answers: Any) -> Any:
    """Differences of z and x, float64 or complex128.

    Where one of them is not finite: zero if some honest device answers the same, else infinite.
    """
    wide = np.complex128 if np.iscomplexobj(x) else np.float64
    z, x, answers = z.astype(wide), x.astype(wide), answers.astype(wide)
    same = np.any((answers == z) | (np.isnan(answers) & np.isnan(z)), axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(z) & np.isfinite(x), z - x, np.where(same, 0, np.inf))


def within_corridor(
    program: Program, params: Any, inputs: tuple[Any, ...], honest: Spread, y: Any
) -> bool:
    """Whether the tolerance allows to move the answer as far as a cheat has moved it.

    The scalar answer of the corridor is the part of y along the cheat's own change. Compiles a
    derivative of the program, for each answer anew.

    Args:
      program: the program.
      params: the parameters that the job asks for.
      inputs: of the job.
      honest: what honest devices answer.
      y: the cheat's answer.
    """
    change = [
        apart if jnp.issubdtype(x.dtype, jnp.floating) else None
        for x, apart in zip(honest.y, honest.apart(y), strict=True)
    ]
    size = float(np.sqrt(sum(np.sum(d * d) for d in change if d is not None)))
    if not (np.isfinite(size) and size > 0):
        return False

    def along(y: Any) -> Array:
        leaves = jax.tree.leaves(y)
        parts = [
            jnp.sum(leaf.astype(jnp.float64) * (d / size))
            for leaf, d in zip(leaves, change, strict=True)
            if d is not None
        ]
        return functools.reduce(jnp.add, parts)

    try:
        corridor = program.corridor(params, *inputs, answer=along)
    except ValueError:  # integer arithmetic without a derivative
        return False
    return size <= corridor.reach
