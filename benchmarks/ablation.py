"""What the parts of a check cost: the same check without one of them (a part of `check_vs_rerun`).

*Schedule.* `tiles=rows` has tiles of rows but none of columns (heads of attention), `tiles=none`
has no tiles, `parts=1` is one program instead of two, and `as it is` lacks nothing.

*Blocks of columns* (specs/freivalds.md). `blocks=none` is the program compiled with no product cut
into blocks, under a key of its own. `cost_of_blocks` is the check as it is over that one.

*Decisions* (specs/decision.md). `decisions=none` is the program compiled by a library in which
nothing becomes a decision: no comparison, sign, choice or piece. For a program without decisions,
`same_program` is 1 iff both give XLA the same text, which is the proof that decisions cost it
nothing when it is checked; `cost_of_decisions` is the measured ratio of the whole host calls, under
the same key.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

import jax

from benchmarks.harness import Row, interleaved_medians
from benchmarks.subjects import Model
from benchmarks.timed import Run
from verifiable import challenge, program
from verifiable.check.compiled import CheckArguments
from verifiable.check.schedule import Strategy
from verifiable.claims import registry
from verifiable.claims.decisions import choice, decision, pieces
from verifiable.claims.products.dot_general import DotGeneral

BLOCKS = 1.1  # times the check without blocks of columns
DECISIONS = 1.1  # times the check of a library without decisions
_DECISIONS = (decision.propose, choice.propose, pieces.propose)


def rows(model: Model, compiled: program.Program, run: Run, repeats: int) -> Iterator[Row]:
    """Measure the check of a model without its parts.

    Args:
      model: the model.
      compiled: its program, with the strategy to keep.
      run: an honest run of it.
      repeats: rounds; each ablation has rounds of its own.
    """
    yield from schedules(model, compiled, run, repeats)
    yield from blocks(model, compiled, run, repeats)
    yield from decisions(model, compiled, run, repeats)


def schedules(model: Model, compiled: program.Program, run: Run, repeats: int) -> Iterator[Row]:
    """The check without tiles, and without its second part."""
    variants = ablated(compiled)
    calls = {n: functools.partial(run.check, p) for n, p in variants.items()}
    rerun = functools.partial(jax.jit(model.fn), model.params, *model.inputs)
    medians = interleaved_medians({"run": rerun, **calls}, repeats)
    for name, other in variants.items():
        case = f"{model.name} {name}"
        yield Row(case, "seconds_check", medians[name], "s")
        yield Row(case, "ratio", medians["run"] / medians[name], "1")
        yield Row(case, "temporaries", run.temporaries(other)[0], "1")


def ablated(compiled: program.Program) -> dict[str, program.Program]:
    """The same check as it is and under schedules that lack something, by name."""
    strategy = compiled.strategy
    changes: dict[str, Strategy] = {
        "as it is": strategy,
        "tiles=rows": replace(strategy, column_bytes=0),
        "tiles=none": replace(strategy, tile_bytes=0),
        "parts=1": replace(strategy, parts=1),
    }
    # A change that changes nothing would measure the same program twice.
    different = {s: name for name, s in reversed(changes.items())}
    return {name: replace(compiled, strategy=s) for s, name in reversed(different.items())}


def blocks(model: Model, compiled: program.Program, run: Run, repeats: int) -> Iterator[Row]:
    """The check with every row of a wide product tested as a whole, if it has any in blocks."""
    cut = [c.form.contraction.blocks for c in compiled.claims if c.form.contraction is not None]
    if max(cut, default=1) == 1:
        return
    with without_blocks():
        other = _again(model, compiled)
    whole = replace(run, key=other.setup(model.params, challenge.secret()))
    calls = {
        "as it is": functools.partial(run.check, compiled),
        "none": functools.partial(whole.check, other),
    }
    medians = interleaved_medians(calls, repeats)
    case = f"{model.name} blocks=none"
    yield Row(case, "seconds_check", medians["none"], "s")
    yield Row(case, "blocks", max(cut), "1")
    bar = f"<= {BLOCKS}"
    yield Row(case, "cost_of_blocks", medians["as it is"] / medians["none"], "1", bar)


def decisions(model: Model, compiled: program.Program, run: Run, repeats: int) -> Iterator[Row]:
    """The check by a library without decisions, if the program has none."""
    if any(c.decisions for c in compiled.claims):
        return
    with without_decisions():
        other = _again(model, compiled)
    same = texts(compiled, run) == texts(other, run)
    calls = {
        "as it is": functools.partial(run.check, compiled),
        "none": functools.partial(run.check, other),
    }
    medians = interleaved_medians(calls, repeats)
    case = f"{model.name} decisions=none"
    yield Row(case, "seconds_check", medians["none"], "s")
    yield Row(case, "same_program", int(same), "1", "== 1")
    bar = f"<= {DECISIONS}"
    yield Row(case, "cost_of_decisions", medians["as it is"] / medians["none"], "1", bar)


def without_blocks() -> AbstractContextManager[Any]:
    """While it is entered, programs are compiled with no product in blocks of columns."""
    return mock.patch.object(DotGeneral, "in_blocks", lambda form: form)


def without_decisions() -> AbstractContextManager[Any]:
    """While it is entered, programs are compiled with no decision as a claim."""
    kept = tuple(row for row in registry.RULES if row[1] not in _DECISIONS)
    assert len(kept) == len(registry.RULES) - len(_DECISIONS)
    return mock.patch.object(registry, "RULES", kept)


def _again(model: Model, compiled: program.Program) -> program.Program:
    """The same program, compiled anew under the same policy and strategy."""
    return program.compile(
        model.fn,
        model.params,
        *model.inputs,
        policy=compiled.policy,
        strategy=compiled.strategy,
        self_test=False,
    )


def texts(compiled: program.Program, run: Run) -> list[str]:
    """What XLA is given of each part of a check, without locations in source files."""
    s = run.submission
    arguments = CheckArguments.of(run.key, run.inputs, s.y, s.trace)
    # The functions that `check` calls.
    parts: Any = compiled.compiled_check.parts
    with jax.enable_x64(True):
        return [part.lower(arguments).as_text() for part in parts]
