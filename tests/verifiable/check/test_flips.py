"""Decisions that are not the verifier's own: how many rounding explains, and the cheat beyond."""

from __future__ import annotations

import functools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from tests.helpers.p_values import above
from verifiable import challenge, program
from verifiable.check import flips
from verifiable.policy import Calibration, Measured, Policy
from verifiable.report import Report, Verdict

ROWS, WIDTH = 64, 128
POLICY = Policy(draws=1)


@given(st.integers(1, 10**7), st.floats(1e-9, 1.0), st.sampled_from([1e-9, 1e-3]))
@settings(max_examples=200, deadline=None)
def test_an_honest_device_has_more_flips_with_probability_phi(n: int, p: float, phi: float):
    """Against the distribution itself: the limit is the least that has this property."""
    policy = Policy(eps=(("float32", 1e-9),), tie_rate=p / 1e-9, phi=phi)
    claim: Any = SimpleNamespace(
        decisions=n,
        name="gt",
        eps_types=frozenset({"float32"}),
        narrow_sums=frozenset(),
        own_sums=frozenset(),
        decisive=0,
    )
    most, p = flips.limit(claim, policy), policy.tie_rate_of(claim)
    assert 0 <= most <= n
    assert above(most, n, p) <= phi * (1 + 1e-6)
    assert most == 0 or above(most - 1, n, p) > phi * (1 - 1e-6)


def test_where_every_decision_may_be_a_tie_all_may_differ():
    assert flips._quantile(7, 1.0, 1e-9) == 7


@pytest.mark.parametrize(
    ("count", "most", "others", "explained"),
    [
        (5, 5, [0] * 64, True),
        (6, 5, [0] * 64, False),
        (6, 5, [0] * 3 + [1] + [0] * 60, True),
        (50, 5, [1] * 64, False),  # FEW are enough: far beyond
        (120, 5, [21] * 19 + [200], True),  # FEW may miss a jump of what they move far
        (8, 5, [1] * 63 + [3], True),  # MANY are asked
        (9, 5, [1] * 63 + [3], False),
    ],
)
def test_flips_of_perturbed_replays_explain_as_many(
    count: int, most: int, others: list[float], explained: bool
):
    assert flips.explained(count, most, iter(others)) == explained


# ------------------------------------------------------------------------------- a program

# Two values that decide: near a tie in one element of a hundred, and tied in all of them.
NEAR, TIED = 3e-6, 0.0


def compares(p: Any, x: Any, distance: Any) -> Any:
    """Whether h < h (1 + distance), by two ways of the same product."""
    h = jnp.exp(x)
    return (h * 0.3 + h * 0.7 < h * (1 + distance)) * x @ p


@functools.cache
def made() -> SimpleNamespace:
    rng = np.random.default_rng(0)
    p = jnp.asarray(rng.standard_normal((WIDTH, WIDTH)), jnp.float32)
    x = jnp.asarray(rng.standard_normal((ROWS, WIDTH)), jnp.float32)
    compiled = program.compile(compares, p, x, x, policy=POLICY)
    return SimpleNamespace(program=compiled, p=p, x=x, key=compiled.setup(p, challenge.secret()))


def sent(turned: int, tie: float, other: float | None = None) -> Report:
    """A device that turns the first decisions round where a tie is that near, and goes on.

    Every other row of these may be nearer or farther.
    """
    c = made()
    far = np.ones((ROWS, WIDTH), np.float32)
    far[::2, ::5] = tie  # one in ten
    far[::4, ::5] = tie if other is None else other
    _, run = jax.device_get(jax.jit(c.program.execute)(c.p, c.x, far))
    bits = np.unpackbits(run.values[0], axis=-1, bitorder="little").astype(bool)
    rows, columns = np.nonzero(far != 1)
    bits[rows[:turned], columns[:turned]] ^= True
    y = np.asarray(lax.dot(bits * c.x, c.p))
    values = (np.packbits(bits, axis=-1, bitorder="little"), y)
    return c.program.check(c.key, c.x, far, y=y, trace=values)


def test_the_report_has_the_number_of_near_ties_and_of_flips():
    report = sent(1, NEAR)
    assert report.verdict is Verdict.ACCEPT
    [counted] = [r for r in report.results if r.ties]
    assert (counted.flips, counted.ties) == (1, ROWS // 2 * -(-WIDTH // 5))
    assert f"near-ties {counted.ties}, of which 1" in str(report)
    assert report.to_dict()["results"][0]["flips"] == 1


def test_a_cheat_that_takes_every_tie_is_rejected():
    """Cheat: each decision is within its slack, but all are turned round."""
    [most] = made().program.flip_limits.values()
    assert most < 20
    assert sent(most, NEAR).verdict is Verdict.ACCEPT
    report = sent(200, NEAR)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "decision-ties"), report
    assert report.results[0].flips == 200


@pytest.mark.compiled
def test_decisions_that_are_ties_in_exact_arithmetic_are_the_devices():
    """Every device decides them in its own way, and equal rows of padding may hold many."""
    report = sent(200, TIED)
    assert report.verdict is Verdict.ACCEPT, report
    assert report.results[0].flips == 200


def test_ties_that_no_rounding_turns_do_not_hide_among_those_that_it_does():
    """Cheat: half of the decisions that are turned round are near a tie, and not tied."""
    report = sent(200, NEAR, TIED)
    assert report.verdict is not Verdict.ACCEPT, report


def test_a_calibrated_policy_has_the_rate_that_was_measured():
    c = made()
    claim = c.program.claims[0]
    assert claim.decisions == ROWS * WIDTH
    measured = Measured(name=claim.name, median=0.0, worst=0.0, eps=1e-6, flips=0.01)
    calibration = Calibration(
        programs=(bytes(32),), samples=1, executors=1, factor=4.0, measured=(measured,)
    )
    policy = replace(POLICY, calibration=calibration)
    assert policy.tie_rate_of(claim, claim.name) == 0.01
    assert policy.id != replace(policy, tie_rate=0.5).id
    less = replace(calibration, measured=(replace(measured, flips=0.0),))
    assert replace(policy, calibration=less).tie_rate_of(claim, claim.name) == 0.25e-6
    assert replace(policy, calibration=less).id != policy.id
    with pytest.raises(ValueError, match="between 0 and 1"):
        replace(calibration, measured=(replace(measured, flips=1.5),))
    with pytest.raises(ValueError, match="tie_rate"):
        Policy(tie_rate=-1.0)
