"""Rows of layers that are no iterations: audits look at these rows of the audited layers alone."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

import verifiable as vf
from tests.helpers.runs import ACCEPT, REJECT
from verifiable import challenge, trace
from verifiable.policy import Policy

LAYERS, ROWS, WIDTH = 3, 12, 32
RNG = np.random.default_rng(5)
P = {
    name: jnp.asarray(RNG.standard_normal((LAYERS, WIDTH, WIDTH)) / np.sqrt(WIDTH), jnp.float32)
    for name in ("query", "value", "out")
}
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)


def model(p: Any, x: Any) -> Any:
    """Attention that is written out, layer by layer; the answer is the last row."""
    for i in range(LAYERS):
        with jax.named_scope(f"block_{i}"):
            x = x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5)
            query, value = x @ p["query"][i], x @ p["value"][i]
            mixed = jax.nn.softmax(query @ value.T / 6) @ value
            x = checkpoint_name(x + mixed @ p["out"][i], "stream")
    return x[-1:]


@functools.cache
def device(*, cuts: bool) -> SimpleNamespace:
    block = 2 if cuts else None
    program = vf.compile(model, P, X, policy=Policy(draws=4), cuts=cuts, row_block=block)
    submission = jax.device_get(program.prove(P, X))
    return SimpleNamespace(
        program=program,
        key=program.setup(P, challenge.secret(bytes(32))),
        y=submission.y,
        values=[np.array(v) for v in submission.trace.values],
        index={
            c.name.partition("/")[0] + "/" + c.name.rpartition("/")[2]: c.index
            for c in program.claims
        },
    )


def audit(d: SimpleNamespace, plan: Any, values: Any = None) -> vf.Report:
    made = trace.Trace(values=tuple(d.values if values is None else values))
    committed = d.program.commit(d.y, made)
    opening = committed.open(plan).encode()
    assert len(opening) == plan.nbytes
    given = {"commitment": committed.commitment, "opening": opening}
    return d.program.audit(d.key, X, plan=plan, **given)


def drawn(d: SimpleNamespace, layer: int, rows: int = 2) -> Any:
    plans = (d.program.audit_plan(bytes([n]) * 32, layers=1, rows=rows) for n in range(100))
    return next(plan for plan in plans if plan.layers == (layer,))


def wrong(d: SimpleNamespace, claim: int, row: int) -> list[np.ndarray]:
    values = [np.array(v) for v in d.values]
    values[claim][row, 3] += 2
    return values


def of_layer(d: SimpleNamespace, layer: int) -> list[int]:
    return [c.index for c in d.program.claims if c.name.startswith(f"block_{layer}/")]


@pytest.mark.parametrize("cuts", [True, False])
def test_honest_runs_are_accepted_in_some_rows_of_any_layer(cuts: bool):
    d = device(cuts=cuts)
    assert (len(d.program.layers), d.program.layer_rows) == (LAYERS, ROWS)
    for layer in range(LAYERS):
        plan = drawn(d, layer)
        report = audit(d, plan)
        assert report.verdict is ACCEPT
        [rows] = plan.rows
        assert len(rows) == 2
        found = report.detection
        assert (found.rows, found.audited_rows, found.apart) == (ROWS, 2, False)
        assert found.everywhere == found.row == pytest.approx(2 / ROWS)
        whole = d.program.audit_plan(plan.seed, layers=1)
        assert plan.opened <= whole.opened
        assert not cuts or plan.opened < whole.opened


@pytest.mark.parametrize("cuts", [True, False])
@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_wrong_row_is_rejected_where_it_is_audited(cuts: bool, layer: int):
    d = device(cuts=cuts)
    plan = drawn(d, layer)
    [rows] = plan.rows
    claim = of_layer(d, layer)[-1 if cuts else 0]
    report = audit(d, plan, wrong(d, claim, rows[1]))
    assert report.verdict is REJECT
    failed = next(r for r in report.results if r.verdict is REJECT)
    assert (failed.name, failed.row) == (d.program.claims[claim].name, rows[1])


def test_a_wrong_row_is_not_looked_at_elsewhere():
    d = device(cuts=True)
    plan = drawn(d, 1)
    [rows] = plan.rows
    other = next(n for n in range(ROWS - 1) if n not in rows)
    query = of_layer(d, 1)[0]
    assert audit(d, plan, wrong(d, query, other)).verdict is ACCEPT
    assert audit(d, plan, wrong(d, of_layer(d, 2)[0], rows[0])).verdict is ACCEPT
    # With all rows, it is.
    assert (
        audit(d, d.program.audit_plan(plan.seed, layers=1), wrong(d, query, other)).verdict
        is REJECT
    )


def test_the_rows_are_the_same_in_all_layers():
    d = device(cuts=True)
    plan = d.program.audit_plan(bytes(32), layers=LAYERS, rows=4)
    assert len(set(plan.rows)) == 1
    assert audit(d, plan).verdict is ACCEPT
    assert all(a % 2 == 0 for a in plan.rows[0][::2])  # blocks of two neighbours


def test_a_layer_without_rows_is_tested_in_all_of_them():
    def pooled(p: Any, x: Any) -> Any:
        with jax.named_scope("block_0"):
            x = jax.nn.silu(x @ p["query"][0])
        with jax.named_scope("block_1"):
            return jnp.mean(x, axis=0) @ p["out"][1]

    program = vf.compile(pooled, P, X, policy=Policy(draws=4))
    plan = program.audit_plan(bytes(32), layers=2, rows=3)
    assert [len(rows) for rows in plan.rows] == [3, 0]
