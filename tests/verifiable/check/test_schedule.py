"""Strategies: the same verdicts however a check is compiled, and a measured choice among them."""

from __future__ import annotations

import functools
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from jax import lax

from verifiable import challenge, program
from verifiable.check import schedule
from verifiable.check.schedule import Strategy
from verifiable.policy import Policy
from verifiable.trace import Trace

RNG = np.random.default_rng(7)
ROWS, WIDTH, LAYERS = 24, 64, 3
SECRET = challenge.secret(b"tests of verifiable/strategy.py ")
FEW = Policy(draws=2)
PARAMS = {
    "first": RNG.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 8,
    "stack": RNG.standard_normal((LAYERS, WIDTH, WIDTH)).astype(np.float32) / 8,
}
X = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)


def model(p, x):
    """A contraction, then a scan of contractions."""
    x = jnp.tanh(x @ p["first"])
    x, _ = lax.scan(lambda x, w: (jnp.tanh(x @ w) + x, None), x, p["stack"])
    return {"states": x, "sum": jnp.sum(x, axis=-1)}


@functools.cache
def made() -> SimpleNamespace:
    """The program, an honest run and a key."""
    compiled = program.compile(model, PARAMS, X, policy=FEW)
    y, trace = jax.jit(compiled.execute)(PARAMS, X)
    every = {s: replace(compiled, strategy=s) for s in schedule.candidates(compiled.strategy)}
    key = compiled.setup(PARAMS, SECRET)
    return SimpleNamespace(compiled=compiled, y=y, trace=trace, key=key, every=every)


def changed(trace, index, value):
    """The trace with one element of a claim replaced."""
    claims = [np.array(c) for c in trace.values]
    claims[index].reshape(-1)[5] = value
    return Trace(values=tuple(claims))


RUNS = {
    "honest": lambda y, trace: (y, trace),
    "one element of the first claim": lambda y, trace: (y, changed(trace, 0, 3.0)),
    "one element inside the scan": lambda y, trace: (y, changed(trace, 1, 3.0)),
    "not a number": lambda y, trace: (y, changed(trace, 0, np.nan)),
    "infinite inside the scan": lambda y, trace: (y, changed(trace, 1, np.inf)),
    "another output": lambda y, trace: (jax.tree.map(lambda a: a + 1, y), trace),
    "a claim too few": lambda y, trace: (y, Trace(values=trace.values[:1])),
}


@pytest.mark.parametrize("run", RUNS)
def test_the_same_verdicts_whatever_the_strategy(run):
    y, trace = RUNS[run](made().y, made().trace)
    reports = [p.check(made().key, X, y=y, trace=trace) for p in made().every.values()]
    assert len(reports) > 1
    outcomes = {(r.verdict, r.reason, r.claim, tuple(c.reason for c in r.results)) for r in reports}
    assert len(outcomes) == 1
    assert (reports[0].reason == "ok") == (run == "honest")


def test_a_strategy_changes_neither_ids_nor_keys():
    compiled, mine = made().compiled, made().key
    assert {other.id for other in made().every.values()} == {compiled.id}
    unlike = Strategy(save_memory=True, tile_bytes=999, column_bytes=99, parts=3)
    key = replace(compiled, strategy=unlike).setup(PARAMS, SECRET)
    assert key.header == mine.header
    assert key.arrays.keys() == mine.arrays.keys()
    for name, array in key.arrays.items():
        np.testing.assert_array_equal(array, mine.arrays[name])


def test_the_default_depends_on_scans():
    assert not made().compiled.strategy.save_memory
    assert program.compile(lambda p, x: x @ p["first"], PARAMS, X, policy=FEW).strategy.save_memory
    chosen = Strategy(save_memory=True)
    assert program.compile(model, PARAMS, X, policy=FEW, strategy=chosen).strategy == chosen


