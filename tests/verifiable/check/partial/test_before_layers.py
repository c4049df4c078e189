"""What leads into the first layer is tested in that layer's rows, in every audit of rows."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import verifiable as vf
from tests.helpers.runs import ACCEPT, REJECT
from verifiable import challenge, trace
from verifiable.check.partial.layers import Layers
from verifiable.policy import Policy
from verifiable.report import Report
from verifiable.trace import AuditPlan

LAYERS, TOKENS, WIDTH, VOCABULARY, ROWS = 3, 16, 64, 128, 4
RNG = np.random.default_rng(11)
P = {
    "table": jnp.asarray(RNG.standard_normal((VOCABULARY, WIDTH)), jnp.float32),
    "layers": jnp.asarray(RNG.standard_normal((LAYERS, WIDTH, WIDTH)) / 4, jnp.float32),
}
IDS = jnp.asarray(RNG.integers(0, VOCABULARY, TOKENS), jnp.int32)
LOOKUP, PRODUCT, CUT = range(3)


def stream(p: Any, x: Any) -> Any:
    return lax.scan(lambda c, w: (c + jnp.tanh(c) @ w, None), jnp.sin(x), p["layers"])[0]


def model(p: Any, ids: Any) -> Any:
    """Embedded tokens through the layers; all of them are the answer."""
    return jnp.cos(stream(p, p["table"][ids]))


@dataclass(frozen=True)
class Device:
    program: vf.Program
    key: vf.VerifierKey
    y: Any
    values: tuple[np.ndarray, ...]

    def audit(self, plan: AuditPlan, values: Any = None, y: Any = None) -> Report:
        values, y = self.values if values is None else values, self.y if y is None else y
        committed = self.program.commit(y, trace.Trace(values=tuple(values)))
        given = {"commitment": committed.commitment, "opening": committed.open(plan)}
        return self.program.audit(self.key, IDS, plan=plan, **given)

    def plan(self, i: int, layers: int = 1) -> AuditPlan:
        seed = i.to_bytes(32, "little")
        return self.program.audit_plan(seed, layers=layers, rows=ROWS)

    def entering(self, plan: AuditPlan) -> tuple[int, ...]:
        [rows] = self.program._layers.entering(plan.seed, ROWS).values()
        return rows


@functools.cache
def device() -> Device:
    policy = Policy(draws=4)
    program = vf.compile(model, P, IDS, policy=policy, cuts=True, row_block=2, self_test=False)
    submission = jax.device_get(program.prove(P, IDS))
    key = program.setup(P, challenge.secret(bytes(32)))
    return Device(program, key, submission.y, submission.trace.values)


def test_honest_devices_pass_at_every_plan():
    run = device()
    assert [c.primitive for c in run.program.claims] == ["gather", "dot_general", "cut"]
    with jax.disable_jit():
        y, found = jax.device_get(run.program.execute(P, IDS))
    for i in range(4):
        for layers in (1, LAYERS):
            plan = run.plan(i, layers)
            assert run.audit(plan).verdict is ACCEPT
            assert run.audit(plan, found.values, y).verdict is ACCEPT
    # The lookup is opened in the rows of the first layer, not whole.
    layout, plan = run.program.layout, run.plan(0)
    places = [layout.rows_of(i) for i in plan.leaves]
    rows = [r for p in places if p.tensor == LOOKUP for r in range(p.start, p.stop)]
    assert tuple(rows) == run.entering(plan)
    assert len(rows) == ROWS


def test_a_wrong_row_is_met_where_the_first_layer_is_drawn():
    run, seen = device(), set[bool]()
    for i in range(8):
        plan = run.plan(i)
        values = [np.array(v) for v in run.values]
        values[LOOKUP][5, 3] += 1
        met = 5 in run.entering(plan)
        report = run.audit(plan, values)
        if met:
            assert (report.verdict, report.reason) == (REJECT, "lookup-mismatch")
            assert next(r.row for r in report.results if r.verdict is REJECT) == 5
        elif 0 not in plan.layers:
            assert report.verdict is ACCEPT
        seen.add(met)
    assert seen == {True, False}


def test_another_prompt_is_always_met():
    run = device()
    other = jax.device_get(run.program.prove(P, jnp.flip(IDS)))
    for i in range(4):
        report = run.audit(run.plan(i), other.trace.values, other.y)
        assert report.verdict is REJECT


def test_what_other_layers_read_as_well_is_tested_whole():
    def beside(p: Any, ids: Any) -> Any:
        x = p["table"][ids]
        return lax.scan(lambda c, w: (c + jnp.tanh(x) @ w, None), jnp.sin(x), p["layers"])[0]

    def after(p: Any, ids: Any) -> Any:
        x = p["table"][ids]
        return stream(p, x) + x

    for fn in (beside, after):
        program = vf.compile(fn, P, IDS, cuts=True, row_block=2, self_test=False)
        assert not Layers.of(program).entries


def test_what_follows_from_the_layers_of_another_scan_is_tested_whole():
    def twice(p: Any, ids: Any) -> Any:
        return stream(p, jnp.tanh(stream(p, p["table"][ids])) @ p["layers"][0])

    program = vf.compile(twice, P, IDS, cuts=True, self_test=False)
    names = [c.primitive for c in program.claims]
    assert names == ["gather", "dot_general", "cut", "dot_general", "dot_general", "cut"]
    # The carry that the product between the scans reads is not replayed for it by itself.
    assert [entry.claims for entry in Layers.of(program).entries.values()] == [{LOOKUP}]
