"""The models and inputs that checks are timed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from protocols.demo import models

TEXT = " ".join(
    """
    A coordinator hands jobs to devices that nobody trusts: phones, tablets, spare cards. They are
    online now and gone in a minute, all with different chips, runtimes and rounding. It has to
    know that an answer really came from the model that it asked for, without running the model
    again, and with proof that convinces a third party when somebody has cheated.
    """.split()
    * 2
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model and its inputs.

    Attributes:
      name: of the case.
      fn: `fn(params, *inputs)`.
      params: its parameters.
      inputs: its inputs.
      least: the bar of the ratio; None for no bars.
      ablation: whether to measure the check without its parts too.
      key_bar: the bar of the key's bytes over those of the parameters; None for none.
    """

    name: str
    fn: Callable[..., Any]
    params: Any
    inputs: tuple[Any, ...]
    least: float | None = None
    ablation: bool = False
    key_bar: str | None = None


def gpt(width: int, tokens: int, layers: int) -> Model:
    """One size of the GPT-shaped model."""
    params, forward = models.gpt(width=width, layers=layers)
    x = np.random.default_rng(1).standard_normal((tokens, width)).astype(np.float32)
    name = f"width={width} tokens={tokens} layers={layers}"
    return Model(name=name, fn=forward, params=params, inputs=(jnp.asarray(x),))


def smollm2() -> Model:
    """The trained language model."""
    model = models.smollm2()
    ids = jnp.asarray(np.resize(model.tokenize(TEXT), 128))
    name = f"{model.name} tokens=128"
    return Model(
        name=name, fn=model.logits, params=model.params, inputs=(ids,), least=4, ablation=True
    )


def minilm() -> Model:
    """The trained encoder."""
    model = models.minilm()
    ids, mask = (jnp.asarray(a[:, :128]) for a in model.tokenize([TEXT]))
    name = f"{model.name} tokens={ids.shape[1]}"
    return Model(name=name, fn=model.encode, params=model.params, inputs=(ids, mask))
