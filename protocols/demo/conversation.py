"""A language model that answers, with a receipt and a verdict for every turn.

One process plays both sides: the device decodes and runs the pass, the coordinator asks and judges
what it was sent. `compiled` makes the model that a saved answer is judged with later, too.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocols.demo.models import LanguageModel
from verifiable import challenge
from verifiable import generation as gen
from verifiable.generation.plain import token_bytes
from verifiable.generation.saved import BoundText
from verifiable.key import VerifierKey
from verifiable.program import parameter_root
from verifiable.submission import Submission

LENGTHS = ((64, 128), (512, 128))
SAMPLER = gen.Sampler(temperature=0.7, top_k=40)
ROW_BLOCK = 2
LAYERS, ROWS, POSITIONS = 1, 8, 8
"""What an audit of an answer looks at."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answering:
    """A model that answers, compiled.

    Attributes:
      model: weights and tokenizer.
      made: it, compiled for texts.
      card: that names it.
      key: of the coordinator; secret.
    """

    model: LanguageModel
    made: gen.Generation
    card: gen.ModelCard
    key: VerifierKey


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """A judged answer.

    Attributes:
      words: the answer as text.
      saved: the answer as it was handed in.
      opened: it with the opening of an audit in place of its run.
      report: the verdict on the whole run.
      audit: the verdict on what the audit opened.
      seconds: of `decode`, `pass`, `check`, which verifies the whole run, and `audit`.
      sizes: bytes of the `tokens`, the `receipt`, the `run` and the `opening`.
    """

    words: str
    saved: gen.SavedText
    opened: gen.OpenedText
    report: gen.TextReport
    audit: gen.TextReport
    seconds: Mapping[str, float]
    sizes: Mapping[str, int]


def compiled(
    model: LanguageModel,
    *,
    lengths: tuple[tuple[int, int], ...] = LENGTHS,
    self_test: bool = True,
) -> Answering:
    """Compile a model, name it, and draw the secret of a new key.

    Args:
      model: weights and tokenizer.
      lengths: the most tokens of prompt and answer; part of the model's name.
      self_test: as of `compile_generation`.
    """
    program = gen.transcript(model.logits_at, SAMPLER, vocabulary=model.vocabulary)
    made = gen.compile_generation(
        program,
        model.params,
        lengths=lengths,
        stop=model.stop,
        self_test=self_test,
        cuts=True,
        row_block=ROW_BLOCK,
    )
    published = bytes(32)
    if model.file is not None:
        with model.file.open("rb") as file:
            published = hashlib.file_digest(file, "sha256").digest()
    card = gen.ModelCard(
        name=model.name,
        family=made.family.id,
        parameters=parameter_root(model.params),
        stop=tuple(sorted(model.stop)),
        tokenizer=model.tokenizer,
        template=model.chat.source,
        sampler=SAMPLER,
        published=published,
    )
    key = made.setup(model.params, challenge.secret())
    return Answering(model=model, made=made, card=card, key=key)


def answer(
    answering: Answering,
    text: str,
    *,
    limit: int,
    sampler: gen.Sampler = SAMPLER,
    previous: BoundText | None = None,
    tell: Callable[[str], None] | None = None,
    now: Callable[[str], None] = lambda _: None,
) -> Turn:
    """Ask the model, prove its answer, and judge it.

    Args:
      answering: the model.
      text: what the user says.
      limit: the most tokens of the answer.
      sampler: of this turn.
      previous: the turn before.
      tell: called with each piece of the answer as it is decoded. Where the pass picks another
        token (`generation.generate`), the whole answer is told again behind what was decoded.
      now: called with what is being done.

    Raises:
      ValueError: the text is not valid Unicode, or the conversation is too long.
    """
    model, made = answering.model, answering.made
    before = () if previous is None else (*previous.job.prompt, *previous.text)
    job = made.job(model.chat.prompt(text, before), limit=limit, sampler=sampler)
    start = last = time.perf_counter()
    told: list[int] = []
    shown = ""

    def token(found: int) -> None:
        nonlocal last, shown
        last = time.perf_counter()
        told.append(found)
        whole = words(model, told)
        # A character may have several tokens.
        if tell is not None and not whole.endswith("\ufffd"):
            tell(whole[len(shown) :])
            shown = whole
        if found in made.stop or len(told) == limit:
            now("run the pass over the answer")

    now("decode")
    tokens, submission = gen.generate(made, model.params, job, **model.decoder, tell=token)
    proved = time.perf_counter()
    answered = words(model, tokens)
    if tell is not None:
        differs = "\nThe pass over the answer picked another token. The answer is:\n"
        tell(answered[len(shown) :] if answered.startswith(shown) else differs + answered)
    saved = gen.save(
        answering.card,
        job,
        tokens,
        submission,
        previous=None if previous is None else previous.receipt,
    )
    now("check")
    begun = time.perf_counter()
    judges: dict[str, Any] = {"job": job, "previous": previous}
    report = gen.judge_saved(made, answering.key, answering.card, saved, **judges)
    ended = time.perf_counter()
    now("audit")
    opened = audited(answering, saved, submission)
    asked = time.perf_counter()
    audit = gen.judge_opened(
        made, answering.key, answering.card, opened, draw=opened.draw, **judges
    )
    judged = time.perf_counter()
    return Turn(
        words=answered,
        saved=saved,
        opened=opened,
        report=report,
        audit=audit,
        seconds={
            "decode": last - start,
            "pass": proved - last,
            "check": ended - begun,
            "audit": judged - asked,
        },
        sizes={
            "tokens": len(token_bytes(tokens)),
            "receipt": len(saved.receipt.encode()),
            "run": len(saved.run),
            "opening": len(opened.opening),
        },
    )


def audited(answering: Answering, saved: gen.SavedText, submission: Submission) -> gen.OpenedText:
    """The answer with what a draw of fresh entropy opens of its run.

    Args:
      answering: the model.
      saved: the answer, whose receipt was sent.
      submission: the run over it.
    """
    made = answering.made
    room = made.inputs(saved.job, saved.text)[1].size
    draw = gen.TextDraw(
        seed=os.urandom(32), layers=LAYERS, rows=ROWS, positions=min(POSITIONS, room)
    )
    opening = made.open(submission, draw.plan(made, saved.job, saved.text))
    return gen.OpenedText.of(saved, draw, opening)


def words(model: LanguageModel, tokens: Sequence[int]) -> str:
    """An answer as text, without its stop token."""
    return model.text([t for t in tokens if t not in model.stop])
