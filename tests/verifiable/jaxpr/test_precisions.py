"""Precision of products: one reading on all platforms, and algorithms as rounding."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.lax import DotAlgorithm, DotAlgorithmPreset, Precision

import verifiable as vf
from verifiable.errors import SteerableChoice
from verifiable.jaxpr import from_jax, interpret, perturb
from verifiable.jaxpr.precisions import RoundedTo, algorithm, highest
from verifiable.policy import TENSOR_CORE, NarrowSum

HINTS = (None, Precision.DEFAULT, Precision.HIGH, Precision.HIGHEST)
PRESETS = list(DotAlgorithmPreset)


def _dot(precision, a, b):
    return jax.lax.dot(a, b, precision=precision, preferred_element_type=jnp.float32)


def _looped(precision, a, b):
    def step(x, _):
        return _dot(precision, x, b), None

    return jax.lax.scan(step, a, None, 2)[0]


def _convolved(precision, a, b):
    return jax.lax.conv(a[None, None], b[None, None], (1, 1), "SAME", precision=precision)


def _ragged(precision, a, b):
    return jax.lax.ragged_dot(a, b[None], jnp.asarray([8], jnp.int32), precision=precision)


PRODUCTS = {"dot": _dot, "in a loop": _looped, "convolution": _convolved, "ragged": _ragged}


def _precisions(fn, precision, dtype):
    x = jax.ShapeDtypeStruct((8, 8), dtype)
    function, _ = from_jax.trace(lambda a, b: fn(precision, a, b), x, x)
    return [e.params["precision"] for e in function.block.walk() if "precision" in e.params]


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("hint", HINTS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_a_hint_or_none_is_the_highest_precision_in_every_product(product, hint, dtype):
    if product in ("in a loop", "ragged") and dtype != jnp.float32:
        pytest.skip("its carry or output is float32")
    found = _precisions(PRODUCTS[product], hint, dtype)
    assert found and set(found) == {(Precision.HIGHEST, Precision.HIGHEST)}


@pytest.mark.parametrize("default", [None, "bfloat16", "tensorfloat32", "highest"])
def test_the_default_of_the_process_is_a_hint_too(default):
    with jax.default_matmul_precision(default) if default else jax.enable_x64(False):
        assert set(_precisions(_dot, None, jnp.float32)) == {(Precision.HIGHEST,) * 2}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int8])
def test_products_of_types_that_no_device_narrows_stay_as_they_are(dtype):
    assert _precisions(_dot, None, dtype) == [None]


@pytest.mark.parametrize("preset", [p for p in PRESETS if p is not DotAlgorithmPreset.DEFAULT])
def test_an_algorithm_is_no_hint(preset):
    assert highest(preset, ()) is preset
    assert _precisions(_dot, DotAlgorithmPreset.F16_F16_F16, jnp.float32) == [
        DotAlgorithmPreset.F16_F16_F16
    ]


def test_hints_do_not_change_the_program_and_algorithms_do():
    w, x = jnp.ones((64, 64)), jnp.ones((8, 64))

    def name(precision):
        return vf.compile(lambda w, x: _dot(precision, x, w), w, x).id

    assert len({name(hint) for hint in HINTS}) == 1
    assert name(DotAlgorithmPreset.F16_F16_F16) != name(None)


ROUNDED = {
    "F16_F16_F16": ("float16", "float16"),
    "F16_F16_F32": ("float16", None),
    "BF16_BF16_BF16": ("bfloat16", "bfloat16"),
    "BF16_BF16_F32": ("bfloat16", None),
    "BF16_BF16_F32_X3": ("float16", None),
    "TF32_TF32_F32": ("float16", None),
}
ROUNDED |= {p.name: (None, TENSOR_CORE) for p in PRESETS if p.name.startswith("ANY_F8")}


def _named(precision, *inputs):
    return algorithm(SimpleNamespace(params={"precision": precision}, inputs=inputs))


@pytest.mark.parametrize("preset", PRESETS)
def test_an_algorithm_rounds_operands_and_sums_as_it_is_named(preset):
    operands, sums = ROUNDED.get(preset.name, (None, None))
    rounded = RoundedTo(frozenset({operands} - {None}), frozenset({sums} - {None}))
    assert _named(preset, jnp.ones(1)) == rounded


@pytest.mark.parametrize(
    ("types", "parts", "rounded"),
    [
        (("bfloat16", "bfloat16", "float32"), 1, ({"bfloat16"}, set())),
        (("bfloat16", "float16", "float16"), 1, ({"bfloat16", "float16"}, {"float16"})),
        (("bfloat16", "bfloat16", "float32"), 2, ({"float16"}, set())),
        (("bfloat16", "bfloat16", "float32"), 3, (set(), set())),
        (("float32", "float32", "float32"), 1, (set(), set())),
        (("int8", "int8", "int32"), 1, (set(), set())),
    ],
)
@pytest.mark.parametrize("imprecise", [False, True])
def test_an_algorithm_without_a_name_is_no_hint_either(types, parts, rounded, imprecise):
    given = DotAlgorithm(*(jnp.dtype(t) for t in types), parts, parts, parts**2, imprecise)
    assert _precisions(_dot, given, jnp.float32) == [given]
    assert isinstance(_precisions(_dot, given, jnp.float32)[0], DotAlgorithm)
    operands, sums = map(frozenset, rounded)
    coarse = {TENSOR_CORE} if imprecise and types[0] != "int8" else set()
    assert _named(given, jnp.ones(1)) == RoundedTo(operands, sums | coarse)


@pytest.mark.parametrize("hint", HINTS)
def test_products_of_8_bit_floats_may_be_added_up_in_14_bits_whatever_is_asked_for(hint):
    e4, e5, wide = (jnp.ones(1, t) for t in ("float8_e4m3fn", "float8_e5m2", "bfloat16"))
    assert _named(hint, e4, e5).sums == {TENSOR_CORE}
    assert not _named(hint, e4, wide).sums
    assert not algorithm(SimpleNamespace(params={}, inputs=(e4, e5))).sums


def _honest(preset, a, b):
    """A device that rounds as the algorithm says, and adds up in its type, term by term."""
    operands, sums = ROUNDED[preset.name]
    a, b = (np.asarray(jnp.asarray(x).astype(operands).astype(jnp.float32)) for x in (a, b))
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for k in range(a.shape[1]):
        total = total + np.outer(a[:, k], b[k])
        total = np.asarray(jnp.asarray(total).astype(sums or jnp.float32).astype(jnp.float32))
    return total


@pytest.mark.parametrize("name", ["F16_F16_F16", "BF16_BF16_F32", "BF16_BF16_F32_X3"])
def test_a_device_that_rounds_as_the_algorithm_says_is_accepted(name):
    preset = getattr(DotAlgorithmPreset, name)
    rng = np.random.default_rng(3)
    w, x = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((96, 80), (12, 96)))
    compiled = vf.compile(lambda w, x: _dot(preset, x, w), w, x)
    key = compiled.setup(w, vf.challenge.secret())
    y = _honest(preset, np.asarray(x), np.asarray(w))
    assert compiled.check(key, x, y=y, trace=(y,)).verdict is vf.Verdict.ACCEPT
    other = _honest(preset, np.asarray(x), np.asarray(jnp.roll(w, 1)))
    assert compiled.check(key, x, y=other, trace=(other,)).verdict is vf.Verdict.REJECT


def _in_14_bits(a, b, block=32):
    """A tensor core: a block of products and the sum, in units of 2^-13 of the largest of them."""
    a, b = (np.asarray(x.astype(jnp.float32), np.float64) for x in (a, b))
    total = np.zeros((a.shape[0], b.shape[1]))
    for k in range(0, a.shape[1], block):
        products = a.T[k : k + block, :, None] * b[k : k + block, None]
        terms = np.concatenate([total[None], products])
        unit = np.exp2(np.floor(np.log2(np.max(np.abs(terms), axis=0) + 1e-30)) - 13)
        total = np.sum(np.trunc(terms / unit) * unit, axis=0)
    return total.astype(np.float32)


EIGHT = {
    "by default": (None, "float8_e4m3fn"),
    "highest": (Precision.HIGHEST, "float8_e4m3fn"),
    "fast": (DotAlgorithmPreset.ANY_F8_ANY_F8_F32_FAST_ACCUM, "float8_e5m2"),
    "imprecise": (
        DotAlgorithm(*3 * (np.dtype("float32"),), allow_imprecise_accumulation=True),
        "float32",
    ),
}


@pytest.mark.parametrize("name", EIGHT)
@pytest.mark.parametrize("decides", [False, True])
def test_a_tensor_core_that_keeps_14_bits_of_a_sum_is_accepted(name, decides):
    """A device that cuts off more than tensor cores do, and a cheat whose weights have 4 bits."""
    precision, dtype = EIGHT[name]
    rng, terms = np.random.default_rng(6), 512
    w = jnp.asarray(rng.standard_normal((terms, 640)), jnp.float32).astype(dtype)
    x = jnp.asarray(rng.standard_normal((16, terms)), jnp.float32).astype(dtype)

    def fn(w, x):
        y = _dot(precision, x, w)
        return (y, jnp.argmax(y, axis=-1)) if decides else y

    with pytest.warns(SteerableChoice) if decides else nullcontext():
        compiled = vf.compile(fn, w, x)
    [product] = [c for c in compiled.claims if c.work]
    assert product.own_sums == {NarrowSum(TENSOR_CORE, terms)} and not product.narrow_sums
    assert compiled.tolerances[product.name] == 0.4 * 2.0**-14 * np.sqrt(terms)
    key = compiled.setup(w, vf.challenge.secret(bytes(range(32))))
    four_bits = jnp.round(w.astype(jnp.float32) * 2) / 2
    for weights, verdict in ((w, vf.Verdict.ACCEPT), (four_bits, vf.Verdict.REJECT)):
        y = _in_14_bits(x, weights)
        best = np.argmax(y, axis=-1).astype(np.int32)
        report = compiled.check(key, x, y=(y, best) if decides else y, trace=(y,))
        assert report.verdict is verdict, report


def test_a_replayed_product_of_an_algorithm_widens_what_follows_it():
    """The first product is too small to be a claim; the second one's operand rounds as it does."""
    rng = np.random.default_rng(4)
    w, x = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((96, 80), (12, 4)))

    def fn(w, x):
        return _dot(None, _dot(DotAlgorithmPreset.F16_F16_F16, x, w[:4, :]), w[:80, :80] @ w[:80])

    compiled = vf.compile(fn, w, x)
    assert any("float16" in claim.rounding_dtypes for claim in compiled.claims)


