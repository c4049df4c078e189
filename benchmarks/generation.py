"""A generated text: decoding, the pass over it, and the check, beside a verifier with the weights.

*Cost.* `seconds_decode` is the time of a decoder with a cache, which the prompt fills in one pass;
`seconds_pass` one teacher-forced pass over prompt and completion that picks every token, which is
what a verifier that holds the weights would run; `seconds_check` is `Program.check` with the key,
and `seconds_verify` the whole verdict, which also hashes the run. All are called in turn.
`device_extra` is the pass over decoding: what a device adds. `of_bandwidth` is how much of the
measured bandwidth a decoder reaches over the weights that each token must read.

*Verdicts.* Honest texts, each with a seed of its own, decoded under `jit` and run over op by op,
must all be accepted; near-ties are counted. Each cheat changes a text or a run and must be
rejected; one whose text and run turn out to be the honest ones is counted in `without_effect`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Row, interleaved_medians
from benchmarks.progress import steps
from benchmarks.timed import Run, nbytes
from protocols.demo import models
from protocols.demo.models import LanguageModel
from verifiable import challenge
from verifiable import generation as gen
from verifiable import trace as traces
from verifiable.report import Verdict
from verifiable.submission import Submission

CLAIM = (
    "A text of SmolLM2 is checked at least 60 times as fast as it was decoded, no honest text is "
    "rejected, and no cheat is accepted."
)

PROMPT, COMPLETION = 32, 128
SAMPLERS = {"greedy": gen.Sampler(), "sampled": gen.Sampler(temperature=0.7, top_k=40)}
QUESTION = "Tell me what you know about the history of the city."


def rows(quick: bool) -> Iterator[Row]:
    """Measure the trained model, or a small random one."""
    model = models.small_llama() if quick else models.smollm2()
    for name, sampler in SAMPLERS.items():
        subject = Subject.of(model, sampler)
        case = f"{model.name}, {name}"
        yield from _cost(case, subject, quick)
        yield from _honest(case, subject, 2 if quick else 40)
        yield from _cheats(case, subject)


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A compiled model, its key, and an honest text."""

    model: LanguageModel
    made: gen.Generation
    key: Any
    job: gen.GenerationJob
    text: tuple[int, ...]
    submission: Submission

    @classmethod
    def of(cls, model: LanguageModel, sampler: gen.Sampler) -> Subject:
        """Without stop tokens, so that every text has its full length."""
        program = gen.transcript(model.logits_at, sampler, vocabulary=model.vocabulary)
        made = gen.compile_generation(program, model.params, lengths=[(PROMPT, COMPLETION)])
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


