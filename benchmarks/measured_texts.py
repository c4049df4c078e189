"""What the benchmark of texts measures: costs, honest texts, cheats, decoding, near-ties.

Each function returns counts, by case and measure, that are added up over the shards of a part.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import steering
from benchmarks.harness import interleaved_medians
from benchmarks.progress import steps
from benchmarks.texts import CHEATS, SAMPLED, SAMPLERS, TextSubject, forged_token
from benchmarks.timed import Run, nbytes
from protocols.demo.models import LanguageModel, networks
from verifiable import generation as gen
from verifiable.generation.judging import differing
from verifiable.report import Verdict

ANSWERS, LIMIT = 150, 40  # of each sampler: 300 texts, 12,000 tokens
AUDITS = 200
POSITIONS, CHUNK = 5000, 100
TYPES = {name: steering.TYPES[name] for name in ("f32", "bf16 -> f32")}
ROUNDED = ("f32, W8A8",)
SLACK = 20  # texts of each precision

CLOCKS = ("seconds", "cpu")

Counts = dict[str, dict[str, float]]  # by case, by measure


def cost(s: TextSubject, quick: bool) -> Iterator[tuple[str, float]]:
    """Medians of seconds and of seconds of all cores, by call, and sizes in bytes."""
    program = s.made.program(s.job, s.text)
    inputs = s.made.inputs(s.job, s.text)
    run = Run(key=s.made.family.member_key(s.key, program), inputs=inputs, submission=s.submission)
    whole = jax.jit(s.made.transcript)
    weights = nbytes(s.model.params)
    one = replace(s.job, limit=1)
    numbers = jnp.ones(2**18 if quick else weights // 4)
    calls: dict[str, Callable[[], object]] = {
        "decode": s.decode,
        "begin": functools.partial(s.decode, one),
        "pass": functools.partial(whole, s.model.params, *inputs),
        "prove": lambda: s.made.prove(s.model.params, s.job, s.text).y,
        "check": functools.partial(run.check, program),
        "verify": lambda: s.verify(s.text, s.submission).require().tokens,
        "read": functools.partial(jax.jit(jnp.sum), numbers),
    }
    for some in (2, 8) if s.made.cuts else ():
        plan = s.audit_plan(s.text, bytes(32), some)
        opening = s.made.open(s.submission, plan).encode()
        seen = functools.partial(s.audit, s.text, s.submission, plan, opening)
        calls[f"audit_{some}"] = lambda seen=seen: seen().require().tokens
        yield f"bytes_audit_{some}", len(opening)
    repeats = 2 if quick else 10
    for kind, clock in zip(CLOCKS, (time.perf_counter, time.process_time), strict=True):
        medians = interleaved_medians(calls, repeats, clock)
        yield from ((f"{kind}_{name}", medians[name]) for name in calls)
    yield "weights", weights
    yield "read", nbytes(numbers)
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
    yield "receipt", len(gen.save(card, s.job, s.text, s.submission).receipt.encode())
    yield "run", len(s.submission.encode())
    yield "key", nbytes(s.key.arrays)


def honest(
    s: TextSubject, number: int, total: int, quick: bool, source: Mapping[str, Any] | None
) -> tuple[dict[str, float], list[list[int]]]:
    """Texts decoded under jit, whose pass ran op by op; with the texts of another version."""
    counts = Counter[str](
        dict.fromkeys(
            ("honest_rejected", "honest_undecided", "audits_not_accepted", "decoded_again"), 0
        )
    )
    chosen, made = range(number, 4 if quick else ANSWERS, total), list[list[int]]()
    limit = 8 if quick else LIMIT
    for i in steps(len(chosen), "honest texts"):
        n = chosen[i]
        job = _job(s, n, limit)
        if source is None:
            text, submission = gen.generate(s.made, s.model.params, job, **s.model.decoder)
            counts["decoded_again"] += text != s.decode(job)
        else:
            text = tuple(source["texts"][i])
            submission = s.submission
        made.append(list(text))
        program = s.made.program(job, text)
        with jax.disable_jit():
            y, claims = program.execute(s.model.params, *s.made.inputs(job, text))
        committed = program.commit(y, claims)
        sent = replace(
            submission, y=y, trace=claims, commitment=committed.commitment, program=program.id
        )
        report = s.made.verify(s.key, job, text, sent, commitment=sent.commitment)
        some = replace(s, job=job)
        plan = some.audit_plan(text, n.to_bytes(32, "big"), 8)
        audit = some.audit(text, sent, plan, committed.open(plan.opening).encode())
        counts["texts"] += 1
        counts["tokens"] += len(text)
        counts["near_ties"] += report.near_ties
        counts["picked_otherwise"] += int(np.sum(np.asarray(y)[: len(text)] != np.asarray(text)))
        counts["honest_rejected"] += Verdict.REJECT in (report.verdict, audit.verdict)
        counts["honest_undecided"] += report.verdict is Verdict.INDETERMINATE
        counts["audits_not_accepted"] += audit.verdict is not Verdict.ACCEPT
    return dict(counts), made


def slack(model: LanguageModel, precision: str, quick: bool) -> Counts:
    """Texts of a model at one precision, and how far decoding moves the two best logits."""
    model = model.in_precision(precision)
    s = TextSubject.of(model, SAMPLERS["greedy"], cuts=False)
    by_pass, by_decoder = jax.jit(model.logits_at), jax.jit(functools.partial(_decoded, model))
    counts = Counter[str](dict.fromkeys(("honest_rejected", "honest_undecided"), 0))
    moved, sigmas = list[float](), list[float]()
    for n in steps(2 if quick else SLACK, f"texts in {precision}"):
        job = _job(s, n, 8 if quick else LIMIT)
        text, sent = gen.generate(s.made, model.params, job, **model.decoder)
        report = s.made.verify(s.key, job, text, sent, commitment=sent.commitment)
        counts["texts"] += 1
        counts["tokens"] += len(text)
        counts["near_ties"] += report.near_ties
        counts["decoded_again"] += text != s.decode(job)
        counts["picked_otherwise"] += len(differing(sent.y, text))
        counts["honest_rejected"] += report.verdict is Verdict.REJECT
        counts["honest_undecided"] += report.verdict is Verdict.INDETERMINATE
        ids = jnp.asarray([*job.prompt, *text[:-1]], jnp.int32)
        places = np.arange(len(job.prompt) - 1, len(ids))
        own = np.asarray(by_pass(model.params, ids, places), np.float64)
        theirs = np.asarray(by_decoder(model.params, ids), np.float64)[places]
        two = np.argsort(own, axis=-1)[:, -2:]
        before, after = (np.diff(np.take_along_axis(x, two, -1))[:, 0] for x in (own, theirs))
        moved.extend(np.abs(after - before).tolist())
        ties = [t for t in report.require().report.near_ties if t.row < len(own) and t.kappa > 0]
        sigmas.extend(abs(own[t.row, t.chosen] - own[t.row, t.other]) / t.kappa for t in ties)
    found: dict[str, float] = {"moved_median": np.median(moved), "moved_largest": max(moved)}
    if sigmas:
        found |= {f"{name}_in_sigma": x / np.median(sigmas) for name, x in [*found.items()]}
    return {f"decoding against the pass, {model.name}": counts | found}


def _decoded(model: LanguageModel, params: Any, ids: Any) -> Any:
    """The logits of a decoder that is given every token: (tokens, vocabulary)."""
    step = model.decoder["step"]

    def one(cache: Any, at: Any) -> tuple[Any, Any]:
        logits, cache = step(params, cache, *at)
        return cache, logits

    cache = model.decoder["cache"](len(ids))
    return jax.lax.scan(one, cache, (ids, jnp.arange(len(ids), dtype=jnp.int32)))[1]


def _job(s: TextSubject, number: int, limit: int) -> gen.GenerationJob:
    """A job with a seed and a prompt of its own."""
    prompt = (np.asarray(s.job.prompt) * (number + 1) + number) % s.model.vocabulary
    seed = number.to_bytes(32, "little")
    return replace(s.job, seed=seed, prompt=tuple(prompt.tolist()), limit=limit)


def cheats(case: str, s: TextSubject, number: int, total: int, quick: bool) -> Counts:
    """Cheats that are not rejected, and audits that pass them."""
    every = CHEATS if s.job.sampler.greedy else CHEATS | SAMPLED
    counts = Counter[str](dict.fromkeys(("without_effect", "not_rejected", "audits_passed"), 0))
    found: Counts = {case: {}}
    for name in list(every)[number::total]:
        text, sent = every[name](s)
        counts["cheats"] += 1
        if text == s.text and sent.commitment == s.submission.commitment:
            counts["without_effect"] += 1
            continue
        report = s.verify(text, sent)
        if report.verdict is not Verdict.REJECT:
            counts["not_rejected"] += 1
            found[f"{case}, {name}"] = {"not_rejected": 1}
        if s.made.refusal(s.job, text) is not None or every[name] is forged_token:
            continue
        passed = sum(_passes(s, text, sent, n) for n in range(2 if quick else 10))
        counts["audits_passed"] += passed
        if passed:
            found[f"{case}, {name}"] = {"audits_passed": passed}
    if "forged token" in list(every)[number::total]:
        text, sent = forged_token(s)
        audits = 20 if quick else AUDITS
        passed = sum(_passes(s, text, sent, n) for n in range(audits))
        found[f"{case}, forged token"] = {"audits": audits, "audits_that_met_it": audits - passed}
    found[case] = dict(counts)
    return found


def _passes(s: TextSubject, text: tuple[int, ...], sent: Any, number: int) -> bool:
    """Whether an audit of one layer, 8 rows and 8 positions accepts."""
    plan = s.audit_plan(text, number.to_bytes(32, "big"), 8)
    opening = s.made.open(sent, plan).encode()
    return s.audit(text, sent, plan, opening).verdict is Verdict.ACCEPT


def near_ties(model: Any, number: int, total: int, quick: bool) -> Counts:
    """Positions of real texts at which a device can choose, by precision."""
    folder = Path(__file__).parent.parent
    files = sorted((folder / "specs").glob("*.md"))
    words = itertools.chain.from_iterable(model.tokenize(f.read_text()) for f in files)
    size = 40 if quick else POSITIONS // total
    ids = np.fromiter(itertools.islice(words, number * size, (number + 1) * size), np.int32)
    run = jax.jit(functools.partial(networks.llama_states, **model.logits.keywords))
    parts = [run(model.params, jnp.asarray(x)) for x in np.array_split(ids, max(size // CHUNK, 1))]
    hidden = jnp.concatenate(parts)
    found: Counts = {}
    measured = [
        *(
            r
            for name, given in TYPES.items()
            for r in steering.measured(model, hidden, name, *given, 1)
        ),
        *(r for name in ROUNDED for r in steering.rounded(model, hidden, name)),
    ]
    for row in measured:
        if row.case.endswith("all of the slack"):
            continue  # more than any device passes with
        counts = found.setdefault(f"near-ties, {row.case}", {"positions": len(hidden)})
        if row.measure in ("changed", "random", "near_ties"):
            counts[row.measure] = round(row.value * len(hidden))
        elif row.measure == "changed_unreported":
            counts[row.measure] = row.value
    return found
