"""Fewer random examples where each takes longer, because JAX compiles all programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings

FEWER = 4  # times fewer


def fewer(test: Callable[..., Any]) -> None:
    """Let a test draw a quarter of its examples, at least one; those that it lists stay.

    Properties are found by the full number, which the other versions of JAX draw.
    """
    own: settings = getattr(test, _SETTINGS)
    setattr(test, _SETTINGS, settings(own, max_examples=max(1, own.max_examples // FEWER)))


# Where Hypothesis keeps the settings of a test.
_SETTINGS = "_hypothesis_internal_use_settings"
