"""Perturbed evaluation: how far results move, what stays exact, and evaluation in float64."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from tests.helpers.functions import bound
from verifiable.check.judging.spread import DEVICE
from verifiable.jaxpr import from_jax, interpret
from verifiable.jaxpr.perturb import AWAY, DOWN, TOWARDS, UP, Noise, in_float64, losses
from verifiable.policy import DEFAULT

pytestmark = pytest.mark.optimised

X = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
LOSSES = dict(DEFAULT.losses)


def noise(seed: int, independent: float = 1.0, coherent: float = 0.0) -> Noise:
    return Noise(
        seed=jnp.uint32(seed),
        independent=jnp.float32(independent),
        coherent=jnp.float32(coherent),
        losses=LOSSES,
    )


def run(fn: Any, *args: Any, apply: Any) -> Any:
    function, _ = from_jax.trace(fn, *args)
    [out] = interpret.evaluate(function.block, bound(function, args), apply)
    return out


def test_all_equations_of_a_device_that_truncates_lose_to_the_same_side():
    signs = np.sign(X)
    ways = {UP: 1.0, DOWN: -1.0, AWAY: signs, TOWARDS: -signs}
    assert set(ways) <= {way for *_, way in DEVICE}  # a second look replays each of them
    for way, expected in ways.items():
        one = replace(noise(3, 0.0, 1.0), alike=jnp.float32(way))
        for fn in (lambda x: x * np.float32(1.1), lambda x: x / np.float32(0.9)):
            moved = run(fn, X, apply=one) - run(fn, X, apply=interpret.apply)
            assert np.array_equal(np.sign(moved), np.broadcast_to(expected, X.shape))


INEXACT: dict[str, tuple[Any, float]] = {  # what may be lost, in unit roundoffs of `size(x)`
    "arithmetic": (lambda x: x * x, 2),
    "function": (jnp.exp, 8),
    "sum": (lambda x: jnp.sum(jnp.abs(x), axis=1), 12),
    "product": (lambda x: jnp.abs(x) @ jnp.abs(x).T, 16),
    "cumulative sum": (lambda x: lax.cumsum(jnp.abs(x), axis=1), 8),
}


@pytest.mark.parametrize("name", INEXACT)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5)
def test_results_move_by_at_most_what_may_be_lost(name: str, seed: int):
    fn, ulps = INEXACT[name]
    plain = np.asarray(run(fn, X, apply=interpret.apply), np.float64)
    for independent, coherent in ((1.0, 0.0), (0.0, 1.0)):
        moved = np.asarray(run(fn, X, apply=noise(seed, independent, coherent)), np.float64)
        change = np.abs(moved - plain) / np.abs(plain) * 2**24
        assert 0 < change.max() <= ulps + 1  # and the rounding of the moved value itself


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int16])
@pytest.mark.parametrize("target", [jnp.float32, jnp.float16])
def test_a_cast_moves_only_integers_that_the_type_cannot_hold(dtype: Any, target: Any):
    held, bounds = 2 ** (jnp.finfo(target).nmant + 1), np.iinfo(dtype)
    x = np.array([0, 1, 999, held, 3 * held + 1, bounds.max, bounds.min], np.int64)
    x = np.unique(np.clip(x, bounds.min, bounds.max)).astype(dtype)
    x = x[x <= float(jnp.finfo(target).max)]
    x = x[x >= float(jnp.finfo(target).min)]
    moved = [run(lambda x: x.astype(target), x, apply=noise(s, 0, 1)) for s in range(2)]
    still = np.all([m == x.astype(target) for m in moved], axis=0)
    assert np.array_equal(still, np.abs(x.astype(np.int64)) <= held)


def fourier(n: int) -> Any:
    return np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n).astype(np.complex64)


SIGNS = np.tile(np.array([1, -1], np.float32), (2, 8))
WAVE = np.sin(2 * np.pi * np.arange(16) * 3 / 16).astype(np.float32)
CANCELLING: dict[str, tuple[Any, Any, float]] = {  # some results vanish, their terms are this large
    "complex product": (lambda x: (x + 0j) @ fourier(16), np.ones((2, 16), np.float32), 16),
    "complex cumulative sum": (lambda x: jnp.cumsum(x * (1 + 1j), 1), SIGNS, 16),
    "transform of two dimensions": (jnp.fft.fft2, WAVE[:, None] * (1 + X[0]), 8),
    "float16 terms beyond its range": (
        lambda x: x @ np.array([[200, 1], [-200, 1]], np.float16),
        np.array([[200, 200]], np.float16),
        80_000,
    ),
    "solution of one column": (
        lambda x: lax.linalg.triangular_solve(x, jnp.ones((2, 1)), left_side=True, lower=True),
        np.array([[1, 0], [1 - 2**-12, 1]], np.float32),
        1,
    ),
}
CANCELLING["scattered sum"] = (
    lambda x: jnp.zeros(2).at[np.array([0, 0, 0, 1])].add(x, mode="drop"),
    np.array([1000, -1000, 0.5, 700], np.float32),
    1000,
)
CANCELLING["scattered differences"] = (
    lambda x: jnp.zeros(2).at[np.array([0, 0, 0, 1])].subtract(x, mode="drop"),
    *CANCELLING["scattered sum"][1:],
)
CANCELLING["complex sum"] = (
    lambda x: x.reshape(2, 3).sum(1),
    np.array([1000 + 1000j, -1000 - 1000j, 0.5, 700, 0, 0], np.complex64),
    500,
)
if hasattr(lax, "polynomial"):  # a primitive of newer versions of JAX
    CANCELLING["polynomial"] = (
        lambda x: getattr(lax, "polynomial")(x, [1.0, -2.0, 1.0]),  # noqa: B009
        np.array([1.001, 2.5], np.float32),
        3,
    )


@pytest.mark.parametrize("name", CANCELLING)
def test_what_cancels_loses_by_the_size_of_its_terms(name: str):
    fn, x, size = CANCELLING[name]
    plain = np.asarray(run(fn, x, apply=interpret.apply))
    small = np.abs(plain) < 1e-2 * np.abs(plain).max()
    moved = (np.asarray(run(fn, x, apply=noise(seed, 0, 1))) for seed in range(4))
    change = np.max([np.abs(m - plain)[small] for m in moved], axis=0)
    unit = 2.0**-11 if x.dtype == np.float16 else 2.0**-24
    assert np.isfinite(change).all()
    assert change.max() > unit * size


TERMS = 256
ROWS = np.random.default_rng(1).standard_normal((500, TERMS))
SUMMED: dict[str, Any] = {
    "equal terms": np.exp(3 * ROWS[:, :1]) * np.ones(TERMS),
    "nearly equal terms": 100 + 1e-4 * ROWS,
    "squares far from zero": (100 + ROWS) ** 2,
    "both signs": ROWS,
    "heavy tails": np.exp(3 * ROWS),
    "a few values": np.where(ROWS > 0, 0.1, 0.7),
    "runs of equal terms": np.repeat(ROWS[:, :4], TERMS // 4, axis=1),
}


def one_by_one(x: Any, lanes: int) -> Any:
    """Sums in partial sums, each from first to last, in float32."""
    total = np.zeros((len(x), lanes), np.float32)
    for part in np.split(x, TERMS // lanes, axis=1):
        total = total + part
    return functools.reduce(np.add, total.T)


@pytest.mark.parametrize("name", SUMMED)
def test_a_sum_loses_at_most_three_times_what_it_may_in_any_order(name: str):
    """A spread allows four times as much; the magnitudes of all partial sums are far more."""
    x = SUMMED[name].astype(np.float32)
    function, _ = from_jax.trace(lambda x: jnp.sum(x, axis=1), x)
    [equation] = function.block.equations
    plain = interpret.apply(equation, [x])
    [loss] = losses(equation, [x], plain, LOSSES)
    orders = [one_by_one(x, lanes) for lanes in (1, 4, 8, 16)]
    shuffled = np.random.default_rng(2).permutation(x, axis=1)
    orders += [one_by_one(x[:, ::-1], 1), one_by_one(shuffled, 1), *plain]
    exact = x.astype(np.float64).sum(1)
    assert max(np.max(np.abs(y - exact) / np.asarray(loss)) for y in orders) <= 3
    if name == "squares far from zero":
        assert np.median(np.asarray(loss) / exact) * 2**24 <= 12  # one by one, at worst 128


def test_a_coherent_move_has_one_sign():
    plain = run(jnp.exp, X, apply=interpret.apply)
    signs = {
        float(np.sign(np.asarray(run(jnp.exp, X, apply=noise(s, 0, 1))) - plain).sum())
        for s in range(8)
    }
    assert signs == {-48.0, 48.0}


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.maximum(x, 0)[::-1].T,
        lambda x: jnp.where(x > 0, x, 1.0),
        lambda x: x.astype(jnp.int8),
        lambda x: jnp.argmax(x, axis=-1),
        jnp.floor,
    ],
)
def test_moves_and_selections_stay_exact(fn: Any):
    assert np.array_equal(run(fn, X, apply=noise(3)), fn(X))


def test_nothing_moves_at_size_zero_and_the_rest_is_a_function_of_the_seed():
    def fn(x: Any) -> Any:
        return lax.scan(lambda c, _: (jnp.sin(c * 1.1), None), x, None, length=3)[0]

    plain, still = (run(fn, X, apply=a) for a in (interpret.apply, noise(1, 0, 0)))
    assert np.array_equal(plain, still)
    first, again, other = (run(fn, X, apply=noise(s)) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_is_not_finite_stays_so():
    x = np.array([[np.inf, -np.inf, np.nan, 3.4e38]], np.float32)
    moved = np.asarray(run(lambda x: x * 1.0000001, x, apply=noise(0)))
    assert moved[0, 0] == np.inf
    assert moved[0, 1] == -np.inf
    assert np.isnan(moved[0, 2])


def test_integers_of_a_table_do_not_move():
    table = jnp.arange(5)
    assert noise(1, 1, 1).known(table, "table") is table


def test_in_a_trip_of_a_loop_elements_are_drawn_anew_and_signs_are_not():
    """An iteration that has converged stands still in no replay; a bias stays one."""
    for sizes, differs in (((1.0, 0.0), True), ((0.0, 1.0), False)):
        draw = noise(2, *sizes)
        first, second = (run(jnp.exp, X, apply=draw.in_trip(jnp.int32(n))) for n in (1, 2))
        assert np.any(first != second) == differs
        np.testing.assert_array_equal(
            run(jnp.exp, X, apply=draw), run(jnp.exp, X, apply=draw.in_trip(jnp.int32(0)))
        )


def test_narrow_types_move_by_their_own_roundoff():
    x = jnp.asarray(X, jnp.bfloat16)
    moved = np.asarray(run(lambda x: x * x, x, apply=noise(5)), np.float64)
    plain = np.asarray(x * x, np.float64)
    change = np.abs(moved - plain) / np.abs(plain) * 2**8
    assert 0.5 < change.max() <= 3


IN_FLOAT64: dict[str, Any] = {
    "norm": lambda x: (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5),
    "product": lambda x: jnp.tanh(x @ x.T) @ x,
    "casts": lambda x: x.astype(jnp.bfloat16).astype(jnp.float32) * 3,
    "convolution": lambda x: lax.conv(x[None, None], x[None, None, :3, :3], (1, 1), "SAME"),
    "choice": lambda x: jnp.where(x > 0.1, jnp.log1p(jnp.abs(x)), jnp.clip(x, -1, 1)),
    "sorted": lambda x: jnp.sort(x, axis=-1).cumsum(-1),
}


@pytest.mark.parametrize("name", IN_FLOAT64)
def test_double_precision_is_what_the_function_means(name: str):
    fn = IN_FLOAT64[name]
    with jax.enable_x64(True), jax.disable_jit():
        wide = run(fn, X, apply=in_float64)
        assert wide.dtype == jnp.float64
        expected = fn(jnp.asarray(X, jnp.float64))
    tolerance = 1e-2 if name == "casts" else 1e-6  # literals are float32 numbers
    np.testing.assert_allclose(wide, expected, rtol=tolerance, atol=tolerance)


def test_random_keys_are_left_as_they_are():
    keys = jax.random.key(3)
    with jax.enable_x64(True):
        drawn = run(lambda k: jax.random.normal(k, (4,), np.float32), keys, apply=in_float64)
    np.testing.assert_allclose(drawn, jax.random.normal(keys, (4,)), rtol=1e-5)


def test_what_has_no_double_precision_keeps_its_types():
    with jax.enable_x64(True), jax.disable_jit():
        out = run(lambda x: jnp.abs(jnp.fft.fft(x)), X, apply=in_float64)
    np.testing.assert_allclose(out, np.abs(np.fft.fft(X)), rtol=1e-4)


def test_keys_and_bits_of_random_numbers_keep_their_types_in_float64():
    """The bits of two numbers of 32 bits are also those of one of 64, which is another number."""
    key = jax.random.key(3)
    with jax.enable_x64(True):
        got = run(lambda k: jax.random.uniform(k, (4, 2), jnp.float32), key, apply=in_float64)
        cast = run(
            lambda x: lax.bitcast_convert_type(x, jnp.float32),
            X.view(np.uint32)[:, :2],
            apply=in_float64,
        )
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, jax.random.uniform(key, (4, 2), jnp.float32))
    np.testing.assert_array_equal(cast, X[:, :2])
