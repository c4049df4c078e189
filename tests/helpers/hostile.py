"""Objects that a device could send in place of an array, a trace or an answer."""

from __future__ import annotations

import functools
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


def shared(depth: int) -> Any:
    """A list that is small in memory, and has 2^depth leaves as a tree."""
    return functools.reduce(lambda inner, _: [inner, inner], range(depth), A)


DEEP: Any = functools.reduce(lambda inner, _: [inner], range(100_000), [])

OBJECTS: dict[str, Any] = {
    "null": None,
    "a number": 1.0,
    "text": "42",
    "a class": dict,
    "a function": len,
    "a generator": (x for x in ()),
    "an object whose attributes raise": Raises(),
    "an object that says it is an array": Impostor(),
    "a subclass of arrays": A.view(Subclass),
    "a deleted array": deleted(),
    "a list that holds itself": cyclic(),
    "a list nested 100,000 deep": DEEP,
    "a list of 2^200 leaves": shared(200),
    "a list of a million arrays": [A] * 10**6,
    "a map of a million arrays": dict.fromkeys(map(str, range(10**6)), A),
    "a map with keys that cannot be compared": {Unequal(): A, "b": A},
    "a map with keys that cannot be sorted": {1: A, "b": A},
    "an array of objects": A.astype(object),
    "random keys": jax.random.key(0),
    "a shape": jax.eval_shape(lambda: A),
}
