"""Calibration: tolerances from trusted runs, what it refuses, and who may use them."""

from __future__ import annotations

import functools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable import challenge, program
from verifiable.check import calibration
from verifiable.policy import Calibration, Measured, Policy
from verifiable.report import Verdict

pytestmark = pytest.mark.optimised(verifier=False)

WIDTH, ROWS = 64, 24
RNG = np.random.default_rng(0)
PARAMS = {
    "up": RNG.standard_normal((WIDTH, 160)).astype(np.float32) / 8,
    "q": RNG.integers(-127, 128, (160, WIDTH)).astype(np.int8),
}


def fn(p: Any, x: Any) -> Any:
    h = jax.nn.gelu(x @ p["up"])
    scale = jnp.max(jnp.abs(h), -1, keepdims=True) / 127
    q = jnp.clip(jnp.round(h / scale), -127, 127).astype(jnp.int8)
    return lax.dot(q, p["q"], preferred_element_type=jnp.int32).astype(jnp.float32) * scale


def sample(seed: int) -> tuple[Any]:
    return (np.random.default_rng(seed).standard_normal((ROWS, WIDTH)).astype(np.float32),)


SAMPLES = [sample(i) for i in range(4)]


@functools.cache
def calibrated() -> SimpleNamespace:
    compiled = program.compile(fn, PARAMS, *SAMPLES[0])
    policy = compiled.calibrate(PARAMS, SAMPLES)
    return SimpleNamespace(before=compiled, policy=policy, after=compiled.with_policy(policy))


def test_every_inexact_claim_and_output_gets_its_own_tolerance():
    c = calibrated()
    first, rounding, second = c.before.claims
    assert set(c.policy.calibrated) == {first.name, rounding.name, "output"}
    assert second.form.exact
    for name, eps in c.policy.calibrated.items():
        assert 0 < eps < c.before.tolerances[name]
        assert c.after.tolerances[name] == eps
    assert c.after.tolerances[second.name] == 0


def test_a_program_of_integers_has_nothing_to_calibrate():
    levels = np.ones((2, 64), np.int8)
    exact = program.compile(
        lambda w, x: lax.dot(x, w, preferred_element_type=jnp.int32), levels.T, levels
    )
    assert exact.calibrate(levels.T, [(levels,)]) is exact.policy


def test_a_tolerance_is_the_factor_times_the_worst_or_the_floor():
    c = calibrated()
    for m in c.policy.calibration.measured:
        assert m.eps in (4 * m.worst, calibration.FLOOR * 2.0**-24)
        assert m.eps >= 4 * m.worst
        assert 0 <= m.median <= m.worst
    wider = c.before.calibrate(PARAMS, SAMPLES, factor=40.0)
    assert wider.calibrated[c.before.claims[0].name] > c.policy.calibrated[c.before.claims[0].name]


def test_honest_runs_on_other_inputs_are_accepted_and_small_cheats_no_longer():
    c = calibrated()
    x = sample(99)
    y, trace = jax.device_get(jax.jit(c.after.execute)(PARAMS, *x))
    with jax.disable_jit():
        other = jax.device_get(c.after.execute(PARAMS, *x))
    for compiled in (c.before, c.after):
        key = compiled.setup(PARAMS, challenge.secret())
        for run in ((y, trace), other):
            report = compiled.check(key, *x, y=run[0], trace=run[1])
            assert report.verdict is Verdict.ACCEPT, report
    # The row's deviation is 2e-5 of its norm: inside the default tolerance, outside this one.
    noise = RNG.standard_normal(trace.values[0].shape[1])
    claims = [np.array(a) for a in trace.values]
    row = claims[0][3]
    row += (noise * np.linalg.norm(row) / np.linalg.norm(noise) * 2e-5).astype(np.float32)
    found = []
    for compiled in (c.before, c.after):
        key = compiled.setup(PARAMS, challenge.secret())
        found.append(compiled.check(key, *x, y=y, trace=claims).results[0].verdict)
    assert found == [Verdict.ACCEPT, Verdict.REJECT]


