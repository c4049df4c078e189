"""What scenes share: the job that they are played on, and how they report their progress."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from protocols.demo.devices import DemoJob
from protocols.demo.models import Encoder, networks
from verifiable.program import compile, parameter_root

TEXTS = (
    "How do I reset the password of my account?",
    "I cannot log in any more and need a new password.",
    "The concert in the park was cancelled because of heavy rain.",
    "Bad weather forced the organisers to call off the open-air show.",
    "Water boils at a lower temperature at high altitude.",
    "On a mountain, pasta takes longer because water boils earlier.",
    "The parcel was delivered to the wrong address yesterday.",
    "She adopted a small grey cat from the shelter.",
)
MOST_TEXTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A piece of work begins: `done` of `total` pieces are over, and `what` is the next."""

    done: int
    total: int
    what: str


@dataclass(slots=True)
class Counter:
    """Counts the `total` pieces of work of a scene."""

    total: int
    done: int = 0

    def start(self, what: str) -> Progress:
        """Return the event that announces the next piece of work."""
        self.done += 1
        return Progress(done=self.done - 1, total=self.total, what=what)


def prepare(model: Encoder, texts: Sequence[str] = TEXTS) -> DemoJob:
    """Compile a model for some texts.

    Raises:
      ValueError: there are more than `MOST_TEXTS` texts, or the model cannot encode one of them.
    """
    if len(texts) > MOST_TEXTS:
        raise ValueError(f"{len(texts)} texts; at most {MOST_TEXTS} fit in one job")
    inputs = model.tokenize(texts)
    return DemoJob(
        model=model,
        root=parameter_root(model.params),
        program=compile(model.encode, model.params, *inputs),
        texts=tuple(texts),
        inputs=inputs,
    )


def in_layers(job: DemoJob) -> DemoJob:
    """The same job, of the model as a scan over its layers, with cuts: audits of a part open less.

    Its parameters are those of the job, stacked, and have a root of their own.
    """
    model = replace(
        job.model,
        params=networks.stacked(job.model.params, job.model.layers),
        encode=functools.partial(networks.encode_scanned, heads=job.model.heads),
    )
    program = compile(model.encode, model.params, *job.inputs, cuts=True, row_block=1)
    return replace(job, model=model, root=parameter_root(model.params), program=program)
