"""Models and programs for the benchmark of verdicts; none of them is in the test-suite.

    text, images, sequences    models by what they read
    programs                   graphs, experts, densities, retrieval, loops
    narrow                     integers and 16-bit floats
    activations                a network for each function that compares floats
    samplers                   ways to choose the next token
    obstacles                  what hides products, or puts choices before them
    flax_classes               those of `transformers`, where it is installed
    hazards                    honest devices differ by more than rounding
    ill_conditioned            glue that turns a last bit into any difference
    layers, subject            what they are made of

A new model is a function that returns a `Subject`, and its name in `MODELS` of its module.
"""

from collections.abc import Callable

from benchmarks.zoo import (
    activations,
    images,
    narrow,
    obstacles,
    programs,
    samplers,
    sequences,
    text,
)
from benchmarks.zoo.subject import Subject

ZOO: dict[str, Callable[[], Subject]] = {
    make.__name__.replace("_", "-"): make
    for module in (text, images, sequences, programs, narrow, samplers, obstacles)
    for make in module.MODELS
} | activations.NETWORKS

__all__ = ["ZOO", "Subject"]
