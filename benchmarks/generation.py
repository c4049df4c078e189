"""A generated text: decoding, the pass over it, and the check, beside a verifier with the weights.

*Cost.* `seconds_decode` is the time of a decoder with a cache, which the prompt fills in one pass;
`seconds_pass` one teacher-forced pass over prompt and completion that picks every token, which is
what a rival verifier that holds the weights runs; `seconds_check` is `Program.check` with the key,
`seconds_verify` the whole verdict, which also hashes the run, and `seconds_audit_m` the verdict on
an opening of one layer in m rows and m positions. All are called in turn. A program without cuts,
which is never audited in part, has the bars of the whole check: with cuts, the check also lists the
tokens that a device could choose through them. `cpu_` are seconds of all cores: bars on what checks
and audits cost count these, as in `audit`, and ratios of times (`_wall`) stand beside.
`device_extra` is the pass over decoding: what a device adds. `of_bandwidth` is how much of the
measured bandwidth a decoder reaches over the weights that each token must read.

*Honest texts.* Each with a seed of its own, decoded under `jit` and run over op by op, all must be
accepted, whole and in an audit; near-ties are counted. Other versions of JAX judge the texts that
one version decoded (`--texts`): they run the pass, and the check.

*Cheats.* Each changes a text or a run and must be rejected; one whose text and run turn out to be
the honest ones is counted in `without_effect`. Then audits of many seeds look at the same: none may
accept what is wrong everywhere, and a single forged token is met at the rate of the formula.

*Decoding against the pass*, in float32, bfloat16 and W8A8: texts as before, but with a compiled
pass; and how far the difference of the two best logits is moved by decoding instead (`moved`, of
all positions), in units of what one sigma of the check's tolerance moves it (the median of the
near-ties that reports list). What a decoder picks within one sigma is accepted as it is; beyond it,
`generate` decodes on from the token that the pass picks (`decoded_again`).

*Near-ties.* The last product of the model on 5,000 positions of this project's own texts, at three
precisions: how many positions a report lists, and how many tokens a device can change
(`benchmarks.steering` says how).

All but the cost is done in shards. `--jobs N` measures N of them at once, each on cores of its own;
`--shards DIR` keeps what each measured, and measures only what is not there yet.
"""

from __future__ import annotations

import functools
import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import parallel, steering
from benchmarks.harness import Row, clopper_pearson, interleaved_medians
from benchmarks.progress import steps
from benchmarks.texts import (
    CHEATS,
    COMPLETION,
    SAMPLED,
    SAMPLERS,
    TextSubject,
    forged_token,
)
from benchmarks.timed import Run, nbytes
from protocols.demo import models
from protocols.demo.models import LanguageModel, networks
from verifiable import generation as gen
from verifiable.generation.judging import differing
from verifiable.report import Verdict

CLAIM = (
    "A text of SmolLM2 is checked at least 60 times as fast as it was decoded, no honest text is "
    "rejected, and no cheat is accepted."
)

ANSWERS, LIMIT = 150, 40  # of each sampler: 300 texts, 12,000 tokens
AUDITS = 200
POSITIONS, CHUNK = 5000, 100
TYPES = {name: steering.TYPES[name] for name in ("f32", "bf16 -> f32")}
ROUNDED = ("f32, W8A8",)
PRECISIONS = ("f32", "bf16", "w8a8")
SHARDS = {"honest": 6, "cheats": 5, "slack": 1, "ties": 10}
"""In how many shards each part is measured, for each sampler or precision, or by itself."""
SLACK = 20  # texts of each precision

_CLOCKS = ("seconds", "cpu")
_CALLS = ("decode", "begin", "pass", "prove", "check", "verify", "audit_2", "audit_8")

Counts = dict[str, dict[str, float]]  # by case, by measure


def shards_of(quick: bool, only: Collection[str] = ()) -> list[str]:
    """The names of all shards, such as `honest greedy 2/6`, of some parts or all."""
    counts = dict.fromkeys(SHARDS, 2) if quick else SHARDS
    found = [f"cost {name}{plain}" for name in SAMPLERS for plain in ("", " plain")]
    for part in ("honest", "cheats"):
        total = counts[part]
        found += [f"{part} {name} {i}/{total}" for name in SAMPLERS for i in range(1, total + 1)]
    found += [f"slack {name}" for name in PRECISIONS]
    found += [f"ties {i}/{counts['ties']}" for i in range(1, counts["ties"] + 1)]
    return [s for s in found if not only or s.partition(" ")[0] in only]


