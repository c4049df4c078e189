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
import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from benchmarks import measured_texts, parallel
from benchmarks.harness import Row, clopper_pearson
from benchmarks.measured_texts import CLOCKS, Counts
from benchmarks.progress import steps
from benchmarks.texts import (
    COMPLETION,
    SAMPLERS,
    TextSubject,
)
from protocols.demo import models
from protocols.demo.models import LanguageModel

CLAIM = (
    "A text of SmolLM2 is checked at least 60 times as fast as it was decoded, no honest text is "
    "rejected, and no cheat is accepted."
)

PRECISIONS = ("f32", "bf16", "w8a8")
SHARDS = {"honest": 6, "cheats": 5, "slack": 1, "ties": 10}
"""In how many shards each part is measured, for each sampler or precision, or by itself."""

_CALLS = ("decode", "begin", "pass", "prove", "check", "verify", "audit_2", "audit_8")


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
        return given | {"counts": measured_texts.near_ties(model, *_fraction(rest[0]), quick)}
    if part == "slack":
        return given | {"counts": measured_texts.slack(model, rest[0], quick)}
    plain = rest[-1] == "plain"
    subject = _subject(quick, rest[0], cuts=not plain)
    case = f"{model.name}, {rest[0]}" + (", without cuts" if plain else "")
    if part == "cost":
        return given | {"counts": {case: dict(measured_texts.cost(subject, quick))}}
    if part == "cheats":
        return given | {"counts": measured_texts.cheats(case, subject, *_fraction(rest[1]), quick)}
    source = None if texts is None else json.loads(_file(texts, name).read_text())
    counts, made = measured_texts.honest(subject, *_fraction(rest[1]), quick, source)
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
    seconds, cpu = ({n: found[f"{k}_{n}"] for n in _CALLS if f"{k}_{n}" in found} for k in CLOCKS)
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
