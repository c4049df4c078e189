"""Audits of some rows: they look at these rows, and at nothing else of an audited layer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import verifiable as vf
from tests.helpers.runs import ACCEPT, REJECT
from tests.helpers.traces import received
from verifiable import challenge, trace
from verifiable.check.partial.layers import Layers
from verifiable.check.partial.measured import AuditDraw
from verifiable.policy import Policy
from verifiable.report import Detection, Report, Verdict
from verifiable.trace import AuditOpening, AuditPlan

LAYERS, ROWS, WIDTH, HEADS = 3, 16, 64, 2
SHAPES = {
    "qkv": (WIDTH, 3 * WIDTH),
    "out": (WIDTH, WIDTH),
    "up": (WIDTH, 128),
    "down": (128, WIDTH),
}
RNG = np.random.default_rng(3)
P = {
    name: jnp.asarray(RNG.standard_normal((LAYERS, *shape)) / np.sqrt(shape[0]), jnp.float32)
    for name, shape in SHAPES.items()
}
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)
POLICY = Policy(draws=4)
QKV, OUT, UP, DOWN, STREAM = range(5)  # claims, in the order of the program


def scaled(x: Any) -> Any:
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5)


def attended(h: Any, mask: Any) -> Any:
    q, k, v = (a.reshape(*a.shape[:-1], HEADS, -1) for a in jnp.split(h, 3, axis=-1))
    scores = jnp.einsum("...thd,...shd->...hts", q, k) / 8
    shares = jax.nn.softmax(jnp.where(mask, scores, -1e9))
    return jnp.einsum("...hts,...shd->...thd", shares, v).reshape(*h.shape[:-1], WIDTH)


def model(p: Any, x: Any) -> Any:
    """A transformer whose answer is the stream in its last row."""
    mask = jnp.tril(jnp.ones((x.shape[-2], x.shape[-2]), bool))

    def body(c: Any, w: Any) -> tuple[Any, None]:
        c = c + attended(scaled(c) @ w["qkv"], mask) @ w["out"]
        return c + jax.nn.silu(scaled(c) @ w["up"]) @ w["down"], None

    return scaled(lax.scan(body, x, p)[0])[..., -1:, :]


@dataclass(frozen=True)
class Device:
    """A program with its key, and the run of an honest device."""

    program: vf.Program
    key: vf.VerifierKey
    y: Any
    values: tuple[np.ndarray, ...]

    def committed(self, values: Any = None) -> trace.Committed:
        values = self.values if values is None else values
        return self.program.commit(self.y, trace.Trace(values=tuple(values)))

    def audit(self, plan: AuditPlan, values: Any = None, **how: Any) -> Report:
        committed = self.committed(values)
        given = {"commitment": committed.commitment, "opening": committed.open(plan)} | how
        return self.program.audit(self.key, X, plan=plan, **given)

    def wrong(self, claim: int, *place: int) -> list[np.ndarray]:
        """The values of a device of which one element is wrong."""
        values = [np.array(v) for v in self.values]
        values[claim][place] += 3
        return values


@functools.cache
def device() -> Device:
    program = vf.compile(model, P, X, policy=POLICY, cuts=True, row_block=1)
    submission = jax.device_get(program.prove(P, X))
    key = program.setup(P, challenge.secret(bytes(32)))
    return Device(program, key, submission.y, submission.trace.values)


def seed(i: int) -> bytes:
    return i.to_bytes(32, "little")


def plan_of(i: int, layers: int = 2, rows: int | None = 3) -> AuditPlan:
    return device().program.audit_plan(seed(i), layers=layers, rows=rows)


def stated() -> Detection:
    return Detection(layers=LAYERS, audited=2, rows=ROWS, audited_rows=3, answer_rows=1)


def test_rows_are_drawn_for_each_layer_by_itself():
    plans = [plan_of(i) for i in range(100)]
    assert all(len(r) == 3 and list(r) == sorted(set(r)) for p in plans for r in p.rows)
    assert any(a != b for a, b in (p.rows for p in plans))
    counts = np.bincount([row for p in plans for r in p.rows for row in r], minlength=ROWS)
    assert len(counts) == ROWS
    assert counts[-1] == 200  # the answer is that of the last row
    assert abs(counts[:-1] - 26.7).max() < 20  # deviation 4.8
    # All rows are the plan without rows, and draws of rows leave those of layers as they are.
    assert plan_of(0, rows=ROWS).id == plan_of(0, rows=None).id != plan_of(0).id
    assert plan_of(0, rows=None).layers == plan_of(0).layers
    assert device().program.layer_rows == ROWS


def test_what_mixes_rows_is_opened_whole_and_tested_in_rows():
    run = device()
    assert [c.primitive for c in run.program.claims] == ["dot_general"] * 4 + ["cut"]
    [scan] = Layers.of(run.program).scans
    assert scan.rows is not None
    assert [t.claim.index for t in scan.rows.tests] == [QKV, OUT, UP, DOWN, STREAM]
    assert scan.rows.pulled.needs.reads == {QKV}
    opened = Layers.of(run.program).opened([1], [(2, 5)])
    parts = {i: None if trips is None else dict(trips) for i, trips in opened.items()}
    rows = {i: {t: p and {r for _, r in p} for t, p in (parts[i] or {}).items()} for i in parts}
    assert rows[QKV] == {1: None}
    assert rows[OUT] == rows[UP] == rows[DOWN] == {1: {(2, 5)}}
    # The same rows of the cut before, and of the last cut the row that the answer follows.
    assert rows[STREAM] == {0: {(2, 5)}, 1: {(2, 5)}, 2: {(0,)}}
    [(cut, _)] = (parts[STREAM] or {})[2] or ()
    assert cut == (0, 1, ROWS - 1)
    # So it is where all rows of a layer are audited.
    whole = Layers.of(run.program).opened([1])
    assert whole[STREAM] == {0: None, 1: None, 2: {(cut, (0,))}}
    assert run.audit(plan_of(0, rows=None)).verdict is ACCEPT


def test_honest_runs_are_accepted_row_by_row():
    run, compilations = device(), set[int]()
    whole = run.program.check(run.key, X, y=run.y, trace=trace.Trace(values=run.values))
    for i in range(4):
        plan = plan_of(i)
        report = run.audit(plan)
        assert (report.verdict, report.reason) == (ACCEPT, "ok"), report
        for found, every in zip(report.results, whole.results, strict=True):
            # An honest ratio is rounding itself, and float32 rounds rows and wholes apart.
            assert found.worst <= every.worst * 1.1 + 1e-12
            if found.name != "output":
                assert found.row in plan.rows[plan.layers.index(found.trip)]
        assert report.detection == stated()
        assert "2 of 3 layers were audited, 3 of 16 rows of each with 1 of the answer" in str(
            report
        )
        assert report.coverage.checked < whole.coverage.checked / 4
        compilations.add(run.program._compiled_audit._base._cache_size())
    # The first audit compiles, or one of another test did; the others run what it compiled.
    assert len(compilations) == 1
    assert min(compilations) > 0


def test_tests_read_what_is_opened_and_nothing_else():
    """With numbers that are none in place of the rest, every measure is the same."""
    run, plan = device(), plan_of(1)
    program, layout = run.program, run.program.layout
    values = [np.full_like(v, np.nan) for v in run.values]
    for place in map(layout.rows_of, plan.leaves):
        if place.tensor < len(values):
            both = (
                v[place.tensor].reshape(-1, v[place.tensor].shape[-1]) for v in (values, run.values)
            )
            hidden, own = both
            hidden[place.start : place.stop] = own[place.start : place.stop]
    assert all(np.isnan(v).mean() > 0.3 for v in values)
    audit, drawn = program._compiled_audit, AuditDraw(plan.layers, plan.rows)
    given = [received(layout, v) for v in (values, run.values)]
    found = [
        audit.measure(plan.layers, audit.arguments(drawn, run.key.arrays, (X,), [run.y], v), v)
        for v in given
    ]
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_a_wrong_unit_is_met_in_audited_rows_and_nowhere_else():
    """In the rows of every claim; what reads it elsewhere is keys and values, opened whole."""
    run, plan = device(), plan_of(1)
    layer, rows = plan.layers[0], plan.rows[0]
    other = next(r for r in range(ROWS - 1) if r not in rows)
    for claim in (QKV, OUT, UP, DOWN, STREAM):
        report = run.audit(plan, run.wrong(claim, layer, rows[1], 1))
        assert report.verdict is REJECT
        name = run.program.claims[claim].name
        failed = {(r.name, r.trip, r.row) for r in report.results if r.verdict is REJECT}
        assert (name, layer, rows[1]) in failed
        if claim not in (QKV, STREAM):
            assert run.audit(plan, run.wrong(claim, layer, other, 1)).verdict is ACCEPT
    # An unseen row of an audited layer's query; of a layer that is not audited, any.
    assert run.audit(plan, run.wrong(QKV, layer, other, 1)).verdict is ACCEPT
    [left] = set(range(LAYERS)) - set(plan.layers)
    assert run.audit(plan, run.wrong(UP, left, rows[0], 1)).verdict is ACCEPT


def test_a_value_that_is_not_finite_is_tested_again_in_its_rows():
    run, plan = device(), plan_of(1)
    layer, rows = plan.layers[0], plan.rows[0]
    for row, reason in ((rows[0], "claim-nonfinite"), (next(iter({0, 1, 2, 3} - {*rows})), "ok")):
        values = run.wrong(UP, layer, row, 1)
        values[UP][layer, row, 1] = np.nan
        report = run.audit(plan, values)
        assert report.reason == reason
        if reason != "ok":
            assert report.claim == run.program.claims[UP].name


def test_one_wrong_unit_is_met_as_often_as_the_formula_says():
    """(s / L) (r / T), by the draws of many seeds; the verdicts of some of them."""
    run, place = device(), (1, 6)
    plans = [plan_of(i) for i in range(1000)]
    met = [place[0] in p.layers and place[1] in p.rows[p.layers.index(place[0])] for p in plans]
    chance = stated().choosing
    assert chance == pytest.approx(2 / 3 * 2 / 15)
    # 99 %: 2.58 standard deviations.
    assert abs(sum(met) - 1000 * chance) < 2.58 * np.sqrt(1000 * chance * (1 - chance))
    values = run.wrong(DOWN, *place, 1)
    some = [i for i in range(60) if met[i]][:4] + [i for i in range(60) if not met[i]][:6]
    for i in some:
        assert (run.audit(plans[i], values).verdict is REJECT) == met[i]


def test_a_row_of_every_layer_is_met_as_often_as_the_formula_says():
    plans = [plan_of(i) for i in range(1000)]
    met = sum(any(6 in rows for rows in p.rows) for p in plans)
    chance = stated().everywhere
    assert chance == pytest.approx(1 - (13 / 15) ** 2)
    assert abs(met - 1000 * chance) < 2.58 * np.sqrt(1000 * chance * (1 - chance))
    alike = Detection(layers=LAYERS, audited=2, rows=ROWS, audited_rows=3, apart=False)
    assert alike.everywhere == 3 / 16


def test_a_wrong_unit_in_the_row_of_the_answer_is_met_whenever_its_layer_is_drawn():
    run, seen = device(), set[bool]()
    assert stated().answering == 2 / 3
    for i in range(6):
        plan = plan_of(i)
        drawn = 1 in plan.layers
        for claim in (OUT, UP, DOWN):
            report = run.audit(plan, run.wrong(claim, 1, ROWS - 1, 1))
            assert (report.verdict is REJECT) == drawn
        seen.add(drawn)
    assert seen == {True, False}


def test_the_rows_of_the_answer_are_audited_only_where_others_are_drawn_too():
    def first(p: Any, x: Any) -> Any:
        return model(p, x) + lax.scan(lambda c, w: (c @ w["out"], None), x, p)[0][:4]

    program = vf.compile(first, P, X, policy=POLICY, cuts=True, row_block=2, self_test=False)
    layers = Layers.of(program)
    assert [[layers.answer_blocks(s, r) for s in layers.scans] for r in (2, 4, 6)] == [
        [(), ()],
        [(7,), ()],
        [(7,), (0, 1)],
    ]
    assert [layers.most_answer_rows(r) for r in (2, 4, 6)] == [0, 2, 4]
    plan = program.audit_plan(seed(0), layers=6, rows=6)
    assert [len(r) for r in plan.rows] == [6] * 6
    assert all({14, 15} < {*r} for r in plan.rows[:3])
    assert all({0, 1, 2, 3} < {*r} for r in plan.rows[3:])


def test_places_in_a_carry_of_another_length_are_no_rows_of_the_answer():
    def wider(p: Any, x: Any) -> Any:
        def body(c: Any, w: Any) -> Any:
            rows, more = c
            return (rows + jnp.tanh(rows) @ w["out"], jnp.roll(more, 1, 0) + rows[0]), None

        (rows, more), _ = lax.scan(body, (x, jnp.concatenate([x, x])), p)
        return rows[-1] + more[20:22].sum(0)

    program = vf.compile(wider, P, X, policy=POLICY, cuts=True, self_test=False)
    layers = Layers.of(program)
    [scan] = layers.scans
    assert layers.most_rows == ROWS
    assert layers.answer_blocks(scan, 8) == ()


# ------------------------------------------------------------------------------- bad openings


def of_other_rows(run: Device, plan: AuditPlan, opening: AuditOpening) -> AuditOpening:
    """Another row of a claim in place of an audited one."""
    layout, leaves = run.program.layout, set(plan.leaves)
    layer, rows = plan.layers[0], plan.rows[0]
    other = next(r for r in range(ROWS) if r not in rows)
    leaves.remove(layout.leaf(UP, layer * ROWS + rows[0]))
    leaves.add(layout.leaf(UP, layer * ROWS + other))
    found = run.committed().open(sorted(leaves))
    proof = (*found.proof, *opening.proof)[: plan.digests]
    return replace(opening, leaves=found.leaves, proof=proof)


BAD: dict[str, tuple[str, Callable[[Device, AuditPlan, AuditOpening], Any]]] = {
    "rows of another seed": (
        "opening-plan",
        lambda run, plan, _: run.committed().open(plan_of(2)),
    ),
    "leaves of other rows": ("opening-mismatch", of_other_rows),
    "a leaf missing": ("opening-missing", lambda _, __, o: replace(o, leaves=o.leaves[1:])),
    "a leaf too many": (
        "opening-extra",
        lambda _, __, o: replace(o, leaves=(*o.leaves, o.leaves[0])),
    ),
    "bytes beyond the end": ("opening-structure", lambda _, __, o: o.encode() + bytes(256)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_openings_have_their_reasons(name: str):
    run, plan = device(), plan_of(1)
    reason, tamper = BAD[name]
    report = run.audit(plan, opening=tamper(run, plan, run.committed().open(plan)))
    assert (report.verdict, report.reason) == (REJECT, reason), report.message
    assert (report.y, report.results) == (None, ())


def test_rows_that_a_layer_has_not_are_errors():
    run, plan = device(), plan_of(1)
    for rows in (0, ROWS + 1, True, 2.0):
        with pytest.raises(ValueError, match="can be audited"):
            run.program.audit_plan(seed(0), layers=1, rows=rows)  # pyright: ignore[reportArgumentType]
    committed = run.committed()
    for other in (
        replace(plan, rows=((0, 1, ROWS), plan.rows[1])),
        replace(plan, rows=plan.rows[::-1]),
        replace(plan, row_count=4),
    ):
        with pytest.raises(ValueError, match="not of this program"):
            run.audit(other, opening=committed.open(plan))


def test_programs_without_rows_degrade_to_layers():
    def turned(p: Any, x: Any) -> Any:  # mixes rows: along a carry's only axis
        return lax.scan(lambda c, w: (jnp.tanh(w @ c), None), x[0], p["out"])[0]

    program = vf.compile(turned, P, X, policy=POLICY, self_test=False)
    assert program.layer_rows == 1
    plan = program.audit_plan(seed(0), layers=1, rows=8)
    assert (plan.rows, plan.row_count) == ((), None)
    assert plan.id == program.audit_plan(seed(0), layers=1).id


def test_examples_are_rows_of_which_nothing_is_opened_whole():
    batch = jnp.stack([X[:8], X[8:]] * 2)
    program = vf.compile(model, P, batch, policy=POLICY, cuts=True, self_test=False)
    [scan] = Layers.of(program).scans
    assert program.layer_rows == len(batch)
    assert scan.rows is not None
    assert not scan.rows.pulled.needs.reads
    submission = jax.device_get(program.prove(P, batch))
    key = program.setup(P, challenge.secret(bytes(32)))
    committed = trace.commit(submission.y, submission.trace)
    plan = program.audit_plan(seed(0), layers=1, rows=1)
    report = program.audit(
        key, batch, plan=plan, commitment=committed.commitment, opening=committed.open(plan)
    )
    assert report.verdict is Verdict.ACCEPT, report


def test_roundings_of_narrow_types_are_tested_in_rows():
    """What they are compared with is the equation itself, replayed in these rows."""

    def narrow(p: Any, x: Any) -> Any:
        def body(c: Any, w: Any) -> tuple[Any, None]:
            h = scaled(c).astype(jnp.bfloat16) @ w["up"].astype(jnp.bfloat16)
            return c + (jax.nn.silu(h) @ w["down"].astype(jnp.bfloat16)).astype(jnp.float32), None

        return lax.scan(body, x, p)[0][-1:]

    program = vf.compile(narrow, P, X, policy=POLICY, cuts=True, row_block=1, self_test=False)
    [scan] = Layers.of(program).scans
    assert scan.rows is not None
    assert not scan.rows.beside
    [silu] = [t for t in scan.rows.tests if t.claim.replays_itself]
    submission = jax.device_get(program.prove(P, X))
    key = program.setup(P, challenge.secret(bytes(32)))
    plan = program.audit_plan(seed(0), layers=1, rows=2)
    layer, row = plan.layers[0], plan.rows[0][1]
    for wrong in (None, row, next(r for r in range(ROWS) if r not in plan.rows[0])):
        values = [np.array(v) for v in submission.trace.values]
        if wrong is not None:
            values[silu.claim.index][layer, wrong, 3] += 2
        committed = program.commit(submission.y, trace.Trace(values=tuple(values)))
        given = {"commitment": committed.commitment, "opening": committed.open(plan)}
        report = program.audit(key, X, plan=plan, **given)
        assert report.verdict is (REJECT if wrong == row else ACCEPT), report
        if wrong == row:
            failed = {(r.name, r.trip) for r in report.results if r.verdict is REJECT}
            assert (silu.claim.name, layer) in failed


def test_a_wrong_answer_is_met_whichever_rows_are_audited():
    """Outputs are numbered by themselves: what is audited of a claim says nothing of them."""

    def answers(p: Any, x: Any) -> Any:
        def body(c: Any, w: Any) -> tuple[Any, Any]:
            c = c + jnp.tanh(c) @ w
            return c, jnp.tanh(c)

        carry, each = lax.scan(body, x, p["out"])
        return each, jnp.tanh(carry[0]), jnp.tanh(carry[1]), jnp.tanh(carry)

    program = vf.compile(answers, P, X, policy=POLICY, cuts=True, self_test=False)
    assert len(program.claims) == 2
    submission = jax.device_get(program.prove(P, X))
    key = program.setup(P, challenge.secret(bytes(32)))
    plan = program.audit_plan(seed(0), layers=1, rows=4)
    layer = next(i for i in range(LAYERS) if i not in plan.layers)
    row = next(i for i in range(ROWS) if i not in plan.rows[0])
    for output, place in [(None, ()), (0, (layer, row, 0)), (1, (3,)), (2, (3,)), (3, (row, 0))]:
        y = [np.array(v) for v in submission.y]
        if output is not None:
            y[output][place] += 0.5
        committed = program.commit(tuple(y), submission.trace)
        given = {"commitment": committed.commitment, "opening": committed.open(plan)}
        report = program.audit(key, X, plan=plan, **given)
        wanted = (ACCEPT, "ok") if output is None else (REJECT, "output-mismatch")
        assert (report.verdict, report.reason) == wanted, (output, report)
