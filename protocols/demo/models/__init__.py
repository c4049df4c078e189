"""The demo's models: trained, and built-in."""

from __future__ import annotations

from protocols.demo.models.trained import (
    HOW_TO_INSTALL,
    HOW_TO_INSTALL_SMOLLM2,
    PACKAGE,
    LanguageModel,
    Model,
    Tokens,
    gpt,
    in_precision,
    minilm,
    small_transformer,
    smollm2,
)

__all__ = [
    "HOW_TO_INSTALL",
    "HOW_TO_INSTALL_SMOLLM2",
    "PACKAGE",
    "LanguageModel",
    "Model",
    "Tokens",
    "gpt",
    "in_precision",
    "minilm",
    "small_transformer",
    "smollm2",
]
