"""Objects that a device could send in place of an array, a trace or an answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ARRAY: Any = np.arange(48, dtype=np.float32).reshape(6, 8)


class Raises:
    """An object that has nothing, not even a class to ask for."""

    def __getattribute__(self, name: str) -> Any:
        """Raise RuntimeError."""
        raise RuntimeError(f"no {name}")


class Unequal:
    """An object that refuses to be compared."""

    def __eq__(self, other: object) -> bool:
        """Raise RuntimeError."""
        raise RuntimeError("not comparable")

    def __hash__(self) -> int:
        """The same for all."""
        return 0


class Impostor:
    """An object that calls itself an array."""

    __class__: Any = property(lambda self: jax.Array)  # type: ignore[assignment]


class Subclass(np.ndarray):
    """An array whose shape raises."""

    @property
    def shape(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Raise RuntimeError."""
        raise RuntimeError("no shape")


def deleted() -> Any:
    """An array of JAX whose memory was given back."""
    array = jnp.asarray(_ARRAY)
    array.delete()
    return array


def cyclic() -> Any:
    """A list that holds itself twice."""
    loop: list[Any] = []
    loop += [loop, loop]
    return loop


def deep() -> Any:
    """A list nested 100,000 deep."""
    return functools.reduce(lambda inner, _: [inner], range(100_000), [])


def shared(depth: int) -> Any:
    """A list that is small in memory, and has 2^depth leaves as a tree."""
    return functools.reduce(lambda inner, _: [inner, inner], range(depth), _ARRAY)


@functools.cache
def wide() -> Any:
    """A map of a million arrays."""
    return dict.fromkeys(map(str, range(10**6)), _ARRAY)


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
    "a subclass of arrays": lambda: _ARRAY.view(Subclass),
    "a deleted array": deleted,
    "a list that holds itself": cyclic,
    "a list nested 100,000 deep": deep,
    "a list of 2^200 leaves": lambda: shared(200),
    "a list of a million arrays": lambda: [_ARRAY] * 10**6,
    "a map of a million arrays": wide,
    "a map with keys that cannot be compared": lambda: {Unequal(): _ARRAY, "b": _ARRAY},
    "a map with keys that cannot be sorted": lambda: {1: _ARRAY, "b": _ARRAY},
    "an array of objects": lambda: _ARRAY.astype(object),
    "random keys": lambda: jax.random.key(0),
    "a shape": lambda: jax.eval_shape(lambda: _ARRAY),
}

LARGE = frozenset(
    {"a list of a million arrays", "a map of a million arrays", "a list nested 100,000 deep"}
)
"""Those that take a hundred megabytes, or seconds to make."""
