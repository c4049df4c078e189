"""Pieces of functions that jump, as claims: programs, cheats behind them, and flips."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import verifiable as vf
from tests.helpers.accusations import against
from tests.helpers.runs import Run
from verifiable import trace
from verifiable.check.judging.evidence import verify_evidence
from verifiable.claims.decisions.pieces import SignBit, WholePiece
from verifiable.claims.form import Yardstick
from verifiable.policy import Policy
from verifiable.report import Verdict

ROWS, WIDTH, LAYERS = 16, 64, 3
RNG = np.random.default_rng(2)
W = jnp.asarray(RNG.standard_normal((LAYERS, WIDTH, WIDTH)) / 8, jnp.float32)
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)


def jumping(w: Any, x: Any) -> Any:
    """Each kind of piece in each layer, none before a product of its own."""

    def layer(h: Any, u: Any) -> tuple[Any, None]:
        h = h @ u
        h = h * lax.rsqrt(jnp.mean(h * h, -1, keepdims=True) + 1e-5)
        a = jnp.mod(h, 0.7) + jnp.fmod(h, 0.9) - h // 0.8
        return a + jnp.arctan2(h, h - 0.5) + jnp.copysign(jnp.log1p(jnp.abs(h)), h - 0.1), None

    h, _ = lax.scan(layer, x, w[:-1])
    return h @ w[-1]


@functools.cache
def made() -> Run:
    return Run.of(jumping, W, X, policy=Policy(draws=4))


def index_of(function: str) -> int:
    claims = made().program.claims
    return next(c.index for c in claims if c.equation.params.get("of") == function)


def test_every_jump_is_a_claim_and_nothing_is_left_behind_one():
    compiled = made().program
    found = {c.equation.params["of"]: c.dtype.name for c in compiled.claims if not c.work}
    whole = dict.fromkeys(("remainder", "rem", "floor_divide"), "float32")
    assert found == whole | dict.fromkeys(("atan2", "signbit"), "uint8")
    assert not compiled.coverage.discontinuities
    assert not any(x.discontinuities for x in (*compiled.claims, *compiled.outputs))


def test_honest_devices_are_accepted_and_return_the_plain_answer():
    c = made()
    assert c.check(c.y, tuple(c.claims)).verdict is Verdict.ACCEPT
    np.testing.assert_array_equal(c.y, jax.device_get(jax.jit(jumping)(W, X)))
    with jax.disable_jit():
        y, run = jax.device_get(c.program.execute(W, X))
    report = c.check(y, run.values)
    assert report.verdict is Verdict.ACCEPT, report


def test_skipped_layers_behind_a_jump_are_rejected():
    """Cheat: a device computes another layer as zero, all else from that; it was indeterminate."""
    c = made()
    y, run = jax.device_get(c.program.execute(W.at[1].set(0), X))
    report = c.check(y, run.values)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch"), report


def test_one_unit_behind_a_jump_is_rejected():
    """Cheat: one element of the product after it."""
    c = made()
    values = [np.array(v) for v in c.claims]
    last = next(p.index for p in c.program.claims if p.work and not p.trips)
    values[last][3, 5] += np.std(values[last])
    report = c.check(values[last], tuple(values))
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch"), report


CHEATS = {
    "another quotient": ("rem", lambda v: v + 1, "decision-mismatch"),
    "another whole quotient": ("remainder", lambda v: v - 1, "decision-mismatch"),
    "another number of steps": ("floor_divide", lambda v: v + 3, "decision-mismatch"),
    "half a piece": ("remainder", lambda v: v + np.float32(0.5), "claim-range"),
    "a piece without a number": ("rem", lambda v: v * np.float32(np.nan), "claim-range"),
    "the other side of the cut": ("atan2", lambda v: v ^ np.uint8(1), "decision-mismatch"),
    "another sign": ("signbit", lambda v: v ^ np.uint8(1), "decision-mismatch"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_are_rejected(name: str):
    function, change, reason = CHEATS[name]
    index = index_of(function)
    values = [np.array(v) for v in made().claims]
    values[index][1, 2, :1] = change(values[index][1, 2, :1])
    report = made().check(made().y, tuple(values))
    assert (report.verdict, report.reason) == (Verdict.REJECT, reason), report
    assert report.claim == made().program.claims[index].name


@pytest.mark.parametrize("function", ["rem", "atan2"])
def test_a_piece_beyond_the_slack_is_evidence(function: str):
    c, index = made(), index_of(function)
    for guilty in (False, True):
        values = [np.array(v) for v in c.claims]
        if guilty:
            values[index][1, 2, 0] = values[index][1, 2, 0] + 1 if function == "rem" else 255
        claimed = trace.Trace(values=tuple(values))
        run = vf.Submission(
            y=c.y,
            trace=claimed,
            commitment=trace.commit(c.y, claimed).commitment,
            program=c.program.id,
            parameters=vf.parameter_root(W),
        )
        evidence = against(c.program, run, index=index, row=2, trip=1)
        assert verify_evidence(evidence, c.program, W, X).guilty == guilty


# ------------------------------------------------------------------------------------ flips

EPS = 2.0**-16


def counted(value: float, y: float, piece: float) -> Any:
    row = np.full(64, 0.5, np.float32)
    row[0] = value
    form = WholePiece(function="rem", shape=row.shape, dtype=row.dtype, inputs=2, origins=(None,))
    operands = [row / np.float32(y), row, np.float32(y)]
    pieces = np.trunc(operands[0])
    pieces[0] = piece
    with jax.enable_x64(True):
        return jax.device_get(form.test(operands, pieces, Yardstick(eps=EPS)))


@pytest.mark.parametrize(
    ("apart", "piece", "passed", "flips"),
    [
        (0.5, 2, True, 0),  # of the slack, which is 5 eps and the rms of the row
        (0.5, 3, True, 1),
        (0.01, 3, True, 0),  # less than devices lose
        (2.0, 3, False, 1),
        (0.5, 1, False, 1),
        (-0.5, 2, True, 1),
    ],
)
def test_a_whole_piece_beyond_what_rounding_does_is_a_flip(
    apart: float, piece: float, passed: bool, flips: int
):
    """Cheat: wherever a quotient is near a whole number, the other piece."""
    slack = EPS * (3 + 1.06)
    found = counted(3 - apart * slack, 1.0, piece)
    assert bool(found.passed) == passed
    assert (int(found.flips), int(found.ties)) == (flips, int(abs(apart) < 1))


def test_zeros_have_signs_that_devices_may_choose():
    zeros = np.array([0.0, -0.0, 1.0, -1.0], np.float32)
    form = SignBit(kind="lt", shape=(4,), dtype=zeros.dtype, inexact=(True, False))
    for bits, passed, flips in ((0b1010, True, 0), (0b1001, True, 2), (0b0110, False, 2)):
        with jax.enable_x64(True):
            found = form.test([zeros], np.array([bits], np.uint8), Yardstick(eps=EPS))
        assert (bool(found.passed), int(found.flips)) == (passed, flips)


def test_a_cheat_in_all_claims_is_followed_through_pieces():
    """Within the tolerance it may pass; the corridor says how far it moves the answer."""
    run = made()

    def answer(y: Any) -> Any:
        return y[0, 0]

    for kappa, verdict in ((0.5, Verdict.ACCEPT), (40.0, Verdict.REJECT)):
        assert run.check(*run.program.attack(W, X, answer=answer, kappa=kappa)).verdict is verdict
    assert run.program.corridor(W, X, answer=answer, kappa=0.5).reach > 0


@pytest.mark.parametrize(
    ("apart", "toward", "taken"),
    [(0.5, 1, 3), (0.5, -1, 2), (0.5, 0, 2), (-0.5, -1, 2), (-0.5, 1, 3), (2, 1, 2), (-2, -1, 3)],
)
def test_a_shift_takes_the_piece_beside_it_near_that_end_only(
    apart: float, toward: int, taken: int
):
    row, y = np.full(64, 0.5, np.float32), np.float32(1)
    row[0] = 3 - apart * EPS * (3 + 1.06)
    form = WholePiece(function="rem", shape=row.shape, dtype=row.dtype, inputs=2, origins=(None,))
    operands: list[Any] = [row / y, row, y]
    pieces = np.trunc(row)
    shift = np.zeros_like(row)
    shift[0] = toward
    with jax.enable_x64(True):
        room = form.room(operands, None, pieces, EPS)
        found = form.shifted(operands, jnp.asarray(pieces), jnp.asarray(shift), EPS, 1.0)
    assert np.asarray(room).tolist() == [float(abs(apart) < 1)] + [0.0] * 63
    assert np.asarray(found).tolist() == [float(taken)] + [0.0] * 63