@pytest.mark.parametrize("trace_bytes", [2**23, 28_311_552, 37_748_736, 2**30])
def test_the_tiles_of_both_parts_are_a_small_part_of_a_large_trace(trace_bytes: int):
    chosen = schedule.default(trace_bytes, scans=False)
    assert chosen.tile_bytes * chosen.parts <= max(2**20, trace_bytes // 16)


def test_tuning_measures_every_strategy_and_keeps_the_fastest():
    small = program.compile(lambda p, x: x @ p["first"], PARAMS, X, policy=FEW)
    key, (y, trace) = small.setup(PARAMS, SECRET), small.execute(PARAMS, X)
    tuned, seconds = small.tune(key, X, y=y, trace=trace, repeats=2)
    assert set(seconds) == set(schedule.candidates(small.strategy))
    assert seconds[tuned.strategy] <= min(seconds.values()) / 0.95
    assert all(0 < s < 60 for s in seconds.values())
    assert tuned.check(key, X, y=y, trace=trace).reason == "ok"


def test_tuning_refuses_the_key_of_another_program():
    other = program.compile(lambda p, x: x @ p["first"], PARAMS, X, policy=FEW)
    with pytest.raises(ValueError, match="the key was made for program"):
        other.tune(made().key, X, y=X, trace=[X])


def test_the_fastest_is_the_one_that_took_least(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(schedule, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    fast, slow = Strategy(save_memory=True), Strategy(save_memory=False)
    takes = {slow: iter([0.0, 9.0, 2.0]), fast: iter([90.0, 1.0, 7.0])}

    def call(s):
        now[0] += next(takes[s])

    calls = {s: functools.partial(call, s) for s in takes}
    assert schedule.fastest(calls, 2) == (fast, {slow: 2.0, fast: 1.0})


def test_what_is_hardly_faster_than_the_default_does_not_replace_it(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(schedule, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    takes = {Strategy(tile_bytes=0): 1.0, Strategy(): 0.96}

    def call(s):
        now[0] += takes[s]

    calls = {s: functools.partial(call, s) for s in takes}
    assert schedule.fastest(calls, 3)[0] == Strategy(tile_bytes=0)


@pytest.mark.parametrize(("calls", "repeats"), [({}, 1), ({Strategy(): int}, 0)])
def test_nothing_to_measure(calls, repeats):
    with pytest.raises(ValueError, match="expected calls and repeats"):
        schedule.fastest(calls, repeats)


def test_candidates_start_with_the_default_and_hold_it_once():
    for default in (Strategy(), Strategy(save_memory=False)):
        found = schedule.candidates(default)
        assert found[0] == default
        assert len(set(found)) == len(found)


def test_an_option_that_the_backend_does_not_know_is_left_out_alone(monkeypatch):
    seen: list[Any] = []

    def jit(fn: Any, compiler_options: Any = None) -> Any:
        seen.append(compiler_options)
        return real(fn, compiler_options=compiler_options)

    real = jax.jit
    monkeypatch.setattr(jax, "jit", jit)
    monkeypatch.setattr(schedule, "_MEMORY", {"xla_no_such_option": True})
    assert schedule.compile(lambda x: x + 1, Strategy(save_memory=True))(1) == 2
    assert seen[-1] is None


def test_other_errors_of_the_compiler_are_raised(monkeypatch):
    monkeypatch.setattr(schedule, "_MEMORY", {"xla_cpu_scheduler_type": "no such scheduler"})
    with pytest.raises(Exception, match="scheduler"):
        schedule.compile(lambda x: x, Strategy(save_memory=True))


ARRAYS = hnp.arrays(
    st.sampled_from([np.float64, np.int32, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
TREES = st.recursive(
    ARRAYS, lambda c: st.dictionaries(st.integers(0, 9), c) | st.tuples(c, c), max_leaves=8
)


@settings(max_examples=40, deadline=None)
@given(TREES)
def test_unpacking_gives_back_what_was_packed(tree):
    with jax.enable_x64(True):
        found = schedule.unpack(schedule.pack(jax.tree.map(jnp.asarray, tree)))
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_packing_survives_compilation():
    tree = {"a": jnp.arange(3), "b": (jnp.ones((2, 2), bool), jnp.int32(7))}
    found = schedule.unpack(jax.jit(schedule.pack)(tree))
    assert jax.tree.map(lambda a: a.tolist(), found) == jax.tree.map(lambda a: a.tolist(), tree)


@given(st.lists(st.floats(0.1, 100), max_size=12), st.integers(1, 5))
def test_parts_are_contiguous_and_about_equal(costs: list[float], parts: int):
    found = schedule.split(costs, parts)
    assert [i for part in found for i in part] == list(range(len(costs)))
    assert 1 <= len(found) <= parts
    assert all(len(part) for part in found) or not costs
    # No part is dearer than its share by more than one item.
    largest = max(sum(costs[i] for i in part) for part in found)
    assert largest <= sum(costs) / len(found) + 2 * max(costs, default=0.0)


def test_equal_layers_are_cut_between_layers():
    assert schedule.split([4.0, 1.0, 5.0, 5.0] * 4, 2) == [range(8), range(8, 16)]
    assert schedule.split([], 2) == [range(0)]
    assert schedule.split([1.0], 2) == [range(1)]


def test_calls_run_at_the_same_time():
    """Each waits for the other: one after the other, they would never end."""
    barrier = threading.Barrier(2, timeout=60)
    assert schedule.at_once([lambda: (barrier.wait(), 1)[1], lambda: (barrier.wait(), 2)[1]]) == [
        1,
        2,
    ]


def test_an_error_in_a_part_is_not_lost():
    def fail():
        raise ValueError("part")

    with pytest.raises(ValueError, match="part"):
        schedule.at_once([lambda: 1, fail])


@pytest.mark.parametrize(
    "changes", [{"parts": 0}, {"parts": -1}, {"tile_bytes": -1}, {"column_bytes": -1}]
)
def test_a_strategy_that_cannot_be(changes: dict[str, int]):
    with pytest.raises(ValueError, match="expected parts >= 1"):
        Strategy(**changes)


@functools.cache
def several_kinds():
    """Claims under a scan and in both branches of a cond, and two outputs: program, run and key."""

    def fn(p: Any, x: Any) -> Any:
        x = lax.scan(lambda c, w: (c + jnp.tanh(c @ w), None), x, p["stack"])[0]
        x = lax.cond(x[0, 0] > 0, lambda: x @ p["first"], lambda: (x + 1) @ p["first"])
        return jnp.tanh(x) @ p["last"], jnp.argmax(x, -1)

    rng = np.random.default_rng(0)
    params = {
        name: rng.standard_normal(shape).astype(np.float32) / 6
        for name, shape in {"stack": (3, 40, 40), "first": (40, 40), "last": (40, 64)}.items()
    }
    x = rng.standard_normal((48, 40)).astype(np.float32)
    one = program.compile(fn, params, x, policy=FEW, strategy=Strategy(parts=1))
    y, trace = jax.device_get(jax.jit(one.execute)(params, x))
    return one, x, y, trace, one.setup(params, SECRET)


@pytest.mark.parametrize("parts", [2, 9])
def test_parts_find_what_the_whole_finds(parts: int):
    """Each claim and output is judged once."""
    one, x, y, trace, key = several_kinds()
    several = replace(one, strategy=Strategy(parts=parts))
    assert len(several.compiled_check.parts) == min(parts, len(one.claims))
    for index in (None, *range(len(one.claims))):
        claims = [np.array(c) for c in trace.values]
        if index is not None:
            claims[index].flat[-1] += 3
        found = [p.check(key, x, y=y, trace=claims) for p in (one, several)]
        assert found[0].reason == found[1].reason
        assert found[0].claim == found[1].claim
        assert [c.name for c in found[0].results] == [c.name for c in found[1].results]
        assert [c.verdict for c in found[0].results] == [c.verdict for c in found[1].results]
        assert (found[0].reason == "ok") == (index is None)


def test_costs_count_what_is_replayed_before_a_claim():
    def waves(p, x):
        y = x @ p["first"]
        for _ in range(20):
            y = jnp.sin(y)
        return y @ p["first"]

    def costs(fn: Any) -> list[int]:
        compiled = program.compile(fn, PARAMS, X, policy=FEW)
        return compiled.analysis.costs(compiled.function.block, FEW.draws)

    plain, after = costs(waves)
    assert after == plain + 20 * X.size // 2
    first, scanned = costs(model)
    assert scanned > LAYERS * 0.9 * first
    assert len(costs(lambda p, x: x + 1)) == 0