def test_further_executors_take_part():
    c = calibrated()
    seen = []

    def rough(params: Any, *inputs: Any) -> Any:
        """A device whose products are a little off."""
        y, trace = c.before.execute(params, *inputs)
        seen.append(inputs)
        first = np.array(trace.values[0]) * np.float32(1 + 3e-6)
        return y, (first, *trace.values[1:])

    policy = c.before.calibrate(PARAMS, SAMPLES[:2], executors=[rough])
    assert len(seen) == 2
    assert policy.calibration.executors == 3
    name = c.before.claims[0].name
    assert policy.calibrated[name] > 2 * c.policy.calibrated[name]


def test_another_calibration_compiles_nothing(monkeypatch: pytest.MonkeyPatch):
    c = calibrated()

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("compiled again")

    monkeypatch.setattr(jax, "jit", never)
    assert c.before.calibrate(PARAMS, SAMPLES[:1]).calibration.samples == 1


def test_the_table_names_every_claim_with_its_spread():
    c = calibrated()
    text = str(c.policy.calibration)
    assert text.startswith("4 samples on 2 executors, factor 4")
    assert all(m.name in text for m in c.policy.calibration.measured)
    assert "median" in text
    assert "worst" in text


def nan(at: int) -> list[tuple[Any]]:
    bad = [tuple(np.array(a) for a in s) for s in SAMPLES]
    bad[at][0][1, 1] = np.nan
    return bad


def returns(change: Any) -> Any:
    def executor(params: Any, *inputs: Any) -> Any:
        y, trace = calibrated().before.execute(params, *inputs)
        return change(np.array(y), [np.array(a) for a in trace.values])

    return executor


def put(a: Any, value: Any) -> Any:
    a.flat[0] = value
    return a


REFUSED = {
    "no samples": ([], (), "at least one sample"),
    "an input that is not a number": (nan(2), (), "sample 2 is not finite"),
    "an executor that returns NaN": (
        SAMPLES,
        [returns(lambda y, c: (put(y, np.nan), c))],
        "executor 2 .* not finite",
    ),
    "a claim that is infinite": (
        SAMPLES,
        [returns(lambda y, c: (y, [put(c[0], np.inf), *c[1:]]))],
        "executor 2 .* not finite",
    ),
    "another program's trace": (
        SAMPLES,
        [returns(lambda y, c: (y, c[:1]))],
        "does not run this program: claim-missing",
    ),
    "a wrong integer": (
        SAMPLES,
        [returns(lambda y, c: (y, [c[0], c[1], put(c[2], 5)]))],
        "by more than any tolerance: claim-mismatch",
    ),
    "a poisoned tolerance": (
        SAMPLES,
        [returns(lambda y, c: (y, [c[0] * 3, *c[1:]]))],
        "that is not rounding",
    ),
}


@pytest.mark.parametrize(("samples", "executors", "message"), REFUSED.values(), ids=REFUSED)
def test_what_calibration_refuses(samples: Any, executors: Any, message: str):
    with pytest.raises(ValueError, match=message):
        calibrated().before.calibrate(PARAMS, samples, executors=executors)


def test_a_sample_that_is_no_tuple_is_named():
    with pytest.raises(TypeError, match=r"samples\[0\] must be a tuple or a list, got ndarray"):
        calibrated().before.calibrate(PARAMS, [np.zeros(3)])  # pyright: ignore[reportArgumentType]


def test_keys_of_another_calibration_are_refused_by_name():
    c = calibrated()
    key = c.before.setup(PARAMS, challenge.secret())
    x = SAMPLES[0]
    y, trace = jax.jit(c.after.execute)(PARAMS, *x)
    mine, theirs = c.before.policy.id.hex(), c.policy.id.hex()
    wanted = f"made for policy {mine}, this check has {theirs}"
    with pytest.raises(ValueError, match=wanted):
        c.after.check(key, *x, y=y, trace=trace)


