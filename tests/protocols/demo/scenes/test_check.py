"""The first scene: every cheat by name with its expected reason, and the order of events."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protocols.demo import cheats, devices, models
from protocols.demo.cheats import computations, submissions
from protocols.demo.models import in_precision
from protocols.demo.scenes import check
from protocols.demo.scenes.scene import Progress, prepare
from verifiable import challenge, program
from verifiable.claims.products.product import Product
from verifiable.key import VerifierKey
from verifiable.submission import Submission
from verifiable.testing import changes
from verifiable.trace import Trace

SEED = bytes(range(32))
TEXTS = ("the cat sat on the mat", "rain tomorrow", "a")


@functools.cache
def model(precision: str) -> models.Encoder:
    """Two layers where the right layer must be named; one layer at the other precisions."""
    small = models.small_transformer(3, width=128, layers=2 if precision == "f32" else 1)
    return in_precision(small, precision)


@functools.cache
def events(precision: str) -> tuple[check.CheckSceneEvent, ...]:
    return tuple(check.play(job(precision), seed=SEED, repeats=1))


def outcomes(precision: str) -> dict[str, check.DeviceOutcome]:
    return {e.device.name: e for e in events(precision) if isinstance(e, check.DeviceOutcome)}


@functools.cache
def job(precision: str) -> devices.DemoJob:
    return prepare(model(precision), TEXTS)


@functools.cache
def key() -> VerifierKey:
    return job("f32").program.setup(model("f32").params, challenge.secret(SEED))


@functools.cache
def tiny() -> devices.DemoJob:
    """One layer and the shortest text, for properties that need no more."""
    return prepare(models.small_transformer(0, width=64, layers=1), ["a"])


@dataclass(frozen=True, slots=True)
class Expected:
    """Verdict, reason and first failing claim.

    `first` stands for the program's first claim, `product` for its first product, `last` for the
    last layer.
    """

    name: str
    verdict: str
    reason: str
    claim: str | None


def caught(name: str, claim: str | None, reason: str = "claim-mismatch") -> Expected:
    return Expected(name, "reject", reason, claim)


ALWAYS = (
    Expected("honest, compiled", "accept", "ok", None),
    Expected("honest, op by op", "accept", "ok", None),
    caught("last layer skipped", "last/attention/query"),
    caught("weights rounded to int4", "product"),
    caught("weights rounded to float8", "product"),
    caught("weights before fine-tuning", "product"),
    caught("another model, same shapes", "first", "first"),
    caught("attention heads permuted", "layer0/attention/query"),
    caught("activations scaled by 1000", "layer0/mlp/up"),
    caught("another user's input", "first", "first"),
    caught("prompt truncated", "first", "first"),
    caught("tokens swapped", "first", "first"),
    caught("one element changed", "last/mlp/up"),
    caught("two opposite changes in a row", "last/mlp/up"),
    caught("signs of small values flipped", "last/mlp/up"),
    caught("small values set to zero", "last/mlp/up"),
    caught("NaN in a claim", "last/mlp/up", "claim-nonfinite"),
    caught("infinity in a claim", "last/mlp/up", "claim-nonfinite"),
    caught("norm overflowed by 3e38", "last/mlp/up"),
    caught("false output, honest trace", "output", "output-mismatch"),
    caught("NaN output, honest trace", "output", "output-nonfinite"),
    caught("one claim left out", None, "claim-missing"),
    caught("commitment to another trace", None, "commitment-mismatch"),
)
ROUNDINGS = (
    caught("one rounding off by one level", "rounding", "rounding-mismatch"),
    caught("scale doubled, values halved", "rounding", "rounding-mismatch"),
    caught("rounded in the cheat's favour", "rounding", "rounding-mismatch"),
)
FURTHER = {
    "f32": (
        caught("weights rounded to float16", "product"),
        caught("shifts along the gradient", "any"),
    ),
    "bf16": (caught("shifts along the gradient", "any"), *ROUNDINGS),
    "f16": (caught("shifts along the gradient", "any"), *ROUNDINGS),
    "w8a8": (*ROUNDINGS, caught("accumulator off by 2^31", "last/mlp/up", "claim-range")),
}
# Integers have no such values: what is sent in their place has another type, or is out of range.
INSTEAD = {
    ("w8a8", "NaN in a claim"): "claim-dtype",
    ("w8a8", "infinity in a claim"): "claim-dtype",
    ("w8a8", "norm overflowed by 3e38"): "claim-range",
    # A kernel times 1000 has the same levels and another scale: the next rounding shows it.
    ("w8a8", "activations scaled by 1000"): "rounding-mismatch",
    # Glue in bfloat16 may lose as much before the rounding; the product after it shows the cheat.
    ("bf16", "rounded in the cheat's favour"): "claim-mismatch",
}
ROWS = [(p, e) for p, further in FURTHER.items() for e in (*ALWAYS, *further)]


@pytest.mark.parametrize("precision", FURTHER)
def test_every_device_has_its_row(precision):
    expected = [e for p, e in ROWS if p == precision]
    assert [e.name for e in expected] == [d.name for d in cheats.lineup(precision)]
    assert [e.verdict == "accept" for e in expected] == [d.honest for d in cheats.lineup(precision)]


@pytest.mark.parametrize(("precision", "expected"), ROWS, ids=lambda e: getattr(e, "name", e))
def test_each_device_gets_its_verdict_reason_and_claim(precision, expected):
    found = outcomes(precision)[expected.name]
    claims = job(precision).program.claims
    products = [c for c in claims if isinstance(c.form, Product)]
    reason = INSTEAD.get((precision, expected.name), expected.reason)
    if reason == "first":
        reason = "claim-mismatch" if claims[0] is products[0] else "rounding-mismatch"
    assert (found.verdict, found.reason) == (expected.verdict, reason)
    assert found.right
    named = {"first": claims[0].name, "product": products[0].name, None: None}
    claim = named.get(expected.claim, expected.claim)
    if claim is not None:
        claim = claim.replace("last/", f"layer{model(precision).layers - 1}/")
    if expected.claim not in ("any", "rounding") and reason == expected.reason:
        assert (found.claim is None) == (claim is None)
        assert claim is None or f"{found.claim}/".startswith(f"{claim}/")
    if expected.verdict == "accept":
        assert 0 <= found.worst <= 1
    elif reason in ("claim-mismatch", "rounding-mismatch"):
        assert found.worst > 1


def test_the_gradient_attack_passes_only_inside_of_the_corridor():
    j, first = tiny(), lambda y: y[0, 0]
    secret = j.program.setup(j.model.params, challenge.secret(SEED))
    corridor = j.program.corridor(j.model.params, *j.inputs, answer=first)
    honest = j.run().y
    # Compiled once for both sizes of the attack.
    attack = jax.jit(
        lambda kappa: j.program.attack(j.model.params, *j.inputs, answer=first, kappa=kappa)
    )
    for kappa, verdict in ((1.0, "accept"), (1.2 * corridor.kappa, "reject")):
        y, claims = jax.device_get(attack(kappa))
        assert j.program.check(secret, *j.inputs, y=y, trace=claims).verdict == verdict
        moved = abs(float(first(y) - first(honest)))
        assert (moved <= corridor.reach) == (verdict == "accept")


@pytest.mark.parametrize("name", ["f64", "int4", "", "F32"])
def test_an_unknown_precision_names_the_known_ones(name):
    with pytest.raises(ValueError, match="one of f32, bf16, f16, w8a8"):
        in_precision(model("f32"), name)


def test_every_cheat_is_caught_on_the_shortest_text_where_attention_is_no_claim():
    # At this width it is cheaper to replay attention than to test it, and cheats show up later.
    *_, summary = check.play(tiny(), seed=SEED, repeats=1)
    assert isinstance(summary, check.CheckSummary)
    assert len(summary.outcomes) == len(cheats.lineup("f32"))
    assert [o.device.name for o in summary.outcomes if not o.right] == []


# A cheat that computes something else is consistent with itself: checked with its own parameters or
# input it passes, so only the parameters and input of the job can catch it.


@pytest.mark.parametrize(
    "change",
    [
        computations.without_last_layer,
        computations.scaled,
        computations.permuted_heads,
        computations.another_model,
        functools.partial(computations.kernels, change=computations.int4),
        functools.partial(computations.kernels, change=computations.float16),
        functools.partial(computations.kernels, change=computations.before_fine_tuning),
    ],
)
def test_another_model_passes_as_itself(change):
    j, params = job("f32"), change(model("f32"))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, model("f32").params)
    sent = computations.with_params(change)(j)
    key = j.program.setup(params, challenge.secret(SEED))
    assert j.program.check(key, *j.inputs, y=sent.y, trace=sent.trace).verdict == "accept"


@pytest.mark.parametrize(
    "change", [computations.another_user, computations.truncated, computations.swapped_tokens]
)
def test_another_input_passes_as_itself(change):
    j = job("f32")
    inputs = change(j)
    assert any((ours != theirs).any() for ours, theirs in zip(j.inputs, inputs, strict=True))
    sent = computations.with_inputs(change)(j)
    key = j.program.setup(model("f32").params, challenge.secret(SEED))
    assert j.program.check(key, *inputs, y=sent.y, trace=sent.trace).verdict == "accept"


def test_int4_has_fifteen_levels_a_group_and_float16_eleven_bits():
    kernel = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    rounded = computations.int4("", kernel)
    assert max(len(np.unique(rounded[g : g + 32, c])) for g in (0, 32) for c in range(3)) <= 15
    assert np.abs(rounded - kernel).max() <= np.abs(kernel).max() / 14 * 1.001
    assert (computations.int4("", np.zeros((32, 2), np.float32)) == 0).all()
    mantissa = np.frexp(computations.float16("", kernel))[0] * 2**11
    assert (mantissa == np.rint(mantissa)).all()


# Order and bookkeeping.


def judged(device: devices.Device, sent: Submission) -> check.DeviceOutcome:
    return check.judge(job("f32"), key(), device, sent, sent.commitment)


def test_nothing_derived_from_the_key_is_used_before_the_last_commitment(monkeypatch):
    log: list[str] = []
    original = program.Program.verify

    def spy(self, *args, **kwargs):
        log.append("verify")
        return original(self, *args, **kwargs)

    def runner(name):
        def run(j):
            sent = devices.jitted(j)
            log.append(name)
            return sent

        return devices.Device(name, True, run)

    monkeypatch.setattr(program.Program, "verify", spy)
    cast = [runner(name) for name in ("a", "b", "c")]
    list(check.play(tiny(), devices=cast, seed=SEED, repeats=1))
    assert log[:4] == ["a", "b", "c", "verify"]


def test_steps_count_up_to_their_total_and_the_summary_comes_last():
    steps = [e for e in events("f32") if isinstance(e, Progress)]
    assert [s.done for s in steps] == list(range(len(steps)))
    assert {s.total for s in steps} == {len(steps)}
    summary = events("f32")[-1]
    assert isinstance(summary, check.CheckSummary)
    assert summary.outcomes == tuple(outcomes("f32").values())
    assert summary.right


def test_the_summary_measures_what_it_says():
    summary = events("f32")[-1]
    assert isinstance(summary, check.CheckSummary)
    sent = devices.jitted(job("f32"))
    assert summary.root == sent.commitment.root == outcomes("f32")["honest, compiled"].root
    assert summary.bytes_params == 4 * sum(x.size for x in jax.tree.leaves(model("f32").params))
    claims = sum(int(np.prod(c.shape)) for c in job("f32").program.claims)
    assert summary.bytes_trace == 4 * (claims + len(TEXTS) * 128)
    assert summary.kept == ("params['embeddings']['words']", 4 * 259 * 128)
    assert 0 < summary.bytes_key < summary.bytes_params
    assert summary.seconds_run > 0
    assert summary.seconds_check > 0
    assert summary.seconds_root > 0


@pytest.mark.parametrize(
    ("cast", "right"),
    [
        ([], False),
        ([devices.Device("honest", True, devices.jitted)], True),
        ([devices.Device("cheat that does not cheat", False, devices.jitted)], False),
        ([devices.Device("honest but broken", True, submissions.nan_output)], False),
    ],
    ids=lambda value: value[0].name if isinstance(value, list) and value else None,
)
def test_a_wrong_verdict_is_told_from_a_right_one(cast, right):
    found = tuple(judged(device, device.run(job("f32"))) for device in cast)
    summary = events("f32")[-1]
    assert isinstance(summary, check.CheckSummary)
    assert dataclasses.replace(summary, outcomes=found).right is right


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (None, "trace-structure"),
        (b"", "trace-structure"),
        ([1.0], "trace-structure"),
        (Trace(values=("text",)), "trace-structure"),
        (Trace(values=()), "claim-missing"),
    ],
    ids=["none", "bytes", "a list", "claims of text", "no claims"],
)
def test_an_object_that_is_no_trace_is_rejected_and_raises_nothing(values, reason):
    sent = dataclasses.replace(devices.jitted(job("f32")), trace=values)
    outcome = judged(devices.HONEST[0], sent)
    assert (outcome.verdict, outcome.reason) == ("reject", reason)
    assert outcome.worst is None


def test_too_many_texts_are_refused():
    with pytest.raises(ValueError, match="65 texts; at most 64"):
        prepare(model("f32"), ["a"] * 65)


def test_a_claim_that_does_not_exist_is_a_value_error():
    with pytest.raises(ValueError, match="one product in the scope layer1/mlp/sideways, found 0"):
        submissions.with_claim(changes.overflow, "mlp/sideways")(job("f32"))
