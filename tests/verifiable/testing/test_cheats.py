"""The catalogue on one program with every kind of claim: each cheat gets its verdict and reason."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

import verifiable as vf
from verifiable.testing import changes, cheats, parameters
from verifiable.testing import strategies as vst
from verifiable.testing.cheat import MISMATCHES, Cheat, allowed
from verifiable.testing.workload import Workload

RNG = np.random.default_rng(5)
ROWS, WIDTH, WORDS = 8, 32, 64
SECRET = vf.challenge.secret(bytes(range(32)))


def _weights(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.standard_normal(shape) / np.sqrt(shape[-2]), jnp.float32)


PARAMS = {
    "words": _weights(WORDS, WIDTH),
    "layers": [_weights(WIDTH, WIDTH), _weights(WIDTH, WIDTH)],
    "levels": jnp.asarray(RNG.integers(-100, 100, (WIDTH, WIDTH)), jnp.int8),
    "head": _weights(WIDTH, WORDS),
}
INPUTS = (jnp.asarray(RNG.permutation(WORDS)[:ROWS], jnp.int32),)


def model(p: Any, ids: Any) -> Any:
    x = p["words"][ids]
    for w in p["layers"]:
        x = x + jnp.tanh(x @ w)
    x = jnp.where(jnp.tanh(x @ p["layers"][0]) > 0.1, x, 0.1 * x)
    scale = jnp.max(jnp.abs(x)) / 127
    levels = jnp.clip(jnp.round(x / scale), -127, 127).astype(jnp.int8)
    product = lax.dot_general(
        levels, p["levels"], (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32
    )
    scores = (product * (scale / 100)) @ p["head"]
    return {"chosen": jnp.argmax(jax.nn.gelu(scores), -1), "scores": scores}


@functools.cache
def work() -> Workload:
    return Workload.of(vf.compile(model, PARAMS, *INPUTS, policy=vst.FEW), PARAMS, *INPUTS)


@functools.cache
def key() -> vf.VerifierKey:
    return work().program.setup(PARAMS, SECRET)


def verify(sent: vf.Submission) -> vf.Report:
    return work().program.verify(
        key(), *INPUTS, sent, commitment=sent.commitment, parameters=work().parameters
    )


def test_the_honest_run_is_accepted_and_changes_nothing():
    sent = work().honest
    report = verify(sent)
    assert (report.verdict, report.reason) == (vf.Verdict.ACCEPT, "ok")
    assert allowed(work(), sent, report)


# Where the cheat has no use here, or is worth no more than the tolerance.
NOTHING = {"a trip more"}
PASS = {"near-ties taken the other way"}


@pytest.mark.parametrize("cheat", cheats.CATALOGUE, ids=lambda cheat: cheat.name)
def test_each_cheat_gets_its_verdict_and_reason(cheat: Cheat):
    if cheat.name in NOTHING:
        assert not cheat.applies(work().program)
        return
    assert cheat.applies(work().program)
    sent = cheat.run(work())
    assert sent is not None
    report = verify(sent)
    assert cheat.problem(work(), sent, report) is None
    if cheat.name not in PASS:
        assert report.verdict is vf.Verdict.REJECT


def test_names_are_unique_and_every_reason_is_a_code():
    names = [cheat.name for cheat in cheats.CATALOGUE]
    assert len({*names}) == len(names) >= 45
    assert all(cheat.does for cheat in cheats.CATALOGUE)
    assert all(cheat.reasons <= vf.report.REASONS.keys() for cheat in cheats.CATALOGUE)


def test_what_compiles_is_tried_only_if_asked_for():
    quick, every = (cheats.applicable(work().program, compiling=c) for c in (False, True))
    assert {c.name for c in every} - {c.name for c in quick} == {
        c.name for c in cheats.FORGED if c.name not in NOTHING
    }


def _named(name: str) -> Cheat:
    return next(cheat for cheat in cheats.CATALOGUE if cheat.name == name)


@pytest.mark.parametrize(
    ("name", "verdict", "reason", "expected"),
    [
        ("no trace", vf.Verdict.INDETERMINATE, "discontinuous-glue", "it must be rejected"),
        ("no trace", vf.Verdict.ACCEPT, "ok", "it must be rejected"),
        ("no trace", vf.Verdict.REJECT, "claim-missing", "another reason"),
        ("another input", vf.Verdict.ACCEPT, "ok", "beyond the corridor"),
        ("another input", vf.Verdict.REJECT, "commitment-mismatch", "another reason"),
        ("another input", vf.Verdict.INDETERMINATE, "discontinuous-glue", None),
    ],
)
def test_another_verdict_is_a_problem(
    name: str, verdict: vf.Verdict, reason: str, expected: str | None
):
    cheat = _named(name)
    sent = cheat.run(work())
    assert sent is not None
    report = dataclasses.replace(verify(work().honest), verdict=verdict, reason=reason)
    found = cheat.problem(work(), sent, report)
    assert found is None if expected is None else expected in (found or "")


def test_a_cheat_that_does_nothing_hands_nothing_in():
    same = Workload.of(work().program, PARAMS, jnp.zeros(ROWS, jnp.int32))
    for name in ("another input", "input moved by a row", "input truncated"):
        assert _named(name).run(same) is None
    assert parameters.skipped_layers({"w": PARAMS["head"]}) == {"w": PARAMS["head"]}


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 3, 9)])
@pytest.mark.parametrize(
    "change",
    [changes.one_element, changes.not_a_number, changes.infinity, changes.one_bit],
)
def test_a_change_changes_arrays_of_any_shape(change: Any, shape: tuple[int, ...]):
    before = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    after = change(before.copy())
    assert after.shape == shape
    assert not np.array_equal(before, after)


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(vst.small_programs(most=2), st.data())
def test_cheats_on_drawn_programs_get_their_verdicts(small: vst.SmallProgram, data: st.DataObject):
    compiled = small.compile(self_test=False)
    drawn = Workload.of(compiled, small.params, *small.inputs)
    own = compiled.setup(small.params, SECRET)

    def judged(sent: vf.Submission) -> vf.Report:
        return compiled.verify(
            own, *small.inputs, sent, commitment=sent.commitment, parameters=drawn.parameters
        )

    assert judged(drawn.honest).verdict is vf.Verdict.ACCEPT
    for _ in range(4):
        cheat = data.draw(vst.applicable_cheats(compiled))
        sent = cheat.run(drawn)
        if sent is not None:
            assert cheat.problem(drawn, sent, judged(sent)) is None
    assert vf.report.REASONS.keys() >= MISMATCHES