def test_a_policy_that_was_calibrated_for_another_program_is_refused_by_name():
    c = calibrated()
    other = program.compile(lambda p, x: jnp.tanh(x) @ p["up"], PARAMS, *SAMPLES[0])
    with pytest.raises(ValueError, match="calibrated for another program: for"):
        other.with_policy(c.policy)
    carried = replace(c.policy.calibration, programs=(c.before.id, other.id))
    with pytest.raises(ValueError, match="calibrated for another program, with 'convert"):
        other.with_policy(replace(c.policy, calibration=carried))
    with pytest.raises(ValueError, match="calibrated for another program"):
        program.compile(lambda p, x: jnp.tanh(x) @ p["up"], PARAMS, *SAMPLES[0], policy=c.policy)
    with pytest.raises(ValueError, match="compiled for 16 draws, the policy has 8"):
        other.with_policy(Policy(draws=8))


def test_equal_names_of_claims_do_not_make_a_calibration_fit():
    c = calibrated()
    twice = program.compile(lambda p, x: 2 * fn(p, x), PARAMS, *SAMPLES[0])
    assert twice.tolerances.keys() == c.before.tolerances.keys()
    with pytest.raises(ValueError, match=f"and this is {twice.id.hex()[:16]}"):
        twice.with_policy(c.policy)
    carried = replace(c.policy.calibration, programs=(c.before.id, twice.id))
    policy = replace(c.policy, calibration=carried)
    assert twice.with_policy(policy).tolerances == c.after.tolerances
    assert c.before.with_policy(policy).policy.id != c.policy.id


def test_every_number_of_a_calibration_is_in_the_id():
    measured = Measured(name="a", median=1e-7, worst=2e-7, eps=8e-7)

    def policy(**changes: Any) -> Policy:
        numbers = {
            "programs": (bytes(32),),
            "samples": 3,
            "executors": 2,
            "factor": 4.0,
            "measured": (measured,),
        } | changes
        return Policy(calibration=Calibration(**numbers))

    other = {"name": "b", "median": 1.1e-7, "worst": 1.9e-7, "eps": 9e-7}
    fields = {"name": "a", "median": 1e-7, "worst": 2e-7, "eps": 8e-7}
    changed = [policy(measured=(Measured(**fields | {k: v}),)) for k, v in other.items()]
    changed += [policy(programs=(b"1" * 32,)), policy(programs=(bytes(32), b"1" * 32))]
    changed += [policy(samples=4), policy(executors=3), policy(factor=5.0), Policy(), policy()]
    assert len({p.id for p in changed}) == len(changed)


@pytest.mark.parametrize(
    "changes",
    [
        *({"programs": x} for x in ((), (b"",), ("a" * 32,), [bytes(32)], bytes(32))),
        {"samples": 0},
        {"executors": 0},
        {"measured": ()},
        {"factor": 0.5},
        {"factor": np.inf},
        {"factor": np.nan},
        {"measured": (Measured(name="a", median=0.0, worst=np.nan, eps=0.1),)},
        {"measured": (Measured(name="a", median=0.0, worst=0.0, eps=0.0),)},
        {"measured": (Measured(name="a", median=0.0, worst=0.0, eps=1.0),)},
        {"measured": (Measured(name="a", median=0.0, worst=0.0, eps=np.nan),)},
    ],
)
def test_a_calibration_that_measures_nothing_or_allows_everything_cannot_be_made(changes: Any):
    fine = Measured(name="a", median=1e-7, worst=2e-7, eps=8e-7)
    numbers = {"programs": (bytes(32),), "samples": 3, "executors": 2, "factor": 4.0}
    numbers["measured"] = (fine,)
    Calibration(**numbers)
    with pytest.raises(ValueError, match=r"calibration|factor|deviation|tolerance"):
        Calibration(**numbers | changes)
