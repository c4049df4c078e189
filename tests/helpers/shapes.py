"""The shapes that signatures state (jaxtyping), checked while a function runs (beartype)."""

import inspect
from collections.abc import Callable
from typing import Any

from beartype import beartype
from jaxtyping import jaxtyped


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which raises unless arguments and result are as its signature says."""
    # A jitted function has the signature of the one inside, and no other part of it.
    plain = function if hasattr(function, "__globals__") else inspect.unwrap(function)
    return jaxtyped(typechecker=beartype)(plain)