def _cost(case: str, s: Subject, quick: bool) -> Iterator[Row]:
    program = s.made.program(s.job, s.text)
    inputs = s.made.inputs(s.job, s.text)
    run = Run(key=s.made.family.member_key(s.key, program), inputs=inputs, submission=s.submission)
    whole = jax.jit(s.made.transcript)
    weights = nbytes(s.model.params)
    one = replace(s.job, limit=1)
    numbers = jnp.ones(2**18 if quick else weights // 4)
    medians = interleaved_medians(
        {
            "decode": s.decode,
            "begin": functools.partial(s.decode, one),
            "pass": functools.partial(whole, s.model.params, *inputs),
            "prove": lambda: s.made.prove(s.model.params, s.job, s.text).y,
            "check": functools.partial(run.check, program),
            "verify": lambda: _require(s.verify(s.text, s.submission)).tokens,
            "read": functools.partial(jax.jit(jnp.sum), numbers),
        },
        2 if quick else 10,
    )
    for name in ("decode", "begin", "pass", "prove", "check", "verify"):
        yield Row(case, f"seconds_{name}", medians[name], "s")
    decode, check = medians["decode"], medians["check"]
    yield Row(case, "decode_over_check", decode / check, "1", ">= 60")
    yield Row(case, "pass_over_check", medians["pass"] / check, "1", ">= 4.5")
    yield Row(case, "pass_over_verify", medians["pass"] / medians["verify"], "1")
    yield Row(case, "device_extra", medians["pass"] / decode, "1", "<= 0.1")
    bandwidth = nbytes(numbers) / medians["read"]
    reached = weights * (COMPLETION - 1) / (decode - medians["begin"])
    yield Row(case, "bandwidth", bandwidth, "B/s")
    yield Row(case, "of_bandwidth", reached / bandwidth, "1", ">= 0.7")
    card = gen.ModelCard(
        name=s.model.name,
        family=s.made.family.id,
        parameters=s.submission.parameters,
        stop=(),
        tokenizer=s.model.tokenizer,
        template=s.model.chat.source,
        sampler=s.job.sampler,
        published=bytes(32),
    )
    receipt = gen.save(card, s.job, s.text, s.submission).receipt
    yield Row(case, "receipt", len(receipt.encode()), "bytes", "<= 300")
    yield Row(case, "run", len(s.submission.encode()), "bytes")
    yield Row(case, "key_share", nbytes(s.key.arrays) / weights, "1", "<= 0.03")


def _require(report: gen.TextReport) -> gen.TextReport:
    assert report.verdict is Verdict.ACCEPT, report
    return report


def _honest(case: str, s: Subject, count: int) -> Iterator[Row]:
    """Texts decoded under jit, whose pass ran op by op."""
    rejected = undecided = near = tokens = again = 0
    for n in steps(count, case):
        start = (np.asarray(s.job.prompt) * (n + 1) + n) % s.model.vocabulary
        job = replace(s.job, seed=n.to_bytes(32, "little"), prompt=tuple(start.tolist()))
        text, submission = gen.generate(s.made, s.model.params, job, **s.model.decoder)
        again += text != s.decode(job)
        program = s.made.program(job, text)
        with jax.disable_jit():
            y, claims = program.execute(s.model.params, *s.made.inputs(job, text))
        commitment = traces.commit(y, claims).commitment
        sent = replace(submission, y=y, trace=claims, commitment=commitment)
        report = s.made.verify(s.key, job, text, sent, commitment=commitment)
        rejected += report.verdict is Verdict.REJECT
        undecided += report.verdict is Verdict.INDETERMINATE
        near, tokens = near + report.near_ties, tokens + len(text)
    yield Row(case, "honest_texts", count, "1")
    yield Row(case, "honest_tokens", tokens, "1")
    yield Row(case, "honest_rejected", rejected, "1", "<= 0")
    yield Row(case, "honest_undecided", undecided, "1")
    yield Row(case, "decoded_again", again, "1")
    yield Row(case, "near_ties_share", near / tokens, "1", "<= 0.01")


Sent = tuple[tuple[int, ...], Submission]


def _bits(bits: int) -> Callable[[Subject], Sent]:
    """Weights rounded to so many bits, a scale for each column."""

    def narrow(x: Any) -> Any:
        x, most = np.asarray(x), 2 ** (bits - 1) - 1
        scale = np.abs(x).max(axis=-2, keepdims=True) / most if x.ndim > 1 else 1
        return jnp.asarray(np.rint(x / np.where(scale == 0, 1, scale)) * scale, x.dtype)

    return _other(lambda params: jax.tree.map(lambda x: narrow(x) if x.ndim > 1 else x, params))


def _other(change: Callable[[Any], Any]) -> Callable[[Subject], Sent]:
    """A text and a run of other parameters, named as those of the job."""

    def sent(s: Subject) -> Sent:
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


def _of_job(**changes: Any) -> Callable[[Subject], Sent]:
    """The honest text and run of another job."""

    def sent(s: Subject) -> Sent:
        given = {k: v(s.job) if callable(v) else v for k, v in changes.items()}
        job = replace(s.job, **given)
        text = s.decode(job)
        return text, s.run(job, text)

    return sent


def _changed(place: int, *, traced: bool = True) -> Callable[[Subject], Sent]:
    """One token changed; the run is over the changed text, or the honest one."""

    def sent(s: Subject) -> Sent:
        i = place % len(s.text)
        text = (*s.text[:i], (s.text[i] + 1) % s.model.vocabulary, *s.text[i + 1 :])
        return text, s.run(s.job, text) if traced else s.submission

    return sent


def _cheap_tokens(s: Subject) -> Sent:
    text = s.decode(params=_skipped(s.model.params))
    return text, s.run(s.job, text)


def _phrase(s: Subject) -> Sent:
    forced = tuple(s.model.tokenize("Buy it now.").tolist())
    text = (*s.text[:8], *forced, *s.text[8 + len(forced) :])
    return text, s.run(s.job, text)


def _repeated(s: Subject) -> Sent:
    text = (s.text[:16] * COMPLETION)[:COMPLETION]
    return text, s.run(s.job, text)


CHEATS: dict[str, Callable[[Subject], Sent]] = {
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
}
SAMPLED: dict[str, Callable[[Subject], Sent]] = {
    "other temperature": _of_job(sampler=lambda job: replace(job.sampler, temperature=1.5)),
    "other seed": _of_job(seed=bytes(32)),
    "best of two seeds": _of_job(seed=b"\1" * 32),
}


def _cheats(case: str, s: Subject) -> Iterator[Row]:
    cheats = CHEATS if s.job.sampler.greedy else CHEATS | SAMPLED
    accepted: list[str] = []
    same = 0
    started = time.perf_counter()
    for name, cheat in cheats.items():
        text, submission = cheat(s)
        if text == s.text and submission.commitment == s.submission.commitment:
            same += 1
        elif s.verify(text, submission).verdict is not Verdict.REJECT:
            accepted.append(name)
            yield Row(f"{case}, {name}", "rejected", 0, "1", ">= 1")
    yield Row(case, "cheats", len(cheats), "1")
    yield Row(case, "without_effect", same, "1")
    yield Row(case, "cheats_not_rejected", len(accepted), "1", "<= 0")
    yield Row(case, "seconds_cheats", time.perf_counter() - started, "s")
