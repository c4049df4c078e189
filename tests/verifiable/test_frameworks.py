"""Models from Flax NNX, Flax Linen and Equinox go through compile, execute, setup and check.

Honest runs are accepted, jitted and op by op; `execute` changes no bit of the output; a change of
100 times the limit in any claim is rejected and named. Models that choose near a tie, where honest
devices choose differently, are never rejected.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import networks
from tests.helpers.looks import first_look_only
from verifiable import challenge, program
from verifiable.claims.roundings.rounding import Rounding
from verifiable.key import VerifierKey
from verifiable.program import Program
from verifiable.report import Report, Verdict

SEED = bytes(range(32))


@dataclass(frozen=True, kw_only=True)
class Case:
    fn: Callable[..., Any]
    params: Any
    inputs: tuple[Any, ...]
    program: Program
    key: VerifierKey
    y: Any
    claims: tuple[np.ndarray, ...]

    def check(self, y: Any, claims: Any) -> Report:
        return self.program.check(self.key, *self.inputs, y=y, trace=claims)

    @functools.cached_property
    def op_by_op(self) -> tuple[Any, tuple[Any, ...]]:
        with jax.disable_jit():
            y, trace = self.program.execute(self.params, *self.inputs)
        return y, trace.values


def _case(model: Callable[[], networks.Model]) -> Case:
    fn, params, inputs = model()
    compiled = program.compile(fn, params, *inputs)
    y, trace = jax.device_get(jax.jit(compiled.execute)(params, *inputs))
    return Case(
        fn=fn,
        params=params,
        inputs=inputs,
        program=compiled,
        key=compiled.setup(params, challenge.secret(SEED)),
        y=y,
        claims=trace.values,
    )


# One model at a time: pytest groups the tests that share a parameter of a module's fixture.
@pytest.fixture(scope="module", params=networks.CONTINUOUS)
def case(request: pytest.FixtureRequest) -> Case:
    return _case(networks.CONTINUOUS[request.param])


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.optimised(verifier=False))
        for name in networks.DISCONTINUOUS
    ],
)
def choice(request: pytest.FixtureRequest) -> Case:
    return _case(networks.DISCONTINUOUS[request.param])


def assert_same_bits(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    leaves = [[np.asarray(x) for x in jax.tree.leaves(tree)] for tree in (a, b)]
    for x, y in zip(*leaves, strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert x.tobytes() == y.tobytes()


def test_execute_returns_the_bits_of_the_plain_function_op_by_op(case: Case):
    with jax.disable_jit():
        plain = case.fn(case.params, *case.inputs)
    assert_same_bits(plain, case.op_by_op[0])


@pytest.mark.optimised
def test_execute_returns_the_bits_of_the_plain_function_jitted(case: Case):
    """XLA fuses a convolution with the sums after it, but only where nothing else wants its
    output; so without that fusion, on both sides."""
    # A function of its own: JAX would reuse what another test compiled without optimisations.
    options: dict[str, Any] = {}
    if any(c.primitive == "conv_general_dilated" for c in case.program.claims):
        options = {"xla_cpu_experimental_ynn_fusion_type": ""}
    run = jax.jit(lambda *a: case.program.execute(*a)[0], compiler_options=options)
    plain = jax.jit(case.fn, compiler_options=options)
    assert_same_bits(plain(case.params, *case.inputs), run(case.params, *case.inputs))


def test_an_honest_jitted_run_is_accepted(case: Case):
    report = case.check(case.y, case.claims)
    assert report.verdict is Verdict.ACCEPT, report
    assert report.reason == "ok"
    assert report.worst <= 1


def test_an_honest_run_op_by_op_is_accepted(case: Case):
    report = case.check(*case.op_by_op)
    assert report.verdict is Verdict.ACCEPT, report


def test_nearly_all_arithmetic_is_covered_by_claims(case: Case):
    coverage = case.check(case.y, case.claims).coverage
    assert coverage.checked == sum(c.work for c in case.program.claims) > 0
    assert coverage.replayed > 0
    assert coverage.share > 0.5


def test_nothing_is_taken_for_a_choice_near_a_tie(case: Case):
    """Where it is, a wrong claim after it could no longer be rejected."""
    assert not case.program.coverage.discontinuities
    assert not any(claim.discontinuities for claim in case.program.claims)


def test_the_table_names_every_claim(case: Case):
    text = str(case.program)
    assert all(claim.name in text for claim in case.program.claims)


def moved(case: Case, index: int, times: float) -> tuple[np.ndarray, ...]:
    """The claims, with part of a row of one claim moved by `times` its limit; integers by one."""
    claims = list(case.claims)
    rng = np.random.default_rng(index)
    claim = np.array(claims[index])
    row = tuple(int(rng.integers(n)) for n in claim.shape[:-1])
    claims[index] = claim
    if not jnp.issubdtype(claim.dtype, jnp.inexact):
        claim[row][int(rng.integers(claim.shape[-1]))] += 1
        return tuple(claims)
    direction = rng.standard_normal(claim.shape[-1])
    honest = claim[row].copy()
    # The statistic is linear in the deviation: a first step of a hundredth gives its slope.
    size = 0.01 * float(np.sqrt(np.mean(np.square(claim, dtype=np.float64))))
    for _ in range(2):
        claim[row] = honest + size * direction
        with first_look_only():
            worst = case.check(case.y, tuple(claims)).results[index].worst
        size *= times / worst
    assert worst == pytest.approx(times, rel=0.2)
    return tuple(claims)


def test_a_row_changed_by_100_times_its_limit_is_rejected_in_each_claim(case: Case):
    last = len(case.program.claims) - 1
    for index, claim in enumerate(case.program.claims):
        changed = moved(case, index, 100.0)
        with nullcontext() if index == last else first_look_only():
            report = case.check(case.y, changed)
        assert report.verdict is Verdict.REJECT, (claim.name, report)
        assert report.reason == "claim-mismatch"
        assert report.results[index].verdict is Verdict.REJECT, (claim.name, report)
        # Under a scan, an earlier claim of a later layer fails as well.
        assert report.claim == claim.name or claim.trips


def test_an_output_that_the_claims_do_not_lead_to_is_rejected(case: Case):
    y = np.array(case.y)
    y.flat[y.size // 2] += np.abs(y).max()
    report = case.check(y, case.claims)
    assert report.verdict is Verdict.REJECT, report
    assert report.reason == "output-mismatch"


# ------------------------------------------------------------------------- discontinuous glue


def test_honest_devices_choose_differently_near_a_tie(choice: Case):
    """Otherwise the tests below would show nothing."""
    y, _ = choice.op_by_op
    pairs = zip(jax.tree.leaves(choice.y), jax.tree.leaves(y), strict=True)
    assert any(not np.allclose(a, b, rtol=1e-3) for a, b in pairs)


def test_a_rounding_near_a_tie_is_no_choice_but_a_claim():
    """Quantised with dynamic scales, an honest device of either kind passes."""
    case = _case(networks.int8_dynamic)
    assert any(isinstance(claim.form, Rounding) for claim in case.program.claims)
    for y, claims in ((case.y, case.claims), case.op_by_op):
        report = case.check(y, claims)
        assert report.verdict is Verdict.ACCEPT, report


def test_a_choice_near_a_tie_is_a_claim(choice: Case):
    assert not choice.program.coverage.discontinuities
    assert any(claim.form.mismatch == "decision-mismatch" for claim in choice.program.claims)


def test_a_choice_near_a_tie_is_never_rejected(choice: Case):
    for y, claims in ((choice.y, choice.claims), choice.op_by_op):
        report = choice.check(y, claims)
        assert report.verdict is not Verdict.REJECT, report
        if report.verdict is Verdict.INDETERMINATE:
            assert report.reason == "ill-conditioned"


def test_a_wrong_product_before_or_after_the_choice_is_rejected(choice: Case):
    for index, claim in enumerate(choice.program.claims):
        if not jnp.issubdtype(claim.dtype, jnp.inexact):
            continue
        report = choice.check(choice.y, moved(choice, index, 100.0))
        assert report.verdict is Verdict.REJECT, (claim.name, report)
        assert report.claim == claim.name
