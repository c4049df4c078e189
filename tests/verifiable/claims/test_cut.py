"""Cuts: which carries are committed, and how far a committed one may be off."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import verifiable as vf
from tests.helpers.runs import ACCEPT, INDETERMINATE, REJECT, put
from verifiable.claims.cut import CutForm
from verifiable.claims.form import Yardstick
from verifiable.policy import Policy

RNG = np.random.default_rng(3)
P = jnp.asarray(RNG.standard_normal((3, 64, 64)) / 8, jnp.float32)
X = jnp.asarray(RNG.standard_normal((64, 64)), jnp.float32)
FLOAT = np.dtype(np.float32)


def test_the_slack_of_an_element_is_that_of_a_rounding():
    value = jnp.asarray(RNG.standard_normal((4, 16)), jnp.float32)
    form, eps = CutForm(steps=(), source=FLOAT, dtype=FLOAT), 1e-3
    size = np.abs(value) + np.sqrt(np.mean(np.square(value), axis=-1, keepdims=True))
    for share, passes in ((0.99, True), (1.01, False)):
        moved = put(value, (2, 5), value[2, 5] + share * eps * size[2, 5])
        with jax.enable_x64(True):
            found = form.test([value], jnp.asarray(moved), Yardstick(eps=eps))
        assert (bool(found.passed), int(found.row)) == (passes, 2)
        np.testing.assert_allclose(found.worst, share, rtol=1e-3)


def test_a_cheat_at_the_limit_is_not_beyond_it():
    """What `attack` makes of the slack of all elements at once: rows are held to less."""
    value = jnp.asarray(RNG.standard_normal((64, 64)), jnp.float32)
    form, eps = CutForm(steps=(), source=FLOAT, dtype=FLOAT), 2e-6
    with jax.enable_x64(True):
        moved = form.shifted([value], value, jnp.ones_like(value), eps, 1.0)
        found = form.test([value], moved, Yardstick(eps=eps))
    assert 0.8 < float(found.worst) <= 1


def test_the_extremes_of_a_cut_are_the_ends_of_its_slack():
    """In its own type too, where the sum of a value and its slack may be rounded outwards."""
    value = jnp.asarray(RNG.standard_normal((64, 64)), jnp.float32)
    form = CutForm(steps=(), source=FLOAT, dtype=FLOAT)
    with jax.enable_x64(True):
        for wide in (value, value.astype(jnp.float64)):
            slack = jnp.abs(wide) * 1e-3
            v, s, low, high = (
                np.asarray(x, np.float64) for x in (wide, slack, *form.extremes(wide, slack))
            )
            last = 3 * np.spacing(np.abs(v).astype(np.float32)) + 1e-12
            for moved in (v - low, high - v):
                assert np.all(moved <= s)
                assert np.all(moved >= s - last)
            low, high = form.extremes(wide, jnp.zeros_like(wide))
            assert np.array_equal(low, wide)
            assert np.array_equal(high, wide)


def carries(p: Any, x: Any) -> Any:
    """One carry is of parameters only, one is exact, one is a claim, two are the same."""

    def body(c: Any, w: Any) -> Any:
        known, count, product, h, _ = c
        h = h + jnp.tanh(product)
        return (known + jnp.sin(w[0, 0]), count + 1, jnp.sin(h) @ w, h, h), h

    start = (p[0, 0, 0], jnp.int32(0), x, x, x)
    (_, _, product, h, _), every = lax.scan(body, start, p)
    return product + h, every


def test_what_is_neither_known_nor_exact_is_cut_once():
    plain = vf.compile(carries, P, X, policy=Policy(draws=4))
    run = vf.compile(carries, P, X, policy=Policy(draws=4), cuts=True)
    assert [c.primitive for c in plain.claims] == ["dot_general"]
    assert [(c.primitive, c.shape) for c in run.claims] == [
        ("dot_general", (3, 64, 64)),
        ("cut", (3, 64, 64)),
    ]
    assert isinstance(run.claims[1].form, CutForm)
    device = str(jax.make_jaxpr(run.execute)(P, X))
    assert device.count("optimization_barrier") == 1  # the cut itself
    assert run.id != plain.id
    assert "cut: a cut, what a layer passes on" in str(run)


def test_what_has_a_name_is_cut_unless_all_devices_have_the_same():
    """Values of parameters alone, inputs that are only moved, and integers."""

    def fn(p: Any, x: Any) -> Any:
        known, same = checkpoint_name(jnp.sin(p[0]), "known"), checkpoint_name(x[::-1], "same")
        count = checkpoint_name(jnp.argmax(x, axis=-1), "count")
        return checkpoint_name(jnp.tanh(x @ p[1]), "cut") @ known + same + count[:, None]

    made = vf.compile(fn, P, X, policy=Policy(draws=4), cuts=True)
    assert [c.primitive for c in made.claims].count("cut") == 1


def test_a_program_with_cuts_is_checked_as_a_whole():
    program = vf.compile(carries, P, X, policy=Policy(draws=4), cuts=True)
    key = program.setup(P, vf.challenge.secret(bytes(32)))
    run = jax.device_get(program.prove(P, X))
    mine, theirs = jax.jit(carries)(P, X), run.y
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), mine, theirs)
    assert program.check(key, X, y=run.y, trace=run.trace).verdict is ACCEPT
    product, cut = run.trace.values
    report = program.check(key, X, y=run.y, trace=[product, put(cut, (1, 2, 3), 7.0)])
    assert (report.verdict, report.reason) == (REJECT, "cut-mismatch")
    assert (report.claim, report.results[1].trip) == ("scan/cut.3", 1)


def test_a_cut_behind_glue_that_magnifies_rounding_rejects_no_honest_device():
    """The norm of constant rows is noise: a device whose mean is off by a last bit has another."""

    def named(p: Any, x: Any) -> Any:
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(centred**2, axis=-1, keepdims=True)
        return checkpoint_name(centred * lax.rsqrt(variance + 1e-5), "norm") @ p[0]

    x = np.full((64, 64), 30.3, np.float32)
    program = vf.compile(named, P, x, policy=Policy(draws=4), cuts=True, self_test=False)
    key = program.setup(P, vf.challenge.secret(bytes(32)))
    centred = x - x[:, :1] * np.float32(1 + 2e-7)
    norm = (centred / np.sqrt(centred[:, :1] ** 2 + 1e-5)).astype(np.float32)
    values = {"cut": norm, "dot_general": np.asarray(norm @ P[0])}
    trace = [values[c.primitive] for c in program.claims]
    report = program.check(key, x, y=values["dot_general"], trace=trace)
    assert report.results[0].worst > 1
    assert (report.verdict, report.reason) == (INDETERMINATE, "ill-conditioned")
