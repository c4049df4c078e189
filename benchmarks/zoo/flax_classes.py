"""The Flax classes of `transformers`, with small random configurations.

They are a part of the zoo where that package is installed; releases before 5 have them:

    uv run --with 'transformers<5' python -m benchmarks verdicts
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.zoo.subject import Inputs, Subject, integers, normals

WORDS, TOKENS, WIDTH = 256, 24, 64

_BERT = {
    "vocab_size": WORDS,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 64,
}
_LLAMA = {**_BERT, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 192}
_GPT = {"vocab_size": WORDS, "n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 64}
_SEQ2SEQ = {
    "vocab_size": WORDS,
    "d_model": WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
_VIT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "image_size": 32,
    "patch_size": 8,
}
_TEXT, _PIXELS = integers(WORDS, 2, TOKENS), normals(2, 3, 32, 32)

# Name of the model class, name of the configuration, its values, and the source of inputs.
CLASSES: tuple[tuple[str, str, dict[str, Any], Callable[..., Inputs]], ...] = (
    ("FlaxBertForMaskedLM", "BertConfig", _BERT, _TEXT),
    ("FlaxRobertaForSequenceClassification", "RobertaConfig", _BERT, _TEXT),
    ("FlaxElectraForTokenClassification", "ElectraConfig", _BERT, _TEXT),
    ("FlaxAlbertModel", "AlbertConfig", {**_BERT, "embedding_size": WIDTH}, _TEXT),
    ("FlaxRoFormerForMaskedLM", "RoFormerConfig", _BERT, _TEXT),
    (
        "FlaxDistilBertForMaskedLM",
        "DistilBertConfig",
        {"vocab_size": WORDS, "dim": WIDTH, "n_layers": 2, "n_heads": 4, "hidden_dim": 256},
        _TEXT,
    ),
    ("FlaxGPT2LMHeadModel", "GPT2Config", _GPT, _TEXT),
    ("FlaxGPTJForCausalLM", "GPTJConfig", {**_GPT, "rotary_dim": 8}, _TEXT),
    (
        "FlaxGPTNeoForCausalLM",
        "GPTNeoConfig",
        {
            "vocab_size": WORDS,
            "hidden_size": WIDTH,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 8,
            "max_position_embeddings": 64,
        },
        _TEXT,
    ),
    (
        "FlaxOPTForCausalLM",
        "OPTConfig",
        {
            "vocab_size": WORDS,
            "hidden_size": WIDTH,
            "word_embed_proj_dim": WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 256,
            "max_position_embeddings": 64,
        },
        _TEXT,
    ),
    (
        "FlaxBloomForCausalLM",
        "BloomConfig",
        {"vocab_size": WORDS, "hidden_size": WIDTH, "n_layer": 2, "n_head": 4},
        _TEXT,
    ),
    ("FlaxLlamaForCausalLM", "LlamaConfig", _LLAMA, _TEXT),
    ("FlaxMistralForCausalLM", "MistralConfig", _LLAMA, _TEXT),
    ("FlaxGemmaForCausalLM", "GemmaConfig", _LLAMA, _TEXT),
    ("FlaxBartForConditionalGeneration", "BartConfig", _SEQ2SEQ, _TEXT),
    ("FlaxMarianMTModel", "MarianConfig", _SEQ2SEQ, _TEXT),
    ("FlaxViTForImageClassification", "ViTConfig", _VIT, _PIXELS),
    ("FlaxBeitForImageClassification", "BeitConfig", _VIT, _PIXELS),
    ("FlaxDinov2ForImageClassification", "Dinov2Config", _VIT, _PIXELS),
    (
        "FlaxResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [1, 1], "layer_type": "basic"},
        _PIXELS,
    ),
    (
        "FlaxRegNetForImageClassification",
        "RegNetConfig",
        {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [1, 1], "groups_width": 16},
        _PIXELS,
    ),
    (
        "FlaxWhisperForConditionalGeneration",
        "WhisperConfig",
        {**_SEQ2SEQ, "num_mel_bins": 16, "max_source_positions": 16, "max_target_positions": 64},
        normals(2, 16, 32),
    ),
)

# Models that read a second text.
_DECODERS = ("Bart", "Marian", "Whisper")


def _subject(model: str, config: str, values: dict[str, Any], draw: Any) -> Subject:
    library = importlib.import_module("transformers")
    with jax.default_device(jax.devices("cpu")[0]):
        made = getattr(library, model)(getattr(library, config)(**values), _do_init=False)
    shape = draw(np.random.default_rng(0))[0].shape
    if len(shape) == 4:
        shape = (1, *shape[2:], shape[1])
    shapes = jax.eval_shape(lambda: made.init_weights(jax.random.PRNGKey(0), shape))
    params = _filled(shapes)
    decodes = any(name in model for name in _DECODERS)

    def fn(params: Any, x: Array, *others: Array) -> Array:
        named = dict(zip(("decoder_input_ids",), others, strict=False))
        return made(x, params=params, **named)[0]

    def both(rng: np.random.Generator) -> Inputs:
        return *draw(rng), *_TEXT(rng)

    return Subject(fn=fn, params=params, draw=both if decodes else draw)


def _filled(shapes: Any) -> Any:
    """Values like trained ones, by the names of the parameters."""
    rng = np.random.default_rng(131)

    def leaf(path: Any, x: Any) -> Array:
        name, values = jax.tree_util.keystr(path).lower(), rng.standard_normal(x.shape)
        if "scale" in name or "var" in name or (len(x.shape) < 2 and "weight" in name):
            values = np.abs(1 + 0.1 * values)
        elif len(x.shape) < 2:
            values *= 0.1
        elif "kernel" in name:
            values /= np.sqrt(np.prod(x.shape[:-1]))
        return jnp.asarray(values, x.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def installed() -> dict[str, Callable[[], Subject]]:
    """The classes by name; none where the package is not installed or no longer has them."""
    if importlib.util.find_spec("transformers") is None:
        return {}
    library = importlib.import_module("transformers")
    return {
        row[0]: functools.partial(_subject, *row) for row in CLASSES if hasattr(library, row[0])
    }