def rows(
    quick: bool,
    only: Collection[str] = (),
    jobs: int = 1,
    shards: str | None = None,
    texts: str | None = None,
) -> Iterator[Row]:
    """Measure the trained model, or a small random one.

    Args:
      quick: a small random model, and few texts.
      only: parts: `cost`, `honest`, `cheats`, `slack`, `ties`.
      jobs: shards that are measured at once.
      shards: folder for what each shard measured; those that are there are not measured again.
      texts: such a folder of another version of JAX, whose texts are judged; only `honest` then.
    """
    wanted = shards_of(quick, ("honest",) if texts else only)
    # What is timed has the machine to itself.
    alone = [name for name in wanted if name.startswith("cost")]
    with tempfile.TemporaryDirectory() as temporary:
        measure = functools.partial(
            kept, quick=quick, folder=Path(shards or temporary), texts=texts and Path(texts)
        )
        found: list[Counts] = []
        for several, at_once in ((alone, 1), ([x for x in wanted if x not in alone], jobs)):
            parts = [functools.partial(measure, name) for name in several]
            counted = parallel.in_order(parts, at_once)
            found += (next(counted) for _ in steps(len(parts), "shards"))
    for case, measures in added_up(found).items():
        yield from rows_of(case, measures)


def kept(name: str, *, quick: bool, folder: Path, texts: Path | None) -> Counts:
    """The counts of one shard, from its file in a folder where there is one.

    Args:
      name: of the shard.
      quick: as of `rows`.
      folder: where the file is, or is written.
      texts: folder with the files of another version of JAX, whose texts are judged.
    """
    file = _file(folder, name)
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(shard(name, quick, texts), allow_nan=False))
        part.rename(file)
    return json.loads(file.read_text())["counts"]


def added_up(several: Iterable[Counts]) -> Counts:
    """The counts of all shards."""
    total: Counts = {}
    for counts in several:
        for case, measures in counts.items():
            before = total.setdefault(case, {})
            for name, value in measures.items():
                before[name] = before.get(name, 0) + value
    return total


def _file(folder: Path, shard: str) -> Path:
    return folder / f"{shard.replace(' ', '-').replace('/', '-of-')}.json"


def shard(name: str, quick: bool, texts: Path | None) -> dict[str, Any]:
    """Measure one shard: counts that are added up, and texts, as JSON values."""
    part, *rest = name.split()
    model = _model(quick)
    given: dict[str, Any] = {"jax": jax.__version__}
    if part == "ties":
        return given | {"counts": _ties(model, *_fraction(rest[0]), quick)}
    if part == "slack":
        return given | {"counts": _slack(model, rest[0], quick)}
    plain = rest[-1] == "plain"
    subject = _subject(quick, rest[0], cuts=not plain)
    case = f"{model.name}, {rest[0]}" + (", without cuts" if plain else "")
    if part == "cost":
        return given | {"counts": {case: dict(_cost(subject, quick))}}
    if part == "cheats":
        return given | {"counts": _cheats(case, subject, *_fraction(rest[1]), quick)}
    source = None if texts is None else json.loads(_file(texts, name).read_text())
    counts, made = _honest(subject, *_fraction(rest[1]), quick, source)
    if source is not None:
        case += f", decoded by jax {source['jax']} and judged by {jax.__version__}"
    return given | {"counts": {case: counts}, "texts": made}


@functools.cache
def _model(quick: bool) -> LanguageModel:
    return models.small_llama() if quick else models.smollm2()


@functools.cache
def _subject(quick: bool, sampler: str, *, cuts: bool) -> TextSubject:
    return TextSubject.of(_model(quick), SAMPLERS[sampler], cuts=cuts)


def _fraction(text: str) -> tuple[int, int]:
    """Number of a shard, from zero, and of how many."""
    number, _, total = text.partition("/")
    return int(number) - 1, int(total)


# ------------------------------------------------------------------------------------- measuring


def _cost(s: TextSubject, quick: bool) -> Iterator[tuple[str, float]]:
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
    for kind, clock in zip(_CLOCKS, (time.perf_counter, time.process_time), strict=True):
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


