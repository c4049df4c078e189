"""Glue between two values of one block, element by element: values and labels moved through it.

Where one claim leads to another (a rounding to an operand, logits to a choice), an element of the
first becomes an element of the second through arithmetic on elements and what moves them: scales,
biases, masks, temperatures, softcaps, slices, transposes. `between` finds these equations. What is
reduced on the way, such as the maximum and the sum of a softmax, stays as it is: it is the same for
all elements of a row. Anything else that mixes elements (products, sorts, cumulative sums) ends the
search.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import jax.numpy as jnp

from verifiable.check.tiling.rules import ELEMENTWISE
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Block, Env, Equation, Var
from verifiable.jaxpr.effects import MOVES
from verifiable.jaxpr.graph import uses

_MOVES = MOVES | frozenset(
    "concatenate device_put dynamic_slice dynamic_update_slice gather opt_barrier "
    "optimization_barrier pad split tile unstack".split()
)
# Inputs of these that are moved; of the others, all.
_MOVED = {
    "dynamic_slice": slice(1),
    "dynamic_update_slice": slice(2),
    "gather": slice(1),
    "select_n": slice(1, None),
}


@dataclass(frozen=True, slots=True, eq=False)
class Glue:
    """The equations from one value to another.

    Attributes:
      start: the first value.
      end: the last one; `start` itself if there are no equations.
      steps: the equations in between, in order.
    """

    start: Var
    end: Atom
    steps: tuple[Equation, ...]

    def moved(self, env: Env, value: Array) -> Array:
        """The last value, if the first one were another.

        Args:
          env: holds all values that the equations read, reduced ones too.
          value: of the shape of `start`; it is cast to its type.
        """
        inner = {**env, self.start: value.astype(self.start.dtype)}
        for equation in self.steps:
            interpret.replay(equation, inner)
        return interpret.read(inner, self.end)

    def labelled(self, env: Env, labels: Array) -> Array:
        """Of each element of the last value, the label of the element that it comes from.

        Args:
          env: as of `moved`.
          labels: integers, of the shape of `start`.

        Returns:
          Labels; negative where an element comes from something else.
        """
        found: Env = {self.start: labels}
        for equation in self.steps:
            if equation.kind in _MOVES or equation.kind == "select_n":
                values = interpret.read_all({**dict(env), **found}, equation.inputs)
                for i in range(len(values))[_MOVED.get(equation.kind, slice(None))]:
                    if equation.inputs[i] not in found:
                        values[i] = jnp.full(equation.inputs[i].shape, -1, labels.dtype)
                interpret.write(found, equation.outputs, interpret.apply(equation, values))
            else:
                first = next(found[a] for a in equation.inputs if isinstance(a, Var) and a in found)
                for v in equation.outputs:
                    found[v] = jnp.broadcast_to(first, v.shape)
        return interpret.read(found, self.end)


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """Where the glue from one value leads, found once for all of its ends.

    Attributes:
      start: the value.
      reached: what follows from it through glue alone.
      lost: what also follows in another way.
      steps: the equations of the glue, in order.
    """

    start: Var
    reached: set[Atom]
    lost: set[Atom]
    steps: list[Equation]

    @staticmethod
    def of(block: Block, start: Var, claimed: Container[Equation]) -> Reach:
        """Where a value of a block leads; arguments as of `between`."""
        found = Reach(start, {start}, set(), [])
        reached, lost = found.reached, found.lost
        for equation in block.equations:
            read = set(uses(equation))
            cut = equation in claimed and not equation.bodies  # a loop goes on from its inputs
            if cut or (read.isdisjoint(reached) and read.isdisjoint(lost)):
                continue
            if equation.kind.startswith("reduce_") and equation.kind != "reduce_precision":
                continue
            if read.isdisjoint(lost) and equation.kind in ELEMENTWISE | _MOVES | {"clamp"}:
                found.steps.append(equation)
                reached.update(equation.outputs)
            else:
                lost.update(equation.outputs)
        return found

    def to(self, end: Atom) -> Glue | None:
        """The glue to a later value; None if there is none."""
        if end in self.lost or end not in self.reached:
            return None
        wanted: set[Atom] = {end}
        kept: list[Equation] = []
        for equation in reversed(self.steps):
            if not wanted.isdisjoint(equation.outputs):
                kept.append(equation)
                wanted.update(equation.inputs)
        return Glue(self.start, end, tuple(reversed(kept)))


def between(block: Block, start: Var, end: Atom, claimed: Container[Equation]) -> Glue | None:
    """The glue from one value of a block to another; None if there is none.

    Args:
      block: the block that computes both.
      start: the first value.
      end: the last one.
      claimed: equations whose outputs are committed, through which nothing is followed.
    """
    return Reach.of(block, start, claimed).to(end)
