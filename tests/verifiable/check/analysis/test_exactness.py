"""What counts as exact: arithmetic with a float result is not, unless it provably is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable import challenge, program
from verifiable.policy import Policy
from verifiable.report import Verdict

pytestmark = pytest.mark.optimised

SECRET = challenge.secret(bytes(range(32)))
RNG = np.random.default_rng(5)
# Sums of like signs are large: above 2^24, neighbours of the float are two or more apart.
INT8 = RNG.integers(64, 128, (4096, 3)).astype(np.int8)


def counted(p: Any, x: Any) -> Any:
    """Few columns: replayed, and cast to integers as if it were exact."""
    return lax.dot(x, p, preferred_element_type=jnp.float32).astype(jnp.int32)


def in_another_order(p: Any, x: Any) -> Any:
    """The same product by a device that adds up one by one."""
    total = np.zeros((len(x), p.shape[1]), np.float32)
    for k in range(len(p)):
        total += np.outer(x[:, k].astype(np.float32), p[k].astype(np.float32))
    return total.astype(np.int32)


def added_up_exactly(p: Any, x: Any) -> Any:
    """The same product by a device that rounds once, at the end."""
    total = x.astype(np.int64) @ p.astype(np.int64)
    return total.astype(np.float32).astype(np.int32)


@pytest.mark.parametrize(("terms", "exact"), [(1024, True), (4096, False)])
def test_integers_in_float_arithmetic_are_exact_only_if_they_fit(terms: int, exact: bool):
    p, x = INT8[:terms], INT8.T[:, :terms].copy()
    compiled = program.compile(counted, p, x)
    key = compiled.setup(p, SECRET)
    own = np.asarray(jax.jit(counted)(p, x))
    # Which of both differs from this machine's own order is up to the machine.
    others = (in_another_order(p, x), added_up_exactly(p, x))
    y = max(others, key=lambda other: np.abs(other - own).max())
    trace = () if exact else (y,)  # what is not exact is committed where it is rounded
    report = compiled.check(key, x, y=y, trace=trace)
    verdict, reason = (
        (Verdict.ACCEPT, "ok") if exact else (Verdict.INDETERMINATE, "ill-conditioned")
    )
    assert (report.verdict, report.reason) == (verdict, reason)
    assert exact == (y == own).all()
    off_by_one = compiled.check(key, x, y=y + 1, trace=trace)
    assert (off_by_one.verdict, off_by_one.reason) == (Verdict.REJECT, "output-mismatch")


W = RNG.standard_normal((128, 128)).astype(np.float32)
X = RNG.standard_normal((32, 128)).astype(np.float32)
I = RNG.integers(0, 32, 32).astype(np.int32)


def dropped(x: Any, key: Any) -> Any:
    return x * jax.random.bernoulli(key, 0.5, x.shape)


CHOICES: dict[str, tuple[Callable[..., Any], str | None]] = {
    "writes to equal places": (lambda x, i: x.at[i].set(x[::-1]), "scatter"),
    "integers written to equal places": (
        lambda x, i: x * jnp.zeros(32, jnp.int32).at[i].set(jnp.arange(32))[:, None],
        "scatter",
    ),
    "writes to places that count upwards": (
        lambda x, i: x.at[jnp.arange(32), i].set(1.0),
        None,
    ),
    "writes to places that are told to differ": (
        lambda x, i: x.at[i].set(x, unique_indices=True),
        None,
    ),
    "an unstable order": (
        lambda x, i: lax.sort((jnp.tile(i[:, None], (1, 128)), x), is_stable=False)[1],
        None,  # a claim of its own
    ),
    "a stable order": (lambda x, i: lax.sort((jnp.tile(i[:, None], (1, 128)), x))[1], None),
    "an order of everything": (
        lambda x, i: lax.sort((jnp.tile(i[:, None], (1, 128)), x), num_keys=2, is_stable=False)[1],
        None,
    ),
    "random bits that XLA leaves to a platform": (
        lambda x, _: dropped(x, jax.random.key(0, impl="rbg")),
        "random_bits",
    ),
    "random bits of threefry": (lambda x, _: dropped(x, jax.random.key(0)), None),
    "a mask of small integers": (
        lambda x, i: x * ((i > 3).astype(jnp.float32) * 2 > 1)[:, None],
        None,
    ),
}


@pytest.mark.parametrize("name", CHOICES)
def test_what_devices_may_choose_is_a_discontinuity(name: str):
    before, kind = CHOICES[name]
    fn = lambda p, x, i: before(x, i) @ p  # noqa: E731
    compiled = program.compile(fn, W, X, I, policy=Policy(draws=4))
    found = {d.rpartition("/")[2] for d in compiled.claims[-1].discontinuities}
    assert found == (set() if kind is None else {kind})


def test_the_magnitude_of_complex_numbers_rounds():
    fn = lambda p, x: (x * (jnp.abs(lax.complex(x, x)) > 1.0)) @ p  # noqa: E731
    compiled = program.compile(fn, W, X, policy=Policy(draws=4))
    assert [c.primitive for c in compiled.claims] == ["gt", "dot_general"]


def even(p: Any, x: Any) -> Any:
    """Turns the sign where a rounded product is an odd number."""
    h = lax.dot(x, p)
    n = lax.round(3.0 * h, lax.RoundingMethod.TO_NEAREST_EVEN)
    half = lax.round(n * 0.5, lax.RoundingMethod.TO_NEAREST_EVEN)
    return jnp.where(2.0 * half != n, -h, h)


def test_whether_a_committed_whole_number_is_even_is_no_choice_of_the_device():
    x = RNG.standard_normal((4, 8)).astype(np.float32)
    p = RNG.standard_normal((8, 5)).astype(np.float32)
    compiled = program.compile(even, p, x)
    assert [c.form.mismatch for c in compiled.claims] == ["rounding-mismatch"]
    y, trace = compiled.execute(p, x)
    key = compiled.setup(p, SECRET)
    assert compiled.check(key, x, y=y, trace=trace).verdict is Verdict.ACCEPT
    turned = np.array(y)
    turned[0, 0] *= -1
    assert compiled.check(key, x, y=turned, trace=trace).verdict is Verdict.REJECT


def test_a_cast_of_large_integers_rounds():
    fn = lambda p, x: (jnp.cumsum(x, -1).astype(jnp.float32) > p).astype(jnp.float32)  # noqa: E731
    compiled = program.compile(fn, np.ones((4, 8), np.float32), np.ones((4, 8), np.int32))
    assert [c.primitive for c in compiled.claims] == ["gt"]
