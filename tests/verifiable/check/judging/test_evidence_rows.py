"""Evidence about rows: as wholes, of several leaves, and of what no device computes alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import verifiable as vf
from tests.helpers.accusations import against
from verifiable import trace
from verifiable.check.judging.evidence import verify_evidence
from verifiable.policy import Policy

WIDTH, ROWS = 64, 8
POLICY = Policy(draws=4)
RNG = np.random.default_rng(11)
W = jnp.asarray(RNG.standard_normal((3, WIDTH, WIDTH)) / 8, jnp.float32)
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)


def layers(w: Any, x: Any) -> Any:
    return lax.scan(lambda c, u: (jnp.tanh(jnp.sin(c) @ u), None), x, w)[0]


def committed(run: vf.Submission, values: Any) -> vf.Submission:
    """A run with other values, committed to as they are."""
    changed = trace.Trace(values=tuple(values))
    return replace(run, trace=changed, commitment=trace.commit(run.y, changed).commitment)


def test_a_spectrum_that_vanishes_frames_nobody():
    """A complex product whose terms cancel: on every device, another rounding noise."""
    angles = np.outer(np.arange(WIDTH), np.arange(WIDTH)) * (-2j * np.pi / WIDTH)
    fourier = np.exp(angles).astype(np.complex64)

    def loudness(spectrum: Any) -> Any:
        return jnp.log(jnp.abs(spectrum) + 1e-12)

    def fn(w: Any, x: Any) -> Any:
        return loudness(x.astype(jnp.complex64) @ fourier) @ w[0]

    x = np.full((ROWS, WIDTH), 0.7, np.float32)
    program = vf.compile(fn, W, x, policy=POLICY)
    precise = (x.astype(np.complex128) @ fourier.astype(np.complex128)).astype(np.complex64)
    y = np.asarray(loudness(precise) @ W[0])
    honest = committed(replace(program.prove(W, x), y=y), [y])
    found = verify_evidence(against(program, honest, row=3), program, W, x)
    assert not found.guilty, found


def test_what_overflows_on_every_device_is_not_convicted():
    """In float16: infinite after the first product, NaN after the second."""
    x = jnp.full((ROWS, WIDTH), 300, jnp.float16)
    w = jnp.stack([jnp.full((WIDTH, WIDTH), 10), jnp.eye(WIDTH) - 0.5]).astype(jnp.float16)
    program = vf.compile(lambda w, x: (x * 1.5 @ w[0]) @ w[1], w, x, policy=POLICY)
    run = jax.device_get(program.prove(w, x))
    products = [c.index for c in program.claims if c.form.contraction]
    for index in products:
        assert not np.isfinite(np.asarray(run.trace.values[index], np.float32)).any()
        assert not verify_evidence(against(program, run, index=index, row=3), program, w, x).guilty


def test_a_row_of_a_rounding_is_also_judged_as_a_whole():
    """Cheat: each element is rounded to the other side of a tie that is within its tolerance."""
    lower = (1 + np.arange(WIDTH) / 128).astype(jnp.bfloat16)
    ties = lower.astype(np.float64) + 2.0**-8
    x = np.broadcast_to(np.log(ties * (1 + 4e-5)), (ROWS, WIDTH)).astype(np.float32)

    def narrowed(w: Any, x: Any) -> Any:
        return jnp.exp(x).astype(jnp.bfloat16).astype(jnp.float32) @ w[0]

    program = vf.compile(narrowed, W, x, policy=POLICY)
    run = jax.device_get(program.prove(W, x))
    [index] = [c.index for c in program.claims if c.form.rows_too]
    for count in (0, 1, 16, WIDTH):
        values = [np.array(v) for v in run.trace.values]
        values[index][3, :count] = lower[:count]
        e = against(program, committed(run, values), index=index, row=3)
        assert verify_evidence(e, program, W, x).guilty == (count == WIDTH)


def test_a_tensor_of_several_leaves_is_put_together():
    """Of rows that are opened one by one."""
    program = vf.compile(layers, W, X, policy=POLICY, cuts=True, row_block=1)
    run = jax.device_get(program.prove(W, X))
    e = against(program, run, index=0, row=5, trip=1)
    assert len(e.opening.leaves) > 2 * ROWS
    assert not verify_evidence(e, program, W, X).guilty
