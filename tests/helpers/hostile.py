"""Objects that a device could send in place of an array, a trace or an answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers.traces import A


class Raises:
    """An object that has nothing, not even a class to ask for."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class Unequal:
    """An object that refuses to be compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    def __hash__(self) -> int:
        return 0


class Impostor:
    """An object that calls itself an array."""

    __class__: Any = property(lambda self: jax.Array)  # type: ignore[assignment]


class Subclass(np.ndarray):
    @property
    def shape(self) -> Any:
        raise RuntimeError("no shape")


def deleted() -> Any:
    array = jnp.asarray(A)
    array.delete()
    return array


def cyclic() -> Any:
    loop: list[Any] = []
    loop += [loop, loop]
    return loop


def deep() -> Any:
    return functools.reduce(lambda inner, _: [inner], range(100_000), [])


def shared(depth: int) -> Any:
    """A list that is small in memory, and has 2^depth leaves as a tree."""
    return functools.reduce(lambda inner, _: [inner, inner], range(depth), A)


@functools.cache
def wide() -> Any:
    return dict.fromkeys(map(str, range(10**6)), A)


# Made for the test that sends it: some are large.
OBJECTS: dict[str, Callable[[], Any]] = {
    "null": lambda: None,
    "a number": lambda: 1.0,
    "text": lambda: "42",
    "a class": lambda: dict,
    "a function": lambda: len,
    "a generator": lambda: (x for x in ()),
    "an object whose attributes raise": Raises,
    "an object that says it is an array": Impostor,
    "a subclass of arrays": lambda: A.view(Subclass),
    "a deleted array": deleted,
    "a list that holds itself": cyclic,
    "a list nested 100,000 deep": deep,
    "a list of 2^200 leaves": lambda: shared(200),
    "a list of a million arrays": lambda: [A] * 10**6,
    "a map of a million arrays": wide,
    "a map with keys that cannot be compared": lambda: {Unequal(): A, "b": A},
    "a map with keys that cannot be sorted": lambda: {1: A, "b": A},
    "an array of objects": lambda: A.astype(object),
    "random keys": lambda: jax.random.key(0),
    "a shape": lambda: jax.eval_shape(lambda: A),
}
