"""Models that the demo and the benchmarks verify, as plain functions over plain arrays.

A model is a pure function of `(params, *inputs)` in `jax.numpy`. It knows nothing about
verification: `verifiable.compile` takes the function as it is.

    minilm()             the trained sentence encoder all-MiniLM-L6-v2 (22.6 M parameters)
    smollm2()            the trained language model SmolLM2-135M-Instruct, layers under one scan
    small_transformer()  the architecture of minilm, small and random
    small_llama()        the architecture of smollm2, small and random
    gpt()                GPT-2 decoder blocks of any width, random, for benchmarks
    in_precision()       an encoder in f32, bf16, f16 or w8a8

`model` and `language` define the types and the tokenization, `trained` and `untrained` make models,
`networks` has the forward passes, `packages` reads weights and vocabularies, and `precision`
converts weights.

Parameters are nested dicts of arrays, float32 as trained, with keys that say what they are:
`layer3`, `attention`, `query`, `kernel`. Kernels have shape `(in, out)`.
"""

from __future__ import annotations

from protocols.demo.models.language import ChatTemplate, LanguageModel
from protocols.demo.models.model import Encoder, Tokens, in_precision
from protocols.demo.models.trained import (
    HOW_TO_INSTALL,
    HOW_TO_INSTALL_SMOLLM2,
    PACKAGE,
    minilm,
    smollm2,
)
from protocols.demo.models.untrained import gpt, small_llama, small_transformer

__all__ = [
    "HOW_TO_INSTALL",
    "HOW_TO_INSTALL_SMOLLM2",
    "PACKAGE",
    "ChatTemplate",
    "Encoder",
    "LanguageModel",
    "Tokens",
    "gpt",
    "in_precision",
    "minilm",
    "small_llama",
    "small_transformer",
    "smollm2",
]
