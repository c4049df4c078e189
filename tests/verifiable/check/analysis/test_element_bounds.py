"""Outputs whose rows hold elements of other sizes, such as padding: none hides behind another."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import nn

from tests.helpers.runs import Run
from verifiable.check.outputs import compare, deviate
from verifiable.policy import Policy
from verifiable.report import Verdict

DEPTH, WIDTH, REAL, ROWS = 32, 48, 40, 4
RNG = np.random.default_rng(2)
P = jnp.asarray(RNG.standard_normal((DEPTH, WIDTH)) / 4, jnp.float32)
X = jnp.asarray(RNG.standard_normal((ROWS, DEPTH)), jnp.float32)
MOST = float(jnp.finfo(jnp.float32).max)


def answers(p: Any, x: Any) -> dict[str, Any]:
    z = jnp.tanh(x) @ p
    y, real = z * 1.1 + 0.3, jnp.arange(WIDTH) < REAL
    masked = jnp.where(real, y, -1e9)
    row = jnp.where(jnp.arange(ROWS) < 3, 1.0, 1e8)
    return {
        "masked": masked,
        "masked products": jnp.where(real, z, -1e9),
        "masked by infinity": jnp.where(real, y, -jnp.inf),
        "masked by the least number": jnp.where(real, y, -MOST),
        "masked in bfloat16": masked.astype(jnp.bfloat16),
        "masked by a choice": jnp.where(z >= jnp.sort(z)[:, 5:6], y, -1e9),
        "log of a masked softmax": nn.log_softmax(masked),
        "softmax": nn.softmax(20 * y),
        "padded": jnp.pad(y, ((0, 0), (2, 3)), constant_values=1e7)[:, 2:],
        "beside a constant": jnp.concatenate([y, jnp.full((ROWS, 1), 1e8)], axis=-1),
        "beside larger ones": jnp.concatenate([y, 1e7 * y], axis=-1),
        "padding of the batch": (y * row[:, None])[:, :REAL].reshape(-1),
    }


@functools.cache
def made() -> Run:
    return Run.of(answers, P, X, policy=Policy(draws=1))


NAMES = tuple(jax.eval_shape(answers, P, X))


def changed(name: str, by: float, column: int = 7) -> dict[str, Any]:
    y = {k: np.array(v) for k, v in made().y.items()}
    place = (1, column) if y[name].ndim > 1 else (column,)
    y[name][place] = (y[name][place].astype(np.float32) + by).astype(y[name].dtype)
    return y


def test_honest_answers_are_accepted_whatever_rounds_them():
    c = made()
    assert c.check(c.y, c.claims).verdict is Verdict.ACCEPT
    with jax.disable_jit():
        y, run = jax.device_get(c.program.execute(P, X))
        plain = jax.device_get(answers(P, X))
    assert c.check(y, run.values).verdict is Verdict.ACCEPT
    report = c.check(plain, c.claims)
    assert report.verdict is Verdict.ACCEPT, report
    assert report.worst < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_no_wrong_element_hides_behind_larger_ones(name: str):
    """Cheat: an answer off by a tenth, in bfloat16 by ten, beside an honest trace."""
    report = made().check(changed(name, 10 if "bfloat16" in name else 0.1), made().claims)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "output-mismatch"), report
    assert report.claim == f"output['{name}']"


@pytest.mark.parametrize("by", [np.inf, np.nan, MOST])
def test_an_infinity_is_the_verifiers_own_or_wrong(by: float):
    """Cheats: another number in place of an infinite mask, and infinity in place of a number."""
    y = changed("masked by infinity", by)
    assert made().check(y, made().claims).verdict is Verdict.REJECT
    y = changed("masked by infinity", 0, WIDTH - 1)
    y["masked by infinity"][1, WIDTH - 1] = np.nan if by == np.inf else by
    assert made().check(y, made().claims).verdict is not Verdict.ACCEPT


def test_a_row_whose_elements_are_of_one_size_is_held_to_its_norm():
    mine = jnp.asarray(RNG.standard_normal((2, 8)), jnp.float32)
    theirs = mine + 1e-4
    with jax.enable_x64(True):
        plain = compare(theirs, mine, 2.0**-12)
        bounds = 2.0**-12 * (jnp.abs(mine) + 2)
        both = compare(theirs, mine, 2.0**-12, bounds=lambda: bounds)
        exact = compare(theirs, mine, 2.0**-12, bounds=lambda: 1e-6 * bounds)
        nothing = compare(theirs, mine, 2.0**-12, bounds=lambda: bounds * np.nan)
        again = deviate(theirs, mine, 2.0**-12, bounds=lambda: 1e-6 * bounds)
    assert float(both.worst) == float(nothing.worst) == pytest.approx(float(plain.worst))
    assert float(plain.worst) < 1 < float(exact.worst)
    low, expected, limit = (np.asarray(x) for x in (again.low, again.expected, again.limit))
    off = np.linalg.norm(low - expected, axis=-1) / limit
    assert float(np.max(off)) == pytest.approx(float(exact.worst))
