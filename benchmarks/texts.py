"""One language model, an honest text of it, and the cheats that `generation` tries, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from protocols.demo.models import LanguageModel
from verifiable import challenge
from verifiable import generation as gen
from verifiable.submission import Submission
from verifiable.trace import Trace

PROMPT, COMPLETION = 32, 128
ROW_BLOCK = 2
SAMPLERS = {"greedy": gen.Sampler(), "sampled": gen.Sampler(temperature=0.7, top_k=40)}
QUESTION = "Tell me what you know about the history of the city."


@dataclass(frozen=True, kw_only=True, eq=False)
class TextSubject:
    """A compiled model, its key, and an honest text."""

    model: LanguageModel
    made: gen.Generation
    key: Any
    job: gen.GenerationJob
    text: tuple[int, ...]
    submission: Submission

    @classmethod
    def of(cls, model: LanguageModel, sampler: gen.Sampler, *, cuts: bool = True) -> TextSubject:
        """Without stop tokens, so that every text has its full length; with cuts for audits."""
        program = gen.transcript(model.logits_at, sampler, vocabulary=model.vocabulary)
        made = gen.compile_generation(
            program,
            model.params,
            lengths=[(PROMPT, COMPLETION)],
            self_test=False,
            cuts=cuts,
            row_block=ROW_BLOCK if cuts else None,
        )
        key = made.setup(model.params, challenge.secret())
        prompt = np.resize(model.tokenize(QUESTION), PROMPT).tolist()
        job = made.job(prompt, limit=COMPLETION, seed=bytes(range(32)))
        text, submission = gen.generate(made, model.params, job, **model.decoder)
        return cls(model=model, made=made, key=key, job=job, text=text, submission=submission)

    def decode(self, job: gen.GenerationJob | None = None, params: Any = None) -> tuple[int, ...]:
        """The text of a decoder with a cache."""
        given = self.model.params if params is None else params
        return gen.decode(self.made, given, job or self.job, **self.model.decoder)

    def run(self, job: gen.GenerationJob, text: tuple[int, ...], params: Any = None) -> Submission:
        """What a device without scruples hands in: the run over a text, whatever it picks."""
        given = self.model.params if params is None else params
        found = self.made.family.prove(given, *self.made.inputs(job, text))
        return replace(found, parameters=self.submission.parameters)

    def verify(self, text: tuple[int, ...], submission: Submission) -> gen.TextReport:
        """The verdict on a text for this subject's own job."""
        return self.made.verify(
            self.key, self.job, text, submission, commitment=submission.commitment
        )

    def audit_plan(self, text: tuple[int, ...], seed: bytes, some: int) -> gen.TextAuditPlan:
        """One layer, and so many rows and positions."""
        return self.made.audit_plan(seed, self.job, text, layers=1, rows=some, positions=some)

    def audit(
        self, text: tuple[int, ...], submission: Submission, plan: gen.TextAuditPlan, opening: bytes
    ) -> gen.TextReport:
        """The verdict on what a plan opens of a run for this subject's own job."""
        return self.made.audit(
            self.key,
            self.job,
            text,
            plan=plan,
            commitment=submission.commitment,
            opening=opening,
        )


Sent = tuple[tuple[int, ...], Submission]


def _bits(bits: int) -> Callable[[TextSubject], Sent]:
    """Weights rounded to so many bits, a scale for each column."""

    def narrow(x: Any) -> Any:
        x, most = np.asarray(x), 2 ** (bits - 1) - 1
        scale = np.abs(x).max(axis=-2, keepdims=True) / most if x.ndim > 1 else 1
        return jnp.asarray(np.rint(x / np.where(scale == 0, 1, scale)) * scale, x.dtype)

    return _other(lambda params: jax.tree.map(lambda x: narrow(x) if x.ndim > 1 else x, params))


def _other(change: Callable[[Any], Any]) -> Callable[[TextSubject], Sent]:
    """A text and a run of other parameters, named as those of the job."""

    def sent(s: TextSubject) -> Sent:
        params = change(s.model.params)
        text = s.decode(params=params)
        return text, s.run(s.job, text, params)

    return sent


