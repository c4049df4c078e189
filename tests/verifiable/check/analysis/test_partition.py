"""The split of a check: what is counted as work, and what the key holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.contractions import equation_of
from tests.helpers.programs import FEW, PARAMS, ROWS, Case, X
from verifiable import program
from verifiable.check.analysis.arithmetic import work
from verifiable.report import Verdict


def test_work_of_everything_else_is_its_size():
    x = np.zeros((3, 7))
    assert work(equation_of(jnp.sin, x)) == 21
    assert work(equation_of(lambda x: lax.reduce_sum_p.bind(x, axes=(0,)), x)) == 21
    assert work(equation_of(lambda x: lax.transpose(x, (1, 0)), x)) == 0
    assert work(equation_of(lax.dot, x, x.T)) == 2 * 3 * 7 * 3


def uses(p: Any, x: Any) -> Any:
    """Three uses of a weight: two of its rows, one of its columns."""
    w = p["square"]
    return jnp.cos(jnp.tanh(x @ w) @ w) @ w.T


def test_one_projection_serves_every_use_of_a_weight():
    case = Case(uses, PARAMS, X)
    images = [name for name in case.key.arrays if name.endswith("/image")]
    assert len(case.program.claims) == 3 and len(images) == 2
    assert case.check().verdict is Verdict.ACCEPT
    for index in range(3):
        report = case.check(claims=case.changed(index, lambda c: np.add(c, 0.1, out=c)))
        assert report.verdict is Verdict.REJECT
        assert report.claim == case.program.claims[index].name


MASKS: dict[str, Callable[[], Any]] = {
    "causal": lambda: jnp.tril(jnp.ones((ROWS, ROWS), bool)),
    "window": lambda: abs(jnp.arange(ROWS)[:, None] - jnp.arange(ROWS)) < 3,
    "segments": lambda: jnp.repeat(jnp.arange(4), 2)[:, None] == jnp.repeat(jnp.arange(4), 2),
    "additive": lambda: jnp.triu(jnp.full((ROWS, ROWS), -1e9), 1) == 0,
    "dropout": lambda: jax.random.bernoulli(jax.random.key(0), 0.9, (ROWS, ROWS)),
    "dropout of a layer": lambda: jax.random.bernoulli(
        jax.random.split(jax.random.fold_in(jax.random.key(0), 2))[1], 0.9, (ROWS, ROWS)
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_are_rebuilt_and_not_kept(name: str):
    def attend(p: Any, x: Any) -> Any:
        scores = jnp.where(MASKS[name](), x @ x.T, -jnp.inf)
        return jax.nn.softmax(scores) @ x @ p["square"]

    assert program.compile(attend, PARAMS, X, policy=FEW).kept == {}
