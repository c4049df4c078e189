"""A function as flat, lexically scoped blocks: the data model, without any of JAX's own types.

A `Block` is a list of first-order equations plus `scan`, `cond` and `while`, whose bodies are
blocks again. A body refers to variables of the enclosing block directly, so that

    scan   has carries and scanned inputs, and no constants;
    cond   has an index, and no operands;
    while  has carries, and no constants.

`from_jax` makes blocks from a jaxpr, `interpret` evaluates them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # a jax.Array, a tracer of one, or a numpy array


@dataclass(eq=False, slots=True)
class Var:
    """A typed variable. Equal only to itself."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Size of one value in bytes."""
        return self.size * self.dtype.itemsize

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(eq=False, slots=True)
class Literal:
    """A scalar constant of the program."""

    value: np.ndarray[Any, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Always `()`."""
        return ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the scalar."""
        return self.value.dtype

    @property
    def nbytes(self) -> int:
        """Zero: a literal is never kept."""
        return 0

    @property
    def size(self) -> int:
        """One."""
        return 1


Atom = Var | Literal
Env = dict[Var, Array]


@dataclass(eq=False, slots=True)
class Equation:
    """One primitive applied to atoms.

    Attributes:
      kind: name of the primitive.
      params: its parameters; for `scan` only `length`, `reverse`, `unroll` and `num_carry`.
      inputs: for `scan` the initial carries, then the scanned arrays; for `cond` the index; for
        `while` the initial carries.
      outputs: variables that it defines.
      bodies: for `scan` the body; for `cond` the branches; for `while` the predicate and the body.
      name: scopes of the user's program and the primitive, unique within the flattened function.
      origin: JAX's own equation.
      number: position in `Block.walk` of the whole function; unlike the name, it follows from the
        id of the program.
    """

    kind: str
    params: Mapping[str, Any]
    inputs: tuple[Atom, ...]
    outputs: tuple[Var, ...]
    bodies: tuple[Block, ...]
    name: str
    origin: Any
    number: int = 0


@dataclass(eq=False, slots=True)
class Block:
    """Equations in order. Free variables belong to an enclosing block."""

    inputs: tuple[Var, ...]
    equations: list[Equation]
    outputs: tuple[Atom, ...] = ()

    def walk(self) -> Iterator[Equation]:
        """Every equation, each followed by the equations of its bodies."""
        for equation in self.equations:
            yield equation
            for body in equation.bodies:
                yield from body.walk()


@dataclass(eq=False, slots=True)
class Function:
    """A flattened function.

    Attributes:
      block: its inputs are the constants, then the leaves of the arguments.
      constants: values of the leading inputs of `block`.
    """

    block: Block
    constants: tuple[np.ndarray[Any, Any], ...]