def _honest(
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


def _slack(model: LanguageModel, precision: str, quick: bool) -> Counts:
    """Texts of a model at one precision, and how far decoding moves the two best logits."""
    if precision != "f32":
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


def _cheats(case: str, s: TextSubject, number: int, total: int, quick: bool) -> Counts:
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


def _ties(model: Any, number: int, total: int, quick: bool) -> Counts:
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


# ------------------------------------------------------------------------------------------ rows


def rows_of(case: str, found: Mapping[str, float]) -> Iterator[Row]:
    """The rows of a case, from counts that were added up: it may have those of several parts."""
    if "seconds_decode" in found:
        yield from _cost_rows(case, found)
    if "texts" in found:
        texts, tokens = found["texts"], found["tokens"]
        yield Row(case, "honest_texts", texts, "1")
        yield Row(case, "honest_tokens", tokens, "1")
        yield Row(case, "honest_rejected", found["honest_rejected"], "1", "<= 0")
        for name in ("honest_undecided", "audits_not_accepted", "decoded_again"):
            if name in found:
                yield Row(case, name, found[name], "1")
        yield Row(case, "picked_otherwise_share", found["picked_otherwise"] / tokens, "1")
        # What devices can choose in narrow precisions, `ties` measures.
        bar = None if "moved_median" in found else "<= 0.01"
        yield Row(case, "near_ties_share", found["near_ties"] / tokens, "1", bar)
    for name in ("moved_median", "moved_largest"):
        if name in found:
            yield Row(case, name, found[name], "logits")
        if f"{name}_in_sigma" in found:
            yield Row(case, f"{name}_in_sigma", found[f"{name}_in_sigma"], "sigma")
    if "audits" in found:
        met, audits, formula = found["audits_that_met_it"], int(found["audits"]), 8 / COMPLETION
        low, high = clopper_pearson(int(met), audits, 0.99)
        yield Row(case, "audits", audits, "1")
        yield Row(case, "met_share", met / audits, "1")
        yield Row(case, "formula", formula, "1")
        yield Row(case, "formula_within_99_%", int(low <= formula <= high), "1", "== 1")
    if "cheats" in found:
        yield Row(case, "cheats", found["cheats"], "1")
        yield Row(case, "without_effect", found["without_effect"], "1")
        yield Row(case, "cheats_not_rejected", found["not_rejected"], "1", "<= 0")
        yield Row(case, "audits_passed", found["audits_passed"], "1")
    if "positions" in found:
        positions = found["positions"]
        yield Row(case, "positions", positions, "1")
        yield Row(case, "near_ties", found["near_ties"] / positions, "1")
        yield Row(case, "changed", found["changed"] / positions, "1", "<= 0.01")
        yield Row(case, "changed_unreported", found["changed_unreported"], "1", "<= 0")
        if "random" in found:
            yield Row(case, "random", found["random"] / positions, "1", "<= 0")
    if not {"seconds_decode", "texts", "audits", "cheats", "positions"} & found.keys():
        yield from (Row(case, name, value, "1") for name, value in found.items())


def _cost_rows(case: str, found: Mapping[str, float]) -> Iterator[Row]:
    seconds, cpu = ({n: found[f"{k}_{n}"] for n in _CALLS if f"{k}_{n}" in found} for k in _CLOCKS)
    for name in seconds:
        yield Row(case, f"seconds_{name}", seconds[name], "s")
        yield Row(case, f"cpu_{name}", cpu[name], "s")
    decode, run, cuts = seconds["decode"], seconds["pass"], "audit_2" in seconds
    none = (None, None)
    compared = {"check": none if cuts else (">= 60", ">= 4.5"), "verify": none}
    compared |= {"audit_2": (">= 800", ">= 50"), "audit_8": none} if cuts else {}
    for name, bars in compared.items():
        for of, bar in zip(("decode", "pass"), bars, strict=True):
            yield Row(case, f"{of}_over_{name}", cpu[of] / cpu[name], "1", bar)
            yield Row(case, f"{of}_over_{name}_wall", seconds[of] / seconds[name], "1")
    if cuts:
        yield Row(case, "bytes_audit_2", found["bytes_audit_2"], "bytes", "<= 1_300_000")
        yield Row(case, "bytes_audit_8", found["bytes_audit_8"], "bytes", "<= 2_700_000")
    yield Row(case, "device_extra", run / decode, "1", "<= 0.1")
    bandwidth = found["read"] / found["seconds_read"]
    reached = found["weights"] * (COMPLETION - 1) / (decode - seconds["begin"])
    yield Row(case, "bandwidth", bandwidth, "B/s")
    yield Row(case, "of_bandwidth", reached / bandwidth, "1", ">= 0.7")
    yield Row(case, "receipt", found["receipt"], "bytes", "<= 300")
    yield Row(case, "run", found["run"], "bytes")
    yield Row(case, "key_share", found["key"] / found["weights"], "1", "<= 0.03")
