"""The shapes that signatures state (jaxtyping), checked while a function runs (beartype)."""

from collections.abc import Callable
from typing import Any

from beartype import beartype
from jaxtyping import jaxtyped


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which raises unless arguments and result are as its signature says."""
    return jaxtyped(typechecker=beartype)(function)