def _tuned(params: Any) -> Any:
    """Another fine-tune: every weight moved by a hundredth of its column's spread."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: x + 0.01 * jnp.std(x) * rng.standard_normal(x.shape).astype(np.float32), params
    )


def _skipped(params: Any) -> Any:
    """Every eighth layer adds nothing."""
    layers = params["layers"]
    off = {
        "attention": layers["attention"] | {"output": _without(layers["attention"]["output"])},
        "mlp": layers["mlp"] | {"down": _without(layers["mlp"]["down"])},
    }
    return params | {"layers": off}


def _without(x: Any) -> Any:
    return x.at[::8].set(0)


def _of_job(**changes: Any) -> Callable[[TextSubject], Sent]:
    """The honest text and run of another job."""

    def sent(s: TextSubject) -> Sent:
        given = {k: v(s.job) if callable(v) else v for k, v in changes.items()}
        job = replace(s.job, **given)
        text = s.decode(job)
        return text, s.run(job, text)

    return sent


def _changed(place: int, *, traced: bool = True) -> Callable[[TextSubject], Sent]:
    """One token changed; the run is over the changed text, or the honest one."""

    def sent(s: TextSubject) -> Sent:
        i = place % len(s.text)
        text = (*s.text[:i], (s.text[i] + 1) % s.model.vocabulary, *s.text[i + 1 :])
        return text, s.run(s.job, text) if traced else s.submission

    return sent


def _cheap_tokens(s: TextSubject) -> Sent:
    text = s.decode(params=_skipped(s.model.params))
    return text, s.run(s.job, text)


def _phrase(s: TextSubject) -> Sent:
    forced = tuple(s.model.tokenize("Buy it now.").tolist())
    text = (*s.text[:8], *forced, *s.text[8 + len(forced) :])
    return text, s.run(s.job, text)


def _repeated(s: TextSubject) -> Sent:
    text = (s.text[:16] * COMPLETION)[:COMPLETION]
    return text, s.run(s.job, text)


def recommitted(
    s: TextSubject, text: tuple[int, ...], sent: Submission, y: Any, values: Any
) -> Sent:
    """A run with another answer and trace, committed to."""
    claims = Trace(values=tuple(values))
    commitment = s.made.program(s.job, text).commit(y, claims).commitment
    return text, replace(sent, y=y, trace=claims, commitment=commitment)


def _cheap_run(s: TextSubject) -> Sent:
    """The honest text and answer, with the trace of a model that skips layers."""
    sent = s.run(s.job, s.text, _skipped(s.model.params))
    return recommitted(s, s.text, sent, s.submission.y, sent.trace.values)


def forged_token(s: TextSubject, place: int = COMPLETION // 2) -> Sent:
    """Another token, with logits, choice and answer that lead to it, and what follows from it."""
    program, i = s.made.program(s.job, s.text), place
    token = (s.text[i] + 1) % s.model.vocabulary
    prefix = (*s.text[:i], token)
    text = gen.decode(s.made, s.model.params, s.job, **s.model.decoder, prefix=prefix)
    sent = s.run(s.job, text)
    y, values = np.array(sent.y), list(sent.trace.values)
    y[i] = token
    for claim in program.claims:
        row = np.array(values[claim.index])
        if claim.name == "logits/dot_general":
            row[i, token] = 1e4
        elif claim.name == "pick_token/top_k":
            row[i] = [token, *(t for t in row[i].tolist() if t != token)][: row.shape[-1]]
        elif claim.name == "pick_token/argmax":
            row[i] = 0 if any(c.name == "pick_token/top_k" for c in program.claims) else token
        else:
            continue
        values[claim.index] = row
    return recommitted(s, text, sent, y, values)


CHEATS: dict[str, Callable[[TextSubject], Sent]] = {
    "int4": _bits(4),
    "int8": _bits(8),
    "another fine-tune": _other(_tuned),
    "layers skipped": _other(_skipped),
    "truncated prompt": _of_job(prompt=lambda job: job.prompt[: PROMPT // 2]),
    "system prompt dropped": _of_job(prompt=lambda job: job.prompt[PROMPT // 2 :]),
    "swapped turns": _of_job(prompt=lambda j: (*j.prompt[PROMPT // 2 :], *j.prompt[: PROMPT // 2])),
    "cached answer": _of_job(prompt=lambda job: job.prompt[::-1]),
    "first token changed": _changed(0),
    "middle token changed": _changed(COMPLETION // 2),
    "last token changed": _changed(-1),
    "token changed, honest run": _changed(COMPLETION // 2, traced=False),
    "early stop": lambda s: (s.text[: COMPLETION // 2], s.submission),
    "forced phrase": _phrase,
    "tokens of a cheap model": _cheap_tokens,
    "repeated text": _repeated,
    "trace of a cheap model": _cheap_run,
    "forged token": forged_token,
}
SAMPLED: dict[str, Callable[[TextSubject], Sent]] = {
    "other temperature": _of_job(sampler=lambda job: replace(job.sampler, temperature=1.5)),
    "other seed": _of_job(seed=bytes(32)),
    "best of two seeds": _of_job(seed=b"\1" * 32),
}