@pytest.mark.parametrize("name", [name for name in ROUNDED if ROUNDED[name][1] != TENSOR_CORE])
def test_a_replayed_product_may_lose_what_its_algorithm_rounds(name):
    preset, rng = getattr(DotAlgorithmPreset, name), np.random.default_rng(5)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((6, 20), (20, 7)))
    closed = jax.make_jaxpr(lambda a, b: _dot(None, a, b))(a, b)
    [equation] = from_jax.flatten(closed).block.equations
    named = replace(equation, params={**equation.params, "precision": preset})
    monotone = replace(named, params={**named.params, "precision": None})
    device = np.abs(_honest(preset, a, b) - a.astype(np.float64) @ b)
    with pytest.MonkeyPatch.context() as patch:  # what a CPU cannot compute, it may still lose
        apply = interpret.apply
        patch.setattr(interpret, "apply", lambda e, v: apply(replace(e, params=monotone.params), v))
        [lost] = perturb.losses(named, [a, b], [jnp.asarray(a @ b)], dict(vf.Policy().losses))
        [plain] = perturb.losses(monotone, [a, b], [jnp.asarray(a @ b)], dict(vf.Policy().losses))
    magnitude = np.abs(a) @ np.abs(b)
    assert np.all(lost > plain) and np.any(device > plain)
    if ROUNDED[name][1] is None:
        assert np.all(device <= lost)
    assert np.all(lost <= magnitude / 32)
