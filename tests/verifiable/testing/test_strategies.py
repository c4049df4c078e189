"""Strategies draw what they say, and what they draw can be used."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import verifiable as vf
from verifiable import trace as traces
from verifiable.errors import MalformedEncoding
from verifiable.testing import devices, hostile
from verifiable.testing import strategies as vst
from verifiable.trace import AuditOpening, Layout

FEW = settings(
    max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
RNG = np.random.default_rng(1)
PARAMS = [jnp.asarray(RNG.standard_normal((32, 32)) / 6, jnp.float32) for _ in range(2)]
X = jnp.asarray(RNG.standard_normal((8, 32)), jnp.float32)


def model(params: Any, x: Any) -> Any:
    return jax.nn.gelu(x @ params[0]) @ params[1]


@functools.cache
def program() -> vf.Program:
    return vf.compile(model, PARAMS, X, policy=vst.FEW)


@functools.cache
def key() -> vf.VerifierKey:
    return program().setup(PARAMS, vf.challenge.secret(bytes(32)))


@functools.cache
def sent() -> vf.Submission:
    return program().prove(PARAMS, X)


@FEW
@given(vst.small_programs())
def test_small_programs_run_and_have_the_shapes_they_say(small: vst.SmallProgram):
    y = jax.eval_shape(small.fn, small.params, *small.inputs)
    shapes = [x.shape for x in jax.tree.leaves(y)]
    assert shapes in ([(vst.ROWS, vst.WIDTH)], [(vst.ROWS, vst.WIDTH), (vst.ROWS,)])
    assert 1 <= len(small.layers) == len(small.params) <= 3


@pytest.mark.parametrize("name", vst.LAYERS)
def test_every_layer_makes_a_claim(name: str):
    shape, layer = vst.LAYERS[name]
    w = jnp.asarray(np.random.default_rng(0).standard_normal(shape) / 6, jnp.float32)
    assert vf.compile(layer, w, X, policy=vst.FEW).claims


@FEW
@given(st.deferred(lambda: vst.honest_answers(devices.devices(program()), PARAMS, (X,))))
def test_honest_answers_are_accepted(drawn: tuple[str, devices.Answer]):
    name, (y, trace) = drawn
    report = program().check(key(), X, y=y, trace=trace)
    assert report.verdict is vf.Verdict.ACCEPT, name


@FEW
@given(st.data())
def test_values_are_like_those_they_are_drawn_from(data: st.DataObject):
    like = {"w": PARAMS[0], "ids": jnp.zeros(4, jnp.int32), "mask": jnp.zeros((2, 3), jnp.bool_)}
    drawn = data.draw(vst.values_like(like))
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), like, drawn)
    assert all(jax.tree.leaves(same))
    assert np.all((np.asarray(drawn["ids"]) >= 0) & (np.asarray(drawn["ids"]) < 4))


@FEW
@given(vst.traces())
def test_traces_can_be_committed_and_sent(drawn: tuple[Any, vf.trace.Trace]):
    y, trace = drawn
    layout = Layout.of(y, trace)
    traces.verify(traces.commit(y, trace).commitment, y, trace, layout=layout)
    again, claims = traces.decode(traces.encode(y, trace), layout)
    assert traces.encode(again, claims) == traces.encode(y, trace)


@FEW
@given(st.deferred(lambda: vst.openings(program(), program().commit(sent().y, sent().trace))))
def test_openings_answer_their_plan(drawn: tuple[vf.trace.AuditPlan, bytes]):
    plan, opening = drawn
    assert AuditOpening.decode(opening, plan).encode() == opening
    report = program().audit(key(), X, plan=plan, commitment=sent().commitment, opening=opening)
    assert report.verdict is vf.Verdict.ACCEPT


@given(st.binary(min_size=1, max_size=60), st.data())
def test_hostile_bytes_are_not_the_honest_ones(honest: bytes, data: st.DataObject):
    assert data.draw(vst.hostile_bytes(honest)) != honest


@FEW
@given(st.data())
def test_hostile_bytes_are_refused_or_read_as_they_are(data: st.DataObject):
    changed = data.draw(vst.hostile_bytes(sent().encode()))
    try:
        read = vf.Submission.decode(changed, program().layout)
    except MalformedEncoding:
        return
    assert read.encode() == changed


@settings(max_examples=1)
@given(st.data())
def test_nothing_can_be_changed_about_nothing(data: st.DataObject):
    with pytest.raises(ValueError, match="at least one byte"):
        data.draw(vst.hostile_bytes(b""))


@FEW
@given(vst.hostile_objects())
def test_hostile_objects_are_rejected_and_never_raise(make: Callable[[], Any]):
    thing = make()
    report = program().check(key(), X, y=thing, trace=thing)
    assert report.verdict is vf.Verdict.REJECT


def test_large_objects_are_named():
    assert hostile.OBJECTS.keys() > hostile.LARGE
