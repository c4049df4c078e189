"""Known values that devices compute in other ways: tables of large angles, standardised weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.runs import INDETERMINATE, REJECT, SECRET_SEED
from verifiable import challenge, program
from verifiable.claims.products import exposure, freivalds
from verifiable.claims.products.product import contraction
from verifiable.jaxpr import from_jax
from verifiable.policy import Policy
from verifiable.report import Report

WIDTH, ROWS = 64, 8
POLICY = Policy(draws=4)
SECRET = challenge.secret(SECRET_SEED)
RNG = np.random.default_rng(11)
W = (RNG.standard_normal((WIDTH, WIDTH)) / 8).astype(np.float32)
FAR = W + np.float32(3e3)  # its standardisation loses fourteen bits
NEAR = W + np.float32(3)
X = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)
STEP = 4000 / (WIDTH - 1) ** 2


def angles(w: Any, x: Any) -> Any:
    n = jnp.arange(WIDTH, dtype=jnp.float32)
    return jnp.log(jnp.square(x @ jnp.cos(STEP * n[:, None] * n)) + 1) @ w


Run = tuple[Any, list[Any]]  # y and trace


def device_of_angles(w: Any, rate: float) -> Run:
    """Angles that are all off by a unit in the last place, or by more."""
    n = np.arange(WIDTH)
    angle = np.nextafter((STEP * rate * n[:, None] * n).astype(np.float32), np.float32(np.inf))
    first = X.astype(np.float64) @ np.cos(angle.astype(np.float64))
    first = first.astype(np.float32)
    y = np.log(np.square(first) + np.float32(1)) @ w
    return y, [first, y]


def standardised(w: Any) -> Any:
    centred = w - w.mean(0, keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean(0, keepdims=True) + 1e-10)


def rounded(wide: Any, bits: int | None) -> Any:
    if bits is None:
        return wide
    scale = np.abs(wide).max(0) / 2 ** (bits - 1)
    return np.round(wide / scale) * scale


def standardised_in_float64(w: Any, bits: int | None = None) -> Any:
    wide = w.astype(np.float64)
    wide = wide - wide.mean(0)
    return rounded(wide / np.sqrt(np.square(wide).mean(0) + 1e-10), bits)


def weights(w: Any, x: Any) -> Any:
    return jnp.tanh(x) @ standardised(w)


def device_of_weights(w: Any, bits: int | None) -> Run:
    y = np.tanh(X.astype(np.float64)) @ standardised_in_float64(w, bits)
    y = y.astype(np.float32)
    return y, [y]


def scanned(w: Any, x: Any) -> Any:
    """Weights of two layers in one array, each standardised by the body."""
    return lax.scan(lambda c, u: (jnp.tanh(c) @ standardised(u), None), x, w)[0]


def device_of_scanned(w: Any, bits: int | None) -> Run:
    first, carry = [], X
    for layer in (W, w):
        wide = standardised_in_float64(layer, bits)
        carry = (np.tanh(carry.astype(np.float64)) @ wide).astype(np.float32)
        first.append(carry)
    return carry, [np.stack(first)]


def read_by_glue(w: Any, x: Any) -> Any:
    """What the key keeps: a matrix that glue multiplies by, and that is too large for a table."""
    first, second = w
    return jnp.tanh((x[:, None] * standardised(second)).sum(-1) / 8) @ first


def device_of_glue(w: Any, bits: int | None) -> Run:
    hidden = np.tanh(X.astype(np.float64) @ standardised_in_float64(w).T / 8)
    y = (hidden @ rounded(W.astype(np.float64), bits)).astype(np.float32)
    return y, [y]


class Case(NamedTuple):
    """A function, its parameters given the weights, and a device that may compute otherwise.

    The honest device is given ill-conditioned weights, the cheat others.
    """

    fn: Callable[[Any, Any], Any]
    params: Callable[[Any], Any]
    device: Callable[[Any, Any], Run]
    honest: tuple[Any, Any]
    cheat: tuple[Any, Any]


CASES = {
    "table of large angles": Case(angles, lambda w: w, device_of_angles, (W, 1), (W, 1.001)),
    "standardised weights": Case(weights, lambda w: w, device_of_weights, (FAR, None), (NEAR, 4)),
    "weights in a scan": Case(
        scanned, lambda w: np.stack([W, w]), device_of_scanned, (FAR, None), (NEAR, 4)
    ),
    "matrix that the key keeps": Case(
        read_by_glue, lambda w: (W, w), device_of_glue, (FAR, None), (NEAR, 4)
    ),
}


@functools.cache
def compiled(name: str) -> program.Program:
    case = CASES[name]
    return program.compile(case.fn, case.params(W), X, policy=POLICY, self_test=False)


def judged(name: str, w: Any, how: Any) -> Report:
    case, made = CASES[name], compiled(name)
    y, trace = case.device(w, how)
    return made.check(made.setup(case.params(w), SECRET), X, y=y, trace=trace)


@pytest.mark.parametrize("name", CASES)
def test_devices_that_compute_known_values_otherwise_are_not_rejected(name: str):
    report = judged(name, *CASES[name].honest)
    assert report.worst > 2
    assert (report.verdict, report.reason) == (INDETERMINATE, "ill-conditioned")


@pytest.mark.parametrize("name", CASES)
def test_other_known_values_are_rejected(name: str):
    report = judged(name, *CASES[name].cheat)
    assert (report.verdict, report.reason) == (REJECT, "claim-mismatch")


def test_parameters_as_they_are_cost_nothing():
    """Moved and narrowed parameters are exact: the key holds no word about them."""

    def fn(w: Any, x: Any) -> Any:
        narrow = x.astype(jnp.bfloat16) @ w[::-1].T.astype(jnp.bfloat16)
        return narrow.astype(jnp.float32) @ w

    made = program.compile(fn, W, X, policy=POLICY, self_test=False)
    key = made.setup(W, SECRET)
    assert not [name for name in key.arrays if name.startswith("moves")]


def test_the_key_grows_by_a_few_numbers():
    key = compiled("weights in a scan").setup(np.stack([W, W]), SECRET)
    [(name, move)] = [item for item in key.arrays.items() if item[0].startswith("moves/")]
    assert (name.split("/")[1], move.shape) == ("projected", (2, 8))
    key = compiled("matrix that the key keeps").setup((W, W), SECRET)
    assert [a.shape for name, a in key.arrays.items() if name.startswith("moves")] == [()]


@pytest.mark.parametrize("kernel", [(48, 5), (3, 3, 4, 6)])
def test_no_row_moves_by_more_than_its_exposure_times_the_operator_norm(kernel: tuple[int, ...]):
    near = RNG.standard_normal((7, 48) if len(kernel) == 2 else (2, 6, 6, 4)).astype(np.float32)
    far = (RNG.standard_normal(kernel) * 10.0 ** RNG.uniform(-3, 0, kernel)).astype(np.float32)
    dims = ("NHWC", "HWIO", "NHWC")
    product = {
        2: jnp.matmul,
        4: functools.partial(
            lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=dims
        ),
    }[len(kernel)]
    equations = from_jax.trace(product, near, far)[0].block.equations
    form = contraction(equations[-1])
    assert form is not None
    with jax.enable_x64(True):
        g = jnp.asarray(RNG.standard_normal((form.columns, 3)))
        mine = freivalds.project(form, jnp.asarray(far), g, eps=1e-5)
        exposed = exposure.exposure(form, jnp.asarray(near), exposure.heights(mine.norms), None)

        def image(b: Any) -> Any:
            return form.fold(
                form.scale_out(jnp.asarray(product(near.astype(np.float64), b)), mine.weights), g
            )

        for pattern in (RNG.standard_normal(kernel), np.ones(kernel), np.sign(far)):
            other = jnp.asarray(far, jnp.float64) + 1e-4 * pattern
            bound = exposed * exposure.moved(form, other, mine, g)
            size = jnp.linalg.norm(image(other) - image(jnp.asarray(far, jnp.float64)), axis=-1)
            assert bool(jnp.all(size <= bound * (1 + 1e-6)))
            assert bool(jnp.max(size) > bound.max() / 50)
